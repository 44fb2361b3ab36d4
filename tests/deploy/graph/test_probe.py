"""A helper process takes the files on which the HDF5 library hangs or crashes."""

from __future__ import annotations

import json
import os
import signal
import sys
import time
from pathlib import Path

import h5py
import pytest

from deploy.errors import FileError, GraphError
from deploy.graph.probe import Probe


@pytest.fixture(scope="module")
def good(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("probe") / "good.nir"
    with h5py.File(path, "w") as file:
        file["a"] = "text"
    return path


def endless(path: Path) -> None:
    """A text whose heap object has size 0: HDF5 2.0.0 walks the heap without end."""
    with h5py.File(path, "w") as file:
        file["a"] = "text"
    data = bytearray(path.read_bytes())
    heap = data.index(b"GCOL")
    data[heap + 16 : heap + 18] = (9).to_bytes(2, "little")  # an index nobody asks for
    data[heap + 24 : heap + 32] = (2**64 - 16).to_bytes(8, "little")  # and a size that leads back to itself
    path.write_bytes(data)


def test_a_good_file_passes_and_errors_come_back_typed(good: Path, tmp_path: Path) -> None:
    (tmp_path / "bad.nir").write_bytes(b"no")
    with Probe() as probe:
        probe.check(good)
        with pytest.raises(GraphError, match="not HDF5") as caught:
            probe.check(tmp_path / "bad.nir")
        assert "b'no'" in caught.value.got
        with pytest.raises(FileError, match="cannot read the file"):
            probe.check(tmp_path / "none.nir")
        probe.check(good)


def test_a_file_that_takes_too_long_ends_the_helper_and_the_next_gets_another(good: Path) -> None:
    with Probe(seconds=30.0) as probe:
        probe.check(good)
        assert probe._process is not None
        probe.seconds = 0.2
        os.kill(probe._process.pid, signal.SIGSTOP)
        with pytest.raises(GraphError, match="HDF5 structure cannot be read") as caught:
            probe.check(good)
        assert "does not end" in caught.value.got
        probe.seconds = 30.0
        probe.check(good)


def test_a_crash_of_the_helper_is_a_damaged_file(good: Path) -> None:
    with Probe() as probe:
        probe.check(good)
        assert probe._process is not None
        os.kill(probe._process.pid, signal.SIGSEGV)
        with pytest.raises(GraphError, match="HDF5 structure cannot be read"):
            probe.check(good)
        probe.check(good)


def test_a_damaged_heap_ends_in_time(tmp_path: Path) -> None:
    endless(tmp_path / "a.nir")
    start = time.monotonic()
    with Probe(seconds=1.0) as probe, pytest.raises(GraphError, match="HDF5 structure cannot be read") as caught:
        probe.check(tmp_path / "a.nir")
    assert "does not end" in caught.value.got
    assert time.monotonic() - start < 60


def test_an_endless_reading_ends_by_itself_when_nobody_is_left_to_stop_it(tmp_path: Path) -> None:
    endless(tmp_path / "a.nir")
    with Probe(seconds=0.0) as probe:
        probe._start()
        process = probe._process
        assert process is not None
        assert probe._ask(json.dumps({"path": str(tmp_path / "a.nir"), "max_bytes": 2**29, "seconds": 1}), 60.0) is None
        assert process.wait(60) == -signal.SIGXCPU


def test_nothing_is_left_behind(good: Path) -> None:
    probe = Probe()
    probe.check(good)
    assert probe._process is not None
    pid = probe._process.pid
    probe.close()
    probe.close()
    with pytest.raises(ProcessLookupError):
        os.kill(pid, 0)


def test_a_python_that_does_not_start_is_said(good: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "executable", "/bin/false")
    with pytest.raises(GraphError, match="does not start"):
        Probe().check(good)
