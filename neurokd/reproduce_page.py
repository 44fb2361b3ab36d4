"""``docs/results.md`` and its picture, from the cells of :mod:`neurokd.reproduce`: our figures beside the poster's."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
from scipy import stats

from deploy.files import atomic_path
from neurokd.reproduce import Facts, missing, read_cells, right_of
from neurokd.reproduce_rows import PLAIN, PLAIN_OTHER, ROWS, Row

IMAGES: Final = {"mnist": 10_000, "fashion-mnist": 10_000, "cifar10": 10_000, "digits": 450}
TITLES: Final = {
    "mnist": "MNIST", "fashion-mnist": "Fashion-MNIST", "cifar10": "CIFAR-10 (JPEG copy)", "digits": "Digits 8x8",
}  # fmt: skip
NAMES: Final = {
    "teacher": "teacher", "ta": "TA, plain", "student": "student, plain", "full-l1": "full L1", "full-l2": "full L2",
    "full-kl": "full KL", "sliding-l1": "sliding L1", "sliding-l2": "sliding L2", "proposed": "proposed, T → S",
    "t-ta": "T → TA", "t-ta-s": "T → TA → S", "labels-t-s": "with labels, T → S", "labels-t-ta": "with labels, T → TA",
    "labels-t-ta-s": "with labels, T → TA → S", "start-t-ta-s": "T → TA → S, started as part of the TA",
    "start-labels-t-ta-s": "with labels, T → TA → S, started as part of the TA", "other": "other student, plain",
    "other-labels-t-s": "other student with labels, T → S",
}  # fmt: skip
TABLES: Final = {
    1: "Table I: trained separately", 2: "Table II: distilled from the teacher, no labels",
    3: "Table III: through the TA, no labels",
    0: "Ours: labels beside the teacher's SAT, and a student of another kind",
}  # fmt: skip


@dataclass(frozen=True)
class Line:
    """A row of a table, over its seeds.

    Attributes:
        difference: Mean accuracy minus the plain student's of the same seeds, in points; None for other networks.
        p_seeds: Paired t-test over seeds, two-sided; None with fewer than 2 seeds.
        p_images: McNemar's exact test on the predictions of all seeds together, two-sided.
    """

    row: Row
    seeds: int
    mean: float
    spread: float | None
    parameters: int
    spikes: float
    difference: float | None
    p_seeds: float | None
    p_images: float | None


def line(row: Row, cells: dict[int, Facts], plain: dict[int, Facts], images: int) -> Line:
    """The figures of a row that has cells."""
    seeds = sorted(cells)
    got = np.array([cells[seed]["accuracy"] for seed in seeds])
    shared = [seed for seed in seeds if seed in plain] if row.plain else []
    differences = np.array([cells[s]["accuracy"] - plain[s]["accuracy"] for s in shared])
    varied = len(differences) > 1 and float(differences.std()) > 0
    return Line(
        row,
        len(seeds),
        float(got.mean()),
        float(got.std(ddof=1)) if len(got) > 1 else None,
        int(cells[seeds[0]]["parameters"]),
        float(np.mean([cells[seed]["spikes_per_sample"] for seed in seeds])),
        float(differences.mean()) if len(differences) else None,
        float(stats.ttest_1samp(differences, 0.0).pvalue) if varied else None,
        mcnemar([(right_of(cells[s], images), right_of(plain[s], images)) for s in shared]),
    )


def mcnemar(pairs: Sequence[tuple[Any, Any]]) -> float | None:
    """Exact two-sided p of "both are right equally often", from (ours, plain) right or wrong for each image."""
    ours = sum(int((one & ~other).sum()) for one, other in pairs)
    plain = sum(int((other & ~one).sum()) for one, other in pairs)
    return float(stats.binomtest(ours, ours + plain).pvalue) if ours + plain else None


def page(cells: Path, sets: Sequence[str], seeds: int | None, picture: str = "") -> str:
    """The text of ``docs/results.md``."""
    parts = [
        "# The poster's tables, with our networks",
        'The poster "Distilling Spikes" names no architecture, encoding, number of steps or loss weights: these are '
        "our choices, so the figures are the poster's experiment with our networks, not a reproduction of its figures. "
        "Test accuracy in percent, mean ± standard deviation over seeds; the poster's figure beside it. Differences "
        "are to the student trained on labels alone, as long and on the same views of the images: in points, with p of "
        "a paired t-test over seeds and of McNemar's exact test on all seeds' predictions together. "
        "Made by `neurokd reproduce`; one file a cell in `benchmarks/results/reproduce/`. Kinds of processors "
        "differ in the order of their sums: a seed gives the same network again on the same kind, and another "
        "network, as another seed would, on another kind.",
    ]
    if picture:
        parts.append(f"![Accuracy of every row beside the poster's]({picture})")
    for data in sets:
        parts += _set(cells, data, seeds)
    return "\n\n".join(parts) + "\n"


def _other_masters(cells: Path, data: str) -> list[str]:
    """Cells whose master's own cell is of another network, as far as they say."""
    found = []
    for row in (row for row in ROWS if row.master):
        masters = read_cells(cells, data, row.master)
        for seed, facts in read_cells(cells, data, row.name).items():
            taught, own = facts.get("master_accuracy"), masters.get(seed, {}).get("accuracy")
            if taught is not None and own is not None and not math.isclose(taught, own):
                found.append(f"{row.name} s{seed}")
    return found


