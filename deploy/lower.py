"""Graph + Chip -> Program: the integers behind a quantized NIR file, recovered exactly or refused by name.

The floats of a file mean the same network as its integers (see :mod:`deploy.graph.quantization`). Lowering divides by
the grid the file states and demands whole numbers: nothing is rounded here, so nothing can be lost here.

Neuron modes: LIF, CubaLIF and IF spike, and reset as the file says; LI, CubaLI and I, which have no threshold, are
readouts and may only stand last. NIR has no refractory period; a Program's populations may be given one afterwards.
"""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

from deploy import graph as nir
from deploy import rules
from deploy.chip import Chip, load_chip
from deploy.lower_cells import Cell, cell, population, refuse
from deploy.lower_synapses import TAKEN, bias, blocks
from deploy.program import Input, Program, Synapse

__all__ = ["TAKEN", "lower"]


def lower(source: nir.Graph | str | Path, chip: Chip | str | Path = "loihi2", *, strict: bool = True) -> Program:
    """Lower a quantized network to the chip's integers.

    Args:
        source: A graph, or the path of a ``.nir`` file whose metadata states its integer grid.
        chip: The chip whose widths and rules apply.
        strict: False keeps a program that breaks the chip's rules (CPU simulators may run it all the same).

    Raises:
        GraphError, UnsupportedNode: the file cannot be read, a node has no counterpart, or a value is off its grid.
        ProgramError: integers outside their widths.
        RuleError: the program breaks rules of the chip; every one is listed.
    """
    graph = source if isinstance(source, nir.Graph) else nir.read(source)
    target = chip if isinstance(chip, Chip) else load_chip(chip)
    entering, answering = _input(graph), _answering(graph)
    cells = _cells(graph, answering)
    populations = tuple(population(graph, made, bias(graph, made)) for made in cells)
    program = Program(entering, populations, _synapses(graph, cells), _meta(graph, source, target), answering)
    if strict:
        rules.require(program, target)
    return program


def _meta(graph: nir.Graph, source: object, chip: Chip) -> dict[str, Any]:
    settings = graph.settings
    meta: dict[str, Any] = {"steps": settings.steps, "encoding": settings.encoding}
    meta |= {"population": settings.population, "chip": chip.name, "trained_for": settings.chip}
    if not isinstance(source, nir.Graph):
        meta["source_sha256"] = hashlib.sha256(Path(str(source)).read_bytes()).hexdigest()
    return {key: value for key, value in meta.items() if value is not None}


def _input(graph: nir.Graph) -> Input:
    if len(graph.inputs) != 1:
        names = ", ".join(node.name for node in graph.inputs)
        refuse("a program has one input", "graph", names, "one Input node", "join the inputs into one population")
    node = graph.inputs[0]
    return Input(node.name, node.shape, graph.settings.input_bits or 1)


def _answering(graph: nir.Graph) -> str:
    """Name of the population that feeds the Output."""
    sources = [name for out in graph.outputs for name in graph.sources(out.name)]
    if len(sources) != 1 or not isinstance(graph.node(sources[0]), nir.Neuron):
        refuse(
            "the output must be one spiking population or a readout",
            graph.outputs[0].name,
            ", ".join(f"{name} ({graph.node(name).kind})" for name in sources),
            "one LIF, CubaLIF or IF node, or one LI, CubaLI or I node as readout, before the one Output node",
        )
    return sources[0]


def _cells(graph: nir.Graph, answering: str) -> list[Cell]:
    """Neuron nodes in topological order."""
    found = [node for node in graph.nodes if isinstance(node, nir.Neuron)]
    for node in found:
        if not isinstance(node, nir.SPIKING) and node.name != answering:
            refuse(
                "neurons that do not spike have a counterpart only as the readout before the output",
                node.name,
                node.kind,
                "LIF, CubaLIF, IF",
                "give them a threshold, or read the network out there",
            )
    return [cell(graph, node) for node in found]


def _synapses(graph: nir.Graph, cells: list[Cell]) -> tuple[Synapse, ...]:
    taken = {graph.inputs[0].name, *(made.name for made in cells)}
    return tuple(block for made in cells for block in blocks(graph, made, taken))
