"""Runs Programs on Lava in a process of its own: ``python -I worker.py in.npz out.npz``, ``--serve`` or ``--info``.

It is given plain arrays and a JSON header (see :mod:`deploy.loihi.protocol`), and imports nothing of ``deploy``:
``repair.py``, ``processes/`` and ``hardware.py`` beside it are loaded by path.

``--serve`` imports Lava once and then does one job a line of its input, each in a forked child: whatever a run leaves
behind, or breaks, goes with the child. The job is a JSON table ``given``, ``result``, ``log`` (files) and ``memory``
(bytes, or null); the answer is the child's exit code, negative for a signal, on a line of its own.

What is shared between Lava's operating-system processes (their channels, our recordings) is anonymous memory inherited
by ``fork``: no name in ``/dev/shm`` that a kill could leave behind, and no ``Var.get`` at 15 µs an element.
"""

from __future__ import annotations

import ctypes
import json
import multiprocessing as mp
import os
import platform
import queue
import resource
import runpy
import signal
import sys
import threading
import time
import traceback
import warnings
from importlib import metadata
from importlib.util import find_spec, module_from_spec, spec_from_file_location
from pathlib import Path
from types import ModuleType
from typing import Any, ClassVar

LOOK_SECONDS = 0.1
EXIT_NO_LAVA = 67
EXIT_BAD_REQUEST = 68
EXIT_PROCESS_FAILED = 69
EXIT_NO_BOARD = 70
EXIT_EXCEPTION = 71
SEMAPHORES = "neurokd"
NETX_IMPORTS = ("h5py",)  # netx_worker.py keeps torch, matplotlib and OpenCV out
_HERE = Path(__file__).resolve().parent


def load(name: str, path: Path) -> ModuleType:
    """A module by its path, known to Python under ``name`` (Lava looks modules up by name)."""
    spec = spec_from_file_location(name, path)
    assert spec is not None
    assert spec.loader is not None
    module = sys.modules[name] = module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


_repair = runpy.run_path(str(_HERE / "repair.py"))
_repair["apply"]()
try:
    import lava.magma.runtime.message_infrastructure.multiprocessing as transport
    import numpy as np
    from lava.magma.core.run_conditions import RunSteps

    kinds = load("neurokd_processes", _HERE / "processes" / "__init__.py")
    hardware = load("neurokd_hardware", _HERE / "hardware.py")
    kinds.BUILDERS["adapter"] = hardware.build_adapter
except ImportError as missing:
    print(f"{type(missing).__name__}: {missing}", file=sys.stderr)
    sys.exit(EXIT_NO_LAVA)
_repair["mend_reshape"](kinds.ReshapePort)

Entry = dict[str, Any]
Arrays = dict[str, np.ndarray[Any, Any]]


class AnonymousMemory:
    """Stands in for Lava's SharedMemoryManager, which needs one more server process and names in ``/dev/shm``."""

    def start(self) -> None:
        """Nothing to start."""

    def shutdown(self) -> None:
        """Nothing to end: the memory goes with the last process that maps it."""

    def create_shared_memory(self, size: int) -> Any:
        """A new block of ``size`` bytes."""
        return kinds.SharedBlock(size)


class LoudProcess(transport.SystemProcess):
    """Lava's process, but an exception in it ends the run at once with its traceback; Lava would wait for ever."""

    running: ClassVar[dict[int, Any]] = {}  # what started each: Lava closes the objects themselves

    def start(self) -> None:
        """Start it, and have it watched."""
        super().start()
        LoudProcess.running[self.pid] = self._popen

    def join(self) -> None:
        """Wait for its end, look how it ended, let go of it."""
        if not self._is_done:
            mp.Process.join(self)
            LoudProcess.running.pop(self.pid, None)
            _look_at(self.exitcode)
        super().join()

    def run(self) -> None:
        """Run Lava's loop; on an exception print it and end this worker."""
        try:
            mp.Process.run(self)
        except Exception:  # noqa: BLE001 - whatever it was, it must be shown and must not hang the run
            traceback.print_exc()
            sys.stderr.flush()
            os._exit(EXIT_PROCESS_FAILED)


def run(header: Entry, arrays: Arrays) -> Arrays:
    """Build the network, run it, and give back what was recorded."""
    started = time.perf_counter()
    kinds.STREAMS.clear()
    kinds.RECORDS.clear()
    processes = kinds.build(header, arrays)
    on_board = header["target"] == "loihi2"
    config = hardware.configuration() if on_board else kinds.simulation(watched=bool(header["state"]))
    first = processes[header["processes"][0]["name"]]
    runtime_started = time.perf_counter()
    first.run(condition=RunSteps(num_steps=header["steps"]), run_cfg=config)
    first.stop()
    ended = time.perf_counter()
    return {**kinds.RECORDS, "seconds": np.array([runtime_started - started, ended - runtime_started])}


def end_children_with_this() -> None:
    """Children of this process, and theirs, ask Linux for SIGKILL when their parent goes."""
    if sys.platform != "linux":
        return
    libc, parent = ctypes.CDLL(None), [0]

    def ask() -> None:
        libc.prctl(1, signal.SIGKILL)  # 1: PR_SET_PDEATHSIG
        if os.getppid() != parent[0]:  # it went before we asked
            os._exit(EXIT_PROCESS_FAILED)

    os.register_at_fork(before=lambda: parent.__setitem__(0, os.getpid()), after_in_child=ask)


