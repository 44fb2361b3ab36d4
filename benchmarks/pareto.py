"""Rows, tables and the plot of the fine-tuning grid: ``python -m benchmarks.pareto``, from the cells alone.

Writes ``benchmarks/results/finetune.json``, the marked tables of ``docs/quantization.md`` and
``docs/quantization-pareto.png``. ``--check`` fails where a table or the rows are not those of the cells.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path
from statistics import mean, stdev
from typing import Any

from benchmarks.finetune import CELLS, COMMAND, cells
from benchmarks.finetune_cells import COMPARED, WORDS, Grid, front, mcnemar, mean_accuracy, pareto_points
from benchmarks.finetune_sets import BUDGETS, METHODS, SETS, UNTRAINED, WIDTHS
from benchmarks.finetune_tables import filled
from benchmarks.rows import RESULTS, Row, as_table, read, write

TOPIC = "finetune"
DOCS = Path(__file__).resolve().parents[1] / "docs"
PAGE, PICTURE = DOCS / "quantization.md", DOCS / "quantization-pareto.png"
#: Points that the chip may lose against the float student, by width and set.
GOALS = {
    8: {"mnist": 0.1, "fashion-mnist": 0.2, "cifar10": 0.4},
    4: {"mnist": 0.3, "fashion-mnist": 0.8, "cifar10": 1.5},
}


def rows(grid: Grid) -> list[Row]:
    """Every figure with its goal."""
    found: list[Row] = []
    for data in grid.sets():
        for maker in (_float_rows, _width_rows, _nir_rows, _sat_rows, _budget_rows):
            found += maker(grid, data)
    differing = [c["differing_spikes"] for c in grid.cells.values() if c["profiled"]]
    images = sum(c["profiled"] for c in grid.cells.values())
    case = f"{len(differing)} networks of the fine-tuning grid, {images:,} images in all"
    return [
        *found,
        _row(case, "differing spikes, torch forward against the simulator", sum(differing), "spikes", "== 0"),
    ]


def _row(case: str, metric: str, value: float | int, unit: str, goal: str = "") -> Row:
    return Row(case, metric, float(f"{value:.6g}") if isinstance(value, float) else value, unit, goal, COMMAND)


def _case(grid: Grid, data: str, seeds: int) -> str:
    return f"{grid.title(data)}, {SETS[data].networks['student']}, {seeds} seeds"


def _float_rows(grid: Grid, data: str) -> list[Row]:
    by_role = {role: grid.of(data, role) for role in ("teacher", "assistant", "student")}
    return [
        _row(_case(grid, data, len(found)), f"accuracy, float {role}", mean_accuracy(found), "%")
        for role, found in by_role.items()
        if found
    ]


def _width_rows(grid: Grid, data: str) -> list[Row]:
    found = []
    for bits in WIDTHS:
        for method in (*UNTRAINED[:2], *METHODS[1:]):
            pairs = grid.pairs(data, "student", f"b{bits}-{method}")
            if not pairs:
                continue
            lost = mean(a["accuracy"] - b["accuracy"] for a, b in pairs)
            kept = method == "sat-ce" and bits in GOALS
            goal = f"<= {GOALS[bits][data]}" if kept else ""
            metric = f"float student minus chip at {bits} bits, {WORDS[method]}"
            found.append(_row(_case(grid, data, len(pairs)), metric, lost, "points", goal))
    return found


def _nir_rows(grid: Grid, data: str) -> list[Row]:
    """Post-training quantization of the student's float NIR file, by the chip side alone."""
    found = []
    for bits in WIDTHS:
        pairs = grid.pairs(data, "student", f"b{bits}-nir")
        if pairs:
            lost = mean(a["accuracy"] - b["accuracy"] for a, b in pairs)
            case = _case(grid, data, len(pairs))
            found.append(_row(case, f"float student minus its NIR file quantized to {bits} bits", lost, "points"))
            agreed = mean(min(layer["agreement"] for layer in b["layers"]) for _, b in pairs)
            metric = f"spikes that agree with the float graph at {bits} bits, worst layer, calibration"
            found.append(_row(case, metric, agreed, "%"))
    return found


