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

from benchmarks.chips_page import chips_page
from benchmarks.page_parts import Cases, Rows, by_case, number, table
from benchmarks.published import LEFT_OUT
from benchmarks.rows import RESULTS
from deploy.files import atomic_path, read_json

DOCS: Final = Path(__file__).resolve().parents[1] / "docs"

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
`deploy.neurobench.metrics` computes the same from our counts. Goal: equal. The trained students are the distillation
grid's in integers, on 64 test images spread over the set, and the demo's on its first 64.
"""

COST_HEAD: Final = """
## What profiling costs

`deploy.profile` beside the simulation it profiles, one thread; placed beforehand. Goal: at most 10 %.
"""

END: Final = """
## Again

    make validate                      # makes both environments, measures, writes this page
    python -m benchmarks.validate sanafe published
    python -m benchmarks.validate neurobench --grid mnist fashion-mnist cifar10 --data-root DIR
"""


def model_page(rows: Rows) -> str:
    """The whole of docs/energy-model.md."""
    cases = by_case(rows)
    parts = [MODEL, _sanafe(cases), SANAFE_NOTES, _detailed(cases), PUBLISHED_HEAD, _published(cases)]
    parts += [NEUROBENCH_HEAD, _neurobench(cases), COST_HEAD, _cost(cases), END]
    return "\n".join(parts)


def _sanafe(cases: Cases) -> str:
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
        counts = [number(found[event]["value"]) + _difference(found, event) for event in events]
        near = [f"{found[f'{what}: distance']['value']:.2f} %" for what in ("energy", "latency")]
        lines.append([case.removeprefix("SANA-FE: "), number(found["cores"]["value"]), *counts, *near])
    head = ["network", "cores", *events, "energy, distance", "latency, distance"]
    return table(head, lines)


def _difference(found: Mapping[str, Mapping[str, Any]], event: str) -> str:
    off = found[f"{event}: ours minus SANA-FE's"]["value"]
    return " =" if off == 0 else f" ({off:+g})"


def _detailed(cases: Cases) -> str:
    lines = [
        [case.partition(": ")[2], f"{row['value']:.2f}"]
        for case, found in cases.items()
        if case.startswith("SANA-FE, detailed")
        for row in found.values()
    ]
    return table(["network", "ours / SANA-FE's detailed timing"], lines)


def _published(cases: Cases) -> str:
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
                    case.removeprefix("published: "), figure, f"{number(row['value'])} {row['unit']}",
                    f"{number(ours['value'])} {row['unit']}{distance}", about["why"], about["source"],
                ]
            )  # fmt: skip
    made = table(["case", "figure", "published", "ours", "why they differ", "source"], lines, right=6)
    left = "".join(f"- {case}: {figure}; {why}.\n" for case, figure, why in LEFT_OUT)
    return made + "\nNothing was computed for:\n\n" + left


def _neurobench(cases: Cases) -> str:
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
                cells.append(number(found[metric]["value"]) + (" =" if off == 0 else f" ({off:+g})"))
            lines.append([case.removeprefix("NeuroBench: "), *cells])
    return table(["network", *(m.replace("_", " ") for m in metrics)], lines)


def _cost(cases: Cases) -> str:
    lines = [
        [
            case.removeprefix("profiling: "),
            f"{found['simulation']['value']:.3f} s",
            f"{found['cost over simulating']['value']:.1f} %",
        ]
        for case, found in cases.items()
        if case.startswith("profiling: ")
    ]
    return table(["network", "simulation", "profile, of that"], lines)


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
