"""What the pages written from result rows share: rows by case, tables, numbers; without torch."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final

from deploy.chip import chips

Rows = list[Mapping[str, Any]]
#: How the cases of a report's own figures begin.
REPORT: Final = "report of "
Cases = Mapping[str, Mapping[str, Mapping[str, Any]]]


def by_case(rows: Rows) -> dict[str, dict[str, Mapping[str, Any]]]:
    """Rows by case, then by metric."""
    found: dict[str, dict[str, Mapping[str, Any]]] = {}
    for row in rows:
        found.setdefault(str(row["case"]), {})[str(row["metric"])] = row
    return found


def table(head: Sequence[str], lines: Sequence[Sequence[str]], right: int = 1) -> str:
    """A Markdown table; columns from ``right`` on are right-aligned."""
    rule = ["---" if k < right else "---:" for k in range(len(head))]
    return "\n".join("| " + " | ".join(cells) + " |" for cells in (head, rule, *lines)) + "\n"


def number(value: Any) -> str:
    """Thousands with commas, small ones with three digits, a dash for nothing."""
    if value is None:
        return "—"
    if isinstance(value, str):
        return value
    return f"{value:,.0f}" if abs(value) >= 1000 or value == int(value) else f"{value:.3g}"


def every_chip() -> list[str]:
    """The chip files, without the one made for tests."""
    return [name for name in chips() if name != "toy"]
