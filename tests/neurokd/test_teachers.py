"""Who may teach: ANNs by logits and features, snntorch modules by their SAT, live and cached alike."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from deploy.errors import CheckpointError, TrainingError
from neurokd import checkpoint, losses, resume
from neurokd.accept import accept
from neurokd.config_parts import StageConfig
from neurokd.data import Dataset
from neurokd.distill import SAT_FILE, distill, distill_stage, teacher_sats, teaching
from neurokd.encoding import Encoding
from neurokd.loop import fit
from neurokd.network import SpikingNetwork, build
from neurokd.satcache import SatCache
from neurokd.teachers import LiveTeacher, ModuleTeacher, as_teacher
from neurokd.train import evaluate

pytestmark = pytest.mark.usefixtures("one_thread")
ENCODING = Encoding("direct", 4, 5, raw_levels=16)
STAGE = StageConfig(epochs=2, batch=64, lr=5e-3, shift=1, views=3)


class Ann(nn.Module):
    """A small convolutional classifier with dropout and batch norm."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(1, 6, 3, padding=1)
        self.body = nn.Sequential(nn.BatchNorm2d(6), nn.ReLU(inplace=True), nn.MaxPool2d(2), nn.Flatten())
        self.drop, self.hidden, self.head = nn.Dropout(0.3), nn.Linear(96, 40), nn.Linear(40, 10)

    def forward(self, x: Tensor) -> Tensor:
        hidden = functional.relu(self.hidden(self.drop(self.body(self.conv(x)))))
        out: Tensor = self.head(hidden)
        return out


@pytest.fixture(scope="module")
def ann(digits: Dataset) -> Ann:
    torch.manual_seed(3)
    module, images = Ann(), torch.from_numpy(digits.train.images).float() / 16
    optimizer, labels = torch.optim.Adam(module.parameters(), 0.01), torch.from_numpy(digits.train.labels)
    for _ in range(40):
        optimizer.zero_grad()
        functional.cross_entropy(module(images), labels).backward()  # type: ignore[no-untyped-call]
        optimizer.step()
    return module


def network(spec: str = "64-24-10", **options: object) -> SpikingNetwork:
    return build(spec, **{"steps": 5, "input_bits": 4, **options})


def digest(module: nn.Module) -> str:
    return checkpoint.digest(module.state_dict())


# ANNs


def test_an_ann_teaches_by_its_logits_alone(digits: Dataset, ann: Ann) -> None:
    before, student = digest(ann), network()
    ann.train()
    ann.drop.eval()  # a mode of one part only
    distill(student, ann, digits, loss="logit-kl,temperature=4", epochs=10, lr=5e-3)
    assert evaluate(student, digits.test, ENCODING) > 80
    assert digest(ann) == before
    assert ann.training
    assert ann.conv.training
    assert not ann.drop.training
    ann.train()


