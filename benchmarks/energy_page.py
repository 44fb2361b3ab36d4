# ruff: noqa: E501 - the lines of Markdown
"""docs/energy-model.md and docs/chips.md from benchmarks/results/validate.json and chips.json.

python -m benchmarks.energy_page [--check]
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final

from benchmarks.published import LEFT_OUT
from benchmarks.rows import RESULTS
from deploy.chip import chips, load_chip
from deploy.chip_table import comparison
from deploy.files import atomic_path, read_json

DOCS: Final = Path(__file__).resolve().parents[1] / "docs"
Rows = list[Mapping[str, Any]]

MODEL: Final = """\
# The energy and latency model, and how far it can be trusted

<!-- Written by `python -m benchmarks.energy_page` from benchmarks/results/validate.json. Edit the script, not this file. -->

## What is counted, what is modelled

**Counted**, in the bit-exact simulation: spikes of every layer and step; synaptic operations (a spike meeting a nonzero
weight); updates of neurons, active (current or membrane not zero after it) and idle; with `--by-core`
(`deploy.profile(..., spikes=...)`) also what each core does in each step, and every message and tile border it crosses.
Without recorded spikes a layer's exact totals are shared out over its cores, and such figures are tagged *modelled*.

**Modelled**: counts times a chip file's constants.

    energy = sum over kinds of event of count x constant
    step   = the slowest core, plus the barrier that ends the step
    sample = T + depth steps (layers work in a pipeline)

How a core's step adds up is in the chip's file: `summed` (neurons, then messages; the slower case, used where nothing
is published) or `overlapped` (the longer of the longest neuron phase and the longest message phase, SANA-FE's rule, to
which its constants belong). Mean, percentiles and a 95 % confidence interval are over samples. Static power is a figure
of its own and only on request. Not in any figure: host and input/output, the chip's processors, queues in the mesh.

## Against SANA-FE, event for event

