"""One form for every measured figure, and for what it was meant to reach.

A topic is one file ``benchmarks/results/<topic>.json``: a list of rows, one a (case, metric). Whether a goal is met is
computed from the value and the goal's text, here and again when the scoreboard is printed; nobody types it.
"""

from __future__ import annotations

import operator
import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import asdict, dataclass, field
from importlib import metadata
from math import isfinite
from pathlib import Path
from platform import python_version
from typing import Any, Final

from deploy.errors import ConfigError, DataError
from deploy.files import read_json, write_json

RESULTS: Final = Path(__file__).resolve().parent / "results"
Value = int | float | str | None
COMPARISONS: Final[dict[str, Callable[[float, float], bool]]] = {
    ">=": operator.ge, "<=": operator.le, ">": operator.gt, "<": operator.lt, "==": operator.eq, "": operator.eq,
}  # fmt: skip
GOAL: Final = re.compile(r"(>=|<=|==|>|<|)\s*(-?\d[\d_,]*(?:\.\d+)?(?:[eE][-+]?\d+)?)")


@dataclass(frozen=True)
class Row:
    """One measured figure.

    Attributes:
        case: What was measured (``"784-800-10, T = 25"``); metric: which figure of it (``"faster than Lava"``).
        value: The figure, or a text where there is none to compare.
        goal: ``">= 300"``, ``"<= 2"``, ``"== 0"`` (or plain ``"0"``), or ``""``: reported only.
        command: What to type to measure it again; seed: of everything random in it.
        versions: Of what took part; see :func:`versions`.
    """

    case: str
    metric: str
    value: Value
    unit: str = ""
    goal: str = ""
    command: str = ""
    seed: int | None = None
    versions: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if isinstance(self.value, float) and not isfinite(self.value):
            raise DataError("a figure is not finite", where=f"{self.case}: {self.metric}", got=self.value)
        met(self.value, self.goal)

    @property
    def met(self) -> bool | None:
        """Whether the goal is reached; None where there is no goal."""
        return met(self.value, self.goal)


def met(value: Value, goal: str) -> bool | None:
    """Whether ``value`` reaches ``goal``; None without a goal, False where a goal has no figure.

    Raises:
        ConfigError: the goal's text is not understood.
    """
    if not goal:
        return None
    parsed = GOAL.fullmatch(goal.strip())
    if parsed is None:
        raise ConfigError("the goal is not understood", got=goal, allowed="'>= 300', '<= 2', '== 0', '0', or ''")
    if not isinstance(value, (int, float)):
        return False
    sign, number = parsed.groups()
    return bool(COMPARISONS[sign](value, float(re.sub("[_,]", "", number))))


def as_table(row: Row) -> dict[str, Any]:
    """The row as it is stored: its fields, and ``met``."""
    return {**asdict(row), "versions": dict(row.versions), "met": row.met}


def write(topic: str, rows: Iterable[Row], folder: Path = RESULTS) -> Path:
    """Merge rows into ``<folder>/<topic>.json``: a row replaces the stored one of its case and metric. Atomic.

    Raises:
        FileError: the stored file is damaged, or the folder cannot be written.
    """
    path = folder / f"{topic}.json"
    stored = read_json(path) if path.exists() else []
    merged = {(row["case"], row["metric"]): row for row in stored}
    merged.update({(row.case, row.metric): as_table(row) for row in rows})
    write_json(path, list(merged.values()))
    return path


def read(folder: Path = RESULTS) -> dict[str, list[dict[str, Any]]]:
    """All rows by topic, with ``met`` computed anew.

    Raises:
        FileError: a file is damaged; DataError: it holds something other than rows.
    """
    topics = {}
    for path in sorted(folder.glob("*.json")):
        stored = read_json(path)
        if not isinstance(stored, list) or not all(isinstance(r, dict) and "case" in r for r in stored):
            raise DataError("the file holds no rows", where=path, got=type(stored).__name__, allowed="a list of rows")
        topics[path.stem] = [{**row, "met": met(row.get("value"), str(row.get("goal") or ""))} for row in stored]
    return topics


def versions(*packages: str) -> dict[str, str]:
    """Versions of Python and of installed packages, for a row's provenance."""
    return {"python": python_version(), **{name: metadata.version(name) for name in packages}}
