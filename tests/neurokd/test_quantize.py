"""Fine-tuning on the chip's integers: it learns, repeats, goes on after a stop, names dead layers, refuses in words."""

from __future__ import annotations

import dataclasses
import json
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytestmark = pytest.mark.usefixtures("one_thread")
torch = pytest.importorskip("torch", reason="the training side needs torch")

from deploy.chip import Chip, load_chip  # noqa: E402
from deploy.errors import (  # noqa: E402
    CheckpointError,
    ConfigError,
    ModuleError,
    ProgramError,
    RuleError,
    TrainingError,
    UnsupportedNode,
)
from neurokd import checkpoint, losses  # noqa: E402
from neurokd.config import Config  # noqa: E402
from neurokd.config_parts import StageConfig  # noqa: E402
from neurokd.data import Dataset  # noqa: E402
from neurokd.dead import DeadLayer, dead_layers  # noqa: E402
from neurokd.distill import teacher_sats  # noqa: E402
from neurokd.encoding import Encoding  # noqa: E402
from neurokd.feed import Feed, accuracy  # noqa: E402
from neurokd.loop import fit  # noqa: E402
from neurokd.network import SpikingNetwork, build  # noqa: E402
from neurokd.progress import ProgressEvent  # noqa: E402
from neurokd.quantize import DeadLayerWarning, fine_tune, load, quantize, save, stage_of  # noqa: E402
from neurokd.quantized import QuantizedNetwork  # noqa: E402
from neurokd.rounding import to_integers  # noqa: E402

ENCODING = Encoding("direct", 4, 6, raw_levels=16)
STAGE = StageConfig(epochs=3, batch=64, lr=3e-3, weight_decay=0.0, loss="ce")


def network(spec: str = "64-24-10", **options: Any) -> SpikingNetwork:
    return build(spec, **{"steps": 6, "input_bits": 4, "surrogate": "triangular", **options})


@pytest.fixture(scope="module")
def trained(digits: Dataset) -> SpikingNetwork:
    net = network()
    stage = dataclasses.replace(STAGE, epochs=10, lr=5e-3)
    fit(net, digits, ENCODING, stage, loss_terms=losses.parse_loss("ce"))
    return net


def weights(net: QuantizedNetwork) -> str:
    return checkpoint.digest(net.state_dict())


# Learning ---------------------------------------------------------------------------------------------------------


@pytest.mark.train
def test_fine_tuning_mends_what_three_bits_broke(digits: Dataset, trained: SpikingNetwork) -> None:
    validation = Feed(digits.validation, ENCODING)
    rounded = accuracy(to_integers(trained, weight_bits=3), validation)
    tuned, result = fine_tune(trained, digits, ENCODING, dataclasses.replace(STAGE, epochs=5), weight_bits=3)
    assert result.validation > rounded + 3
    assert result.validation == accuracy(tuned, validation)
    assert not tuned.training
    steps = {layer.grid.weight_bits for layer in tuned.quantized_layers()}
    values = {float(w) for layer in tuned.quantized_layers() for w in layer.integer_weights().detach().unique()}
    assert steps == {3}
    assert values <= set(range(-256, 193, 64))


@pytest.mark.train
def test_eight_bits_cost_nothing_to_speak_of(digits: Dataset, trained: SpikingNetwork) -> None:
    test = Feed(digits.test, ENCODING)
    assert accuracy(to_integers(trained), test) > accuracy(trained, test) - 2


@pytest.mark.train
def test_a_teachers_sat_is_learned_too(digits: Dataset, trained: SpikingNetwork) -> None:
    stage = dataclasses.replace(STAGE, loss="sat-ce", epochs=2)
    sats = teacher_sats(trained, digits, ENCODING, stage)
    _, result = fine_tune(trained, digits, ENCODING, stage, teacher_sats=sats, weight_bits=4)
    assert set(result.history[0].parts) > {"ce"}
    assert result.history[-1].loss < result.history[0].loss


