"""Names in shared memory that a killed worker leaves: ours and nobody's go, all others stay."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import textwrap
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from deploy.loihi import client, leftovers, process

KILLED_WHILE_NAMED = """
    import multiprocessing, multiprocessing.synchronize as s, os, signal, sys, time
    import importlib.util
    spec = importlib.util.spec_from_file_location("worker", sys.argv[1])
    worker = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(worker)
    worker.name_semaphores()
    import _multiprocessing
    _multiprocessing.SemLock(1, 1, 1, s.SemLock._make_name(), False)  # unlink=False: the name stays, as after a kill
    os.kill(os.getpid(), signal.SIGKILL)
"""

KILLED_AFTER_ANOTHER_WAS_JOINED = """
    import multiprocessing, os, signal, sys, time
    import importlib.util
    spec = importlib.util.spec_from_file_location("worker", sys.argv[1])
    worker = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(worker)
    worker.end_with_children()
    first = worker.LoudProcess(target=time.sleep, args=(0,))
    first.start()
    first.join()
    time.sleep(4 * worker.LOOK_SECONDS)  # the thread that looks must outlive a process that Lava has closed
    second = worker.LoudProcess(target=time.sleep, args=(60,))
    second.start()
    os.kill(second.pid, signal.SIGKILL)
    time.sleep(50)
"""

KILLED_AND_REAPED_BY_THE_NEXT_START = """
    import multiprocessing, os, signal, sys, time
    import importlib.util
    spec = importlib.util.spec_from_file_location("worker", sys.argv[1])
    worker = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(worker)
    worker.LOOK_SECONDS = 1  # multiprocessing must come first: its start() takes the ends of all processes before it
    worker.end_with_children()
    worker.end_children_with_this()
    first = worker.LoudProcess(target=time.sleep, args=(60,))
    first.start()
    os.kill(first.pid, signal.SIGKILL)
    os.waitid(os.P_PID, first.pid, os.WEXITED | os.WNOWAIT)
    worker.LoudProcess(target=time.sleep, args=(60,)).start()
    time.sleep(50)
