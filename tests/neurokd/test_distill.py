"""Distillation: the cached SAT is the teacher's own, the teacher stays frozen, and the routes are walked."""

from __future__ import annotations

import dataclasses
import importlib
from pathlib import Path

import numpy as np
import pytest
import torch

from deploy.errors import CheckpointError, ConfigError, TrainingError
from neurokd import checkpoint, losses
from neurokd.config import Config
from neurokd.config_parts import StageConfig
from neurokd.data import Dataset
from neurokd.distill import SAT_FILE, distill, distill_route, distill_stage, teacher_sats
from neurokd.encoding import Encoding
from neurokd.loop import fit
from neurokd.network import SpikingNetwork, build
from neurokd.progress import ProgressEvent
from neurokd.train import evaluate, train
from neurokd.views import Views

pytestmark = pytest.mark.usefixtures("one_thread")
distillation = importlib.import_module("neurokd.distill")  # `neurokd.distill` itself is the function
ENCODING = Encoding("direct", 4, 5, raw_levels=16)
VIEWED = StageConfig(epochs=2, batch=64, lr=5e-3, shift=1, views=3, loss="sat-ce")


@pytest.fixture(scope="module")
def teacher(digits: Dataset) -> SpikingNetwork:
    net = network("64-64-10", seed=4)
    train(net, digits, epochs=6, lr=5e-3)
    return net


def network(spec: str = "64-16-10", **options: object) -> SpikingNetwork:
    return build(spec, **{"steps": 5, "input_bits": 4, "surrogate": "triangular", **options})


def weights(net: SpikingNetwork) -> str:
    return checkpoint.digest(net.state_dict())


def test_the_cache_is_the_teachers_own_sat_for_every_view(small: Dataset, teacher: SpikingNetwork) -> None:
    cache = teacher_sats(teacher, small, ENCODING, VIEWED, seed=7)
    rows = np.array([3, 250, 0, 77])
    for view in range(3):
        pixels = Views(3, 1, False, 7).make(small.train.images, view)[rows]
        with torch.no_grad():
            expected = teacher.eval().sat(ENCODING.tensor(pixels, rows))
        assert torch.equal(cache.take(rows, view), expected)
    assert cache.take(rows, 0).sum() > 0
    assert not torch.equal(cache.take(np.arange(260), 0), cache.take(np.arange(260), 1))


def test_rate_codes_cache_the_spikes_each_image_really_gets(small: Dataset) -> None:
    code = Encoding("rate", 4, 6, seed=2, raw_levels=16)
    net = network(input_bits=1, steps=6).eval()
    cache = teacher_sats(net, small, code, StageConfig())
    rows = np.array([200, 5])
    with torch.no_grad():
        expected = net.sat(code.tensor(small.train.images[rows], rows))
    assert torch.equal(cache[rows], expected)


def test_the_cache_holds_the_teachers_logits_where_a_loss_needs_them(
    small: Dataset, teacher: SpikingNetwork, tmp_path: Path
) -> None:
    plain = teacher_sats(teacher, small, ENCODING, VIEWED, folder=tmp_path)
    stage = dataclasses.replace(VIEWED, loss="ce+logit-kl:1,temperature=4")
    cache = teacher_sats(teacher, small, ENCODING, stage, folder=tmp_path)
    assert (plain.holds, cache.holds) == ({"sat"}, {"sat", "logits"})
    assert not cache.reused  # the file held no logits
    assert teacher_sats(teacher, small, ENCODING, stage, folder=tmp_path).reused
    assert not teacher_sats(teacher, small, ENCODING, VIEWED, folder=tmp_path).reused
    rows = np.array([3, 250, 0, 77])
    pixels = Views(3, 1, False, 0).make(small.train.images, 2)[rows]
    with torch.no_grad():
        expected = teacher.eval().outputs(ENCODING.tensor(pixels, rows))
    told = cache.told(rows, 2)
    assert torch.equal(told.sat, expected.sat)
    torch.testing.assert_close(told.logits, expected.logits)


@pytest.mark.parametrize(
    "loss", ["logit-kl,temperature=4", "logit-mse", "stepwise", "step-kl", "logit-ce+activity:0.1", "full-l2+logit-mix"]
)
def test_losses_on_logits_train(digits: Dataset, teacher: SpikingNetwork, loss: str) -> None:
    student = network("64-32-10")
    untrained = evaluate(student, digits.test, ENCODING)
    distill(student, teacher, digits, loss=loss, epochs=8, lr=5e-3)
    assert evaluate(student, digits.test, ENCODING) > max(60.0, untrained + 30)


def test_a_cache_without_logits_is_refused_by_a_loss_on_them(small: Dataset, teacher: SpikingNetwork) -> None:
    sats = teacher_sats(teacher, small, ENCODING, VIEWED)
    with pytest.raises(TrainingError, match="cache does not hold what the loss needs"):
        fit(network(), small, ENCODING, VIEWED, loss_terms=losses.parse_loss("logit-kl"), teacher_sats=sats)