@pytest.mark.train
def test_a_stopped_run_goes_on_to_the_same_weights(digits: Dataset, trained: SpikingNetwork, tmp_path: Path) -> None:
    class Stopped(Exception):
        pass

    def stop(event: ProgressEvent) -> None:
        if (event.what, event.epoch, event.done) == ("train", 3, 5):
            raise Stopped

    how: dict[str, Any] = {"weight_bits": 4, "seed": 7}
    with pytest.raises(Stopped):
        fine_tune(trained, digits, ENCODING, STAGE, checkpoint_dir=tmp_path, progress=stop, **how)
    epochs: list[int] = []

    def note(event: ProgressEvent) -> None:
        if event.what == "epoch":
            epochs.append(event.epoch)

    resumed, first = fine_tune(trained, digits, ENCODING, STAGE, checkpoint_dir=tmp_path, progress=note, **how)
    whole, second = fine_tune(trained, digits, ENCODING, STAGE, **how)
    assert epochs == [3]
    assert weights(resumed) == weights(whole)
    assert [record.loss for record in first.history] == [record.loss for record in second.history]
    assert first.accuracy == second.accuracy
    with pytest.raises(CheckpointError, match="another training run"):  # another width starts from other weights
        fine_tune(trained, digits, ENCODING, STAGE, checkpoint_dir=tmp_path, weight_bits=4, seed=8)


@pytest.mark.train
def test_the_one_call_front_trains_with_and_without_a_teacher(digits: Dataset, trained: SpikingNetwork) -> None:
    small = {"epochs": 1, "batch": 256}
    with_teacher = quantize(trained, trained, digits, weight_bits=4, **small)
    alone = quantize(trained, None, digits, weight_bits=4, **small)
    rounded = quantize(trained, weight_bits=4)
    assert len({weights(net) for net in (with_teacher, alone, rounded)}) == 3
    assert weights(rounded) == weights(to_integers(trained, weight_bits=4))


def test_the_stage_of_a_configuration() -> None:
    config = Config.default("digits").quantize
    stage = stage_of(config)
    assert (stage.epochs, stage.batch, stage.lr, stage.loss) == (config.epochs, config.batch, config.lr, config.loss)
    assert stage_of(config, "ce").loss == "ce"
    assert stage.weight_decay == 0.0


# Widths -----------------------------------------------------------------------------------------------------------


def test_widths_come_from_the_chip_and_can_differ_by_layer() -> None:
    assert {grid.weight_bits for grid in to_integers(network()).grids.values()} == {8}
    one = to_integers(network(), weight_bits={"dense2": 3})
    assert {name: grid.weight_bits for name, grid in one.grids.items()} == {"dense1": 8, "dense2": 3}
    toy = to_integers(build("6-4-2", input_bits=1), "toy")
    assert {grid.weight_bits for grid in toy.grids.values()} == {load_chip("toy").formats.weight_bits} == {4}
    assert toy.chip == "toy"


def test_a_width_for_a_layer_that_is_not_there_is_refused() -> None:
    with pytest.raises(ConfigError, match="no layer of this name") as caught:
        to_integers(network(), weight_bits={"dense2": 3, "conv1": 4})
    assert (caught.value.got, caught.value.allowed) == ("conv1", "dense1, dense2")


# Refusals ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("what", ["beta", "threshold", "alpha"])
def test_values_that_differ_between_neurons_are_refused(what: str) -> None:
    net = network(neuron="cuba")
    neuron = net.spiking_layers()[0].neuron
    setattr(neuron, f"raw_{what}", torch.linspace(0.25, 0.75, 24))
    with pytest.raises(ModuleError, match=f"the {what} differs between the neurons") as caught:
        to_integers(net)
    assert caught.value.where == "layer dense1"
    assert caught.value.got == "0.25..0.75"


