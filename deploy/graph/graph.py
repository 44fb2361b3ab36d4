"""The Graph: typed nodes in the order of their edges, with shapes, time step and reset rule settled."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import get_args

from deploy.errors import GraphError
from deploy.graph import coerce
from deploy.graph.coerce import Shape
from deploy.graph.finding import Finding
from deploy.graph.neurons import Neuron
from deploy.graph.nodes import Input, Metadata, Node, Output, Synapse, same
from deploy.graph.order import Edge, natural_key, recurrent_edges, topological
from deploy.graph.problems import Problem, raise_first
from deploy.graph.quantization import Quantization, Reset, RunSettings
from deploy.graph.shapes import Shapes, completed, infer


@dataclass(frozen=True, eq=False)
class Graph:
    """A network: nodes in topological order and the edges between them.

    Give nodes and edges in any order; the graph sorts them, infers every shape, spreads scalar neuron
    parameters over their population and refuses what does not fit. Several edges into a node are added.

    Attributes:
        nodes: In topological order (recurrent edges left out), ties in natural order of the names.
        edges: ``(source, target)``, in the order of the nodes.
        dt: Time step in seconds; None where no node depends on it.
        reset: What a spike does: ``zero``, ``value`` (v = v_reset), ``subtract`` (v -= v_threshold); None
            where no node spikes.
        settings: How the network is to be fed, as far as its file says.
        metadata: What other tools stored with the graph; kept, written back, not interpreted.
        notes: What reading found worth saying; not part of equality.
        recurrent: The edges that close a cycle; what they carry arrives one step later.
        shapes: Input and output shape of each node, by name.
    """

    nodes: tuple[Node, ...]
    edges: tuple[Edge, ...]
    dt: float | None = None
    reset: Reset | None = None
    settings: RunSettings = field(default_factory=RunSettings)
    metadata: Metadata = field(default_factory=dict)
    notes: tuple[Finding, ...] = ()
    recurrent: frozenset[Edge] = field(init=False)
    shapes: Mapping[str, Shapes] = field(init=False)
    _index: Mapping[str, Node] = field(init=False, repr=False)
    _sources: Mapping[str, tuple[str, ...]] = field(init=False, repr=False)
    _targets: Mapping[str, tuple[str, ...]] = field(init=False, repr=False)

    def __post_init__(self) -> None:
        raise_first([*_check_settings(self.dt, self.reset), *check_wiring(self.nodes, self.edges)])
        order, recurrent = arrange(self.nodes, self.edges)
        place = {node.name: index for index, node in enumerate(order)}
        shapes, problems = infer(order, self.edges, recurrent)
        raise_first(problems)
        raise_first(_check_population(order, shapes, self.settings.population))
        nodes = tuple(completed(node, shapes[node.name]) for node in order)
        edges = tuple(sorted(self.edges, key=lambda edge: (place[edge[0]], place[edge[1]])))
        self._set(nodes=nodes, edges=edges, recurrent=recurrent, shapes=shapes)
        self._set(
            _index={node.name: node for node in nodes},
            _sources=_grouped((target, source) for source, target in edges),
            _targets=_grouped(edges),
        )

    def _set(self, **values: object) -> None:
        for name, value in values.items():
            object.__setattr__(self, name, value)

    def node(self, name: str) -> Node:
        """The node of that name.

        Raises:
            GraphError: there is none.
        """
        if name not in self._index:
            raise GraphError("the graph has no node of that name", got=name, allowed=", ".join(self._index))
        return self._index[name]

    @property
    def inputs(self) -> tuple[Input, ...]:
        """The Input nodes."""
        return tuple(node for node in self.nodes if isinstance(node, Input))

    @property
    def outputs(self) -> tuple[Output, ...]:
        """The Output nodes."""
        return tuple(node for node in self.nodes if isinstance(node, Output))

    @property
    def quantization(self) -> Quantization | None:
        """The integer grids by node name, None where the graph has none."""
        neurons = {n.name: n.quantization for n in self.nodes if isinstance(n, Neuron) and n.quantization}
        synapses = {n.name: n.quantization for n in self.nodes if isinstance(n, Synapse) and n.quantization}
        return Quantization(neurons, synapses) if neurons or synapses else None

    def sources(self, name: str) -> tuple[str, ...]:
        """Names of the nodes that feed ``name``, in the order of the nodes; recurrent ones included."""
        return self._sources.get(name, ())

    def targets(self, name: str) -> tuple[str, ...]:
        """Names of the nodes that ``name`` feeds, in the order of the nodes; recurrent ones included."""
        return self._targets.get(name, ())

    def input_shape(self, name: str) -> Shape:
        """Shape of what the node takes."""
        return self.shapes[name].input

    def output_shape(self, name: str) -> Shape:
        """Shape of what the node gives."""
        return self.shapes[name].output

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Graph):
            return NotImplemented
        parts = ("nodes", "edges", "dt", "reset", "settings", "metadata")
        return all(same(getattr(self, part), getattr(other, part)) for part in parts)

    def __hash__(self) -> int:
        return hash(self.edges)


def _grouped(pairs: Iterable[Edge]) -> dict[str, tuple[str, ...]]:
    grouped: dict[str, list[str]] = {}
    for name, other in pairs:
        grouped.setdefault(name, []).append(other)
    return {name: tuple(others) for name, others in grouped.items()}


def arrange(nodes: Sequence[Node], edges: Sequence[Edge]) -> tuple[tuple[Node, ...], frozenset[Edge]]:
    """The nodes in topological order, and the edges that close a cycle."""
    by_name = {node.name: node for node in nodes}
    recurrent = recurrent_edges(by_name, edges, [node.name for node in nodes if isinstance(node, Input)])
    order = topological(by_name, [edge for edge in edges if edge not in recurrent])
    return tuple(by_name[name] for name in order), recurrent


def check_wiring(nodes: Sequence[Node], edges: Sequence[Edge]) -> list[Problem]:
    """Everything wrong with names and edges."""
    counts = Counter(node.name for node in nodes)
    found = [
        _wiring(name, "two nodes have the same name", name, "one node of a name") for name in counts if counts[name] > 1
    ]
    allowed = coerce.shorten(", ".join(sorted(counts, key=natural_key)))
    for (source, target), times in Counter(edges).items():
        for name in (source, target):
            if name not in counts:
                found.append(_wiring("", "an edge names a node that is not there", f"{source} -> {target}", allowed))
        if times > 1:
            got = f"{source} -> {target}, {times} times"
            found.append(_wiring(target, "an edge is there more than once", got, "once"))
    found += _check_ends(nodes, edges)
    return found


def _check_ends(nodes: Sequence[Node], edges: Sequence[Edge]) -> list[Problem]:
    into = {target for _, target in edges}
    out_of = {source for source, _ in edges}
    found = []
    for kind, name in ((Input, "Input"), (Output, "Output")):
        if not any(isinstance(node, kind) for node in nodes):
            found.append(_wiring("", f"the graph has no {name} node", "none", f"at least one {name}"))
    for node in nodes:
        if isinstance(node, Input) and node.name in into:
            found.append(_wiring(node.name, "an edge goes into an Input node", "an edge into it", "edges out of it"))
        if isinstance(node, Output) and node.name in out_of:
            found.append(
                _wiring(node.name, "an edge comes out of an Output node", "an edge out of it", "edges into it")
            )
        if isinstance(node, Output) and node.name not in into:
            found.append(_wiring(node.name, "nothing leads to the Output node", "no edge", "at least one edge"))
    return found


def _check_settings(dt: float | None, reset: str | None) -> list[Problem]:
    found = []
    if dt is not None and not (math.isfinite(dt) and dt > 0):
        found.append(_wiring("", "the time step dt is not a positive number of seconds", str(dt), "seconds above 0"))
    if reset is not None and reset not in get_args(Reset):
        found.append(_wiring("", "the reset rule is not known", str(reset), ", ".join(get_args(Reset))))
    return found


def _check_population(nodes: Sequence[Node], shapes: Mapping[str, Shapes], population: int | None) -> list[Problem]:
    """The answer, which the first Output gives, has as many neurons for each class."""
    output = next(node for node in nodes if isinstance(node, Output))
    size = math.prod(shapes[output.name].input)
    if population is None or size % population == 0:
        return []
    what = "the output's neurons cannot be shared out: metadata field 'population' does not divide their number"
    return [_wiring(output.name, what, f"{size} neurons, population {population}", f"a divisor of {size}")]


def _wiring(node: str, what: str, got: str, allowed: str) -> Problem:
    return Problem(node, GraphError(what, got=got, allowed=allowed, next_step="correct the graph and export it again"))
