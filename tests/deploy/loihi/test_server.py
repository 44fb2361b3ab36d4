"""A worker that stays: one start for many runs, every end of it typed, nothing left behind."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import textwrap
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from deploy import reference
from deploy.errors import ConfigError, FileError, LavaMissing, SpikesError, WorkerError, WorkerTimeout
from deploy.loihi import process, server
from deploy.loihi.server import LavaWorker, run_parallel
from deploy.program import Program

Spikes = np.ndarray[Any, Any]
LONG = 100_000  # steps: minutes


@pytest.mark.lava
@pytest.mark.usefixtures("lava", "nothing_left")
class TestWithLava:
    def test_one_start_for_many_runs(self, chain: Program, spikes: Spikes, workers: list[int]) -> None:
        with LavaWorker() as worker:
            assert worker.pid is None
            for part in (spikes, spikes[:, :1], spikes[:3]):
                trace, expected = worker.run(chain, part, record_state="all"), reference.run(chain, part)
                np.testing.assert_array_equal(trace.sat, expected.sat)
                np.testing.assert_array_equal(trace.v["hidden"], expected.v["hidden"])
                assert children_of(worker.pid or 0) == []
            assert len(workers) == 1
            assert len(list(Path(process.tempfile.gettempdir()).iterdir())) == 1
        assert worker.pid is None
        worker.close()

    def test_a_run_that_fails_leaves_the_worker(
        self, chain: Program, spikes: Spikes, workers: list[int], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        original = process.write_requests

        def broken(path: Path, requests: list[Any]) -> None:
            requests[0].arrays["in.frames"] = requests[0].arrays["in.frames"][:, :-1]
            original(path, requests)

        with LavaWorker() as worker:
            monkeypatch.setattr(process, "write_requests", broken)
            with pytest.raises(WorkerError, match="the Lava worker failed") as caught:
                worker.run(chain, spikes)
            assert "Mismatch" in caught.value.got
            monkeypatch.setattr(process, "write_requests", original)
            np.testing.assert_array_equal(worker.run(chain, spikes).sat, reference.run(chain, spikes).sat)
        assert len(workers) == 1

    def test_too_long_ends_it_and_the_next_run_starts_another(
        self, chain: Program, spikes: Spikes, workers: list[int]
    ) -> None:
        with LavaWorker() as worker:
            with pytest.raises(WorkerTimeout, match="no result in time"):
                worker.run(chain, spikes[0], steps=LONG, timeout=3)
            np.testing.assert_array_equal(worker.run(chain, spikes).sat, reference.run(chain, spikes).sat)
        assert len(workers) == 2

    def test_out_of_memory(self, chain: Program, spikes: Spikes) -> None:
        """The recordings alone need 800 MB; Lava's interpreter without them less than half of the limit."""
        with LavaWorker(memory=1200 * 2**20) as worker:
            with pytest.raises(WorkerError, match="the Lava worker failed") as caught:
                worker.run(chain, np.zeros((50, 12), int), steps=2_000_000, timeout=60)
            assert "ran out of memory" in caught.value.next_step
            assert any(sign in caught.value.got for sign in ("MemoryError", "Cannot allocate", "Unable to allocate"))
            np.testing.assert_array_equal(worker.run(chain, spikes).sat, reference.run(chain, spikes).sat)

    @pytest.mark.parametrize("seed", range(3))
    def test_killed_at_a_random_moment(self, chain: Program, spikes: Spikes, seed: int) -> None:
        """The worker, its child, or one of Lava's: a typed error within 5 s, or the right answer if it was too late."""
        rng = random.Random(seed)
        with LavaWorker() as worker:
            worker.run(chain, spikes[:1])
            for _ in range(3):
                late = kill_some_process_of(worker, rng)
                try:
                    trace = worker.run(chain, spikes, record="all", timeout=30)
                except WorkerError:
                    assert time.monotonic() - late[0] < 5
                else:
                    np.testing.assert_array_equal(trace.sat, reference.run(chain, spikes).sat)

    def test_several_workers_share_samples_out(self, chain: Program, spikes: Spikes, workers: list[int]) -> None:
        expected = reference.run(chain, spikes)
        trace = run_parallel(chain, spikes, workers=2, record_state="all")
        np.testing.assert_array_equal(trace.sat, expected.sat)
        np.testing.assert_array_equal(trace.u["hidden"], expected.u["hidden"])
        held = run_parallel(chain, spikes[0], steps=4, workers=8)
        np.testing.assert_array_equal(held.sat, reference.run(chain, spikes[0], steps=4).sat)
        assert len(workers) == 2 + 3

    def test_where_one_of_several_fails_all_end(
        self, chain: Program, spikes: Spikes, monkeypatch: pytest.MonkeyPatch, workers: list[int]
    ) -> None:
        original = LavaWorker.run
        started = time.monotonic()

        def run(self: LavaWorker, program: Program, part: Spikes, **options: Any) -> Any:
            if part.shape[1] == 1:
                while not workers or len(family(workers[0])) < 4:
                    time.sleep(0.05)
                raise WorkerError("this one fails")
            return original(self, program, part[0], **{**options, "steps": LONG})

        monkeypatch.setattr(LavaWorker, "run", run)
        with pytest.raises(WorkerError):
            run_parallel(chain, spikes, workers=2)
        assert time.monotonic() - started < 20


def kill_some_process_of(worker: LavaWorker, rng: random.Random) -> list[float]:
    """Kill one process of the worker's tree after up to 0.6 s; says when."""
    pid, when = worker.pid, [time.monotonic()]

    def kill() -> None:
        time.sleep(rng.uniform(0, 0.6))
        tree = family(pid) if pid else []
        when[0] = time.monotonic()
        with suppress(ProcessLookupError, IndexError):
            os.kill(rng.choice(tree), signal.SIGKILL)

    threading.Thread(target=kill, daemon=True).start()
    return when


