"""NIR files and graphs as typed, ordered, checked nodes."""

from deploy.graph.dialect import for_tool
from deploy.graph.discrete import LifParameters, discretize, neuron_from_steps
from deploy.graph.finding import Finding
from deploy.graph.graph import Graph
from deploy.graph.neurons import (
    IF,
    LI,
    LIF,
    SPIKING,
    CubaLI,
    CubaLIF,
    Delay,
    Elementwise,
    I,
    Neuron,
    Scale,
    Threshold,
)
from deploy.graph.nodes import (
    Affine,
    AvgPool2d,
    Conv1d,
    Conv2d,
    Flatten,
    Input,
    Node,
    Output,
    Pool2d,
    SumPool2d,
    Synapse,
)
from deploy.graph.quantization import NeuronGrid, Quantization, RunSettings, SynapseGrid
from deploy.graph.read import from_nir, read
from deploy.graph.shapes import Shapes
from deploy.graph.write import to_nir, write

__all__ = [
    "IF",
    "LI",
    "LIF",
    "SPIKING",
    "Affine",
    "AvgPool2d",
    "Conv1d",
    "Conv2d",
    "CubaLI",
    "CubaLIF",
    "Delay",
    "Elementwise",
    "Finding",
    "Flatten",
    "Graph",
    "I",
    "Input",
    "LifParameters",
    "Neuron",
    "NeuronGrid",
    "Node",
    "Output",
    "Pool2d",
    "Quantization",
    "RunSettings",
    "Scale",
    "Shapes",
    "SumPool2d",
    "Synapse",
    "SynapseGrid",
    "Threshold",
    "discretize",
    "for_tool",
    "from_nir",
    "neuron_from_steps",
    "read",
    "to_nir",
    "write",
]
