"""The training loop: learns, repeats exactly, goes on after a kill with the same result, and fails in words."""

from __future__ import annotations

import dataclasses
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import torch

from deploy.errors import CheckpointError, ConfigError, TrainingError
from neurokd import checkpoint, loop, losses, resume
from neurokd.config_parts import StageConfig
from neurokd.data import Dataset, Split
from neurokd.encoding import Encoding
from neurokd.feed import Feed, accuracy
from neurokd.network import SpikingNetwork, build
from neurokd.progress import ProgressEvent
from neurokd.satcache import SatCache
from neurokd.schedule import learning_rate, make_optimizer
from neurokd.train import default_stage, evaluate, train

pytestmark = pytest.mark.usefixtures("one_thread")
SPEC = "64-24-10"
ENCODING = Encoding("direct", 4, 4, raw_levels=16)
STAGE = StageConfig(epochs=3, batch=64, lr=5e-3)


def network(spec: str = SPEC, **options: object) -> SpikingNetwork:
    return build(spec, steps=4, input_bits=4, surrogate="triangular", **options)


def fit(net: SpikingNetwork, data: Dataset, stage: StageConfig = STAGE, loss: str = "ce", **options: object):  # type: ignore[no-untyped-def]
    terms = losses.parse_loss(loss)
    return loop.fit(net, data, ENCODING, stage, loss_terms=terms, **options)  # type: ignore[arg-type]


def weights(net: SpikingNetwork) -> str:
    return checkpoint.digest(net.state_dict())


def test_a_small_network_learns_the_digits(digits: Dataset) -> None:
    net = network()
    before = evaluate(net, digits.test, ENCODING)
    result = fit(net, digits, dataclasses.replace(STAGE, epochs=10))
    assert before < 40 < 80 < result.accuracy
    assert result.accuracy == evaluate(net, digits.test, ENCODING)
    assert result.validation == evaluate(net, digits.validation, ENCODING)
    assert not net.training
    assert [record.epoch for record in result.history] == list(range(1, 11))
    assert result.history[-1].loss < result.history[0].loss
    assert result.history[0].parts.keys() == {"ce"}


def test_same_seed_same_weights_other_seed_others(digits: Dataset) -> None:
    nets = [network() for _ in range(3)]
    for net, seed in zip(nets, (1, 1, 2), strict=True):
        fit(net, digits, seed=seed)
    assert weights(nets[0]) == weights(nets[1]) != weights(nets[2])


def test_the_callers_generator_and_the_result_do_not_depend_on_each_other(digits: Dataset) -> None:
    torch.manual_seed(11)
    first = network()
    fit(first, digits)
    after = torch.rand(1)
    torch.manual_seed(11)
    assert torch.equal(after, torch.rand(1))
    torch.manual_seed(12)
    second = network()
    fit(second, digits)
    assert weights(first) == weights(second)


def test_the_best_epoch_on_validation_is_kept(digits: Dataset) -> None:
    seen: list[float] = []

    def note(event: ProgressEvent) -> None:
        if event.what == "epoch" and event.validation is not None:
            seen.append(event.validation)

    net = network()
    result = fit(net, digits, dataclasses.replace(STAGE, epochs=8, lr=0.05), progress=note)
    assert result.validation == max(seen) == evaluate(net, digits.validation, ENCODING)
    assert result.best_epoch == 8 - seen[::-1].index(max(seen))


def test_patience_stops_early(digits: Dataset) -> None:
    stuck = dataclasses.replace(STAGE, epochs=30, lr=1e-12, weight_decay=0.0, patience=2)
    net = network(norm=False)
    result = fit(net, digits, stuck)
    assert result.stopped_early
    assert len(result.history) == 3  # two epochs no better than the first; equally good ones count as no better


def test_progress_counts_up_to_its_totals(digits: Dataset) -> None:
    events: list[ProgressEvent] = []
    fit(network(), digits, dataclasses.replace(STAGE, epochs=2), progress=events.append, name="teacher")
    batches = len(digits.train) // 64
    assert {event.stage for event in events} == {"teacher"}
    done = [(event.epoch, event.done) for event in events if event.what == "train"]
    assert done == [(epoch, number) for epoch in (1, 2) for number in range(1, batches + 1)]
    assert [event.done for event in events if event.what == "epoch"] == [1, 2]
    assert [event.what for event in events].count("test") == 1


