"""Rows, tables and the plot of the fine-tuning grid: ``python -m benchmarks.pareto``, from the cells alone.

Writes ``benchmarks/results/finetune.json``, the marked tables of ``docs/quantization.md`` and
``docs/quantization-pareto.png``. ``--check`` fails where a table or the rows are not those of the cells.
"""

from __future__ import annotations

import argparse
import math
import re
import sys
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from statistics import mean, stdev
from typing import Any

import numpy as np

from benchmarks.finetune import CELLS, COMMAND, Cell, cells, unpacked
from benchmarks.finetune_sets import BUDGETS, METHODS, SEEDS, SETS, WIDTHS
from benchmarks.rows import RESULTS, Row, as_table, read, write

TOPIC = "finetune"
DOCS = Path(__file__).resolve().parents[1] / "docs"
PAGE, PICTURE = DOCS / "quantization.md", DOCS / "quantization-pareto.png"
#: Points that the chip may lose against the float student, by width and set.
GOALS = {
    8: {"mnist": 0.1, "fashion-mnist": 0.2, "cifar10": 0.4},
    4: {"mnist": 0.3, "fashion-mnist": 0.8, "cifar10": 1.5},
}
TESTED = 10_000
WORDS = {"none": "none (rounded)", "ce": "CE", "sat": "SAT", "sat-ce": "SAT + CE"}


class Grid:
    """The cells by set, seed and name."""

    def __init__(self, found: Iterable[Cell]) -> None:
        self.cells = {(c["data"], c["seed"], c["cell"]): c for c in found}

    def of(self, data: str, cell: str) -> list[Cell]:
        """A cell of every seed that has it."""
        return [self.cells[data, seed, cell] for seed in SEEDS if (data, seed, cell) in self.cells]

    def pairs(self, data: str, one: str, other: str) -> list[tuple[Cell, Cell]]:
        """Two cells of every seed that has both."""
        keys = [seed for seed in SEEDS if {(data, seed, one), (data, seed, other)} <= self.cells.keys()]
        return [(self.cells[data, seed, one], self.cells[data, seed, other]) for seed in keys]

    def sets(self) -> list[str]:
        """Data sets with a cell, in order."""
        return [name for name in SETS if any(key[0] == name for key in self.cells)]

    def title(self, data: str) -> str:
        """The data set's own title."""
        return str(next(c["title"] for key, c in self.cells.items() if key[0] == data))


def mcnemar(pairs: list[tuple[Cell, Cell]]) -> tuple[int, int, float]:
    """Test images that only the first, only the second cell gets right, pooled over seeds; and the exact p-value.

    Two-sided binomial test of the discordant images against one half.
    """
    first, second = (
        np.concatenate([unpacked(pair[side]["correct"], TESTED) for pair in pairs]) for side in (0, 1)
    )  # fmt: skip
    wins, losses = int((first & ~second).sum()), int((second & ~first).sum())
    return wins, losses, binomial(min(wins, losses), wins + losses)


def binomial(least: int, count: int) -> float:
    """Two-sided p-value of at most ``least`` of ``count`` fair coins."""
    if count == 0:
        return 1.0
    logs = [math.lgamma(count + 1) - math.lgamma(k + 1) - math.lgamma(count - k + 1) for k in range(least + 1)]
    top = max(logs)
    tail = top + math.log(sum(math.exp(value - top) for value in logs)) - count * math.log(2)
    return min(1.0, 2 * math.exp(tail))


# Rows -------------------------------------------------------------------------------------------------------------


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
    return Row(case, metric, round(value, 6) if isinstance(value, float) else value, unit, goal, COMMAND)


def _case(grid: Grid, data: str, seeds: int) -> str:
    return f"{grid.title(data)}, {SETS[data].networks['student']}, {seeds} seeds"


def _float_rows(grid: Grid, data: str) -> list[Row]:
    by_role = {role: grid.of(data, role) for role in ("teacher", "assistant", "student")}
    return [
        _row(_case(grid, data, len(found)), f"accuracy, float {role}", _accuracy(found), "%")
        for role, found in by_role.items()
        if found
    ]


def _accuracy(found: list[Cell]) -> float:
    return mean(c["accuracy"] for c in found)


def _width_rows(grid: Grid, data: str) -> list[Row]:
    found = []
    for bits in WIDTHS:
        for method in METHODS:
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
    for bits in (b for b in WIDTHS if b < 8):
        for method in ("sat", "sat-ce"):
            pairs = grid.pairs(data, f"b{bits}-{method}", f"b{bits}-ce")
            if not pairs:
                continue
            case, goal = _case(grid, data, len(pairs)), method == "sat-ce"
            gain = mean(a["accuracy"] - b["accuracy"] for a, b in pairs)
            what = f"{bits} bits: {WORDS[method]} minus CE alone"
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


# Tables -----------------------------------------------------------------------------------------------------------


def accuracy_table(grid: Grid) -> list[str]:
    """Accuracy by width and loss: mean and standard deviation over seeds."""
    lines = _head(["", *(grid.title(data) for data in grid.sets())])
    for role in ("teacher", "assistant", "student"):
        lines.append(_line(f"float {role}", [_spread(grid.of(data, role)) for data in grid.sets()]))
    for bits in WIDTHS:
        for method in METHODS:
            found = [_spread(grid.of(data, f"b{bits}-{method}")) for data in grid.sets()]
            lines.append(_line(f"{bits} bits, {WORDS[method]}", found))
        found = [_spread(grid.of(data, f"b{bits}-nir")) for data in grid.sets()]
        lines.append(_line(f"{bits} bits, float NIR file and calibration spikes", found))
    return lines


