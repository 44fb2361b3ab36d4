"""The rows of the poster's tables and ours: who is trained, on what, by whom; and the cells that makes."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Final

from deploy.errors import ConfigError
from neurokd.recipes import WITH_LABELS

SETS: Final = ("mnist", "fashion-mnist", "cifar10")
#: How many seeds a data set has where none are asked for.
SEEDS: Final = {"mnist": 5, "fashion-mnist": 5, "cifar10": 3, "digits": 5}


@dataclass(frozen=True)
class Row:
    """One row of a table: who is trained, on what, by whom.

    Attributes:
        name: Of the row and its cells.
        tables: Where the poster shows it; empty for rows of ours.
        role: ``teacher``, ``assistant`` or ``student``: which network and stage of the configuration.
        loss: Loss text.
        master: The row whose network is the teacher; empty where labels alone teach.
        poster: The poster's accuracy in percent, by data set.
        other: A student of the other kind (:data:`neurokd.recipes.OTHER_STUDENTS`): convolutional where the grid's is
            dense, and the reverse.
        start: It starts as part of its master (:mod:`neurokd.inherit`), not from fresh weights.
    """

    name: str
    tables: tuple[int, ...]
    role: str
    loss: str
    master: str = ""
    poster: dict[str, float] = field(default_factory=dict)
    other: bool = False
    start: bool = False

    @property
    def plain(self) -> str:
        """The row this one is compared with: the same student trained on labels alone; empty for other networks."""
        own = PLAIN_OTHER if self.other else PLAIN
        return own if self.role == "student" and self.name != own else ""


def _poster(*figures: float) -> dict[str, float]:
    return dict(zip(SETS, figures, strict=True))


PLAIN: Final = "student"  # what every distilled student is compared with
PLAIN_OTHER: Final = "other"
ROWS: Final = (
    Row("teacher", (1, 2, 3), "teacher", "ce", "", _poster(98.35, 89.72, 45.43)),
    Row("ta", (1,), "assistant", "ce", "", _poster(98.17, 89.4, 45.98)),
    Row("student", (1,), "student", "ce", "", _poster(98.00, 88.64, 42.9)),
    Row("full-l1", (2,), "student", "full-l1", "teacher", _poster(96.20, 86.99, 37.90)),
    Row("full-l2", (2,), "student", "full-l2", "teacher", _poster(96.80, 87.50, 38.70)),
    Row("full-kl", (2,), "student", "full-kl", "teacher", _poster(97.36, 88.15, 39.21)),
    Row("sliding-l1", (2,), "student", "sliding-l1", "teacher", _poster(96.09, 87.28, 38.31)),
    Row("sliding-l2", (2,), "student", "sliding-l2", "teacher", _poster(96.29, 87.08, 38.89)),
    Row("proposed", (2, 3), "student", "sat-combined", "teacher", _poster(97.46, 88.30, 41.28)),
    Row("t-ta", (3,), "assistant", "sat-combined", "teacher", _poster(98.36, 89.82, 45.33)),
    Row("t-ta-s", (3,), "student", "sat-combined", "t-ta", _poster(97.56, 88.74, 42.38)),
    Row("labels-t-s", (), "student", WITH_LABELS, "teacher"),
    Row("labels-t-ta", (), "assistant", WITH_LABELS, "teacher"),
    Row("labels-t-ta-s", (), "student", WITH_LABELS, "labels-t-ta"),
    Row("start-t-ta-s", (), "student", "sat-combined", "t-ta", start=True),
    Row("start-labels-t-ta-s", (), "student", WITH_LABELS, "labels-t-ta", start=True),
    Row("other", (), "student", "ce", other=True),
    Row("other-labels-t-s", (), "student", WITH_LABELS, "teacher", other=True),
)


def rows_of(table: str) -> tuple[Row, ...]:
    """The rows of a table, ``1``, ``2``, ``3`` or ``all`` (ours too), with those they build on and the plain student.

    Raises:
        ConfigError: no such table.
    """
    if table not in ("1", "2", "3", "all"):
        raise ConfigError("no such table", where="--table", got=table, allowed="1, 2, 3, all")
    wanted = {row.name for row in ROWS if table == "all" or int(table) in row.tables} | {PLAIN}
    for row in reversed(ROWS):  # a row stands after its master
        if row.name in wanted and row.master:
            wanted.add(row.master)
    return tuple(row for row in ROWS if row.name in wanted)


def sets_of(data: str) -> tuple[str, ...]:
    """``all`` or one data set.

    Raises:
        ConfigError: no such set.
    """
    if data not in (*SETS, "digits", "all"):
        raise ConfigError("no such data set", where="--data", got=data, allowed=", ".join((*SETS, "digits", "all")))
    return SETS if data == "all" else (data,)


@dataclass(frozen=True)
class Job:
    """One cell to compute."""

    data: str
    row: Row
    seed: int


def seeds_of(data: str, seeds: int | None) -> range:
    """Seeds 0 to ``seeds - 1``, or the data set's own :data:`SEEDS`.

    Raises:
        ConfigError: no seeds.
    """
    if seeds is not None and seeds < 1:
        raise ConfigError("a grid needs seeds", where="--seeds", got=seeds, allowed="1 or more")
    return range(SEEDS[data] if seeds is None else seeds)


def jobs(table: str, data: str, seeds: int | None) -> Iterator[Job]:
    """The cells of a grid, seed after seed, masters before their pupils.

    Raises:
        ConfigError: unknown table or set, or no seeds.
    """
    rows, wanted = rows_of(table), {name: seeds_of(name, seeds) for name in sets_of(data)}
    last = max(len(own) for own in wanted.values())
    return (Job(name, row, seed) for seed in range(last) for name, own in wanted.items() if seed in own for row in rows)