def children_of(pid: int) -> list[int]:
    listed = Path(f"/proc/{pid}/task/{pid}/children")
    return [int(child) for child in listed.read_text().split()] if listed.exists() else []


def family(pid: int) -> list[int]:
    """A process, its children, and theirs."""
    return [pid, *(member for child in children_of(pid) for member in family(child))]


PARENT = textwrap.dedent("""
    import os, signal, sys
    signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell's background job is born with SIGINT ignored
    import numpy as np
    from deploy.loihi import process, server
    from deploy.testing import random_case

    class Told(process.subprocess.Popen):
        def __init__(self, *arguments, **options):
            super().__init__(*arguments, **options)
            os.write(1, b"%d\\n" % self.pid)  # in one go: two threads tell theirs

    process.subprocess.Popen = Told
    case = random_case(0)
    spikes = np.ones((4, *case.program.input.shape), int)
    server.run_parallel(case.program, spikes, steps=100_000, workers=2)
""")


@pytest.mark.lava
@pytest.mark.usefixtures("lava")
@pytest.mark.parametrize("how", [signal.SIGINT, signal.SIGKILL])
def test_workers_end_with_their_parent(how: signal.Signals, gone: Callable[[int], bool], tmp_path: Path) -> None:
    """Ctrl-C takes both workers, all of Lava's processes and the folders with it; a kill all processes."""
    parent = subprocess.Popen(
        [sys.executable, "-c", PARENT],
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        env={**os.environ, "TMPDIR": str(tmp_path)},
    )
    try:
        assert parent.stdout is not None
        started = [int(parent.stdout.readline()) for _ in range(2)]
        deadline = time.monotonic() + 40
        while min(len(family(pid)) for pid in started) < 4 and time.monotonic() < deadline:
            time.sleep(0.05)
        assert min(len(family(pid)) for pid in started) >= 4
        parent.send_signal(how)
        parent.wait(20)
        assert all(gone(pid) for pid in started)
        if how == signal.SIGINT:
            assert list(tmp_path.iterdir()) == []
    finally:
        parent.kill()
        parent.wait()
        if parent.stdout:
            parent.stdout.close()


@pytest.mark.usefixtures("nothing_left")
class TestWorkersThatMisbehave:
    def run(self, chain: Program, spikes: Spikes, python: str, timeout: float = 20) -> None:
        with LavaWorker(python) as worker:
            worker.run(chain, spikes, timeout=timeout)

    def test_has_no_lava(self, chain: Program, spikes: Spikes, interpreter: Callable[[str], str]) -> None:
        with pytest.raises(LavaMissing, match="cannot be imported") as caught:
            self.run(chain, spikes, interpreter(f'exec {sys.executable} -S "$@"'))
        assert "No module named" in caught.value.got

    def test_never_ready(self, chain: Program, spikes: Spikes, interpreter: Callable[[str], str]) -> None:
        with pytest.raises(WorkerTimeout):
            self.run(chain, spikes, interpreter("sleep 600"), 0.5)

    def test_says_something_else(self, chain: Program, spikes: Spikes, interpreter: Callable[[str], str]) -> None:
        with pytest.raises(WorkerError, match="the Lava worker failed") as caught:
            self.run(chain, spikes, interpreter("echo hello; echo why >&2; sleep 600"))
        assert "exit code 72" in caught.value.got
        assert "why" in caught.value.got

    def test_answers_nonsense(self, chain: Program, spikes: Spikes, interpreter: Callable[[str], str]) -> None:
        with pytest.raises(WorkerError, match="the Lava worker failed"):
            self.run(chain, spikes, interpreter("echo ready; read line; echo maybe; sleep 600"))

    def test_ends_when_asked(self, chain: Program, spikes: Spikes, interpreter: Callable[[str], str]) -> None:
        with pytest.raises(WorkerError, match="the Lava worker failed") as caught:
            self.run(chain, spikes, interpreter("echo ready; exec 0<&-; kill -9 $$"))
        assert "SIGKILL" in caught.value.got
        assert "out of memory" in caught.value.next_step

    def test_says_it_is_done_without_a_result(
        self, chain: Program, spikes: Spikes, interpreter: Callable[[str], str]
    ) -> None:
        with pytest.raises(WorkerError, match="without a readable result"):
            self.run(chain, spikes, interpreter("echo ready; read line; echo 0; sleep 600"))


class TestRefusals:
    def test_closed(self, chain: Program, spikes: Spikes) -> None:
        worker = LavaWorker()
        worker.close()
        with pytest.raises(WorkerError, match="was closed"):
            worker.run(chain, spikes)

    def test_spikes_that_do_not_fit(self, chain: Program, spikes: Spikes) -> None:
        with LavaWorker() as worker, pytest.raises(SpikesError):
            worker.run(chain, spikes[:, :, :2])

    @pytest.mark.parametrize("memory", [0, -5])
    def test_memory(self, memory: int) -> None:
        with pytest.raises(ConfigError, match="memory is out of range"):
            LavaWorker(memory=memory)

    def test_workers(self, chain: Program, spikes: Spikes) -> None:
        with pytest.raises(ConfigError, match="number of workers"):
            run_parallel(chain, spikes, workers=0)

    def test_folder_that_is_not_there(self, chain: Program, spikes: Spikes, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(server.tempfile, "tempdir", "/no/such/folder")
        with LavaWorker() as worker, pytest.raises(FileError, match="temporary folder"):
            worker.run(chain, spikes)
