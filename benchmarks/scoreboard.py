"""Every measured figure with its goal, what falls short first: ``python -m benchmarks.scoreboard [--short]``."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from benchmarks import rows

WORDS = {False: "short", True: "met", None: ""}
ORDER = {False: 0, True: 1, None: 2}
COLUMNS = ("", "topic", "case", "metric", "value", "unit", "goal")


def lines(topics: dict[str, list[dict[str, Any]]]) -> list[tuple[str, ...]]:
    """One line a row: first what falls short, then what is met, then what is only reported."""
    every = [(topic, row) for topic, found in topics.items() for row in found]
    every.sort(key=lambda pair: ORDER[pair[1]["met"]])
    return [
        (
            WORDS[row["met"]],
            topic,
            row["case"],
            row["metric"],
            number(row["value"]),
            row["unit"] or "",
            row["goal"] or "",
        )
        for topic, row in every
    ]


def number(value: object) -> str:
    """Four digits of a float; whole numbers and texts as they are."""
    if isinstance(value, float):
        return f"{value:.4g}" if abs(value) < 1e4 else f"{value:,.0f}"
    return "" if value is None else str(value)


def summary(topics: dict[str, list[dict[str, Any]]]) -> str:
    """``12 of 14 goals met, 30 figures``."""
    every = [row["met"] for found in topics.values() for row in found]
    with_goal = [ok for ok in every if ok is not None]
    return f"{sum(with_goal)} of {len(with_goal)} goals met, {len(every)} figures"


def show(table: Sequence[Sequence[str]], summary_line: str) -> None:
    """A table on a terminal, tab-separated lines in a pipe."""
    if not sys.stdout.isatty():
        print("\n".join("\t".join(line) for line in (COLUMNS, *table)))
        print(summary_line)
        return
    pretty = Table(*COLUMNS)
    for line in table:
        pretty.add_row(*line, style={"short": "bold red", "met": "green"}.get(line[0], ""))
    Console().print(pretty, summary_line)


def main(arguments: Sequence[str] | None = None) -> int:
    """Print; always 0 when the rows can be read."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--short", action="store_true", help="only what falls short of its goal")
    parser.add_argument("--results", type=Path, default=rows.RESULTS, help="the folder of results")
    options = parser.parse_args(arguments)
    topics = rows.read(options.results)
    table = [line for line in lines(topics) if line[0] == WORDS[False] or not options.short]
    show(table, summary(topics))
    return 0


if __name__ == "__main__":
    sys.exit(main())
