"""Whether the Lava worker can be trusted with many runs and with being killed; used by ``benchmarks.lava_worker``."""

from __future__ import annotations

import gc
import os
import random
import signal
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.rows import Row
from deploy import reference
from deploy.errors import WorkerError
from deploy.loihi import process
from deploy.loihi.client import run_lava
from deploy.loihi.server import LavaWorker
from deploy.program import Program
from deploy.trace import Trace

Run = Callable[[Program, np.ndarray[Any, Any]], Trace]
PAGE = os.sysconf("SC_PAGE_SIZE")
WARM = 20  # runs before memory is called flat


def resident(pid: int) -> float:
    """MiB of a process."""
    with suppress(OSError, IndexError):
        return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * PAGE / 2**20
    return 0.0


def shared_memory() -> set[str]:
    """Names in ``/dev/shm``, of semaphores too."""
    return {entry.name for entry in Path("/dev/shm").iterdir() if entry.name.startswith(("psm_", "sem.", "mp-"))}


def sessions() -> dict[int, int]:
    """Every process that is alive (zombies wait for their parent only), with its session."""
    found = {}
    for entry in Path("/proc").iterdir():
        with suppress(OSError, IndexError):
            fields = (entry / "stat").read_text().rpartition(")")[2].split() if entry.name.isdigit() else []
            if fields and fields[0] != "Z":
                found[int(entry.name)] = int(fields[3])
    return found


class Started:
    """Workers this process started: each is the leader of a session, and so of whatever it starts."""

    def __init__(self) -> None:
        self.pids: list[int] = []
        self._original = process.subprocess.Popen

    def __enter__(self) -> Started:
        told = self.pids

        class Told(self._original):  # type: ignore[misc,name-defined]
            def __init__(self, *arguments: Any, **options: Any) -> None:
                super().__init__(*arguments, **options)
                told.append(self.pid)

        process.subprocess.Popen = Told  # type: ignore[misc]
        return self

    def __exit__(self, *_: object) -> None:
        process.subprocess.Popen = self._original  # type: ignore[misc]

    def left(self, but: int = 0, seconds: float = 5.0) -> int:
        """Processes of their sessions left after up to so many seconds, those of session ``but`` not counted."""
        deadline = time.monotonic() + seconds
        mine = set(self.pids) - {but}
        while (left := sum(session in mine for session in sessions().values())) and time.monotonic() < deadline:
            time.sleep(0.02)
        return left


def many_runs(program: Program, spikes: np.ndarray[Any, Any], runs: int, rest: dict[str, Any]) -> list[Row]:
    """Runs one after the other: each in a worker of its own, then all in one that stays."""
    rows = []
    for kind in ("a worker each", "one worker that stays"):
        with LavaWorker() as worker:
            run: Run = run_lava if kind == "a worker each" else worker.run
            rows += _many(f"{runs} runs, {kind}", run, lambda: worker.pid or 0, (program, spikes), runs, rest)  # noqa: B023
    return rows


def _many(
    case: str, run: Run, pid: Callable[[], int], given: tuple[Program, Any], runs: int, rest: dict[str, Any]
) -> list[Row]:
    expected, named = reference.run(*given).sat, shared_memory()
    wrong, memory, begun = 0, [], time.perf_counter()
    files: list[int] = []
    with Started() as started:
        for _ in range(runs):
            wrong += int(np.count_nonzero(run(*given).sat != expected))
            gc.collect()
            memory.append((resident(os.getpid()), resident(pid())))
            files.append(len(os.listdir("/proc/self/fd")))
    seconds = (time.perf_counter() - begun) / runs
    left = started.left(but=pid()) + len(family(pid()) if pid() else [0]) - 1  # one that stays has no children left
    early, late = (np.median(memory[part], axis=0) for part in (slice(WARM, 2 * WARM), slice(-WARM, None)))
    return [
        Row(case, "differing spikes", wrong, "", "== 0", **rest),
        Row(case, "processes left", left, "", "== 0", **rest),
        Row(case, "shared-memory segments left", len(shared_memory() - named), "", "== 0", **rest),
        Row(case, "open files more at the end", files[-1] - files[WARM], "", "<= 0", **rest),
        Row(case, "memory more at the end, caller", float(late[0] - early[0]), "MiB", "<= 2", **rest),
        Row(case, "memory more at the end, worker", float(late[1] - early[1]), "MiB", "<= 2", **rest),
        Row(case, "a run", seconds, "s", "", **rest),
    ]


def family(pid: int) -> list[int]:
    """A process, its children, and theirs."""
    listed = Path(f"/proc/{pid}/task/{pid}/children")
    with suppress(OSError):
        return [pid, *(member for child in listed.read_text().split() for member in family(int(child)))]
    return [pid]


def kills(program: Program, spikes: np.ndarray[Any, Any], count: int, seed: int, rest: dict[str, Any]) -> list[Row]:
    """SIGKILL to the worker, and to any of its processes, at moments drawn over its whole life."""
    rows = []
    for kind in ("the worker", "any of its processes"):
        rng, outcomes = random.Random(seed), []
        life = min(_seconds(program, spikes) for _ in range(3))
        named = shared_memory()
        with Started() as started:
            for _ in range(count):
                outcomes.append(_killed(program, spikes, rng, 0.95 * life, started, kind == "the worker"))
        case = f"SIGKILL to {kind} at {count} random moments"
        errors = [late for kind_of, late in outcomes if kind_of == "error"]
        tally = [sum(kind_of == name for kind_of, _ in outcomes) for name in ("error", "right", "wrong", "other")]
        rows += [
            Row(case, "typed errors", tally[0], "", "", **rest),
            Row(case, "right results (killed too late to matter)", tally[1], "", "", **rest),
            Row(case, "wrong results", tally[2], "", "== 0", **rest),
            Row(case, "errors of another kind", tally[3], "", "== 0", **rest),
            Row(case, "longest time from kill to error", max(errors, default=0.0), "s", "<= 5", **rest),
            Row(case, "processes left", started.left(), "", "== 0", **rest),
            Row(case, "shared-memory segments left", len(shared_memory() - named), "", "== 0", **rest),
        ]
    return rows


def _seconds(program: Program, spikes: np.ndarray[Any, Any]) -> float:
    start = time.perf_counter()
    run_lava(program, spikes)
    return time.perf_counter() - start


def _killed(
    program: Program, spikes: Any, rng: random.Random, life: float, started: Started, itself: bool
) -> tuple[str, float]:
    """``error``, ``right``, ``wrong`` or ``other``, and the seconds from the kill to the end of the run."""
    moment, pick, when = rng.uniform(0, life), rng.random(), [time.monotonic()]
    before, begun = len(started.pids), time.monotonic()

    def kill() -> None:
        while len(started.pids) == before and time.monotonic() < begun + 5:
            time.sleep(0.001)
        time.sleep(max(0.0, begun + moment - time.monotonic()))
        tree = family(started.pids[before])
        when[0] = time.monotonic()
        with suppress(ProcessLookupError, IndexError):
            os.kill(tree[0] if itself else tree[int(pick * len(tree))], signal.SIGKILL)

    killer = threading.Thread(target=kill)
    killer.start()
    try:
        sat = run_lava(program, spikes, timeout=60).sat
        outcome = "right" if np.array_equal(sat, reference.run(program, spikes).sat) else "wrong"
    except WorkerError:
        outcome = "error"
    except Exception:  # noqa: BLE001 - counted, whatever it was
        outcome = "other"
    ended = time.monotonic()
    killer.join()
    return outcome, max(0.0, ended - when[0])
