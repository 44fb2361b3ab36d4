"""Running a Program on real Lava: what is asked of the worker process, and its answer as a Trace.

:mod:`deploy.loihi.process` starts and watches the worker; :mod:`deploy.loihi.server` keeps one for many runs.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from deploy.errors import ConfigError, SimulatorError, WorkerError
from deploy.loihi import board
from deploy.loihi.process import (
    INTERPRETER_VARIABLE,
    WORKER,
    execute,
    failure,
    interpreter,
    last_lines,
    run_once,
    temporary_folder,
)
from deploy.loihi.protocol import PREFIX_SINK, Request, request
from deploy.program import Program
from deploy.spikes import Stimulus, stimulus
from deploy.trace import Trace

Array = npt.NDArray[Any]
TARGETS: Final = ("lava", "loihi2")


@dataclass(frozen=True)
class WorkerInfo:
    """What the worker's interpreter has, as it reports itself after importing Lava.

    Attributes:
        repaired: True where Lava needed :mod:`deploy.loihi.repair` to be importable.
        lava_dl: Version of lava-dl, empty if absent.
        netx_missing: Packages absent that lava-dl's netx imports.
        board_missing: What a run on a Loihi 2 board lacks there, one line each; see :mod:`deploy.loihi.hardware`.
    """

    interpreter: str
    python: str
    numpy: str
    lava_nc: str
    lava_dl: str
    repaired: bool
    netx_missing: tuple[str, ...]
    board_missing: tuple[str, ...]

    def versions(self) -> dict[str, str]:
        """Names and versions, for provenance."""
        return {"python": self.python, "lava-nc": self.lava_nc, "lava-dl": self.lava_dl, "numpy": self.numpy}


def worker_info(python: str | Path | None = None, *, timeout: float = 60.0) -> WorkerInfo:
    """Ask the worker's interpreter what it has; imports Lava there, so the answer proves that it can.

    Raises:
        LavaMissing, WorkerTimeout, WorkerError, FileError: as :func:`run_lava`.
    """
    target = interpreter(python)
    with temporary_folder() as folder:
        answer, log = folder / "info.json", folder / "worker.log"
        code = run_once([target, "-I", str(WORKER), "--info", str(answer)], folder, log, timeout)
        if code != 0:
            raise failure(code, target, last_lines(log))
        return _worker_info(target, answer)


def _worker_info(target: str, answer: Path) -> WorkerInfo:
    try:
        found = json.loads(answer.read_text())
        listed = {name: tuple(found[name]) for name in ("netx_missing", "board_missing")}
        return WorkerInfo(interpreter=target, **{**found, **listed})
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
    target: str = "lava",
    timeout: float = 600.0,
    python: str | Path | None = None,
) -> Trace:
    """Run a program on Lava's bit-accurate CPU models (``Loihi2SimCfg(select_tag="fixed_pt")``), in one start.

    For many runs, or several at once, see :class:`deploy.loihi.server.LavaWorker` and :func:`run_parallel` there.

    Args:
        program: The network in integers.
        spikes: Integers ``[T, B, *shape]``, or ``[B, *shape]`` presented at every one of ``steps`` steps.
        record: Populations whose spikes are kept: names, ``"output"``, ``"all"`` or nothing.
        record_state: Populations whose u and v are kept (about a fifth slower).
        reset_between_samples: False carries state and spikes on their way from one sample to the next.
        target: ``lava``, or ``loihi2``: the same processes on a board, with Lava's ``Loihi2HwCfg``.
        timeout: Seconds after which the worker and everything it started is killed.
        python: The worker's interpreter; see :func:`interpreter`.

    Returns:
        A Trace with spikes and state as an undelayed run has them; Lava does not count events, so no counters.

    Raises:
        SpikesError: the spikes do not fit the program's input.
        SimulatorError: an unknown population to record.
        ProgramError: a recurrent loop too short for Lava's pipeline.
        RuleError: the program, or what is to be recorded, has no place on a board (``loihi2``).
        LavaMissing: the worker's interpreter does not start, has no Lava, or for ``loihi2`` no way to a board.
        WorkerTimeout, WorkerError: no result in time, or none at all.
        FileError: the temporary folder cannot be written.
    """
    job = Job(program, spikes, steps, record, record_state, reset_between_samples, target)
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
    target: str = "lava"


def run_jobs(jobs: Sequence[Job], *, timeout: float = 600.0, python: str | Path | None = None) -> list[Trace]:
    """Run several programs one after the other in one start: importing Lava takes longer than a small run.

    Args:
        timeout: Seconds for all of them together.

    Raises:
        As :func:`run_lava`; if one run fails, all do.
    """
    prepared = [prepare(job) for job in jobs]
    recordings = execute([made for _, made in prepared], timeout=timeout, python=python)
    return traces(jobs, prepared, recordings, interpreter(python))


def prepare(job: Job) -> tuple[Stimulus, Request]:
    """A job's input, checked, and what the worker is asked for.

    Raises:
        ConfigError, RuleError, SpikesError, SimulatorError, ProgramError: as :func:`run_lava`.
    """
    program, output = job.program, job.program.output
    if job.target not in TARGETS:
        raise ConfigError("unknown target", where="target", got=job.target, allowed=", ".join(TARGETS))
    given = stimulus(program, job.spikes, job.steps)
    kept = _names(program, job.record) | {output.name}
    state = _names(program, job.record_state) | (frozenset() if output.spiking else {output.name})
    if job.target == "loihi2":
        board.require(program, state)
    made = request(program, given, kept, state=state, reset=job.reset_between_samples, target=job.target)
    return given, made


def traces(
    jobs: Sequence[Job],
    prepared: Sequence[tuple[Stimulus, Request]],
    recordings: Sequence[dict[str, Array]],
    python: str,
) -> list[Trace]:
    """The worker's recordings as Traces.

    Raises:
        WorkerError: something asked for was not recorded.
    """
    for (_, made), recorded in zip(prepared, recordings, strict=True):
        _check_recordings(made, recorded, python)
    return [_trace(job, given, recorded) for job, (given, _), recorded in zip(jobs, prepared, recordings, strict=True)]


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
        backend=job.target,
        program=program.digest,
        output=program.output.name,
        counts=output.sum(axis=1, dtype=np.int64),
        input_events=np.count_nonzero(given.dense(), axis=2).astype(np.int64),
        spikes={p.name: timed(p.name, recorded[PREFIX_SINK + p.name]) for p in program.populations if p.name in kept},
        u=part(".u"),
        v=part(".v"),
        membranes=None if program.output.spiking else _last_membranes(program, given, recorded),
        population=program.population,
    )


def _last_membranes(program: Program, given: Stimulus, recorded: dict[str, Array]) -> Array:
    v = recorded[f"{program.output.name}.v"].reshape(given.samples, given.steps, -1)
    return v[:, -1].astype(np.int64)
