"""Networks -> NIR: a file any tool can run; of a quantized one the chip's integers come back exactly.

Users' own snntorch modules go through :mod:`neurokd.export_modules`.

The file's network takes what the chip takes: the encoded integers (``0 .. levels``), not images in 0..1. Of a quantized
student its floats mean the same network as the integers, and the grid they lie on travels in each node's metadata. A
float student is written with its norms folded and without a grid.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from deploy import graph as nir
from deploy.errors import ModuleError
from deploy.graph.discrete import LifParameters, neuron_from_steps
from deploy.graph.quantization import Encoding
from neurokd.export_modules import module_graph
from neurokd.export_nodes import DT
from neurokd.graph_module import GraphModule
from neurokd.network import SpikingNetwork
from neurokd.network_layers import SpikingLayer
from neurokd.neurons import CubaLIF
from neurokd.quantized import QuantizedNetwork
from neurokd.quantized_layer import QuantizedLayer, geometry_of
from neurokd.spec import Block

FloatArray = npt.NDArray[np.float64]


@dataclass(frozen=True)
class _Layer:
    """One layer as the file holds it; everything float64, on integer input.

    Attributes:
        geometry: Of a convolution; None in a dense layer.
        weight: Of the synapse's shape, behind an average pool where there is one.
        bias: ``[C]``, added to the membrane at each step.
        alpha: None in a plain LIF. Parameters of the neurons are numbers, or broadcast to their shape.
    """

    block: Block
    geometry: dict[str, Any] | None
    weight: Tensor
    bias: Tensor
    alpha: float | Tensor | None
    beta: float | Tensor
    threshold: float | Tensor
    synapse_grid: nir.SynapseGrid | None = None
    neuron_grid: nir.NeuronGrid | None = None


def to_graph(network: SpikingNetwork | QuantizedNetwork, encoding: Encoding = "direct") -> nir.Graph:
    """The network as a graph: input, per layer weights and neurons (pool and flatten before them where needed), output.

    Args:
        network: A student on the chip's integers, or a float one (as in evaluation).
        encoding: ``direct``, ``rate`` or ``latency``: how its input was encoded.

    Raises:
        GraphError: an unknown encoding.
    """
    chip = network.chip if isinstance(network, QuantizedNetwork) else None
    population = network.population if network.population > 1 else None
    settings = nir.RunSettings(network.steps, encoding, network.input_bits, chip, population)
    nodes: list[nir.Node] = [nir.Input("input", network.spec.input_shape)]
    for layer in _layers(network):
        nodes += _nodes(layer)
    nodes.append(nir.Output("output", network.spec.shapes()[-1]))
    names = [node.name for node in nodes]
    return nir.Graph(tuple(nodes), tuple(zip(names[:-1], names[1:], strict=True)), DT, "zero", settings)


def export(
    network: SpikingNetwork | QuantizedNetwork | GraphModule | nn.Module,
    path: str | Path,
    encoding: Encoding = "direct",
    *,
    example_input: Tensor | None = None,
    **options: Any,
) -> nir.Graph:
    """Write ``path`` (``.nir``), atomically, and give back the graph that was written; its ``notes`` are the report.

    Args:
        network: A student of this toolkit; a :class:`GraphModule`; or a user's own snntorch module.
        path: The file.
        encoding: ``direct``, ``rate`` or ``latency``: how a student's input was encoded.
        example_input: What the user's module takes; needed for it.
        options: ``steps``, ``convert_reset``, ``forward_kwargs`` of :func:`neurokd.export_modules.module_graph`.

    Raises:
        FileError: the folder is not writable or the disk is full.
        GraphError: an unknown encoding.
        ModuleError: a module with no counterpart, by name; or it is a user's and the example is missing.
    """
    graph = _graph_of(network, encoding, example_input, options)
    notes = nir.write(graph, path)
    return replace(graph, notes=(*graph.notes, *notes))


def _graph_of(network: nn.Module, encoding: Encoding, example: Tensor | None, options: dict[str, Any]) -> nir.Graph:
    if isinstance(network, (SpikingNetwork, QuantizedNetwork, GraphModule)):
        if example is not None or options:
            got = ", ".join([*(["example_input"] if example is not None else []), *options])
            raise ModuleError("these options are for users' modules", got=got, allowed="none with a student of neurokd")
        return network.to_graph() if isinstance(network, GraphModule) else to_graph(network, encoding)
    if example is None:
        raise ModuleError(
            "an example of its input is needed to export a module",
            got=type(network).__name__,
            allowed="export(module, path, example_input=one batch as your training loop passes it)",
        )
    return module_graph(network, example, **options)


def _layers(network: SpikingNetwork | QuantizedNetwork) -> Sequence[_Layer]:
    if isinstance(network, QuantizedNetwork):
        return [_quantized(layer) for layer in network.quantized_layers()]
    levels = [(1 << network.input_bits) - 1, *[1] * (len(network.layers) - 1)]
    return [_float(layer, level) for layer, level in zip(network.spiking_layers(), levels, strict=True)]


def _quantized(layer: QuantizedLayer) -> _Layer:
    grid, pool = layer.grid, layer.block.pool
    window = 1 if pool is None else math.prod(pool.kernel)
    weight = layer.integer_weights().detach().double() * (grid.scale * 2.0**grid.weight_exp * window)
    return _Layer(
        layer.block, layer.geometry, weight, layer.integer_biases() * grid.bias_unit,
        grid.alpha if layer.cuba else None, grid.beta, grid.threshold,
        nir.SynapseGrid(grid.weight_exp, grid.weight_bits, grid.sign_mode), nir.NeuronGrid(grid.scale),
    )  # fmt: skip


def _float(layer: SpikingLayer, levels: int) -> _Layer:
    weight, bias = layer.folded()
    neuron = layer.neuron
    alpha = neuron.alpha if isinstance(neuron, CubaLIF) else None
    return _Layer(
        layer.block, geometry_of(layer.synapse), weight / levels, bias, alpha, neuron.beta, neuron.threshold
    )  # fmt: skip


def _nodes(layer: _Layer) -> list[nir.Node]:
    block, nodes = layer.block, list[nir.Node]()
    if block.pool is not None:
        nodes.append(nir.AvgPool2d(f"{block.name}_pool", block.pool.kernel, block.pool.stride, block.pool.padding))
    if layer.geometry is None and len(block.in_shape) > 1:
        nodes.append(nir.Flatten(f"{block.name}_flatten", -len(block.in_shape), -1))  # the same with a batch axis
    return [*nodes, _synapse(layer), _neuron(layer)]


def _synapse(layer: _Layer) -> nir.Node:
    bias = layer.bias.numpy() if layer.alpha is None and bool(layer.bias.any()) else None
    common: dict[str, Any] = {"bias": bias, "quantization": layer.synapse_grid}
    name, weight = f"{layer.block.name}_weights", layer.weight.numpy()
    if layer.geometry is None:
        return nir.Affine(name, weight, **common)
    return nir.Conv2d(name, weight, **layer.geometry, **common)


def _neuron(layer: _Layer) -> nir.Node:
    shape = layer.block.out_shape
    per_channel = layer.bias.view(-1, *[1] * (len(shape) - 1))
    parameters = LifParameters(
        beta=_spread(layer.beta, shape),
        alpha=None if layer.alpha is None else _spread(layer.alpha, shape),
        gain=np.ones(shape),
        leak_bias=_spread(0.0 if layer.alpha is None else per_channel, shape),
        threshold=_spread(layer.threshold, shape),
        v_reset=np.zeros(shape),
    )
    return neuron_from_steps(layer.block.name, parameters, DT, layer.neuron_grid)


def _spread(value: float | Tensor, shape: tuple[int, ...]) -> FloatArray:
    """One float64 a neuron."""
    array: FloatArray = torch.as_tensor(value, dtype=torch.float64).detach().expand(shape).numpy()
    return array
