"""The profile of a run as a value: figures that say whether they are counted or modelled, and where from."""

from __future__ import annotations

import csv
import html
import io
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from deploy.files import atomic_path
from deploy.placement import aligned
from deploy.profile_model import EVENTS
from deploy.profile_steps import CoreEvents

Kind = Literal["counted", "modelled"]


@dataclass(frozen=True)
class Figure:
    """One figure per sample.

    Attributes:
        mean, p5, p50, p95: Mean and percentiles over the samples; ``None`` when it cannot be given.
        unit: Its unit.
        kind: ``counted`` in the simulation, or ``modelled`` with constants.
        source: Where the count or the constants come from; for ``None``, why there is no figure.
        ci95: Half width of the mean's 95 % confidence interval over samples; ``None`` for a single one.
    """

    mean: float | None
    p5: float | None
    p50: float | None
    p95: float | None
    unit: str
    kind: Kind
    source: str
    ci95: float | None = None

    def to_json(self) -> dict[str, Any]:
        """The figure as plain data."""
        return dict(vars(self))


def figure(
    samples: npt.NDArray[np.float64], unit: str, kind: Kind, source: str, *, offset: float = 0.0, factor: float = 1.0
) -> Figure:
    """Mean, percentiles and confidence interval of one value a sample, ``(x + offset) * factor`` of each, ``[B]``."""
    count = len(samples)
    mean = float(samples.mean())
    p5, p50, p95 = _percentiles(samples, (0.05, 0.5, 0.95))
    spread = samples - mean
    half = None if count < 2 else abs(factor) * 1.96 * float(np.sqrt(spread @ spread / (count - 1) / count))
    moved = [(x + offset) * factor for x in (mean, p5, p50, p95)]
    return Figure(moved[0], moved[1], moved[2], moved[3], unit, kind, source, half)


def _percentiles(samples: npt.NDArray[np.float64], shares: tuple[float, ...]) -> list[float]:
    """Percentiles by straight lines between the two nearest samples, as ``numpy.percentile`` has them."""
    last = len(samples) - 1
    ordered = np.sort(samples)  # vectorised in numpy: of 10,000 samples 0.04 to 0.11 ms, np.partition 0.13 to 0.19
    found = []
    for share in shares:
        low = int(share * last)
        a, b = float(ordered[low]), float(ordered[min(low + 1, last)])
        found.append(a + (b - a) * (share * last - low))
    return found


def no_figure(unit: str, reason: str) -> Figure:
    """A modelled figure that cannot be given, and why."""
    return Figure(None, None, None, None, unit, "modelled", reason)


@dataclass(frozen=True)
class EventEnergy:
    """One kind of event over the whole network, per sample.

    Attributes:
        event: Key of the chip file's ``[energy]``.
        count: Mean number a sample, and its ``kind``.
        picojoule: Energy of one; ``None`` when unpublished: then it is in no total.
        energy: Mean energy a sample in J.
        source, grade: Where the constant stands and how it is known; for an unpublished one, what is known instead.
    """

    event: str
    count: float
    kind: Kind
    picojoule: float | None
    energy: float | None
    source: str
    grade: str

    def to_json(self) -> dict[str, Any]:
        """The event as plain data, with its name for people."""
        return {**vars(self), "label": EVENTS[self.event]}


@dataclass(frozen=True)
class LayerProfile:
    """One layer (or the input), per sample.

    Attributes:
        name: Its name; the input has no neurons and no cores.
        cores: Cores it has.
        spikes, synops, active, inactive: Counted; synops are those at its own synapses.
        messages: Spike messages it sends to cores.
        energy: Dynamic energy it causes.
    """

    name: str
    neurons: int
    cores: int
    spikes: Figure
    synops: Figure
    active: Figure
    inactive: Figure
    messages: Figure
    energy: Figure

    def to_json(self) -> dict[str, Any]:
        """The layer as plain data."""
        figures = {key: value.to_json() for key, value in vars(self).items() if isinstance(value, Figure)}
        return {"name": self.name, "neurons": self.neurons, "cores": self.cores, **figures}


