"""A run over a folder: every stage once, resumable after a kill, refused when the folder holds another run."""

from __future__ import annotations

import dataclasses
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("torch")

from deploy.errors import CheckpointError, ConfigError, VerifyError  # noqa: E402
from deploy.files import write_json  # noqa: E402
from neurokd import chip_stages, pipeline  # noqa: E402
from neurokd.config import Config  # noqa: E402
from neurokd.demo import STAGES, demo  # noqa: E402
from neurokd.pipeline import Run  # noqa: E402

pytestmark = pytest.mark.train
SMALL = {
    "networks.teacher": "64-24-10",
    "networks.assistant": "64-16-10",
    "networks.student": "64-12-10",
    "training.teacher.epochs": 3,
    "training.assistant.epochs": 3,
    "training.student.epochs": 3,
    "quantize.epochs": 2,
    "lava.samples": 4,
}


def small(out: Path, **changes: Any) -> Config:
    return Config.default("digits").override({**SMALL, "out": str(out), **changes})


def figures(summary: dict[str, Any]) -> dict[str, Any]:
    """What must not depend on how often a run was interrupted: everything but times."""
    plain = json.loads(json.dumps(summary))
    del plain["seconds"]
    return plain


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, Any]]:
    """One uninterrupted small run without Lava."""
    folder = tmp_path_factory.mktemp("whole") / "run"
    return folder, demo(small(folder), with_lava=False)


def test_a_run_leaves_what_it_promises(whole: tuple[Path, dict[str, Any]]) -> None:
    folder, summary = whole
    for name in (
        "config.toml", "summary.json", "student.nir", "program.npz", "report.html", "verify.json", "profile.json",
        "placement.json", "test_spikes.npz", "student_spikes.npz", "accuracy.png", "raster.png", "activity.png",
        "energy.png",
    ):  # fmt: skip
        assert (folder / name).stat().st_size > 100, name
    for name in ("teacher", "assistant", "student_plain", "student", "quantized"):
        assert (folder / "checkpoints" / f"{name}.safetensors").is_file()
        assert 0 < summary["accuracy"][name] <= 100
    assert summary["accuracy"]["chip"] == summary["accuracy"]["quantized"]
    assert summary["equality"]["differing_spikes"] == {"nir": 0, "reference": 0, "simulator": 0, "lava": None}
    assert summary["equality"]["samples"] == 4
    assert summary["equality"]["samples_simulated"] == 450
    assert summary["activity"]["synops_per_sample"] > 0
    assert summary["modelled"]["energy_per_sample_J"] > 0
    assert not list(folder.rglob("*.partial*"))


def test_the_configuration_repeats_the_run(whole: tuple[Path, dict[str, Any]], tmp_path: Path) -> None:
    folder, summary = whole
    again = Config.load(folder / "config.toml").override({"out": str(tmp_path / "again")})
    assert figures(demo(again, with_lava=False)) == figures(summary)


def test_a_finished_run_is_not_run_again(whole: tuple[Path, dict[str, Any]]) -> None:
    folder, summary = whole
    before = {path: path.stat().st_mtime_ns for path in (folder / "checkpoints").iterdir()}
    assert demo(small(folder), with_lava=False) == summary
    assert before == {path: path.stat().st_mtime_ns for path in (folder / "checkpoints").iterdir()}


RUNNER = """
import sys
from neurokd.config import Config
from neurokd.demo import demo
demo(Config.load(sys.argv[1]), with_lava=False)
"""


@pytest.mark.slow
def test_a_killed_run_goes_on_to_the_same_figures(whole: tuple[Path, dict[str, Any]], tmp_path: Path) -> None:
    """SIGKILL again and again, in each stage and between: the end is the same, whatever was interrupted."""
    _, summary = whole
    config = small(tmp_path / "killed")
    config.save(tmp_path / "config.toml")
    command = [sys.executable, "-c", RUNNER, str(tmp_path / "config.toml")]
    kills = 0
    for target in ("student_plain", "teacher", "assistant", "student", "quantized", "export", "simulate", "verify"):
        worker = subprocess.Popen(command, stderr=subprocess.DEVNULL, start_new_session=True)
        deadline = time.monotonic() + 120
        while worker.poll() is None and not _reached(Path(config.out), target) and time.monotonic() < deadline:
            time.sleep(0.005)
        if worker.poll() is None:
            os.killpg(worker.pid, signal.SIGKILL)
            kills += 1
        worker.wait()
    assert kills >= 6
    assert figures(demo(config, with_lava=False)) == figures(summary)


def _reached(folder: Path, target: str) -> bool:
    """A training stage is under way once it has saved an epoch; another one once the stage before it is done."""
    if target in pipeline.TRAINING:
        return (folder / "training" / target / "training.safetensors").exists()
    names = [name for name, _ in STAGES]
    before = names[names.index(target) - 1] if target in names else names[-1]
    return (folder / "stages" / f"{before}.json").exists()


