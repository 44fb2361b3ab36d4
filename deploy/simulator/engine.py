"""Running a Plan: chunks of samples on threads, layer by layer, or step by step where there are cycles."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from functools import partial
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from deploy.errors import SimulatorError
from deploy.program import Program
from deploy.records import FORMS, Form, Record, joined, packed
from deploy.simulator import kernels
from deploy.simulator.advance import advance
from deploy.simulator.buffers import TALLIES, Buffers, Workspace, buffers_for
from deploy.simulator.layout import to_outer
from deploy.simulator.plan import Plan, plan
from deploy.simulator.threads import advance_in_waves, together
from deploy.spikes import Stimulus, stimulus
from deploy.trace import Counter, Trace

Array = npt.NDArray[Any]
Progress = Callable[[int, int], None]
#: A chunk's spikes. 28x28x1-16c5s2-32c3s2-10, two cores against one: 1.92 x with 1.5 MiB, 1.83 with 4, 1.86 with 0.75.
CHUNK_BYTES: Final = 3 * 512 * 1024
LARGEST_CHUNK: Final = 64
WORTH_THREADS: Final = 1 << 20  # neuron updates; waking a thread costs about as much as 100,000 of them


@dataclass(frozen=True)
class Recording:
    """Which populations' spikes and state a run keeps; ``output`` stands for the last one, ``all`` for each."""

    spikes: frozenset[str]
    state: frozenset[str]
    form: Form = "arrays"

    @classmethod
    def of(
        cls, program: Program, spikes: str | Iterable[str], state: str | Iterable[str], form: Form = "arrays"
    ) -> Recording:
        """Resolve names.

        Raises:
            SimulatorError: a name is no population of the program, or there is no such form.
        """
        if form not in FORMS:
            raise SimulatorError("unknown form of recorded spikes", where="record_as", got=form, allowed=FORMS)
        return cls(_names(program, spikes), _names(program, state), form)


def _names(program: Program, asked: str | Iterable[str]) -> frozenset[str]:
    known = [p.name for p in program.populations]
    given = [asked] if isinstance(asked, str) else list(asked)
    names = {program.output.name if name == "output" else name for name in given if name != "all"}
    unknown = sorted(names - set(known))
    if unknown:
        raise SimulatorError("no such population to record", got=unknown, allowed=["output", "all", *known])
    return frozenset(known if "all" in given else names)


def run(
    program: Program,
    spikes: npt.ArrayLike,
    *,
    steps: int | None = None,
    record: str | Iterable[str] = "output",
    record_state: str | Iterable[str] = (),
    record_as: Form = "arrays",
    reset_between_samples: bool = True,
    threads: int | None = None,
    progress: Progress | None = None,
) -> Trace:
    """Run a program over samples, bit-identical to the reference interpreter and to Lava's ``fixed_pt`` models.

    Args:
        program: The network in integers.
        spikes: Integers ``[T, B, *shape]``, or ``[B, *shape]`` presented at every one of ``steps`` steps.
        record: Populations whose spikes are kept: names, ``"output"``, ``"all"`` or nothing.
        record_state: Populations whose u and v are kept.
        record_as: ``arrays`` in ``trace.spikes``, a byte a neuron and step; or ``bits`` or ``events`` in
            ``trace.packed``.
        reset_between_samples: False carries state and spikes on their way from one sample to the next.
        threads: Worker threads; default: the processor's cores.
        progress: Called with (samples done, samples in all).

    Raises:
        SpikesError: the spikes do not fit the program's input.
        SimulatorError: an unknown population or form to record, or threads below 1.
    """
    given = stimulus(program, spikes, steps)
    recording = Recording.of(program, record, record_state, record_as)
    threads = _thread_count(threads)
    if not reset_between_samples:
        return _run_continuous(program, given, recording)
    job = _job(program, given, recording)
    _run_chunks(job, threads, progress)
    return _trace(job)


def stream(program: Program, batches: Iterable[npt.ArrayLike], **options: Any) -> Iterator[Trace]:
    """Run batches one after the other; memory is bounded by one batch. ``options`` as :func:`run`."""
    for batch in batches:
        yield run(program, batch, **options)