@dataclass(frozen=True)
class Profile:
    """What inference on a chip costs, per sample.

    Attributes:
        chip: Name of the chip whose constants are used; ``chip_title`` its name for people.
        placed_on: Name of the chip the program is placed on.
        program: Digest of the program.
        samples, steps: Samples of the run and steps each lasted.
        pipeline: Steps a sample lasts on the chip: steps plus the depth of the network.
        layers: The input, then every layer.
        events: Energy by kind of event.
        spikes, synops: Whole network.
        energy, latency, step: Energy and latency of a sample, time of a step.
        static: Static energy of a sample; ``None`` unless asked for.
        slowest: Share of steps for which a layer has the slowest core.
        ignored: What the model leaves out.
        cores: What each core does, mean a sample.
        by_step: What each layer does in each of its steps, mean over samples, and the time of each pipelined step.
    """

    chip: str
    chip_title: str
    placed_on: str
    program: str
    samples: int
    steps: int
    pipeline: int
    layers: tuple[LayerProfile, ...]
    events: tuple[EventEnergy, ...]
    spikes: Figure
    synops: Figure
    energy: Figure
    latency: Figure
    step: Figure
    static: Figure | None
    slowest: tuple[tuple[str, float], ...]
    ignored: tuple[str, ...]
    cores: tuple[CoreEvents, ...] = ()
    by_step: Mapping[str, Any] = field(default_factory=dict)

    def summary(self) -> dict[str, Any]:
        """The ``activity`` and ``modelled`` entries of a run's ``summary.json``."""
        layers = [{"name": x.name, "spikes": x.spikes.mean, "synops": x.synops.mean} for x in self.layers[1:]]
        return {
            "activity": {
                "spikes_per_sample": self.spikes.mean,
                "synops_per_sample": self.synops.mean,
                "input_events_per_sample": self.layers[0].spikes.mean,
                "layers": layers,
            },
            "modelled": {
                "chip": self.chip,
                "energy_per_sample_J": self.energy.mean,
                "latency_per_sample_s": self.latency.mean,
            },
        }

    def to_json(self) -> dict[str, Any]:
        """The whole profile as plain data: the ``profile.json`` of a run folder."""
        plain = {key: value for key, value in vars(self).items() if isinstance(value, (str, int))}
        figures = {key: value.to_json() for key, value in vars(self).items() if isinstance(value, Figure)}
        return {
            **plain,
            **figures,
            "static": None if self.static is None else self.static.to_json(),
            "layers": [layer.to_json() for layer in self.layers],
            "events": [event.to_json() for event in self.events],
            "slowest": dict(self.slowest),
            "ignored": list(self.ignored),
            "cores": [core.to_json() for core in self.cores],
            "by_step": dict(self.by_step),
        }

    def table(self) -> str:
        """The profile as text for a terminal."""
        run = f"{self.samples:,} samples of {self.steps} steps"
        head = f"{run}; constants of {self.chip_title}; placed on {self.placed_on}"
        totals = [[name, *_cells(figure)] for name, figure in self._totals()]
        layers = [["layer", "neurons", "cores", "spikes", "synops", "active", "idle", "energy"]]
        layers += [_layer_cells(layer) for layer in self.layers]
        events = [["event", "a sample", "", "constant", "energy", "grade and source"]]
        events += [_event_cells(event) for event in self.events]
        ignored = "\n".join(f"  - {line}" for line in self.ignored)
        parts = (head, aligned(totals), aligned(layers), aligned(events), f"Left out:\n{ignored}")
        return "\n\n".join(parts)

    def _totals(self) -> list[tuple[str, Figure]]:
        named = [("spikes", self.spikes), ("synops", self.synops), ("energy", self.energy)]
        named += [("latency", self.latency), ("step", self.step)]
        return [*named, ("static energy", self.static)] if self.static is not None else named

    def to_html(self, path: str | Path) -> None:
        """Write the profile as one self-contained HTML page.

        Raises:
            FileError: the folder is not writable or the disk is full.
        """
        from deploy.report import page

        with atomic_path(path) as temporary:
            temporary.write_text(page(profile=self.to_json(), title=f"Profile on {self.chip_title}"), encoding="utf-8")

    def to_csv(self, path: str | Path) -> None:
        """Write every figure as CSV.

        Raises:
            FileError: the folder is not writable or the disk is full.
        """
        with atomic_path(path) as temporary:
            temporary.write_text(to_csv(self), encoding="utf-8")

    def _repr_html_(self) -> str:
        rows = [_layer_cells(layer) for layer in self.layers]
        head = ["layer", "neurons", "cores", "spikes", "synops", "active", "idle", "energy"]
        totals = "; ".join(f"{name} {_cells(figure)[0]} ({figure.kind})" for name, figure in self._totals())
        body = "".join(_html_row(row, "td") for row in rows)
        return (
            f"<table><caption>{html.escape(self.chip_title)}: {html.escape(totals)}</caption>"
            f"<thead>{_html_row(head, 'th')}</thead><tbody>{body}</tbody></table>"
        )


