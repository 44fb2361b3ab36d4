"""Neuron nodes as populations: decays, threshold, bias and mode in the chip's integers, recovered exactly."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final, NoReturn

import numpy as np
import numpy.typing as npt

from deploy import fixed_point as fp
from deploy import graph as nir
from deploy.errors import GraphError, UnsupportedNode
from deploy.graph.discrete import LifParameters, discretize
from deploy.program import Population, ResetRule

FloatArray = npt.NDArray[np.float64]
IntArray = npt.NDArray[np.int64]

# Files keep float64, which holds w_int * S * 2^e to 2^-53; float32 files (other writers) to 2^-24 of 256 steps.
GRID_TOLERANCE: Final = 2.0**-12
_LARGEST: Final = 2.0**53  # float64 has every integer up to here; no width of the chip comes near


def refuse(what: str, where: str, got: object, allowed: object, next_step: str = "") -> NoReturn:
    """Raise :class:`UnsupportedNode` at a node."""
    raise UnsupportedNode(what, where=f"node {where!r}", got=got, allowed=allowed, next_step=next_step)


def whole(values: FloatArray | float, node: str, what: str) -> IntArray:
    """The integers that ``values`` are.

    Raises:
        GraphError: one is no whole number; the message names it.
    """
    array = np.asarray(values, dtype=np.float64)
    rounded = np.round(array)
    off = ~(np.abs(array - rounded) <= GRID_TOLERANCE * np.maximum(1.0, np.abs(array) * 2.0**-8))
    off |= ~(np.abs(array) < _LARGEST)
    if np.any(off):
        raise GraphError(
            f"the {what} is off the integer grid that the file states",
            where=f"node {node!r}",
            got=f"{float(array.flat[int(np.argmax(off))]):.6g} in integer units",
            allowed="whole numbers below 2^53",
            next_step="export the network again; a file edited by hand must be quantized again",
        )
    return rounded.astype(np.int64)


@dataclass(frozen=True, eq=False)
class Cell:
    """A neuron node at one step of time, with its grid.

    Attributes:
        shape: Of the population.
        scale: Float value of one unit of synaptic sum.
    """

    node: nir.Neuron
    shape: tuple[int, ...]
    scale: float
    parameters: LifParameters

    @property
    def name(self) -> str:
        """Of the node and of the population."""
        return self.node.name

    @property
    def gain(self) -> FloatArray:
        """Factor of the input of each neuron, in the population's shape."""
        return np.broadcast_to(self.parameters.gain, self.shape)


def cell(graph: nir.Graph, node: nir.Neuron) -> Cell:
    """A neuron node made ready for lowering.

    Raises:
        GraphError: it is not quantized. UnsupportedNode: some of its neurons multiply their input by 0.
    """
    if node.quantization is None:
        raise GraphError(
            "the network is not quantized: the file states no integer grid",
            where=f"node {node.name!r}",
            got="float parameters only",
            allowed="a file with the neurokd metadata block on each synapse and neuron",
            next_step="quantize it first: `neurokd-deploy quantize`, or fine-tune it: `neurokd quantize`",
        )
    assert graph.dt is not None, "a graph with neurons has a time step"
    parameters = discretize(node, graph.dt)
    if np.any(parameters.gain == 0):
        way_out = "correct r and w_in, or remove the neurons"
        refuse("the input of some neurons is multiplied by 0", node.name, "an input gain of 0", "another gain", way_out)
    return Cell(node, graph.output_shape(node.name), node.quantization.scale, parameters)


