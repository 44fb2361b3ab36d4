"""From plain dictionaries to a :class:`Graph`, every problem collected on the way."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeVar

from deploy.errors import GraphError
from deploy.graph import block
from deploy.graph.convention import (
    mend_outputs,
    narrow_inputs,
    settle_dt,
    settle_reset,
    stretch_outputs,
)
from deploy.graph.discrete import check_rates
from deploy.graph.finding import Finding
from deploy.graph.graph import Graph, arrange, check_wiring
from deploy.graph.nested import Flat, Joint, flatten, join
from deploy.graph.neurons import Neuron
from deploy.graph.nodes import Input, Node, Output
from deploy.graph.order import Edge
from deploy.graph.problems import Problem
from deploy.graph.shapes import Shapes, infer, own_input

T = TypeVar("T")
R = TypeVar("R")
Notes = tuple[Finding, ...]


@dataclass
class Analysis:
    """Everything reading found.

    Attributes:
        graph: The graph; None if anything is wrong.
        problems: What is wrong.
        notes: What is worth saying.
    """

    graph: Graph | None = None
    problems: list[Problem] = field(default_factory=list)
    notes: list[Finding] = field(default_factory=list)


def analyse(tree: Mapping[str, Any], *, dt: float | None = None, reset: str | None = None) -> Analysis:
    """Everything there is to say about a graph given as plain dictionaries."""
    flat = flatten(tree)
    joints = join(flat)
    analysis = Analysis(problems=flat.problems, notes=flat.notes)
    stated, metadata = _graph_block(flat, analysis)
    nodes, edges, shapes = _wired(flat, joints, analysis)
    chosen_dt = _collected(analysis, settle_dt, nodes, stated.dt, dt)
    chosen_reset = _collected(analysis, settle_reset, nodes, stated.reset, reset)
    if chosen_dt is not None:
        for node in nodes:
            if isinstance(node, Neuron):
                _collected_at(node.name, analysis, node, chosen_dt)
    if not analysis.problems:
        try:
            analysis.graph = Graph(
                tuple(nodes), tuple(edges), chosen_dt, chosen_reset, stated.settings, metadata, tuple(analysis.notes)
            )
        except GraphError as error:
            analysis.problems.append(Problem("", error))
    return analysis


def _collected(
    analysis: Analysis,
    settle: Callable[[Sequence[Node], T, T], tuple[R, Notes]],
    nodes: Sequence[Node],
    stated: T,
    given: T,
) -> R | None:
    """What ``settle`` decides; its notes and errors go into the analysis."""
    try:
        chosen, notes = settle(nodes, stated, given)
    except GraphError as error:
        analysis.problems.append(Problem("", error))
        return None
    analysis.notes += notes
    return chosen


def _collected_at(name: str, analysis: Analysis, node: Neuron, dt: float) -> None:
    try:
        check_rates(node, dt)
    except GraphError as error:
        analysis.problems.append(Problem(name, error))


def _graph_block(flat: Flat, analysis: Analysis) -> tuple[block.GraphBlock, Mapping[str, object]]:
    try:
        ours, foreign = block.split(flat.root)
        if flat.metadata:
            foreign["nested graphs"] = block.plain(flat.metadata)
        stated, rest = block.graph_block(ours)
        metadata, notes = block.kept("", foreign, rest)
        analysis.notes += notes
        return stated, metadata
    except GraphError as error:
        analysis.problems.append(Problem("", error))
        return block.GraphBlock(), {}


def _wired(
    flat: Flat, joints: Sequence[Joint], analysis: Analysis
) -> tuple[list[Node], list[Edge], Mapping[str, Shapes]]:
    """Nodes and edges with the missing Input and Output nodes added, checked as far as they hold together."""
    broken = bool(analysis.problems)
    nodes = list(flat.nodes.values())
    edges = [edge for edge in flat.edges if edge[0] in flat.nodes and edge[1] in flat.nodes]
    if not broken:
        _add_inputs(nodes, edges, analysis)
    nodes, notes = narrow_inputs(nodes, edges)
    analysis.notes += notes
    shapes = _shapes(nodes, edges, [])
    arriving = {name: found.input for name, found in _arriving(edges, shapes).items()}
    nodes, notes = stretch_outputs(nodes, arriving)
    analysis.notes += notes
    nodes, notes = mend_outputs(nodes, edges, arriving)
    analysis.notes += notes
    if not broken:
        _add_outputs(nodes, edges, shapes, analysis)
        wrong = check_wiring(nodes, edges)
        analysis.problems += wrong
        broken = bool(wrong)
    found: list[Problem] = []
    shapes = _shapes(nodes, edges, found)
    # With a node missing, what follows it has no input; only what the rest says of itself is worth reporting.
    analysis.problems += [p for p in found if not broken or "not known" not in p.error.what]
    analysis.problems += [problem for joint in joints for problem in _check_joint(joint, shapes)]
    return nodes, edges, shapes


def _shapes(nodes: Sequence[Node], edges: Sequence[Edge], problems: list[Problem]) -> Mapping[str, Shapes]:
    order, recurrent = arrange(nodes, edges)
    shapes, found = infer(order, edges, recurrent)
    problems += found
    return shapes


def _arriving(edges: Sequence[Edge], shapes: Mapping[str, Shapes]) -> dict[str, Shapes]:
    return {target: Shapes(shapes[source].output, ()) for source, target in edges if source in shapes}


def _add_inputs(nodes: list[Node], edges: list[Edge], analysis: Analysis) -> None:
    fed = {target for _, target in edges}
    names = {node.name for node in nodes}
    for node in list(nodes):
        shape = own_input(node)
        if node.name in fed or isinstance(node, (Input, Output)) or shape is None:
            continue
        name = _fresh(f"input_{node.name}", names)
        nodes.append(Input(name, shape))
        edges.append((name, node.name))
        analysis.notes.append(
            Finding("warning", node.name, f"nothing feeds the node; an Input node {name!r} was added")
        )


def _add_outputs(nodes: list[Node], edges: list[Edge], shapes: Mapping[str, Shapes], analysis: Analysis) -> None:
    read_by = {source for source, _ in edges}
    names = {node.name for node in nodes}
    for node in list(nodes):
        if node.name in read_by or isinstance(node, (Input, Output)) or node.name not in shapes:
            continue
        name = _fresh(f"output_{node.name}", names)
        nodes.append(Output(name, shapes[node.name].output))
        edges.append((node.name, name))
        analysis.notes.append(
            Finding("warning", node.name, f"nothing reads the node; an Output node {name!r} was added")
        )


def _fresh(name: str, names: set[str]) -> str:
    while name in names:
        name += "_"
    names.add(name)
    return name


def _check_joint(joint: Joint, shapes: Mapping[str, Shapes]) -> list[Problem]:
    wrong = [name for name in joint.sources if name in shapes and shapes[name].output != joint.shape]
    return [
        Problem(
            joint.name,
            GraphError(
                "the declared shape is not what arrives",
                got=f"{shapes[name].output} from {name!r}",
                allowed=f"{joint.shape}",
                next_step="correct the nested graph and export it again",
            ),
        )
        for name in wrong
    ]
