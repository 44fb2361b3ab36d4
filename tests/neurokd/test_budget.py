"""Budgets and pruning: synops are the simulator's, smaller networks really smaller, the impossible is refused."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytestmark = pytest.mark.usefixtures("one_thread")
torch = pytest.importorskip("torch", reason="the training side needs torch")

from deploy import simulator  # noqa: E402
from deploy.errors import ConfigError, TrainingError  # noqa: E402
from deploy.lower import lower  # noqa: E402
from neurokd import losses  # noqa: E402
from neurokd.budget import Budget, budget_of, under_budget  # noqa: E402
from neurokd.config_parts import StageConfig  # noqa: E402
from neurokd.data import Dataset, Split  # noqa: E402
from neurokd.encoding import Encoding  # noqa: E402
from neurokd.energy import modelled_energy  # noqa: E402
from neurokd.export import export, to_graph  # noqa: E402
from neurokd.feed import Feed, accuracy  # noqa: E402
from neurokd.loop import fit  # noqa: E402
from neurokd.network import SpikingNetwork, build  # noqa: E402
from neurokd.network_layers import present  # noqa: E402
from neurokd.prune import give_up, prune_evenly, prune_weights, synops, worths  # noqa: E402
from neurokd.quantize import quantize, tune  # noqa: E402
from neurokd.quantized import QuantizedNetwork  # noqa: E402
from neurokd.rounding import to_integers  # noqa: E402
from neurokd.sensitivity import SHARES, damages, prune_by_sensitivity, shares_for  # noqa: E402
from neurokd.shrink import shrink, smaller  # noqa: E402

ENCODING = Encoding("direct", 4, 5, raw_levels=16)
STAGE = StageConfig(epochs=2, batch=64, lr=3e-3, weight_decay=0.0, loss="ce")
SPECS = ("64-48-24-10", "8x8x1-6c3s2p1-p2-8c2-10")


@pytest.fixture(scope="module")
def students(digits: Dataset) -> dict[str, SpikingNetwork]:
    trained = {}
    for spec in SPECS:
        student = build(spec, steps=5, input_bits=4, surrogate="triangular")
        stage = dataclasses.replace(STAGE, epochs=20, lr=5e-3)
        fit(student, digits, ENCODING, stage, loss_terms=losses.parse_loss("ce"))
        trained[spec] = student.eval()
    return trained


def counted(network: QuantizedNetwork, data: Dataset, encoding: Encoding = ENCODING) -> float:
    """Synops a validation image, by the simulator."""
    program = lower(to_graph(network, encoding.kind))
    images = encoding.encode(data.validation.images, np.arange(len(data.validation)))
    lead = images.shape[:1] if encoding.kind == "direct" else images.shape[:2]
    trace = simulator.run(program, images.reshape(*lead, *program.input.shape), steps=encoding.steps)
    return sum(float(c.synops.sum()) for c in trace.counters.values()) / trace.samples


@pytest.mark.parametrize("spec", SPECS)
def test_expected_synops_are_those_of_the_simulator(
    spec: str, digits: Dataset, students: dict[str, SpikingNetwork]
) -> None:
    network, feed = to_integers(students[spec], weight_bits=4), Feed(digits.validation, ENCODING)
    assert synops(network, feed) == pytest.approx(counted(network, digits), rel=1e-6)
    whole = synops(network, feed)
    prune_weights(network, feed, whole / 2)
    assert 0.45 * whole < counted(network, digits) < 0.75 * whole  # other spikes come once weights are gone


def test_expected_synops_of_spike_trains_are_those_of_the_simulator(digits: Dataset) -> None:
    encoding = Encoding("rate", 1, 6, raw_levels=16)
    network = to_integers(build("64-24-10", steps=6, input_bits=1).eval())
    assert synops(network, Feed(digits.validation, encoding)) == pytest.approx(counted(network, digits, encoding))


@pytest.mark.parametrize("neuron", ["lif", "cuba"])
@pytest.mark.parametrize("spec", SPECS)
def test_what_is_pruned_leaves_its_mean_in_the_bias(spec: str, neuron: str, digits: Dataset) -> None:
    network = to_integers(build(spec, steps=5, input_bits=4, neuron=neuron).eval())
    layer, one = network.quantized_layers()[0], Split(digits.validation.images[:1], digits.validation.labels[:1])
    feed = Feed(one, ENCODING)

    def drive() -> torch.Tensor:
        """What reaches the membranes a step, mean over steps and places ``[C]``, as a float."""
        x, held = network.integers(next(iter(feed.in_order())).inputs, ENCODING.steps)
        sums = layer.currents(x, held)[0].detach() * layer.grid.scale
        current, total = torch.zeros_like(sums), torch.zeros_like(sums)
        for _ in range(ENCODING.steps):
            current = layer.grid.alpha * current + sums
            total += current
        return (total / ENCODING.steps).flatten(1).mean(1) if sums.dim() > 1 else total / ENCODING.steps

    worth, before = worths(network, feed)[layer.name], drive()
    assert float(worth.value.max()) < 1e-6  # grey levels that never change tell nothing
    give_up(layer, dataclasses.replace(worth, value=layer.weight.detach() ** 2), 0.5)
    assert float((layer.integer_weights() == 0).float().mean()) > 0.2
    assert torch.allclose(drive() + layer.bias, before, atol=0.02 * float(before.abs().max()))


def test_a_smaller_network_holds_what_left_at_its_mean(digits: Dataset, students: dict[str, SpikingNetwork]) -> None:
    student, feed = students[SPECS[0]], Feed(digits.validation, ENCODING)
    network = to_integers(student)
    less = shrink(student, network, feed, 0.6 * synops(network, feed))
    sizes = [len(layer.synapse.weight) for layer in less.spiking_layers()]
    assert sizes[0] / 48 == pytest.approx(sizes[1] / 24, abs=0.05)  # every layer keeps the same share
    whole, left = student.folded().spiking_layers()[-1].synapse, less.spiking_layers()[-1].synapse
    gone = ~(whole.weight[:, :, None] == left.weight[:, None, :]).all(0).any(1)
    assert int(gone.sum()) == 24 - sizes[1]
    images = torch.from_numpy(ENCODING.encode(digits.validation.images, np.arange(len(feed)))).float() / 15
    _, recorded = network(images.flatten(1), 5, record=True)
    rates = list(recorded.values())[-2].mean((0, 1))
    expected = (whole.weight * rates * gone).sum(1).detach()
    assert float(expected.abs().max()) > 0
    assert torch.allclose(present(left.bias) - present(whole.bias), expected, atol=0.02 * float(expected.abs().max()))


@pytest.mark.parametrize("spec", SPECS)
def test_pruned_evenly_each_layer_gives_up_the_same_share(
    spec: str, digits: Dataset, students: dict[str, SpikingNetwork]
) -> None:
    network, feed = to_integers(students[spec]), Feed(digits.validation, ENCODING)
    before, whole = worths(network, feed), synops(network, feed)
    costs = {x.name: before[x.name].cost * (x.integer_weights() != 0) for x in network.quantized_layers()}
    prune_evenly(network, feed, 2 * whole)
    assert all(layer.mask is None for layer in network.quantized_layers())
    prune_evenly(network, feed, 0.6 * whole)
    for layer in network.quantized_layers():
        left = before[layer.name].cost * (layer.integer_weights() != 0)
        largest = float(costs[layer.name].max() / costs[layer.name].sum())
        assert 0.6 - largest <= float(left.sum() / costs[layer.name].sum()) <= 0.6


@pytest.mark.parametrize("spec", SPECS)
def test_what_is_pruned_is_worth_least_for_its_cost(
    spec: str, digits: Dataset, students: dict[str, SpikingNetwork]
) -> None:
    network, feed = to_integers(students[spec]), Feed(digits.validation, ENCODING)
    before = worths(network, feed)
    prune_weights(network, feed, 0.6 * synops(network, feed))
    gone = torch.cat([before[x.name].score[x.integer_weights() == 0] for x in network.quantized_layers()])
    kept = torch.cat([before[x.name].score[x.integer_weights() != 0] for x in network.quantized_layers()])
    assert float(gone[gone.isfinite()].max()) <= float(kept.min()) + 1e-9


def test_pruned_weights_stay_away_in_training(digits: Dataset, students: dict[str, SpikingNetwork]) -> None:
    network, feed = to_integers(students[SPECS[0]]), Feed(digits.validation, ENCODING)
    prune_weights(network, feed, 0.5 * synops(network, feed))
    masks = [layer.mask.clone() for layer in network.quantized_layers() if layer.mask is not None]
    before = [layer.weight.detach().clone() for layer in network.quantized_layers()]
    tune(network, digits, ENCODING, STAGE)
    for layer, mask, old in zip(network.quantized_layers(), masks, before, strict=True):
        assert not bool(layer.integer_weights()[mask == 0].any())
        assert not bool(layer.weight[mask == 0].any())
        assert bool((layer.weight != old).any())


@pytest.mark.parametrize("spec", SPECS)
@pytest.mark.parametrize("neuron", ["lif", "cuba"])
def test_a_network_without_its_silent_units_does_the_same(spec: str, neuron: str) -> None:
    """Units whose weights onward are 0 can go: the smaller network gives the same SAT."""
    student = build(spec, steps=5, input_bits=4, norm=True, neuron=neuron).eval()
    layers = student.spiking_layers()
    kept = {}
    for layer, after in zip(layers[:-1], layers[1:], strict=True):
        count = len(layer.synapse.weight)
        kept[layer.name] = torch.arange(0, count, 2)
        with torch.no_grad():
            after.synapse.weight.view(len(after.synapse.weight), count, -1)[:, 1::2] = 0
            if layer.norm is not None:
                layer.norm.running_mean.normal_()
    less = smaller(student, kept)
    assert less.spec.parameters() < 0.8 * student.spec.parameters()
    x = torch.from_numpy(np.random.default_rng(0).integers(0, 16, (7, 1, 8, 8))).float() / 15
    x = x.flatten(1) if len(student.spec.input_shape) == 1 else x
    assert bool(student.sat(x).any())
    assert torch.equal(less.sat(x), student.folded().sat(x))


def test_a_smaller_network_is_smaller_in_its_file(
    digits: Dataset, students: dict[str, SpikingNetwork], tmp_path: Path
) -> None:
    student, feed = students[SPECS[1]], Feed(digits.validation, ENCODING)
    network = to_integers(student)
    less = to_integers(shrink(student, network, feed, 0.5 * synops(network, feed)))
    assert synops(less, feed) < 0.75 * synops(network, feed)
    neurons = [lower(export_and_read(n, tmp_path / "n.nir")).neurons for n in (network, less)]
    assert neurons[1] < neurons[0]
    assert less.spec.parameters() < network.spec.parameters()


def export_and_read(network: QuantizedNetwork, path: Path) -> Path:
    export(network, path)
    return path


@pytest.mark.train
def test_half_the_synops_cost_little(digits: Dataset, students: dict[str, SpikingNetwork], tmp_path: Path) -> None:
    student, stage = students[SPECS[0]], dataclasses.replace(STAGE, epochs=8)
    found = under_budget(student, digits, ENCODING, stage, Budget("synops", 0.5), checkpoint_dir=tmp_path)
    assert counted(found.network, digits) <= found.limit == 0.5 * found.start
    assert {one.how for one in found.tried} >= {"weights", "evenly", "sensitivity", "neurons", "both"}
    assert sorted(one.epochs for one in found.tried) == [2] * (len(found.tried) - 2) + [8, 8]
    assert {one.how for one in found.tried if one.epochs == 8} >= {found.how}
    best = max(one.validation for one in found.tried if one.fits and one.epochs == 8)
    assert found.validation == best == accuracy(found.network, Feed(digits.validation, ENCODING))
    assert found.validation > accuracy(to_integers(student), Feed(digits.validation, ENCODING)) - 4
    assert found.accuracy == accuracy(found.network, Feed(digits.test, ENCODING))
    again = under_budget(student, digits, ENCODING, stage, Budget("synops", 0.5), checkpoint_dir=tmp_path)
    assert again.tried == found.tried


def test_an_energy_budget_is_kept(digits: Dataset, students: dict[str, SpikingNetwork]) -> None:
    student = students[SPECS[0]]
    stage = dataclasses.replace(STAGE, epochs=1)
    found = under_budget(student, digits, ENCODING, stage, Budget("energy", 0.8))
    assert modelled_energy(found.network, digits, ENCODING) <= 0.8 * modelled_energy(
        to_integers(student), digits, ENCODING
    )


def test_quantize_takes_a_budget(digits: Dataset, students: dict[str, SpikingNetwork]) -> None:
    student = students[SPECS[0]]
    network = quantize(student, None, digits, synops_budget=0.7, weight_bits=4, epochs=1, batch=64)
    assert counted(network, digits) <= 0.7 * counted(to_integers(student, weight_bits=4), digits)
    assert {layer.grid.weight_bits for layer in network.quantized_layers()} == {4}


@pytest.mark.parametrize("share", [0.0, 1.5, -1.0, float("nan"), "half"])
def test_a_budget_is_a_share(share: Any) -> None:
    with pytest.raises(ConfigError, match="no share of the start"):
        Budget("synops", share)


def test_two_budgets_are_refused() -> None:
    assert budget_of(None, None) is None
    assert budget_of(None, 0.5) == Budget("energy", 0.5)
    with pytest.raises(ConfigError, match="two budgets"):
        budget_of(0.5, 0.5)


def test_a_budget_nobody_can_keep_is_refused(digits: Dataset, students: dict[str, SpikingNetwork]) -> None:
    network, feed = to_integers(students[SPECS[0]]), Feed(digits.validation, ENCODING)
    with pytest.raises(TrainingError, match="cannot be reached") as raised:
        prune_weights(network, feed, 1.0)
    assert "64-48-24-10" in raised.value.where
    assert "larger budget" in raised.value.next_step
    with pytest.raises(TrainingError, match="cannot be reached"):
        under_budget(students[SPECS[0]], digits, ENCODING, STAGE, Budget("synops", 0.001))


def test_a_network_without_hidden_layers_has_no_neurons_to_remove(digits: Dataset) -> None:
    student, feed = build("64-10", steps=5, input_bits=4).eval(), Feed(digits.validation, ENCODING)
    with pytest.raises(TrainingError, match="no hidden layer"):
        shrink(student, to_integers(student), feed, 1.0)


@pytest.mark.parametrize("spec", SPECS)
def test_each_layer_gives_up_what_the_output_minds_least(
    spec: str, digits: Dataset, students: dict[str, SpikingNetwork]
) -> None:
    network, feed = to_integers(students[spec]), Feed(digits.validation, ENCODING)
    curves = damages(network, feed)
    assert all(layer.mask is None for layer in network.quantized_layers())  # what was tried was put back
    assert curves == damages(to_integers(students[spec]), feed)
    assert all(curve[0] == 0 < curve[-1] and curve == sorted(curve) for curve in curves.values())
    whole, answers = synops(network, feed), network.sat(torch.zeros(1, *network.spec.input_shape))
    shares = prune_by_sensitivity(network, feed, 0.6 * whole)
    assert 0.5 * whole < synops(network, feed) < 0.75 * whole  # hidden neurons spike otherwise than before
    assert len({round(share, 2) for share in shares.values()}) > 1
    assert network.sat(torch.zeros(1, *network.spec.input_shape)).shape == answers.shape


def test_shares_are_the_cheapest_that_save_enough() -> None:
    flat, steep = [0.0] * len(SHARES), [share**2 for share in SHARES]
    costs = {"flat": 100.0, "steep": 300.0}
    assert shares_for({"flat": flat, "steep": steep}, costs, 90.0) == {"flat": 0.9, "steep": 0.0}
    found = shares_for({"flat": flat, "steep": steep}, costs, 200.0)
    assert found["flat"] == 0.97
    assert found["steep"] * 300 == pytest.approx(103, abs=3)
    assert shares_for({"flat": flat, "steep": steep}, costs, -5.0) == {"flat": 0.0, "steep": 0.0}
    # a curve that is dear at first and free afterwards is taken as its lower hull: all of it, or none
    late = [0.0, *[0.5] * (len(SHARES) - 1)]
    assert shares_for({"late": late, "flat": [0.0, *[2.0] * (len(SHARES) - 1)]}, {"late": 1.0, "flat": 1.0}, 0.5) == {
        "late": 0.5, "flat": 0.0,
    }  # fmt: skip


def test_layers_with_groups_keep_all_their_channels(digits: Dataset) -> None:
    """Also where hidden layers behind them lose channels."""
    student, feed = build("8x8x1-6c3-6c3g6-8c2-10", steps=5, input_bits=4).eval(), Feed(digits.validation, ENCODING)
    network = to_integers(student)
    less = shrink(student, network, feed, 0.8 * synops(network, feed))
    sizes = [len(layer.synapse.weight) for layer in less.spiking_layers()]
    assert sizes[:2] == [6, 6]
    assert sizes[2] < 8
    assert sizes[3] == 10
