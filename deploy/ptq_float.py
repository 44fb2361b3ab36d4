"""A float NIR graph made ready for quantization, and run: what its neurons did on calibration spikes, in float64.

The semantics are those of :mod:`deploy.graph.discrete` and of lowering: forward Euler, strict threshold, a recurrent
edge takes one step, and a bias acts on the membrane at every step. Input gains and thresholds that differ between
neurons are taken into the weights, so that a population has one threshold, as on the chip.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from deploy import float_model
from deploy import graph as nir
from deploy.errors import GraphError
from deploy.folding import factor
from deploy.graph.discrete import discretize
from deploy.lower_cells import Cell, FloatArray, refuse
from deploy.lower_synapses import bias, ways

Spikes = npt.NDArray[np.uint8]
CHUNK: Final = 64  # samples at once: an unfolded 5 x 5 convolution of 32 channels then takes some 100 MB
RECORD: Final = 2**25  # numbers of a batch's record


@dataclass(frozen=True, eq=False)
class Block:
    """One node with weights, on its way into a population.

    Attributes:
        node: The Affine, Linear or Conv2d node.
        from_input: Whether the input feeds it, not neurons.
        gain: float64 ``[out]``: what its sums are multiplied by on the way into the membrane.
        pooled: Factor of the pools before it: 1 / window of a mean, 1 of a sum.
    """

    node: nir.Affine | nir.Conv2d
    from_input: bool
    gain: FloatArray
    pooled: float

    @property
    def weights(self) -> FloatArray:
        """As the membrane feels them, for one unit of what arrives before the pools; of the node's shape."""
        spread = self.gain.reshape(-1, *(1,) * (self.node.weight.ndim - 1))
        return self.node.weight * spread * self.pooled


@dataclass(frozen=True, eq=False)
class Layer:
    """A population: its neurons at one step of time, the weights into it, and its whole bias.

    Attributes:
        cell: Parameters; gains are in the blocks.
        threshold: The one threshold of all neurons; None of a readout.
        beta, alpha: The decays all neurons share; alpha None without a synaptic current.
        bias: float64 of the population's shape, added to the membrane each step.
    """

    cell: Cell
    blocks: tuple[Block, ...]
    threshold: float | None
    beta: float
    alpha: float | None
    bias: FloatArray

    @property
    def name(self) -> str:
        """Of the neuron node."""
        return self.cell.name


def layers(graph: nir.Graph) -> tuple[Layer, ...]:
    """The populations of a float graph in topological order.

    Raises:
        UnsupportedNode, GraphError: what no chip's layer can hold, at its node.
    """
    _check_reset(graph)
    found = tuple(_layer(graph, node) for node in graph.nodes if isinstance(node, nir.Neuron))
    if not found:
        refuse("there are no neurons to quantize", "graph", "no neuron node", "LIF, CubaLIF, IF")
    seen: dict[str, str] = {}
    for layer in found:
        for block in layer.blocks:
            if seen.setdefault(block.node.name, layer.name) != layer.name:
                got = f"{seen[block.node.name]} and {layer.name}"
                refuse(
                    "one set of weights feeds two populations", block.node.name, got, "one set each", "copy the node"
                )
    return found


def _check_reset(graph: nir.Graph) -> None:
    spiking = [node for node in graph.nodes if isinstance(node, nir.SPIKING)]
    if spiking and graph.reset is None:
        refuse("nobody says what a spike does", spiking[0].name, "no reset rule", "zero, subtract", "state it: --reset")
    for node in spiking:
        rest = getattr(node, "v_reset", None)
        if rest is not None and np.any(rest != 0) and graph.reset != "subtract":
            got = rest[rest != 0].flat[0]
            refuse("reset to a value other than 0 has no counterpart", node.name, got, "v_reset = 0", "train with it")


def _layer(graph: nir.Graph, node: nir.Neuron) -> Layer:
    if graph.dt is None:
        refuse("the time step is not known", node.name, "no dt", "seconds", "state it: --dt SECONDS")
    cell = Cell(node, graph.output_shape(node.name), 1.0, discretize(node, graph.dt))
    if np.any(cell.gain == 0):
        refuse("the input of some neurons is multiplied by 0", node.name, "an input gain of 0", "another gain")
    threshold, relative = _threshold(cell)
    total = bias(graph, cell).reshape(cell.shape) * relative
    found = _blocks(graph, cell, np.broadcast_to(cell.gain * relative, cell.shape))
    alpha = None if cell.parameters.alpha is None else _shared(cell, "alpha", cell.parameters.alpha)
    return Layer(cell, found, threshold, _shared(cell, "beta", cell.parameters.beta), alpha, total)


def _shared(cell: Cell, what: str, values: FloatArray) -> float:
    if np.any(values != values.flat[0]):
        got = f"{values.min():g}..{values.max():g}"
        refuse(f"the decay {what} differs between neurons of one population", cell.name, got, "one value", "split it")
    return float(values.flat[0])


