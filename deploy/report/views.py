"""Each part of the report as plain values for the template, made from the plain data of a run folder."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from markupsafe import Markup

from deploy.profile_types import amount
from deploy.report.charts import Points, scatter
from deploy.report.plots import COLOURS, STAGES

Data = Mapping[str, Any]

#: Backends of the proof, and what each compares.
BACKENDS: Final = {
    "nir": "the NIR file, read back",
    "reference": "reference interpreter, plain Python integers",
    "simulator": "integer simulator",
    "lava": "Lava processes (fixed_pt)",
    "netx": "netx HDF5 file",
    "board": "Loihi 2 board",
}


@dataclass(frozen=True)
class Tile:
    """One headline figure: its name, value, a remark, and how it is known (``counted``, ``modelled`` or nothing)."""

    name: str
    value: str
    remark: str = ""
    kind: str = ""


def percent(value: float | None) -> str:
    """``98.06 %``, or a dash."""
    return "—" if value is None else f"{value:.2f} %"


def tiles(summary: Data) -> list[Tile]:
    """The headline figures a summary holds."""
    accuracy, equality = _table(summary, "accuracy"), _table(summary, "equality")
    activity, modelled = _table(summary, "activity"), _table(summary, "modelled")
    found: list[Tile] = []
    if accuracy.get("chip") is not None:
        found.append(Tile("accuracy on the chip's integers", percent(accuracy["chip"]), _change(accuracy), "counted"))
    if equality.get("differing_spikes"):
        differing = [n for n in equality["differing_spikes"].values() if n is not None]
        remark = f"{len(differing)} comparisons, {_number(equality.get('samples'))} samples"
        found.append(Tile("differing spikes", _number(sum(differing)), remark, "counted"))
    names = {"spikes_per_sample": "spikes a sample", "synops_per_sample": "synaptic operations a sample"}
    for key, name in names.items():
        if activity.get(key) is not None:
            found.append(Tile(name, amount(activity[key], ""), "", "counted"))
    chip = f"constants of {modelled.get('chip', 'the chip')}"
    for key, name, unit in (("energy", "energy a sample", "J"), ("latency", "latency a sample", "s")):
        if f"{key}_per_sample_{unit}" in modelled:
            value = amount(modelled[f"{key}_per_sample_{unit}"], unit)
            found.append(Tile(name, value, chip if value != "—" else "no constants published", "modelled"))
    return found


def _change(accuracy: Data) -> str:
    student = accuracy.get("student")
    return "" if student is None else f"{accuracy['chip'] - student:+.2f} points to the float student"


def _table(data: Data, key: str) -> Data:
    value = data.get(key)
    return value if isinstance(value, Mapping) else {}


def _number(value: float | None) -> str:
    return "—" if value is None else f"{value:,.0f}"


def stages(summary: Data) -> list[dict[str, Any]]:
    """Accuracy by stage with the difference to the stage before it in the chain from teacher to chip."""
    accuracy = _table(summary, "accuracy")
    rows: list[dict[str, Any]] = []
    before: float | None = None
    for stage, name in STAGES.items():
        value = accuracy.get(stage)
        if value is None:
            continue
        change = "" if before is None or stage == "student_plain" else f"{value - before:+.2f}"
        rows.append({"stage": stage, "name": name, "value": percent(value), "change": change})
        before = value if stage != "student_plain" else before
    return rows


def proof(summary: Data, verify: Data | None) -> dict[str, Any]:
    """The proof of equality: what was the base, and a row a comparison, from ``verify.json`` or else the summary."""
    if verify is not None:
        rows = [_verified(entry) for entry in verify["comparisons"]]
        return {"base": verify["base"], "rows": rows, "detailed": True}
    equality = _table(summary, "equality")
    differing = _table(equality, "differing_spikes")
    rows = [_proof_row(name, count, equality.get("samples")) for name, count in differing.items()]
    return {"base": "trained student", "rows": rows, "detailed": False}


def _verified(entry: Data) -> dict[str, Any]:
    row = _proof_row(entry["name"], entry["differing_spikes"], entry["samples"])
    detail = {"steps": _number(entry["steps"]), "compared": _number(entry["spikes"])}
    return {**row, **detail, "first": _first(entry["first_difference"])}


def _first(difference: Data | None) -> str:
    if difference is None:
        return ""
    place = ", ".join(f"{key} {difference[key]}" for key in ("layer", "sample", "step", "neuron"))
    return f"{place}: {difference['got']} instead of {difference['expected']}"


def _proof_row(name: str, differing: int | None, samples: int | None) -> dict[str, Any]:
    return {
        "name": name,
        "what": BACKENDS.get(name, ""),
        "samples": _number(samples),
        "differing": _number(differing),
        "state": "not run" if differing is None else "equal" if differing == 0 else "differs",
        "first": "",
    }


def about(profile: Data) -> dict[str, Any]:
    """What a profile is of."""
    keys = ("samples", "steps", "pipeline", "chip_title", "placed_on", "program")
    return {key: profile[key] for key in keys}


def layer_rows(profile: Data) -> list[dict[str, Any]]:
    """Spikes, synops, updates and energy of each layer, with each figure's share for its bar."""
    layers: Sequence[Data] = profile["layers"]
    kinds = ("spikes", "synops", "active", "inactive", "messages", "energy")
    tops = {kind: max((x[kind]["mean"] or 0.0 for x in layers), default=0.0) for kind in kinds}
    return [
        {
            "name": x["name"],
            "neurons": _number(x["neurons"]) if x["neurons"] else "",
            "cores": x["cores"] or "",
            **{kind: _cell(x[kind], tops[kind]) for kind in kinds},
        }
        for x in layers
    ]


