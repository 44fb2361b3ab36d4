"""A graph rewritten so that one tool, which reads NIR in its own way, runs it with the same spikes; or why it cannot.

norse 1.1.0 (``import_nir.py``): the ``r`` of a LIF counts as 1 and an IF takes its input as it is, so their gains go
into the weights before them; ``v_reset`` and, for LIF and IF, reset by subtraction are not read; nodes it does not know
it leaves out. norse and snntorch 1.0.0 hand the axes of a Flatten to torch, where axis 0 is the batch: counted from the
end they mean the same to both.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from types import MappingProxyType
from typing import Any, Final

import numpy as np

from deploy.errors import ConfigError, UnsupportedNode
from deploy.graph.discrete import discretize
from deploy.graph.graph import Graph
from deploy.graph.neurons import IF, LIF, SPIKING, CubaLIF
from deploy.graph.nodes import Affine, Conv2d, Flatten, Input, Node, Output, SumPool2d

_NORSE: Final = (Input, Output, Affine, Conv2d, SumPool2d, Flatten, LIF, CubaLIF, IF)


def for_tool(graph: Graph, tool: str) -> Graph:
    """The graph as ``tool`` must be given it; its own floats then differ from ``graph``'s, its spikes do not.

    Args:
        graph: Any graph.
        tool: ``norse`` or ``snntorch``. SpikingJelly reads what neurokd writes as it is.

    Raises:
        ConfigError: a tool with no rewriting. UnsupportedNode: the tool cannot run this graph with the same spikes.
    """
    if tool not in _TOOLS:
        raise ConfigError("no rewriting for this tool", where="tool", got=tool, allowed=", ".join(_TOOLS))
    return _TOOLS[tool](graph)


def _for_snntorch(graph: Graph) -> Graph:
    for node in graph.nodes:
        if isinstance(node, SPIKING) and graph.reset != "zero":
            raise _cannot(node.name, "snntorch's importer resets to zero in the same step", graph.reset, "reset zero")
    return _rebuilt(graph, {node.name: _from_the_end(graph, node) for node in graph.nodes})


def _for_norse(graph: Graph) -> Graph:
    changed: dict[str, Node] = {}
    for node in graph.nodes:
        if not isinstance(node, _NORSE):
            raise _cannot(node.name, "norse leaves this node out without a word", node.kind, "nodes norse imports")
        if isinstance(node, SPIKING) and node.v_reset.any():
            raise _cannot(node.name, "norse does not read v_reset", "other values than 0", "v_reset = 0")
        if isinstance(node, LIF) and node.v_leak.any():
            raise _cannot(node.name, "norse starts membranes at v_leak", "v_leak other than 0", "v_leak = 0")
        if isinstance(node, (LIF, IF)):
            if graph.reset not in ("zero", "value"):
                raise _cannot(node.name, "norse resets LIF and IF to zero in the same step", graph.reset, "reset zero")
            _gain_into_weights(graph, node, changed)
        elif isinstance(node, CubaLIF) and (graph.reset not in ("zero", "value", "subtract") or node.v_leak.any()):
            got = "v_leak other than 0" if node.v_leak.any() else graph.reset
            raise _cannot(
                node.name, "norse uses v_leak twice and has no late resets", got, "v_leak = 0; zero, subtract"
            )
        changed[node.name] = _from_the_end(graph, changed.get(node.name, node))
    return _rebuilt(graph, changed)


def _gain_into_weights(graph: Graph, node: LIF | IF, changed: dict[str, Node]) -> None:
    """Give ``node`` the gain that norse uses, and its synapses the rest."""
    assert graph.dt is not None, "a graph with neurons has a time step"
    step = discretize(node, graph.dt)
    factor = step.gain if isinstance(node, IF) else step.gain / (1 - step.beta)
    for source in graph.sources(node.name):
        synapse = graph.node(source)
        if not isinstance(synapse, (Affine, Conv2d)) or len(graph.targets(source)) > 1:
            raise _cannot(
                node.name, "its gain can go into no weights of its own", source, "Affine, Linear, Conv2d before"
            )
        flat = factor.reshape(len(synapse.weight), -1)
        if (flat != flat[:, :1]).any():
            raise _cannot(node.name, "its gain differs within a channel", f"{flat.min():g}..{flat.max():g}", "one gain")
        each = flat[:, 0]
        weight = synapse.weight * each.reshape(-1, *[1] * (synapse.weight.ndim - 1))
        bias = None if synapse.bias is None else synapse.bias * each
        changed[source] = replace(synapse, weight=weight, bias=bias, quantization=None)
    rest = np.full(node.shape, 1.0 / graph.dt) if isinstance(node, IF) else np.ones(node.shape)
    changed[node.name] = replace(node, r=rest, quantization=None)


def _from_the_end(graph: Graph, node: Node) -> Node:
    """A Flatten whose axes mean the same with a batch axis before them."""
    if not isinstance(node, Flatten):
        return node
    rank = len(graph.input_shape(node.name))
    start, end = (axis - rank if axis >= 0 else axis for axis in (node.start_dim, node.end_dim))
    return replace(node, start_dim=start, end_dim=end)


def _rebuilt(graph: Graph, changed: Mapping[str, Node]) -> Graph:
    nodes = tuple(changed[node.name] for node in graph.nodes)
    return Graph(nodes, graph.edges, graph.dt, graph.reset, graph.settings, graph.metadata, graph.notes)


def _cannot(node: str, what: str, got: Any, allowed: str) -> UnsupportedNode:
    return UnsupportedNode(what, where=f"node {node!r}", got=got, allowed=allowed, next_step="use another tool")


_TOOLS: Final[Mapping[str, Callable[[Graph], Graph]]] = MappingProxyType(
    {"norse": _for_norse, "snntorch": _for_snntorch}
)
