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
from deploy.placement import Placement, Route
from deploy.profile_activity import Activity, Amounts
from deploy.program import Conv, Program

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


def layer_events(activity: Activity) -> tuple[LayerEvents, ...]:
    """What each layer does: the input first, then the populations in program order."""
    name = activity.program.input.name
    entering = LayerEvents(name, _messages(name, activity), _exact_messages(name, activity))
    return entering, *(_population_events(activity, p.name) for p in activity.program.populations)


def _population_events(activity: Activity, layer: str) -> LayerEvents:
    counter = activity.trace.counters[layer]
    shared = conv_share(activity.program, layer)
    synops, active, spikes = (part.sum(axis=0) for part in (counter.synops, counter.active, counter.spikes))
    amounts = {
        "synop": _times(synops, 1.0 - shared),
        "synop_conv": _times(synops, shared),
        "neuron_active": _times(active, 1.0),
        "neuron_inactive": _times(counter.neurons * activity.trace.steps - active, 1.0),
        "spike_generate": _times(spikes, 1.0),
        **_messages(layer, activity),
    }
    counted = {"neuron_active", "neuron_inactive", "spike_generate"}
    if shared in (0.0, 1.0):
        counted |= {"synop", "synop_conv"}
    return LayerEvents(layer, amounts, frozenset(counted) | _exact_messages(layer, activity))


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


def _messages(layer: str, activity: Activity) -> dict[str, Amounts]:
    """Message traffic a layer's spikes cause, ``[B]``; from the mean number of cores a neuron has, if not recorded."""
    kinds = ("axon_out", "axon_in", "spike_within_tile", "hop_east_west", "hop_north_south")
    amounts = {kind: np.zeros(activity.trace.samples) for kind in kinds}
    counter = activity.trace.counters.get(layer)
    sent = activity.trace.input_events if counter is None else counter.spikes
    whole = None if activity.exact else sent.sum(axis=0) / activity.program.node(layer).size
    for route in activity.placement.routes:
        if route.source != layer:
            continue
        messages = activity.messages(route).by_sample() if whole is None else whole * route.axons
        east_west, north_south = _hops(route, activity.placement)
        if route.source_core is not None:
            amounts["axon_out"] += messages
        amounts["axon_in"] += messages
        amounts["spike_within_tile"] += messages
        amounts["hop_east_west"] += messages * east_west
        amounts["hop_north_south"] += messages * north_south
    return amounts


def _hops(route: Route, placement: Placement) -> tuple[int, int]:
    """Hops of a route; the input enters at its destination, as where a host feeds the mesh is not modelled."""
    return (0, 0) if route.source_core is None else placement.hops(route.source_core, route.target_core)


def _exact_messages(layer: str, activity: Activity) -> frozenset[str]:
    """Message counts are exact when recorded, or when every neuron of the layer sends to every destination core."""
    routes = [route for route in activity.placement.routes if route.source == layer]
    same = frozenset({"axon_out", "axon_in", "spike_within_tile"})
    hops = frozenset({"hop_east_west", "hop_north_south"})
    if activity.exact:
        return same | hops
    if not all(route.share == 1.0 for route in routes):
        return frozenset()
    alone = len({route.source_core for route in routes}) <= 1
    return same | hops if alone else same


def layer_steps(activity: Activity) -> dict[str, dict[str, list[float]]]:
    """Mean spikes, synaptic operations and active updates of each layer in each of its steps, counted."""
    trace = activity.trace
    found = {activity.program.input.name: {"spikes": _by_step(trace.input_events)}}
    for name, counter in trace.counters.items():
        kinds = {"spikes": counter.spikes, "synops": counter.synops, "active": counter.active}
        found[name] = {kind: _by_step(array) for kind, array in kinds.items()}
    return found


def _by_step(counts: npt.NDArray[np.int64]) -> list[float]:
    found: list[float] = (counts.sum(axis=1) / counts.shape[1]).tolist()  # of integers a quarter of mean's time
    return found


def step_energy(activity: Activity, chip: Chip) -> Amounts:
    """Dynamic energy of every step of every sample in pJ, ``[T, B]``: a layer's step, not a pipelined one."""
    trace, program = activity.trace, activity.program
    total = np.zeros((trace.steps, trace.samples))
    events = {part.layer: part.amounts for part in layer_events(activity)}

    def cost(event: str) -> float:
        return constant(chip.energy, event) or 0.0

    for name in (program.input.name, *trace.counters):
        counter = trace.counters.get(name)
        sent = trace.input_events if counter is None else counter.spikes
        messages = sum(
            float(events[name][kind].sum()) * cost(kind)
            for kind in ("axon_out", "axon_in", "spike_within_tile", "hop_east_west", "hop_north_south")
        )
        each = messages / max(1, int(sent.sum())) + (cost("spike_generate") if counter is not None else 0.0)
        total += sent * each
        if counter is not None:
            shared = conv_share(program, name)
            total += counter.synops * ((1 - shared) * cost("synop") + shared * cost("synop_conv"))
            total += counter.active * (cost("neuron_active") - cost("neuron_inactive"))
            total += counter.neurons * cost("neuron_inactive")
    return total


def barrier_time(chip: Chip, tiles: int | None) -> float | None:
    """Time of the barrier in ns for a number of tiles; ``None`` when the chip gives none or no mesh is known."""
    points = chip.time["barrier"].value
    if points is None or tiles is None:
        return None
    return float(np.interp(tiles, [x for x, _ in points], [y for _, y in points]))
