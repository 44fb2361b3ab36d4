"""Running a Plan: chunks of samples on threads, layer by layer, or step by step where there are cycles."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import FIRST_EXCEPTION, ThreadPoolExecutor, wait
from dataclasses import dataclass, field
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from deploy.errors import SimulatorError
from deploy.program import Program
from deploy.simulator import neurons
from deploy.simulator.plan import Plan, Stage, plan, to_inner, to_outer
from deploy.spikes import Stimulus, stimulus
from deploy.trace import Counter, Trace

Array = npt.NDArray[Any]
Progress = Callable[[int, int], None]
CHUNK_BYTES: Final = 8192 * 1024  # a thread's spikes and sums stay in its level-2 cache
LARGEST_CHUNK: Final = 64
_NOTHING: Final = np.empty((0, 0, 0), np.int32)


@dataclass(frozen=True)
class Recording:
    """Which populations' spikes and state a run keeps; ``output`` stands for the last one, ``all`` for each."""

    spikes: frozenset[str]
    state: frozenset[str]

    @classmethod
    def of(cls, program: Program, spikes: str | Iterable[str], state: str | Iterable[str]) -> Recording:
        """Resolve names.

        Raises:
            SimulatorError: a name is no population of the program.
        """
        return cls(_names(program, spikes), _names(program, state))


def _names(program: Program, asked: str | Iterable[str]) -> frozenset[str]:
    known = [p.name for p in program.populations]
    given = [asked] if isinstance(asked, str) else list(asked)
    names = {program.output.name if name == "output" else name for name in given if name != "all"}
    unknown = sorted(names - set(known))
    if unknown:
        raise SimulatorError("no such population to record", got=unknown, allowed=["output", "all", *known])
    return frozenset(known if "all" in given else names)


@dataclass(eq=False)
class _Result:
    """Arrays a run fills, sample by sample."""

    counts: Array
    membranes: Array
    tallies: dict[str, Array]
    spikes: dict[str, Array]
    u: dict[str, Array]
    v: dict[str, Array]


@dataclass(eq=False)
class Buffers:
    """Working arrays of some samples: ``[B, T, n]`` spikes by node, ``[B, n]`` state by population.

    ``held`` (steps a neuron is still refractory) has no elements where the population has no refractory period.
    """

    spikes: dict[str, Array]
    u: dict[str, Array]
    v: dict[str, Array]
    held: dict[str, Array]
    u_record: dict[str, Array] = field(default_factory=dict)
    v_record: dict[str, Array] = field(default_factory=dict)
    tallies: dict[str, Array] = field(default_factory=dict)


def fresh_buffers(program: Program, values: Array, steps: int) -> Buffers:
    """Buffers at rest for ``values`` uint8 ``[B, T or 1, n]`` (kernel layout)."""
    samples = values.shape[0]
    nodes = program.populations
    spikes = {p.name: np.zeros((samples, steps, p.size), np.uint8) for p in nodes}
    return Buffers(
        spikes={program.input.name: values, **spikes},
        u={p.name: np.zeros((samples, p.size), np.int32) for p in nodes},
        v={p.name: np.zeros((samples, p.size), np.int32) for p in nodes},
        held={p.name: np.zeros((samples, p.size if p.refractory else 0), np.int32) for p in nodes},
    )