def _set(cells: Path, data: str, seeds: int | None) -> list[str]:
    found = _lines(cells, data)
    parts = [f"## {TITLES[data]}", *_networks(cells, data)]
    for table, title in TABLES.items():
        rows = [one for one in found if table in (one.row.tables or (0,))]
        if rows:
            parts += [f"### {title}", _table(rows, data)]
    others = _other_masters(cells, data)
    if others:
        parts.append(f"Taught by another training of their master than its own row tells of: {', '.join(others)}.")
    absent = missing(ROWS, cells, data, seeds)
    if absent:
        parts.append(f"Not run yet: {_named(absent, len(ROWS))}.")
    broken = sorted(path.name.removesuffix(".failed.json") for path in cells.glob(f"{data}-*.failed.json"))
    if broken:
        parts.append(f"Failed: {', '.join(broken)}; the reasons are in the `.failed.json` files.")
    return parts


def _named(absent: Sequence[str], rows: int) -> str:
    """``teacher s1, ta s1; all of s2, s3`` for what is missing."""
    by_seed: dict[str, list[str]] = {}
    for name in absent:
        by_seed.setdefault(name.rsplit(" ", 1)[1], []).append(name)
    whole = [seed for seed, names in by_seed.items() if len(names) == rows]
    single = [name for seed, names in by_seed.items() if seed not in whole for name in names]
    return "; ".join([*([", ".join(single)] if single else []), *([f"all of {', '.join(whole)}"] if whole else [])])


def _networks(cells: Path, data: str) -> list[str]:
    """What was trained, in a sentence for each network; taken from the cells."""
    named = ("teacher", "ta", PLAIN, PLAIN_OTHER)
    own = [(row, read_cells(cells, data, row.name)) for row in ROWS if row.name in named]
    kept = [(row, next(iter(found.values()))) for row, found in own if found]
    if not kept:
        return []
    said = [f"{NAMES[row.name].split(',')[0]} `{facts['spec']}`, {_stage(facts['stage'])}" for row, facts in kept]
    how, shared = kept[0][1]["encoding"], kept[0][1]["networks"]
    return [
        f"{'; '.join(said)}. {how['kind'].capitalize()} encoding of {how['bits']} bits, T = {how['steps']}, "
        f"{shared.get('population', 1)} output neurons a class, {shared['neuron'].upper()} with beta {shared['beta']}, "
        f"surrogate {shared['surrogate']}."
    ]


def _stage(stage: Facts) -> str:
    seen = [f"shifted by up to {stage['shift']}"] * bool(stage["shift"]) + ["mirrored"] * bool(stage["flip"])
    return f"{stage['epochs']} epochs" + (f" on images {' and '.join(seen)}" if seen else "")


