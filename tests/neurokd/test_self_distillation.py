"""Losses between time steps, the entropy regulariser and the membrane loss: known values, gradients, direction."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from deploy.errors import ConfigError, TrainingError  # noqa: E402
from neurokd import losses as L  # noqa: E402, N812
from neurokd.config_parts import StageConfig  # noqa: E402
from neurokd.data import load  # noqa: E402
from neurokd.encoding import Encoding  # noqa: E402
from neurokd.loop import fit  # noqa: E402
from neurokd.network import build  # noqa: E402

Tensor = torch.Tensor
ALONE: dict[str, Callable[[Tensor], Tensor]] = {
    "ensemble": L.self_ensemble,
    "ensemble-4": lambda z: L.self_ensemble(z, temperature=4.0),
    "strong": L.self_pair,
    "weak": lambda z: L.self_pair(z, way="weak-to-strong"),
    "both": lambda z: L.self_pair(z, way="both", temperature=1.0),
    "entropy": L.entropy,
}


def _steps(seed: int, shape: tuple[int, int, int] = (5, 4, 3)) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def _softmax(*logits: float) -> list[float]:
    total = sum(math.exp(x) for x in logits)
    return [math.exp(x) / total for x in logits]


def _kl(p: list[float], q: list[float]) -> float:
    return sum(a * math.log(a / b) for a, b in zip(p, q, strict=True))


# One sample, two classes, three steps; the second step is the surest, the first the least sure.
STEPS = torch.tensor([[[0.0, 0.0]], [[4.0, 0.0]], [[0.0, 2.0]]], dtype=torch.float64)


def test_known_values() -> None:
    mean = (4 / 3, 2 / 3)
    each = [_kl(_softmax(*(x / 2 for x in mean)), _softmax(a / 2, b / 2)) for a, b in ((0, 0), (4, 0), (0, 2))]
    assert L.self_ensemble(STEPS).item() == pytest.approx(4 * sum(each) / 3, rel=1e-12)
    strong, weak = _softmax(2, 0), _softmax(0, 0)
    assert L.self_pair(STEPS).item() == pytest.approx(4 * _kl(strong, weak), rel=1e-12)
    assert L.self_pair(STEPS, way="weak-to-strong").item() == pytest.approx(4 * _kl(weak, strong), rel=1e-12)
    both = L.self_pair(STEPS, way="both").item()
    assert both == pytest.approx(2 * (_kl(strong, weak) + _kl(weak, strong)), rel=1e-12)
    entropies = [-sum(p * math.log(p) for p in _softmax(*z)) for z in ((0, 0), (4, 0), (0, 2))]
    assert L.entropy(STEPS).item() == pytest.approx(math.log(2) - sum(entropies) / 3, rel=1e-12)
    v_s, v_r = torch.tensor([[[0.5, 1.5]]]), torch.tensor([[[1.0, 1.0]]])
    assert L.membrane(v_s, v_r).item() == pytest.approx(0.25)


def test_the_steps_of_each_sample_are_its_own() -> None:
    other = STEPS[[2, 0, 1]]
    pair = torch.cat([STEPS, other], 1)
    for name, loss in ALONE.items():
        assert loss(pair).item() == pytest.approx(loss(STEPS).item(), rel=1e-12), name


def test_steps_that_agree_cost_nothing() -> None:
    same = _steps(0, (1, 4, 3)).expand(5, 4, 3)
    for name in ("ensemble", "strong", "weak", "both"):
        assert ALONE[name](same).item() == pytest.approx(0.0, abs=1e-15)
        assert ALONE[name](same[:1]).item() == pytest.approx(0.0, abs=1e-15)
        assert ALONE[name](_steps(0)).item() > 0
    assert L.entropy(torch.zeros(3, 2, 4)).item() == pytest.approx(0.0, abs=1e-7)


def test_only_the_taught_step_gets_a_gradient() -> None:
    for way, taught in (("strong-to-weak", 0), ("weak-to-strong", 1)):
        steps = STEPS.clone().requires_grad_()
        (grad,) = torch.autograd.grad(L.self_pair(steps, way=way), steps)
        moved = (grad.abs().sum((1, 2)) > 1e-9).tolist()
        assert moved == [place == taught for place in range(3)]


def test_the_ensemble_is_no_pupil_of_its_own() -> None:
    """The gradient is that with the ensemble held fixed."""
    steps, fixed = _steps(1).requires_grad_(), (_steps(1) / 2).mean(0).softmax(-1)
    (grad,) = torch.autograd.grad(L.self_ensemble(steps), steps)
    by_hand = 4 * ((_steps(1) / 2).softmax(-1) - fixed) / 2 / 20
    torch.testing.assert_close(grad, by_hand, rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("name", ["entropy"])
def test_gradcheck(name: str) -> None:
    assert torch.autograd.gradcheck(ALONE[name], (_steps(2, (3, 2, 3)).requires_grad_(),))


def test_gradcheck_of_what_teaches_with_its_teacher_fixed() -> None:
    """Finite differences move the detached teacher too, so the teaching steps are held and the taught one moves."""
    held = STEPS.clone()

    def loss(weak: Tensor) -> Tensor:
        return L.self_pair(torch.cat([weak, held[1:]]))

    assert torch.autograd.gradcheck(loss, (held[:1].clone().requires_grad_(),), atol=1e-6)
    assert torch.autograd.gradcheck(L.membrane, (_steps(3).requires_grad_(), _steps(4).requires_grad_()))


def test_membranes_of_other_t_are_compared_at_the_smaller() -> None:
    terms = L.parse_loss("membrane")
    long, short = _steps(0, (6, 4, 3)), _steps(1, (3, 4, 3))
    total, _ = L.evaluate(terms, L_outputs(long), L_outputs(short))
    assert total.item() == pytest.approx(L.membrane(long.reshape(3, 2, 4, 3).mean(1), short).item(), rel=1e-12)


def L_outputs(membranes: Tensor) -> object:  # noqa: N802
    from neurokd.outputs import Outputs

    return Outputs(membranes=membranes)


@pytest.mark.parametrize("loss", ["ce+self-ensemble", "ce+self-pair,way=both", "ce+entropy:0.1", "temporal-ce+entropy"])
def test_they_need_no_teacher_and_train(loss: str) -> None:
    data = load("digits")
    data = dataclasses.replace(data, train=data.train.take(np.arange(640)))
    terms = L.parse_loss(loss)
    assert L.needs(terms) == {"labels", "currents"}
    student = build("64-32-10", steps=4, input_bits=4)
    code, stage = Encoding("direct", 4, 4, raw_levels=16), StageConfig(epochs=6, batch=64, lr=5e-3)
    assert fit(student, data, code, stage, loss_terms=terms).accuracy > 60


Z = torch.zeros(4, 2, 3)


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (lambda: L.self_ensemble(Z[0]), TrainingError, "has the shape"),
        (lambda: L.self_pair(Z[0]), TrainingError, "has the shape"),
        (lambda: L.entropy(Z.long()), TrainingError, "floating point"),
        (lambda: L.membrane(Z, torch.zeros(4, 2, 4)), TrainingError, "different numbers of classes"),
        (lambda: L.membrane(Z, Z[:2]), TrainingError, "do not have one shape"),
        (lambda: L.self_ensemble(Z, temperature=0), ConfigError, "temperature is not a positive"),
        (lambda: L.self_pair(Z, temperature=-1.0), ConfigError, "temperature is not a positive"),
        (lambda: L.self_pair(Z, way="up"), ConfigError, "unknown way"),
        (lambda: L.parse_loss("self-pair,way=up"), ConfigError, "unknown way"),
    ],
)
def test_bad_input(call: Callable[[], object], error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        call()
