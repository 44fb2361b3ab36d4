"""Starting a worker process, watching it, and saying how it ended.

Lava forks processes, can hang, and must never share an interpreter with torch; so it lives in a subprocess with its
own session, watched by a timeout. Whatever happens (an error here, Ctrl-C, the death of this process), the whole
process group ends with it and the temporary folder goes.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import tempfile
import time
import zipfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, Final
from weakref import WeakKeyDictionary

import numpy as np
import numpy.typing as npt

from deploy.errors import FileError, LavaMissing, WorkerError, WorkerTimeout
from deploy.loihi import leftovers
from deploy.loihi.protocol import Request

Array = npt.NDArray[Any]
INTERPRETER_VARIABLE: Final = "NEUROKD_LAVA_PYTHON"
EXIT_NO_LAVA: Final = 67  # as in worker.py, which can import nothing from here
EXIT_NO_BOARD: Final = 70
EXIT_SILENT: Final = 72  # ours: it said nothing more and yet did not end
WORKER: Final = Path(__file__).with_name("worker.py")
INSTALL_COMMAND: Final = "neurokd-deploy lava install"
LOG_LINES: Final = 12
LOG_BYTES: Final = 4000
_STARTED: Final[WeakKeyDictionary[subprocess.Popen[bytes], float]] = WeakKeyDictionary()  # seconds since 1970
_NO_MEMORY: Final = ("MemoryError", "Cannot allocate memory", "Unable to allocate", "ended by signal 9")
_LOOK: Final = "run `neurokd-deploy doctor`; if it says all is well, the last lines are Lava's own words"
_OUT_OF_MEMORY: Final = "it was ended from outside or ran out of memory: use fewer samples or workers, and run again"


def interpreter(python: str | Path | None = None) -> str:
    """The worker's Python: the argument, else ``NEUROKD_LAVA_PYTHON``, else the running interpreter."""
    return str(python or os.environ.get(INTERPRETER_VARIABLE) or sys.executable)


def execute(requests: Sequence[Request], *, timeout: float, python: str | Path | None = None) -> list[dict[str, Array]]:
    """Hand requests to one worker process and give back the recordings of each.

    Raises:
        LavaMissing, WorkerTimeout, WorkerError, FileError: as :func:`run_lava`.
    """
    with temporary_folder() as folder:
        given, result, log = folder / "in.npz", folder / "out.npz", folder / "worker.log"
        write_requests(given, requests)
        command = [interpreter(python), "-I", str(WORKER), str(given), str(result)]
        code = run_once(command, folder, log, timeout)
        if code != 0:
            raise failure(code, command[0], last_lines(log))
        return read_recordings(result, log, len(requests))


@contextmanager
def temporary_folder() -> Iterator[Path]:
    """A folder for one run.

    Raises:
        FileError: it cannot be written.
    """
    try:
        with tempfile.TemporaryDirectory(prefix="neurokd-lava-", ignore_cleanup_errors=True) as folder:
            yield Path(folder)
    except OSError as error:
        raise FileError(
            "the temporary folder for the Lava worker cannot be written",
            where=error.filename or tempfile.gettempdir(),
            got=error.strerror or str(error),
            allowed="a writable folder with free space",
            next_step="free some space there, or point TMPDIR at another folder",
        ) from error


def write_requests(path: Path, requests: Sequence[Request]) -> None:
    """Write what the worker reads."""
    headers = json.dumps([made.header() for made in requests], default=int).encode()
    arrays = {f"{index}/{name}": array for index, made in enumerate(requests) for name, array in made.arrays.items()}
    with path.open("wb") as stream:
        np.savez(stream, allow_pickle=False, headers=np.frombuffer(headers, dtype=np.uint8), **arrays)


def read_recordings(path: Path, log: Path, requests: int) -> list[dict[str, Array]]:
    """Read what the worker wrote, one table of recordings a request.

    Raises:
        WorkerError: there is no whole file.
    """
    try:
        with np.load(path, allow_pickle=False) as archive:
            recorded = {name: archive[name] for name in archive.files}
    except (FileNotFoundError, ValueError, EOFError, zipfile.BadZipFile) as error:
        raise WorkerError(
            "the Lava worker ended without a readable result",
            got=f"{type(error).__name__}; last lines: {last_lines(log) or 'none'}",
            allowed="one .npz file with the recordings",
            next_step="run again; if it stays, run `neurokd-deploy doctor`",
        ) from error
    return [
        {name.partition("/")[2]: array for name, array in recorded.items() if name.startswith(f"{index}/")}
        for index in range(requests)
    ]