def _cell(figure: Data, top: float) -> dict[str, Any]:
    mean = figure["mean"]
    spread = "" if mean is None else " to ".join(amount(figure[key], figure["unit"]) for key in ("p5", "p95"))
    return {
        "text": amount(mean, figure["unit"]),
        "kind": figure["kind"],
        "share": 0.0 if not mean or not top else 100.0 * mean / top,
        "title": f"{figure['kind']}: {figure['source']}" + (f"; 5 % to 95 % of samples: {spread}" if spread else ""),
    }


def event_rows(profile: Data) -> list[dict[str, Any]]:
    """Energy by kind of event with its constant, evidence and share."""
    total = sum(event["energy"] or 0.0 for event in profile["events"])
    return [
        {
            "label": event["label"],
            "count": amount(event["count"], ""),
            "kind": event["kind"],
            "constant": "not published" if event["picojoule"] is None else f"{event['picojoule']:g} pJ",
            "energy": amount(event["energy"], "J"),
            "share": 100.0 * (event["energy"] or 0.0) / total if total else 0.0,
            "grade": event["grade"],
            "source": event["source"],
        }
        for event in profile["events"]
    ]


def total_rows(profile: Data) -> list[dict[str, Any]]:
    """Whole-network figures with their spread."""
    names = {
        "spikes": "spikes a sample",
        "synops": "synaptic operations a sample",
        "energy": "dynamic energy a sample",
        "latency": "latency a sample",
        "step": "time of a step",
        "static": "static energy a sample",
    }
    return [
        {
            "name": name,
            **{key: amount(profile[kind][key], profile[kind]["unit"]) for key in ("mean", "p5", "p50", "p95")},
            "half": "" if profile[kind].get("ci95") is None else amount(profile[kind]["ci95"], profile[kind]["unit"]),
            "kind": profile[kind]["kind"],
            "source": profile[kind]["source"],
        }
        for kind, name in names.items()
        if profile.get(kind) is not None
    ]


