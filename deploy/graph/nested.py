"""Nested NIR graphs taken apart into one flat list of nodes and edges, names joined by a dot."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import islice
from typing import Any

from deploy.errors import GraphError
from deploy.graph import block, coerce
from deploy.graph.coerce import Shape
from deploy.graph.finding import Finding
from deploy.graph.nodes import Input, Node, Output
from deploy.graph.order import Edge
from deploy.graph.parse import node_type, parse_node
from deploy.graph.problems import Problem

MAX_DEPTH = 16
"""Graphs within graphs; deeper ones are refused (an object graph may contain itself)."""

MAX_EDGES = 2**20
"""Edges after joining; a nested graph with many feeders and readers multiplies them."""


@dataclass
class Flat:
    """Nodes and edges of all levels while they are being gathered.

    Attributes:
        nodes: Every node by its full name, the inner Input and Output nodes included.
        edges: Edges by full names; several are one.
        junctions: Inner Input and Output nodes, which are removed at the end.
        root: Metadata of the outermost graph.
        metadata: Metadata of nested graphs by name.
        problems: Everything that is wrong.
        notes: Everything worth saying.
    """

    nodes: dict[str, Node] = field(default_factory=dict)
    edges: list[Edge] = field(default_factory=list)
    junctions: list[str] = field(default_factory=list)
    root: object = None
    metadata: dict[str, object] = field(default_factory=dict)
    problems: list[Problem] = field(default_factory=list)
    notes: list[Finding] = field(default_factory=list)


@dataclass(frozen=True)
class _Ends:
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]


def flatten(tree: Mapping[str, Any]) -> Flat:
    """All nodes and edges below ``tree``; a single node becomes a graph of one."""
    flat = Flat()
    try:
        if node_type(tree) != "NIRGraph":
            tree = {"nodes": {node_type(tree).lower(): tree}, "edges": [], "type": "NIRGraph"}
        flat.root = tree.get("metadata")
        _gather(tree, "", flat, 0)
    except GraphError as error:
        flat.problems.append(Problem("", error))
    return flat


def _gather(tree: Mapping[str, Any], prefix: str, flat: Flat, depth: int) -> _Ends:
    """Add one level to ``flat``; the full names of its Input and Output nodes."""
    if depth > MAX_DEPTH:
        raise _fault("graphs are nested too deep", f"more than {MAX_DEPTH} levels", f"{MAX_DEPTH} levels")
    _check_fields(tree)
    inner = {key: _node(key, value, prefix, flat, depth) for key, value in _members(tree).items()}
    edges = dict.fromkeys(_edges(tree, prefix, flat))
    spare = [key for key in inner if all(key not in edge for edge in edges)]
    for source, target in edges:
        _connect(source, target, inner, prefix, flat, spare)
    made = [flat.nodes[prefix + key] for key, ends in inner.items() if ends is None and prefix + key in flat.nodes]
    return _Ends(
        tuple(node.name for node in made if isinstance(node, Input)),
        tuple(node.name for node in made if isinstance(node, Output)),
    )


def _check_fields(tree: Mapping[str, Any]) -> None:
    unknown = sorted(str(key) for key in tree if key not in ("type", "nodes", "edges", "metadata"))
    missing = [key for key in ("nodes", "edges") if key not in tree]
    if unknown or missing:
        got = "fields " + coerce.shorten(", ".join(map(str, tree)))
        raise _fault("a graph lacks a field, or has one that is not known", got, "type, nodes, edges, metadata")


def _members(tree: Mapping[str, Any]) -> Mapping[str, Any]:
    members = tree["nodes"]
    if not isinstance(members, Mapping):
        raise _fault("the nodes of a graph are not a group", coerce.shorten(members), "a group with one group per node")
    return members


def _node(key: str, tree: Any, prefix: str, flat: Flat, depth: int) -> _Ends | None:
    """Add one member to ``flat``; its ends if it is a graph itself, None for a plain node."""
    name = prefix + str(key)
    try:
        if node_type(tree) == "NIRGraph":
            ends = _gather(tree, name + ".", flat, depth + 1)
            flat.junctions += [*ends.inputs, *ends.outputs]
            ours, foreign = block.split(tree.get("metadata"))
            if ours or foreign:
                flat.metadata[name] = {**foreign, block.KEY: ours} if ours else foreign
            return ends
        node, notes = parse_node(name, tree)
    except GraphError as error:
        flat.problems.append(Problem(name, error))
        return None
    if name in flat.nodes:
        flat.problems.append(
            Problem(name, _fault("two nodes have the same name once flat", name, "names of their own"))
        )
    flat.nodes[name] = node
    flat.notes += notes
    return None


def _edges(tree: Mapping[str, Any], prefix: str, flat: Flat) -> list[Edge]:
    """The edges of one level; doubled ones are reported and taken once, as other readers do."""
    rows = tree["edges"]
    rows = rows.tolist() if hasattr(rows, "tolist") else rows
    if not isinstance(rows, (list, tuple)):
        raise _fault("the edges of a graph are not a list", coerce.shorten(rows), "pairs of names")
    edges = [_edge(row) for row in rows]
    for (source, target), times in Counter(edges).items():
        if times > 1:
            what = f"the edge {prefix}{source} -> {prefix}{target} is there {times} times; it is taken once"
            flat.notes.append(Finding("warning", prefix + target, what))
    return edges


def _edge(row: object) -> Edge:
    if not isinstance(row, (list, tuple)) or len(row) != 2:
        raise _fault("an edge is not a pair of names", coerce.shorten(row), "(source, target)")
    return coerce.text("edges", row[0]), coerce.text("edges", row[1])


def _connect(
    source: str, target: str, inner: Mapping[str, _Ends | None], prefix: str, flat: Flat, spare: Sequence[str]
) -> None:
    """Add one edge, a nested graph standing for its only Output as a source and its only Input as a target."""
    try:
        for name in (source, target):
            if name not in inner:
                raise _not_there(name, inner, prefix, spare)
        flat.edges.append((_end(source, inner, prefix, "outputs"), _end(target, inner, prefix, "inputs")))
    except GraphError as error:
        flat.problems.append(Problem(prefix + target, error))


def _not_there(name: str, inner: Mapping[str, object], prefix: str, spare: Sequence[str]) -> GraphError:
    """The error of an edge without a node; a node without an edge may be the one that was meant, which is only said."""
    fault = _fault(
        "an edge names a node that is not there", prefix + name, coerce.shorten(", ".join(islice(inner, 20)))
    )
    if len(spare) == 1:
        fault.next_step = (
            f"no edge names {prefix + spare[0]!r}: if it is meant, rename it to {name!r} in the file "
            "(docs/interop.md shows how), else export the network again"
        )
    return fault


def _end(name: str, inner: Mapping[str, _Ends | None], prefix: str, side: str) -> str:
    ends = inner[name]
    if ends is None:
        return prefix + name
    names: tuple[str, ...] = getattr(ends, side)
    if len(names) != 1:
        got = f"{len(names)} {side} in {prefix + name!r}"
        raise _fault("an edge to or from a nested graph needs one end to join", got, f"one of its {side}")
    return names[0]


@dataclass(frozen=True)
class Joint:
    """An inner Input or Output that was removed, and what it said about the nodes that feed it."""

    name: str
    shape: Shape
    sources: tuple[str, ...]


class _Wires:
    """Edges by both ends, so that a node is removed without looking at all of them."""

    def __init__(self, edges: Iterable[Edge]) -> None:
        self.before: dict[str, dict[str, None]] = {}
        self.after: dict[str, dict[str, None]] = {}
        for edge in edges:
            self.add(edge)

    def add(self, edge: Edge) -> None:
        self.after.setdefault(edge[0], {})[edge[1]] = None
        self.before.setdefault(edge[1], {})[edge[0]] = None

    def has(self, edge: Edge) -> bool:
        return edge[1] in self.after.get(edge[0], {})

    def remove(self, name: str) -> tuple[list[str], list[str]]:
        before, after = list(self.before.pop(name, {})), list(self.after.pop(name, {}))
        for source in before:
            self.after.get(source, {}).pop(name, None)
        for target in after:
            self.before.get(target, {}).pop(name, None)
        return before, after

    def edges(self) -> list[Edge]:
        return [(source, target) for source, targets in self.after.items() for target in targets]


def join(flat: Flat) -> list[Joint]:
    """Remove the inner Input and Output nodes, each source joined to each target; what they declared."""
    joints: list[Joint] = []
    wires = _Wires(flat.edges)
    budget = MAX_EDGES
    for name in flat.junctions:
        node = flat.nodes.pop(name, None)
        if not isinstance(node, (Input, Output)):
            continue
        before, after = wires.remove(name)
        joints.append(Joint(name, node.shape, tuple(before)))
        if node.metadata:
            flat.metadata[name] = node.metadata
        budget -= len(before) * len(after)
        if name in before or budget < 0:
            what = "a loop of edges without any node" if name in before else "too many edges once flat"
            flat.problems.append(Problem(name, _fault(what, name, f"at most {MAX_EDGES} edges, each loop with a node")))
            break
        _bridge(name, before, after, wires, flat)
    flat.edges = wires.edges()
    return joints


def _bridge(name: str, before: list[str], after: list[str], wires: _Wires, flat: Flat) -> None:
    for edge in ((source, target) for source in before for target in after):
        if wires.has(edge):
            got = f"{edge[0]} -> {edge[1]} beside {name}"
            flat.problems.append(
                Problem(name, _fault("two ways join the same nodes", got, "one way from node to node"))
            )
        wires.add(edge)


def _fault(what: str, got: str, allowed: str) -> GraphError:
    return GraphError(what, got=got, allowed=allowed, next_step="export the network again with the nir package")