[SANA-FE](https://github.com/SLAM-Lab/SANA-FE) 2.2.9 (GPL) runs as a process in an environment of its own. It gets our
Program, our placement and the constants of `loihi1_sanafe`, and simulates the spikes again by itself. Its inputs stand on
a host tile that costs nothing. Goals: every count equal, energy and latency within 2 %.
"""

SANAFE_NOTES: Final = """\
- *Neurons updated* is SANA-FE's count: a membrane not zero before the step, or an event in it, until the pipeline has
  emptied. Counted that way from our recorded state it is equal to the last one. Our profile's own *active* counts state
  that is not zero *after* the step and stops when a layer has done its T steps; that is the remaining distance in energy
  and latency.
- Our energy here includes the idle updates of the steps in which the pipeline fills and empties, which SANA-FE sees too.
- Latency is compared with SANA-FE's `simple` timing, which has our rule. Its `detailed` timing lets messages queue in the
  mesh; how far that is from ours, as our latency over SANA-FE's:
"""

PUBLISHED_HEAD: Final = """
## Against published mappings and measurements

The papers give neither firing rates nor, mostly, layers. Where a rate is needed, the networks are this repository's
benchmark networks, whose thresholds were set before these figures were compared; the rate is an assumption all the same,
and energy is nearly proportional to it. A measured board includes what no count of
operations sees; the reason for each distance stands beside it.
"""

NEUROBENCH_HEAD: Final = """
## Against NeuroBench

NeuroBench 2.3.0 (Apache-2.0), in an environment of its own, measures the integer network built with torch and snnTorch;
`deploy.neurobench.metrics` computes the same from our counts. Goal: equal.
"""

COST_HEAD: Final = """
## What profiling costs

`deploy.profile` beside the simulation it profiles, one thread; placed beforehand. Goal: at most 10 %.
"""

END: Final = """
## Again

    make validate                      # makes both environments, measures, writes this page
    python -m benchmarks.validate sanafe published
"""

CHIPS_HEAD: Final = """\
# Chips

<!-- Written by `python -m benchmarks.energy_page` from hardware_configs/ and benchmarks/results/chips.json. Edit the script, not this file. -->

The chip files ([hardware_configs](../hardware_configs/README.md) has the format) side by side; every value has its
evidence grade, and `neurokd-deploy chips NAME` prints where each stands. A dash is a value nobody has published. Energies
are not comparable between chips as they stand: TrueNorth's is the whole chip's power divided by its events, Loihi's the
minimum of one bare operation.

**Loihi 2 has no published energy or time per operation**, so its file has none and nothing is derived: the ratios of
Intel's technology brief (synaptic operation 5 times, neuron update 2 times faster than Loihi 1) are speeds of unnamed
operating points, and a range from them would be a guess in figures' clothes.

"""

STUDENTS_HEAD: Final = """
## The students on every chip, the teacher beside

Up to 1,000 test images each. The networks of MNIST and Fashion-MNIST were trained for two epochs for this table: sizes are
the repository's, accuracy is not (README has that), and activity would move with longer training. CIFAR-10 (JPEG copy) is
in it only where `python -m benchmarks.chips --quick cifar10` was run: one epoch on 1,000 images. Placed by limits; *formats that differ* are the design rules of the chip that the integers (made for Loihi 2, direct encoding) break, so such a network
would have to be fine-tuned for that chip first. The teacher is in integers without fine-tuning. Energy and latency are
modelled; a dash: no constants published.

"""

PLACING: Final = """
## Placing

`deploy.place(program, chip, chips=1, share=False)`; `neurokd-deploy map RUN --chip loihi1 [--chips 2] [--share] [--cores]
[--picture map.png]`. Layers are cut where a core is full, on to the next chip if more are allowed; the fewest cores first,
then cores change places on the mesh while that saves hops. `--share` puts several small layers on one core where the
file says how many it may hold. Synaptic memory follows nengo-loihi's encodings: a list of synapses for each source (dense
or with indices, whichever is smaller), and for convolutions a list for each pattern of taps, shared by all sources that
have it. What does not fit is refused with the limit that stops it and what would fit.
"""


def model_page(rows: Rows) -> str:
    """The whole of docs/energy-model.md."""
    by_case = _by_case(rows)
    parts = [MODEL, _sanafe(by_case), SANAFE_NOTES, _detailed(by_case), PUBLISHED_HEAD, _published(by_case)]
    parts += [NEUROBENCH_HEAD, _neurobench(by_case), COST_HEAD, _cost(by_case), END]
    return "\n".join(parts)


def _by_case(rows: Rows) -> dict[str, dict[str, Mapping[str, Any]]]:
    found: dict[str, dict[str, Mapping[str, Any]]] = {}
    for row in rows:
        found.setdefault(str(row["case"]), {})[str(row["metric"])] = row
    return found


def _table(head: Sequence[str], lines: Sequence[Sequence[str]], right: int = 1) -> str:
    """A Markdown table; columns from ``right`` on are right-aligned."""
    rule = ["---" if k < right else "---:" for k in range(len(head))]
    return "\n".join("| " + " | ".join(cells) + " |" for cells in (head, rule, *lines)) + "\n"


def _number(value: Any) -> str:
    if value is None:
        return "—"
    if isinstance(value, str):
        return value
    return f"{value:,.0f}" if abs(value) >= 1000 or value == int(value) else f"{value:.3g}"


def _sanafe(cases: Mapping[str, Mapping[str, Mapping[str, Any]]]) -> str:
    events = (
        "spikes",
        "synaptic operations",
        "spike messages",
        "hops east-west",
        "hops north-south",
        "neurons updated",
    )
    lines = []
    for case, found in cases.items():
        if not case.startswith("SANA-FE: "):
            continue
        counts = [_number(found[event]["value"]) + _difference(found, event) for event in events]
        near = [f"{found[f'{what}: distance']['value']:.2f} %" for what in ("energy", "latency")]
        lines.append([case.removeprefix("SANA-FE: "), _number(found["cores"]["value"]), *counts, *near])
    head = ["network", "cores", *events, "energy, distance", "latency, distance"]
    return _table(head, lines)


def _difference(found: Mapping[str, Mapping[str, Any]], event: str) -> str:
    off = found[f"{event}: ours minus SANA-FE's"]["value"]
    return " =" if off == 0 else f" ({off:+g})"


def _detailed(cases: Mapping[str, Mapping[str, Mapping[str, Any]]]) -> str:
    lines = [
        [case.partition(": ")[2], f"{row['value']:.2f}"]
        for case, found in cases.items()
        if case.startswith("SANA-FE, detailed")
        for row in found.values()
    ]
    return _table(["network", "ours / SANA-FE's detailed timing"], lines)


def _published(cases: Mapping[str, Mapping[str, Mapping[str, Any]]]) -> str:
    lines = []
    for case, found in cases.items():
        if not case.startswith("published: "):
            continue
        for metric, row in found.items():
            if not metric.endswith(", published"):
                continue
            figure = metric.removesuffix(", published")
            ours, about = found[f"{figure}, ours"], row["versions"]
            far = found.get(f"{figure}: distance")
            distance = "" if far is None else f" ({far['value']:.0f} %, goal {far['goal']})"
            lines.append(
                [
                    case.removeprefix("published: "), figure, f"{_number(row['value'])} {row['unit']}",
                    f"{_number(ours['value'])} {row['unit']}{distance}", about["why"], about["source"],
                ]
            )  # fmt: skip
    made = _table(["case", "figure", "published", "ours", "why they differ", "source"], lines, right=6)
    left = "".join(f"- {case}: {figure}; {why}.\n" for case, figure, why in LEFT_OUT)
    return made + "\nNothing was computed for:\n\n" + left


def _neurobench(cases: Mapping[str, Mapping[str, Mapping[str, Any]]]) -> str:
    metrics = (
        "footprint",
        "connection_sparsity",
        "activation_sparsity",
        "effective_acs",
        "effective_macs",
        "dense",
        "membrane_updates",
    )
    lines = []
    for case, found in cases.items():
        if case.startswith("NeuroBench: "):
            cells = []
            for metric in metrics:
                off = found[f"{metric}: ours minus NeuroBench's"]["value"]
                cells.append(_number(found[metric]["value"]) + (" =" if off == 0 else f" ({off:+g})"))
            lines.append([case.removeprefix("NeuroBench: "), *cells])
    return _table(["network", *(m.replace("_", " ") for m in metrics)], lines)


def _cost(cases: Mapping[str, Mapping[str, Mapping[str, Any]]]) -> str:
    lines = [
        [
            case.removeprefix("profiling: "),
            f"{found['simulation']['value']:.3f} s",
            f"{found['cost over simulating']['value']:.1f} %",
        ]
        for case, found in cases.items()
        if case.startswith("profiling: ")
    ]
    return _table(["network", "simulation", "profile, of that"], lines)


def chips_page(rows: Rows) -> str:
    """The whole of docs/chips.md."""
    names = [name for name in chips() if name != "toy"]
    side = comparison([load_chip(name) for name in names])
    cases = _by_case(rows)
    return CHIPS_HEAD + _table(side[0], side[1:]) + STUDENTS_HEAD + _students(cases, names) + _reports(cases) + PLACING


def _students(cases: Mapping[str, Mapping[str, Mapping[str, Any]]], names: Sequence[str]) -> str:
    lines = []
    for case, found in cases.items():
        if " on " in case or case.startswith("report of"):
            continue
        accuracy = found.get("accuracy in integers")
        shown = "—" if accuracy is None else f"{accuracy['value']:.2f} %"
        for name in names:
            on = cases.get(f"{case} on {name}", {})
            lines.append([case, shown, _number(found["synops a sample"]["value"]), name, *_carried(on)])
    return _table(
        [
            "network",
            "accuracy",
            "synops",
            "chip",
            "cores",
            "binding",
            "energy",
            "latency",
            "formats that differ, or why not",
        ],
        lines,
    )


def _carried(on: Mapping[str, Mapping[str, Any]]) -> list[str]:
    if not on:
        return ["—"] * 5
    if "does not fit" in on:
        return ["—", "—", "—", "—", str(on["does not fit"]["value"])]
    cores = next(row for metric, row in on.items() if metric.startswith("cores"))
    placed = str(cores["metric"]).removeprefix("cores")
    energy, latency = (on[what]["value"] for what in ("energy", "latency"))
    return [
        f"{cores['value']}{placed}",
        str(cores["versions"].get("binding", "")).replace("_", " "),
        "—" if energy is None else f"{energy:.3g} µJ",
        "—" if latency is None else f"{latency:,.0f} µs",
        str(on["formats that differ"]["value"]),
    ]


def _reports(cases: Mapping[str, Mapping[str, Mapping[str, Any]]]) -> str:
    lines = [
        [case.removeprefix("report of "), f"{found['written in']['value']:.2f} s", f"{found['size']['value']:.2f} MB"]
        for case, found in cases.items()
        if case.startswith("report of ")
    ]
    return "\nThe report of each run, the whole test set simulated again for it (goals: 10 s, 8 MB):\n\n" + _table(
        ["run", "written in", "size"], lines
    )


def main(arguments: Sequence[str] | None = None) -> int:
    """Write both pages, or with ``--check`` say whether they are what the results say."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--check", action="store_true")
    options = parser.parse_args(arguments)
    pages = {"energy-model.md": model_page(_read("validate")), "chips.md": chips_page(_read("chips"))}
    stale = []
    for name, text in pages.items():
        path = DOCS / name
        if not path.exists() or path.read_text(encoding="utf-8") != text:
            stale.append(name)
            if not options.check:
                with atomic_path(path) as temporary:
                    temporary.write_text(text, encoding="utf-8")
    print("up to date" if not stale else f"{'stale' if options.check else 'written'}: {', '.join(stale)}")
    return int(bool(stale) and options.check)


def _read(topic: str) -> Rows:
    path = RESULTS / f"{topic}.json"
    rows: Rows = read_json(path) if path.exists() else []
    return rows


if __name__ == "__main__":
    sys.exit(main())