def _lines(cells: Path, data: str) -> list[Line]:
    found = [(row, read_cells(cells, data, row.name)) for row in ROWS]
    return [line(row, own, read_cells(cells, data, row.plain or PLAIN), IMAGES[data]) for row, own in found if own]


def _table(rows: Sequence[Line], data: str) -> str:
    head = "| | ours | poster | seeds | parameters | spikes a sample | to the plain student | p, seeds | p, images |"
    return "\n".join([head, "|---" + "|---:" * 8 + "|", *(_text(one, data) for one in rows)])


def _text(one: Line, data: str) -> str:
    spread = "" if one.spread is None else f" ± {one.spread:.2f}"
    poster = f"{one.row.poster[data]:.2f}" if data in one.row.poster else ""
    difference = "" if one.difference is None else f"{one.difference:+.2f}"
    chances = " | ".join("" if p is None else f"{p:.2g}" for p in (one.p_seeds, one.p_images))
    return (
        f"| {NAMES[one.row.name]} | {one.mean:.2f}{spread} | {poster} | {one.seeds} | {one.parameters:,} | "
        f"{one.spikes:,.0f} | {difference} | {chances} |"
    )


def plot(cells: Path, sets: Sequence[str], path: Path) -> None:
    """A PNG: every row of every set, ours with its spread, the poster's as a mark; rows named once, at the left."""
    import matplotlib as mpl

    mpl.use("Agg")
    from matplotlib import pyplot as plt

    shown = [(data, _lines(cells, data)) for data in sets if _lines(cells, data)]
    names = [row.name for row in ROWS if any(x.row.name == row.name for _, lines in shown for x in lines)]
    size = (4 + 3 * max(1, len(shown)), 1.5 + 0.28 * len(names))
    figure, axes = plt.subplots(
        1, max(1, len(shown)), figsize=size, squeeze=False, sharey=True, layout="constrained"
    )  # fmt: skip
    marks: dict[str, Any] = {}
    for axis, (data, lines) in zip(axes[0], shown, strict=False):
        marks |= _panel(axis, data, lines, names)
    axes[0][0].set_yticks(range(len(names)), [NAMES[name] for name in names])
    axes[0][0].invert_yaxis()
    figure.legend(marks.values(), marks.keys(), loc="outside lower center", ncols=3, frameon=False)
    with atomic_path(path) as temporary:
        figure.savefig(temporary, dpi=120, format="png", metadata={"Software": None})
    plt.close(figure)


def _panel(axis: Any, data: str, lines: list[Line], names: list[str]) -> dict[str, Any]:
    """One set's rows at their places; gives the marks by what they mean."""
    at = [names.index(x.row.name) for x in lines]
    marks: dict[str, Any] = {
        "ours, mean and deviation": axis.errorbar(
            [x.mean for x in lines], at, xerr=[x.spread or 0 for x in lines], fmt="o", ms=5
        )
    }
    told = [(x.row.poster[data], y) for x, y in zip(lines, at, strict=True) if data in x.row.poster]
    if told:
        marks["poster"] = axis.plot(*zip(*told, strict=True), "x", color="tab:red")[0]
    plain = next((x.mean for x in lines if x.row.name == PLAIN), None)
    if plain is not None:
        marks["our plain student"] = axis.axvline(plain, color="grey", lw=0.8, ls="--")
    axis.set(title=TITLES[data], xlabel="test accuracy, %")
    axis.grid(axis="x", alpha=0.3)
    return marks


def write(cells: Path, sets: Sequence[str], seeds: int | None, docs: Path) -> Path:
    """Write ``results.md`` and ``results.png`` into ``docs``; gives the page's path.

    Raises:
        FileError: the folder cannot be written.
    """
    plot(cells, sets, docs / "results.png")
    with atomic_path(docs / "results.md") as temporary:
        temporary.write_text(page(cells, sets, seeds, "results.png"), encoding="utf-8")
    return docs / "results.md"