def run_once(command: list[str], folder: Path, log: Path, timeout: float) -> int:
    """Run the command in its own session; end everything in it, whatever happens. Returns the exit code."""
    worker = start(command, folder, log)
    started = time.monotonic()
    try:
        return worker.wait(timeout)
    except subprocess.TimeoutExpired as error:
        raise too_long(command[0], time.monotonic() - started, timeout, log) from error
    finally:
        end_group(worker)


def start(command: Sequence[str], folder: Path, log: Path, *, answers: bool = False) -> subprocess.Popen[bytes]:
    """Start a worker in a session of its own; with ``answers``, its output is a pipe to read from.

    Raises:
        LavaMissing: the interpreter does not start.
    """
    leftovers.clear()
    started = time.time()
    threads = {name: "1" for name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS")}
    with log.open("wb") as output:
        try:
            worker = subprocess.Popen(
                command,
                stdin=subprocess.PIPE,  # stays open: its end tells the worker that we are gone
                stdout=subprocess.PIPE if answers else output,
                stderr=output if answers else subprocess.STDOUT,
                cwd=folder,
                env={**os.environ, **threads, "TMPDIR": str(folder)},
                start_new_session=True,
            )
        except OSError as error:
            raise no_interpreter(command[0], error) from error
    _STARTED[worker] = started
    return worker


def too_long(python: str, seconds: float, allowed: float, log: Path) -> WorkerTimeout:
    """The error of a worker that was ended after its time."""
    return WorkerTimeout(
        "the Lava worker gave no result in time and was ended",
        where=python,
        got=f"{seconds:.1f} s; last lines: {last_lines(log) or 'none'}",
        allowed=f"{allowed:g} s",
        next_step="give it more time (timeout=..., --timeout), or fewer samples",
    )


def end_group(worker: subprocess.Popen[bytes]) -> None:
    """End a worker and everything it started, close our ends of its pipes, remove the names a kill left behind."""
    with suppress(ProcessLookupError, PermissionError):
        os.killpg(worker.pid, signal.SIGKILL)
    worker.wait()
    leftovers.clear(_STARTED.pop(worker, None))
    for stream in (worker.stdin, worker.stdout):
        if stream:
            with suppress(OSError):  # what was not sent before it ended
                stream.close()


def no_interpreter(python: str, error: OSError) -> LavaMissing:
    """The error of an interpreter that does not start."""
    return LavaMissing(
        "the worker's interpreter cannot be started",
        where=python,
        got=error.strerror or str(error),
        allowed="a Python 3.10 to 3.13 with lava-nc 0.10.0",
        next_step=f"unset {INTERPRETER_VARIABLE} or point it at such a Python; `{INSTALL_COMMAND}` installs Lava",
    )


def failure(code: int, python: str, lines: str) -> LavaMissing | WorkerError:
    """The error of a worker that ended with a code, negative for a signal."""
    if code == EXIT_NO_LAVA:
        return LavaMissing(
            "Lava cannot be imported in the worker's interpreter",
            where=python,
            got=lines,
            allowed="lava-nc 0.10.0",
            next_step=f"run `{INSTALL_COMMAND}`",
        )
    if code == EXIT_NO_BOARD:
        return LavaMissing(
            "no Loihi 2 board can be used from the worker's interpreter",
            where=python,
            got=lines,
            allowed="Intel's Lava extension for Loihi and a board",
            next_step=f"on a Loihi host, set {INTERPRETER_VARIABLE} to its Python; `neurokd-deploy doctor` looks again",
        )
    how = f"ended by {signal.Signals(-code).name}" if code < 0 else f"exit code {code}"
    return WorkerError(
        "the Lava worker failed",
        where=python,
        got=f"{how}; last lines: {lines or 'none'}",
        next_step=_OUT_OF_MEMORY if code == -9 or any(sign in lines for sign in _NO_MEMORY) else _LOOK,
    )


def last_lines(log: Path) -> str:
    """The last printable lines a worker wrote, joined; empty where it wrote none."""
    with suppress(OSError):
        text = log.read_bytes()[-LOG_BYTES:].decode(errors="replace")
        lines = [line.strip() for line in text.splitlines() if line.strip().isprintable() and line.strip()]
        return " | ".join(lines[-LOG_LINES:])
    return ""