@pytest.mark.lava
def test_lava_is_made_up_for_when_an_earlier_run_left_it_out(
    whole: tuple[Path, dict[str, Any]], tmp_path: Path
) -> None:
    folder, summary = whole
    shutil.copytree(folder, tmp_path / "run")
    again = demo(small(tmp_path / "run"))
    assert again["equality"]["differing_spikes"] == {"nir": 0, "reference": 0, "simulator": 0, "lava": 0}
    assert again["accuracy"] == summary["accuracy"]


def test_a_folder_of_another_run_is_refused(whole: tuple[Path, dict[str, Any]]) -> None:
    folder, _ = whole
    with pytest.raises(ConfigError, match="another configuration") as caught:
        Run(small(folder, seed=5))
    assert "seed" in caught.value.got


def test_a_stage_that_has_not_been_run_is_named(tmp_path: Path) -> None:
    run = Run(small(tmp_path / "run"))
    with pytest.raises(CheckpointError, match="'student' has not been run"):
        run.network("student")


def test_a_run_can_be_opened_elsewhere(whole: tuple[Path, dict[str, Any]], tmp_path: Path) -> None:
    folder, summary = whole
    moved = tmp_path / "moved"
    moved.symlink_to(folder)
    assert Run.open(moved).facts("student")["accuracy"] == summary["accuracy"]["student"]


def test_a_difference_fails_the_run_but_leaves_the_report(whole: tuple[Path, dict[str, Any]], tmp_path: Path) -> None:
    """The check can fail: one differing spike on record, and the run ends with an error."""
    folder, _ = whole
    shutil.copytree(folder, tmp_path / "run")
    run = Run(small(tmp_path / "run"))
    facts = run.facts("simulate")
    write_json(run.folder / "stages" / "simulate.json", {**facts, "differing_spikes": {"nir": 0, "simulator": 1}})
    (run.folder / "report.html").unlink()
    with pytest.raises(VerifyError, match="not what was trained"):
        chip_stages.report(run)
    assert (run.folder / "report.html").is_file()


def test_the_straight_route_has_no_assistant_in_its_way(tmp_path: Path) -> None:
    run = Run(small(tmp_path / "run", **{"distill.route": "teacher-student"}))
    pipeline.train_teacher(run)
    pipeline.distil_student(run)
    assert not run.done("assistant")


def test_a_student_that_starts_as_part_of_the_assistant(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    started: list[Any] = []
    whole = pipeline.inherit

    def noted(student: Any, wide: Any, *rest: Any, **how: Any) -> Any:
        started.append((student.spec_text, wide.spec_text))
        return whole(student, wide, *rest, **how)

    monkeypatch.setattr(pipeline, "inherit", noted)
    run = Run(small(tmp_path / "run", **{"distill.start": "assistant"}))
    pipeline.train_teacher(run)
    pipeline.distil_assistant(run)
    assert started == []
    pipeline.distil_student(run)
    assert started == [(run.config.networks.student, run.config.networks.assistant)]


def test_a_new_quantization_replaces_the_old_one_and_what_came_after(
    whole: tuple[Path, dict[str, Any]], tmp_path: Path
) -> None:
    """Rounded only, with widths by layer; then under a budget; the float networks stay as they were."""
    shutil.copytree(whole[0], tmp_path / "run")
    run = Run.open(tmp_path / "run")
    teacher = run.checkpoint("teacher").read_bytes()
    assert pipeline.requantize(run, run.config.quantize) is run
    rounded = dataclasses.replace(run.config.quantize, loss="none", layer_bits="dense1=4", power_of_two=True)
    run = pipeline.requantize(run, rounded)
    assert not run.done("export")
    facts = pipeline.quantize_student(run)
    assert facts["epochs"] == 0
    assert [grid["weight_bits"] for grid in facts["grids"].values()] == [4, 8]
    saving = dataclasses.replace(rounded, loss="sat", synops_budget=0.6, epochs=1, learn="threshold", fake_epochs=1)
    run = pipeline.requantize(run, saving)
    facts = pipeline.quantize_student(run)
    assert {one["how"] for one in facts["tried"]} >= {"weights", "neurons", "both"}
    assert next(one for one in facts["tried"] if one["how"] == facts["won"])["cost"] <= facts["limit"]
    summary = demo(run.config, with_lava=False)
    assert summary["equality"]["differing_spikes"]["simulator"] == 0
    assert summary["accuracy"]["chip"] == facts["accuracy"]
    assert run.checkpoint("teacher").read_bytes() == teacher
    assert Config.load(tmp_path / "run" / "config.toml").quantize == saving
