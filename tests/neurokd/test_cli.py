"""The command line: help a person can work from, stages that compose, errors on one screen."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
from rich.console import Console

pytest.importorskip("torch")

from deploy.errors import ConfigError  # noqa: E402
from neurokd.cli import tried_table  # noqa: E402
from neurokd.cli_options import make_config  # noqa: E402

SMALL = [
    "--set", "networks.teacher=64-24-10", "--set", "networks.assistant=64-16-10", "--set", "networks.student=64-12-10",
    "--set", "training.teacher.epochs=2", "--set", "training.assistant.epochs=2", "--set", "training.student.epochs=2",
    "--set", "quantize.epochs=1", "--set", "lava.samples=4",
]  # fmt: skip


def neurokd(*arguments: str, code: int = 0, module: str = "neurokd.cli") -> subprocess.CompletedProcess[str]:
    done = subprocess.run(
        [sys.executable, "-m", module, *arguments], capture_output=True, text=True, timeout=240, check=False
    )
    assert done.returncode == code, done.stdout + done.stderr
    assert "Traceback" not in done.stderr
    return done


@pytest.mark.train
@pytest.mark.slow
def test_each_stage_is_a_command_and_they_compose(tmp_path: Path) -> None:
    run = str(tmp_path / "run")
    assert "%" in neurokd("train", "teacher", "--data", "digits", "--out", run, *SMALL).stdout
    assert "64-12-10" in neurokd("distill", "--out", run).stdout
    assert "accuracy" in neurokd("quantize", "--out", run).stdout
    assert "student.nir" in neurokd("export", "--out", run).stdout

    def chip(*arguments: str) -> object:
        return json.loads(neurokd(*arguments, run, "--json", module="deploy.cli").stdout)

    assert chip("check") == []
    assert chip("run")["samples"] == 450
    assert chip("map")["chip"] == "loihi2"
    assert chip("profile")["samples"] == 450
    verified = json.loads(
        neurokd(
            "verify", run, "--json", "--against", "reference,simulator", "--samples", "8", module="deploy.cli"
        ).stdout
    )
    assert verified["base"] == "trained student"
    assert verified["equal"] is True
    assert Path(chip("report")["report"]).is_file()


@pytest.mark.train
def test_the_grid_is_a_command(tmp_path: Path) -> None:
    places = ["--work", str(tmp_path / "work"), "--out", str(tmp_path / "cells"), "--docs", str(tmp_path)]
    grid = ["reproduce", "--table", "1", "--data", "digits", "--seeds", "1", *places, *SMALL]
    assert "digits teacher seed 0: " in neurokd(*grid).stdout
    assert "Table I" in (tmp_path / "results.md").read_text()
    assert "teacher seed" not in neurokd(*grid).stdout
    assert "no such table" in neurokd("reproduce", "--table", "9", *places, code=2).stderr


def test_help_names_every_command() -> None:
    text = neurokd("--help").stdout
    for name in ("demo", "train", "distill", "quantize", "export", "data"):
        assert name in text


def test_data_lists_the_sets(tmp_path: Path) -> None:
    found = json.loads(neurokd("data", "--json", "--data-root", str(tmp_path)).stdout)
    assert {entry["name"]: entry["found"] for entry in found} == {
        "digits": True, "mnist": False, "fashion-mnist": False, "cifar10": False,
    }  # fmt: skip


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("demo", "--data", "imagenet"), "imagenet"),
        (("demo", "--data", "mnist", "--data-root", "nowhere"), "neurokd data --download mnist"),
        (("demo", "--set", "networks.student=64-x-10"), "network spec"),
        (("demo", "--set", "nonsense=1"), "nonsense"),
        (("demo", "--set", "nonsense"), "KEY=VALUE"),
        (("demo", "--set", "quantize.weight_bits=99"), "weight_bits"),
        (("demo", "--set", "chip=loihi9"), "loihi9"),
        (("train", "pupil"), "no such role"),
        (("export",), "has not been run"),
    ],
)
def test_errors_fit_one_screen(arguments: tuple[str, ...], message: str, tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "neurokd.cli", *arguments, "--out", str(tmp_path / "run")],
        capture_output=True, text=True, timeout=120, check=False,
    )  # fmt: skip
    assert done.returncode not in (0, 1)
    assert message in done.stderr
    assert "Traceback" not in done.stderr
    assert len(done.stderr.splitlines()) < 24


def test_an_unwritable_folder_is_an_error_on_one_screen(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    done = neurokd("demo", "--out", str(tmp_path / "file" / "run"), code=3)
    assert "cannot" in done.stderr


def test_debug_shows_the_traceback(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "neurokd.cli", "demo", "--debug", "--set", "nonsense=1", "--out", str(tmp_path / "run")],
        capture_output=True, text=True, timeout=120, check=False,
    )  # fmt: skip
    assert done.returncode != 0
    assert "Traceback" in done.stderr


def test_values_are_toml_where_they_are_toml() -> None:
    config = make_config("digits", None, None, 3, None, ["training.student.epochs=7", "chip=loihi1"])
    assert (config.seed, config.training.student.epochs, config.chip) == (3, 7, "loihi1")
    assert config.out == "runs/digits"
    with pytest.raises(ConfigError):
        make_config("digits", None, None, 0, None, ["training.student.epochs=seven"])


def test_a_configuration_file_is_a_start(tmp_path: Path) -> None:
    made = make_config("digits", None, tmp_path / "a", 1, None, ["quantize.epochs=9"])
    made.save(tmp_path / "config.toml")
    again = make_config("", None, tmp_path / "b", 1, tmp_path / "config.toml", None)
    assert again.quantize.epochs == 9
    assert again.out == str(tmp_path / "b")


def test_what_a_search_tried_is_one_table() -> None:
    one = {"cost": 48.0, "fits": True, "spec": "64-48-10", "weights": 1234}
    tried = [
        {"how": "weights", "validation": 91.5, "epochs": 2, **one},
        {"how": "sensitivity", "validation": 94.25, "epochs": 8, **one},
        {"how": "neurons", "validation": 95.0, **one, "fits": False},
    ]
    console = Console(width=120)
    with console.capture() as capture:
        console.print(
            tried_table({"budget": "synops", "limit": 50.0, "won": "sensitivity", "epochs": 8, "tried": tried})
        )
    lines = [line for line in capture.get().splitlines() if "64-48-10" in line]
    assert ["sensitivity *" in line for line in lines] == [False, True, False]
    assert ["too many" in line for line in lines] == [False, False, True]
    assert all(figure in lines[1] for figure in ("94.25 %", "1,234", "8"))
