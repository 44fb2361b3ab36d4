"""Several processes do what one does, but for the order of sums; one that fails ends all."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

torch = pytest.importorskip("torch")

from deploy.errors import ConfigError, TrainingError  # noqa: E402
from neurokd import cli, cli_options, parallel  # noqa: E402
from neurokd.checkpoint import digest  # noqa: E402
from neurokd.config_parts import StageConfig  # noqa: E402
from neurokd.data import Dataset, Split, load  # noqa: E402
from neurokd.encoding import Encoding  # noqa: E402
from neurokd.loop import fit  # noqa: E402
from neurokd.losses import parse_loss  # noqa: E402
from neurokd.network import build  # noqa: E402

ROOT = Path(__file__).resolve().parents[2]
CASES = {
    "dense": ("64-24-10", {}),
    "convolution": ("8x8x1-6c3-p2-8c3p1-10", {}),
    "cuba": ("8x8x1-4c3-10", {"neuron": "cuba"}),
}
SCRIPT = """
import sys, json
sys.path.insert(0, {root!r})
import importlib.util
spec = importlib.util.spec_from_file_location("cases", {here!r})
cases = importlib.util.module_from_spec(spec)
spec.loader.exec_module(cases)
from neurokd import parallel
with parallel.group():
    found = {{name: cases.trained(name, {folder!r}) for name in cases.CASES}}
    print("process 0 alone prints", parallel.rank())
    every = [None] * parallel.world()
    parallel.dist.all_gather_object(every, {{name: one[0] for name, one in found.items()}})
    if parallel.rank() == 0:
        assert all(one == every[0] for one in every), every
        cases.torch.save(found, {folder!r} + "/found.pt")
"""
FAILING = """
import sys
sys.path.insert(0, {root!r})
from deploy.cli_options import guarded
from deploy.errors import DataError
from neurokd import parallel
import torch
def work():
    with parallel.group():
        parallel.total(torch.ones(2))
        if parallel.rank() == 1:
            raise DataError("the second process cannot read its images")
        parallel.total(torch.ones(2))
