"""The marked tables of ``docs/training.md``: ``python -m benchmarks.training_page``, from the rows alone.

``--check`` writes nothing and fails where a table is not that of the rows.
"""

from __future__ import annotations

import argparse
import re
import sys
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any, Final

from benchmarks.rows import RESULTS, read
from benchmarks.training import JELLY, LOOP, NETWORKS
from benchmarks.training_worker import B, T

PAGE: Final = Path(__file__).resolve().parents[1] / "docs" / "training.md"
BLOCK: Final = re.compile(r"(<!-- table training-(\w+) -->\n).*?(<!-- end -->)", re.DOTALL)
Rows = dict[tuple[str, str], dict[str, Any]]


def _cases() -> list[tuple[str, str]]:
    """(network, its case)."""
    return [(spec, f"{spec}, batch {B}, T = {T}") for spec in NETWORKS.values()]


def _number(value: Any) -> str:
    return f"{value:.3g}" if isinstance(value, float) else str(value)


def _cell(rows: Rows, case: str, metric: str) -> str:
    """A figure with its goal, and the rounds it was taken in."""
    row = rows.get((case, metric))
    if row is None:
        return "not measured"
    goal = f" (goal {row['goal']}{'' if row['met'] else ', missed'})" if row["goal"] else ""
    around = rows.get((case, f"{metric}, rounds"))
    spread = "" if around is None else f"; {str(around['value']).split(' in ')[0]}"
    return f"{_number(row['value'])}{goal}{spread}"


def _table(head: Sequence[str], lines: Iterable[Sequence[str]]) -> str:
    return "\n".join("| " + " | ".join(line) + " |" for line in (head, ["---"] * len(head), *lines))


def speed(rows: Rows) -> str:
    """Ratios to the loop and to SpikingJelly."""
    lines = [
        (spec, name, *(_cell(rows, case, f"{name}: faster than {other}") for other in
                       (f"the {LOOP} loop", "the tuned loop", JELLY)))
        for spec, case in _cases()
        for name in ("ours", "ours, bfloat16")
    ]  # fmt: skip
    return _table(("network", "", "against the snntorch loop", "against the tuned loop", "against SpikingJelly"), lines)


def times(rows: Rows) -> str:
    """Milliseconds of a step."""
    names = ("ours", "ours, bfloat16", LOOP, "snntorch, tuned", JELLY, "ours, norm", "snntorch, norm")
    lines = [(spec, *(_cell(rows, case, f"{name}: a step") for name in names)) for spec, case in _cases()]
    return _table(("ms a step", *names), lines)


def memory(rows: Rows) -> str:
    """Peak memory and its share of the loop's."""
    lines = []
    for spec, case in _cases():
        for since in ("loading", "import"):
            told = [
                _cell(rows, case, f"{name}: peak memory since {since}") for name in ("ours", "ours, bfloat16", LOOP)
            ]
            share = _cell(rows, case, f"ours: peak memory since {since}, share of the loop's")
            lines.append((spec, since, *told, share))
    return _table(("network", "MB since", "ours", "ours, bfloat16", "snntorch", "ours over snntorch"), lines)


def runs(rows: Rows) -> str:
    """Whole epochs, equality, accuracy, and how busy the machine was."""
    wanted = ("epoch over", "unlike the", "difference of a gradient", "accuracy", "load before")
    found = [row for row in rows.values() if any(word in row["metric"] for word in wanted)]
    lines = [
        (row["case"], row["metric"], f"{_cell(rows, row['case'], row['metric'])} {row['unit']}".strip())
        for row in found
        if not row["metric"].endswith(", rounds")
    ]
    return _table(("case", "figure", ""), lines)


TABLES: Final[dict[str, Callable[[Rows], str]]] = {"speed": speed, "times": times, "memory": memory, "runs": runs}


def page(text: str, rows: Rows) -> str:
    """The page with its tables made anew."""
    return BLOCK.sub(lambda found: f"{found[1]}{TABLES[found[2]](rows)}\n{found[3]}", text)


def main(arguments: Sequence[str] | None = None) -> int:
    """Write the tables, or with ``--check`` compare them."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--check", action="store_true")
    options = parser.parse_args(arguments)
    rows = {(row["case"], row["metric"]): row for row in read(RESULTS).get("training", [])}
    before = PAGE.read_text(encoding="utf-8")
    after = page(before, rows)
    if options.check:
        return int(before != after)
    PAGE.write_text(after, encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
