"""Order of nodes by their edges, never by how a file or dictionary happens to list them."""

from __future__ import annotations

import heapq
import re
from collections.abc import Collection, Iterable, Mapping, Sequence

Edge = tuple[str, str]
Key = tuple[tuple[str | int, ...], str]


def natural_key(name: str) -> Key:
    """Sort key that puts ``fc2`` before ``fc10``; the name itself breaks ties.

    Digits sit at the odd places, so text is only ever compared with text.
    """
    parts = re.split(r"([0-9]{1,18})", name)
    return tuple(int(part) if place % 2 else part for place, part in enumerate(parts)), name


def successors(names: Iterable[str], edges: Iterable[Edge]) -> dict[str, list[str]]:
    """The targets of each node, in natural order."""
    result: dict[str, list[str]] = {name: [] for name in names}
    for source, target in edges:
        result[source].append(target)
    return {name: sorted(targets, key=natural_key) for name, targets in result.items()}


def recurrent_edges(names: Collection[str], edges: Collection[Edge], roots: Iterable[str]) -> frozenset[Edge]:
    """The edges that close a cycle when one walks depth first from ``roots``; without them no cycle is left.

    A recurrent edge carries what its source sent one step earlier. The answer depends on names and edges
    only, not on the order in which they are given.
    """
    following = successors(names, edges)
    starts = [*sorted(roots, key=natural_key), *sorted(names, key=natural_key)]
    finished: set[str] = set()
    closing: set[Edge] = set()
    for start in starts:
        if start not in finished:
            _walk(start, following, finished, closing)
    return frozenset(closing)


def _walk(start: str, following: Mapping[str, Sequence[str]], finished: set[str], closing: set[Edge]) -> None:
    path = {start}
    stack = [(start, iter(following[start]))]
    while stack:
        name, targets = stack[-1]
        target = next(targets, None)
        if target is None:
            stack.pop()
            path.discard(name)
            finished.add(name)
        elif target in path:
            closing.add((name, target))
        elif target not in finished:
            path.add(target)
            stack.append((target, iter(following[target])))


def topological(names: Collection[str], edges: Collection[Edge]) -> tuple[str, ...]:
    """Names so that each edge goes forward; nodes free to move are in natural order. ``edges`` have no cycle."""
    following = successors(names, edges)
    waiting = dict.fromkeys(names, 0)
    for _, target in edges:
        waiting[target] += 1
    ready = [natural_key(name) for name, count in waiting.items() if count == 0]
    heapq.heapify(ready)
    order: list[str] = []
    while ready:
        name = heapq.heappop(ready)[1]
        order.append(name)
        for target in following[name]:
            waiting[target] -= 1
            if waiting[target] == 0:
                heapq.heappush(ready, natural_key(target))
    return tuple(order)
