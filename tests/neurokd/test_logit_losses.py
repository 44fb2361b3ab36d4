"""Losses on logits: known values, limits, gradients, errors; and the logits a spiking network gives."""

from __future__ import annotations

import math
from collections.abc import Callable

import pytest

torch = pytest.importorskip("torch")

from torch.nn import functional  # noqa: E402

from deploy.errors import ConfigError, TrainingError  # noqa: E402
from neurokd import losses as L  # noqa: E402, N812
from neurokd.network import SpikingNetwork, build  # noqa: E402
from neurokd.outputs import Outputs  # noqa: E402

Tensor = torch.Tensor
PAIRS: dict[str, Callable[[Tensor, Tensor], Tensor]] = {
    "kl": L.logit_kl,
    "kl-4": lambda s, r: L.logit_kl(s, r, temperature=4.0),
    "mse": L.logit_mse,
    "mix": L.logit_mix,
    "reverse": lambda s, r: L.logit_mix(s, r, temperature=1.0, reverse=1.0),
}


def _logits(seed: int, batch: int = 4, classes: int = 3) -> Tensor:
    return torch.randn(batch, classes, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def _softmax(*logits: float) -> list[float]:
    total = sum(math.exp(x) for x in logits)
    return [math.exp(x) / total for x in logits]


def _kl(p: list[float], q: list[float]) -> float:
    return sum(a * math.log(a / b) for a, b in zip(p, q, strict=True))


STUDENT = torch.tensor([[1.0, -1.0, 0.0]], dtype=torch.float64)
TEACHER = torch.tensor([[3.0, 1.0, -1.0]], dtype=torch.float64)


def test_known_values() -> None:
    one, two = _softmax(0.5, -0.5, 0.0), _softmax(1.5, 0.5, -0.5)
    assert L.logit_kl(STUDENT, TEACHER).item() == pytest.approx(4 * _kl(two, one), rel=1e-12)
    mixed = 4 * (0.75 * _kl(two, one) + 0.25 * _kl(one, two))
    assert L.logit_mix(STUDENT, TEACHER, reverse=0.25).item() == pytest.approx(mixed, rel=1e-12)
    # The difference is (2, 2, -1), less its mean (1, 1, -2).
    assert L.logit_mse(STUDENT, TEACHER).item() == pytest.approx(2.0, rel=1e-12)
    assert L.logit_ce(STUDENT, torch.tensor([2])).item() == pytest.approx(-math.log(_softmax(1, -1, 0)[2]), rel=1e-12)


def test_known_values_of_steps() -> None:
    steps = torch.cat([STUDENT, 2 * STUDENT])[:, None, :]
    each = [L.logit_ce(z, torch.tensor([1])).item() for z in steps]
    assert L.step_ce(steps, torch.tensor([1])).item() == pytest.approx(sum(each) / 2, rel=1e-12)
    each = [L.logit_kl(z, TEACHER, temperature=3.0).item() for z in steps]
    assert L.step_kl(steps, TEACHER, temperature=3.0).item() == pytest.approx(sum(each) / 2, rel=1e-12)
    several = torch.stack([_logits(0), _logits(1), _logits(2)])
    each = [L.logit_kl(z, _logits(3)).item() for z in several]
    assert L.step_kl(several, _logits(3)).item() == pytest.approx(sum(each) / 3, rel=1e-12)
    shares = torch.tensor([[0.5, 0.5, 0], [0, 1, 0], [0, 0, 1], [1, 0, 0]])
    each = [L.logit_ce(z, shares).item() for z in several]
    assert L.step_ce(several, shares).item() == pytest.approx(sum(each) / 3, rel=1e-12)
    assert L.step_kl(several[:1], several[0]).item() == pytest.approx(0.0, abs=1e-15)


def test_kl_is_torchs_own() -> None:
    s, r = _logits(0), _logits(1)
    own = functional.kl_div((s / 3).log_softmax(1), (r / 3).softmax(1), reduction="batchmean") * 9
    assert L.logit_kl(s, r, temperature=3.0).item() == pytest.approx(own.item(), rel=1e-12)


def test_shares_of_classes_as_labels() -> None:
    s, shares = _logits(0), torch.tensor([[0.7, 0.3, 0.0], [0, 1, 0], [0, 0, 1], [0.5, 0, 0.5]], dtype=torch.float64)
    mixed = sum(
        float(shares[b, c]) * L.logit_ce(s[b : b + 1], torch.tensor([c])).item() for b in range(4) for c in range(3)
    )
    assert L.logit_ce(s, shares).item() == pytest.approx(mixed / 4, rel=1e-12)
    hard = torch.tensor([0, 1, 2, 0])
    assert L.logit_ce(s, functional.one_hot(hard, 3).double()).item() == pytest.approx(L.logit_ce(s, hard).item())
    sat = torch.rand(5, 4, 3, dtype=torch.float64)
    for loss in (L.cross_entropy, L.temporal_ce):
        assert loss(sat, functional.one_hot(hard, 3).double()).item() == pytest.approx(loss(sat, hard).item())


def test_relations() -> None:
    s, r = _logits(0), _logits(1)
    assert L.logit_mix(s, r, reverse=0.0).item() == L.logit_kl(s, r).item()
    assert L.logit_mix(s, r, reverse=1.0).item() == pytest.approx(L.logit_kl(r, s).item(), rel=1e-12)
    assert L.logit_mse(s + 5.0, r).item() == pytest.approx(L.logit_mse(s, r).item(), rel=1e-9)
    assert 2 * L.logit_kl(s, r, temperature=1e4).item() == pytest.approx(L.logit_mse(s, r).item(), rel=1e-3)
    for name, loss in PAIRS.items():
        assert loss(s, s.clone()).item() == pytest.approx(0.0, abs=1e-15), name
        assert loss(s, r).item() > 0, name


@pytest.mark.parametrize("name", PAIRS)
def test_gradcheck(name: str) -> None:
    s, r = _logits(2).requires_grad_(), _logits(3).requires_grad_()
    assert torch.autograd.gradcheck(PAIRS[name], (s, r))


def test_gradcheck_on_labels() -> None:
    s, labels = _logits(2).requires_grad_(), torch.tensor([0, 2, 1, 1])
    assert torch.autograd.gradcheck(lambda z: L.logit_ce(z, labels), (s,))
    steps = torch.stack([_logits(2), _logits(5)]).requires_grad_()
    assert torch.autograd.gradcheck(lambda z: L.step_ce(z, labels), (steps,))
    assert torch.autograd.gradcheck(lambda z, r: L.step_kl(z, r), (steps, _logits(3).requires_grad_()))


def test_narrow_logits_are_widened() -> None:
    s, r = _logits(0).bfloat16(), _logits(1).bfloat16()
    for loss in PAIRS.values():
        assert loss(s, r).dtype == torch.float32


Z = torch.zeros(2, 3)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: L.logit_kl(Z, torch.zeros(2, 4)), "different numbers of classes"),
        (lambda: L.logit_mse(Z, torch.zeros(3, 3)), "not of the same samples"),
        (lambda: L.logit_kl(Z[0], Z[0]), "have the shape"),
        (lambda: L.logit_mix(Z, Z.long()), "floating point"),
        (lambda: L.logit_ce(Z, torch.tensor([0])), "labels do not fit"),
        (lambda: L.logit_ce(Z, torch.tensor([0, 3])), "not one of the network's classes"),
        (lambda: L.logit_ce(Z, torch.full((2, 3), 0.5)), "labels do not fit"),
        (lambda: L.logit_ce(Z, torch.tensor([[1.5, -0.5, 0], [1, 0, 0]])), "labels do not fit"),
        (lambda: L.step_ce(Z, torch.tensor([0, 1])), "has the shape"),
        (lambda: L.step_ce(torch.zeros(4, 2, 3), torch.tensor([0, 1, 2])), "labels do not fit"),
        (lambda: L.step_kl(Z, Z), "has the shape"),
        (lambda: L.step_kl(torch.zeros(4, 2, 3), torch.zeros(2, 4)), "different numbers of classes"),
        (lambda: L.step_kl(torch.zeros(4, 2, 3), torch.zeros(3, 3)), "not of the same samples"),
        (lambda: L.evaluate(L.parse_loss("step-kl"), Outputs(currents=torch.zeros(4, 2, 3))), "needs more than"),
        (lambda: L.evaluate(L.parse_loss("logit-kl"), torch.zeros(4, 2, 3), torch.zeros(4, 2, 3)), "needs more than"),
        (lambda: L.evaluate(L.parse_loss("logit-kl"), Outputs(logits=Z)), "needs more than"),
    ],
)
def test_data_that_does_not_fit(call: Callable[[], object], message: str) -> None:
    with pytest.raises(TrainingError, match=message):
        call()


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: L.logit_kl(Z, Z, temperature=0.0), "temperature is not a positive number"),
        (lambda: L.step_kl(torch.zeros(4, 2, 3), Z, temperature=0.0), "temperature is not a positive number"),
        (lambda: L.logit_mix(Z, Z, temperature=-1.0), "temperature is not a positive number"),
        (lambda: L.logit_mix(Z, Z, reverse=1.5), "reverse is out of range"),
        (lambda: L.parse_loss("logit-kl,temperature=-4"), "temperature is not a positive number"),
        (lambda: L.parse_loss("logit-mix,reverse=2"), "reverse is out of range"),
        (lambda: L.parse_loss("logit-mse,temperature=2"), "no such option"),
    ],
)
def test_options_that_make_no_sense(call: Callable[[], object], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        call()


# What a network tells


def _network(spec: str = "6-5-4", **options: object) -> SpikingNetwork:
    network = build(spec, **{"steps": 5, "seed": 2, **options}).eval()
    with torch.no_grad():
        for layer in network.spiking_layers():
            for tensor in (layer.synapse.bias, getattr(layer.neuron, "bias", None)):
                if tensor is not None:
                    tensor.uniform_(-0.5, 0.5)
    return network


KINDS = [
    {"neuron": neuron, "norm": norm, "beta": 0.8, "threshold": 0.7}
    for neuron in ("lif", "cuba")
    for norm in (True, False)
]


@pytest.mark.parametrize("options", KINDS)
@pytest.mark.parametrize("held", [True, False])
@pytest.mark.parametrize("spec", ["6-5-4", "6-4", "3x4x2-3c3p1-p2-4"])
def test_outputs_are_those_of_forward(options: dict[str, object], held: bool, spec: str) -> None:
    network = _network(spec, **options)
    shape = network.spec.input_shape
    x = torch.rand(3, *shape) if held else (torch.rand(5, 3, *shape) > 0.4).float()
    told = network.outputs(x, want=("logits", "currents", "membranes", "layers"))
    sat, layers = network(x, record=True)
    assert torch.equal(told.sat, sat)
    assert told.layers.keys() == layers.keys()
    assert all(torch.equal(told.layers[name], spikes) for name, spikes in layers.items())
    assert torch.equal(told.membranes > 1.0, sat > 0)
    assert told.logits.shape == (3, 4)
    assert told.currents.shape == told.membranes.shape == (5, 3, 4)
    torch.testing.assert_close(told.currents.mean(0), told.logits)
    fewer = network.outputs(x)
    assert torch.equal(fewer.sat, sat)
    assert fewer.has == {"sat", "logits"}


@pytest.mark.parametrize("options", KINDS)
def test_logits_are_the_mean_current_of_the_folded_output_layer(options: dict[str, object]) -> None:
    network = _network(**options)
    x = torch.rand(3, 6)
    told = network.outputs(x, want=("logits", "layers"))
    weight, bias = (part.float() for part in network.spiking_layers()[-1].folded())
    expected = functional.linear(told.layers["dense1"].mean(0), weight) + bias.reshape(-1)
    torch.testing.assert_close(told.logits, expected, rtol=1e-5, atol=1e-6)


def test_membranes_of_a_lif_by_hand() -> None:
    network = build("1-1", steps=4, beta=0.5, threshold=2.0, norm=False)
    with torch.no_grad():
        network.layers[0].synapse.weight.fill_(1.5)
    told = network.outputs(torch.ones(1, 1), want=("membranes",))
    # v: 1.5; 2.25 spikes, 0; 1.5; 2.25: in thresholds of 2
    assert told.membranes.flatten().tolist() == pytest.approx([0.75, 1.125, 0.75, 1.125])
    assert told.sat.flatten().tolist() == [0, 1, 0, 1]


def test_gradients_reach_the_weights_through_each_output() -> None:
    network = _network(norm=True).train()
    for name in ("logits", "currents", "membranes"):
        network.zero_grad()
        getattr(network.outputs(torch.rand(8, 6), want=(name,)), name).square().sum().backward()
        assert all(layer.synapse.weight.grad.abs().sum() > 0 for layer in network.spiking_layers()), name


def test_the_membranes_path_has_the_gradient_of_the_fused_one() -> None:
    network = _network(neuron="cuba").train()
    x, grads = torch.rand(8, 6), []
    for want in ((), ("membranes",)):
        network.zero_grad()
        told = network.outputs(x, want=want)
        (told.sat * torch.linspace(-1, 1, 4)).sum().backward()
        grads.append(torch.cat([p.grad.flatten() for p in network.parameters()]))
    torch.testing.assert_close(grads[0], grads[1], rtol=1e-4, atol=1e-6)


def test_what_no_network_can_tell() -> None:
    with pytest.raises(TrainingError, match="cannot be asked for this"):
        _network().outputs(torch.rand(3, 6), want=("spikes",))