@pytest.mark.parametrize("kind", ["rate", "latency"])
def test_time_first_encodings_train_too(digits: Dataset, kind: str) -> None:
    net = build(SPEC, steps=6, input_bits=1, surrogate="triangular")
    code = Encoding(kind, 4, 6, raw_levels=16)  # type: ignore[arg-type]
    terms = losses.parse_loss("ce")
    result = loop.fit(net, digits, code, dataclasses.replace(STAGE, epochs=4), loss_terms=terms)
    assert result.accuracy > 50


def test_the_activity_penalty_sees_the_layers_and_lowers_their_spikes(digits: Dataset) -> None:
    counts = {}
    for loss in ("ce", "ce+activity:20"):
        net = network()
        fit(net, digits, dataclasses.replace(STAGE, epochs=4), loss)
        batch = next(Feed(digits.test, ENCODING).in_order())
        counts[loss] = float(net(batch.inputs, record=True)[1]["dense1"].detach().sum())
    assert counts["ce+activity:20"] < 0.8 * counts["ce"]


def test_weights_decay_but_norms_and_biases_do_not(digits: Dataset) -> None:
    optimizer = make_optimizer(network(), dataclasses.replace(STAGE, weight_decay=0.25))
    decays = {value.dim(): group["weight_decay"] for group in optimizer.param_groups for value in group["params"]}
    assert decays == {2: 0.25, 1: 0.0}


def test_the_learning_rate_rises_then_falls_to_nothing() -> None:
    rates = [learning_rate(step, 200, 0.1) for step in range(200)]
    peak = rates.index(max(rates))
    assert 25 <= peak <= 31
    assert max(rates) == pytest.approx(0.1, rel=1e-3)
    assert rates[:peak] == sorted(rates[:peak])
    assert rates[peak:] == sorted(rates[peak:], reverse=True)
    assert 0 < rates[0] < 0.01
    assert abs(rates[-1]) < 1e-12


# Resuming ---------------------------------------------------------------------------------------------------------

KILLED = """
import os, signal, sys, torch
torch.set_num_threads(1)
from neurokd import loop, losses
from neurokd.config_parts import StageConfig
from neurokd.data import load
from neurokd.encoding import Encoding
from neurokd.network import build

def die(event):
    if (event.what, event.epoch, event.done) == ("train", 3, 7):
        os.kill(os.getpid(), signal.SIGKILL)

stage = StageConfig(epochs=5, batch=64, lr=5e-3, shift=1, views=3)
net = build("64-24-10", steps=4, input_bits=4, surrogate="triangular")
loop.fit(net, load("digits"), Encoding("direct", 4, 4, raw_levels=16), stage, loss_terms=losses.parse_loss("ce"),
         checkpoint_dir=sys.argv[1], seed=5, progress=die)
"""


def test_a_killed_run_goes_on_to_the_same_weights_bit_for_bit(digits: Dataset, tmp_path: Path) -> None:
    script = tmp_path / "killed.py"
    script.write_text(KILLED)
    ended = subprocess.run([sys.executable, str(script), str(tmp_path / "run")], timeout=120, check=False)
    assert ended.returncode == -9
    stage = dataclasses.replace(STAGE, epochs=5, shift=1, views=3)
    epochs: list[int] = []

    def note(event: ProgressEvent) -> None:
        if event.what == "epoch":
            epochs.append(event.epoch)

    resumed, whole = network(), network()
    first = fit(resumed, digits, stage, checkpoint_dir=tmp_path / "run", seed=5, progress=note)
    second = fit(whole, digits, stage, seed=5)
    assert epochs == [3, 4, 5]
    assert weights(resumed) == weights(whole)
    assert (first.accuracy, first.best_epoch) == (second.accuracy, second.best_epoch)
    assert [r.loss for r in first.history] == [r.loss for r in second.history]
    assert not list((tmp_path / "run").glob(".*"))


def test_a_finished_run_is_not_trained_again(digits: Dataset, tmp_path: Path) -> None:
    first, second, events = network(), network(), []
    one = fit(first, digits, checkpoint_dir=tmp_path)
    two = fit(second, digits, checkpoint_dir=tmp_path, progress=events.append)
    assert events == []
    assert one == two
    assert weights(first) == weights(second) == weights(resume.load_best(tmp_path))