sys.exit(guarded(work))
"""


def trained(name: str, folder: str | None = None) -> tuple[str, dict[str, torch.Tensor], list[float]]:
    """Two epochs on 203 digits: the last batch is left out, the one of 50 is not shared evenly by 3."""
    spec, options = CASES[name]
    data, encoding = _few(load("digits")), Encoding("direct", 4, 3, raw_levels=16)
    network = build(spec, steps=3, input_bits=4, seed=1, **options)
    stage = StageConfig(epochs=2, batch=50, lr=5e-3)
    result = fit(
        network, data, encoding, stage, loss_terms=parse_loss("ce"),
        checkpoint_dir=None if folder is None else Path(folder) / name,
    )  # fmt: skip
    return digest(network.state_dict()), network.state_dict(), [record.loss for record in result.history]


def _few(data: Dataset) -> Dataset:
    splits = {name: getattr(data, name) for name in ("train", "validation", "test")}
    return replace(data, **{name: Split(s.images[:203], s.labels[:203]) for name, s in splits.items()})


def _torchrun(script: str, tmp_path: Path, processes: int = 2) -> subprocess.CompletedProcess[str]:
    path = tmp_path / "script.py"
    path.write_text(script.format(root=str(ROOT), here=__file__, folder=str(tmp_path)))
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", str(processes)]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    return subprocess.run(
        [*command, str(path)], env=environment, cwd=tmp_path, capture_output=True, text=True, timeout=200
    )


def test_two_processes_train_as_one_does(tmp_path: Path) -> None:
    done = _torchrun(SCRIPT, tmp_path)
    assert done.returncode == 0, done.stderr[-3000:]
    assert done.stdout.split() == ["process", "0", "alone", "prints", "0"]
    found = torch.load(tmp_path / "found.pt")
    for name in CASES:
        _, weights, losses = trained(name)
        assert losses == pytest.approx(found[name][2], rel=1e-4), name
        for key, value in weights.items():
            assert torch.allclose(value.float(), found[name][1][key].float(), rtol=1e-2, atol=2e-3), (name, key)
        assert sorted(p.name for p in (tmp_path / name).iterdir()) == ["training.safetensors"]


def test_a_process_that_fails_ends_all_with_typed_errors(tmp_path: Path) -> None:
    done = _torchrun(FAILING, tmp_path)
    assert done.returncode != 0
    assert "the second process cannot read its images" in done.stderr
    assert "another process of the group ended" in done.stderr or "SIGTERM" in done.stderr


def test_without_a_group_nothing_happens() -> None:
    tensor, parameter = torch.ones(2, 3), torch.nn.Parameter(torch.ones(3))
    assert not parallel.active()
    assert (parallel.rank(), parallel.local_rank(), parallel.world()) == (0, 0, 1)
    assert parallel.total(tensor) is tensor
    assert parallel.of_first(tensor) is tensor
    assert parallel.gather(tensor, 3) is tensor
    assert parallel.shared("value") == "value"
    assert parallel.private_folder(Path("here")) == Path("here")
    assert parallel.share(5) == slice(0, 5)
    parallel.sum_gradients([parameter])
    parallel.check_equal("anything", "weights")


@pytest.fixture
def group(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """The second of three processes, its messages answered by itself."""
    monkeypatch.setattr(parallel, "active", lambda: True)
    monkeypatch.setattr(parallel, "rank", lambda: 1)
    monkeypatch.setattr(parallel, "world", lambda: 3)


@pytest.mark.usefixtures("group")
def test_shares_cover_a_batch() -> None:
    assert [parallel._part(50, number) for number in range(3)] == [slice(0, 16), slice(16, 33), slice(33, 50)]
    assert parallel.share(50) == slice(16, 33)
    with pytest.raises(TrainingError, match="fewer samples than there are processes"):
        parallel.share(2)


@pytest.mark.usefixtures("group")
def test_processes_that_differ_are_found(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(parallel.dist, "all_gather_object", lambda found, value: found.__setitem__(0, "other"))
    with pytest.raises(TrainingError, match="do not hold the same weights"):
        parallel.check_equal("mine", "weights")


def test_a_group_that_cannot_meet(monkeypatch: pytest.MonkeyPatch) -> None:
    def nobody(*_: object, **__: object) -> None:
        raise ValueError("environment variable MASTER_ADDR expected, but not set")

    monkeypatch.setattr(parallel.dist, "init_process_group", nobody)
    with pytest.raises(TrainingError, match="cannot join the other processes"), parallel.group():
        pass


@pytest.mark.parametrize("command", ["demo", "export", ""])
def test_commands_for_one_process(command: str, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in (("RANK", "1"), ("WORLD_SIZE", "2")):
        monkeypatch.setenv(name, value)
    assert parallel.launched()
    assert cli_options.grouped()
    monkeypatch.setattr(sys, "argv", ["neurokd", command])
    with pytest.raises(ConfigError, match="this command is for one process"):
        cli._together()


@pytest.mark.long
def test_torchrun_and_the_command_line(tmp_path: Path) -> None:
    """The same files and figures as of one process, from process 0 alone."""
    arguments = ["-m", "neurokd", "train", "student_plain", "--data", "digits", "--set", "training.student.epochs=1"]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)}
    told = {}
    for name, launcher in (
        ("one", [sys.executable]),
        ("two", [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]),
    ):
        done = subprocess.run(
            [*launcher, *arguments, "--out", str(tmp_path / name)], env=environment, cwd=tmp_path,
            capture_output=True, text=True, timeout=200,
        )  # fmt: skip
        assert done.returncode == 0, done.stderr[-3000:]
        told[name] = done.stdout
        stage = json.loads((tmp_path / name / "stages" / "student_plain.json").read_text())
        told[name + " accuracy"] = stage["accuracy"]
    assert told["two"].count("student_plain:") == 1
    assert told["two accuracy"] == pytest.approx(told["one accuracy"], abs=1.0)
    files = [sorted(str(p.relative_to(tmp_path / n)) for p in (tmp_path / n).rglob("*")) for n in ("one", "two")]
    assert files[0] == files[1]