def _threshold(cell: Cell) -> tuple[float | None, FloatArray]:
    """One threshold for the population, and what each neuron's input and bias are multiplied by for it."""
    thresholds = cell.parameters.threshold
    if thresholds is None:
        return None, np.ones(cell.shape)
    if not np.all(thresholds > 0):
        got = f"{float(thresholds.min()):g}"
        refuse("a threshold is not above 0", cell.name, got, "above 0", "train with a positive threshold")
    common = float(thresholds.flat[0])
    return common, common / np.broadcast_to(thresholds, cell.shape)


def _blocks(graph: nir.Graph, cell: Cell, gain: FloatArray) -> tuple[Block, ...]:
    found: dict[str, Block] = {}
    for way in ways(graph, cell.name):
        node = next(n for n in way.nodes if isinstance(n, (nir.Affine, nir.Conv2d)))
        before = way.nodes[: way.nodes.index(node)]
        pooled = float(np.prod([factor(n) for n in before if isinstance(n, nir.Pool2d)]))
        from_input = isinstance(graph.node(way.source), nir.Input)
        block = Block(node, from_input, _gain_of(cell, node, gain), pooled)
        same = found.setdefault(node.name, block)
        if (same.pooled, same.from_input) != (pooled, from_input):
            refuse("one set of weights is fed by sources of different kinds", node.name, "two ways", "one set each")
    return tuple(found.values())


def _gain_of(cell: Cell, node: nir.Synapse, gain: FloatArray) -> FloatArray:
    if isinstance(node, nir.Affine):
        return gain.reshape(-1)
    if np.any(gain != gain[:, :1, :1]):
        got = f"{gain.min():g}..{gain.max():g}"
        refuse("gain or threshold differs within a channel of a convolution", cell.name, got, "one for each channel")
    return np.ascontiguousarray(gain[:, 0, 0])


# Running ----------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, eq=False)
class Seen:
    """What a float run saw.

    Attributes:
        spikes: uint8 ``[T, B, *shape]`` by spiking population.
        last: float64 ``[B, *shape]``: membranes of a readout after the last step, by name.
        mean, square: float64 by weight node: mean of what arrives and of its square, ``[in]`` or a channel each.
        highest: Largest membrane before its reset, by population.
    """

    spikes: Mapping[str, Spikes]
    last: Mapping[str, FloatArray]
    mean: Mapping[str, FloatArray]
    square: Mapping[str, FloatArray]
    highest: Mapping[str, float]


def run(graph: nir.Graph, populations: tuple[Layer, ...], spikes: npt.NDArray[Any], unit: float) -> Seen:
    """Run the float graph.

    Args:
        spikes: Integers ``[T, B, *input shape]``.
        unit: Float value of one unit of the input.
    """
    size = sum(int(np.prod(layer.cell.shape)) for layer in populations)
    together = max(1, min(CHUNK, RECORD // (3 * size * len(spikes))))
    parts = [spikes[:, start : start + together] for start in range(0, spikes.shape[1], together)]
    return _joined([_seen(graph, populations, part * unit) for part in parts], [part.shape[1] for part in parts])


def _seen(graph: nir.Graph, populations: tuple[Layer, ...], inputs: FloatArray) -> Seen:
    """One batch."""
    sums: dict[str, tuple[FloatArray, FloatArray]] = {}

    def note(node: nir.Node, x: FloatArray) -> None:
        if isinstance(node, (nir.Affine, nir.Conv2d)):
            axes = (0,) if x.ndim == 2 else (0, 2, 3)
            total, squares = sums.get(node.name, (np.zeros(x.shape[1]), np.zeros(x.shape[1])))
            sums[node.name] = (total + x.mean(axes), squares + (x * x).mean(axes))

    trace = float_model.run(graph, inputs, watch=note)
    steps = len(inputs)
    return Seen(
        {name: trace.outputs[name].astype(np.uint8) for name in trace.spiking},
        {layer.name: trace.v[layer.name][-1] for layer in populations if layer.name not in trace.spiking},
        {name: total / steps for name, (total, _) in sums.items()},
        {name: squares / steps for name, (_, squares) in sums.items()},
        {layer.name: float((trace.charged[layer.name] * _threshold(layer.cell)[1]).max()) for layer in populations},
    )


def _joined(parts: list[Seen], sizes: list[int]) -> Seen:
    first, share = parts[0], np.asarray(sizes) / sum(sizes)

    def averaged(what: str) -> dict[str, FloatArray]:
        found = {name: [getattr(part, what)[name] for part in parts] for name in getattr(first, what)}
        return {name: np.tensordot(share, np.stack(values), 1) for name, values in found.items()}

    return Seen(
        {name: np.concatenate([part.spikes[name] for part in parts], axis=1) for name in first.spikes},
        {name: np.concatenate([part.last[name] for part in parts]) for name in first.last},
        averaged("mean"),
        averaged("square"),
        {name: max(part.highest[name] for part in parts) for name in first.highest},
    )


def check_finite(seen: Seen) -> None:
    """Refuse a float network whose membranes grow without bound.

    Raises:
        GraphError: at the population.
    """
    for name, highest in seen.highest.items():
        if not np.isfinite(highest):
            raise GraphError(
                "the float network's membranes are not finite on the calibration spikes", where=f"node {name!r}",
                got=f"{highest}", allowed="finite membranes", next_step="check the file's weights and time constants",
            )  # fmt: skip
