"""The marked tables of ``docs/quantization.md``, from the fine-tuning grid's cells."""

from __future__ import annotations

import re
from collections.abc import Callable
from statistics import mean, stdev

from benchmarks.finetune_cells import COMPARED, WORDS, Grid, front, mcnemar, names, pareto_points
from benchmarks.finetune_measures import Cell
from benchmarks.finetune_sets import BUDGETS, METHODS, SEEDS, SETS, UNTRAINED, WIDTHS


def accuracy_table(grid: Grid) -> list[str]:
    """Accuracy by width and loss: mean and standard deviation over seeds."""
    lines = _head(["", *(grid.title(data) for data in grid.sets())])
    for role in ("teacher", "assistant", "student"):
        lines.append(_line(f"float {role}", [_spread(grid.of(data, role)) for data in grid.sets()]))
    for bits in WIDTHS:
        for method in (*UNTRAINED, *METHODS[1:]):
            found = [_spread(grid.of(data, f"b{bits}-{method}")) for data in grid.sets()]
            lines.append(_line(f"{bits} bits, {WORDS[method]}", found))
    return lines


def sat_table(grid: Grid) -> list[str]:
    """SAT kept on against CE alone."""
    head = [
        "",
        "",
        "accuracy : CE's",
        "points gained",
        "seeds better",
        "images only one gets right",
        "p",
    ]
    lines = _head(head)
    for data in grid.sets():
        for bits, words, cell, against in COMPARED:
            pairs = grid.pairs(data, cell, against)
            if not pairs:
                continue
            gains = [a["accuracy"] - b["accuracy"] for a, b in pairs]
            wins, losses, p = mcnemar(pairs)
            reached = " : ".join(f"{mean(pair[side]['accuracy'] for pair in pairs):.2f}" for side in (0, 1))
            better = f"{sum(g > 0 for g in gains)} of {len(gains)}"
            facts = [f"{bits} bits, {words}", reached, f"{mean(gains):+.2f}", better, f"{wins} : {losses}", f"{p:.2g}"]
            lines.append(_line(grid.title(data), facts))
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
    lines = _head(["", "budget", "way", "epochs", "validation accuracy", "within the budget", "won"])
    for data in grid.sets():
        for bits, share in BUDGETS:
            found = grid.of(data, f"b{bits}-synops{round(100 * share)}")
            for how in dict.fromkeys(one["how"] for c in found for one in c["tried"]):
                tried = [(c, one) for c in found for one in c["tried"] if one["how"] == how]
                kept, won = sum(one["fits"] for _, one in tried), sum(c["won"] == how for c, _ in tried)
                reached = f"{mean(one['validation'] for _, one in tried):.2f} %"
                epochs = ", ".join(map(str, sorted({one.get("epochs") or c["setup"]["epochs"] for c, one in tried})))
                facts = [f"{share:g} of the synops, {bits} bits", how, epochs, reached, f"{kept} of {len(tried)}"]
                lines.append(_line(grid.title(data), [*facts, f"{won}"]))
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
    lines = []
    for data in SETS:
        wanted, count = len(names(data)) * len(SEEDS), sum(len(grid.of(data, name)) for name in names(data))
        if count < wanted:
            lines.append(f"- {data}: {count} of {wanted} cells computed, the others not yet.")
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
