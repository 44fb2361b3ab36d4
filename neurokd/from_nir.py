"""NIR -> torch: a chain of weights and neurons back as a network that can be run, distilled or fine-tuned."""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, NoReturn

import numpy as np
import torch

from deploy import fixed_point as fp
from deploy import graph as nir
from deploy.chip import chips, load_chip
from deploy.errors import ConfigError, UnsupportedNode
from deploy.graph.coerce import FloatArray
from deploy.graph.discrete import LifParameters, discretize
from deploy.lower import lower
from neurokd.grid import alpha_on_grid, on_grid
from neurokd.layer_grid import MEMORYLESS, LayerGrid
from neurokd.network import SpikingNetwork, build
from neurokd.network_layers import SpikingLayer, present
from neurokd.neurons import LIF
from neurokd.quantized import QuantizedNetwork
from neurokd.spec import NetworkSpec
from neurokd.spec_layers import Conv, Dense, LayerSpec, Pool

DEFAULT_STEPS: Final = 8
#: Decays of float32 files are this far from the grid they were written from: three roundings of 1 / tau.
_DECAY_TOLERANCE: Final = 2.0**-21
_ORDER: Final = "in each layer: a pool (or none), Flatten (or none), Affine / Linear / Conv2d, then LIF / CubaLIF / IF"


@dataclass(frozen=True)
class _Piece:
    """The nodes of one layer, and its neurons at one step of time."""

    pool: nir.Pool2d | None
    synapse: nir.Affine | nir.Conv2d
    neuron: nir.Neuron
    step: LifParameters

    @property
    def window(self) -> int:
        """Pixels of a pooling window."""
        return 1 if self.pool is None else math.prod(self.pool.kernel_size)

    def one(self, what: str) -> float:
        """The value of ``beta``, ``alpha``, ``threshold`` or ``gain`` that all neurons share."""
        values: FloatArray = getattr(self.step, what)
        if np.any(values != values.flat[0]):
            got = f"{values.min():g}..{values.max():g}"
            _refuse(f"the {what} differs between the neurons of one layer", self.neuron, got, "one value a layer")
        return float(values.flat[0])


def from_nir(
    source: str | Path | nir.Graph, *, dt: float | None = None, reset: str | None = None
) -> SpikingNetwork | QuantizedNetwork:
    """Read a chain of layers.

    The network takes images in 0..1; the file takes integers up to ``2**input_bits - 1`` where it states
    ``input_bits``, so the first weights are multiplied by that. Decays off the chip's grid of 1/4096 go to its
    nearest point, which ``network.notes`` say.

    Args:
        source: A ``.nir`` file or a graph.
        dt: Time step in seconds, where the file does not say.
        reset: Reset rule, where the file does not say; only ``zero`` can be taken.

    Returns:
        A :class:`QuantizedNetwork` where the file states an integer grid for every layer, else a
        :class:`SpikingNetwork`; in evaluation mode.

    Raises:
        GraphError, UnsupportedNode: the file cannot be read, is no chain of pool, weights and neurons, or its floats
            are off the grid it states.
        TrainingError: a sum could leave the accumulator.
    """
    graph = source if isinstance(source, nir.Graph) else nir.read(source, dt=dt, reset=reset)
    if graph.reset != "zero":
        raise UnsupportedNode(
            "only neurons that reset to zero can be trained here", where="reset", got=graph.reset, allowed="zero"
        )
    pieces = _pieces(graph)
    network = _float_network(graph, pieces).eval()
    return _quantized(graph, pieces, network) if _has_grids(pieces) else network


def _refuse(what: str, node: nir.Node, got: object, allowed: str, next_step: str = "") -> NoReturn:
    raise UnsupportedNode(what, where=f"node {node.name!r}", got=got, allowed=allowed, next_step=next_step)


