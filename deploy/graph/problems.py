"""Errors that know their node, so that all of them can be collected before one is raised."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from deploy.errors import GraphError
from deploy.graph.finding import Finding


@dataclass(frozen=True)
class Problem:
    """A :class:`GraphError` and the node it belongs to (empty: the whole graph)."""

    node: str
    error: GraphError

    def finding(self) -> Finding:
        """The problem as a line of a report."""
        where = self.error.where
        place = f" ({where})" if where and where.removeprefix("field ") not in self.error.what else ""
        return Finding(
            "error", self.node, self.error.what + place, self.error.got, self.error.allowed, self.error.next_step
        )


def raise_first(problems: Sequence[Problem], origin: str = "") -> None:
    """Raise the first problem with its place spelled out; say how many more there are."""
    if not problems:
        return
    node, error = problems[0].node, problems[0].error
    places = (origin, f"node {node!r}" if node else "", error.where)
    more = f"; {len(problems) - 1} more, `neurokd-deploy check` shows all" if len(problems) > 1 else ""
    raise type(error)(
        error.what,
        where=", ".join(place for place in places if place),
        got=error.got,
        allowed=error.allowed,
        next_step=error.next_step + more,
    ) from error
