"""Running a Program on real Lava: the parent's side of the worker process.

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
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from deploy.errors import FileError, LavaMissing, SimulatorError, WorkerError, WorkerTimeout
from deploy.loihi.protocol import PREFIX_SINK, Request, request
from deploy.program import Program
from deploy.spikes import Stimulus, stimulus
from deploy.trace import Trace

Array = npt.NDArray[Any]
INTERPRETER_VARIABLE: Final = "NEUROKD_LAVA_PYTHON"
EXIT_NO_LAVA: Final = 67  # as in worker.py, which can import nothing from here
WORKER: Final = Path(__file__).with_name("worker.py")
INSTALL_COMMAND: Final = "neurokd-deploy lava install"
LOG_LINES: Final = 12
LOG_BYTES: Final = 4000


def interpreter(python: str | Path | None = None) -> str:
    """The worker's Python: the argument, else ``NEUROKD_LAVA_PYTHON``, else the running interpreter."""
    return str(python or os.environ.get(INTERPRETER_VARIABLE) or sys.executable)


@dataclass(frozen=True)
class WorkerInfo:
    """What the worker's interpreter has, as it reports itself after importing Lava.

    Attributes:
        repaired: True where Lava needed :mod:`deploy.loihi.repair` to be importable.
        lava_dl: Version of lava-dl, empty if absent.
        netx_missing: Packages absent that lava-dl's netx imports.
        board: True where Intel's own package for Loihi boards (``nxcore``, members of INRC) is importable.
    """

    interpreter: str
    python: str
    numpy: str
    lava_nc: str
    lava_dl: str
    repaired: bool
    netx_missing: tuple[str, ...]
    board: bool

    def versions(self) -> dict[str, str]:
        """Names and versions, for provenance."""
        return {"python": self.python, "lava-nc": self.lava_nc, "lava-dl": self.lava_dl, "numpy": self.numpy}


def worker_info(python: str | Path | None = None, *, timeout: float = 60.0) -> WorkerInfo:
    """Ask the worker's interpreter what it has; imports Lava there, so the answer proves that it can.

    Raises:
        LavaMissing, WorkerTimeout, WorkerError, FileError: as :func:`run_lava`.
    """
    target = interpreter(python)
    with _temporary_folder() as folder:
        answer, log = folder / "info.json", folder / "worker.log"
        code = _run_worker([target, "-I", str(WORKER), "--info", str(answer)], folder, log, timeout)
        if code != 0:
            raise _failure(code, target, _last_lines(log))
        return _worker_info(target, answer)


def _worker_info(target: str, answer: Path) -> WorkerInfo:
    try:
        found = json.loads(answer.read_text())
        return WorkerInfo(interpreter=target, **{**found, "netx_missing": tuple(found["netx_missing"])})
    except (FileNotFoundError, ValueError, TypeError, KeyError) as error:
        raise WorkerError(
            "the Lava worker did not say what it has",
            where=target,
            got=f"{type(error).__name__}: {error}",
            allowed="the answer of worker.py --info",
            next_step=f"point {INTERPRETER_VARIABLE} at a Python 3.10 to 3.13",
        ) from error


def run_lava(
    program: Program,
    spikes: npt.ArrayLike,
    *,
    steps: int | None = None,
    record: str | Iterable[str] = "all",
    record_state: str | Iterable[str] = (),
    reset_between_samples: bool = True,
    timeout: float = 600.0,
    python: str | Path | None = None,
) -> Trace:
    """Run a program on Lava's bit-accurate CPU models (``Loihi2SimCfg(select_tag="fixed_pt")``), in one start.

    Args:
        program: The network in integers.
        spikes: Integers ``[T, B, *shape]``, or ``[B, *shape]`` presented at every one of ``steps`` steps.
        record: Populations whose spikes are kept: names, ``"output"``, ``"all"`` or nothing.
        record_state: Populations whose u and v are kept (about a fifth slower).
        reset_between_samples: False carries state and spikes on their way from one sample to the next.
        timeout: Seconds after which the worker and everything it started is killed.
        python: The worker's interpreter; see :func:`interpreter`.

    Returns:
        A Trace with spikes and state as an undelayed run has them; Lava does not count events, so no counters.

    Raises:
        SpikesError: the spikes do not fit the program's input.
        SimulatorError: an unknown population to record.
        ProgramError: a recurrent loop too short for Lava's pipeline.
        LavaMissing: the worker's interpreter does not start or has no Lava.
        WorkerTimeout, WorkerError: no result in time, or none at all.
        FileError: the temporary folder cannot be written.
    """
    job = Job(program, spikes, steps, record, record_state, reset_between_samples)
    return run_jobs([job], timeout=timeout, python=python)[0]


