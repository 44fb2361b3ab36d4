"""Weights that change while a network trains: ``1->0.2`` (linear), ``1@5`` (from an epoch on).

    a          always a
    a->b       from a at the start of training to b at its end, linear in steps
    a->b@m-n   a before epoch m, linear from its start to the end of epoch n, b after; without -n to the last epoch
    a@m-n      a in epochs m to n, 0 before and after; without -n to the last epoch

Epochs count from 1. A weight depends on epoch and step alone, so a run that goes on after a kill goes on with it.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from deploy.errors import ConfigError
from neurokd.loss_checks import not_negative

_FORM = re.compile(r"(?P<start>[^@>]+?)(?:->(?P<end>[^@>]+))?(?:@(?P<first>\d{1,6})(?:-(?P<last>\d{1,6}))?)?")


@dataclass(frozen=True)
class Moment:
    """A place in training.

    Args:
        done: Epochs done, with their fraction: 0 at the start, ``epochs`` at the end.
        epochs: Epochs there will be, at most.
    """

    done: float = 0.0
    epochs: int = 1


@dataclass(frozen=True)
class Schedule:
    """A weight that changes; see this file's head.

    Args:
        start: a, >= 0.
        end: b, >= 0; None where the weight does not move but starts or stops.
        first: m, from 1.
        last: n; None is the last epoch.

    Raises:
        ConfigError: a negative weight, epochs that are none.
    """

    start: float
    end: float | None = None
    first: int = 1
    last: int | None = None

    def __post_init__(self) -> None:
        for weight in (self.start, 0.0 if self.end is None else self.end):
            not_negative("weight", weight)
        if self.first < 1 or (self.last is not None and self.last < self.first):
            raise ConfigError(
                "a weight's epochs are none",
                where="loss weight",
                got=str(self),
                allowed="@first or @first-last, from 1, the last not before the first",
            )

    def at(self, moment: Moment) -> float:
        """The weight at a moment."""
        begin, stop = self.first - 1, moment.epochs if self.last is None else self.last
        if self.end is None:
            return self.start if begin <= moment.done < stop else 0.0
        share = (moment.done - begin) / max(stop - begin, 1e-9)
        return self.start + (self.end - self.start) * min(1.0, max(0.0, share))

    def scaled(self, factor: float) -> Schedule:
        """The same course, ``factor`` times as high."""
        return Schedule(self.start * factor, None if self.end is None else self.end * factor, self.first, self.last)

    def check(self, epochs: int, where: str) -> None:
        """Refuse a course that a training of so many epochs does not reach.

        Raises:
            ConfigError: it starts after the last epoch.
        """
        if self.first > epochs:
            raise ConfigError(
                "a weight starts after the last epoch",
                where=where,
                got=f"{self} in {epochs} epochs",
                allowed=f"@1 to @{epochs}",
                next_step="train longer, or start the term earlier",
            )

    def __str__(self) -> str:
        move = "" if self.end is None else f"->{self.end!r}"
        plain = self.first == 1 and self.last is None and self.end is not None
        when = "" if plain else f"@{self.first}" + ("" if self.last is None else f"-{self.last}")
        return f"{self.start!r}{move}{when}"


def parse_weight(text: str) -> float | Schedule | None:
    """A weight's text as a number or a course; None where it is neither.

    Raises:
        ConfigError: as :class:`Schedule`.
    """
    match = _FORM.fullmatch(text)
    if match is None:
        return None
    start, end, first, last = match.group("start", "end", "first", "last")
    try:
        numbers = float(start), None if end is None else float(end)
    except ValueError:
        return None
    if end is None and first is None:
        return numbers[0]
    return Schedule(*numbers, int(first or 1), None if last is None else int(last))


def weight_at(weight: float | Schedule, moment: Moment) -> float:
    """A weight at a moment."""
    return weight.at(moment) if isinstance(weight, Schedule) else weight