def _thread_count(threads: int | None) -> int:
    if threads is not None and threads < 1:
        raise SimulatorError("threads must be positive", where="threads", got=threads, allowed="1 or more")
    return threads or len(os.sched_getaffinity(0))


@dataclass(eq=False)
class _Job:
    """A run: what is given, and the arrays it fills, chunk by chunk; tallies are ``[5, T, B]``."""

    program: Program
    prepared: Plan
    given: Stimulus
    recording: Recording
    counts: Array
    membranes: Array
    input_events: Array
    tallies: dict[str, Array]
    spikes: dict[str, Array]
    u: dict[str, Array]
    v: dict[str, Array]
    packed: dict[str, dict[int, Record]]  # by first sample
    stop: threading.Event = field(default_factory=threading.Event)


def _job(program: Program, given: Stimulus, recording: Recording) -> _Job:
    steps, samples = given.steps, given.samples
    arrays = recording.spikes if recording.form == "arrays" else frozenset[str]()

    def record(name: str, dtype: type[np.generic]) -> Array:
        return np.zeros((steps, samples, *program.node(name).shape), dtype)

    return _Job(
        program,
        plan(program),
        given,
        recording,
        counts=np.zeros((samples, program.output.size), np.int64),
        membranes=np.zeros((samples, program.output.size), np.int64),
        input_events=np.zeros((len(given.values), samples), np.int64),
        tallies={p.name: np.zeros((TALLIES, steps, samples), np.int64) for p in program.populations},
        spikes={name: record(name, np.uint8) for name in sorted(arrays)},
        packed={name: {} for name in sorted(recording.spikes - arrays)},
        u={name: record(name, np.int32) for name in sorted(recording.state)},
        v={name: record(name, np.int32) for name in sorted(recording.state)},
    )