def _pieces(graph: nir.Graph) -> list[_Piece]:
    left, pieces = _chain(graph), list[_Piece]()
    while left:
        pool = _take(left, (nir.Pool2d,))
        _take(left, (nir.Flatten,))
        synapse = _take(left, (nir.Affine, nir.Conv2d)) or _misplaced(graph, left)
        neuron = _take(left, nir.SPIKING) or _misplaced(graph, left)
        assert graph.dt is not None, "a graph with neurons has a time step"
        pieces.append(_Piece(pool, synapse, neuron, discretize(neuron, graph.dt)))
    return pieces


def _chain(graph: nir.Graph) -> list[nir.Node]:
    for node in graph.nodes:
        if len(graph.targets(node.name)) > 1 or len(graph.sources(node.name)) > 1 or graph.recurrent:
            _refuse("the graph is not a chain", node, "branches or cycles", "one node after the other")
    if len(graph.inputs) != 1:
        _refuse("the graph is not a chain", graph.inputs[-1], f"{len(graph.inputs)} Input nodes", "one")
    return [node for node in graph.nodes if not isinstance(node, (nir.Input, nir.Output))]


def _take(left: list[nir.Node], kinds: tuple[type[nir.Node], ...]) -> Any:
    """The next node if it is of these kinds, else None."""
    return left.pop(0) if left and isinstance(left[0], kinds) else None


def _misplaced(graph: nir.Graph, left: list[nir.Node]) -> NoReturn:
    node = left[0] if left else graph.outputs[0]
    _refuse("this node does not fit a chain of layers", node, f"{node.kind} here", _ORDER)


# Float ------------------------------------------------------------------------------------------------------------


def _float_network(graph: nir.Graph, pieces: list[_Piece]) -> SpikingNetwork:
    network = _built(graph, pieces)
    levels = float((1 << network.input_bits) - 1)
    for layer, piece in zip(network.spiking_layers(), pieces, strict=True):
        _fill(layer, piece, levels)
        levels = 1.0
    return network


def _built(graph: nir.Graph, pieces: list[_Piece]) -> SpikingNetwork:
    settings = graph.settings
    try:
        spec = NetworkSpec(graph.inputs[0].shape, tuple(part for piece in pieces for part in _spec(piece)))
        return build(
            spec, norm=False, bias=True, steps=settings.steps or DEFAULT_STEPS, input_bits=settings.input_bits or 1,
            neuron=["lif" if piece.step.alpha is None else "cuba" for piece in pieces],
            beta=[on_grid(piece.one("beta")) for piece in pieces],
            alpha=[0.0 if piece.step.alpha is None else alpha_on_grid(piece.one("alpha")) for piece in pieces],
            threshold=[piece.one("threshold") for piece in pieces], notes=_notes(graph, pieces),
            population=settings.population or 1,
        )  # fmt: skip
    except ConfigError as error:
        raise UnsupportedNode(
            f"the network has no counterpart here: {error.what}",
            where=error.where or "graph",
            got=error.got,
            allowed=error.allowed,
        ) from error


def _notes(graph: nir.Graph, pieces: list[_Piece]) -> list[str]:
    notes = [] if graph.settings.steps else [f"the file does not say how many steps it runs; {DEFAULT_STEPS} are taken"]
    for piece in pieces:
        for what, nearest in (("beta", on_grid), ("alpha", alpha_on_grid)):
            if getattr(piece.step, what) is None:
                continue
            value = piece.one(what)
            kept = nearest(value)
            if abs(kept - value) > _DECAY_TOLERANCE:
                change = f"{what} {value:.6g} became {kept:.9g}"
                notes.append(f"{piece.neuron.name}: {change}, the nearest on the chip's grid of 1/4096")
    return notes


def _spec(piece: _Piece) -> list[LayerSpec]:
    pool, node = piece.pool, piece.synapse
    parts: list[LayerSpec] = [] if pool is None else [Pool(pool.kernel_size, pool.stride, pool.padding)]
    if isinstance(node, nir.Conv2d):
        kernel = (node.weight.shape[2], node.weight.shape[3])
        return [*parts, Conv(node.weight.shape[0], kernel, node.stride, node.padding, node.groups, node.dilation)]
    return [*parts, Dense(node.weight.shape[0])]


