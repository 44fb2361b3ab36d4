"""What lies between populations in a graph, as synapse blocks: one block a way from a source to its target."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any, Final

import numpy as np

from deploy import folding
from deploy import graph as nir
from deploy.errors import GraphError
from deploy.lower_cells import Cell, FloatArray, refuse, whole
from deploy.program import Conv, Dense, Synapse

TAKEN: Final = "Affine, Linear, Conv2d, SumPool2d, AvgPool2d, Flatten, Delay between LIF, CubaLIF and IF populations"
MAX_WAYS: Final = 4096  # branches that part and meet double the ways each time; no student comes near it
MAX_BETWEEN: Final = 64


@dataclass(frozen=True, eq=False)
class Way:
    """One way from a source to a population.

    Attributes:
        source: Name of an input or spiking population.
        nodes: The nodes between, in the direction of the spikes.
        loops: Edges on the way that close a cycle; each takes one step.
    """

    source: str
    nodes: tuple[nir.Node, ...]
    loops: int


def ways(graph: nir.Graph, neuron: str) -> list[Way]:
    """Every way into a neuron node.

    Raises:
        UnsupportedNode: a loop of nodes without a neuron, too many ways, or a source that does not spike.
    """
    found: list[Way] = []
    for way in _ways(graph, neuron, Way("", (), 0)):
        found.append(way)
        if len(found) > MAX_WAYS:
            refuse("too many ways between populations", neuron, f"more than {MAX_WAYS}", f"at most {MAX_WAYS}")
    return found


def _ways(graph: nir.Graph, name: str, behind: Way) -> Iterator[Way]:
    if len(behind.nodes) > MAX_BETWEEN:
        refuse("too many nodes between populations", name, f"more than {MAX_BETWEEN}", f"at most {MAX_BETWEEN}")
    for source in graph.sources(name):
        node, loops = graph.node(source), behind.loops + ((source, name) in graph.recurrent)
        if isinstance(node, (nir.Input, *nir.SPIKING)):
            yield Way(source, behind.nodes, loops)
        elif isinstance(node, nir.Neuron):
            refuse("membranes do not travel, only spikes do", source, f"{node.kind} -> {name}", "a spiking source")
        elif any(node is other for other in behind.nodes):
            refuse("a loop of nodes without a neuron in it", source, f"{source} -> {name}", "a neuron in each loop")
        else:
            yield from _ways(graph, source, Way("", (node, *behind.nodes), loops))


def blocks(graph: nir.Graph, cell: Cell, taken: set[str]) -> list[Synapse]:
    """The synapse blocks into a population; ``taken`` holds the names used so far and grows."""
    made = []
    for way in ways(graph, cell.name):
        block = _block(graph, cell, way)
        names = [block.name, f"{block.name}@{way.source}", f"{block.name}@{way.source}>{cell.name}"]
        names += [f"{names[-1]}#{n}" for n in range(2, MAX_WAYS + 2)]
        block = replace(block, name=next(name for name in names if name not in taken))
        taken.add(block.name)
        made.append(block)
    return made


def bias(graph: nir.Graph, cell: Cell) -> FloatArray:
    """Float ``[n]``: what is added to the membrane each step, by the neurons' leak and by the nodes before them.

    A bias within a loop acts at every step, as in snntorch's recurrent layers; only spikes take the step of the loop.
    """
    total = np.broadcast_to(cell.parameters.leak_bias, cell.shape).astype(np.float64).copy()
    tails = {way.nodes[_weighted(cell, way) :] for way in ways(graph, cell.name)}
    for tail in sorted(tails, key=lambda nodes: [node.name for node in nodes]):
        added = _bias_of(graph, cell, tail)
        if added is not None:
            total += cell.gain * added
    flat: FloatArray = total.reshape(-1)
    return flat


def _bias_of(graph: nir.Graph, cell: Cell, tail: tuple[nir.Node, ...]) -> FloatArray | None:
    """The bias of a node with weights, spread over the population; ``tail`` begins with that node."""
    node = tail[0]
    values = getattr(node, "bias", None)
    if values is None or not np.any(values):
        return None
    if cell.parameters.alpha is not None:
        refuse(
            "a bias before a synaptic current would be filtered by it; the chip adds its bias to the membrane",
            node.name,
            f"a bias into a {cell.node.kind} node",
            "no bias (nir.Linear), or v_leak of the CubaLIF node",
            "train with bias=False before snn.Synaptic, or with neurokd's CubaLIF, whose bias is on the membrane",
        )
    if any(_delay(graph, later) for later in tail if isinstance(later, nir.Delay)):
        refuse(
            "a bias before a delay would arrive late; the chip adds its bias from the first step",
            node.name,
            "a bias, then a Delay",
            "the Delay before the weights",
        )
    spread = values[:, None, None] if isinstance(node, nir.Conv2d) else values
    return np.broadcast_to(spread, graph.output_shape(node.name)).reshape(cell.shape)


def _weighted(cell: Cell, way: Way) -> int:
    """Position of the one node with weights on a way."""
    for node in way.nodes:
        if not isinstance(node, (nir.Affine, nir.Conv2d, nir.Pool2d, nir.Flatten, nir.Delay)):
            refuse("this node has no counterpart on the chip", node.name, node.kind, TAKEN)
    places = [n for n, node in enumerate(way.nodes) if isinstance(node, (nir.Affine, nir.Conv2d))]
    if len(places) != 1:
        refuse(
            "exactly one set of weights is needed between populations",
            cell.name,
            " -> ".join((way.source, *(node.name for node in way.nodes), cell.name)),
            "one Affine, Linear or Conv2d",
            "merge linear nodes that follow each other, or put a neuron between them",
        )
    return places[0]


def _block(graph: nir.Graph, cell: Cell, way: Way) -> Synapse:
    place = _weighted(cell, way)
    node = way.nodes[place]
    for later in way.nodes[place + 1 :]:
        if isinstance(later, nir.Pool2d) or (isinstance(later, nir.Flatten) and isinstance(node, nir.Conv2d)):
            way_out = "put it after the neurons"
            refuse("a node after the weights has no counterpart", later.name, later.kind, "Delay", way_out)
    delay = way.loops + sum(_delay(graph, n) for n in way.nodes if isinstance(n, nir.Delay))
    pools = [n for n in way.nodes[:place] if isinstance(n, nir.Pool2d)]
    assert isinstance(node, (nir.Affine, nir.Conv2d))
    common = _common(node, way.source, cell.name, delay)
    if isinstance(node, nir.Affine):
        return Dense(weights=_dense_weights(graph, cell, node, pools), **common)
    return _conv(graph, cell, node, pools, common)


def _common(node: nir.Affine | nir.Conv2d, source: str, target: str, delay: int) -> dict[str, Any]:
    grid = node.quantization
    if grid is None:
        raise GraphError(
            "the weights are not quantized: the file states no integer grid for them",
            where=f"node {node.name!r}",
            got="float weights only",
            allowed="weight_exp, weight_bits and sign_mode in the node's neurokd metadata",
            next_step="quantize it first: `neurokd-deploy quantize`, or fine-tune it: `neurokd quantize`",
        )
    return {
        "name": node.name, "source": source, "target": target, "weight_exp": grid.weight_exp,
        "weight_bits": grid.weight_bits, "sign_mode": grid.sign_mode, "delay": delay,
    }  # fmt: skip


def _delay(graph: nir.Graph, node: nir.Delay) -> int:
    assert graph.dt is not None, "a graph with a Delay has a time step"
    steps = whole(node.delay / graph.dt, node.name, "delay (in time steps)")
    if np.any(steps != steps.flat[0]):
        refuse("the delay differs between neurons", node.name, f"{steps.min()}..{steps.max()} steps", "one delay")
    return int(steps.flat[0])


def _integers(cell: Cell, node: nir.Synapse, weights: FloatArray, gain: FloatArray) -> Any:
    """``weights`` float ``[out, ...]`` in units of the grid; ``gain`` ``[out]`` of the target's input."""
    assert node.quantization is not None
    unit = cell.scale * 2.0**node.quantization.weight_exp / gain
    return whole(weights / unit.reshape(-1, *(1,) * (weights.ndim - 1)), node.name, "weight")


def _dense_weights(graph: nir.Graph, cell: Cell, node: nir.Affine, pools: list[nir.Pool2d]) -> Any:
    weights = node.weight
    for pool in reversed(pools):
        weights = folding.into_dense(pool, weights, graph.input_shape(pool.name), graph.output_shape(pool.name))
    return _integers(cell, node, weights, cell.gain.reshape(-1))


def _conv(graph: nir.Graph, cell: Cell, node: nir.Conv2d, pools: list[nir.Pool2d], common: dict[str, Any]) -> Conv:
    gain = cell.gain
    if np.any(gain != gain[:, :1, :1]):
        refuse(
            "the input gain differs within a channel of a convolution",
            cell.name,
            f"{gain.min():g}..{gain.max():g}",
            "one gain for each channel",
        )
    conv = folding.ConvBlock(node.weight, node.stride, node.padding, node.dilation, node.groups)
    for pool in reversed(pools):
        conv = folding.into_conv(pool, conv, graph.input_shape(pool.name), graph.output_shape(pool.name))
    return Conv(
        weights=_integers(cell, node, conv.weights, gain[:, 0, 0]), stride=conv.stride, padding=conv.padding,
        dilation=conv.dilation, groups=conv.groups, **common,
    )  # fmt: skip
