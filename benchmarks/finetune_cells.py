"""The fine-tuning grid's cells together: by set, seed and name, in pairs, as points of accuracy against energy."""

from __future__ import annotations

import math
from collections.abc import Iterable
from statistics import mean

import numpy as np

from benchmarks.finetune_measures import Cell, unpacked
from benchmarks.finetune_sets import (
    BUDGETS,
    FEW,
    FEW_METHODS,
    FEW_WIDTHS,
    METHODS,
    ROLES,
    SEEDS,
    SETS,
    UNTRAINED,
    WIDTHS,
)

TESTED = 10_000
WORDS = {
    "none": "rounded", "mended": "rounded, means kept", "nir": "float NIR file and calibration spikes", "ce": "CE",
    "sat": "SAT", "sat-ce": "SAT + CE",
}  # fmt: skip
FEW_WORDS = f"1 image in {FEW}"
#: SAT kept on against labels alone: width, words, the cell, the cell it is compared with.
COMPARED = [
    *((b, WORDS[m], f"b{b}-{m}", f"b{b}-ce") for b in WIDTHS if b < 8 for m in ("sat", "sat-ce")),
    *((b, f"{WORDS[m]}, {FEW_WORDS}", f"b{b}-{m}-few", f"b{b}-ce-few") for b in FEW_WIDTHS for m in ("sat-ce",)),
]


def names(data: str) -> list[str]:
    """Every cell of a data set and seed."""
    more = SETS[data].more
    untrained = [method for method in UNTRAINED if more or method != "mended"]
    found = [*ROLES, *(f"b{bits}-{method}" for bits in WIDTHS for method in (*untrained, *METHODS[1:]))]
    found += [f"b{bits}-synops{round(100 * share)}" for bits, share in BUDGETS]
    return found + [f"b{bits}-{method}-few" for bits in FEW_WIDTHS for method in FEW_METHODS if more]


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


def mean_accuracy(found: list[Cell]) -> float:
    """Percent, over the cells."""
    return mean(c["accuracy"] for c in found)


def pareto_points(grid: Grid, data: str) -> dict[str, tuple[float, float, list[Cell]]]:
    """Energy in µJ, accuracy in percent, cells; means over seeds, by name. Float networks cost what their 8 bits do."""
    names = {role: f"{role} (8 bits)" for role in ("teacher", "assistant")}
    names |= {f"b{bits}-sat-ce": f"student, {bits} bits" for bits in WIDTHS}
    names |= {f"b{b}-synops{round(100 * s)}": f"student, {b} bits, {s:g} of the synops" for b, s in BUDGETS}
    found = {words: grid.of(data, cell) for cell, words in names.items()}
    return {
        words: (mean(c["energy_J"] for c in group) * 1e6, mean_accuracy(group), group)
        for words, group in found.items()
        if group
    }


def front(points: dict[str, tuple[float, float, list[Cell]]]) -> set[str]:
    """Names of the points that no other beats in both energy and accuracy."""
    return {
        name for name, (energy, accuracy, _) in points.items()
        if not any(e <= energy and a >= accuracy and (e, a) != (energy, accuracy) for e, a, _ in points.values())
    }  # fmt: skip