def run(
    program: Program,
    spikes: npt.ArrayLike,
    *,
    steps: int | None = None,
    record: str | Iterable[str] = "output",
    record_state: str | Iterable[str] = (),
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
        reset_between_samples: False carries state and spikes on their way from one sample to the next.
        threads: Worker threads; default: the processor's cores.
        progress: Called with (samples done, samples in all).

    Raises:
        SpikesError: the spikes do not fit the program's input.
        SimulatorError: an unknown population to record, or threads below 1.
    """
    given = stimulus(program, spikes, steps)
    recording = Recording.of(program, record, record_state)
    threads = _thread_count(threads)
    prepared = plan(program)
    if not reset_between_samples:
        return _run_continuous(prepared, given, recording)
    result = _allocate(program, given.samples, given.steps, recording)
    _run_chunks(prepared, given, recording, result, threads, progress)
    return _trace(program, given, result)


def stream(program: Program, batches: Iterable[npt.ArrayLike], **options: Any) -> Iterator[Trace]:
    """Run batches one after the other; memory is bounded by one batch. ``options`` as :func:`run`."""
    for batch in batches:
        yield run(program, batch, **options)


def _thread_count(threads: int | None) -> int:
    if threads is not None and threads < 1:
        raise SimulatorError("threads must be positive", where="threads", got=threads, allowed="1 or more")
    return threads or len(os.sched_getaffinity(0))


def _allocate(program: Program, samples: int, steps: int, recording: Recording) -> _Result:
    def state(p_name: str) -> Array:
        return np.zeros((steps, samples, *program.node(p_name).shape), np.int32)

    return _Result(
        counts=np.zeros((samples, program.output.size), np.int64),
        membranes=np.zeros((samples, program.output.size), np.int64),
        tallies={p.name: np.zeros((5, samples, steps), np.int64) for p in program.populations},
        spikes={n: np.zeros((steps, samples, *program.node(n).shape), np.uint8) for n in sorted(recording.spikes)},
        u={name: state(name) for name in sorted(recording.state)},
        v={name: state(name) for name in sorted(recording.state)},
    )


def _chunk_size(program: Program, steps: int, samples: int, threads: int) -> int:
    spikes = steps * (program.neurons + program.input.size)
    sums = 4 * steps * max(p.size for p in program.populations)
    fair_share = -(-samples // threads)
    return max(1, min(LARGEST_CHUNK, CHUNK_BYTES // (spikes + sums), fair_share))


def _run_chunks(
    prepared: Plan, given: Stimulus, recording: Recording, result: _Result, threads: int, progress: Progress | None
) -> None:
    size = _chunk_size(prepared.program, given.steps, given.samples, threads)
    starts = range(0, given.samples, size)
    finished = 0

    def chunk(start: int) -> int:
        stop = min(start + size, given.samples)
        _run_chunk(prepared, given.part(start, stop), recording, result, slice(start, stop))
        return stop - start

    if threads == 1 or len(starts) == 1:
        for start in starts:
            finished += chunk(start)
            if progress:
                progress(finished, given.samples)
        return
    with ThreadPoolExecutor(threads) as pool:
        pending = {pool.submit(chunk, start) for start in starts}
        try:
            while pending:
                done, pending = wait(pending, timeout=0.2, return_when=FIRST_EXCEPTION)
                finished += sum(future.result() for future in done)
                if progress:
                    progress(finished, given.samples)
        except BaseException:
            pool.shutdown(wait=False, cancel_futures=True)
            raise


def _run_chunk(prepared: Plan, given: Stimulus, recording: Recording, result: _Result, where: slice) -> None:
    program = prepared.program
    values = np.ascontiguousarray(to_inner(given.values, program.input.shape).swapaxes(0, 1))
    buffers = fresh_buffers(program, values, given.steps)
    _prepare_records(buffers, prepared, recording, given.steps)
    if prepared.stepwise:
        for step in range(given.steps):
            advance(prepared, buffers, step, 1)
    else:
        advance(prepared, buffers, 0, given.steps)
    _collect(prepared, buffers, recording, result, where)


def _prepare_records(buffers: Buffers, prepared: Plan, recording: Recording, steps: int) -> None:
    for stage in prepared.stages:
        name, samples = stage.population.name, buffers.u[stage.population.name].shape[0]
        buffers.tallies[name] = np.zeros((5, samples, steps), np.int64)
        if name in recording.state:
            buffers.u_record[name] = np.zeros((samples, steps, stage.population.size), np.int32)
            buffers.v_record[name] = np.zeros((samples, steps, stage.population.size), np.int32)


def advance(prepared: Plan, buffers: Buffers, first: int, count: int) -> None:
    """Run every population over the steps ``first`` to ``first + count``."""
    for stage in prepared.stages:
        _advance_stage(stage, buffers, first, count)


def _advance_stage(stage: Stage, buffers: Buffers, first: int, count: int) -> None:
    population, name = stage.population, stage.population.name
    total_steps = buffers.spikes[name].shape[1]
    samples = buffers.u[name].shape[0]
    sources = [buffers.spikes[block.source] for block in stage.blocks]
    constant = all(s.shape[1] == 1 < total_steps for s in sources) and all(b.lag == 0 for b in stage.blocks)
    rows = 1 if constant else count
    sums = np.zeros((samples, rows, population.size), np.int32)
    synops = np.zeros((samples, rows), np.int64)
    for block, source in zip(stage.blocks, sources, strict=True):
        whole = source if constant or source.shape[1] == total_steps else _repeat(source, total_steps)
        block.add(whole, 0 if constant else first, sums, synops)
    tally = buffers.tallies[name][:, :, first : first + count]
    tally[4] = synops
    keep_u, keep_v = _window(buffers.u_record, name, first, count), _window(buffers.v_record, name, first, count)
    neurons.scan_population(
        population, sums, constant, stage.bias, buffers.u[name], buffers.v[name], buffers.held[name],
        buffers.spikes[name], first, tally, keep_u, keep_v,
    )  # fmt: skip


def _repeat(source: Array, steps: int) -> Array:
    return np.ascontiguousarray(np.broadcast_to(source, (source.shape[0], steps, source.shape[2])))


def _window(records: dict[str, Array], name: str, first: int, count: int) -> Array:
    return records[name][:, first : first + count] if name in records else _NOTHING


def _collect(prepared: Plan, buffers: Buffers, recording: Recording, result: _Result, where: slice) -> None:
    program = prepared.program
    output = program.output
    answer = buffers.spikes[output.name].sum(axis=1, dtype=np.int64)
    result.counts[where] = to_outer(answer, output.shape).reshape(answer.shape)
    result.membranes[where] = to_outer(buffers.v[output.name], output.shape).reshape(answer.shape)
    for name, tally in buffers.tallies.items():
        result.tallies[name][:, where] = tally
    for name in recording.spikes:
        result.spikes[name][:, where] = to_outer(buffers.spikes[name].swapaxes(0, 1), program.node(name).shape)
    for name in recording.state:
        result.u[name][:, where] = to_outer(buffers.u_record[name].swapaxes(0, 1), program.node(name).shape)
        result.v[name][:, where] = to_outer(buffers.v_record[name].swapaxes(0, 1), program.node(name).shape)


def _run_continuous(prepared: Plan, given: Stimulus, recording: Recording) -> Trace:
    """All samples as one long one, then cut apart again."""
    program = prepared.program
    steps, samples = given.steps, given.samples
    joined = given.dense().swapaxes(0, 1).reshape(samples * steps, 1, -1)
    output = program.output
    state = recording.state if output.spiking else recording.state | {output.name}
    wanted = Recording(recording.spikes | {output.name}, state)
    result = _allocate(program, 1, samples * steps, wanted)
    _run_chunk(prepared, Stimulus(joined, samples * steps), wanted, result, slice(0, 1))

    def cut(record: Array) -> Array:
        parts: Array = record.reshape(samples, steps, *record.shape[2:]).swapaxes(0, 1)
        return parts

    result.tallies = {n: tally.reshape(5, samples, steps) for n, tally in result.tallies.items()}
    result.counts = cut(result.spikes[output.name]).reshape(steps, samples, -1).sum(axis=0, dtype=np.int64)
    if not output.spiking:
        result.membranes = cut(result.v[output.name])[-1].reshape(samples, -1).astype(np.int64)
    result.spikes = {name: cut(result.spikes[name]) for name in sorted(recording.spikes)}
    result.u = {name: cut(result.u[name]) for name in sorted(recording.state)}
    result.v = {name: cut(result.v[name]) for name in sorted(recording.state)}
    return _trace(program, given, result)


def _trace(program: Program, given: Stimulus, result: _Result) -> Trace:
    events = np.count_nonzero(given.values, axis=2).astype(np.int64)
    return Trace(
        backend="simulator",
        program=program.digest,
        output=program.output.name,
        counts=result.counts,
        input_events=np.ascontiguousarray(np.broadcast_to(events, (given.steps, given.samples))),
        counters={p.name: _counter(p.size, result.tallies[p.name]) for p in program.populations},
        spikes=result.spikes,
        u=result.u,
        v=result.v,
        membranes=None if program.output.spiking else result.membranes,
    )


def _counter(neurons: int, tally: Array) -> Counter:
    spikes, active, wraps, saturations, synops = (np.ascontiguousarray(part.T) for part in tally)
    return Counter(neurons, spikes, synops, active, wraps, saturations)
