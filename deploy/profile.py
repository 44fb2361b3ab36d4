"""Profile: what a run cost. Counts come from the bit-exact simulation, energy and time from a chip's cited constants.

Every figure says whether it is ``counted`` or ``modelled`` and where its constant stands. What the model leaves out is
listed in ``Profile.ignored``, not hidden in a total.
"""

from __future__ import annotations

from typing import Final

import numpy as np
import numpy.typing as npt

from deploy.chip import Chip, load_chip
from deploy.chip_schema import Section
from deploy.errors import ProgramError, SimulatorError
from deploy.place import place
from deploy.placement import Placement
from deploy.profile_activity import Activity, Amounts
from deploy.profile_model import (
    ESSENTIAL,
    EVENTS,
    LayerEvents,
    barrier_time,
    constant,
    layer_events,
    layer_steps,
)
from deploy.profile_steps import step_times
from deploy.profile_types import EventEnergy, Figure, Kind, LayerProfile, Profile, figure, no_figure
from deploy.program import Program
from deploy.spikes import stimulus
from deploy.trace import Trace

__all__ = ["EventEnergy", "Figure", "LayerProfile", "Profile", "profile"]

SYNOPS: Final = ("synop", "synop_conv")
PICO: Final = 1e-12
NANO: Final = 1e-9


def profile(
    program: Program,
    trace: Trace,
    chip: Chip | str = "loihi1",
    placement: Placement | None = None,
    *,
    spikes: npt.ArrayLike | None = None,
    static: bool = False,
) -> Profile:
    """Count what a run did and model what it costs on a chip.

    Args:
        program: The program that ran.
        trace: Its run, with counters (the simulator's or the reference's).
        chip: Whose constants to use. A chip that publishes none (Loihi 2) still gives every count.
        placement: Where the program lives; by default it is placed on ``chip``.
        spikes: The input of the run. With it, and with ``record="all"`` in the run, what each core does in each step is
            counted; without, a layer's exact totals are shared out over its cores.
        static: Also give the chip's static power times the latency, as a figure of its own.

    Raises:
        ProgramError: the run or the placement belongs to another program.
        SimulatorError: the run has no samples, or no counters.
        RuleError: no placement was given and the program does not fit the chip.
        ChipError: the chip is unknown, or static power is asked for and not published.
    """
    chip = load_chip(chip) if isinstance(chip, str) else chip
    _check_run(program, trace)
    placement = place(program, chip) if placement is None else placement
    if placement.program != program.digest:
        raise ProgramError(
            "the placement is of another program",
            got=placement.program[:12],
            allowed=program.digest[:12],
            next_step="place the program that ran",
        )
    given = None if spikes is None else stimulus(program, spikes, trace.steps)
    activity = Activity(program, trace, placement, given)
    events = layer_events(activity)
    times = step_times(activity, chip)
    latency, step = _latency(chip, placement, times.work)
    layers = tuple(_layer(part, trace, placement, chip) for part in events)
    return Profile(
        chip=chip.name,
        chip_title=chip.title,
        placed_on=placement.chip,
        program=program.digest,
        samples=trace.samples,
        steps=trace.steps,
        pipeline=len(times.work),
        layers=layers,
        events=tuple(_event(name, events, chip) for name in EVENTS if _happens(name, events)),
        spikes=figure(_total(events, ("spike_generate",)), "spikes", "counted", _counted_by(trace)),
        synops=figure(_total(events, SYNOPS), "synops", "counted", _counted_by(trace)),
        energy=_energy(events, chip),
        latency=latency,
        step=step,
        static=_static(chip, latency) if static else None,
        slowest=_slowest(placement, times.slowest) if latency.mean is not None else (),
        ignored=_ignored(program, chip, placement, events, static),
        cores=times.cores,
        by_step={"layers": layer_steps(activity), "time_ns": times.work.mean(axis=1).tolist()},
    )


def _check_run(program: Program, trace: Trace) -> None:
    if trace.program != program.digest:
        raise ProgramError(
            "the run is of another program",
            got=trace.program[:12],
            allowed=program.digest[:12],
            next_step="run the program again",
        )
    missing = [p.name for p in program.populations if p.name not in trace.counters]
    if missing or trace.samples == 0:
        raise SimulatorError(
            "the run has nothing to profile",
            where=f"{trace.backend} run",
            got=f"{trace.samples} samples, counters missing for: {', '.join(missing) or 'none'}",
            allowed="at least one sample, and a counter for every population",
            next_step="profile a run of the simulator: deploy.run(program, spikes)",
        )


def _counted_by(trace: Trace) -> str:
    return f"{trace.backend} run"


def _total(events: tuple[LayerEvents, ...], kinds: tuple[str, ...]) -> Amounts:
    """Events of some kinds over some layers, ``[B]``."""
    parts = [part.amounts[kind] for part in events for kind in kinds if kind in part.amounts]
    return sum(parts[1:], parts[0]) if parts else np.zeros(1)


def _happens(event: str, events: tuple[LayerEvents, ...]) -> bool:
    """Whether an event is worth a row: a convolution's operations only where there is a convolution."""
    return event != "synop_conv" or bool(_total(events, (event,)).any())


def _event(event: str, events: tuple[LayerEvents, ...], chip: Chip) -> EventEnergy:
    count = float(_total(events, (event,)).mean())
    price = constant(chip.energy, event)
    quantity = chip.energy["synop" if price is not None and chip.energy[event].value is None else event]
    return EventEnergy(
        event=event,
        count=count,
        kind="counted" if _exact(event, events) else "modelled",
        picojoule=price,
        energy=None if price is None else count * price * PICO,
        source=quantity.source if quantity.published else quantity.note,
        grade=quantity.grade,
    )