def test_stale_caches_are_computed_again(small: Dataset, teacher: SpikingNetwork, tmp_path: Path) -> None:
    def made(net: SpikingNetwork, data: Dataset, code: Encoding, stage: StageConfig, seed: int = 0) -> bool:
        cache = teacher_sats(net, data, code, stage, folder=tmp_path, seed=seed)
        assert teacher_sats(net, data, code, stage, folder=tmp_path, seed=seed).reused
        return not cache.reused

    other = build(teacher.spec_text, **teacher.options)
    other.load_state_dict(teacher.state_dict())
    with torch.no_grad():
        next(other.parameters()).mul_(1.0001)
    shorter = dataclasses.replace(small, train=small.train.take(np.arange(1, 261) % 260))
    assert made(teacher, small, ENCODING, VIEWED)
    assert made(other, small, ENCODING, VIEWED)
    assert made(other, shorter, ENCODING, VIEWED)
    assert made(other, shorter, dataclasses.replace(ENCODING, bits=3), VIEWED)
    assert made(other, shorter, dataclasses.replace(ENCODING, bits=3), dataclasses.replace(VIEWED, views=2))
    assert made(other, shorter, dataclasses.replace(ENCODING, bits=3), dataclasses.replace(VIEWED, views=2), seed=1)


def test_the_teacher_is_frozen_and_the_student_learns(digits: Dataset, teacher: SpikingNetwork, tmp_path: Path) -> None:
    before, student = weights(teacher), network("64-32-10")
    untrained = evaluate(student, digits.test, ENCODING)
    back = distill(student, teacher, digits, loss="sat-combined", epochs=12, lr=5e-3, out=tmp_path)
    assert back is student
    assert weights(teacher) == before
    assert all(value.grad is None for value in teacher.parameters())
    assert evaluate(student, digits.test, ENCODING) > max(60.0, untrained + 30)
    assert (tmp_path / SAT_FILE).is_file()


def test_each_preset_of_the_poster_trains(small: Dataset, teacher: SpikingNetwork) -> None:
    for loss in ("full-l1", "full-l2", "full-kl", "sliding-l1", "sliding-l2", "sat-combined", "sat-ce"):
        student = network()
        stage = dataclasses.replace(VIEWED, epochs=1, loss=loss)
        result = distill_stage(student, teacher, small, ENCODING, stage)
        assert result.history[0].parts.keys() == {term.key for term in losses.parse_loss(loss)}