def _chunks(job: _Job, threads: int) -> list[slice]:
    """Chunks of as many samples as fit, as many for every thread, and of sizes that differ by one at most."""
    a_sample = job.given.steps * (job.program.neurons + job.program.input.size)
    most = max(1, min(LARGEST_CHUNK, CHUNK_BYTES // a_sample))
    samples = job.given.samples
    count = min(samples, threads * -(-samples // (most * threads)))
    return [slice(samples * k // count, samples * (k + 1) // count) for k in range(count)]


def _run_chunks(job: _Job, threads: int, progress: Progress | None) -> None:
    samples, parts = job.given.samples, _chunks(job, threads)
    several = threads > 1 and len(parts) > 1
    calls = [partial(_run_chunk, job, part, 1 if several else threads) for part in parts]
    finished = 0
    for done in together(calls, threads, job.stop) if several else (call() for call in calls):
        finished += done
        if progress:
            progress(finished, samples)


def _run_chunk(job: _Job, part: slice, threads: int = 1) -> int:
    """Run the samples of a part, on several threads where that pays; returns how many."""
    workspace = job.prepared.borrow()
    steps, samples = job.given.steps, part.stop - part.start
    buffers = _buffers(job, samples, workspace)
    values = buffers.spikes[job.program.input.name]
    values[:] = job.given.values[:, part].swapaxes(0, 1)
    job.input_events[:, part] = kernels.count_events(values).T
    buffers.rest()
    large = threads > 1 and steps > 1 and samples * steps * job.program.neurons >= WORTH_THREADS
    if large and not job.prepared.stepwise:
        advance_in_waves(job.prepared, buffers, steps, threads)
    else:
        advance(job.prepared, buffers, steps)
    _collect(job, buffers, part)
    job.prepared.give_back(workspace)
    return int(samples)


def _buffers(job: _Job, samples: int, workspace: Workspace) -> Buffers:
    """Memory for some samples, the same as for the chunk before where that was of the same size."""
    rows, _, size = job.given.values.shape
    steps, state = job.given.steps, job.recording.state

    def make() -> Buffers:
        values = workspace.take("spikes", job.program.input.name, (samples, rows, size), np.uint8)
        buffers = buffers_for(job.program, workspace, values, steps)
        for name in state:
            shape = buffers.spikes[name].shape
            buffers.u_record[name] = workspace.take("u_record", name, shape, np.int32)
            buffers.v_record[name] = workspace.take("v_record", name, shape, np.int32)
        return buffers

    buffers = workspace.prepared(("buffers", samples, rows, steps, state), make)
    buffers.stop = job.stop
    return buffers


def _collect(job: _Job, buffers: Buffers, part: slice) -> None:
    output = job.program.output
    answer = buffers.spikes[output.name].sum(axis=1, dtype=np.int64)
    job.counts[part] = to_outer(answer, output.shape).reshape(answer.shape)
    job.membranes[part] = to_outer(buffers.v[output.name], output.shape).reshape(answer.shape)
    for name, tally in buffers.tallies.items():
        job.tallies[name][:, :, part] = tally.swapaxes(1, 2)
    for kept, records in ((job.spikes, buffers.spikes), (job.u, buffers.u_record), (job.v, buffers.v_record)):
        for name, array in kept.items():
            array[:, part] = to_outer(records[name].swapaxes(0, 1), job.program.node(name).shape)
    for name, parts in job.packed.items():
        shape = job.program.node(name).shape
        spikes = to_outer(buffers.spikes[name].swapaxes(0, 1), shape)
        parts[part.start] = packed(spikes.reshape(*spikes.shape[:2], -1), shape, job.recording.form)


def _run_continuous(program: Program, given: Stimulus, recording: Recording) -> Trace:
    """All samples as one long one, then cut apart again."""
    steps, samples, output = given.steps, given.samples, program.output
    whole = Stimulus(given.dense().swapaxes(0, 1).reshape(samples * steps, 1, -1), samples * steps)
    state = recording.state if output.spiking else recording.state | {output.name}
    job = _job(program, whole, Recording(recording.spikes | {output.name}, state))
    _run_chunk(job, slice(0, 1))

    def cut(record: Array) -> Array:
        parts: Array = record.reshape(samples, steps, *record.shape[2:]).swapaxes(0, 1)
        return parts

    job.given, job.input_events = given, job.input_events.reshape(samples, steps).T
    job.tallies = {n: tally.reshape(TALLIES, samples, steps).swapaxes(1, 2) for n, tally in job.tallies.items()}
    job.counts = cut(job.spikes[output.name]).reshape(steps, samples, -1).sum(axis=0, dtype=np.int64)
    if not output.spiking:
        job.membranes = cut(job.v[output.name])[-1].reshape(samples, -1).astype(np.int64)
    kept = {name: cut(job.spikes[name]) for name in sorted(recording.spikes)}
    if recording.form == "arrays":
        job.spikes = kept
    else:
        job.spikes = {}
        job.packed = {
            name: {0: packed(spikes.reshape(*spikes.shape[:2], -1), program.node(name).shape, recording.form)}
            for name, spikes in kept.items()
        }
    job.u = {name: cut(job.u[name]) for name in sorted(recording.state)}
    job.v = {name: cut(job.v[name]) for name in sorted(recording.state)}
    return _trace(job)


def _trace(job: _Job) -> Trace:
    program = job.program
    return Trace(
        backend="simulator",
        program=program.digest,
        output=program.output.name,
        counts=job.counts,
        input_events=np.ascontiguousarray(np.broadcast_to(job.input_events, (job.given.steps, job.given.samples))),
        counters={p.name: _counter(p.size, job.tallies[p.name]) for p in program.populations},
        spikes=job.spikes,
        u=job.u,
        v=job.v,
        membranes=None if program.output.spiking else job.membranes,
        packed={name: joined([parts[first] for first in sorted(parts)]) for name, parts in job.packed.items()},
        population=program.population,
    )


def _counter(neurons: int, tally: Array) -> Counter:
    spikes, active, wraps, saturations, synops = (np.ascontiguousarray(part) for part in tally)
    return Counter(neurons, spikes, synops, active, wraps, saturations)
