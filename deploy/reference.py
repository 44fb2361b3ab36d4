"""The living definition: a slow, obvious interpreter of Programs in plain Python integers.

Nothing here is fast and nothing is clever. One sample at a time, one step at a time, one neuron at a time, with the
rules of :mod:`deploy.fixed_point`. Every other backend is right exactly when it agrees with this one.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt

from deploy import fixed_point as fp
from deploy.program import Conv, Dense, Input, Population, Program, Synapse
from deploy.spikes import Stimulus, stimulus
from deploy.trace import Counter, Trace


@dataclass
class _State:
    """One population while a sample runs: state now, and a record of every step."""

    u: list[int]
    v: list[int]
    held: list[int]  # steps each neuron's v is still held after its last spike
    spikes: list[list[int]] = field(default_factory=list)
    record_u: list[list[int]] = field(default_factory=list)
    record_v: list[list[int]] = field(default_factory=list)
    counts: list[dict[str, int]] = field(default_factory=list)


def run(
    program: Program, spikes: npt.ArrayLike, *, steps: int | None = None, reset_between_samples: bool = True
) -> Trace:
    """Run a program; records every population's spikes, u and v.

    Args:
        program: The network in integers.
        spikes: As in :func:`deploy.spikes.stimulus`.
        reset_between_samples: False carries u, v and spikes on their way from one sample to the next.

    Raises:
        SpikesError: the spikes do not fit the program's input.
    """
    given = stimulus(program, spikes, steps)
    wiring = {synapse.name: _by_source(program, synapse) for synapse in program.synapses}
    results: list[dict[str, _State]] = []
    for sample in range(given.samples):
        carried = results if results and not reset_between_samples else []
        results.append(_carry_over(carried[-1]) if carried else _fresh(program))
        _run_sample(program, wiring, given, sample, results if carried else results[-1:])
    return _trace(program, given, results)


def _fresh(program: Program) -> dict[str, _State]:
    return {p.name: _State([0] * p.size, [0] * p.size, [0] * p.size) for p in program.populations}


def _carry_over(states: dict[str, _State]) -> dict[str, _State]:
    return {name: _State(list(state.u), list(state.v), list(state.held)) for name, state in states.items()}


def _run_sample(
    program: Program, wiring: dict[str, Wiring], given: Stimulus, sample: int, states: list[dict[str, _State]]
) -> None:
    """Run the last of ``states``; those before it are samples whose spikes may still be on their way."""
    for step in range(given.steps):
        for population in program.populations:
            sums, synops = [0] * population.size, 0
            for synapse in program.incoming(population.name):
                sent = _sent(program, synapse, given, sample, step, states)
                block, events = synaptic_sum(wiring[synapse.name], sent, synapse.weight_exp, population.size)
                sums = [a + b for a, b in zip(sums, block, strict=True)]
                synops += events
            _update(population, states[-1][population.name], sums, synops)


def _sent(
    program: Program, synapse: Synapse, given: Stimulus, sample: int, step: int, states: list[dict[str, _State]]
) -> list[int]:
    """What a synapse's source sent ``delay`` steps ago: in this sample, or in an earlier one that is carried over."""
    source = program.node(synapse.source)
    back, when = divmod(step - synapse.delay, given.steps)  # back: 0 in this sample, -1 in the one before, ...
    if len(states) + back < 1:
        return [0] * source.size
    if isinstance(source, Input):
        return [int(x) for x in given.at(when)[sample + back]]
    return states[back - 1][source.name].spikes[when]


Wiring = dict[int, list[tuple[int, int]]]


def _by_source(program: Program, synapse: Synapse) -> Wiring:
    """For each source neuron its (target neuron, weight) pairs."""
    wiring: Wiring = {}
    for target, source, weight in connections(program, synapse):
        wiring.setdefault(source, []).append((target, weight))
    return wiring


def synaptic_sum(wiring: Wiring, sent: list[int], weight_exp: int, size: int) -> tuple[list[int], int]:
    """Sum of one synapse block for what its source sent, after ``weight_exp``, and the synaptic operations it took."""
    sums, synops = [0] * size, 0
    for i, value in enumerate(sent):
        if value != 0:
            for j, weight in wiring.get(i, ()):
                sums[j] += weight * value
                synops += 1
    return [fp.shift(a, weight_exp) for a in sums], synops


