"""The grid's cells as figures with goals: ``python -m benchmarks.distillation`` writes ``results/distillation.json``.

The cells are made by ``neurokd reproduce`` (``make reproduce``); nothing is trained here. A mean is over the seeds that
are there, and the row says how many.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any, Final

from benchmarks import rows
from benchmarks.rows import Row
from neurokd.reproduce import RESULTS, Facts, read_cells, right_of
from neurokd.reproduce_page import IMAGES, TITLES, Line, line, mcnemar
from neurokd.reproduce_rows import PLAIN, ROWS, SETS

SINGLE: Final = ("full-l1", "full-l2", "full-kl", "sliding-l1", "sliding-l2")
#: Percent, by data set: teacher, plain student, proposed without labels, gain of the best distilled student in points.
GOALS: Final = {
    "mnist": (98.8, 98.0, 98.0, "> 0"),
    "fashion-mnist": (90.5, 88.6, 88.6, "> 0"),
    "cifar10": (60.0, 50.0, 48.0, ">= 1"),
}
#: Cells with a convolutional assistant (130,576 parameters) in the place of the two small sets' dense one.
ASSISTANTS: Final = RESULTS.parent / "assistants"
OTHER_ASSISTANT: Final = (
    " --set networks.assistant=28x28x1-16c5s2p2-32c3s2p1-80 --set training.assistant.epochs=15 --work runs/assistants"
    " --out benchmarks/results/assistants --docs runs/assistants"
)
Cells = dict[int, Facts]
BEST: Final = ("labels-t-s", "labels-t-ta-s", "start-labels-t-ta-s", "proposed", "t-ta-s", "start-t-ta-s", *SINGLE)
#: Rows on the way through an assistant, and the same student's straight way: without labels, and with.
THROUGH: Final = (("t-ta-s", "proposed"), ("labels-t-ta-s", "labels-t-s"))


def lines_of(cells: Path, data: str) -> dict[str, Line]:
    """The rows of one set that have cells."""
    found = {row.name: (row, read_cells(cells, data, row.name)) for row in ROWS}
    kept = [(row, own) for row, own in found.values() if own]
    return {row.name: line(row, own, found[row.plain or PLAIN][1], IMAGES[data]) for row, own in kept}


def figures(cells: Path, data: str, assistants: Path = ASSISTANTS) -> list[Row]:
    """One set's accuracies, gains and chances, with the goals they were meant to reach."""
    lines = lines_of(cells, data)
    teacher, plain, proposed, gain = GOALS[data]
    goals = {"teacher": teacher, "student": plain, "proposed": proposed}
    goals |= {row.name: row.poster[data] for row in ROWS if row.name in SINGLE}
    made = [
        _row(data, f"accuracy, {name}", one.mean, "%", f">= {goals[name]:g}" if name in goals else "", one.seeds)
        for name, one in lines.items()
    ]
    tried = [lines[name] for name in BEST if name in lines]
    tried = [one for one in tried if one.seeds == max(other.seeds for other in tried)]  # means of the same seeds
    best = max(tried, key=lambda one: _validation(cells, data, one), default=None)
    if best is not None and best.difference is not None:
        made.append(_row(data, "best distilled student minus plain", best.difference, "points", gain, best.seeds))
        made.append(_row(data, "best distilled student", best.row.name, "", "", best.seeds))
        made.append(_row(data, "best distilled student, p over seeds", best.p_seeds, "", "< 0.05", best.seeds))
        images = "best distilled student, p over images (McNemar)"  # beside it; the goal asks for one of the two
        made.append(_row(data, images, best.p_images, "", "", best.seeds))
    return [*made, *_through_the_assistant(cells, data, assistants)]


def _validation(cells: Path, data: str, one: Line) -> float:
    """Mean accuracy on validation images: the best row is chosen by it, so that its test figures stay unbiased."""
    found = read_cells(cells, data, one.row.name).values()
    return float(sum(facts["validation"] for facts in found)) / len(found)


def _through_the_assistant(cells: Path, data: str, assistants: Path) -> list[Row]:
    """T -> TA -> S against T -> S, without and with labels: from fresh weights, as part of the assistant, and with
    another assistant than the grid's."""
    made = []
    for far, near in THROUGH:
        straight = read_cells(cells, data, near)
        goal = ">= 0" if far == "t-ta-s" else ""
        for row in (far, f"start-{far}"):
            made += _gain(data, f"{row} minus {near}", read_cells(cells, data, row), straight, goal)
        through = read_cells(assistants, data, far)
        taught_alike = {**straight, **read_cells(assistants, data, near)}
        made += _gain(data, f"{far} minus {near}, convolutional TA", through, taught_alike, "", OTHER_ASSISTANT)
    return made


def _gain(data: str, what: str, ours: Cells, theirs: Cells, goal: str, options: str = "") -> list[Row]:
    """Points that one row's students are above another's, over the seeds that both have."""
    shared = sorted(ours.keys() & theirs.keys())
    if not shared:
        return []
    gain = sum(ours[seed]["accuracy"] - theirs[seed]["accuracy"] for seed in shared) / len(shared)
    pairs = [(right_of(ours[seed], IMAGES[data]), right_of(theirs[seed], IMAGES[data])) for seed in shared]
    return [
        _row(data, what, gain, "points", goal, len(shared), options),
        _row(data, f"{what}, p over images (McNemar)", mcnemar(pairs), "", "", len(shared), options),
    ]


def _row(data: str, metric: str, value: Any, unit: str, goal: str, seeds: int, options: str = "") -> Row:
    return Row(
        TITLES[data], metric, value, unit, goal, f"neurokd reproduce --data {data}{options}",
        versions={**rows.versions("torch", "numpy"), "seeds": seeds},
    )  # fmt: skip


def table(found: list[dict[str, Any]]) -> str:
    """One column a data set, one line a figure, with its goal; for the README."""
    sets = list(dict.fromkeys(row["case"] for row in found))
    by_metric: dict[str, dict[str, dict[str, Any]]] = {}
    for row in found:
        by_metric.setdefault(row["metric"], {})[row["case"]] = row
    counts = {case: [row["versions"]["seeds"] for row in found if row["case"] == case] for case in sets}
    lines = [f"| | {' | '.join(f'{case}, {_seeds(counts[case])}' for case in sets)} |", f"|---|{'---:|' * len(sets)}"]
    lines += [
        f"| {metric} | {' | '.join(_cell(cells.get(case)) for case in sets)} |" for metric, cells in by_metric.items()
    ]
    return "\n".join(lines)


def _seeds(counts: list[int]) -> str:
    low, high = min(counts), max(counts)
    return f"{low} seed{'s' * (low > 1)}" if low == high else f"{low} to {high} seeds"


def _cell(row: dict[str, Any] | None) -> str:
    if row is None or row["value"] is None:
        return ""
    value = row["value"]
    text = value if isinstance(value, str) else f"{value:.2g}" if "p over" in row["metric"] else f"{value:.2f}"
    goal = row["goal"].replace(">=", "≥").replace("<=", "≤")
    return f"{text} ({goal})" if goal else text


def main() -> int:
    """Write the figures of every set that has cells."""
    made = [row for data in SETS for row in figures(RESULTS, data)]
    if not made:
        print("no cells yet: run neurokd reproduce first")
        return 1
    print(rows.write("distillation", made))
    return 0


if __name__ == "__main__":
    sys.exit(main())
