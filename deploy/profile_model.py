"""The energy and time model: exact event counts of a run, times a chip's constants, core by core.

Energy of a sample, in pJ, is a sum over kinds of event (:data:`EVENTS`) of count times constant. The time of a step is
that of the core with most to do, plus the barrier that ends the step:

    core = synops·t + active·t + inactive·t + spikes·t + messages out·t + messages in·t

A neuron's update is active when its current or membrane is not zero after it (before the reset), and idle otherwise;
every neuron is updated once a step. A message pays one delivery inside a tile and its hops, column first.

A run is pipelined: the layer at depth d does step t's work d steps later and idles before and after, so a sample lasts
T + depth steps. Counts are per layer; a layer on several cores has them divided by its connections (synaptic
operations) and by its neurons (everything else) there.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from deploy.chip import Chip
from deploy.chip_schema import Section
from deploy.placement import Core, Placement, Route
from deploy.program import Conv, Program
from deploy.trace import Trace

Amounts = npt.NDArray[np.float64]

#: Kind of event, and how a table calls it.
EVENTS: Final = {
    "synop": "synaptic operations",
    "synop_conv": "synaptic operations (convolution)",
    "neuron_active": "active neuron updates",
    "neuron_inactive": "idle neuron updates",
    "spike_generate": "spikes generated",
    "axon_out": "spike messages sent",
    "axon_in": "spike messages received",
    "spike_within_tile": "deliveries inside a tile",
    "hop_east_west": "hops east-west",
    "hop_north_south": "hops north-south",
}
#: Without these no total is given; the others are left out, and said so, where a chip does not publish them.
ESSENTIAL: Final = ("synop", "neuron_active", "neuron_inactive")


@dataclass(frozen=True, eq=False)
class LayerEvents:
    """Events a layer causes in each sample, float64 ``[B]`` by kind; ``exact`` names the kinds that are counted."""

    layer: str
    amounts: dict[str, Amounts]
    exact: frozenset[str]


def constant(section: Section, event: str) -> float | None:
    """The chip's constant of an event; a convolution's operation costs what another does where it has no own figure."""
    value: float | None = section[event].value
    if event == "synop_conv" and value is None:
        value = section["synop"].value
    return value


def layer_events(program: Program, trace: Trace, placement: Placement) -> tuple[LayerEvents, ...]:
    """What each layer does: the input first, then the populations in program order."""
    entering = LayerEvents(
        program.input.name,
        _messages(program.input.name, trace.input_events.sum(axis=0), program.input.size, placement),
        _exact_messages(program.input.name, placement),
    )
    return entering, *(_population_events(program, trace, placement, p.name) for p in program.populations)


def _population_events(program: Program, trace: Trace, placement: Placement, layer: str) -> LayerEvents:
    counter = trace.counters[layer]
    shared = conv_share(program, layer)
    synops, active, spikes = (part.sum(axis=0) for part in (counter.synops, counter.active, counter.spikes))
    amounts = {
        "synop": _times(synops, 1.0 - shared),
        "synop_conv": _times(synops, shared),
        "neuron_active": _times(active, 1.0),
        "neuron_inactive": _times(counter.neurons * trace.steps - active, 1.0),
        "spike_generate": _times(spikes, 1.0),
        **_messages(layer, spikes, counter.neurons, placement),
    }
    counted = {"neuron_active", "neuron_inactive", "spike_generate"}
    if shared in (0.0, 1.0):
        counted |= {"synop", "synop_conv"}
    return LayerEvents(layer, amounts, frozenset(counted) | _exact_messages(layer, placement))


def conv_share(program: Program, layer: str) -> float:
    """Share of a layer's stored weights that are convolutions': 0 or 1 unless it has blocks of both kinds."""
    blocks = program.incoming(layer)
    convolutions = [isinstance(block, Conv) for block in blocks]
    if all(convolutions) or not any(convolutions):
        return float(all(convolutions))
    sizes = [np.count_nonzero(block.weights) for block in blocks]
    return float(sum(n for n, conv in zip(sizes, convolutions, strict=True) if conv) / max(1, sum(sizes)))


def _times(amounts: npt.NDArray[Any], factor: float) -> Amounts:
    return np.asarray(amounts * factor, dtype=np.float64)


def _messages(layer: str, sent: npt.NDArray[np.int64], neurons: int, placement: Placement) -> dict[str, Amounts]:
    """Message traffic a layer's spikes cause, from the mean number of cores a neuron of it sends to."""
    routes = [route for route in placement.routes if route.source == layer]
    inside = sum(route.axons for route in routes) / neurons
    crossing = [(route.axons / neurons, _hops(route, placement)) for route in routes]
    east_west = sum(share * hops[0] for share, hops in crossing)
    north_south = sum(share * hops[1] for share, hops in crossing)
    leaves_a_core = any(route.source_core is not None for route in routes)
    return {
        "axon_out": _times(sent, inside if leaves_a_core else 0.0),
        "axon_in": _times(sent, inside),
        "spike_within_tile": _times(sent, inside),
        "hop_east_west": _times(sent, east_west),
        "hop_north_south": _times(sent, north_south),
    }