def test_what_lowering_would_refuse_is_refused_before_training() -> None:
    with pytest.raises(UnsupportedNode, match="cannot be folded exactly") as caught:
        to_integers(network("8x8x1-p3-4c3p1-10"))
    assert "conv1_pool" in caught.value.where
    with pytest.raises(RuleError, match="wider than a spike's payload"):
        to_integers(network(), "loihi1")
    with pytest.raises(ProgramError, match=r"input bits"):
        to_integers(network(input_bits=12))


def test_a_chip_of_another_arithmetic_is_refused() -> None:
    chip = load_chip("loihi2")
    entries = tuple(
        (key, dataclasses.replace(quantity, value=16) if key == "state_bits" else quantity)
        for key, quantity in chip.formats.entries
    )
    other: Chip = dataclasses.replace(chip, formats=dataclasses.replace(chip.formats, entries=entries))
    with pytest.raises(RuleError, match="state width"):
        to_integers(network(), other)


def test_an_encoding_of_other_levels_is_refused(digits: Dataset, trained: SpikingNetwork) -> None:
    with pytest.raises(TrainingError, match="not the one the student was trained with") as caught:
        fine_tune(trained, digits, dataclasses.replace(ENCODING, bits=3), STAGE)
    assert (caught.value.got, caught.value.allowed) == ("integers up to 7", "up to 15 (4 bits)")


def test_overlapping_pools_can_be_rounded_but_not_trained(digits: Dataset) -> None:
    net = network("8x8x1-p3s2-10", norm=False)
    with torch.no_grad():
        net.spiking_layers()[0].synapse.weight.clamp_(-0.05, 0.05)
        net.spiking_layers()[0].synapse.weight[0] = 0.0
        net.spiking_layers()[0].synapse.weight[0, 0] = 1.0  # sets the scale: sums of the others stay on the grid
    to_integers(net, search="max")
    with pytest.raises(TrainingError, match="windows overlap") as caught:
        fine_tune(net, digits, ENCODING, STAGE, search="max")
    assert caught.value.where == "layer dense1, pool p3s2"
    with pytest.raises(TrainingError, match="windows overlap") as caught:
        to_integers(network("8x8x1-p3s1-10"))
    assert caught.value.where == "layer dense1, pool p3s1"
    assert "multiples of 2 in -256..254" in caught.value.allowed


def test_weights_that_grow_until_a_sum_could_overflow_stop_the_training_in_words(digits: Dataset) -> None:
    """64 inputs of up to 15 against weights of 254 fit 24 bits whatever is learned; 16 bits are left in an epoch."""
    chip = load_chip("loihi2")
    entries = tuple(
        (key, dataclasses.replace(quantity, value=16) if key == "accumulator_bits" else quantity)
        for key, quantity in chip.formats.entries
    )
    narrow = dataclasses.replace(chip, formats=dataclasses.replace(chip.formats, entries=entries))
    with pytest.raises(TrainingError, match="could leave the accumulator") as caught:
        fine_tune(network(norm=False), digits, ENCODING, dataclasses.replace(STAGE, lr=0.5), chip=narrow)
    assert caught.value.where == "layer dense1"
    assert "32767 (16 bits)" in caught.value.allowed
    assert "lower the learning rate" in caught.value.next_step


# Dead layers ------------------------------------------------------------------------------------------------------


def silent_network(largest: float) -> SpikingNetwork:
    """One step, plain weights: the first layer's membranes reach ``largest`` of its threshold at most."""
    net = network(norm=False, steps=1)
    with torch.no_grad():
        for layer in net.spiking_layers():
            layer.synapse.weight.fill_(0.01)
            layer.synapse.bias.zero_()
        net.spiking_layers()[0].synapse.weight.fill_(largest / 64)
    return net


def feed_of(digits: Dataset, steps: int = 1) -> Feed:
    return Feed(digits.validation, dataclasses.replace(ENCODING, steps=steps))


