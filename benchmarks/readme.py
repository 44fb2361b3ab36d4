"""Write the tables of README.md from the results: ``python -m benchmarks.readme [--check]``.

Between ``<!-- table NAME -->`` and ``<!-- end -->`` the README holds what this prints; nobody types a figure there.
"""

from __future__ import annotations

import argparse
import re
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from benchmarks import distillation, rows
from deploy.files import atomic_path

README = Path(__file__).resolve().parents[1] / "README.md"
BLOCK = re.compile(r"(<!-- table (\w+) -->\n).*?(<!-- end -->)", re.DOTALL)
Topics = dict[str, list[dict[str, Any]]]


def chain(topics: Topics) -> str:
    """One column a data set: accuracy by stage, differing spikes, cost."""
    found: dict[str, dict[str, Any]] = {}
    for row in topics.get("chain", []):
        if row["case"] != "fresh clone":
            found.setdefault(row["case"], {})[row["metric"]] = row
    metrics = list(dict.fromkeys(metric for table in found.values() for metric in table))
    lines = [f"| | {' | '.join(found)} |", f"|---|{'---:|' * len(found)}"]
    lines += [
        f"| {metric} | {' | '.join(_cell(table.get(metric)) for table in found.values())} |" for metric in metrics
    ]
    return "\n".join(lines)


def _cell(row: dict[str, Any] | None) -> str:
    if row is None or row["value"] is None:
        return ""
    value, unit = row["value"], row["unit"]
    text = f"{value:,}" if isinstance(value, int) else f"{value:,.2f}" if abs(value) < 1000 else f"{value:,.0f}"
    return f"{text} {unit}".strip() if unit in ("%", "points", "µJ", "µs", "min") else text


def measured_against_goals(*names: str) -> Callable[[Topics], str]:
    """A table of the rows that have a goal."""

    def table(topics: Topics) -> str:
        found = [row for name in names for row in topics.get(name, []) if row["goal"]]
        lines = ["| case | figure | measured | goal |", "|---|---|---:|---:|"]
        return "\n".join(
            [*lines, *(f"| {r['case']} | {r['metric']} | {_with_unit(r)} | {_goal(r['goal'])} |" for r in found)]
        )

    return table


def by_set(name: str) -> Callable[[Topics], str]:
    """The rows that have a goal, one column a data set."""

    def table(topics: Topics) -> str:
        found: dict[str, dict[str, dict[str, Any]]] = {}
        for row in topics.get(name, []):
            if row["goal"] and row["case"].endswith("seeds"):
                found.setdefault(row["case"].partition(",")[0], {})[row["metric"]] = row
        metrics = dict.fromkeys(metric for rows in found.values() for metric in rows)
        lines = [f"| | {' | '.join(found)} |", f"|---|{'---:|' * len(found)}"]
        lines += [f"| {m} | {' | '.join(_against(rows.get(m)) for rows in found.values())} |" for m in metrics]
        return "\n".join(lines)

    return table


def _against(row: dict[str, Any] | None) -> str:
    if row is None:
        return ""
    text = f"{row['value']:.2f}" if row["unit"] else f"{row['value']:.2g}"
    return f"{text} ({_goal(row['goal'])})"


def _goal(text: str) -> str:
    return text.replace(">=", "≥").replace("<=", "≤").replace("== ", "")


def _with_unit(row: dict[str, Any]) -> str:
    value = row["value"]
    number = (
        f"{value:,.3g}" if isinstance(value, float) and abs(value) < 1e3 else f"{value:,.0f}" if value else str(value)
    )
    return f"{number} {row['unit']}".strip()


TABLES: dict[str, Callable[[Topics], str]] = {
    "chain": chain,
    "distillation": lambda topics: distillation.table(topics.get("distillation", [])),
    "finetune": by_set("finetune"),
    "speed": measured_against_goals("simulator"),
}


def filled(text: str, topics: Topics) -> str:
    """The README's text with every table made anew."""

    def table(match: re.Match[str]) -> str:
        return f"{match[1]}{TABLES[match[2]](topics)}\n{match[3]}"

    return BLOCK.sub(table, text)


def main(arguments: Sequence[str] | None = None) -> int:
    """Write README.md, or with ``--check`` say whether it is up to date."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--check", action="store_true")
    options = parser.parse_args(arguments)
    text = README.read_text(encoding="utf-8")
    wanted = filled(text, rows.read())
    if options.check:
        print("README.md is up to date" if text == wanted else "README.md is not what the results say: make readme")
        return int(text != wanted)
    with atomic_path(README) as temporary:
        temporary.write_text(wanted, encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