@dataclass(frozen=True, eq=False)
class Job:
    """One of several runs in one start of the worker; fields as the arguments of :func:`run_lava`."""

    program: Program
    spikes: npt.ArrayLike
    steps: int | None = None
    record: str | Iterable[str] = "all"
    record_state: str | Iterable[str] = ()
    reset_between_samples: bool = True


def run_jobs(jobs: Sequence[Job], *, timeout: float = 600.0, python: str | Path | None = None) -> list[Trace]:
    """Run several programs one after the other in one start: importing Lava takes longer than a small run.

    Args:
        timeout: Seconds for all of them together.

    Raises:
        As :func:`run_lava`; if one run fails, all do.
    """
    prepared = [_prepare(job) for job in jobs]
    recordings = execute([made for _, made in prepared], timeout=timeout, python=python)
    for (_, made), recorded in zip(prepared, recordings, strict=True):
        _check_recordings(made, recorded, interpreter(python))
    return [_trace(job, given, recorded) for job, (given, _), recorded in zip(jobs, prepared, recordings, strict=True)]


def _prepare(job: Job) -> tuple[Stimulus, Request]:
    program, output = job.program, job.program.output
    given = stimulus(program, job.spikes, job.steps)
    kept = _names(program, job.record) | {output.name}
    state = _names(program, job.record_state) | (frozenset() if output.spiking else {output.name})
    return given, request(program, given, kept, state=state, reset=job.reset_between_samples)


def _names(program: Program, asked: str | Iterable[str]) -> frozenset[str]:
    known = [p.name for p in program.populations]
    given = [asked] if isinstance(asked, str) else list(asked)
    names = {program.output.name if name == "output" else name for name in given if name != "all"}
    unknown = sorted(names - set(known))
    if unknown:
        raise SimulatorError("no such population to record", got=unknown, allowed=["output", "all", *known])
    return frozenset(known if "all" in given else names)


def _check_recordings(made: Request, recorded: dict[str, Array], python: str) -> None:
    expected = made.recordings()
    found = {name: array.shape for name, array in recorded.items() if name in expected}
    if found != expected:
        raise WorkerError(
            "the Lava worker's result lacks what was asked for",
            where=python,
            got={name: array.shape for name, array in recorded.items()},
            allowed=expected,
            next_step="run again; if it stays, run `neurokd-deploy doctor`",
        )


def _trace(job: Job, given: Stimulus, recorded: dict[str, Array]) -> Trace:
    program = job.program
    kept, state = _names(program, job.record), _names(program, job.record_state)

    def timed(name: str, array: Array) -> Array:
        shaped = array.reshape(given.samples, given.steps, *program.node(name).shape)
        return np.ascontiguousarray(shaped.swapaxes(0, 1))

    def part(suffix: str) -> dict[str, Array]:
        return {p.name: timed(p.name, recorded[f"{p.name}{suffix}"]) for p in program.populations if p.name in state}

    output = recorded[PREFIX_SINK + program.output.name].reshape(given.samples, given.steps, -1)
    return Trace(
        backend="lava",
        program=program.digest,
        output=program.output.name,
        counts=output.sum(axis=1, dtype=np.int64),
        input_events=np.count_nonzero(given.dense(), axis=2).astype(np.int64),
        spikes={p.name: timed(p.name, recorded[PREFIX_SINK + p.name]) for p in program.populations if p.name in kept},
        u=part(".u"),
        v=part(".v"),
        membranes=None if program.output.spiking else _last_membranes(program, given, recorded),
    )


def _last_membranes(program: Program, given: Stimulus, recorded: dict[str, Array]) -> Array:
    v = recorded[f"{program.output.name}.v"].reshape(given.samples, given.steps, -1)
    return v[:, -1].astype(np.int64)


