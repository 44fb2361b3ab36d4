"""NIR -> torch: a chain of weights and neurons back as a network that can be run, distilled or fine-tuned."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import NoReturn

import numpy as np
import torch

from deploy import graph as nir
from deploy.errors import UnsupportedNode
from deploy.graph.discrete import LifParameters, discretize
from neurokd.network import SpikingNetwork, build
from neurokd.network_layers import SpikingLayer
from neurokd.neurons import LIF, CubaLIF
from neurokd.quantized import QuantizedNetwork
from neurokd.scales import LayerGrid
from neurokd.spec import NetworkSpec
from neurokd.spec_layers import Conv, Dense, LayerSpec, Pool


@dataclass
class _Piece:
    """The nodes of one layer."""

    pool: nir.Pool2d | None = None
    synapse: nir.Affine | nir.Conv2d | None = None
    neuron: nir.Neuron | None = None
    names: list[str] = field(default_factory=list)


def from_nir(
    source: str | Path | nir.Graph, *, dt: float | None = None, reset: str | None = None
) -> SpikingNetwork | QuantizedNetwork:
    """Read a chain of layers.

    Args:
        source: A ``.nir`` file or a graph.
        dt: Time step in seconds, where the file does not say.
        reset: Reset rule, where the file does not say; only ``zero`` can be taken.

    Returns:
        A :class:`QuantizedNetwork` where the file states an integer grid for every layer, else a
        :class:`SpikingNetwork` in evaluation mode.

    Raises:
        GraphError, UnsupportedNode: the file cannot be read, or is no chain of pool, weights and neurons.
    """
    graph = source if isinstance(source, nir.Graph) else nir.read(source, dt=dt, reset=reset)
    if graph.reset != "zero":
        _refuse("only reset to zero can be trained here", "graph", graph.reset, "reset to zero")
    pieces = _pieces(graph)
    network = _float_network(graph, pieces)
    grids = [_grid(graph, piece, layer) for piece, layer in zip(pieces, network.spiking_layers(), strict=True)]
    if any(grid is None for grid in grids):
        return network.eval()
    named = {layer.name: grid for layer, grid in zip(network.spiking_layers(), grids, strict=True) if grid is not None}
    return QuantizedNetwork(network, named, graph.settings.chip or "loihi2").eval()


def _refuse(what: str, node: str, got: object, allowed: str, next_step: str = "") -> NoReturn:
    raise UnsupportedNode(what, where=f"node {node!r}", got=got, allowed=allowed, next_step=next_step)


def _pieces(graph: nir.Graph) -> list[_Piece]:
    pieces, now = [], _Piece()
    for node in _chain(graph):
        now.names.append(node.name)
        if isinstance(node, nir.Pool2d) and now.pool is None and now.synapse is None:
            now.pool = node
        elif isinstance(node, (nir.Affine, nir.Conv2d)) and now.synapse is None:
            now.synapse = node
        elif isinstance(node, nir.SPIKING) and now.synapse is not None:
            now.neuron = node
            pieces.append(now)
            now = _Piece()
        elif not isinstance(node, nir.Flatten) or now.synapse is not None:
            _refuse("this node does not fit a chain of layers", node.name, node.kind,
                    "pool, then Flatten, then Affine / Linear / Conv2d, then LIF / CubaLIF / IF")  # fmt: skip
    return pieces


def _chain(graph: nir.Graph) -> list[nir.Node]:
    for node in graph.nodes:
        if len(graph.targets(node.name)) > 1 or len(graph.sources(node.name)) > 1 or graph.recurrent:
            _refuse("the graph is not a chain", node.name, "branches or cycles", "one node after the other")
    return [node for node in graph.nodes if not isinstance(node, (nir.Input, nir.Output))]


def _float_network(graph: nir.Graph, pieces: list[_Piece]) -> SpikingNetwork:
    steps = [_parameters(graph, piece) for piece in pieces]
    spec = NetworkSpec(graph.inputs[0].shape, tuple(part for piece in pieces for part in _spec(piece)))
    network = build(
        spec, norm=False, bias=True, steps=graph.settings.steps or 8, input_bits=graph.settings.input_bits or 1,
        neuron=["lif" if p.alpha is None else "cuba" for p in steps],
        beta=[_one(p.beta, piece, "beta") for p, piece in zip(steps, pieces, strict=True)],
        alpha=[0.0 if p.alpha is None else _one(p.alpha, at, "alpha") for p, at in zip(steps, pieces, strict=True)],
        threshold=[_threshold(p, piece) for p, piece in zip(steps, pieces, strict=True)],
    )  # fmt: skip
    levels = float((1 << network.input_bits) - 1)
    for layer, piece, parameters in zip(network.spiking_layers(), pieces, steps, strict=True):
        _fill(layer, piece, parameters, levels)
        levels = 1.0
    return network


def _parameters(graph: nir.Graph, piece: _Piece) -> LifParameters:
    assert piece.neuron is not None
    assert graph.dt is not None
    return discretize(piece.neuron, graph.dt)


def _one(values: np.ndarray, piece: _Piece, what: str) -> float:
    if np.any(values != values.flat[0]):
        _refuse(
            f"the {what} differs between neurons", piece.names[-1], f"{values.min():g}..{values.max():g}", "one value"
        )
    return float(values.flat[0])


def _threshold(parameters: LifParameters, piece: _Piece) -> float:
    assert parameters.threshold is not None
    return _one(parameters.threshold, piece, "threshold")


def _spec(piece: _Piece) -> list[LayerSpec]:
    parts: list[LayerSpec] = []
    if piece.pool is not None:
        parts.append(Pool(piece.pool.kernel_size, piece.pool.stride, piece.pool.padding))
    node = piece.synapse
    if isinstance(node, nir.Conv2d):
        kernel = (node.weight.shape[2], node.weight.shape[3])
        return [*parts, Conv(node.weight.shape[0], kernel, node.stride, node.padding, node.groups, node.dilation)]
    assert node is not None
    return [*parts, Dense(node.weight.shape[0])]


def _fill(layer: SpikingLayer, piece: _Piece, parameters: LifParameters, levels: float) -> None:
    """Copy weights: on images in 0..1 instead of integers, an average instead of a sum, the input gain folded in."""
    assert piece.synapse is not None
    gain = _one(parameters.gain, piece, "input gain")
    windows = float(np.prod(piece.pool.kernel_size)) if isinstance(piece.pool, nir.SumPool2d) else 1.0
    weight = piece.synapse.weight * (gain * levels * windows)
    bias = np.zeros(len(weight)) if piece.synapse.bias is None else piece.synapse.bias * gain
    leak = parameters.leak_bias.reshape(len(weight), -1)
    if np.any(leak != leak[:, :1]):
        _refuse("v_leak differs within a channel", piece.names[-1], "several values", "one value a channel")
    if isinstance(layer.neuron, CubaLIF) and bias.any():
        _refuse("a bias before a synaptic current is filtered by it", piece.names[-2], "a bias", "no bias into CubaLIF")
    with torch.no_grad():
        layer.synapse.weight.copy_(torch.from_numpy(weight))
        target = layer.synapse.bias if isinstance(layer.neuron, LIF) else layer.neuron.bias
        assert target is not None
        target.copy_(torch.from_numpy(bias + leak[:, 0]).reshape(target.shape))


def _grid(graph: nir.Graph, piece: _Piece, layer: SpikingLayer) -> LayerGrid | None:
    assert piece.synapse is not None
    assert piece.neuron is not None
    synapse, neuron = piece.synapse.quantization, piece.neuron.quantization
    if synapse is None or neuron is None:
        return None
    parameters = _parameters(graph, piece)
    first = (1 << (graph.settings.input_bits or 1)) - 1 if piece.synapse is _first(graph) else 1
    windows = 1.0 if piece.pool is None else float(np.prod(piece.pool.kernel_size))
    du = 4095 if parameters.alpha is None else round((1.0 - float(parameters.alpha.flat[0])) * 4096) - 1
    return LayerGrid(
        scale=neuron.scale, unit=1.0 / first / windows, weight_exp=synapse.weight_exp, weight_bits=synapse.weight_bits,
        sign_mode=synapse.sign_mode, vth=round(_threshold(parameters, piece) / neuron.scale), du=du,
        dv=round((1.0 - float(parameters.beta.flat[0])) * 4096),
    )  # fmt: skip


def _first(graph: nir.Graph) -> nir.Node:
    return next(node for node in graph.nodes if isinstance(node, (nir.Affine, nir.Conv2d)))
