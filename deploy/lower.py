"""Graph + Chip -> Program: the integers behind a quantized NIR file, recovered exactly or refused by name.

The floats of a file mean the same network as its integers (see :mod:`deploy.graph.quantization`). Lowering divides by
the grid the file states and demands whole numbers: nothing is rounded here, so nothing can be lost here.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Final, NoReturn

import numpy as np
import numpy.typing as npt

from deploy import fixed_point as fp
from deploy import folding, rules
from deploy import graph as nir
from deploy.chip import Chip, load_chip
from deploy.errors import GraphError, UnsupportedNode
from deploy.graph.discrete import LifParameters, discretize
from deploy.program import Conv, Dense, Input, Population, Program, ResetRule, Synapse

FloatArray = npt.NDArray[np.float64]
IntArray = npt.NDArray[np.int64]

# Files keep float64, which holds w_int * S * 2^e to 2^-53; float32 files (other writers) to 2^-24 of 256 steps.
GRID_TOLERANCE: Final = 2.0**-12
TAKEN: Final = "Affine, Linear, Conv2d, SumPool2d, AvgPool2d, Flatten, Delay between LIF, CubaLIF and IF populations"


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
    populations = _populations(graph)
    synapses = tuple(block for node in _neurons(graph) for block in _synapses(graph, node))
    program = Program(_input(graph), populations, synapses, _meta(graph, source, target))
    if strict:
        rules.require(program, target)
    return program


def _meta(graph: nir.Graph, source: object, chip: Chip) -> dict[str, Any]:
    settings = graph.settings
    meta = {"steps": settings.steps, "encoding": settings.encoding, "chip": chip.name, "trained_for": settings.chip}
    if not isinstance(source, nir.Graph):
        meta["source_sha256"] = hashlib.sha256(Path(str(source)).read_bytes()).hexdigest()
    return {key: value for key, value in meta.items() if value is not None}


def _input(graph: nir.Graph) -> Input:
    if len(graph.inputs) != 1:
        names = ", ".join(node.name for node in graph.inputs)
        _refuse("a program has one input", "graph", names, "one Input node", "join the inputs into one population")
    node = graph.inputs[0]
    return Input(node.name, node.shape, graph.settings.input_bits or 1)


def _neurons(graph: nir.Graph) -> list[nir.Neuron]:
    """Spiking nodes in topological order, the one that feeds the Output last."""
    found = [node for node in graph.nodes if isinstance(node, nir.SPIKING)]
    graded = [node.name for node in graph.nodes if isinstance(node, nir.Neuron) and not isinstance(node, nir.SPIKING)]
    if graded:
        _refuse(
            "neurons that do not spike have no counterpart", graded[0], graph.node(graded[0]).kind, "LIF, CubaLIF, IF"
        )
    answering = _answering(graph)
    return [node for node in found if node is not answering] + [answering]


def _answering(graph: nir.Graph) -> nir.Neuron:
    sources = [name for out in graph.outputs for name in graph.sources(out.name)]
    node = graph.node(sources[0]) if len(sources) == 1 else None
    if not isinstance(node, nir.SPIKING):
        _refuse(
            "the output must be one spiking population",
            graph.outputs[0].name,
            ", ".join(f"{name} ({graph.node(name).kind})" for name in sources),
            "one LIF, CubaLIF or IF node before the Output node",
        )
    return node


def _refuse(what: str, where: str, got: object, allowed: object, next_step: str = "") -> NoReturn:
    raise UnsupportedNode(what, where=f"node {where!r}", got=got, allowed=allowed, next_step=next_step)


@dataclass(frozen=True, eq=False)
class _Cell:
    """A neuron node at one step of time, with its grid."""

    node: nir.Neuron
    scale: float
    gain: float
    parameters: LifParameters


def _cell(graph: nir.Graph, node: nir.Neuron) -> _Cell:
    if node.quantization is None:
        raise GraphError(
            "the network is not quantized: the file states no integer grid",
            where=f"node {node.name!r}",
            got="float parameters only",
            allowed="a file with the neurokd metadata block on each synapse and neuron",
            next_step="quantize it first: `neurokd quantize`, or `neurokd-deploy quantize FILE --spikes CALIBRATION`",
        )
    assert graph.dt is not None, "a graph with spiking neurons has a time step"
    parameters = discretize(node, graph.dt)
    return _Cell(node, node.quantization.scale, _uniform(node, "input gain", parameters.gain), parameters)


def _uniform(node: nir.Neuron, what: str, values: FloatArray) -> float:
    """The one value all neurons share; per-neuron values have no place in a population."""
    if values.size and np.any(values != values.flat[0]):
        _refuse(
            f"the {what} differs between neurons of one population",
            node.name,
            f"{values.min():g}..{values.max():g}",
            "one value for the population",
            "split the population, or fine-tune with a shared value",
        )
    return float(values.flat[0])


def _whole(values: FloatArray | float, node: str, what: str) -> IntArray:
    """The integers that ``values`` are, or an error that names the first one that is not."""
    array = np.asarray(values, dtype=np.float64)
    rounded = np.round(array)
    off = np.abs(array - rounded) > GRID_TOLERANCE * np.maximum(1.0, np.abs(array) * 2.0**-8)
    if np.any(off | ~np.isfinite(array)):
        worst = float(array.flat[int(np.argmax(off | ~np.isfinite(array)))])
        raise GraphError(
            f"the {what} is off the integer grid that the file states",
            where=f"node {node!r}",
            got=f"{worst:.6g} in integer units",
            allowed="whole numbers",
            next_step="export the network again; a file edited by hand must be quantized again",
        )
    return rounded.astype(np.int64)


def _populations(graph: nir.Graph) -> tuple[Population, ...]:
    return tuple(_population(graph, _cell(graph, node)) for node in _neurons(graph))


def _population(graph: nir.Graph, cell: _Cell) -> Population:
    name, parameters = cell.node.name, cell.parameters
    assert parameters.threshold is not None
    assert parameters.v_reset is not None
    if np.any(parameters.v_reset != 0):
        _refuse("reset to a value other than 0 has no counterpart", name, parameters.v_reset.flat[0], "v_reset = 0")
    threshold = _uniform(cell.node, "threshold", parameters.threshold)
    bias = _whole(_bias(graph, cell) * 64.0 / cell.scale, name, "bias (in 1/64 of a unit)")
    mantissa, exponent = _mantissa(bias, name)
    return Population(
        name,
        graph.output_shape(name),
        du=_current_decay(cell),
        dv=_decay(cell, "beta", parameters.beta, 0, (1 << fp.DECAY_BITS) - 1),
        vth=int(_whole(threshold / cell.scale, name, "threshold")),
        bias_mant=mantissa,
        bias_exp=exponent,
        reset=_reset(graph, name),
        scale=cell.scale,
    )


def _reset(graph: nir.Graph, name: str) -> ResetRule:
    if graph.reset == "zero" or graph.reset == "subtract":
        return graph.reset
    _refuse("this reset rule has no counterpart", name, graph.reset, "zero (chip), subtract (CPU simulators)")


def _current_decay(cell: _Cell) -> int:
    if cell.parameters.alpha is None:
        return (1 << fp.DECAY_BITS) - fp.CURRENT_DECAY_OFFSET
    least, most = fp.CURRENT_DECAY_OFFSET, 1 << fp.DECAY_BITS
    return _decay(cell, "alpha", cell.parameters.alpha, least, most) - fp.CURRENT_DECAY_OFFSET


def _decay(cell: _Cell, what: str, factors: FloatArray, least: int, most: int) -> int:
    factor = _uniform(cell.node, what, factors)
    decay = int(_whole((1.0 - factor) * (1 << fp.DECAY_BITS), cell.node.name, f"decay of {what}"))
    if not least <= decay <= most:
        unity = 1 << fp.DECAY_BITS
        _refuse(
            f"{what} is outside the chip's decays",
            cell.node.name,
            factor,
            f"{1 - most / unity:g}..{1 - least / unity:g}",
        )
    return decay


def _bias(graph: nir.Graph, cell: _Cell) -> FloatArray:
    """Float ``[n]``: what is added to the membrane each step."""
    shape = graph.output_shape(cell.node.name)
    total = np.broadcast_to(cell.parameters.leak_bias, shape).astype(np.float64).copy()
    for name in graph.sources(cell.node.name):
        node = graph.node(name)
        bias = getattr(node, "bias", None)
        if bias is not None and cell.parameters.alpha is not None:
            _refuse(
                "a bias before a synaptic current would be filtered by it; the chip adds its bias to the membrane",
                name,
                "a bias into a CubaLIF node",
                "no bias (nir.Linear), or v_leak of the CubaLIF node",
                "train with bias=False before snn.Synaptic, or with neurokd's CubaLIF, whose bias is on the membrane",
            )
        if bias is not None:
            total += cell.gain * (bias[:, None, None] if isinstance(node, nir.Conv2d) else bias.reshape(shape))
    flat: FloatArray = total.reshape(-1)
    return flat


def _mantissa(bias: IntArray, node: str) -> tuple[npt.NDArray[np.int64], int]:
    exponent = fp.bias_exponent(int(np.abs(bias).max(initial=0)))
    if exponent > fp.BIAS_EXPONENT_MAX or np.any(bias % (1 << exponent)):
        raise GraphError(
            "a bias has no mantissa and exponent on the chip",
            where=f"node {node!r}",
            got=f"{int(bias.min())}..{int(bias.max())} in 1/64 units",
            allowed=f"a signed {fp.BIAS_MANTISSA_BITS}-bit mantissa shifted by 0..{fp.BIAS_EXPONENT_MAX}, one for all",
            next_step="quantize the network again",
        )
    return bias >> exponent, exponent


def _synapses(graph: nir.Graph, neuron: nir.Neuron) -> list[Synapse]:
    """Every path of nodes from an input or population to ``neuron``, each as one synapse block."""
    blocks: list[Synapse] = []
    for path, recurrent in _paths(graph, neuron.name, (), False):
        block = _block(graph, _cell(graph, neuron), path, recurrent)
        taken = sum(1 for other in blocks if other.name.split("@")[0] == block.name)
        blocks.append(replace(block, name=f"{block.name}@{path[0]}") if taken else block)
    return blocks


def _paths(graph: nir.Graph, name: str, behind: tuple[str, ...], recurrent: bool) -> list[tuple[tuple[str, ...], bool]]:
    """(names from source to the node before the neuron, whether an edge on the way closes a cycle)."""
    paths: list[tuple[tuple[str, ...], bool]] = []
    for source in graph.sources(name):
        node, back = graph.node(source), recurrent or (source, name) in graph.recurrent
        if isinstance(node, (nir.Input, *nir.SPIKING)):
            paths.append(((source, *behind), back))
        else:
            paths += _paths(graph, source, (source, *behind), back)
    return paths


def _block(graph: nir.Graph, cell: _Cell, path: tuple[str, ...], recurrent: bool) -> Synapse:
    source, *between = path
    nodes = [graph.node(name) for name in between]
    weighted = [node for node in nodes if isinstance(node, (nir.Affine, nir.Conv2d))]
    for node in nodes:
        if not isinstance(node, (nir.Affine, nir.Conv2d, nir.Pool2d, nir.Flatten, nir.Delay)):
            _refuse("this node has no counterpart on the chip", node.name, node.kind, TAKEN)
    if len(weighted) != 1:
        _refuse(
            "exactly one set of weights is needed between populations",
            cell.node.name,
            " -> ".join((*path, cell.node.name)),
            "one Affine, Linear or Conv2d",
            "merge linear nodes that follow each other, or put a neuron between them",
        )
    delay = sum(_delay(graph, node) for node in nodes if isinstance(node, nir.Delay)) + (1 if recurrent else 0)
    before = nodes[: nodes.index(weighted[0])]
    behind = [n for n in nodes[nodes.index(weighted[0]) + 1 :] if not isinstance(n, nir.Delay)]
    if behind and not _only_reshapes(graph, behind):
        _refuse("a node after the weights has no counterpart", behind[0].name, behind[0].kind, "Delay or Flatten")
    return _weights(graph, cell, weighted[0], before, source, delay)


def _only_reshapes(graph: nir.Graph, nodes: list[nir.Node]) -> bool:
    return all(isinstance(node, nir.Flatten) for node in nodes)


def _delay(graph: nir.Graph, node: nir.Delay) -> int:
    assert graph.dt is not None
    steps = _whole(node.delay / graph.dt, node.name, "delay (in time steps)")
    if np.any(steps != steps.flat[0]):
        _refuse("the delay differs between neurons", node.name, f"{steps.min()}..{steps.max()} steps", "one delay")
    return int(steps.flat[0])


def _weights(
    graph: nir.Graph, cell: _Cell, node: nir.Synapse, before: list[nir.Node], source: str, delay: int
) -> Synapse:
    grid = node.quantization
    if grid is None:
        raise GraphError(
            "the weights are not quantized: the file states no integer grid for them",
            where=f"node {node.name!r}",
            got="float weights only",
            allowed="weight_exp, weight_bits and sign_mode in the node's neurokd metadata",
            next_step="quantize the network first: `neurokd quantize`",
        )
    unit = cell.scale * 2.0**grid.weight_exp / cell.gain
    pools = [n for n in before if isinstance(n, nir.Pool2d)]
    common: dict[str, Any] = {
        "name": node.name, "source": source, "target": cell.node.name, "weight_exp": grid.weight_exp,
        "weight_bits": grid.weight_bits, "sign_mode": grid.sign_mode, "delay": delay,
    }  # fmt: skip
    if isinstance(node, nir.Affine):
        weights = node.weight
        for pool in reversed(pools):
            weights = folding.into_dense(pool, weights, graph.input_shape(pool.name), graph.output_shape(pool.name))
        return Dense(weights=_whole(weights / unit, node.name, "weight"), **common)
    assert isinstance(node, nir.Conv2d)
    conv = folding.ConvBlock(node.weight, node.stride, node.padding, node.dilation, node.groups)
    for pool in reversed(pools):
        conv = folding.into_conv(pool, conv, graph.input_shape(pool.name), graph.output_shape(pool.name))
    return Conv(
        weights=_whole(conv.weights / unit, node.name, "weight"), stride=conv.stride, padding=conv.padding,
        dilation=conv.dilation, groups=conv.groups, **common,
    )  # fmt: skip