def test_a_batch_is_compared_with_the_teacher_on_the_same_view(
    small: Dataset, teacher: SpikingNetwork, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A student that *is* the teacher has distance 0 in every view, with its norm in evaluation mode."""
    seen: list[float] = []
    whole = losses.evaluate

    def note(terms, student, master, labels, **more):  # type: ignore[no-untyped-def]
        total, parts = whole(terms, student, master, labels, **more)
        seen.append(float(parts["full-l1"]))
        return total, parts

    twin = build(teacher.spec_text, **teacher.options)
    twin.load_state_dict(teacher.state_dict())
    twin.eval()
    monkeypatch.setattr(twin, "train", lambda mode=True: twin)
    monkeypatch.setattr("neurokd.loop.losses.evaluate", note)
    frozen = dataclasses.replace(VIEWED, epochs=3, lr=1e-30, weight_decay=0.0, loss="full-l1")
    distill_stage(twin, teacher, small, ENCODING, frozen)
    assert len(seen) == 3 * (260 // 64)
    assert max(seen) == 0.0


def test_teacher_and_student_of_different_steps_and_bits(small: Dataset, teacher: SpikingNetwork) -> None:
    student = network(steps=3, input_bits=2)
    distill(student, teacher, small, epochs=1, loss="full-l2+sliding-l1,delta=2")
    assert student.steps == 3


def test_without_a_teacher_term_the_teacher_is_not_run(small: Dataset, tmp_path: Path) -> None:
    result = distill_stage(
        network(), network(), small, ENCODING, dataclasses.replace(VIEWED, loss="ce"), folder=tmp_path
    )
    assert len(result.history) == 2
    assert not (tmp_path / SAT_FILE).exists()


def test_progress_tells_of_the_teacher_too(small: Dataset, teacher: SpikingNetwork) -> None:
    events: list[ProgressEvent] = []
    distill_stage(network(), teacher, small, ENCODING, VIEWED, progress=events.append, name="assistant")
    sat = [(event.epoch, event.epochs, event.done, event.total) for event in events if event.what == "teacher sat"]
    assert sat == [(1, 3, 1, 1), (2, 3, 1, 1), (3, 3, 1, 1)]
    assert {event.stage for event in events} == {"assistant"}


def config(route: str) -> Config:
    changes: dict[str, object] = {"distill.route": route, "encoding.steps": 5, "seed": 3}
    for role in ("assistant", "student"):
        changes |= {f"training.{role}.{key}": value for key, value in {"epochs": 2, "batch": 64}.items()}
    return Config.default("digits").override(changes)


def test_the_route_through_the_assistant(
    small: Dataset, teacher: SpikingNetwork, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    masters: list[object] = []
    whole = distillation.teacher_sats

    def note(master, *args, **options):  # type: ignore[no-untyped-def]
        masters.append(master)
        return whole(master, *args, **options)

    monkeypatch.setattr(distillation, "teacher_sats", note)
    assistant, student = network("64-32-10"), network()
    result = distill_route(teacher, assistant, student, small, config("teacher-assistant-student"), out=tmp_path)
    assert masters == [teacher, assistant]
    assert result.assistant is not None
    assert result.student.accuracy == evaluate(student, small.test, ENCODING)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["assistant", "student"]

    again = [network("64-32-10"), network()]
    repeated = distill_route(teacher, *again, small, config("teacher-assistant-student"), out=tmp_path)
    assert repeated == result
    assert weights(again[1]) == weights(student)


def test_a_student_can_start_as_part_of_the_assistant(
    small: Dataset, teacher: SpikingNetwork, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    started: list[object] = []
    monkeypatch.setattr(distillation, "inherit", lambda *who, **how: started.extend([*who[:2], how["encoding"]]))
    assistant, student = network("64-32-10"), network()
    how = config("teacher-assistant-student").override({"distill.start": "assistant"})
    distill_route(teacher, assistant, student, small, how)
    assert started == [student, assistant, how.make_encoding(small.levels)]
    narrow = network("64-4-10")
    before = weights(narrow)
    with pytest.raises(TrainingError, match="not a narrower form"):
        distill_route(teacher, narrow, student, small, how)
    assert weights(narrow) == before


def test_the_straight_route_leaves_the_assistant_alone(small: Dataset, teacher: SpikingNetwork) -> None:
    assistant = network("64-32-10")
    before = weights(assistant)
    result = distill_route(teacher, assistant, network(), small, config("teacher-student"))
    assert result.assistant is None
    assert weights(assistant) == before


def test_another_teacher_is_another_run(small: Dataset, teacher: SpikingNetwork, tmp_path: Path) -> None:
    distill_stage(network(), teacher, small, ENCODING, VIEWED, folder=tmp_path)
    with pytest.raises(CheckpointError, match="of another training run") as caught:
        distill_stage(network(), network("64-20-10"), small, ENCODING, VIEWED, folder=tmp_path)
    assert caught.value.got.startswith("teacher = ")


def test_bad_requests(small: Dataset, teacher: SpikingNetwork) -> None:
    with pytest.raises(TrainingError, match="different numbers of classes"):
        distill(network("64-16-9"), teacher, small)
    with pytest.raises(ConfigError, match="unknown loss"):
        distill(network(), teacher, small, loss="full-l3")
    with pytest.raises(ConfigError, match="unknown key"):
        distill(network(), teacher, small, epoch=1)
    for delta, master in ((6, teacher), (4, network(steps=3))):
        events: list[ProgressEvent] = []
        with pytest.raises(TrainingError, match="longer than the SAT") as caught:
            distill(network(), master, small, loss=f"sliding-l1,delta={delta}", epochs=1, progress=events.append)
        assert caught.value.got == f"delta={delta}, T={min(5, master.steps)}"
        assert events == []  # before the teacher is run
    with pytest.raises(ConfigError, match="after the last epoch"):
        distill(network(), teacher, small, loss="ce+full-l2:1@3", epochs=2)


def test_a_configuration_is_refused_before_it_trains() -> None:
    changed = Config.default("digits").override({"encoding.steps": 4, "training.student.loss": "ce+sliding-l1,delta=5"})
    with pytest.raises(TrainingError, match="longer than the SAT") as caught:
        changed.check()
    assert caught.value.where == "training.student.loss: loss sliding-l1,delta=5"
    late = Config.default("digits").override({"training.student.loss": "ce:1@99", "training.student.epochs": 20})
    with pytest.raises(ConfigError, match="after the last epoch") as late_one:
        late.check()
    assert late_one.value.where == "training.student.loss: loss ce:1.0@99"


def test_a_teacher_that_gives_no_numbers_stops_the_training(small: Dataset, tmp_path: Path) -> None:
    """Asked live, its NaN shows in the loss, which names term and epoch."""
    broken = network(norm=False)
    with torch.no_grad():
        broken.layers[-1].synapse.bias.fill_(float("nan"))
    stage = dataclasses.replace(VIEWED, loss="ce+logit-kl", teacher="live")
    with pytest.raises(TrainingError, match="the loss is not a number") as caught:
        distill_stage(network(), broken, small, ENCODING, stage, folder=tmp_path)
    assert caught.value.where == "student, epoch 1, batch 1"
    assert caught.value.got == "logit-kl = nan"
    with pytest.raises(TrainingError, match="logits are not numbers"):
        distill_stage(network(), broken, small, ENCODING, dataclasses.replace(stage, teacher="cached"))


def test_a_split_without_images(small: Dataset, teacher: SpikingNetwork) -> None:
    empty = dataclasses.replace(small, train=small.train.take([]))
    for master in (teacher, torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(64, 10))):
        with pytest.raises(TrainingError, match="the split is empty"):
            distill(network(), master, empty, loss="ce+logit-kl", epochs=1)
