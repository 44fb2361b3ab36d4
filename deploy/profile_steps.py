"""How long every step of a pipelined run lasts, and what each core does in it.

Work is added up block after block of samples: a run of 10,000 samples and 16 steps has 1.3 MB an array, and what a new
one of that size costs is mostly its page faults.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from deploy.chip import Chip
from deploy.placement import Core, Route
from deploy.profile_activity import Activity, Amounts, Shared
from deploy.profile_model import constant, conv_share

#: Times of a block, float64: a core's neuron phase, its message phase and a product stay in a second-level cache.
_BLOCK: Final = 2**14


@dataclass(frozen=True, eq=False)
class CoreEvents:
    """What one core does, mean a sample: counts, and its own time in ns without waiting for others.

    Attributes:
        exact: Whether the counts are of this core, or a layer's totals shared out.
    """

    number: int
    layers: tuple[str, ...]
    neurons: int
    spikes: float
    synops: float
    active: float
    sent: float
    received: float
    busy: float
    exact: bool = False

    def to_json(self) -> dict[str, Any]:
        """The core as plain data."""
        return {**vars(self), "layers": list(self.layers)}


@dataclass(frozen=True, eq=False)
class Steps:
    """Time of every step of a pipelined sample.

    Attributes:
        work: Of the slowest core, ns, float64 ``[T + depth, B]``, without the barrier.
        slowest: Of how many of these steps each core was the slowest, int64, as ``placement.cores``.
        cores: What each core does.
    """

    work: Amounts
    slowest: npt.NDArray[np.int64]
    cores: tuple[CoreEvents, ...]


@dataclass(frozen=True, eq=False)
class _Work:
    """One kind of event on a core: what of it there is, how long one takes, when and in which phase."""

    kind: str
    what: Shared
    nanoseconds: float
    first: int
    messages: bool


def step_times(activity: Activity, chip: Chip) -> Steps:
    """Time of each step: the core with most to do, by the chip's schedule.

    ``summed``: a core updates its neurons and then works off what arrives, so its step is the sum of both.
    ``overlapped``: both go on side by side on different units; a step lasts as long as the longer of the longest neuron
    phase and the longest message phase of any core. Messages are worked off in the step they are sent in, one step
    before the neurons they go to see them.
    """
    placed = activity.placement.cores
    overlapped = chip.time["schedule"].value == "overlapped"
    received = _received(activity)
    works = [tuple(_works(core, activity, chip, received, int(overlapped))) for core in placed]
    idle = [sum(part.size for part in core.parts) * _nanoseconds(chip, "neuron_inactive") for core in placed]
    length = activity.trace.steps + max(activity.program.depth.values())
    slowest, busy = np.empty((length, activity.trace.samples)), np.zeros(len(placed))
    counts = np.zeros(len(placed), dtype=np.int64)
    size = max(1, _BLOCK // length)
    for start in range(0, activity.trace.samples, size):
        block = slice(start, start + size)
        counts += _block(works, idle, block, slowest[:, block], busy, overlapped)
    found = (
        _core(core, mine, activity, float(time) / activity.trace.samples)
        for core, mine, time in zip(placed, works, busy, strict=True)
    )
    return Steps(slowest, counts, tuple(found))


def _block(
    works: list[tuple[_Work, ...]], idle: list[float], block: slice, slowest: Amounts, busy: Amounts, overlapped: bool
) -> npt.NDArray[np.int64]:
    """Fill the times of a block of samples, ``[T + depth, b]``, and add each core's own to ``busy``; gives how often
    each core was the slowest."""
    where = np.zeros(slowest.shape, dtype=np.intp)
    neurons, messages, product = np.empty(slowest.shape), np.empty(slowest.shape), np.empty(slowest.shape)
    phases = (neurons, messages) if overlapped else (neurons,)
    for place, (mine, least) in enumerate(zip(works, idle, strict=True)):
        neurons[:], messages[:] = least, 0.0
        for work in mine:
            if work.nanoseconds:
                events = work.what.events[:, block]
                into = messages if work.messages and overlapped else neurons
                scaled = np.multiply(events, work.nanoseconds * work.what.share, out=product[: len(events)])
                into[work.first : work.first + len(events)] += scaled
        for number, phase in enumerate(phases):
            busy[place] += phase.sum()
            if place == number == 0:
                slowest[:] = phase
                continue
            np.copyto(where, place, where=phase > slowest)
            np.maximum(slowest, phase, out=slowest)
    return np.bincount(where.reshape(-1), minlength=len(works))


def _received(activity: Activity) -> dict[tuple[int, str], list[Route]]:
    found: dict[tuple[int, str], list[Route]] = {}
    for route in activity.placement.routes:
        found.setdefault((route.target_core, route.target), []).append(route)
    return found


def _works(
    core: Core, activity: Activity, chip: Chip, received: dict[tuple[int, str], list[Route]], ahead: int
) -> Iterator[_Work]:
    """What a core does beyond idle updates; messages ``ahead`` steps before the neurons they go to."""
    update = _nanoseconds(chip, "neuron_active") - _nanoseconds(chip, "neuron_inactive")
    for part in core.parts:
        depth = activity.program.depth[part.layer]
        shared = conv_share(activity.program, part.layer)
        synop = (1.0 - shared) * _nanoseconds(chip, "synop") + shared * _nanoseconds(chip, "synop_conv")
        generate = _nanoseconds(chip, "spike_generate")
        yield _Work("spikes", activity.spikes(core, part), generate, depth, False)
        yield _Work("active", activity.active(core, part), update, depth, False)
        yield _Work("synops", activity.synops(core, part), synop, depth - ahead, True)
        for route in received.get((core.number, part.layer), ()):
            yield _Work("received", activity.messages(route), _nanoseconds(chip, "axon_in"), depth - ahead, True)
        for route in activity.placement.routes:
            if (route.source, route.source_core) == (part.layer, core.number):
                yield _Work("sent", activity.messages(route), _nanoseconds(chip, "axon_out"), depth, False)


def _core(core: Core, works: tuple[_Work, ...], activity: Activity, busy: float) -> CoreEvents:
    totals = dict.fromkeys(("spikes", "synops", "active", "sent", "received"), 0.0)
    for work in works:
        totals[work.kind] += work.what.mean()
    neurons = sum(part.size for part in core.parts)
    return CoreEvents(core.number, core.layers, neurons, busy=busy, exact=activity.exact, **totals)


def _nanoseconds(chip: Chip, event: str) -> float:
    """Time of an event; none where the chip publishes none."""
    return constant(chip.time, event) or 0.0
