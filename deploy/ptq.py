"""Post-training quantization: any float NIR graph to the chip's integers, with calibration spikes; numpy, no training.

    result = deploy.ptq.quantize("float.nir", spikes, chip="loihi2", bits=8)
    deploy.graph.write(result.graph, "quantized.nir")        # the metadata that lowering reads
    print(result.table())                                    # what was lost, layer by layer

Floats stay what they mean: input gains, thresholds that differ between neurons and the input's unit are taken into the
weights; then every layer gets the integers of :mod:`deploy.ptq_scales`. The mean error that rounded weights make on the
calibration spikes is taken out of the biases. What was lost is measured, not estimated: the simulator runs the
quantized network on the calibration spikes, and its spikes are compared with those of the float graph.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from deploy import fixed_point as fp
from deploy import graph as nir
from deploy import ptq_float
from deploy.chip import Chip, load_chip
from deploy.errors import ConfigError, SpikesError
from deploy.graph.coerce import FloatArray
from deploy.graph.discrete import LifParameters, neuron_from_steps
from deploy.lower import lower
from deploy.lower_cells import refuse
from deploy.program import Program
from deploy.ptq_float import Block, Layer, Seen
from deploy.ptq_report import LayerLoss, Losses, measure
from deploy.ptq_scales import SEARCHES, Grid, Search, Wanted, bias_integers, choose, decays
from deploy.runfolder import samples_of

__all__ = ["LayerLoss", "Losses", "Quantized", "quantize", "quantize_file"]

#: Graded input of more bits than this is no calibration spike: Loihi 2's inputs here are one byte.
MOST_BITS: Final = 8


@dataclass(frozen=True, eq=False)
class Quantized:
    """A quantized graph, the program it lowers to, and what was lost.

    Attributes:
        graph: With the integer grid in its metadata, as ``neurokd export`` writes it.
        program: Lowered from it.
        losses: Layer by layer, on the calibration spikes.
    """

    graph: nir.Graph
    program: Program
    losses: Losses


def quantize(
    source: str | Path | nir.Graph,
    spikes: npt.NDArray[Any],
    *,
    chip: Chip | str | Path = "loihi2",
    bits: int | None = None,
    layer_bits: Mapping[str, int] | None = None,
    search: Search = "mse",
    power_of_two: bool = False,
    correct_bias: bool = True,
    steps: int | None = None,
    input_unit: float = 1.0,
    population: int | None = None,
    dt: float | None = None,
    reset: str | None = None,
) -> Quantized:
    """Quantize a float network for a chip.

    Args:
        source: A ``.nir`` file or a graph: Affine, Linear, Conv2d, pools, Flatten, Delay, neurons; branches and loops.
        spikes: Calibration spikes, integers ``[T, B, *input shape]``, or ``[B, *input shape]`` presented at each step.
        chip: Whose widths apply.
        bits: Width of every weight; the chip's widest when absent.
        layer_bits: Other widths, by name of the node with the weights.
        search: ``mse`` (least error of the sums on the calibration spikes), ``percentile`` or ``max``.
        power_of_two: Restrict scales to powers of two.
        correct_bias: Take the mean error of the rounded weights out of the biases.
        steps: T of spikes without a time axis; the file's own when absent.
        input_unit: Float value of one unit of the input: 1/255 for a network that saw images of 8 bits as 0..1.
        population: Output neurons a class (neuron ``n`` is of class ``n // population``); the file's own when absent.
        dt, reset: Time step in seconds and reset rule, where the file does not say.

    Returns:
        Graph, program, and losses.

    Raises:
        GraphError, UnsupportedNode: the file cannot be read, or a node has no counterpart.
        ProgramError: a layer whose weights, threshold or bias fit no grid; with the number and what to change.
        RuleError: a rule of the chip is broken.
        SpikesError, ConfigError: calibration spikes or options that do not fit.
    """
    target = chip if isinstance(chip, Chip) else load_chip(chip)
    graph = source if isinstance(source, nir.Graph) else nir.read(source, dt=dt, reset=reset)
    found = ptq_float.layers(graph)
    widths = _widths(found, target, bits, layer_bits or {})
    _check_options(search, input_unit)
    frames = _frames(graph, spikes, steps)
    input_bits = _input_bits(graph, frames)
    seen = ptq_float.run(graph, found, frames, input_unit)
    ptq_float.check_finite(seen)
    levels = (1 << input_bits) - 1
    errors: dict[str, float] = {}
    made: dict[str, nir.Node] = {}
    for layer in found:
        part = _Quantizer(layer, widths, levels, input_unit, target, search, power_of_two, correct_bias)
        nodes, errors[layer.name] = part.made(graph, seen)
        made |= {node.name: node for node in nodes}
    encoding = graph.settings.encoding or _encoding(spikes, graph)
    each = graph.settings.population if population is None else population
    settings = nir.RunSettings(len(frames), encoding, input_bits, target.name, each)
    quantized = _rewritten(graph, made, settings)
    program = lower(quantized, target)
    return Quantized(quantized, program, measure(program, found, seen, frames, errors))


def quantize_file(
    source: str | Path,
    spikes: str | Path,
    out: str | Path,
    *,
    samples: int | None = None,
    layer_bits: Sequence[str] = (),
    **options: Any,
) -> Quantized:
    """:func:`quantize` from file to file.

    Args:
        source: Float ``.nir``; spikes: ``.npy`` or ``.npz``; out: Where the quantized ``.nir`` goes, atomically.
        samples: Use only the first of the calibration samples.
        layer_bits: ``NODE=BITS`` texts.
        options: As of :func:`quantize`.

    Raises:
        SpikesError, FileError: a file cannot be read or written; else as :func:`quantize`.
    """
    graph = nir.read(source, dt=options.pop("dt", None), reset=options.pop("reset", None))
    given = samples_of(source, spikes, options.pop("steps", None))
    rank = len(graph.inputs[0].shape) if graph.inputs else 1
    given = given.first(samples, rank)
    result = quantize(graph, given.spikes, steps=given.steps, layer_bits=_layer_bits(layer_bits), **options)
    nir.write(result.graph, out)
    return result


def _layer_bits(texts: Sequence[str]) -> dict[str, int]:
    found = {}
    for text in texts:
        name, equals, width = text.rpartition("=")
        if not (equals and name and width.strip().isdecimal()):
            raise ConfigError("a width is not NODE=BITS", where="--layer-bits", got=text, allowed="fc1=4")
        found[name] = int(width)
    return found


# What was asked for -----------------------------------------------------------------------------------------------


def _check_options(search: str, input_unit: float) -> None:
    if search not in SEARCHES:
        raise ConfigError("unknown scale search", where="search", got=repr(search), allowed=", ".join(SEARCHES))
    if not (math.isfinite(input_unit) and input_unit > 0):
        raise ConfigError(
            "the input's unit is no positive number", where="input_unit", got=input_unit, allowed="above 0, e.g. 1/255"
        )


def _widths(found: tuple[Layer, ...], chip: Chip, bits: int | None, given: Mapping[str, int]) -> dict[str, int]:
    names = [block.node.name for layer in found for block in layer.blocks]
    unknown = [name for name in given if name not in names]
    if unknown:
        raise ConfigError(
            "there is no node with weights of this name",
            where="layer_bits", got=", ".join(unknown), allowed=", ".join(names),
        )  # fmt: skip
    chosen = {name: given.get(name, chip.formats.weight_bits if bits is None else bits) for name in names}
    allowed = [width for width in chip.formats.weight_bits_allowed if width >= 2]
    for name, width in chosen.items():
        if width not in allowed:  # 1 bit of mixed sign holds -256 and 0 only
            raise ConfigError(
                f"{chip.title} has no synapses of this width for both signs",
                where=f"node {name!r}", got=f"{width} bits", allowed=", ".join(map(str, allowed)),
            )  # fmt: skip
    return chosen


def _frames(graph: nir.Graph, spikes: npt.NDArray[Any], steps: int | None) -> npt.NDArray[np.uint8]:
    """Calibration spikes as uint8 ``[T, B, *shape]``."""
    if len(graph.inputs) != 1:
        refuse("a program has one input", "graph", f"{len(graph.inputs)} inputs", "one Input node")
    array, shape = np.asarray(spikes), graph.inputs[0].shape
    timed, held = array.ndim == len(shape) + 2, array.ndim == len(shape) + 1
    if not (timed or held) or array.shape[-len(shape) :] != shape or 0 in array.shape:
        sizes = ", ".join(map(str, shape))
        raise SpikesError(
            "the calibration spikes have the wrong shape", where=graph.inputs[0].name, got=array.shape,
            allowed=f"[T, B, {sizes}], or [B, {sizes}] presented at every step; no empty axis",
        )  # fmt: skip
    integral = array.dtype == np.bool_ or np.issubdtype(array.dtype, np.integer)
    if not integral or int(array.min()) < 0 or int(array.max()) >= 1 << MOST_BITS:
        raise SpikesError(
            "the calibration spikes are no spikes", where=graph.inputs[0].name,
            got=f"{array.dtype}, {array.min()}..{array.max()}", allowed=f"bool or integers 0..{(1 << MOST_BITS) - 1}",
            next_step="give the integers that reach the chip, and say with --input-unit what one unit is in floats",
        )  # fmt: skip
    if timed:
        return array.astype(np.uint8, copy=False)
    count = steps or graph.settings.steps
    if count is None or count < 1:
        raise SpikesError(
            "the number of time steps is not known", where="steps", got=count, allowed="1 or more",
            next_step="give steps=T (--steps T)",
        )  # fmt: skip
    return np.broadcast_to(array.astype(np.uint8, copy=False), (count, *array.shape))


def _input_bits(graph: nir.Graph, frames: npt.NDArray[np.uint8]) -> int:
    """Width of the input: the file's own, else what the calibration spikes need."""
    needed = max(1, int(frames.max()).bit_length())
    stated = graph.settings.input_bits
    if stated is not None and needed > stated:
        raise SpikesError(
            "the calibration spikes are wider than the file's input", where=graph.inputs[0].name,
            got=f"up to {int(frames.max())}", allowed=f"0..{(1 << stated) - 1} ({stated} bits)",
        )  # fmt: skip
    return stated or needed


def _encoding(spikes: npt.NDArray[Any], graph: nir.Graph) -> Any:
    """``direct`` where the spikes are presented at every step; unknown otherwise."""
    return "direct" if np.ndim(spikes) == len(graph.inputs[0].shape) + 1 else None


# Quantizing ---------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, eq=False)
class _Quantizer:
    """One population and the weights into it."""

    layer: Layer
    widths: Mapping[str, int]
    levels: int
    input_unit: float
    chip: Chip
    search: Search
    power_of_two: bool
    correct_bias: bool

    def made(self, graph: nir.Graph, seen: Seen) -> tuple[list[nir.Node], float]:
        """The new nodes (weights with their grid, the neuron with the whole bias), and the relative weight error."""
        layer, blocks = self.layer, self.layer.blocks
        wanted = tuple(self._wanted(block, seen) for block in blocks)
        largest = float(np.abs(layer.bias).max(initial=0.0))
        grid = choose(layer.name, wanted, layer.threshold, largest, self.chip, self.search, self.power_of_two)
        bias = layer.bias + self._correction(wanted, grid, seen) if self.correct_bias else layer.bias
        nodes: list[nir.Node] = [self._weights(block, grid, index) for index, block in enumerate(blocks)]
        squared = sum(float(((grid.floats(n) - want.weights) ** 2).sum()) for n, want in enumerate(wanted))
        size = sum(float((want.weights**2).sum()) for want in wanted)
        return [*nodes, self._neuron(graph, grid, bias)], math.sqrt(squared / size)

    def _wanted(self, block: Block, seen: Seen) -> Wanted:
        unit, largest = (self.input_unit, self.levels) if block.from_input else (1.0, 1)
        name = block.node.name
        taps = max(1, round(1 / block.pooled)) if block.pooled < 1 else 1
        return Wanted(name, block.weights * unit, seen.square[name], self.widths[name], largest, taps)

    def _correction(self, wanted: tuple[Wanted, ...], grid: Grid, seen: Seen) -> FloatArray | float:
        """What the biases must give back: the mean error of the sums, as the membrane sees it behind the current."""
        total: FloatArray | float = 0.0
        filtered = 1.0 if self.layer.alpha is None else 1.0 / (1.0 - self.layer.alpha)
        for index, (block, want) in enumerate(zip(self.layer.blocks, wanted, strict=True)):
            unit = self.input_unit if block.from_input else 1.0
            error = (want.weights - grid.floats(index)) / (unit * block.pooled)
            mean = seen.mean[want.name]
            total = total + _mean_sum(error, mean, block.node, self.layer.cell.shape) * filtered
        return total

    def _weights(self, block: Block, grid: Grid, index: int) -> nir.Node:
        """The node with weights on the grid; a pool before it keeps its factor."""
        exponent = grid.exponents[index]
        stated = nir.SynapseGrid(exponent, self.widths[block.node.name], "mixed")
        return replace(block.node, weight=grid.floats(index) / block.pooled, bias=None, quantization=stated)

    def _neuron(self, graph: nir.Graph, grid: Grid, bias: FloatArray) -> nir.Node:
        layer, shape = self.layer, self.layer.cell.shape
        beta, alpha = decays(layer.beta, layer.alpha)
        units = bias_integers(layer.name, np.broadcast_to(bias, shape), grid.scale)
        parameters = LifParameters(
            beta=np.full(shape, beta),
            alpha=None if alpha is None else np.full(shape, alpha),
            gain=np.ones(shape),
            leak_bias=units.astype(np.float64) * (grid.scale / (1 << fp.ACTIVATION_SHIFT)),
            threshold=np.full(shape, (grid.vth or 1) * grid.scale),
            v_reset=np.zeros(shape),
        )
        assert graph.dt is not None, "checked when the layers were read"
        node = neuron_from_steps(layer.name, parameters, graph.dt, nir.NeuronGrid(grid.scale))
        made = node if layer.threshold is not None else _readout(node)
        return replace(made, metadata=layer.cell.node.metadata)


def _readout(node: nir.LIF | nir.CubaLIF) -> nir.Node:
    """The same neurons without a threshold."""
    if isinstance(node, nir.LIF):
        return nir.LI(node.name, node.tau, node.r, node.v_leak, quantization=node.quantization)
    return nir.CubaLI(
        node.name, node.tau_syn, node.tau_mem, node.r, node.v_leak, node.w_in, quantization=node.quantization
    )  # fmt: skip


def _mean_sum(weights: FloatArray, mean: FloatArray, node: nir.Synapse, shape: tuple[int, ...]) -> FloatArray:
    """Mean sums of ``weights`` on inputs of these means, of the population's shape (borders not counted)."""
    if isinstance(node, nir.Affine):
        dense: FloatArray = (weights @ mean).reshape(shape)
        return dense
    assert isinstance(node, nir.Conv2d)
    inputs = np.split(mean, node.groups)
    rows = np.split(weights.sum((2, 3)), node.groups)
    each = np.concatenate([row @ part for row, part in zip(rows, inputs, strict=True)])
    return np.broadcast_to(each[:, None, None], shape)


def _rewritten(graph: nir.Graph, made: Mapping[str, nir.Node], settings: nir.RunSettings) -> nir.Graph:
    nodes = tuple(made.get(node.name, node) for node in graph.nodes)
    reset = "zero" if graph.reset == "value" else graph.reset  # v_reset is 0, which layers() demands
    return nir.Graph(nodes, graph.edges, graph.dt, reset, settings, graph.metadata)