def test_the_state_of_another_run_is_refused_and_the_difference_named(digits: Dataset, tmp_path: Path) -> None:
    fit(network(), digits, checkpoint_dir=tmp_path)
    other = dataclasses.replace(digits, train=digits.train.take(np.arange(1000)))
    cases: list[tuple[SpikingNetwork, Dataset, dict[str, object], str]] = [
        (network("64-25-10"), digits, {}, "network = 64-24-10"),
        (network(seed=1), digits, {}, "start"),
        (network(), other, {}, "data"),
        (network(), digits, {"seed": 1}, "seed = 0"),
        (network(), digits, {"stage": dataclasses.replace(STAGE, lr=1e-3)}, "lr=0.005"),
        (network(), digits, {"loss": "temporal-ce"}, "loss = ce"),
    ]
    for net, data, options, got in cases:
        with pytest.raises(CheckpointError, match="of another training run") as caught:
            fit(net, data, checkpoint_dir=tmp_path, **options)
        assert got in caught.value.got
        assert "delete" in caught.value.next_step


def test_a_damaged_state_is_refused(digits: Dataset, tmp_path: Path) -> None:
    fit(network(), digits, checkpoint_dir=tmp_path)
    path = tmp_path / resume.FILE
    path.write_bytes(path.read_bytes()[:-9])
    with pytest.raises(CheckpointError, match="damaged"):
        fit(network(), digits, checkpoint_dir=tmp_path)


# What goes wrong --------------------------------------------------------------------------------------------------


class Spoiled(SpikingNetwork):
    """Gives a SAT that is not a number from one forward in training on."""

    def spoil(self, after: int) -> SpikingNetwork:
        self.left = after
        return self

    def forward(self, *args: object, **options: object):  # type: ignore[no-untyped-def]
        out = super().forward(*args, **options)  # type: ignore[arg-type]
        self.left -= self.training
        return out * float("nan") if self.training and self.left < 0 else out


def spoiled(after: int) -> SpikingNetwork:
    plain = network()
    net = Spoiled(plain.spec, plain.spiking_layers(), plain.options)
    return net.spoil(after)


def test_nan_names_term_epoch_and_batch_and_keeps_the_last_state(digits: Dataset, tmp_path: Path) -> None:
    batches = len(digits.train) // 64
    with pytest.raises(TrainingError, match="the loss is not a number") as caught:
        fit(spoiled(batches + 4), digits, checkpoint_dir=tmp_path, name="teacher")
    assert caught.value.where == "teacher, epoch 2, batch 5"
    assert caught.value.got == "ce = nan"
    assert f"the state after epoch 1 is kept in {tmp_path / resume.FILE}" in caught.value.next_step
    kept = resume.load_best(tmp_path)
    one = network()
    fit(one, digits, checkpoint_dir=tmp_path, progress=stop_after_first)
    assert evaluate(kept, digits.validation, ENCODING) > 20


def stop_after_first(event: ProgressEvent) -> None:
    """The state is taken up after epoch 1: the first batch seen is of epoch 2."""
    assert event.what != "train" or event.epoch > 1


def test_nan_before_any_checkpoint(digits: Dataset) -> None:
    with pytest.raises(TrainingError, match="the loss is not a number") as caught:
        fit(spoiled(0), digits)
    assert "no checkpoint was written yet" in caught.value.next_step


def test_weights_that_are_not_numbers_are_noticed_though_silent_neurons_hide_them(digits: Dataset) -> None:
    net = network(norm=False)
    with torch.no_grad():
        next(iter(net.parameters()))[0, 0] = float("nan")
    with pytest.raises(TrainingError, match="a weight is not a number") as caught:
        fit(net, digits)
    assert "epoch 1" in caught.value.where


@pytest.mark.parametrize(
    ("code", "got"),
    [
        (dataclasses.replace(ENCODING, bits=3), "direct encoding: 4 steps, 3-bit spikes"),
        (dataclasses.replace(ENCODING, steps=5), "direct encoding: 5 steps, 4-bit spikes"),
        (dataclasses.replace(ENCODING, kind="rate"), "rate encoding: 4 steps, 1-bit spikes"),
    ],
)
def test_an_encoding_the_network_was_not_built_for(digits: Dataset, code: Encoding, got: str) -> None:
    with pytest.raises(TrainingError, match="not the one the network was built for") as caught:
        loop.fit(network(), digits, code, STAGE, loss_terms=losses.parse_loss("ce"))
    assert (caught.value.got, caught.value.allowed) == (got, "4 steps, 4-bit spikes")


def test_a_loss_that_needs_a_teacher(digits: Dataset) -> None:
    with pytest.raises(TrainingError, match="needs a teacher and there is none") as caught:
        fit(network(), digits, loss="ce+full-l2:0.5")
    assert "full-l2" in caught.value.where


