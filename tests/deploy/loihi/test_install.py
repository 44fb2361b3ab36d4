"""Installing Lava: what pip is asked, and every way it fails. pip itself is replaced; no network."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from typing import Any

import pytest

from deploy.errors import LavaMissing
from deploy.loihi import install as module
from deploy.loihi.client import WorkerInfo
from deploy.loihi.install import Report, install

HERE = {"numpy": "2.4.6", "scipy": "1.17.1", "networkx": "3.6.1", "asteval": "0.9.33"}
LAVA = {"lava-nc": "0.10.0", "lava-dl": "0.6.0"}
Commands = list[list[str]]


@pytest.fixture
def machine(monkeypatch: pytest.MonkeyPatch) -> Callable[..., Commands]:
    """A made-up interpreter: what it has, what Python it is, how pip ends. Gives the commands pip was run with."""

    def make(found: dict[str, str], python: tuple[int, ...] = (3, 12, 1), pip: int = 0, said: str = "") -> Commands:
        commands: Commands = []

        def run(command: list[str]) -> subprocess.CompletedProcess[str]:
            if "-m" in command:
                commands.append(command)
                return subprocess.CompletedProcess(command, pip, "", said)
            state = {"python": python, "found": {name: found.get(name, "") for name in (*module.NEEDS, *module.WHEELS)}}
            return subprocess.CompletedProcess(command, 0, json.dumps(state), "")

        info = WorkerInfo("python", "3.12.1", "2.4.6", "0.10.0", "0.6.0", True, (), False)
        monkeypatch.setattr(module, "_run", run)
        monkeypatch.setattr(module, "worker_info", lambda target: info)
        return commands

    return make


def test_nothing_to_do(machine: Callable[..., Commands]) -> None:
    commands = machine({**HERE, **LAVA})
    report = install("python")
    assert commands == []
    assert report.installed == ()
    assert str(report).startswith("nothing to do")
    assert "lava-nc 0.10.0" in str(report)


def test_wheels_are_installed_without_their_pins(machine: Callable[..., Commands]) -> None:
    commands = machine(HERE)
    report = install("python")
    assert len(commands) == 1
    assert commands[0][-4:] == ["--no-deps", "--ignore-requires-python", "lava-nc==0.10.0", "lava-dl==0.6.0"]
    assert report.installed == ("lava-nc==0.10.0", "lava-dl==0.6.0")
    assert report.to_json()["versions"]["python"] == "3.12.1"


def test_only_what_is_missing_and_its_needs_first(machine: Callable[..., Commands]) -> None:
    commands = machine({**HERE, "asteval": "", "lava-nc": "0.9.0", "lava-dl": "0.6.0"})
    install("python")
    assert [command[-1] for command in commands] == ["asteval>=0.9.31,<0.10", "lava-nc==0.10.0"]
    assert "--no-deps" not in commands[0]


@pytest.mark.parametrize("version", [(3, 9, 18), (3, 14, 0)])
def test_other_pythons(machine: Callable[..., Commands], version: tuple[int, ...]) -> None:
    commands = machine(HERE, version)
    with pytest.raises(LavaMissing, match="does not run on this Python") as caught:
        install("python")
    assert caught.value.allowed == "3.10 to 3.13"
    assert commands == []


def test_pip_fails(machine: Callable[..., Commands]) -> None:
    machine(HERE, pip=1, said="WARNING: no network\nERROR: No matching distribution found for lava-nc==0.10.0\n")
    with pytest.raises(LavaMissing, match="pip could not install") as caught:
        install("python")
    assert "No matching distribution" in caught.value.got
    assert "--ignore-requires-python" in caught.value.where


def test_interpreter_that_is_not_there() -> None:
    with pytest.raises(LavaMissing, match="cannot be started"):
        install("/no/such/python")


def test_interpreter_that_is_no_python(interpreter: Callable[[str], str]) -> None:
    with pytest.raises(LavaMissing, match="does not answer like a Python") as caught:
        install(interpreter("echo hello"))
    assert caught.value.got == "hello"


def test_module_prints_the_error_and_leaves_with_its_code(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("NEUROKD_LAVA_PYTHON", "/no/such/python")
    assert module.main() == LavaMissing.exit_code
    assert "cannot be started" in capsys.readouterr().err


def test_module_prints_the_report(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr(module, "install", lambda: Report("python", ("x==1",), {"lava-nc": "0.10.0"}))
    assert module.main() == 0
    assert capsys.readouterr().out.startswith("installed x==1")


@pytest.mark.lava
def test_second_install_changes_nothing(lava: WorkerInfo) -> None:
    """On the real interpreter, where both wheels are: no pip is run, and the worker is asked."""
    if not lava.lava_dl:
        pytest.skip("lava-dl is not in the worker's interpreter: installing would change it")
    report: Any = install(sys.executable)
    assert report.installed == ()
    assert report.versions["lava-nc"] == "0.10.0"