def population(graph: nir.Graph, made: Cell, bias: FloatArray) -> Population:
    """The population of a cell; ``bias`` float ``[n]`` is what is added to the membrane each step.

    Raises:
        UnsupportedNode: a parameter differs between neurons, or has no counterpart.
        GraphError: a value is off its grid.
    """
    parameters = made.parameters
    mantissa, exponent = _mantissa(whole(bias * 64.0 / made.scale, made.name, "bias (in 1/64 of a unit)"), made.name)
    spiking = parameters.threshold is not None
    return Population(
        made.name,
        made.shape,
        du=_current_decay(made),
        dv=_decay(made, "beta", parameters.beta, 0, (1 << fp.DECAY_BITS) - 1),
        vth=_threshold(made) if spiking else 0,
        bias_mant=mantissa,
        bias_exp=exponent,
        reset=_reset(graph, made) if spiking else "zero",
        spiking=spiking,
        scale=made.scale,
    )


def uniform(node: str, what: str, values: FloatArray) -> float:
    """The one value all neurons share; per-neuron values have no place in a population."""
    if np.any(values != values.flat[0]):
        refuse(
            f"the {what} differs between neurons of one population",
            node,
            f"{values.min():g}..{values.max():g}",
            "one value for the population",
            "split the population, or fine-tune with a shared value",
        )
    return float(values.flat[0])


def _threshold(made: Cell) -> int:
    assert made.parameters.threshold is not None
    threshold = uniform(made.name, "threshold", made.parameters.threshold)
    return int(whole(threshold / made.scale, made.name, "threshold"))


def _reset(graph: nir.Graph, made: Cell) -> ResetRule:
    rest = made.parameters.v_reset
    if rest is not None and np.any(rest != 0):
        refuse("reset to a value other than 0 has no counterpart", made.name, rest[rest != 0].flat[0], "v_reset = 0")
    if graph.reset is None:
        allowed = "zero (chip), subtract (CPU simulators)"
        refuse("nobody says what a spike does", made.name, "no reset rule", allowed, "state it: --reset zero")
    if graph.reset.startswith("late"):
        way_out = "fine-tune with reset in the same step (snntorch: reset_delay=False)"
        refuse("a reset one step after the spike has no counterpart", made.name, graph.reset, "zero, subtract", way_out)
    return "subtract" if graph.reset == "subtract" else "zero"  # "value" is zero here: v_reset is 0


def _current_decay(made: Cell) -> int:
    if made.parameters.alpha is None:
        return (1 << fp.DECAY_BITS) - fp.CURRENT_DECAY_OFFSET
    least, most = fp.CURRENT_DECAY_OFFSET, 1 << fp.DECAY_BITS
    return _decay(made, "alpha", made.parameters.alpha, least, most) - fp.CURRENT_DECAY_OFFSET


def _decay(made: Cell, what: str, factors: FloatArray, least: int, most: int) -> int:
    unity = 1 << fp.DECAY_BITS
    factor = uniform(made.name, what, factors)
    decay = int(whole((1.0 - factor) * unity, made.name, f"decay of {what}"))
    if not least <= decay <= most:
        allowed = f"{1 - most / unity:g}..{1 - least / unity:g}"
        refuse(f"{what} is outside the chip's decays", made.name, factor, allowed, "fine-tune with another factor")
    return decay


def _mantissa(bias: IntArray, node: str) -> tuple[IntArray, int]:
    """The smallest exponent with which every bias is a mantissa, and the mantissas."""
    limit = 1 << (fp.BIAS_MANTISSA_BITS - 1)
    for exponent in range(fp.BIAS_EXPONENT_MAX + 1):
        mantissa = bias >> exponent
        inside = np.all((mantissa >= -limit) & (mantissa < limit))
        if inside and np.array_equal(mantissa << exponent, bias):
            return mantissa, exponent
    raise GraphError(
        "a bias has no mantissa and exponent on the chip",
        where=f"node {node!r}",
        got=f"{int(bias.min())}..{int(bias.max())} in 1/64 units",
        allowed=f"a signed {fp.BIAS_MANTISSA_BITS}-bit mantissa shifted by 0..{fp.BIAS_EXPONENT_MAX}, one for all",
        next_step="quantize the network again",
    )