def chip_map(placement: Data) -> dict[str, Any]:
    """The chip as tiles of cores, each core coloured by its layer and as strong as it is full."""
    colours = {layer["name"]: COLOURS[k % len(COLOURS)] for k, layer in enumerate(placement["layers"])}
    used = {core["core"]: _core_view(core, colours) for core in placement["cores"]}
    count, mesh = placement["cores_used"][1], placement["mesh"]
    per_tile = mesh["cores_per_tile"] if mesh else 1
    cells = [used.get(core, {"title": f"core {core}: free"}) for core in range(count)]
    return {
        "used": placement["cores_used"][0],
        "count": count,
        "name": placement["chip"],
        "tiles": [cells[k : k + per_tile] for k in range(0, count, per_tile)],
        "columns": mesh["columns"] if mesh else 16,
        "inner": 2 if per_tile % 2 == 0 else 1,
        "legend": [{"name": name, "colour": colour} for name, colour in colours.items()],
    }


def _core_view(core: Data, colours: Mapping[str, str]) -> dict[str, Any]:
    pairs = ", ".join(f"{name.replace('_', ' ')} {_pair(pair)}" for name, pair in core["resources"].items())
    return {
        "title": f"core {core['core']}: {_layers_of(core)}; {pairs}",
        "colour": colours[core["layer"]],
        "strength": 35 + round(65 * _share(core["resources"][core["binding"]])),
    }


def _layers_of(core: Data) -> str:
    return " + ".join(dict.fromkeys(part["layer"] for part in core.get("parts", [core])))


def _pair(pair: Sequence[Any]) -> str:
    return f"{_number(pair[0])} of {'unpublished' if pair[1] is None else _number(pair[1])}"


def _share(pair: Sequence[Any]) -> float:
    return pair[0] / pair[1] if pair[1] else 0.0


def resource_rows(placement: Data) -> list[dict[str, Any]]:
    """Each layer's largest use of each resource of a core."""
    rows = []
    for layer in placement["layers"]:
        cores = [core for core in placement["cores"] if core["layer"] == layer["name"]]
        names = list(cores[0]["resources"])
        most = {name: max((core["resources"][name] for core in cores), key=lambda pair: pair[0]) for name in names}
        rows.append(
            {
                "name": layer["name"],
                "cores": len(cores),
                "binding": layer["binding"]["resource"].replace("_", " "),
                "pairs": [
                    {
                        "name": name.replace("_", " "),
                        "used": _number(pair[0]),
                        "most": "unpublished" if pair[1] is None else f"of {_number(pair[1])}",
                        "share": 100.0 * _share(pair),
                    }
                    for name, pair in most.items()
                ],
            }
        )
    return rows


def second_rows(summary: Data) -> list[dict[str, Any]]:
    """Seconds of each stage with its share."""
    seconds = {stage: value for stage, value in _table(summary, "seconds").items() if isinstance(value, (int, float))}
    total = sum(value for stage, value in seconds.items() if stage != "total")
    return [
        {"stage": stage.replace("_", " "), "seconds": f"{value:,.1f}", "share": 100.0 * value / total if total else 0.0}
        for stage, value in seconds.items()
        if stage != "total"
    ]


