"""From a ``.nir`` file, or a graph of the ``nir`` package, to a :class:`Graph`."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

import nir

from deploy.errors import GraphError
from deploy.graph import block, coerce
from deploy.graph.convention import settle_dt, settle_reset, stretch_outputs
from deploy.graph.discrete import check_rates
from deploy.graph.finding import Finding
from deploy.graph.graph import Graph, arrange, check_wiring
from deploy.graph.hdf5 import Limits, Tree, read_tree
from deploy.graph.nested import MAX_DEPTH, Flat, Joint, flatten, join
from deploy.graph.neurons import Neuron
from deploy.graph.nodes import Input, Node, Output
from deploy.graph.order import Edge
from deploy.graph.probe import Probe
from deploy.graph.problems import Problem, raise_first
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


def read(
    path: str | Path,
    *,
    dt: float | None = None,
    reset: str | None = None,
    max_bytes: int = Limits.max_bytes,
    trusted: bool = False,
) -> Graph:
    """The graph in a ``.nir`` file, in the order of its edges, every field consumed.

    Args:
        path: A file written by the ``nir`` package or :func:`deploy.graph.write`.
        dt: Time step in seconds, where the file does not state it.
        reset: ``zero``, ``value`` or ``subtract``, where the file does not state it.
        max_bytes: Refuse files that hold more than this, counted as float64.
        trusted: True skips the helper process that tries the file out first (about 0.2 s): a damaged file may then
            hang the HDF5 library. For files written a moment ago by this very process.

    Raises:
        FileError: missing or not readable.
        GraphError: not HDF5, damaged, refused, or with anything that cannot be honoured.
        UnsupportedNode: a node, or field value, with no counterpart here.
    """
    analysis = analyse_file(path, dt=dt, reset=reset, max_bytes=max_bytes, trusted=trusted)
    return _settled(analysis, str(path))


def from_nir(graph: Any, *, dt: float | None = None, reset: str | None = None) -> Graph:
    """The same for a ``nir.NIRGraph`` (or single ``nir`` node) in memory, which is left as it is.

    Raises:
        GraphError: as :func:`read`.
    """
    return _settled(analyse_nir(graph, dt=dt, reset=reset), "the NIR graph")


def _settled(analysis: Analysis, origin: str) -> Graph:
    raise_first(analysis.problems, origin)
    if analysis.graph is None:
        raise AssertionError("an analysis without problems has a graph")
    return analysis.graph


def analyse_file(
    path: str | Path,
    *,
    dt: float | None = None,
    reset: str | None = None,
    max_bytes: int = Limits.max_bytes,
    trusted: bool = False,
    probe: Probe | None = None,
) -> Analysis:
    """Everything there is to say about a file; only a file that cannot be opened at all raises.

    Args:
        path, dt, reset, max_bytes, trusted: As :func:`read`.
        probe: A running helper process to try the file out, for many files in a row.

    Raises:
        FileError: missing or not readable.
    """
    try:
        if not trusted:
            _try_out(path, max_bytes, probe)
        root, left_out = read_tree(Path(path), Limits(max_bytes=max_bytes))
        tree = _root(root)
    except GraphError as error:
        return Analysis(problems=[Problem("", error)])
    extra = [*left_out, *(f"{key!r} beside the graph" for key in root if key not in ("node", "version"))]
    analysis = analyse(tree, dt=dt, reset=reset)
    analysis.notes += [Finding("note", "", "not interpreted and not kept: " + coerce.shorten(item)) for item in extra]
    if analysis.graph is not None:
        analysis.graph = dataclasses.replace(analysis.graph, notes=tuple(analysis.notes))
    return analysis


def _try_out(path: str | Path, max_bytes: int, probe: Probe | None) -> None:
    if probe is not None:
        probe.check(path)
        return
    with Probe(max_bytes) as single:
        single.check(path)


def analyse_nir(graph: Any, *, dt: float | None = None, reset: str | None = None) -> Analysis:
    """Everything there is to say about a graph of the ``nir`` package."""
    try:
        return analyse(_tree(graph, 0), dt=dt, reset=reset)
    except GraphError as error:
        return Analysis(problems=[Problem("", error)])


def _root(root: Tree) -> Mapping[str, Any]:
    tree = root.get("node")
    if not isinstance(tree, dict):
        raise GraphError(
            "the file holds no NIR graph",
            got="top-level names " + coerce.shorten(", ".join(sorted(root)) or "(none)"),
            allowed="a group 'node', as nir.write makes it",
            next_step="give a graph written by nir.write (nir.write_data stores recorded spikes, not networks)",
        )
    return tree


def _tree(node: Any, depth: int) -> dict[str, Any]:
    """The fields of a ``nir`` object as its file would hold them."""
    if depth > MAX_DEPTH + 1 or not isinstance(node, nir.NIRNode):
        raise GraphError(
            "this is not a NIR graph" if depth <= MAX_DEPTH + 1 else "graphs are nested too deep",
            got=type(node).__name__,
            allowed=f"a node of the nir package, at most {MAX_DEPTH} graphs deep",
            next_step="give a nir.NIRGraph, or the path of a .nir file to read()",
        )
    tree = {f.name: getattr(node, f.name) for f in dataclasses.fields(node) if not f.name.endswith("put_type")}
    tree["type"] = type(node).__name__
    if isinstance(node, nir.NIRGraph):
        tree["nodes"] = {name: _tree(inner, depth + 1) for name, inner in node.nodes.items()}
    elif isinstance(node, (nir.Input, nir.Output)):
        tree["shape"] = (node.input_type or {}).get("input")
    elif isinstance(node, nir.Flatten):
        tree["input_type"] = (node.input_type or {}).get("input")
    return tree


def analyse(tree: Mapping[str, Any], *, dt: float | None = None, reset: str | None = None) -> Analysis:
    """Everything there is to say about a graph given as plain dictionaries."""
    flat = flatten(tree)
    joints = join(flat)
    analysis = Analysis(problems=flat.problems, notes=flat.notes)
    stated, metadata = _graph_block(tree, flat, analysis)
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


def _graph_block(
    tree: Mapping[str, Any], flat: Flat, analysis: Analysis
) -> tuple[block.GraphBlock, Mapping[str, object]]:
    try:
        is_graph = tree.get("type") == "NIRGraph"
        ours, foreign = block.split((tree.get("metadata") if is_graph else None) or {}, "")
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
    shapes = _shapes(nodes, edges, [])
    nodes, notes = stretch_outputs(nodes, {name: found.input for name, found in _arriving(edges, shapes).items()})
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