def end_with_parent(lines: queue.SimpleQueue[str] | None = None) -> None:
    """End the whole process group when the parent goes: its end of our stdin closes, whatever ended it.

    Args:
        lines: Takes what the parent writes until then, line by line.
    """

    def watch() -> None:
        with os.fdopen(os.dup(0), "r") as given:
            for line in given:
                if lines is not None:
                    lines.put(line)
        os.killpg(0, signal.SIGKILL)

    threading.Thread(target=watch, daemon=True).start()
    end_children_with_this()


def end_with_children() -> None:
    """End this process when one of Lava's fails or is killed (out of memory); Lava itself would wait for ever.

    A thread looks, for a signal is not enough: it may reach another thread than the one that waits, and then Python
    runs no handler (1 of 20 kills ended only by its timeout, after 59 s). It must not fail: its traceback would hold
    stderr's lock, and a process forked meanwhile would wait for that lock for ever (1 of 10 runs of 20 programs).
    """

    def watch() -> None:
        while True:
            time.sleep(LOOK_SECONDS)
            for started in tuple(LoudProcess.running.values()):
                _look_at(_exit_code(started))

    threading.Thread(target=watch, daemon=True).start()


def _look_at(code: int | None) -> None:
    """End this process if one of Lava's ended in another way than by coming to its end."""
    if code is not None and code < 0:
        print(f"one of Lava's processes was ended by signal {-code}", file=sys.stderr, flush=True)
    if code:
        os._exit(EXIT_PROCESS_FAILED)


def _exit_code(started: Any) -> int | None:
    """How a process ended, negative for a signal, without reaping it; None while it runs.

    The next process's ``start`` may have reaped it first (multiprocessing does), which leaves the code with what
    started it: looking at numbers alone, 1 of 60 kills ended only by its timeout.
    """
    if started.returncode is not None:
        return int(started.returncode)
    try:
        found = os.waitid(os.P_PID, started.pid, os.WEXITED | os.WNOHANG | os.WNOWAIT)
    except (ChildProcessError, AttributeError):  # reaped this moment, the next look tells; or a system without waitid
        return None
    if found is None:
        return None
    return found.si_status if found.si_code == os.CLD_EXITED else -found.si_status


def info() -> Entry:
    """What this interpreter has; the field names are those of the client's ``WorkerInfo``."""

    def version(name: str) -> str:
        try:
            return metadata.version(name)
        except metadata.PackageNotFoundError:
            return ""

    return {
        "python": platform.python_version(),
        "numpy": np.__version__,
        "lava_nc": version("lava-nc"),
        "lava_dl": version("lava-dl"),
        "repaired": _repair["needed"](),
        "netx_missing": [name for name in NETX_IMPORTS if find_spec(name) is None],
        "board_missing": hardware.missing(),
    }


def run_file(given: str, result: str) -> int:
    """Read the requests, run each, write the recordings; the exit code."""
    warnings.simplefilter("ignore")
    end_with_children()
    transport.SharedMemoryManager, transport.SystemProcess = AnonymousMemory, LoudProcess
    try:
        with np.load(given, allow_pickle=False) as archive:
            arrays = {name: archive[name] for name in archive.files}
        headers = json.loads(bytes(arrays.pop("headers")))
    except (OSError, ValueError, KeyError) as error:
        print(f"the requests cannot be read: {type(error).__name__}: {error}", file=sys.stderr)
        return EXIT_BAD_REQUEST
    if any(header["target"] == "loihi2" for header in headers) and (missing := hardware.missing()):
        print(*missing, sep="\n", file=sys.stderr)
        return EXIT_NO_BOARD
    recorded = {}
    for index, header in enumerate(headers):
        mine = {name.partition("/")[2]: array for name, array in arrays.items() if name.startswith(f"{index}/")}
        recorded.update({f"{index}/{name}": array for name, array in run(header, mine).items()})
    with open(result, "wb") as stream:
        np.savez(stream, allow_pickle=False, **recorded)
    return 0


def name_semaphores() -> None:
    """Give the names that semaphores have for a moment a prefix of ours; :mod:`deploy.loihi.leftovers` knows it."""
    configuration = getattr(mp.current_process(), "_config", {})
    if "semprefix" in configuration:  # CPython's, from 3.4 to 3.14
        configuration["semprefix"] = f"/{SEMAPHORES}-{os.getpid()}"


def do(job: Entry, answers: int) -> None:
    """One job, in the forked child; never returns."""
    code = EXIT_EXCEPTION
    try:
        os.close(answers)
        os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
        log = os.open(job["log"], os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
        os.dup2(log, 1)
        os.dup2(log, 2)
        if job["memory"]:
            resource.setrlimit(resource.RLIMIT_AS, (job["memory"], job["memory"]))
        code = run_file(job["given"], job["result"])
    except BaseException:  # noqa: BLE001 - whatever it was, it must be shown, and this child must not go on as a server
        traceback.print_exc()
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)


def serve() -> int:
    """Do one job a line until the input closes, which ends the process group."""
    answers, lines = os.dup(1), queue.SimpleQueue[str]()
    os.dup2(2, 1)  # whatever prints, it is no answer
    warnings.simplefilter("ignore")
    end_with_parent(lines)
    os.write(answers, b"ready\n")
    while True:
        job = json.loads(lines.get())
        child = os.fork()
        if child == 0:
            do(job, answers)
        status = os.waitpid(child, 0)[1]
        os.write(answers, f"{os.waitstatus_to_exitcode(status)}\n".encode())


def main(given: str, result: str = "") -> int:
    """Run one file of requests; ``--serve`` many; ``--info`` writes what is here."""
    name_semaphores()
    if given == "--serve":
        return serve()
    end_with_parent()
    if given == "--info":
        Path(result).write_text(json.dumps(info()))
        return 0
    return run_file(given, result)


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