def _sat_rows(grid: Grid, data: str) -> list[Row]:
    found = []
    for bits, words, cell, against in COMPARED:
        pairs = grid.pairs(data, cell, against)
        if not pairs:
            continue
        case, goal = _case(grid, data, len(pairs)), words.startswith(WORDS["sat-ce"])
        gain = mean(a["accuracy"] - b["accuracy"] for a, b in pairs)
        what = f"{bits} bits: {words} minus CE alone"
        found.append(_row(case, what, gain, "points", "> 0" if goal else ""))
        _, _, p = mcnemar(pairs)
        found.append(_row(case, f"{what}, p (McNemar, pooled images)", p, "", "< 0.05" if goal else ""))
    return found


def _budget_rows(grid: Grid, data: str) -> list[Row]:
    found = []
    for bits, share in BUDGETS:
        name = f"b{bits}-synops{round(100 * share)}"
        against = [("float student", "student"), ("same width, no budget", f"b{bits}-sat-ce")]
        for words, other in against:
            pairs = grid.pairs(data, other, name)
            if pairs:
                lost = mean(a["accuracy"] - b["accuracy"] for a, b in pairs)
                metric = f"points lost at {share:g} of the synops, {bits} bits, against {words}"
                found.append(_row(_case(grid, data, len(pairs)), metric, lost, "points", "<= 0.5"))
        pairs = grid.pairs(data, f"b{bits}-none", name)
        if pairs:
            used = mean(b["synops"] / a["synops"] for a, b in pairs)
            metric = f"synops used of {share:g}, {bits} bits, counted on test images"
            found.append(_row(_case(grid, data, len(pairs)), metric, used, "of the start", f"<= {share}"))
    return found


def plot(grid: Grid, path: Path = PICTURE) -> None:
    """One panel a data set: accuracy against modelled energy, the front as a line."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot as plt
    from matplotlib.ticker import FormatStrFormatter, LogLocator, NullFormatter

    sets = grid.sets()
    figure, axes = plt.subplots(1, len(sets), figsize=(4.6 * len(sets), 4.4), squeeze=False, layout="constrained")
    marks: dict[str, Any] = {}
    for axis, data in zip(axes[0], sets, strict=True):
        points = pareto_points(grid, data)
        best = sorted(points[name][:2] for name in front(points))
        axis.step([e for e, _ in best], [a for _, a in best], where="post", color="0.75", zorder=1)
        for number, (name, (energy, accuracy, found)) in enumerate(points.items()):
            spread = stdev([c["accuracy"] for c in found]) if len(found) > 1 else 0.0
            style = {"fmt": "sDo^vP*X"[number % 8], "color": f"C{number}", "markersize": 8, "capsize": 3}
            marks[name] = axis.errorbar(energy, accuracy, yerr=spread, zorder=2, **style)
        axis.set(xscale="log", xlabel="modelled energy an image, µJ (Loihi 1's constants)", title=grid.title(data))
        axis.xaxis.set_major_locator(LogLocator(subs=(1.0, 2.0, 5.0)))
        axis.xaxis.set_major_formatter(FormatStrFormatter("%g"))
        axis.xaxis.set_minor_formatter(NullFormatter())
        axis.grid(True, which="both", alpha=0.25)
    axes[0][0].set_ylabel("test accuracy, %")
    figure.legend(marks.values(), marks.keys(), loc="outside lower center", ncols=4, frameon=False)
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=120, metadata={"Software": None})
    plt.close(figure)


def main(arguments: Sequence[str] | None = None) -> int:
    """Make rows, tables and the plot; or check them."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--check", action="store_true", help="write nothing; fail where something is stale")
    options = parser.parse_args(arguments)
    grid = Grid(cells(CELLS))
    text = PAGE.read_text(encoding="utf-8")
    if options.check:
        return report_stale(text, grid)
    (RESULTS / f"{TOPIC}.json").unlink(missing_ok=True)  # rows of fewer seeds have other cases; none may stay
    write(TOPIC, rows(grid))
    PAGE.write_text(filled(text, grid), encoding="utf-8")
    plot(grid)
    return 0


def report_stale(text: str, grid: Grid) -> int:
    """1 where the page's tables or the stored rows are not what the cells say."""
    stored = {(r["case"], r["metric"]): r["value"] for r in read(RESULTS).get(TOPIC, [])}
    made = {(row.case, row.metric): as_table(row)["value"] for row in rows(grid)}
    stale = [key for key in made.keys() | stored.keys() if made.get(key) != stored.get(key)]
    for case, metric in stale:
        print(f"stale: {case}: {metric}", file=sys.stderr)
    if filled(text, grid) != text:
        print(f"stale: tables of {PAGE.name}", file=sys.stderr)
        return 1
    return 1 if stale else 0


if __name__ == "__main__":
    raise SystemExit(main())
