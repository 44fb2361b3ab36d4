"""The repository's students on every chip file, with the teacher beside.

    python -m benchmarks.chips --grid mnist fashion-mnist cifar10 --data-root DIR
    python -m benchmarks.chips RUN [RUN ...]     # the time and size of each run's report

Each network of the distillation grid (:mod:`benchmarks.grid_networks`) is placed on each chip by its limits and
profiled with its constants on the whole test set; where it does not fit or nothing is published, the row says why.
Figures go to ``benchmarks/results/chips.json``; docs/chips.md is made from them.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Final

from benchmarks.grid_networks import GridNetwork, grid_networks, title_of
from benchmarks.page_parts import REPORT, every_chip
from benchmarks.replace_rows import replace_cases
from benchmarks.rows import Row, versions
from deploy import rules, simulator
from deploy.chip import Chip, load_chip
from deploy.errors import NeurokdError
from deploy.place import place
from deploy.placement import Placement
from deploy.profile import profile
from deploy.program import Program
from deploy.report import render
from deploy.trace import Trace
from neurokd.pipeline import Run

COMMAND: Final = "python -m benchmarks.chips --grid mnist fashion-mnist cifar10 --data-root DIR"
ELSEWHERE: Final = "loihi1"  # where a network stands whose constants come from a file without limits


def measure(network: GridNetwork) -> list[Row]:
    """A network's own figures, and a few rows for each chip."""
    program, case = network.program, network.case
    trace = simulator.run(program, network.spikes, steps=network.steps)
    about = {"row": network.row, "images": trace.samples}
    found = [
        _row(case, "accuracy in integers", trace.accuracy(network.labels), "%", **about),
        _row(case, "accuracy in float", network.accuracy, "%", **about),
        _row(case, "parameters", network.parameters),
        _row(case, "spikes a sample", _total(trace, "spikes"), "spikes"),
        _row(case, "synops a sample", _total(trace, "synops"), "synops"),
    ]
    for name in every_chip():
        found += on_chip(case, program, trace, load_chip(name))
    return found


def _total(trace: Trace, what: str) -> float:
    return float(sum(getattr(counter, what).sum() for counter in trace.counters.values())) / trace.samples


def _row(case: str, metric: str, value: Any, unit: str = "", goal: str = "", **about: Any) -> Row:
    return Row(case, metric, value, unit, goal, COMMAND, 0, {**versions("numpy", "torch"), **about})


def on_chip(case: str, program: Program, trace: Trace, chip: Chip) -> list[Row]:
    """Cores, energy, latency and broken design rules on one chip, or why it cannot be there."""
    case = f"{case} on {chip.name}"
    standing = load_chip(ELSEWHERE) if chip.limits["cores"].value is None else chip
    try:
        placement = place(program, standing)
    except NeurokdError as error:
        about = {"what": error.what, "got": error.got, "next": error.next_step}
        return [_row(case, "does not fit", "; ".join(filter(None, about.values())), **about)]
    result = profile(program, trace, chip, placement)
    found = [
        _row(case, "cores", len(placement.cores), "cores", binding=binding(placement), placed_on=standing.name),
    ]
    for what, value, unit in (("energy", result.energy.mean, "µJ"), ("latency", result.latency.mean, "µs")):
        found.append(_row(case, what, None if value is None else 1e6 * value, unit))
    return [*found, _formats(case, program, chip)]


def binding(placement: Placement) -> str:
    """The resource that the fullest core has least of."""
    return max(placement.cores, key=lambda core: _fullness(core.pair(core.binding))).binding


def _fullness(pair: tuple[int, int | None]) -> float:
    return pair[0] / pair[1] if pair[1] else 0.0


def _formats(case: str, program: Program, chip: Chip) -> Row:
    """The chip's design rules that the integers break, and how many rules nothing is published for."""
    findings = rules.check(program, chip)
    broken = [*dict.fromkeys(f.what for f in findings if f.severity == "error")]
    unknown = sum(f.severity == "note" for f in findings)
    return _row(
        case, "formats that differ", "; ".join(broken) or "none", broken=broken, unknown=unknown, rules=len(rules.RULES)
    )


def report_cost(folder: Path) -> list[Row]:
    """Seconds and bytes of the report of a whole run."""
    run = Run.open(folder)
    render(folder)
    start = time.perf_counter()
    page = render(folder)
    seconds = time.perf_counter() - start
    case = f"{REPORT}{title_of(run.config.data, run.data.title)}, {len(run.data.test):,} images"
    return [
        _row(case, "written in", seconds, "s", "<= 10"),
        _row(case, "size", page.stat().st_size / 1e6, "MB", "<= 8"),
    ]


def _measured(options: argparse.Namespace) -> Iterator[tuple[str, list[Row]]]:
    """The start of the cases that were measured, with their rows."""
    for folder in options.runs:
        rows = report_cost(folder)
        yield rows[0].case, rows
    for name in options.grid:
        rows, title = [], ""
        for network in grid_networks(name, options.data_root, work=options.work):
            title = f"{network.data}, "
            rows += measure(network)
        yield title, rows


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure and write; a data set's earlier rows go."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("runs", nargs="*", type=Path, help="run folders whose report is timed")
    parser.add_argument("--grid", nargs="+", default=[], metavar="DATA", help="data sets of the distillation grid")
    parser.add_argument("--data-root", type=Path, help="folder with the data files, for --grid")
    parser.add_argument("--work", type=Path, default=Path("runs/reproduce"), help="where the grid keeps its networks")
    options = parser.parse_args(arguments)
    for start, rows in _measured(options):
        replace_cases("chips", rows, start)
        print(f"{start.rstrip(', ')}: {len(rows)} rows")
    return 0


if __name__ == "__main__":
    sys.exit(main())