def test_a_dead_layer_is_named_with_the_threshold_that_wakes_it(digits: Dataset) -> None:
    chip, feed = to_integers(silent_network(0.5)), feed_of(digits)
    first, second = dead_layers(chip, feed)
    assert (first.name, first.silenced_by) == ("dense1", "")
    assert (second.name, second.silenced_by) == ("dense2", "dense1")
    assert first.waking_vth is not None
    assert 0 < first.waking_vth < first.vth
    for vth, sleeps in ((first.waking_vth + 1, True), (first.waking_vth, False)):
        grids = chip.grids
        grids["dense1"] = dataclasses.replace(grids["dense1"], vth=vth)
        changed = QuantizedNetwork(silent_network(0.5), grids, "loihi2")
        assert ("dense1" in [layer.name for layer in dead_layers(changed, feed)]) == sleeps
    text = str(first)
    assert text.startswith("layer dense1 never spikes: its largest membrane is ")
    assert f"(vth {first.waking_vth})" in text
    assert f"{first.vth * 64 / first.largest:.3g} times as large wake it" in text
    assert "nothing arrives from layer dense1" in str(second)


def test_a_layer_without_a_rising_membrane_has_no_waking_threshold(digits: Dataset) -> None:
    dead = dead_layers(to_integers(silent_network(-0.5)), feed_of(digits))[0]
    assert dead.largest < 0
    assert dead.waking_vth is None
    assert "no threshold wakes it" in str(dead)


def test_a_living_network_has_no_dead_layer(digits: Dataset) -> None:
    chip = to_integers(network()).train()
    assert dead_layers(chip, feed_of(digits, 6)) == []
    assert chip.training


def test_the_largest_membrane_is_that_of_all_batches(digits: Dataset) -> None:
    order = [*range(500), *range(1000, len(digits.train)), *range(500, 1000)]  # the brightest image in the middle
    feed = Feed(digits.train.take(order), dataclasses.replace(ENCODING, steps=1))
    chip = to_integers(silent_network(0.5))
    layer = chip.quantized_layers()[0]
    highest = [
        float(layer.membranes(chip.integers(batch.inputs, 1)[0], 1)[1].max()) * 64 for batch in feed.in_order()
    ]  # fmt: skip
    assert len(highest) > 2
    assert max(highest) not in (highest[0], highest[-1])
    assert dead_layers(chip, feed)[0].largest == max(highest)


def test_a_dead_layers_text_gives_threshold_and_factor() -> None:
    dead = DeadLayer("conv1", 100, 0.01, 64 * 80 + 1)
    assert dead.waking_vth == 80
    assert "a threshold of 0.8 (vth 80) or weights and biases 1.25 times as large wake it" in str(dead)


@pytest.mark.train
def test_fine_tuning_warns_of_dead_layers_and_notes_those_that_stay(digits: Dataset) -> None:
    encoding = dataclasses.replace(ENCODING, steps=1)
    stuck = dataclasses.replace(STAGE, epochs=1, lr=1e-12)
    with pytest.warns(DeadLayerWarning) as caught:
        chip, _ = fine_tune(silent_network(0.5), digits, encoding, stuck)
    texts = [str(warning.message) for warning in caught]
    assert [text.split(":")[0] for text in texts] == ["before fine-tuning"] * 2 + ["after fine-tuning"] * 2
    assert [note.split(":")[0] for note in chip.notes] == ["layer dense1 never spikes", "layer dense2 never spikes"]


@pytest.mark.train
def test_a_living_network_is_fine_tuned_without_a_warning(digits: Dataset, trained: SpikingNetwork) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        chip, _ = fine_tune(trained, digits, ENCODING, dataclasses.replace(STAGE, epochs=1))
    assert chip.notes == []


# Checkpoints ------------------------------------------------------------------------------------------------------