def sat_table(grid: Grid) -> list[str]:
    """SAT kept on against CE alone."""
    head = ["", "", "points gained", "seeds better", "images only one gets right", "p"]
    lines = _head(head)
    for data in grid.sets():
        for bits in (b for b in WIDTHS if b < 8):
            for method in ("sat", "sat-ce"):
                pairs = grid.pairs(data, f"b{bits}-{method}", f"b{bits}-ce")
                if not pairs:
                    continue
                gains = [a["accuracy"] - b["accuracy"] for a, b in pairs]
                wins, losses, p = mcnemar(pairs)
                facts = [
                    f"{bits} bits, {WORDS[method]}",
                    f"{mean(gains):+.2f}",
                    f"{sum(g > 0 for g in gains)} of {len(gains)}",
                ]
                lines.append(_line(grid.title(data), [*facts, f"{wins} : {losses}", f"{p:.2g}"]))
    return lines


def cost_table(grid: Grid) -> list[str]:
    """What each network costs an image: the points of the plot, those of the front marked."""
    lines = _head(["", "network", "accuracy", "weights", "synops", "modelled energy", "front"])
    for data in grid.sets():
        points = pareto_points(grid, data)
        best = front(points)
        for name, (energy, accuracy, found) in sorted(points.items(), key=lambda item: -item[1][0]):
            counts = [f"{mean(c[key] for c in found):,.0f}" for key in ("weights", "synops")]
            mark = "yes" if name in best else ""
            lines.append(_line(grid.title(data), [name, f"{accuracy:.2f} %", *counts, f"{energy:.3g} µJ", mark]))
    return lines


def tried_table(grid: Grid) -> list[str]:
    """Ways of saving, as the search measured them on validation images."""
    lines = _head(["", "budget", "way", "validation accuracy", "within the budget", "won"])
    for data in grid.sets():
        for bits, share in BUDGETS:
            found = grid.of(data, f"b{bits}-synops{round(100 * share)}")
            for how in dict.fromkeys(one["how"] for c in found for one in c["tried"]):
                tried = [(c, one) for c in found for one in c["tried"] if one["how"] == how]
                kept, won = sum(one["fits"] for _, one in tried), sum(c["won"] == how for c, _ in tried)
                reached = f"{mean(one['validation'] for _, one in tried):.2f} %"
                facts = [f"{share:g} of the synops, {bits} bits", how, reached, f"{kept} of {len(tried)}", f"{won}"]
                lines.append(_line(grid.title(data), facts))
    return lines


def _head(names: list[str]) -> list[str]:
    return ["| " + " | ".join(names) + " |", "|" + "---|" * len(names)]


def _line(first: str, rest: list[str]) -> str:
    return "| " + " | ".join([first, *rest]) + " |"


def _spread(found: list[Cell]) -> str:
    if not found:
        return "not run"
    values = [c["accuracy"] for c in found]
    return f"{mean(values):.2f}" + (f" ± {stdev(values):.2f}" if len(values) > 1 else " (1 seed)")


def missing_list(grid: Grid) -> list[str]:
    """Cells of the grid that nobody has computed yet, by data set; a sentence where there are none."""
    names = [*("teacher", "assistant", "student"), *(f"b{bits}-{method}" for bits in WIDTHS for method in METHODS)]
    names += [f"b{bits}-nir" for bits in WIDTHS] + [f"b{bits}-synops{round(100 * share)}" for bits, share in BUDGETS]
    lines = []
    for data in SETS:
        count = sum(len(grid.of(data, name)) for name in names)
        if count < len(names) * len(SEEDS):
            lines.append(f"- {data}: {count} of {len(names) * len(SEEDS)} cells computed, the others not yet.")
    return lines or ["Every cell of the grid is computed."]


TABLES: dict[str, Callable[[Grid], list[str]]] = {
    "accuracy": accuracy_table, "sat": sat_table, "cost": cost_table, "tried": tried_table,
    "missing": missing_list,
}  # fmt: skip


def filled(text: str, grid: Grid) -> str:
    """The page with its marked tables made anew."""
    for name, make in TABLES.items():
        block = "\n".join([f"<!-- table finetune-{name} -->", *make(grid), "<!-- end -->"])
        text = re.sub(rf"<!-- table finetune-{name} -->.*?<!-- end -->", lambda _, b=block: b, text, flags=re.S)  # type: ignore[misc]
    return text


# Plot -------------------------------------------------------------------------------------------------------------


def pareto_points(grid: Grid, data: str) -> dict[str, tuple[float, float, list[Cell]]]:
    """Energy in µJ, accuracy in percent, cells; means over seeds, by name. Float networks cost what their 8 bits do."""
    names = {role: f"{role} (8 bits)" for role in ("teacher", "assistant")}
    names |= {f"b{bits}-sat-ce": f"student, {bits} bits" for bits in WIDTHS}
    names |= {f"b{b}-synops{round(100 * s)}": f"student, {b} bits, {s:g} of the synops" for b, s in BUDGETS}
    found = {words: grid.of(data, cell) for cell, words in names.items()}
    return {
        words: (mean(c["energy_J"] for c in group) * 1e6, _accuracy(group), group)
        for words, group in found.items()
        if group
    }


def front(points: dict[str, tuple[float, float, list[Cell]]]) -> set[str]:
    """Names of the points that no other beats in both energy and accuracy."""
    return {
        name for name, (energy, accuracy, _) in points.items()
        if not any(e <= energy and a >= accuracy and (e, a) != (energy, accuracy) for e, a, _ in points.values())
    }  # fmt: skip


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