def network_rows(networks: Data) -> list[dict[str, Any]]:
    """Teacher, assistant, student and an ANN of each shape, in one table."""
    rows = []
    for entry in networks["networks"]:
        rows.append(
            {
                "name": STAGES.get(entry["name"], entry["name"]),
                "spec": entry["spec"],
                "accuracy": percent(entry["accuracy"]),
                "parameters": _number(entry["parameters"]),
                "cores": _number(entry["cores"]),
                "spikes": amount(entry["spikes"], ""),
                "synops": amount(entry["synops"], ""),
                "energy": amount(entry["energy_J"], "J"),
                "latency": amount(entry["latency_s"], "s"),
                "macs": _number(entry["ann_macs"]),
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
    by_energy = [Points("student, stopped early", steps, line=True)] if steps else []
    for key, scale, unit in (("energy_J", 1e6, "J"), ("synops", 1.0, "")):
        points = [
            Points(
                STAGES.get(e["name"], e["name"]),
                ((scale * e[key], e["accuracy"], f"{percent(e['accuracy'])}, {amount(e[key], unit)}"),),
            )
            for e in entries
            if e.get(key) and e.get("accuracy") is not None
        ]
        first = by_energy if key == "energy_J" else []
        label = "modelled energy a sample (µJ)" if key == "energy_J" else "synaptic operations a sample"
        chart = scatter([*first, *points], label, "accuracy (%)", log=True)
        if chart:
            caption = f"Accuracy against {label}; up and to the left is better."
            found.append({"svg": Markup(chart), "caption": caption})
    return found


def core_rows(profile: Data) -> list[dict[str, Any]]:
    """The busiest cores, with what each does."""
    cores = sorted(profile.get("cores", []), key=lambda core: -core["busy"])[:16]
    top = max((core["busy"] for core in cores), default=0.0)
    return [
        {
            "core": core["number"],
            "layers": " + ".join(core["layers"]),
            "neurons": _number(core["neurons"]),
            **{key: amount(core[key], "") for key in ("spikes", "synops", "active", "sent", "received")},
            "busy": amount(core["busy"] * 1e-9, "s"),
            "share": 100.0 * core["busy"] / top if top else 0.0,
            "kind": "counted" if core["exact"] else "modelled",
        }
        for core in cores
    ]


def timeline(profile: Data) -> Any:
    """Spikes of each layer by step, as a chart."""
    layers = profile.get("by_step", {}).get("layers", {})
    series = [
        Points(
            name, tuple((k, v, f"step {k}: {amount(v, '')} spikes") for k, v in enumerate(x["spikes"], 1)), line=True
        )
        for name, x in layers.items()
    ]
    legend = [{"name": one.name, "number": k % 6} for k, one in enumerate(series)]
    chart = scatter(series, "step of the layer", "spikes a sample")
    return {"svg": Markup(chart), "legend": legend} if chart else None


def confusion(explored: Data) -> dict[str, Any] | None:
    """Answers by right class, with accuracy and precision of each."""
    table = explored.get("confusion")
    if not table:
        return None
    columns = [sum(row[k] for row in table) for k in range(len(table))]
    rows = []
    for k, row in enumerate(table):
        total = sum(row)
        cells = [
            {"count": n, "share": 0.0 if not total else 100.0 * n / total, "right": j == k} for j, n in enumerate(row)
        ]
        rows.append({"name": k, "cells": cells, "recall": percent(100.0 * row[k] / total if total else None)})
    precision = [percent(100.0 * table[k][k] / n if n else None) for k, n in enumerate(columns)]
    return {"rows": rows, "precision": precision, "classes": range(len(table))}


def exit_rows(explored: Data) -> list[dict[str, Any]]:
    """Rules for stopping, with what each costs."""
    exits = (explored.get("exits") or {}).get("exits", [])
    return [
        {
            "rule": "all steps" if rule["margin"] is None else f"leader ahead by {rule['margin']}",
            "steps": f"{rule['steps']:.2f}",
            "accuracy": percent(rule["accuracy"]),
            "energy": amount(rule["energy"], "J"),
            "stopped": f"{100 * rule['stopped']:.0f} %",
        }
        for rule in exits
    ]


def answer_chart(explored: Data) -> Any:
    """Accuracy if every sample stopped after each step."""
    exits = explored.get("exits") or {}
    points = tuple((k, a, f"step {k}: {a:.2f} %") for k, a in enumerate(exits.get("accuracy", ()), start=1))
    return Markup(scatter([Points("accuracy", points, line=True)], "steps run", "accuracy (%)"))


def embedded(samples: Data | None) -> Any:
    """Samples as JSON that cannot end its script element."""
    return Markup(json.dumps(samples, separators=(",", ":")).replace("<", "\\u003c")) if samples else ""


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
