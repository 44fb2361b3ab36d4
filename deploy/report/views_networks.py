"""Networks and runs side by side: the gain of compression, plots of accuracy against cost, comparisons of runs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final

from markupsafe import Markup

from deploy.profile_types import amount
from deploy.report.charts import Points, scatter
from deploy.report.plots import STAGES
from deploy.report.views import BACKENDS, Data, number, percent


def network_rows(networks: Data) -> list[dict[str, Any]]:
    """Teacher, assistant, student and an ANN of each shape, in one table."""
    rows = []
    for entry in networks["networks"]:
        rows.append(
            {
                "name": STAGES.get(entry["name"], entry["name"]),
                "spec": entry["spec"],
                "accuracy": percent(entry["accuracy"]),
                "parameters": number(entry["parameters"]),
                "cores": number(entry["cores"]),
                "spikes": amount(entry["spikes"], ""),
                "synops": amount(entry["synops"], ""),
                "energy": amount(entry["energy_J"], "J"),
                "latency": amount(entry["latency_s"], "s"),
                "macs": number(entry["ann_macs"]),
                "ann_energy": amount(entry["ann_energy_J"], "J"),
                "ac_energy": amount(entry["ac_energy_J"], "J"),
            }
        )
    return rows


def pareto(networks: Data | None, explored: Data, profile: Data | None) -> list[dict[str, Any]]:
    """Accuracy against energy and against synaptic operations: networks, and the student stopped after each step."""
    found = []
    entries = [] if networks is None else networks["networks"]
    exits = explored.get("exits") or {}
    energies = exits.get("energy") or []
    steps = tuple(
        (1e6 * e, a, f"after step {k}: {a:.2f} %, {amount(e, 'J')}")
        for k, (e, a) in enumerate(zip(energies, exits.get("accuracy", ()), strict=False), start=1)
    )
    by_energy = [Points("student, stopped early", steps, line=True, colour=0)] if steps else []
    for key, scale, unit in (("energy_J", 1e6, "J"), ("synops", 1.0, "")):
        points = [
            Points(
                STAGES.get(e["name"], e["name"]),
                ((scale * e[key], e["accuracy"], f"{percent(e['accuracy'])}, {amount(e[key], unit)}"),),
                colour=k,
            )
            for k, e in enumerate(entries, start=1)
            if e.get(key) and e.get("accuracy") is not None
        ]
        first = by_energy if key == "energy_J" else []
        label = "modelled energy a sample (µJ)" if key == "energy_J" else "synaptic operations a sample"
        chart = scatter([*first, *points], label, "accuracy (%)", log=True)
        if chart:
            line = " The line is the student, stopped after each step." if first else ""
            caption = f"Accuracy against {label}; up and to the left is better.{line}"
            found.append({"svg": Markup(chart), "caption": caption})
    return found


#: Rows of a comparison of runs: name, path in the summary, unit.
COMPARED: Final = (
    ("data", ("title",), "text"),
    ("student", ("networks", "student", "spec"), "text"),
    ("teacher, accuracy", ("accuracy", "teacher"), "%"),
    ("float student, accuracy", ("accuracy", "student"), "%"),
    ("chip, accuracy", ("accuracy", "chip"), "%"),
    ("spikes a sample", ("activity", "spikes_per_sample"), ""),
    ("synaptic operations a sample", ("activity", "synops_per_sample"), ""),
    ("energy a sample (modelled)", ("modelled", "energy_per_sample_J"), "J"),
    ("latency a sample (modelled)", ("modelled", "latency_per_sample_s"), "s"),
    ("constants of", ("modelled", "chip"), "text"),
    ("cores", ("chip", "cores"), ""),
    ("parameters", ("networks", "student", "parameters"), ""),
    ("seed", ("seed",), "text"),
)


def comparison(runs: Sequence[tuple[str, Data]]) -> tuple[list[str], list[list[str]]]:
    """A head of run names, and a row for each figure; a dash where a run lacks it."""
    rows = []
    for name, path, unit in COMPARED:
        values = [_reach(summary, path) for _, summary in runs]
        if any(value is not None for value in values):
            rows.append([name, *(_shown(value, unit) for value in values)])
    for backend in BACKENDS:
        values = [_reach(summary, ("equality", "differing_spikes", backend)) for _, summary in runs]
        if any(value is not None for value in values):
            rows.append([f"differing spikes, {backend}", *(_shown(value, "") for value in values)])
    return ["", *(name for name, _ in runs)], rows


def _reach(data: Any, path: Sequence[str]) -> Any:
    for key in path:
        if not isinstance(data, Mapping):
            return None
        data = data.get(key)
    return data


def _shown(value: Any, unit: str) -> str:
    if value is None:
        return "—"
    if unit == "%":
        return percent(value)
    return str(value) if unit == "text" or not isinstance(value, (int, float)) else amount(value, unit)


def compared(runs: Sequence[tuple[str, Data]]) -> list[dict[str, Any]]:
    """Pareto plots of runs: accuracy on the chip against energy and synaptic operations."""
    found = []
    for path, scale, label in (
        (("modelled", "energy_per_sample_J"), 1e6, "modelled energy a sample (µJ)"),
        (("activity", "synops_per_sample"), 1.0, "synaptic operations a sample"),
    ):
        points = []
        for name, summary in runs:
            x, y = _reach(summary, path), _reach(summary, ("accuracy", "chip"))
            if isinstance(x, (int, float)) and isinstance(y, (int, float)):
                points.append(Points(name, ((scale * x, y, f"{percent(y)}, {scale * x:.4g}"),)))
        chart = scatter(points, label, "accuracy (%)", log=True)
        if chart:
            found.append({"svg": Markup(chart), "caption": f"Accuracy against {label}."})
    return found