@pytest.mark.parametrize("shape", [(1, 5, 10), (1, None, 9)])
def test_teacher_sats_of_other_images_or_classes(digits: Dataset, shape: tuple[int, int | None, int]) -> None:
    views, samples, classes = shape
    samples = samples or len(digits.train)
    packed = np.zeros((views, samples, -(-4 * classes // 8)), np.uint8)
    with pytest.raises(TrainingError, match="do not fit this stage"):
        fit(network(), digits, loss="full-l2", teacher_sats=SatCache(packed, 4, classes, "key", 0.0))


def test_teacher_sats_without_the_views(digits: Dataset) -> None:
    cache = SatCache(np.zeros((1, len(digits.train), 5), np.uint8), 4, 10, "key", 0.0)
    with pytest.raises(TrainingError, match="do not fit this stage"):
        fit(network(), digits, dataclasses.replace(STAGE, shift=1, views=2), "full-l2", teacher_sats=cache)


def test_nothing_to_train(digits: Dataset) -> None:
    net = network()
    for value in net.parameters():
        value.requires_grad_(False)
    with pytest.raises(TrainingError, match="nothing to train"):
        fit(net, digits)


def test_an_empty_split(digits: Dataset) -> None:
    empty = Split(digits.train.images[:0], digits.train.labels[:0])
    with pytest.raises(TrainingError, match="the split is empty"):
        fit(network(), dataclasses.replace(digits, train=empty))
    with pytest.raises(TrainingError, match="the split is empty"):
        evaluate(network(), empty, ENCODING)


def test_a_split_smaller_than_a_batch_is_one_batch(digits: Dataset) -> None:
    small = dataclasses.replace(digits, train=digits.train.take(np.arange(20)))
    assert len(fit(network(), small).history) == 3


# The short way ----------------------------------------------------------------------------------------------------


def test_train_fills_in_encoding_stage_and_loss(digits: Dataset, tmp_path: Path) -> None:
    net = network()
    result = train(net, digits, epochs=2, out=tmp_path)
    assert len(result.history) == 2
    assert result.accuracy == evaluate(net, digits.test, ENCODING)
    assert (tmp_path / resume.FILE).is_file()
    assert default_stage(digits, "teacher", "ce").batch == 64


def test_train_refuses_unknown_options_and_values(digits: Dataset) -> None:
    with pytest.raises(ConfigError, match="unknown key") as caught:
        train(network(), digits, epoch=2)
    assert "epochs" in caught.value.next_step
    with pytest.raises(ConfigError, match="out of range"):
        train(network(), digits, epochs=0)


def test_a_data_set_of_ones_own_has_plain_defaults(digits: Dataset) -> None:
    own = dataclasses.replace(digits, name="mine")
    assert default_stage(own, "student", "ce") == StageConfig()


# Feed -------------------------------------------------------------------------------------------------------------


def test_evaluation_sees_every_image_once_and_restores_the_mode(digits: Dataset) -> None:
    net = network().train()
    feed, ticks = Feed(digits.train, ENCODING), []
    value = accuracy(net, feed, lambda done, total: ticks.append((done, total)))
    assert net.training
    assert ticks == [(1, 3), (2, 3), (3, 3)]
    rows = np.concatenate([batch.indices for batch in feed.in_order()])
    assert np.array_equal(rows, np.arange(len(digits.train)))
    net.eval()
    with torch.no_grad():
        sat = net.sat(ENCODING.tensor(digits.train.images, rows))
    hits = float((sat.sum(0).argmax(1).numpy() == digits.train.labels).mean())
    assert value == pytest.approx(100 * hits)


def test_batches_hold_the_encoders_own_values(digits: Dataset) -> None:
    batch = next(Feed(digits.train, ENCODING).train_batches(32, seed=3, epoch=1))
    images = digits.train.images[batch.indices]
    assert torch.equal(batch.inputs, ENCODING.tensor(images, batch.indices))
    assert np.array_equal(batch.labels.numpy(), digits.train.labels[batch.indices])


def test_distilled_epochs_cost_about_a_plain_one(digits: Dataset) -> None:
    """The cached SAT is unpacked, not recomputed: reading a batch of it takes well under a millisecond."""
    cache = SatCache(np.zeros((1, 60_000, 10), np.uint8), 8, 10, "key", 0.0)
    rows = np.random.default_rng(0).permutation(60_000)[:128]
    cache.take(rows)
    start = time.perf_counter()
    for _ in range(20):
        cache.take(rows)
    assert (time.perf_counter() - start) / 20 < 5e-3