def test_the_cache_of_an_ann_is_its_logits_of_the_images_as_they_are(small: Dataset, ann: Ann, tmp_path: Path) -> None:
    stage = dataclasses.replace(STAGE, loss="ce+logit-mse", shift=0, views=1)
    distill_stage(network(), ann, small, ENCODING, stage, folder=tmp_path)
    master = as_teacher(ann, small)
    cache = teacher_sats(master, small, Encoding("direct", 8, 1, raw_levels=16), stage, folder=tmp_path)
    assert cache.reused
    assert cache.holds == {"logits"}
    ann.eval()
    rows = [4, 200, 1]
    with torch.no_grad():
        images = torch.from_numpy(small.train.images[rows]).float() / 16
        expected = ann(torch.round(images * 255) / 255)
    ann.train()
    torch.testing.assert_close(cache.told(rows).logits, expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("loss", ["sat-ce", "rate-kl", "membrane", "ce+temporal-kl"])
def test_losses_on_spikes_are_refused_by_name(small: Dataset, ann: Ann, loss: str) -> None:
    with pytest.raises(TrainingError, match="does not spike") as caught:
        distill(network(), ann, small, loss=loss, epochs=1)
    assert "logit-kl" in caught.value.allowed
    assert loss in caught.value.where


def test_sat_of_an_ann_is_refused(small: Dataset, ann: Ann) -> None:
    with pytest.raises(TrainingError, match="does not spike"):
        as_teacher(ann, small).sat(torch.rand(2, 1, 8, 8))
    with pytest.raises(TrainingError, match="cannot tell what the loss needs"):
        as_teacher(ann, small).outputs(torch.rand(2, 1, 8, 8), want=("membranes",))  # type: ignore[attr-defined]


class Other(nn.Module):
    """Gives whatever it is told to."""

    def __init__(self, give: Any) -> None:
        super().__init__()
        self.give = give

    def forward(self, x: Tensor) -> Any:
        return self.give(x)


@pytest.mark.parametrize(
    ("give", "got"),
    [
        (lambda x: x, r"gives \[2, 1, 8, 8\] for 2 images"),
        (lambda x: "cat", "gives str"),
        (lambda x: (), "gives tuple"),
        (lambda x: x.long().flatten(1), "gives Tensor"),
        (lambda x: x[:1].flatten(1), r"gives \[1, 64\] for 2 images"),
        (lambda x: nn.Linear(63, 10)(x.flatten(1)), "RuntimeError: mat1 and mat2"),
        (lambda x: x[99], "IndexError"),
    ],
)
def test_modules_that_cannot_teach(small: Dataset, give: Any, got: str) -> None:
    with pytest.raises(TrainingError, match="the module cannot teach") as caught:
        distill(network(), Other(give), small, loss="logit-kl", epochs=1)
    assert __import__("re").search(got, caught.value.got)


def test_what_is_no_teacher_at_all(small: Dataset) -> None:
    with pytest.raises(TrainingError, match="this is no teacher"):
        as_teacher("teacher", small)  # type: ignore[arg-type]


def test_an_ann_of_other_classes(small: Dataset) -> None:
    with pytest.raises(TrainingError, match="different numbers of classes") as caught:
        distill(network(), nn.Sequential(nn.Flatten(), nn.Linear(64, 7)), small, loss="logit-kl", epochs=1)
    assert caught.value.got == "teacher 7, student 10"


def test_an_ann_that_gives_no_numbers(small: Dataset) -> None:
    module = nn.Sequential(nn.Flatten(), nn.Linear(64, 10))
    with torch.no_grad():
        module[1].weight.fill_(float("inf"))  # type: ignore[union-attr]
    with pytest.raises(TrainingError, match="logits are not numbers"):
        distill(network(), module, small, loss="logit-kl", epochs=1)


# snntorch modules


@pytest.fixture(scope="module")
def spiking() -> nn.Module:
    snn = pytest.importorskip("snntorch")

    class Loop(nn.Module):
        """As snntorch's tutorials write it; gives spikes and membranes."""

        def __init__(self) -> None:
            super().__init__()
            kind = {"beta": 0.75, "reset_mechanism": "zero", "reset_delay": False}
            self.fc1, self.lif1 = nn.Linear(64, 30), snn.Leaky(**kind)
            self.fc2, self.lif2 = nn.Linear(30, 10), snn.Leaky(**kind)

        def forward(self, x: Tensor) -> Any:
            mem1, mem2, spikes, membranes = self.lif1.init_leaky(), self.lif2.init_leaky(), [], []
            for _ in range(6):
                spk1, mem1 = self.lif1(self.fc1(x.flatten(1)), mem1)
                spk2, mem2 = self.lif2(self.fc2(spk1), mem2)
                spikes.append(spk2)
                membranes.append(mem2)
            return torch.stack(spikes), torch.stack(membranes)

    torch.manual_seed(0)
    module = Loop()
    with torch.no_grad():
        for layer in (module.fc1, module.fc2):
            layer.weight.mul_(3)
    return module


def test_a_snntorch_module_teaches_by_its_sat_as_it_is(small: Dataset, spiking: nn.Module) -> None:
    master = as_teacher(spiking, small)
    assert isinstance(master, ModuleTeacher)
    assert (master.spikes, master.classes) == (True, 10)
    eight = Encoding("direct", 8, 1, raw_levels=16)
    cache = teacher_sats(master, small, eight, STAGE)
    assert (cache.steps, cache.classes, cache.holds) == (6, 10, {"sat"})
    rows = np.array([7, 100])
    with torch.no_grad():
        expected = spiking(eight.tensor(small.train.images[rows], rows))[0]
    assert torch.equal(cache.take(rows), expected)
    student = network()
    result = distill_stage(student, spiking, small, ENCODING, dataclasses.replace(STAGE, loss="sat-combined"))
    assert result.history[0].parts["full-l1"] > 0


def test_it_tells_more_once_it_is_accepted(small: Dataset, spiking: nn.Module) -> None:
    with pytest.raises(TrainingError, match="cannot tell what the loss needs") as caught:
        distill(network(), spiking, small, loss="logit-kl", epochs=1)
    assert "accept" in caught.value.next_step
    accepted = accept(spiking, torch.rand(4, 1, 8, 8))
    loss = "ce+logit-kl+membrane+full-l2"
    result = distill_stage(
        network(), accepted, small, ENCODING, dataclasses.replace(STAGE, loss=loss),
        teacher_encoding=Encoding("direct", 8, accepted.steps, raw_levels=16),
    )  # fmt: skip
    assert result.history[0].parts.keys() == {"ce", "logit-kl", "membrane", "full-l2"}


def test_its_layers_are_features_over_time(small: Dataset, spiking: nn.Module) -> None:
    stage = dataclasses.replace(STAGE, loss="ce+feature,teacher=lif1,student=dense1")
    result = distill_stage(network(), spiking, small, ENCODING, stage)
    assert result.history[-1].parts["feature,student=dense1,teacher=lif1"] > 0
    master = as_teacher(spiking, small)
    told = master.outputs(torch.rand(3, 1, 8, 8), want=("layers",))  # type: ignore[attr-defined]
    assert {name: tuple(value.shape) for name, value in told.layers.items()} == {
        "fc1": (6, 3, 30), "lif1": (6, 3, 30), "fc2": (6, 3, 10), "lif2": (6, 3, 10),
    }  # fmt: skip


def test_a_module_of_one_step_a_call_is_refused(small: Dataset) -> None:
    snn = pytest.importorskip("snntorch")
    module = nn.Sequential(nn.Flatten(), nn.Linear(64, 10), snn.Leaky(beta=0.9, init_hidden=True))
    with pytest.raises(TrainingError, match="the module cannot teach") as caught:
        distill(network(), module, small, loss="full-l1", epochs=1)
    assert "accept" in caught.value.next_step


# Live


@pytest.fixture(scope="module")
def teacher(digits: Dataset) -> SpikingNetwork:
    net = network("64-48-10", seed=4, steps=7)
    code = Encoding("direct", 4, 7, raw_levels=16)
    fit(net, digits, code, StageConfig(epochs=4, batch=64, lr=5e-3), loss_terms=losses.parse_loss("ce"))
    return net


SEVEN = Encoding("direct", 4, 7, raw_levels=16)


def test_a_live_teacher_says_what_a_cached_one_does(small: Dataset, teacher: SpikingNetwork) -> None:
    stage = dataclasses.replace(STAGE, loss="sat-ce+logit-kl", mix=0.8)
    cache = teaching(teacher, small, SEVEN, stage, seed=3)
    live = teaching(teacher, small, SEVEN, dataclasses.replace(stage, teacher="live"), seed=3)
    assert isinstance(cache, SatCache)
    assert isinstance(live, LiveTeacher)
    assert (cache.samples, cache.views, cache.classes) == (live.samples, live.views, live.classes)
    assert cache.holds == live.holds == {"sat", "logits"}
    teacher.train()
    rows = np.array([5, 250, 9])
    for view in range(3):
        kept, told = cache.told(rows, view), live.told(rows, view)
        assert torch.equal(kept.sat, told.sat)
        torch.testing.assert_close(kept.logits, told.logits, rtol=1e-4, atol=1e-5)
    assert teacher.training
    teacher.eval()


def test_training_on_a_live_teacher_is_training_on_its_cache(small: Dataset, teacher: SpikingNetwork) -> None:
    students = []
    for how in ("cached", "live"):
        students.append(network())
        stage = dataclasses.replace(STAGE, loss="sat-ce", teacher=how)
        distill_stage(students[-1], teacher, small, ENCODING, stage, teacher_encoding=SEVEN)
    assert digest(students[0]) == digest(students[1])


@pytest.mark.parametrize(
    ("loss", "live"),
    [("sat-ce", False), ("ce+logit-kl", False), ("membrane", True), ("ce+feature", True), ("full-l1+attention", True)],
)
def test_a_teacher_is_asked_live_where_the_loss_must(
    small: Dataset, teacher: SpikingNetwork, loss: str, live: bool
) -> None:
    told = teaching(teacher, small, SEVEN, dataclasses.replace(STAGE, loss=loss))
    assert isinstance(told, LiveTeacher) == live
    if live:
        with pytest.raises(TrainingError, match="are not kept"):
            teacher_sats(teacher, small, SEVEN, dataclasses.replace(STAGE, loss=loss))


@pytest.mark.parametrize("loss", ["sat-ce", "response", "stepwise", "ce+membrane", "ce+feature", "logit-ce+self-pair"])
def test_classes_of_several_neurons_on_both_sides(small: Dataset, loss: str) -> None:
    master, pupil = network("64-24-40", population=4, seed=2), network("64-16-20", population=2)
    result = distill_stage(pupil, master, small, ENCODING, dataclasses.replace(STAGE, loss=loss))
    assert all(np.isfinite(value) for record in result.history for value in record.parts.values())
    assert result.history[-1].parts.keys() == {term.key for term in losses.parse_loss(loss)}


FEATURE = "ce+feature:0.5,student=dense1,teacher=hidden+logit-kl"


def test_features_of_an_ann_and_what_is_kept_of_their_alignment(small: Dataset, ann: Ann, tmp_path: Path) -> None:
    student, stage = network(), dataclasses.replace(STAGE, epochs=4, loss=FEATURE)
    result = distill_stage(student, ann, small, ENCODING, stage, folder=tmp_path / "whole")
    first, last = (result.history[place].parts["feature,student=dense1,teacher=hidden"] for place in (0, -1))
    assert last < first
    assert not (tmp_path / "whole" / SAT_FILE).exists()
    assert student.state_dict().keys() == network().state_dict().keys()
    contents = checkpoint.read(tmp_path / "whole" / resume.FILE, checkpoint.STATE)
    kept = {name: tuple(value.shape) for name, value in contents.tensors.items() if name.startswith("alignments/")}
    assert kept == {"alignments/layers.0.weight": (40, 24), "alignments/layers.0.bias": (40,)}


def test_a_killed_run_with_an_alignment_goes_on_exactly(
    small: Dataset, ann: Ann, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    stage = dataclasses.replace(STAGE, epochs=3, loss=FEATURE.replace("ce+", "ce:1->0.3+"), mix=0.5)
    whole, killed, resumed = network(), network(), network()
    distill_stage(whole, ann, small, ENCODING, stage)

    def stop(event: Any) -> None:
        if (event.what, event.epoch) == ("train", 2):
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        distill_stage(killed, ann, small, ENCODING, stage, folder=tmp_path, progress=stop)
    distill_stage(resumed, ann, small, ENCODING, stage, folder=tmp_path)
    assert digest(resumed) == digest(whole)
    other = dataclasses.replace(stage, loss=FEATURE)
    with pytest.raises(CheckpointError, match="another training run"):
        distill_stage(network(), ann, small, ENCODING, other, folder=tmp_path)


@pytest.mark.parametrize(
    ("loss", "message"),
    [
        ("feature,teacher=hidden,student=dense9", "the student has no such layer"),
        ("feature,teacher=nothing", "the teacher has no such layer"),
        ("feature,teacher=conv", "cannot be aligned"),
        ("attention,teacher=conv", "needs a layer with an image"),
        ("feature,teacher=hidden,align=none", "do not have one shape"),
    ],
)
def test_layers_that_do_not_fit(small: Dataset, ann: Ann, loss: str, message: str) -> None:
    with pytest.raises(TrainingError, match=message):
        distill(network(), ann, small, loss=loss, epochs=1)


def test_convolutions_of_other_widths_and_sizes_are_aligned(small: Dataset, ann: Ann) -> None:
    student = network("8x8x1-4c3-p2-10")
    stage = dataclasses.replace(
        STAGE, loss="feature,teacher=conv,student=conv1+attention:2,teacher=conv+attention,teacher=conv,align=learned"
    )
    result = distill_stage(student, ann, small, ENCODING, stage)
    assert len(result.history[0].parts) == 3
    assert all(np.isfinite(value) for value in result.history[-1].parts.values())


def test_in_place_layers_do_not_change_what_was_kept(small: Dataset, ann: Ann) -> None:
    """The batch norm's output is negative in places; the ReLU behind it works in place."""
    layers = as_teacher(ann, small).eval().outputs(torch.rand(4, 1, 8, 8), want=("layers",)).layers
    assert float(layers["body.0"].min()) < 0
    assert float(layers["body.1"].min()) == 0
    ann.train()
