"""Losses between layers: known values, gradients, sizes, the learned alignment."""

from __future__ import annotations

import math
from collections.abc import Callable

import pytest

torch = pytest.importorskip("torch")

from deploy.errors import ConfigError, TrainingError  # noqa: E402
from neurokd import losses as L  # noqa: E402, N812
from neurokd.feature_losses import Alignments, rates, same_size  # noqa: E402
from neurokd.outputs import Outputs  # noqa: E402

Tensor = torch.Tensor


def _features(seed: int, *shape: int) -> Tensor:
    return torch.rand(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def test_known_values() -> None:
    f_s, f_r = torch.tensor([[1.0, 0.0, 0.5]]), torch.tensor([[0.5, 0.5, 0.5]])
    assert L.feature(f_s, f_r).item() == pytest.approx(0.5 / 3)
    # Two channels on two pixels: means of squares (1, 0.5) and (0, 2).
    a = torch.tensor([[[[1.0, 1.0]], [[1.0, 0.0]]]])
    b = torch.tensor([[[[0.0, 2.0]]]])
    length = math.sqrt(1.25)
    assert L.attention(a, b).item() == pytest.approx((1 / length) ** 2 + (1 - 0.5 / length) ** 2)


def test_attention_sees_neither_width_nor_scale() -> None:
    a, b = _features(0, 3, 4, 5, 5), _features(1, 3, 7, 5, 5)
    value = L.attention(a, b).item()
    assert L.attention(3 * a, 0.2 * b).item() == pytest.approx(value, rel=1e-9)
    assert L.attention(torch.cat([a, a], 1), b).item() == pytest.approx(value, rel=1e-9)
    assert L.attention(a, a.flip(1)).item() == pytest.approx(0.0, abs=1e-12)
    assert 0 < value < 2
    apart = torch.zeros(1, 1, 1, 2, dtype=torch.float64)
    apart[..., 0] = 1
    assert L.attention(apart, apart.flip(-1)).item() == pytest.approx(2.0)


def test_a_silent_layer_costs_one_and_has_a_finite_gradient() -> None:
    silent = torch.zeros(2, 3, 4, 4, dtype=torch.float64, requires_grad=True)
    value = L.attention(silent, _features(0, 2, 3, 4, 4))
    (grad,) = torch.autograd.grad(value, silent)
    assert value.item() == pytest.approx(1.0)
    assert bool(torch.isfinite(grad).all())


@pytest.mark.parametrize("loss", [L.feature, L.attention])
def test_gradcheck(loss: Callable[[Tensor, Tensor], Tensor]) -> None:
    a, b = _features(0, 2, 3, 3, 2).requires_grad_(), _features(1, 2, 3, 3, 2).requires_grad_()
    assert torch.autograd.gradcheck(loss, (a, b))


def test_rates_and_sizes() -> None:
    spikes = (_features(0, 6, 2, 3, 4, 4) > 0.5).to(torch.bfloat16)
    assert rates(spikes).dtype == torch.float32
    torch.testing.assert_close(rates(spikes), spikes.float().mean(0))
    large, small = _features(0, 2, 3, 8, 8), _features(1, 2, 5, 4, 2)
    a, b = same_size(large, small)
    assert a.shape == (2, 3, 4, 2)
    assert torch.equal(b, small)
    torch.testing.assert_close(a, large.reshape(2, 3, 4, 2, 2, 4).mean((3, 5)))
    flat = _features(2, 2, 9)
    assert same_size(flat, flat) == (flat, flat)


def test_alignments_are_seeded_and_leave_the_generator_alone() -> None:
    torch.manual_seed(1)
    expected = torch.rand(1)
    torch.manual_seed(1)
    pairs = [("feature", (6, 4, 4), (9, 8, 8)), ("other", (5,), (7,))]
    one, two, three = Alignments(pairs, 3), Alignments(pairs, 3), Alignments(pairs, 4)
    assert torch.equal(torch.rand(1), expected)
    assert one.of("feature").weight.shape == (9, 6, 1, 1)
    assert one.of("other").weight.shape == (7, 5)
    assert torch.equal(one.of("other").weight, two.of("other").weight)
    assert not torch.equal(one.of("other").weight, three.of("other").weight)


def _told(*widths: int, seed: int = 0) -> Outputs:
    layers = {f"layer{n}": (_features(seed + n, 4, 2, width) > 0.5).float() for n, width in enumerate(widths)}
    return Outputs(layers=layers)


def test_evaluate_aligns_and_teaches_the_alignment() -> None:
    student, teacher = _told(6, 5, 3), _told(9, 8, 7, 3, seed=9)
    terms = L.parse_loss("feature,student=layer0,teacher=layer1+feature:2")
    shapes = [{name: tuple(value.shape[2:]) for name, value in told.layers.items()} for told in (student, teacher)]
    alignments = L.alignments_for(terms, *shapes, seed=0)
    total, parts = L.evaluate(terms, student, teacher, alignments=alignments)
    first = L.feature(
        alignments.of(terms[0].key)(student.layers["layer0"].mean(0)), teacher.layers["layer1"].mean(0)
    ).item()
    second = L.feature(alignments.of("feature")(student.layers["layer1"].mean(0)), teacher.layers["layer2"].mean(0))
    assert parts == {terms[0].key: pytest.approx(first), "feature": pytest.approx(second.item())}
    assert total.item() == pytest.approx(first + 2 * second.item())
    total.backward()
    assert all(parameter.grad.abs().sum() > 0 for parameter in alignments.parameters())


def test_without_anything_to_learn_there_is_no_alignment() -> None:
    shapes = {"conv1": (4, 5, 5), "dense2": (3,)}
    assert L.alignments_for(L.parse_loss("attention+ce"), shapes, shapes, seed=0) is None
    assert L.alignments_for(L.parse_loss("feature,align=none"), shapes, shapes, seed=0) is None
    assert L.alignments_for(L.parse_loss("attention,align=learned"), shapes, shapes, seed=0) is not None


def test_names_of_layers_are_kept_as_text() -> None:
    (term,) = L.parse_loss("feature:0.5,student=conv1,teacher=3.10")
    assert dict(term.options) == {"student": "conv1", "teacher": "3.10"}
    assert L.parse_loss(str(term)) == (term,)


SHAPES = {"conv1": (4, 5, 5), "dense2": (3,)}


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: L.feature(torch.zeros(2, 3), torch.zeros(2, 4)), "do not have one shape"),
        (lambda: L.attention(torch.zeros(2, 3), torch.zeros(2, 3)), "needs a layer with an image"),
        (lambda: L.attention(torch.zeros(2, 3, 4, 4), torch.zeros(2, 3)), "needs a layer with an image"),
        (lambda: L.attention(torch.zeros(2, 3, 4, 4), torch.zeros(2, 3, 5, 5)), "do not have one shape"),
        (lambda: L.alignments_for(L.parse_loss("feature,student=x"), SHAPES, SHAPES, 0), "student has no such layer"),
        (lambda: L.alignments_for(L.parse_loss("feature,teacher=x"), SHAPES, SHAPES, 0), "teacher has no such layer"),
        (lambda: L.alignments_for(L.parse_loss("feature"), {"out": (3,)}, SHAPES, 0), "student has no such layer"),
        (lambda: L.alignments_for(L.parse_loss("feature,teacher=dense2"), SHAPES, SHAPES, 0), "cannot be aligned"),
        (lambda: L.evaluate(L.parse_loss("feature"), _told(6, 3), _told(6, 3)), "needs more than it was given"),
        (lambda: L.evaluate(L.parse_loss("feature"), torch.zeros(4, 2, 3)), "needs more than it was given"),
    ],
)
def test_layers_that_do_not_fit(call: Callable[[], object], message: str) -> None:
    with pytest.raises(TrainingError, match=message):
        call()


@pytest.mark.parametrize("text", ["feature,align=maybe", "feature,student=", "attention,layer=conv1"])
def test_options_that_make_no_sense(text: str) -> None:
    with pytest.raises(ConfigError):
        L.parse_loss(text)
    with pytest.raises(ConfigError, match="not the name of a layer"):
        L.LossTerm("feature", options={"teacher": 3})