def execute(requests: Sequence[Request], *, timeout: float, python: str | Path | None = None) -> list[dict[str, Array]]:
    """Hand requests to one worker process and give back the recordings of each.

    Raises:
        LavaMissing, WorkerTimeout, WorkerError, FileError: as :func:`run_lava`.
    """
    with _temporary_folder() as folder:
        given, result, log = folder / "in.npz", folder / "out.npz", folder / "worker.log"
        _write(given, requests)
        command = [interpreter(python), "-I", str(WORKER), str(given), str(result)]
        code = _run_worker(command, folder, log, timeout)
        if code != 0:
            raise _failure(code, command[0], _last_lines(log))
        recorded = _read(result, log)
    return [
        {name.partition("/")[2]: array for name, array in recorded.items() if name.startswith(f"{index}/")}
        for index in range(len(requests))
    ]


@contextmanager
def _temporary_folder() -> Iterator[Path]:
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


def _write(path: Path, requests: Sequence[Request]) -> None:
    headers = json.dumps([made.header() for made in requests], default=int).encode()
    arrays = {f"{index}/{name}": array for index, made in enumerate(requests) for name, array in made.arrays.items()}
    with path.open("wb") as stream:
        np.savez(stream, allow_pickle=False, headers=np.frombuffer(headers, dtype=np.uint8), **arrays)


def _read(path: Path, log: Path) -> dict[str, Array]:
    try:
        with np.load(path, allow_pickle=False) as archive:
            return {name: archive[name] for name in archive.files}
    except (FileNotFoundError, ValueError, EOFError, zipfile.BadZipFile) as error:
        raise WorkerError(
            "the Lava worker ended without a readable result",
            got=f"{type(error).__name__}; last lines: {_last_lines(log) or 'none'}",
            allowed="one .npz file with the recordings",
            next_step="run again; if it stays, run `neurokd-deploy doctor`",
        ) from error


def _run_worker(command: list[str], folder: Path, log: Path, timeout: float) -> int:
    """Run the command in its own session; end everything in it, whatever happens. Returns the exit code."""
    threads = {name: "1" for name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS")}
    with log.open("wb") as output:
        try:
            worker = subprocess.Popen(
                command,
                stdin=subprocess.PIPE,  # stays open and empty: its end tells the worker that we are gone
                stdout=output,
                stderr=subprocess.STDOUT,
                cwd=folder,
                env={**os.environ, **threads, "TMPDIR": str(folder)},
                start_new_session=True,
            )
        except OSError as error:
            raise _no_interpreter(command[0], error) from error
    started = time.monotonic()
    try:
        return worker.wait(timeout)
    except subprocess.TimeoutExpired as error:
        raise WorkerTimeout(
            "the Lava worker gave no result in time and was ended",
            where=command[0],
            got=f"{time.monotonic() - started:.1f} s; last lines: {_last_lines(log) or 'none'}",
            allowed=f"{timeout:g} s",
            next_step="give it more time (timeout=..., --timeout), or fewer samples",
        ) from error
    finally:
        _end_group(worker)


def _end_group(worker: subprocess.Popen[bytes]) -> None:
    with suppress(ProcessLookupError, PermissionError):
        os.killpg(worker.pid, signal.SIGKILL)
    worker.wait()
    if worker.stdin:
        worker.stdin.close()


def _no_interpreter(python: str, error: OSError) -> LavaMissing:
    return LavaMissing(
        "the worker's interpreter cannot be started",
        where=python,
        got=error.strerror or str(error),
        allowed="a Python 3.10 to 3.13 with lava-nc 0.10.0",
        next_step=f"unset {INTERPRETER_VARIABLE} or point it at such a Python; `{INSTALL_COMMAND}` installs Lava",
    )


def _failure(code: int, python: str, lines: str) -> LavaMissing | WorkerError:
    if code == EXIT_NO_LAVA:
        return LavaMissing(
            "Lava cannot be imported in the worker's interpreter",
            where=python,
            got=lines,
            allowed="lava-nc 0.10.0",
            next_step=f"run `{INSTALL_COMMAND}`",
        )
    how = f"ended by {signal.Signals(-code).name}" if code < 0 else f"exit code {code}"
    return WorkerError(
        "the Lava worker failed",
        where=python,
        got=f"{how}; last lines: {lines or 'none'}",
        next_step="run `neurokd-deploy doctor`; if the worker was ended from outside (out of memory?), run again",
    )


def _last_lines(log: Path) -> str:
    with suppress(OSError):
        text = log.read_bytes()[-LOG_BYTES:].decode(errors="replace")
        lines = [line.strip() for line in text.splitlines() if line.strip().isprintable() and line.strip()]
        return " | ".join(lines[-LOG_LINES:])
    return ""