def connections(program: Program, synapse: Synapse) -> Iterator[tuple[int, int, int]]:
    """Every synapse with a nonzero weight, as (target neuron, source neuron, weight), both flattened row-major."""
    if isinstance(synapse, Dense):
        for j, row in enumerate(synapse.weights.tolist()):
            yield from ((j, i, weight) for i, weight in enumerate(row) if weight != 0)
    else:
        yield from _conv_connections(synapse, program.node(synapse.source).shape)


def _conv_connections(conv: Conv, source: tuple[int, ...]) -> Iterator[tuple[int, int, int]]:
    _, height, width = source
    channels, out_height, out_width = conv.output_shape(source)
    per_group, out_per_group = conv.weights.shape[1], channels // conv.groups
    for (o, c, ky, kx), weight in np.ndenumerate(conv.weights):
        channel = (o // out_per_group) * per_group + c
        for y in range(out_height if weight != 0 else 0):
            row = y * conv.stride[0] - conv.padding[0] + ky * conv.dilation[0]
            for x in range(out_width):
                column = x * conv.stride[1] - conv.padding[1] + kx * conv.dilation[1]
                if 0 <= row < height and 0 <= column < width:
                    yield (
                        (o * out_height + y) * out_width + x,
                        (channel * height + row) * width + column,
                        int(weight),
                    )


def _update(population: Population, state: _State, sums: list[int], synops: int) -> None:
    """One step of every neuron of a population."""
    counts = {"synops": synops, "spikes": 0, "active": 0, "wraps": 0, "saturations": 0}
    spikes = []
    for n, (a, bias) in enumerate(zip(sums, population.bias.tolist(), strict=True)):
        raw_u = fp.raw_current(state.u[n], a, population.du)
        u = fp.wrap_current(raw_u, fp.STATE_BITS)
        free = state.held[n] == 0
        raw_v = fp.raw_membrane(state.v[n], u, bias, population.dv) if free else state.v[n]
        v = fp.saturate(raw_v, fp.STATE_BITS)
        spike = 1 if population.spiking and free and v > population.vth << fp.ACTIVATION_SHIFT else 0
        counts["wraps"] += u != raw_u
        counts["saturations"] += v != raw_v
        counts["active"] += u != 0 or v != 0
        counts["spikes"] += spike
        state.u[n], state.v[n] = u, _after_spike(population, v) if spike else v
        state.held[n] = population.refractory if spike else max(state.held[n] - 1, 0)
        spikes.append(spike)
    state.spikes.append(spikes)
    state.record_u.append(list(state.u))
    state.record_v.append(list(state.v))
    state.counts.append(counts)


def _after_spike(population: Population, v: int) -> int:
    return 0 if population.reset == "zero" else v - (population.vth << fp.ACTIVATION_SHIFT)


def _trace(program: Program, given: Stimulus, results: list[dict[str, _State]]) -> Trace:
    def stacked(name: str, what: str, dtype: type[np.generic]) -> npt.NDArray[Any]:
        shape = program.node(name).shape
        values: npt.NDArray[Any] = np.array([getattr(states[name], what) for states in results], dtype=dtype)
        time_first: npt.NDArray[Any] = values.swapaxes(0, 1).reshape(given.steps, given.samples, *shape)
        return time_first

    names = [p.name for p in program.populations]
    spikes = {name: stacked(name, "spikes", np.uint8) for name in names}
    v = {name: stacked(name, "record_v", np.int32) for name in names}
    last = v[program.output.name][-1].reshape(given.samples, -1).astype(np.int64)
    return Trace(
        backend="reference",
        program=program.digest,
        output=program.output.name,
        counts=spikes[program.output.name].reshape(given.steps, given.samples, -1).sum(axis=0, dtype=np.int64),
        input_events=np.count_nonzero(given.dense(), axis=2).astype(np.int64),
        counters={p.name: _counter(p, [states[p.name] for states in results]) for p in program.populations},
        spikes=spikes,
        u={name: stacked(name, "record_u", np.int32) for name in names},
        v=v,
        membranes=None if program.output.spiking else last,
        population=program.population,
    )


def _counter(population: Population, states: list[_State]) -> Counter:
    def counted(what: str) -> npt.NDArray[np.int64]:
        per_sample = np.array([[step[what] for step in state.counts] for state in states], dtype=np.int64)
        return np.ascontiguousarray(per_sample.T)

    kinds = ("spikes", "synops", "active", "wraps", "saturations")
    return Counter(population.size, *(counted(kind) for kind in kinds))