def _html_row(cells: list[str], tag: str) -> str:
    return "<tr>" + "".join(f"<{tag}>{html.escape(cell)}</{tag}>" for cell in cells) + "</tr>"


def amount(value: float | None, unit: str) -> str:
    """A value for people: SI prefixes for J and s, separators for counts.

    >>> amount(2.5e-8, "J"), amount(1234.56, "spikes"), amount(None, "J")
    ('25 nJ', '1,235', '—')
    """
    if value is None:
        return "—"
    if unit not in ("J", "s"):
        return f"{value:,.0f}" if abs(value) >= 100 else f"{value:.3g}"
    for factor, prefix in ((1.0, ""), (1e-3, "m"), (1e-6, "µ"), (1e-9, "n")):
        if abs(value) >= factor:
            return f"{value / factor:.3g} {prefix}{unit}"
    return f"{value / 1e-12:.3g} p{unit}"


def _cells(figure: Figure) -> list[str]:
    if figure.mean is None:
        return ["—", figure.kind, f"none: {figure.source}"]
    spread = f"5 % {amount(figure.p5, figure.unit)}, 95 % {amount(figure.p95, figure.unit)}"
    if figure.ci95 is not None:
        spread = f"mean ± {amount(figure.ci95, figure.unit)} (95 %); {spread}"
    return [amount(figure.mean, figure.unit), figure.kind, f"{spread}; {figure.source}"]


def _layer_cells(layer: LayerProfile) -> list[str]:
    figures = (layer.spikes, layer.synops, layer.active, layer.inactive, layer.energy)
    return [layer.name, f"{layer.neurons:,}", str(layer.cores), *(amount(f.mean, f.unit) for f in figures)]


def _event_cells(event: EventEnergy) -> list[str]:
    price = "not published" if event.picojoule is None else f"{event.picojoule:g} pJ"
    why = ": ".join(part for part in (event.grade, event.source) if part)
    return [EVENTS[event.event], f"{event.count:,.4g}", event.kind, price, amount(event.energy, "J"), why]


def to_csv(profile: Profile) -> str:
    """Every figure of a profile as CSV: scope, name, figure, mean, spread, unit, counted or modelled, source."""
    stream = io.StringIO()
    writer = csv.writer(stream, lineterminator="\n")
    writer.writerow(["scope", "name", "figure", "mean", "ci95", "p5", "p50", "p95", "unit", "kind", "source"])

    def line(scope: str, name: str, what: str, f: Figure) -> None:
        writer.writerow([scope, name, what, f.mean, f.ci95, f.p5, f.p50, f.p95, f.unit, f.kind, f.source])

    for name, found in profile._totals():
        line("network", "", name, found)
    for layer in profile.layers:
        for name, found in vars(layer).items():
            if isinstance(found, Figure):
                line("layer", layer.name, name, found)
    for event in profile.events:
        row = ["event", event.event, "count", event.count, "", "", "", "", "a sample", event.kind, ""]
        writer.writerow(row)
        source = f"{event.grade}: {event.source}" if event.grade else event.source
        writer.writerow(["event", event.event, "energy", event.energy, "", "", "", "", "J", "modelled", source])
    for core in profile.cores:
        for name, value in core.to_json().items():
            if isinstance(value, float):
                writer.writerow(["core", core.number, name, value, "", "", "", "", "a sample", "", ""])
    return stream.getvalue()