def test_a_checkpoint_brings_everything_back(tmp_path: Path) -> None:
    net = network("8x8x1-4c3x2p1g1-p2-10", neuron=["cuba", "lif"], beta=[0.5, 0.9], detach_reset=True)
    chip = to_integers(net, weight_bits={"conv1": 4})
    chip.options["notes"] = ["a note"]
    save(tmp_path / "q.safetensors", chip, {"accuracy": 1.5})
    again = load(tmp_path / "q.safetensors")
    assert weights(again) == weights(chip)
    assert again.grids == chip.grids
    assert (again.chip, again.spec_text, again.notes) == (chip.chip, chip.spec_text, ["a note"])
    assert [layer.rule for layer in again.quantized_layers()] == [layer.rule for layer in chip.quantized_layers()]
    x = torch.from_numpy(np.random.default_rng(0).integers(0, 16, (3, 1, 8, 8))).float() / 15
    assert torch.equal(again.sat(x), chip.sat(x))
    assert not again.training


def damaged(path: Path, **changes: Any) -> Path:
    """The checkpoint with parts of its header replaced; its digest stays right."""
    contents = checkpoint.read(path, checkpoint.QUANTIZED)
    info = json.loads(json.dumps(contents.info))
    for key, value in changes.items():
        info[key] = value(info[key])
    checkpoint.write(path, checkpoint.Contents(contents.tensors, info), checkpoint.QUANTIZED)
    return path


def without(key: str) -> Any:
    return lambda grids: {name: {k: v for k, v in grid.items() if k != key} for name, grid in grids.items()}


def with_value(key: str, value: Any) -> Any:
    return lambda grids: {name: {**grid, key: value} for name, grid in grids.items()}


@pytest.mark.parametrize(
    ("change", "got"),
    [
        ({"grids": without("vth")}, "vth"),
        ({"grids": with_value("colour", 3)}, "colour"),
        ({"grids": with_value("weight_exp", 40)}, "weight_exp"),
        ({"grids": with_value("sign_mode", "both")}, "sign_mode"),
        ({"grids": lambda grids: {"dense1": grids["dense1"]}}, "not those of the network's layers"),
        ({"grids": lambda grids: list(grids)}, "items"),
        ({"grids": lambda grids: {name: None for name in grids}}, "mapping"),
    ],
)
def test_grids_that_do_not_fit_are_refused(change: dict[str, Any], got: str, tmp_path: Path) -> None:
    path = tmp_path / "q.safetensors"
    save(path, to_integers(network()))
    with pytest.raises(CheckpointError, match="grids are not those of its network") as caught:
        load(damaged(path, **change))
    assert got in caught.value.got


def test_other_damaged_and_foreign_checkpoints_are_refused(tmp_path: Path, trained: SpikingNetwork) -> None:
    path, other = tmp_path / "q.safetensors", tmp_path / "float.safetensors"
    with pytest.raises(CheckpointError, match="missing"):
        load(path)
    checkpoint.save(other, trained)
    with pytest.raises(CheckpointError, match="not a checkpoint of this kind"):
        load(other)
    save(path, to_integers(network()))
    path.write_bytes(path.read_bytes()[:-5])
    with pytest.raises(CheckpointError, match="damaged"):
        load(path)
    save(path, to_integers(network()))
    with pytest.raises(CheckpointError, match="damaged"):
        load(damaged(path, spec=lambda _: "64-x-10"))
    save(path, to_integers(network()))
    with pytest.raises(CheckpointError, match="tensors are not this network's"):
        load(damaged(path, spec=lambda _: "64-25-10"))


def test_a_dead_layers_text_gives_the_scale_that_wakes_it() -> None:
    dead = DeadLayer("conv1", 100, 0.01, 64 * 80)
    assert dead.waking_scale == pytest.approx(0.008)
    assert "a scale below 0.008, now 0.01" in str(dead)
    assert DeadLayer("conv1", 100, 0.01, 0).waking_scale is None
