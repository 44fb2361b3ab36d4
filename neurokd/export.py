"""Quantized student -> NIR: a file any tool can run, from which the chip's integers come back exactly.

The file's network takes what the chip takes: the encoded integers (``0 .. levels``), not images in 0..1. Its floats
mean the same network as the integers; the grid they lie on travels in each node's metadata.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch

from deploy import graph as nir
from deploy.graph.discrete import LifParameters, neuron_from_steps
from neurokd.quantized import QuantizedLayer, QuantizedNetwork, effective_bias, pair

DT = 1e-4  # seconds a step; what snntorch writes and other importers assume


def to_graph(network: QuantizedNetwork, encoding: str = "direct") -> nir.Graph:
    """The network as a graph: input, per layer weights and neurons (pool and flatten before them where needed), output.

    Args:
        network: A student on the chip's integers.
        encoding: ``direct``, ``rate`` or ``latency``: how its input was encoded.
    """
    shape = tuple(network.spec.input_shape)
    nodes: list[nir.Node] = [nir.Input("input", shape)]
    for layer in network.quantized_layers():
        nodes += _layer_nodes(layer, shape)
        shape = tuple(layer.block.out_shape)
    nodes.append(nir.Output("output", shape))
    names = [node.name for node in nodes]
    settings = nir.RunSettings(
        steps=network.steps,
        encoding=encoding,
        input_bits=network.input_bits,
        chip=network.chip,  # type: ignore[arg-type]
    )
    return nir.Graph(tuple(nodes), tuple(zip(names[:-1], names[1:], strict=True)), DT, "zero", settings)


def export(network: QuantizedNetwork, path: str | Path, encoding: str = "direct") -> nir.Graph:
    """Write ``path`` (``.nir``), atomically, and give back the graph that was written.

    Raises:
        FileError: the folder is not writable or the disk is full.
    """
    graph = to_graph(network, encoding)
    nir.write(graph, path)
    return graph


def _layer_nodes(layer: QuantizedLayer, arriving: tuple[int, ...]) -> list[nir.Node]:
    nodes: list[nir.Node] = []
    if layer.pool is not None:
        kernel, stride = pair(layer.pool.kernel_size), pair(layer.pool.stride)
        nodes.append(nir.AvgPool2d(f"{layer.name}_pool", kernel, stride, pair(layer.pool.padding)))
    if layer.synapse is None and len(arriving) > 1:
        nodes.append(nir.Flatten(f"{layer.name}_flatten", 0, -1))
    return [*nodes, _synapse(layer), _neuron(layer)]


def _synapse(layer: QuantizedLayer) -> nir.Node:
    grid = layer.grid
    windows = 1 if layer.pool is None else int(np.prod(pair(layer.pool.kernel_size)))
    weight = layer.weights().detach().double().numpy() * (grid.scale * 2.0**grid.weight_exp * windows)
    bias = None if layer.cuba else _float_bias(layer)
    stated = nir.SynapseGrid(grid.weight_exp, grid.weight_bits, grid.sign_mode)
    name = f"{layer.name}_weights"
    if layer.synapse is None:
        return nir.Affine(name, weight, bias, quantization=stated)
    return nir.Conv2d(name, weight, bias, **layer.synapse, quantization=stated)


def _float_bias(layer: QuantizedLayer) -> np.ndarray | None:
    bias: np.ndarray = (effective_bias(layer.biases()) * (layer.grid.scale / 64.0)).numpy()
    return bias if bias.any() else None


def _neuron(layer: QuantizedLayer) -> nir.Node:
    grid = layer.grid
    shape = tuple(layer.block.out_shape)
    leak = torch.zeros(shape, dtype=torch.float64)
    if layer.cuba:
        per_channel = effective_bias(layer.biases()) * (grid.scale / 64.0)
        leak = per_channel.view(-1, *[1] * (len(shape) - 1)).expand(shape).clone()
    ones = np.ones(shape)
    parameters = LifParameters(
        beta=ones * (1.0 - grid.dv / 4096.0),
        alpha=ones * (1.0 - (grid.du + 1) / 4096.0) if layer.cuba else None,
        gain=ones,
        leak_bias=leak.numpy(),
        threshold=ones * (grid.vth * grid.scale),
        v_reset=np.zeros(shape),
    )
    return neuron_from_steps(layer.name, parameters, DT, nir.NeuronGrid(grid.scale))
