"""Lava's recorded answers at the edges of the arithmetic, replayed without Lava on the reference and the simulator."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from deploy import reference, simulator
from deploy.program import Program
from deploy.trace import Trace

FOLDER = Path(__file__).parent
FILES = sorted(FOLDER.glob("*.npz"))
NAMES = [path.stem for path in FILES]
Arrays = dict[str, np.ndarray[Any, Any]]
LIMIT = 1 << 23


def simulated(program: Program, stimulus: np.ndarray[Any, Any]) -> Trace:
    return simulator.run(program, stimulus, record="all", record_state="all")


BACKENDS: dict[str, Callable[[Program, np.ndarray[Any, Any]], Trace]] = {
    "reference": reference.run,
    "simulator": simulated,
}


def load(name: str, folder: Path) -> tuple[Program, Arrays]:
    with np.load(FOLDER / f"{name}.npz", allow_pickle=False) as file:
        arrays = {key: file[key] for key in file.files}
    path = folder / "program.npz"
    path.write_bytes(arrays.pop("program").tobytes())
    return Program.load(path), arrays


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("name", NAMES)
def test_replays_exactly(name: str, backend: str, tmp_path: Path) -> None:
    program, golden = load(name, tmp_path)
    trace = BACKENDS[backend](program, golden["stimulus"])
    for key in (key for key in golden if ":" in key):
        what, _, population = key.partition(":")
        np.testing.assert_array_equal(getattr(trace, what)[population], golden[key], err_msg=key)
    assert {f"spikes:{p.name}" for p in program.populations} <= set(golden)


def recorded(name: str, what: str) -> np.ndarray[Any, Any]:
    """Everything one file holds of one kind, flat."""
    with np.load(FOLDER / f"{name}.npz", allow_pickle=False) as file:
        return np.concatenate([file[key].ravel() for key in file.files if key.startswith(f"{what}:")])


def test_files_are_all_there() -> None:
    assert len(NAMES) == 13
    assert sum(path.stat().st_size for path in FILES) < 200_000


def test_edges_are_really_in_them() -> None:
    """If a generator drifts away from its edge, the replay proves nothing: these values have to occur."""
    up, down, beyond = (recorded(f"current-{name}", "u") for name in ("edges-up", "edges-down", "beyond-one-turn"))
    assert {LIMIT, LIMIT - 64, 64 - LIMIT} <= set(up.tolist())
    assert {64 - LIMIT, LIMIT, LIMIT - 64} <= set(down.tolist())
    assert np.abs(beyond).max() > LIMIT
    v = recorded("membrane-saturation", "v")
    assert v.min() == 1 - LIMIT
    assert 0 < recorded("thresholds", "spikes").mean() < 1
    assert 640 in recorded("thresholds", "v")
    modes = recorded("neuron-modes", "v")
    assert {LIMIT - 1, 1 - LIMIT} <= set(modes.tolist())
    assert 0 < recorded("delays-and-loops", "spikes").mean() < 1


@pytest.mark.parametrize("name", NAMES)
def test_provenance_is_told(name: str) -> None:
    with np.load(FOLDER / f"{name}.npz", allow_pickle=False) as file:
        provenance = json.loads(bytes(file["provenance"]))
    assert provenance["made by"] == "python tests/golden/make.py"
    assert provenance["versions"]["lava-nc"] == "0.10.0"
    assert {"seed", "versions"} <= set(provenance)


@pytest.mark.lava
def test_lava_still_answers_so() -> None:
    """The two cases with the wrap, on Lava as it is here."""
    from deploy.errors import NeurokdError
    from deploy.loihi.client import worker_info

    try:
        worker_info()
    except NeurokdError as error:
        pytest.skip(f"no Lava in the worker's interpreter: {error.what}")
    command = [sys.executable, str(FOLDER / "make.py"), "--check", "current-edges-up", "current-edges-down"]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=120)
    assert done.stdout.strip() == "2 cases as recorded", done.stdout + done.stderr