def _fill(layer: SpikingLayer, piece: _Piece, levels: float) -> None:
    """Copy weights: on images in 0..1 instead of integers, an average instead of a sum, the input gain folded in."""
    gain, node = piece.one("gain"), piece.synapse
    window = piece.window if isinstance(piece.pool, nir.SumPool2d) else 1
    leak = piece.step.leak_bias.reshape(len(node.weight), -1)
    if np.any(leak != leak[:, :1]):
        _refuse("v_leak differs within a channel", piece.neuron, "several values", "one value a channel")
    bias = leak[:, 0] if node.bias is None else leak[:, 0] + node.bias * gain
    target = layer.synapse.bias if isinstance(layer.neuron, LIF) else layer.neuron.bias
    if node.bias is not None and not isinstance(layer.neuron, LIF):
        _refuse(
            "a bias before a synaptic current would be filtered by it", node, "a bias", "no bias before CubaLIF",
            "put it on the membrane: v_leak of the CubaLIF node",
        )  # fmt: skip
    _copy(layer.synapse.weight, node.weight * (gain * levels * window), node)
    _copy(present(target), bias, node)


def _copy(target: torch.Tensor, values: FloatArray, node: nir.Node) -> None:
    with torch.no_grad():
        target.copy_(torch.from_numpy(values).reshape(target.shape))
    if not bool(torch.isfinite(target).all()):
        _refuse("a weight is too large for float32", node, f"{np.abs(values).max():g}", "magnitudes below 3.4e38")


# Quantized --------------------------------------------------------------------------------------------------------


def _has_grids(pieces: list[_Piece]) -> bool:
    """Whether the file states the integer grid of every layer; refuses one that states some."""
    without: list[nir.Node] = []
    for piece in pieces:
        without += [node for node in (piece.synapse, piece.neuron) if node.quantization is None]
    if without and len(without) < 2 * len(pieces):
        allowed = "a grid in the neurokd metadata of every synapse and neuron, or of none"
        what = "part of the network is on an integer grid, and this node is not"
        _refuse(what, without[0], "no grid", allowed, "quantize the whole network again")
    return not without


def _quantized(graph: nir.Graph, pieces: list[_Piece], network: SpikingNetwork) -> QuantizedNetwork:
    lower(graph, strict=False)  # refuses floats that are off the grid the file states
    chip = graph.settings.chip or "loihi2"
    accumulator = load_chip(chip).formats.accumulator_bits if chip in chips() else fp.STATE_BITS
    largest, grids = (1 << network.input_bits) - 1, {}
    for layer, piece in zip(network.spiking_layers(), pieces, strict=True):
        grids[layer.name] = _grid(piece, 1.0 / (largest * piece.window), min(accumulator, fp.STATE_BITS))
        largest = 1
    quantized = QuantizedNetwork(network, grids, chip).eval()
    quantized.check_exact()
    return quantized


def _grid(piece: _Piece, unit: float, accumulator_bits: int) -> LayerGrid:
    synapse, neuron, alpha = piece.synapse.quantization, piece.neuron.quantization, piece.step.alpha
    assert synapse is not None
    assert neuron is not None
    return LayerGrid(
        scale=neuron.scale, unit=unit, weight_exp=synapse.weight_exp, weight_bits=synapse.weight_bits,
        sign_mode=synapse.sign_mode, vth=round(piece.one("threshold") / neuron.scale),
        du=MEMORYLESS if alpha is None else fp.decay_from_factor(piece.one("alpha")) - fp.CURRENT_DECAY_OFFSET,
        dv=fp.decay_from_factor(piece.one("beta")), accumulator_bits=accumulator_bits,
    )  # fmt: skip
