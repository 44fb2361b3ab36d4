"""Learned thresholds, decays and scales: gradients of the float twin, integers of the chip, spikes of the simulator."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytestmark = pytest.mark.usefixtures("one_thread")
torch = pytest.importorskip("torch", reason="the training side needs torch")

from deploy.errors import ConfigError  # noqa: E402
from deploy.lower import lower  # noqa: E402
from neurokd import losses  # noqa: E402
from neurokd.config_parts import StageConfig  # noqa: E402
from neurokd.data import Dataset  # noqa: E402
from neurokd.encoding import Encoding  # noqa: E402
from neurokd.export import to_graph  # noqa: E402
from neurokd.feed import Feed, accuracy  # noqa: E402
from neurokd.integers import NeuronRule, spikes_of  # noqa: E402
from neurokd.layer_grid import MEMORYLESS, LayerGrid  # noqa: E402
from neurokd.learned_grid import LEARNABLE, LearnedGrid, Moving  # noqa: E402
from neurokd.lif_scans import channels_inside  # noqa: E402
from neurokd.loop import fit  # noqa: E402
from neurokd.network import SpikingNetwork, build  # noqa: E402
from neurokd.neurons import cuba_lif, lif  # noqa: E402
from neurokd.quantize import fine_tune, load, quantize, save, tune  # noqa: E402
from neurokd.quantized import QuantizedNetwork  # noqa: E402
from neurokd.rounding import to_integers  # noqa: E402
from neurokd.surrogates import Surrogate  # noqa: E402
from neurokd.testing import differing_spikes, simulated  # noqa: E402

ENCODING = Encoding("direct", 4, 5, raw_levels=16)
STAGE = StageConfig(epochs=2, batch=64, lr=3e-3, weight_decay=0.0, loss="ce")


@pytest.fixture(scope="module")
def student(digits: Dataset) -> SpikingNetwork:
    net = build("64-24-10", steps=5, input_bits=4, surrogate="triangular", neuron=["cuba", "lif"])
    stage = dataclasses.replace(STAGE, epochs=8, lr=5e-3)
    fit(net, digits, ENCODING, stage, loss_terms=losses.parse_loss("ce"))
    return net.eval()


def grid(du: int = MEMORYLESS) -> LayerGrid:
    """A threshold of 1.0 in 2,000 units: integers and floats are then the same to a few thousandths."""
    return LayerGrid(1 / 2000, 1.0, 0, 8, "mixed", 2000, du, 400)


# Gradients --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("held", [False, True])
@pytest.mark.parametrize("du", [MEMORYLESS, 1000])
@pytest.mark.parametrize("detach", [False, True])
def test_gradients_are_those_of_the_float_neuron(held: bool, du: int, detach: bool) -> None:
    rng = torch.Generator().manual_seed(0)
    fixed = grid(du)
    shape = (4, 3, 2, 2) if held else (6, 4, 3, 2, 2)
    sums = (torch.rand(shape, generator=rng) * 1500).round().requires_grad_()
    bias = (torch.randn(3, generator=rng) * 4000).round().requires_grad_()
    steps = 6 if held else None
    upstream = torch.randn((6, 4, 3, 2, 2), generator=rng)
    surrogate = Surrogate("fast_sigmoid", 2.0)
    vth, beta, alpha = (torch.tensor(v, requires_grad=True) for v in (2000.0, fixed.beta, max(fixed.alpha, 0.0)))
    moving = Moving(vth, beta, alpha if du != MEMORYLESS else None)
    ours = spikes_of(sums, bias, NeuronRule(fixed, surrogate, detach), steps, moving)
    (ours * upstream).sum().backward()

    current, spread = sums.detach().clone().requires_grad_(), bias.detach().clone().requires_grad_()
    threshold, decay, filtered = (torch.tensor(v, requires_grad=True) for v in (1.0, fixed.beta, fixed.alpha))
    common: dict[str, Any] = {
        "beta": decay, "threshold": threshold, "steps": steps, "surrogate": surrogate, "detach_reset": detach,
        "fused": False,
    }  # fmt: skip
    added = spread.view(3, 1, 1) * fixed.bias_unit
    if du == MEMORYLESS:
        theirs = lif(current * fixed.scale + added, **common)[0]
    else:
        theirs = cuba_lif(current * fixed.scale, alpha=filtered, bias=added, **common)[0]
    (theirs * upstream).sum().backward()
    assert torch.equal(ours, theirs)
    assert bool(ours.any())
    pairs = [(sums, current, 1.0), (bias, spread, 1.0), (vth, threshold, fixed.scale), (beta, decay, 1.0)]
    pairs += [(alpha, filtered, 1.0)] if du != MEMORYLESS else []
    for mine, other, factor in pairs:
        torch.testing.assert_close(
            mine.grad, other.grad * factor, rtol=0.02, atol=0.02 * float(other.grad.abs().max()) * factor
        )


@pytest.mark.parametrize("held", [False, True])
@pytest.mark.parametrize("du", [MEMORYLESS, 1000])
@pytest.mark.parametrize("learned", [False, True])
def test_images_channels_last_give_the_same_and_stay_so(held: bool, du: int, learned: bool) -> None:
    rng = torch.Generator().manual_seed(1)
    rule, steps = NeuronRule(grid(du), Surrogate("fast_sigmoid", 2.0)), 6 if held else None
    lead = (4,) if held else (6, 4)
    first = (torch.rand((*lead, 3, 2, 5), generator=rng) * 1500).round()
    last = first.movedim(-3, -1).contiguous().movedim(-1, -3)
    bias, upstream = torch.tensor([-9000.0, 0.0, 9000.0]), torch.randn((6, 4, 3, 2, 5), generator=rng)

    def run(sums: torch.Tensor) -> tuple[torch.Tensor, list[torch.Tensor]]:
        moving = Moving(torch.tensor(2000.0), torch.tensor(rule.grid.beta), torch.tensor(max(rule.grid.alpha, 0.0)))
        wanted = [sums.detach().requires_grad_(), bias.clone().requires_grad_()]
        wanted += [moving.vth.requires_grad_(), moving.beta.requires_grad_()] if learned else []
        wanted += [moving.alpha.requires_grad_()] if learned and du != MEMORYLESS else []
        spikes = spikes_of(wanted[0], wanted[1], rule, steps, moving if learned else None)
        return spikes, list(torch.autograd.grad((spikes * upstream).sum(), wanted))

    (spikes, grads), (others, theirs) = run(first), run(last)
    assert torch.equal(spikes, others)
    assert 0.1 < float(spikes.detach().mean()) < 0.9
    assert not torch.equal(spikes.mean([0, 1, 3, 4]), spikes.mean().expand(3))
    assert channels_inside(others, 2)
    assert channels_inside(theirs[0], len(lead))
    for mine, other in zip(grads, theirs, strict=True):  # summed in another order
        torch.testing.assert_close(mine, other, rtol=1e-3, atol=1e-6 * float(mine.abs().max()))
    with torch.no_grad():
        assert torch.equal(spikes_of(last, bias, rule, steps), spikes)


def test_the_scale_moves_weights_and_biases(student: SpikingNetwork) -> None:
    network = to_integers(student)
    layer = network.quantized_layers()[1]
    before = layer.integer_weights().detach()
    layer.learn({"scale"})
    assert layer.learned is not None
    assert torch.equal(layer.integer_weights().detach(), before)
    layer.integer_weights().sum().backward()
    inside = (layer.weight / layer.grid.weight_unit).detach()
    inside = inside[(inside > -256) & (inside < 254)]
    assert float(layer.learned.raw_scale.grad) == pytest.approx(-float(inside.sum()), rel=1e-3)
    with torch.no_grad():
        layer.learned.raw_scale.fill_(2.0)
    assert layer.grid.scale == pytest.approx(2 * layer.learned.base.scale)
    assert float(layer.integer_weights().detach().abs().sum()) == pytest.approx(float(before.abs().sum()) / 2, rel=0.02)


def test_what_is_learned_stays_on_the_chip() -> None:
    base = LayerGrid(0.01, 1.0, 0, 8, "mixed", 100_000, 1000, 0)
    learned = LearnedGrid(base, LEARNABLE, cuba=True)
    assert learned.now(learned.moving()) == dataclasses.replace(base, dv=1)  # a learned beta is at most 4095/4096
    for far in (-9.0, 9.0):
        with torch.no_grad():
            for raw in learned.parameters():
                raw.fill_(far)
        now = learned.now(learned.moving())
        assert 1 <= now.vth <= 131071
        assert 0 <= now.dv <= 4095
        assert 0 <= now.du <= 4094


# Training ---------------------------------------------------------------------------------------------------------


@pytest.mark.train
@pytest.mark.parametrize("names", [("threshold",), ("decays",), ("scale",), LEARNABLE])
def test_learned_integers_are_what_the_chip_runs(
    names: tuple[str, ...], digits: Dataset, student: SpikingNetwork, tmp_path: Path
) -> None:
    start = to_integers(student, weight_bits=4)
    network, result = fine_tune(student, digits, ENCODING, STAGE, weight_bits=4, learn=names)
    assert result.validation == accuracy(network, Feed(digits.validation, ENCODING))  # freezing changes no spike
    changed = {
        field for layer, old in zip(network.quantized_layers(), start.quantized_layers(), strict=True)
        for field in ("vth", "du", "dv", "scale") if getattr(layer.grid, field) != getattr(old.grid, field)
    }  # fmt: skip
    expected = {"threshold": {"vth"}, "decays": {"dv", "du"}, "scale": {"scale"}}
    assert changed == set().union(*(expected[name] for name in names))
    x = torch.from_numpy(ENCODING.encode(digits.test.images[:50], np.arange(50))).float().flatten(1) / 15
    trace = simulated(lower(to_graph(network)), network, x)
    assert set(differing_spikes(trace, network, x).values()) == {0}
    save(tmp_path / "q.safetensors", network)
    again = load(tmp_path / "q.safetensors")
    assert again.grids == network.grids
    assert torch.equal(again.sat(x), network.sat(x))


def test_an_unfrozen_student_is_saved_as_it_computes(student: SpikingNetwork, tmp_path: Path) -> None:
    network = to_integers(student, weight_bits=4)
    network.learn(LEARNABLE)
    with torch.no_grad():
        for layer in network.quantized_layers():
            assert layer.learned is not None
            for raw in layer.learned.parameters():
                raw.mul_(0.93)
    network.eval()
    save(tmp_path / "q.safetensors", network)
    x = torch.rand(20, 64).mul(15).round() / 15
    again = load(tmp_path / "q.safetensors")
    assert bool(network.sat(x).any())
    assert torch.equal(again.sat(x), network.sat(x))
    assert not torch.equal(to_integers(student, weight_bits=4).sat(x), network.sat(x))
    assert [x.vth for x in again.grids.values()] != [x.vth for x in to_integers(student, weight_bits=4).grids.values()]


@pytest.mark.train
def test_a_gradual_schedule_ends_on_the_chip(digits: Dataset, student: SpikingNetwork, tmp_path: Path) -> None:
    network, result = fine_tune(
        student, digits, ENCODING, STAGE, weight_bits=2, float_epochs=1, fake_epochs=2, checkpoint_dir=tmp_path
    )
    assert {layer.arithmetic for layer in network.quantized_layers()} == {"exact"}
    assert len(result.history) == 2
    assert (tmp_path / "float").is_dir()
    assert (tmp_path / "fake").is_dir()
    assert result.validation > accuracy(to_integers(student, weight_bits=2), Feed(digits.validation, ENCODING))


@pytest.mark.parametrize("neuron", ["lif", "cuba"])
def test_float_arithmetic_is_the_folded_student(neuron: str) -> None:
    student = build("8x8x1-4c3-p2-10", steps=5, input_bits=4, neuron=neuron).eval()
    network = to_integers(student).train()
    x = torch.rand(6, 1, 8, 8).mul(15).round() / 15
    network.compute("float")
    assert float((network.sat(x) != student.folded().sat(x)).float().mean()) < 0.002
    network.compute("fake")
    exact = network.eval().sat(x)
    fake = network.train().sat(x)
    assert bool(exact.any())
    assert float((fake != exact).float().mean()) < 0.02


def test_pruned_weights_stay_zero_in_every_arithmetic(student: SpikingNetwork) -> None:
    network: QuantizedNetwork = to_integers(student).train()
    layer = network.quantized_layers()[0]
    layer.prune(torch.zeros_like(layer.weight))
    x = torch.rand(6, 64)
    for arithmetic in ("float", "fake", "exact"):
        network.compute(arithmetic)  # type: ignore[arg-type]
        with torch.no_grad():
            layer.weight.fill_(1.0)  # as an optimizer with momentum might
        bias_only = layer(torch.zeros(6, 64), 5)
        assert torch.equal(layer((x * 15).round(), 5), bias_only)


# Refused, and chosen ----------------------------------------------------------------------------------------------


def test_something_else_cannot_be_learned(digits: Dataset, student: SpikingNetwork) -> None:
    with pytest.raises(ConfigError, match="cannot be learned") as raised:
        tune(to_integers(student), digits, ENCODING, STAGE, learn=("threshold", "delays"))
    assert raised.value.got == "delays"


def test_power_of_two_scales(student: SpikingNetwork) -> None:
    network = to_integers(student, weight_bits=6, power_of_two=True)
    for layer, free in zip(
        network.quantized_layers(), to_integers(student, weight_bits=6).quantized_layers(), strict=True
    ):
        assert np.log2(layer.grid.scale) % 1 == 0
        assert layer.grid.threshold == pytest.approx(free.grid.threshold, rel=0.5 / layer.grid.vth)
        assert 1 <= layer.grid.scale / free.grid.scale < 2.1


def test_one_word_chooses_the_ablation(digits: Dataset, student: SpikingNetwork) -> None:
    rounded = quantize(student, student, digits, loss="none")
    for mine, other in zip(rounded.parameters(), to_integers(student).parameters(), strict=True):
        assert torch.equal(mine, other)
    words = {
        loss: quantize(student, student, digits, loss=loss, epochs=1, batch=64) for loss in ("ce", "sat", "sat-ce")
    }
    whole = {loss: quantize(student, student, digits, loss=loss, epochs=1, batch=64) for loss in ("sat-combined",)}
    first = {loss: next(iter(net.parameters())) for loss, net in {**words, **whole}.items()}
    assert torch.equal(first["sat"], first["sat-combined"])
    assert not torch.equal(first["sat"], first["ce"])
    assert not torch.equal(first["sat-ce"], first["ce"])
