"""What the Lava tests share: is Lava there, small programs, and who is left of a process group."""

from __future__ import annotations

import stat
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from deploy.errors import NeurokdError
from deploy.loihi import client, process
from deploy.program import Dense, Input, Population, Program

SHARED_MEMORY = Path("/dev/shm")


@pytest.fixture(scope="session")
def lava() -> client.WorkerInfo:
    """What the worker has; skips where it has no Lava."""
    try:
        return client.worker_info()
    except NeurokdError as error:
        pytest.skip(f"no Lava in the worker's interpreter: {error.what}; run `neurokd-deploy lava install`")


@pytest.fixture
def chain() -> Program:
    """A 12-8-5 chain with biases that are at work while Lava's pipeline fills."""
    rng = np.random.default_rng(7)
    populations = tuple(
        Population(name, (n,), du, 410, 60, rng.integers(-900, 900, n), 2)
        for name, n, du in (("hidden", 8, 4095), ("out", 5, 1000))
    )
    synapses = (
        Dense("first", "in", "hidden", rng.integers(-60, 61, (8, 12)) * 2),
        Dense("second", "hidden", "out", rng.integers(-60, 61, (5, 8)) * 2),
    )
    return Program(Input("in", (12,)), populations, synapses)


@pytest.fixture
def spikes() -> np.ndarray[Any, Any]:
    """Spikes ``[6, 3, 12]`` for the chain."""
    return (np.random.default_rng(8).random((6, 3, 12)) < 0.3).astype(np.uint8)


@pytest.fixture
def interpreter(tmp_path: Path) -> Callable[[str], str]:
    """Make an executable that runs a shell script whatever its arguments: a worker that misbehaves."""

    def make(script: str) -> str:
        path = tmp_path / "python"
        path.write_text(f"#!/bin/sh\n{script}\n")
        path.chmod(path.stat().st_mode | stat.S_IXUSR)
        return str(path)

    return make


def members(group: int) -> list[int]:
    """Processes of a process group that are alive (zombies wait for their parent only)."""
    alive = []
    for entry in Path("/proc").iterdir():
        try:
            fields = (entry / "stat").read_text().rpartition(")")[2].split() if entry.name.isdigit() else []
        except OSError:
            continue
        if fields and fields[0] != "Z" and int(fields[2]) == group:
            alive.append(int(entry.name))
    return alive


@pytest.fixture
def gone() -> Callable[[int], bool]:
    """True once nobody of a process group is left, waiting up to 10 s."""

    def check(group: int) -> bool:
        deadline = time.monotonic() + 10
        while members(group) and time.monotonic() < deadline:
            time.sleep(0.02)
        return not members(group)

    return check


@pytest.fixture
def workers(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Process ids (and so process groups) of the workers started during the test."""
    started: list[int] = []
    original = subprocess.Popen

    class Recorded(original):  # type: ignore[type-arg,misc]
        def __init__(self, *arguments: Any, **options: Any) -> None:
            super().__init__(*arguments, **options)
            started.append(self.pid)

    monkeypatch.setattr(process.subprocess, "Popen", Recorded)
    return started


@pytest.fixture
def nothing_left(
    workers: list[int], gone: Callable[[int], bool], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[None]:
    """Checks, after the test: no process of any worker, no temporary folder, no shared memory segment of ours."""
    room = tmp_path / "temporary"
    room.mkdir()
    monkeypatch.setattr(process.tempfile, "tempdir", str(room))
    before = shared_memory()
    yield
    assert workers, "the test started no worker"
    assert all(gone(worker) for worker in workers)
    assert list(room.iterdir()) == []
    assert shared_memory() - before == set()


def shared_memory() -> set[str]:
    """Named segments and semaphores as Python makes them."""
    names = {entry.name for entry in SHARED_MEMORY.iterdir()} if SHARED_MEMORY.is_dir() else set()
    return {name for name in names if name.startswith(("psm_", "sem."))}