def _hops(route: Route, placement: Placement) -> tuple[int, int]:
    """Hops of a route; the input enters at its destination, as where a host feeds the mesh is not modelled."""
    return (0, 0) if route.source_core is None else placement.hops(route.source_core, route.target_core)


def _exact_messages(layer: str, placement: Placement) -> frozenset[str]:
    """Message counts are exact when every neuron of the layer sends to every destination core."""
    routes = [route for route in placement.routes if route.source == layer]
    alone = len({route.source_core for route in routes}) <= 1
    if not all(route.share == 1.0 for route in routes):
        return frozenset()
    same = frozenset({"axon_out", "axon_in", "spike_within_tile"})
    return same | {"hop_east_west", "hop_north_south"} if alone else same


def step_times(
    program: Program, trace: Trace, placement: Placement, chip: Chip
) -> tuple[Amounts, npt.NDArray[np.int64]]:
    """Work of the slowest core in each step of a pipelined sample.

    Returns:
        Time in ns, float64 ``[T + depth, B]``, and the number of the slowest core, int64 of the same shape.
    """
    longest = max(program.depth.values())
    shape = (trace.steps + longest, trace.samples)
    slowest, where = np.zeros(shape), np.zeros(shape, dtype=np.int64)
    work = np.empty(shape)
    for core in placement.cores:
        depth = program.depth[core.part.layer]
        work.fill(core.part.size * _nanoseconds(chip, "neuron_inactive"))
        work[depth : depth + trace.steps] += _beyond_idle(core, program, trace, placement, chip)
        np.copyto(where, core.number, where=work > slowest)
        np.maximum(slowest, work, out=slowest)
    return slowest, where


def _beyond_idle(core: Core, program: Program, trace: Trace, placement: Placement, chip: Chip) -> Amounts:
    """What a core does at each step of its layer beyond updating idle neurons, ns ``[T, B]``."""
    layer = core.part.layer
    counter = trace.counters[layer]
    synapses = sum(other.synapses for other in placement.of(layer))
    shared = conv_share(program, layer)
    synop = (1.0 - shared) * _nanoseconds(chip, "synop") + shared * _nanoseconds(chip, "synop_conv")
    update = _nanoseconds(chip, "neuron_active") - _nanoseconds(chip, "neuron_inactive")
    sent = sum(route.axons for route in placement.routes if route.source_core == core.number)
    spike = core.part.size * _nanoseconds(chip, "spike_generate") + sent * _nanoseconds(chip, "axon_out")
    busy = _times(counter.synops, synop * core.synapses / max(1, synapses))
    busy += _times(counter.active, update * core.part.size / counter.neurons)
    if spike:
        busy += _times(counter.spikes, spike / counter.neurons)
    received = _nanoseconds(chip, "axon_in")
    for route in placement.routes if received else ():
        if route.target_core == core.number:
            busy += _times(_sent(route, trace), received * route.axons / program.node(route.source).size)
    return busy


def _nanoseconds(chip: Chip, event: str) -> float:
    """Time of an event; none where the chip publishes none."""
    return constant(chip.time, event) or 0.0


def _sent(route: Route, trace: Trace) -> npt.NDArray[np.int64]:
    """Spikes of the layer or input a route comes from, ``[T, B]``."""
    counter = trace.counters.get(route.source)
    return trace.input_events if counter is None else counter.spikes


def barrier_time(chip: Chip, tiles: int | None) -> float | None:
    """Time of the barrier in ns for a number of tiles; ``None`` when the chip gives none or no mesh is known."""
    points = chip.time["barrier"].value
    if points is None or tiles is None:
        return None
    return float(np.interp(tiles, [x for x, _ in points], [y for _, y in points]))
