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

from deploy import graph as nir
from deploy.errors import GraphError
from deploy.folding import factor
from deploy.graph.discrete import discretize
from deploy.lower_cells import Cell, FloatArray, refuse
from deploy.lower_synapses import bias, ways

Spikes = npt.NDArray[np.uint8]
CHUNK: Final = 64  # samples at once: an unfolded 5 x 5 convolution of 32 channels then takes some 100 MB


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
    chunks = [
        _Run(graph, populations, spikes[:, start : start + CHUNK] * unit).all_steps()
        for start in range(0, spikes.shape[1], CHUNK)
    ]
    return _joined(chunks, [spikes[:, start : start + CHUNK].shape[1] for start in range(0, spikes.shape[1], CHUNK)])


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


class _Run:
    """One batch through the graph, step by step."""

    def __init__(self, graph: nir.Graph, populations: tuple[Layer, ...], inputs: FloatArray) -> None:
        self.graph, self.inputs = graph, inputs
        self.layers = {layer.name: layer for layer in populations}
        self.pooled = {b.node.name: b for layer in populations for b in layer.blocks}
        batch = inputs.shape[1]
        self.values = {node.name: np.zeros((batch, *graph.output_shape(node.name))) for node in graph.nodes}
        self.current = {name: np.zeros((batch, *layer.cell.shape)) for name, layer in self.layers.items()}
        self.membrane = {name: np.zeros_like(state) for name, state in self.current.items()}
        self.spikes: dict[str, list[Spikes]] = {
            n: [] for n, layer in self.layers.items() if layer.threshold is not None
        }
        self.highest = dict.fromkeys(self.layers, -np.inf)
        self.sums: dict[str, tuple[FloatArray, FloatArray]] = {}
        self.waiting: dict[str, list[FloatArray]] = {}

    def all_steps(self) -> Seen:
        for frame in self.inputs:
            self._step(frame)
        steps = len(self.inputs)
        return Seen(
            {name: np.stack(spikes) for name, spikes in self.spikes.items()},
            {name: self.membrane[name] for name in self.layers if name not in self.spikes},
            {name: total / steps for name, (total, _) in self.sums.items()},
            {name: total / steps for name, (_, total) in self.sums.items()},
            self.highest,
        )

    def _step(self, frame: FloatArray) -> None:
        before = self.values
        self.values = {}
        for node in self.graph.nodes:
            if isinstance(node, nir.Input):
                self.values[node.name] = frame
                continue
            sources = self.graph.sources(node.name)
            late = [(source, node.name) in self.graph.recurrent for source in sources]
            given = [before[s] if old else self.values[s] for s, old in zip(sources, late, strict=True)]
            arriving = np.zeros((frame.shape[0], *self.graph.input_shape(node.name))) + sum(
                x.reshape(frame.shape[0], *self.graph.input_shape(node.name)) for x in given
            )
            self.values[node.name] = self._out(node, arriving)

    def _out(self, node: nir.Node, x: FloatArray) -> FloatArray:
        if isinstance(node, nir.Neuron):
            return self._fire(self.layers[node.name], x)
        if isinstance(node, (nir.Affine, nir.Conv2d)):
            self._note(node.name, x)
            return apply(node, node.weight, x)
        if isinstance(node, nir.Pool2d):
            return _pool(node, x, self.graph.output_shape(node.name))
        if isinstance(node, nir.Delay):
            return self._late(node, x)
        return x.reshape(x.shape[0], *self.graph.output_shape(node.name))  # Flatten, Output

    def _fire(self, layer: Layer, x: FloatArray) -> FloatArray:
        name = layer.name
        x = x * layer.cell.gain * _threshold(layer.cell)[1]
        if layer.alpha is not None:
            self.current[name] = x = layer.alpha * self.current[name] + x
        v = layer.beta * self.membrane[name] + x + layer.bias
        self.highest[name] = max(self.highest[name], float(v.max()))
        self.membrane[name] = v
        if layer.threshold is None:
            return v
        fired = v > layer.threshold
        self.membrane[name] = v - fired * (layer.threshold if self.graph.reset == "subtract" else v)
        self.spikes[name].append(fired.astype(np.uint8))
        return fired.astype(np.float64)

    def _note(self, name: str, x: FloatArray) -> None:
        axes = (0,) if x.ndim == 2 else (0, 2, 3)
        old = self.sums.get(name, (np.zeros(x.shape[1]), np.zeros(x.shape[1])))
        self.sums[name] = (old[0] + x.mean(axes), old[1] + (x * x).mean(axes))

    def _late(self, node: nir.Delay, x: FloatArray) -> FloatArray:
        assert self.graph.dt is not None, "a graph with a Delay has a time step"
        steps = round(float(np.max(node.delay)) / self.graph.dt)
        queue = self.waiting.setdefault(node.name, [np.zeros_like(x)] * steps)
        queue.append(x)
        return queue.pop(0)


def apply(node: nir.Affine | nir.Conv2d, weights: FloatArray, x: FloatArray) -> FloatArray:
    """Sums ``[B, *out]`` of ``x [B, *in]``, without bias."""
    if isinstance(node, nir.Affine):
        dense: FloatArray = x.reshape(len(x), -1) @ weights.T
        return dense
    (ph, pw), (sh, sw), (dh, dw) = node.padding, node.stride, node.dilation
    padded = np.pad(x, ((0, 0), (0, 0), (ph, ph), (pw, pw)))
    kh, kw = weights.shape[2:]
    windows = np.lib.stride_tricks.sliding_window_view(padded, ((kh - 1) * dh + 1, (kw - 1) * dw + 1), axis=(2, 3))
    windows = windows[:, :, ::sh, ::sw, ::dh, ::dw]  # [B, in, H, W, kh, kw]
    inputs = np.split(windows, node.groups, axis=1)
    parts = [
        np.tensordot(w, v, ((1, 2, 3), (1, 4, 5))) for w, v in zip(np.split(weights, node.groups), inputs, strict=True)
    ]
    sums: FloatArray = np.concatenate(parts).transpose(1, 0, 2, 3)
    return sums


def _pool(node: nir.Pool2d, x: FloatArray, shape: tuple[int, ...]) -> FloatArray:
    (ph, pw), (sh, sw) = node.padding, node.stride
    padded = np.pad(x, ((0, 0), (0, 0), (ph, ph), (pw, pw)))
    windows = np.lib.stride_tricks.sliding_window_view(padded, node.kernel_size, axis=(2, 3))[:, :, ::sh, ::sw]
    pooled: FloatArray = windows.sum((-2, -1))[:, :, : shape[1], : shape[2]] * factor(node)
    return pooled


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
