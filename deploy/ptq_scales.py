"""Choosing a population's integers after training: weight steps, exponents, threshold, bias, decays. numpy only.

With S the float value of one unit of synaptic sum (see :mod:`deploy.graph.quantization`):

    weight  w_int = w / (S * 2^weight_exp), on the grid of its width      vth  threshold / S
    bias    64 * b / S, a mantissa of 13 bits under one exponent          dv   4096 * (1 - beta)

``search`` wants a weight step for each set of weights: ``max`` clips nothing, ``percentile`` leaves 99.9 % of the
weights unclipped, ``mse`` has the least squared error of the sums, each weight's error counted by the mean square of
what arrives there on the calibration spikes. Two things move it: no sum may leave the accumulator, so steps grow until
the largest possible sum fits; and a threshold below :data:`LEAST_VTH` units would be rounded coarsely, so
``weight_exp`` rises, while one above :data:`LARGEST_VTH` would leave the 24-bit state no room, so it falls.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Final, Literal, NoReturn, get_args

import numpy as np
import numpy.typing as npt

from deploy import fixed_point as fp
from deploy.chip import Chip
from deploy.errors import ProgramError
from deploy.graph.coerce import FloatArray

Search = Literal["mse", "max", "percentile"]
SEARCHES: Final = get_args(Search)
LEAST_VTH: Final = 64
LARGEST_VTH: Final = 2048
COARSEST: Final = 8.0  # three of eight bits are lost by then
PERCENTILE: Final = 99.9
_COARSER: Final = 1.0905  # 2^(1/8)
_CANDIDATES: Final = tuple(0.05 ** (i / 60) for i in range(61))

IntArray = npt.NDArray[np.int64]


@dataclass(frozen=True, eq=False)
class Wanted:
    """One set of weights that wants a grid.

    Attributes:
        name: Of the node.
        weights: Float ``[out, ...]`` for one integer unit of what arrives before pools.
        importance: Mean square of what arrives, ``[in]`` or a channel each.
        bits: Width of a weight.
        largest: Largest integer that arrives on one synapse; one weight stands for ``taps`` synapses of a pool.
    """

    name: str
    weights: FloatArray
    importance: FloatArray
    bits: int
    largest: int
    taps: int = 1

    def rounded(self, step: float) -> IntArray:
        """The nearest weights on the grid of mixed signs, in units of ``step``; halves to the even multiple."""
        low, high = fp.weight_limits(self.bits, "mixed")
        unit = fp.weight_step(self.bits, "mixed")
        rounded: IntArray = (np.clip(np.round(self.weights / (step * unit)) * unit, low, high)).astype(np.int64)
        return rounded

    def worst_sum(self, step: float) -> int:
        """Largest magnitude of a sum before ``weight_exp``, whatever arrives."""
        rows = self.rounded(step).reshape(len(self.weights), -1)
        highest, lowest = np.maximum(rows, 0).sum(1).max(), np.maximum(-rows, 0).sum(1).max()
        return int(max(highest, lowest)) * self.largest * self.taps

    def error(self, step: float) -> float:
        """Squared error of the sums that rounding and clipping cause, inputs taken as uncorrelated."""
        squared = (self.rounded(step) * step - self.weights) ** 2
        if squared.ndim == 2:
            return float((squared * self.importance).sum())
        per_group = squared.sum((2, 3))
        groups = np.split(self.importance, len(self.importance) // per_group.shape[1])
        rows = np.split(per_group, len(groups))
        return float(sum((part * weight).sum() for part, weight in zip(rows, groups, strict=True)))

    def step(self, search: Search) -> float:
        """The float weight of one integer unit that the search wants."""
        low, high = fp.weight_limits(self.bits, "mixed")
        needed = np.maximum(self.weights / high, self.weights / low)  # the step with which each is just not clipped
        largest = float(needed.max())
        if search == "max":
            return largest
        if search == "percentile":
            clipped = float(np.percentile(needed, PERCENTILE, method="higher"))
            return clipped or largest
        steps: list[float] = [largest * part for part in _CANDIDATES]
        return min(steps, key=self.error)


@dataclass(frozen=True, eq=False)
class Grid:
    """A population's integers.

    Attributes:
        scale: S.
        vth: Threshold mantissa; 0 of a readout.
        exponents: ``weight_exp`` of each set of weights; weights: its integers, mixed signs.
        coarsened: How many times coarser than wanted the weights are, for the accumulator's sake.
    """

    scale: float
    vth: int
    exponents: tuple[int, ...]
    weights: tuple[IntArray, ...]
    coarsened: float

    def floats(self, index: int) -> FloatArray:
        """The weights of a block as floats, for one integer unit of what arrives."""
        return self.weights[index].astype(np.float64) * (self.scale * 2.0 ** self.exponents[index])


def choose(
    population: str, wanted: tuple[Wanted, ...], threshold: float | None, bias: float, chip: Chip, search: Search,
    power_of_two: bool = False,
) -> Grid:  # fmt: skip
    """The grid of a population.

    Args:
        population: Its name, for errors.
        wanted: The sets of weights into it.
        threshold: Float; None of a readout.
        bias: Largest magnitude of its biases.
        chip: Whose widths apply.
        search: How a weight step is chosen.
        power_of_two: Whether S must be a power of two; the threshold is then rounded to a multiple of it.

    Raises:
        ProgramError: weights that are all zero, sums, a threshold or a bias that fit no grid; with layer and number.
    """
    for block in wanted:
        if not block.weights.any():
            _refuse("the weights are all zero", block.name, "no weight", "weights", "remove the node, or train it")
    steps = [block.step(search) for block in wanted]
    finest = min(steps)
    rises = [math.ceil(math.log2(step / finest) - 1e-9) for step in steps]  # up: a finer step would clip
    base, coarsened = _roomy(population, wanted, rises, finest, chip)
    exponent = 0 if threshold is None else _exponent(threshold / base, bias / threshold, chip)
    while exponent > 0 and _worst(wanted, rises, base, exponent) > _room(chip):
        exponent -= 1
    exponents = tuple(exponent + rise for rise in rises)
    if max(exponents) > chip.formats.weight_exp_max:
        got = f"weight_exp {min(exponents)}..{max(exponents)}"
        allowed = f"up to {chip.formats.weight_exp_max}"
        _refuse(
            "the weights into one layer are too unlike, or too small for its threshold",
            population,
            got,
            allowed,
            _SCALE,
        )
    vth, scale = _threshold(population, threshold, base, exponent, chip, power_of_two)
    integers = tuple(
        block.rounded(scale * 2.0**raised) for block, raised in zip(wanted, exponents, strict=True)
    )  # fmt: skip
    return Grid(scale, vth, exponents, integers, coarsened)


_SCALE: Final = "train with weight decay or a normalisation, so that weights and threshold are of one size"


def _refuse(what: str, where: str, got: object, allowed: object, next_step: str) -> NoReturn:
    raise ProgramError(what, where=f"layer {where}", got=got, allowed=allowed, next_step=next_step)


def _roomy(
    population: str, wanted: tuple[Wanted, ...], rises: list[int], finest: float, chip: Chip
) -> tuple[float, float]:
    """The base step, coarser where the largest possible sum would leave the accumulator; and how many times."""
    factor = 1.0
    while factor <= COARSEST:
        if _worst(wanted, rises, finest * factor, 0) <= _room(chip):
            return finest * factor, factor
        factor *= _COARSER
    inputs = max(block.weights[0].size * block.taps for block in wanted)
    return _refuse(
        "the layer's synaptic sums do not fit the accumulator", population,
        f"sums up to {_worst(wanted, rises, finest, 0)}: {inputs} inputs of up to {max(b.largest for b in wanted)}",
        f"{_room(chip):.0f}",
        "encode the input with fewer bits, or train with a smaller fan-in or fewer large weights",
    )  # fmt: skip


def _room(chip: Chip) -> float:
    """What the largest possible sum may reach; 3 % less than all, for S is yet to be rounded to the threshold."""
    return 0.97 * (1 << (min(chip.formats.accumulator_bits, fp.STATE_BITS) - 1))


def _worst(wanted: tuple[Wanted, ...], rises: list[int], base: float, exponent: int) -> int:
    pairs = zip(wanted, rises, strict=True)
    return sum(block.worst_sum(base * 2.0**rise) << max(exponent + rise, 0) for block, rise in pairs)


def _exponent(mantissa: float, bias: float, chip: Chip) -> int:
    """The exponent nearest 0 that brings vth (``mantissa`` at exponent 0) between its bounds; bias in thresholds."""
    ceiling = float(min(LARGEST_VTH, (1 << chip.formats.vth_bits) - 1))
    if bias > 0:
        largest = ((1 << (fp.BIAS_MANTISSA_BITS - 1)) - 1) << fp.BIAS_EXPONENT_MAX
        ceiling = max(2.0, min(ceiling, largest / (1 << fp.ACTIVATION_SHIFT) / bias))
    highest = math.floor(math.log2(ceiling / mantissa))
    if highest < 0:
        return max(highest, chip.formats.weight_exp_min)
    return max(0, min(highest, math.ceil(math.log2(min(LEAST_VTH, ceiling) / mantissa))))


def _threshold(
    population: str, threshold: float | None, base: float, exponent: int, chip: Chip, power_of_two: bool
) -> tuple[int, float]:
    """vth and S."""
    scale = base / 2.0**exponent
    if power_of_two:
        scale = 2.0 ** math.ceil(math.log2(scale) - 1e-9)
    if threshold is None:
        return 0, scale
    vth = round(threshold / scale) if power_of_two else math.floor(threshold / scale * (1 + 1e-12))
    limit = (1 << chip.formats.vth_bits) - 1
    if not 1 <= vth <= limit:
        large = vth > 1
        _refuse(
            f"the threshold is too {'large' if large else 'small'} for the chip at this scale", population,
            f"vth {vth} (threshold {threshold:.4g}, one unit of the weights {scale:.4g})", f"vth 1..{limit}", _SCALE,
        )  # fmt: skip
    return vth, scale if power_of_two else threshold / vth


def bias_integers(population: str, bias: FloatArray, scale: float) -> IntArray:
    """Biases in 1/64 units of a sum, rounded to mantissas under one exponent; halves round up.

    Raises:
        ProgramError: one is beyond mantissa and exponent.
    """
    units = bias * (1 << fp.ACTIVATION_SHIFT) / scale
    exponent = fp.bias_exponent(math.floor(float(np.abs(units).max(initial=0.0)) + 0.5))
    if exponent > fp.BIAS_EXPONENT_MAX:
        largest = (
            (((1 << (fp.BIAS_MANTISSA_BITS - 1)) - 1) << fp.BIAS_EXPONENT_MAX) / (1 << fp.ACTIVATION_SHIFT) * scale
        )
        _refuse(
            "a bias has no mantissa and exponent on the chip at this scale", population,
            f"bias {float(np.abs(bias).max()):.4g}", f"up to {largest:.4g}",
            "train with a norm or a penalty on the bias: it must stay near the threshold",
        )  # fmt: skip
    rounded: IntArray = np.floor(units / (1 << exponent) + 0.5).astype(np.int64) << exponent
    return rounded


def decays(beta: float, alpha: float | None) -> tuple[float, float | None]:
    """The nearest decay factors the chip has: beta 1/4096 to 1, alpha 0 to 4095/4096."""
    unity = 1 << fp.DECAY_BITS
    dv = min(fp.decay_from_factor(beta), unity - 1)
    if alpha is None:
        return 1 - dv / unity, None
    return 1 - dv / unity, 1 - max(fp.decay_from_factor(alpha), fp.CURRENT_DECAY_OFFSET) / unity