def _exact(event: str, events: tuple[LayerEvents, ...]) -> bool:
    return all(event in part.exact for part in events if event in part.amounts)


def _layer(part: LayerEvents, trace: Trace, placement: Placement, chip: Chip) -> LayerProfile:
    def counted(samples: Amounts, unit: str, how: str = "") -> Figure:
        return figure(samples, unit, "counted", _counted_by(trace) + how)

    counter = trace.counters.get(part.layer)
    sent = trace.input_events.sum(axis=0) if counter is None else part.amounts["spike_generate"]
    messages: Kind = "counted" if "axon_in" in part.exact else "modelled"
    return LayerProfile(
        name=part.layer,
        neurons=0 if counter is None else counter.neurons,
        cores=len(placement.of(part.layer)),
        spikes=counted(sent.astype(np.float64), "spikes"),
        synops=counted(_or_zero(part, SYNOPS, trace), "synops"),
        active=counted(_or_zero(part, ("neuron_active",), trace), "updates", ": u or v not zero after the update"),
        inactive=counted(_or_zero(part, ("neuron_inactive",), trace), "updates", ": u and v zero after the update"),
        messages=figure(part.amounts["axon_in"], "messages", messages, "spikes × cores each neuron sends to"),
        energy=_energy((part,), chip),
    )


def _or_zero(part: LayerEvents, kinds: tuple[str, ...], trace: Trace) -> Amounts:
    return _total((part,), kinds) + np.zeros(trace.samples)


def _energy(events: tuple[LayerEvents, ...], chip: Chip) -> Figure:
    """Dynamic energy of some layers in J a sample."""
    absent = [name for name in ESSENTIAL if chip.energy[name].value is None]
    if absent:
        return no_figure("J", f"{chip.title}: {chip.energy[absent[0]].note}")
    prices = {event: constant(chip.energy, event) for event in EVENTS}
    priced = ((part.amounts[event], price) for event, price in prices.items() if price for part in events
              if event in part.amounts)  # fmt: skip
    joule = sum((amounts * price for amounts, price in priced), np.zeros(1))
    return figure(joule * PICO, "J", "modelled", _sources(chip.energy, chip))


def _sources(section: Section, chip: Chip) -> str:
    """The sources of the essential constants, with their grades."""
    grades: dict[str, list[str]] = {}
    for quantity in (section[name] for name in ESSENTIAL):
        known = grades.setdefault(quantity.source, [])
        known += [quantity.grade] if quantity.grade not in known else []
    cited = "; ".join(f"{source} ({', '.join(known)})" for source, known in grades.items())
    return f"{chip.title}: {cited}"


def _latency(chip: Chip, placement: Placement, work: Amounts) -> tuple[Figure, Figure]:
    """Latency of a sample and time of a step, in s."""
    absent = [name for name in ESSENTIAL if chip.time[name].value is None]
    if absent:
        reason = f"{chip.title}: {chip.time[absent[0]].note}"
        return no_figure("s", reason), no_figure("s", reason)
    barrier = barrier_time(chip, placement.tiles) or 0.0
    source = _sources(chip.time, chip)
    whole = figure((work.sum(axis=0) + len(work) * barrier) * NANO, "s", "modelled", source)
    return whole, figure(work.reshape(-1), "s", "modelled", source, offset=barrier, factor=NANO)


def _static(chip: Chip, latency: Figure) -> Figure:
    """Static power of one chip times the latency, in J; refused where the chip does not publish it."""
    watt = chip.power.static * 1e-3
    if latency.mean is None:
        return no_figure("J", latency.source)
    mean, p5, p50, p95 = (None if x is None else x * watt for x in (latency.mean, latency.p5, latency.p50, latency.p95))
    quantity = chip.power["static"]
    half = None if latency.ci95 is None else latency.ci95 * watt
    return Figure(mean, p5, p50, p95, "J", "modelled", f"{quantity.source} ({quantity.grade}) × latency", half)


def _slowest(placement: Placement, counts: npt.NDArray[np.int64]) -> tuple[tuple[str, float], ...]:
    shares: dict[str, float] = {}
    for core, count in zip(placement.cores, counts, strict=True):
        name = " + ".join(core.layers)
        shares[name] = shares.get(name, 0.0) + float(count) / float(counts.sum())
    return tuple(shares.items())


def _ignored(
    program: Program, chip: Chip, placement: Placement, events: tuple[LayerEvents, ...], static: bool
) -> tuple[str, ...]:
    """What the figures leave out, in sentences."""
    lines = [
        "Host and input/output: getting images onto the chip and answers off it, on real boards often the larger part.",
        "Flight time and congestion of messages between cores; only their handling on the cores takes time.",
    ]
    if not static:
        lines.append("Static power, and the chip's embedded processors.")
    unpublished = [name for name in EVENTS if constant(chip.energy, name) is None and _total(events, (name,)).any()]
    if unpublished and chip.energy["synop"].published:
        lines.append(f"Energy of {', '.join(EVENTS[name] for name in unpublished)}: not published for {chip.title}.")
    if barrier_time(chip, placement.tiles) is None:
        lines.append("The barrier that ends each step: not published.")
    if program.input.bits > 1:
        lines.append("The payload of graded input spikes: each is taken to cost what a plain spike costs.")
    if placement.chip != chip.name:
        lines.append(
            f"Differences between {placement.chip}, where the program is placed, and {chip.name}, the constants' chip."
        )
    return tuple(lines)
