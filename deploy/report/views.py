"""Each part of the report as plain values for the template, made from the plain data of a run folder."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from markupsafe import Markup

from deploy.profile_types import amount
from deploy.report.charts import Points, scatter
from deploy.report.plots import STAGES

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
        remark = f"{len(differing)} comparisons, {number(equality.get('samples'))} samples"
        found.append(Tile("differing spikes", number(sum(differing)), remark, "counted"))
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


def number(value: float | None) -> str:
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
    detail = {"steps": number(entry["steps"]), "compared": number(entry["spikes"])}
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
        "samples": number(samples),
        "differing": number(differing),
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
            "neurons": number(x["neurons"]) if x["neurons"] else "",
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


def second_rows(summary: Data) -> list[dict[str, Any]]:
    """Seconds of each stage with its share."""
    seconds = {stage: value for stage, value in _table(summary, "seconds").items() if isinstance(value, (int, float))}
    total = sum(value for stage, value in seconds.items() if stage != "total")
    return [
        {"stage": stage.replace("_", " "), "seconds": f"{value:,.1f}", "share": 100.0 * value / total if total else 0.0}
        for stage, value in seconds.items()
        if stage != "total"
    ]


def timeline(profile: Data) -> Any:
    """Spikes, and synaptic operations, of each layer by step, as two charts with one legend."""
    layers = profile.get("by_step", {}).get("layers", {})
    titles = {"spikes": "spikes a sample", "synops": "synaptic operations a sample"}
    charts = []
    for kind, title in titles.items():
        series = [
            Points(name, _by_step(x[kind], title), line=True, colour=k)
            for k, (name, x) in enumerate(layers.items())
            if kind in x
        ]
        charts.append(scatter(series, "step of the layer", title))
    legend = [{"name": name, "number": k % 6} for k, name in enumerate(layers)]
    return {"svgs": [Markup(chart) for chart in charts if chart], "legend": legend} if charts[0] else None


def _by_step(values: Sequence[float], title: str) -> tuple[tuple[float, float, str], ...]:
    what = title.removesuffix(" a sample")
    return tuple((k, v, f"step {k}: {amount(v, '')} {what}") for k, v in enumerate(values, start=1))