"""


@pytest.fixture
def leave(tmp_path: Path) -> Callable[..., Path]:
    """Make a file as glibc leaves it."""

    def make(name: str, size: int = 32, mode: int = 0o600) -> Path:
        path = tmp_path / name
        path.write_bytes(bytes(size))
        path.chmod(mode)
        return path

    return make


def test_names_of_our_own_go_whatever_their_age(leave: Callable[..., Path], tmp_path: Path) -> None:
    path = leave("sem.neurokd-99999999999-ab_cd1")  # no process has such a number
    os.utime(path, (1, 1))
    assert leftovers.clear(shared=tmp_path) == [path]
    assert not path.exists()


def test_names_of_a_living_worker_stay(leave: Callable[..., Path], tmp_path: Path) -> None:
    path = leave(f"sem.neurokd-{os.getpid()}-ab_cd1")
    assert leftovers.clear(time.time() - 60, shared=tmp_path) == []
    assert path.exists()


def test_unnamed_ones_go_only_if_made_while_the_worker_ran(leave: Callable[..., Path], tmp_path: Path) -> None:
    old, new = leave("sem.Ab3dEf"), leave("sem.3noIMJ")
    os.utime(old, (1, 1))
    assert leftovers.clear(shared=tmp_path) == []
    assert leftovers.clear(time.time() - 60, shared=tmp_path) == [new]
    assert old.exists()


@pytest.mark.parametrize(
    ("name", "size", "mode"),
    [
        ("sem.mp-5jtaq0rt", 32, 0o600),  # Python's own, of whoever
        ("sem.queue12", 32, 0o600),
        ("sem.neurokd", 32, 0o600),
        ("psm_123456", 32, 0o600),
        ("sem.Ab3dEf", 4096, 0o600),
        ("sem.Ab3dEf", 32, 0o666),
    ],
)
def test_others_stay(leave: Callable[..., Path], tmp_path: Path, name: str, size: int, mode: int) -> None:
    path = leave(name, size, mode)
    assert leftovers.clear(0.0, shared=tmp_path) == []
    assert path.exists()


def test_links_and_folders_stay(leave: Callable[..., Path], tmp_path: Path) -> None:
    target = leave("kept")
    (tmp_path / "sem.Ab3dEf").symlink_to(target)
    (tmp_path / "sem.neurokd-99999999999-folder").mkdir()
    assert leftovers.clear(0.0, shared=tmp_path) == []
    assert target.exists()


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="who has a file open is read from /proc")
def test_what_a_process_has_open_stays(leave: Callable[..., Path], tmp_path: Path) -> None:
    path = leave("sem.Ab3dEf")
    with path.open("rb"):
        assert leftovers.clear(0.0, shared=tmp_path) == []
    assert leftovers.clear(0.0, shared=tmp_path) == [path]


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="who has a file mapped is read from /proc")
def test_what_a_process_has_mapped_stays(leave: Callable[..., Path], tmp_path: Path) -> None:
    import mmap

    path = leave("sem.Ab3dEf")
    with path.open("r+b") as stream:
        mapped = mmap.mmap(stream.fileno(), 32)
    assert leftovers.clear(0.0, shared=tmp_path) == []
    mapped.close()
    assert leftovers.clear(0.0, shared=tmp_path) == [path]


def test_what_its_maker_still_takes_away_is_not_ours(
    leave: Callable[..., Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = leave("sem.Ab3dEf")
    monkeypatch.setattr(leftovers.time, "sleep", lambda seconds: path.unlink())
    assert leftovers.clear(0.0, shared=tmp_path) == []


def test_a_process_that_cannot_be_looked_at_is_no_error(
    leave: Callable[..., Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = leave("sem.Ab3dEf")
    monkeypatch.setattr(leftovers, "_own_processes", lambda: iter([leave("closed")]))  # a file: neither maps nor fd
    assert leftovers.clear(0.0, shared=tmp_path) == [path]


def test_no_shared_memory_is_no_error(tmp_path: Path) -> None:
    assert leftovers.clear(0.0, shared=tmp_path / "absent") == []


@pytest.mark.skipif(not leftovers.SHARED.is_dir(), reason="no /dev/shm")
def test_the_end_of_a_killed_worker_clears_its_names(tmp_path: Path) -> None:
    """A real semaphore with the worker's prefix, and a file as glibc leaves it, both gone once the death is noticed."""
    script = tmp_path / "worker.py"
    script.write_text(textwrap.dedent(KILLED_WHILE_NAMED))
    worker = process.start([sys.executable, str(script), str(process.WORKER)], tmp_path, tmp_path / "log")
    assert worker.wait(60) == -signal.SIGKILL, (tmp_path / "log").read_text()
    named = list(leftovers.SHARED.glob(f"sem.neurokd-{worker.pid}-*"))
    assert len(named) == 1
    unnamed = leftovers.SHARED / f"sem.{os.urandom(3).hex()}"
    unnamed.write_bytes(bytes(32))
    unnamed.chmod(0o600)
    try:
        process.end_group(worker)
        assert not named[0].exists()
        assert not unnamed.exists()
    finally:
        unnamed.unlink(missing_ok=True)


def test_the_prefix_is_the_workers() -> None:
    assert f'SEMAPHORES = "{leftovers.SEMAPHORES}"' in process.WORKER.read_text()


def test_a_worker_that_never_started_leaves_nothing_to_clear(tmp_path: Path) -> None:
    ended = subprocess.Popen([sys.executable, "-c", ""], start_new_session=True)
    process.end_group(ended)
    assert ended.returncode is not None


@pytest.mark.lava
@pytest.mark.parametrize("story", [KILLED_AFTER_ANOTHER_WAS_JOINED, KILLED_AND_REAPED_BY_THE_NEXT_START])
def test_a_kill_is_noticed_whatever_other_processes_do(lava: client.WorkerInfo, story: str) -> None:
    script = textwrap.dedent(story)
    ended = subprocess.run(
        [sys.executable, "-c", script, str(process.WORKER)], capture_output=True, text=True, timeout=60, check=False
    )
    assert "ended by signal 9" in ended.stderr
    assert "Traceback" not in ended.stderr
    assert ended.returncode == 69
