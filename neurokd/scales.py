"""Choosing a layer's integer grid before fine-tuning: weight step, threshold, exponent, decays.

With S the float value of one unit of synaptic sum and ``x_int = x / unit`` the integers that arrive:

    sum     a = shift(sum(w_int * x_int), weight_exp)          I = S * a
    weight  w_int = w * unit / (S * 2^weight_exp), rounded to the grid of ``weight_bits`` and ``sign_mode``
    vth     threshold / S, a whole number by the choice of S
    bias    64 * b / S, rounded to a mantissa of 13 bits under one exponent

The search wants a weight step. Three things move it or the exponent:

* no sum may leave the accumulator, whatever arrives, so the step grows until the largest possible sum leaves room for
  the weights to grow (:data:`ROOM`);
* a threshold below :data:`LEAST_VTH` would be rounded coarsely: ``weight_exp`` rises;
* a threshold above :data:`LARGEST_VTH` would leave strong currents no room in the 24-bit state (2048 leaves 64
  thresholds), and a bias its largest value: ``weight_exp`` falls.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Final, Literal, get_args

import torch
from torch import Tensor

from deploy import fixed_point as fp
from deploy.chip import Chip
from deploy.errors import ConfigError, TrainingError
from neurokd.grid import alpha_on_grid, on_grid
from neurokd.layer_grid import LARGEST_BIAS, MEMORYLESS, LayerGrid, round_to_grid, worst_sum

ScaleSearch = Literal["mse", "max", "percentile"]
SEARCHES: Final = get_args(ScaleSearch)
LEAST_VTH: Final = 64
LARGEST_VTH: Final = 2048
#: Share of the accumulator that the first weights may fill: they can grow by a third before training has to stop.
ROOM: Final = 0.75
#: A grid more than this much coarser than the search asked for is refused: three of eight bits are lost by then.
COARSEST: Final = 8.0
PERCENTILE: Final = 0.999
_COARSER: Final = 1.0905  # 2^(1/8)
#: mse tries steps from the largest weight's down to a twentieth of it (outliers at 10 deviations, 2-bit grids).
_CANDIDATES: Final[tuple[float, ...]] = tuple(0.05 ** (i / 60) for i in range(61))


def choose_grid(
    layer: str,
    weight: Tensor,
    bias: Tensor,
    *,
    threshold: float,
    beta: float,
    alpha: float | None,
    unit: float,
    chip: Chip,
    weight_bits: int,
    search: ScaleSearch = "mse",
    power_of_two: bool = False,
) -> LayerGrid:
    """The grid of one layer.

    Args:
        layer: Name, for errors.
        weight: Folded float weights ``[out, ...]``; bias: folded float biases ``[out]``.
        threshold: Of the membrane; beta: its decay; alpha: the current's, None in a plain LIF. Decays go to the
            nearest the chip has (beta 0 to 1/4096, alpha 1 to 4095/4096).
        unit: See :class:`LayerGrid`.
        chip: Whose widths apply.
        weight_bits: Width of a weight.
        search: ``mse`` (least squared rounding and clipping error), ``max`` (nothing clipped) or ``percentile``
            (99.9 % of the weights unclipped).
        power_of_two: Restrict S to powers of two; the threshold is then rounded to a multiple of it.

    Raises:
        ConfigError: the chip does not have ``weight_bits``, or an unknown search.
        TrainingError: the weights are all zero or not finite, the sums, the threshold or the bias fit no grid.
    """
    _check_choice(layer, weight_bits, search, chip)
    _check_usable(layer, weight, bias)
    start = _Start(layer, weight.double(), float(bias.abs().max()), threshold, unit, weight_bits, chip)
    wanted = _weight_step(start.weight, weight_bits, search)
    step = _roomy_step(start, wanted)
    exponent = _exponent(start, step)
    if power_of_two:  # up: a smaller scale would clip the largest weights
        scale = 2.0 ** math.ceil(math.log2(step * unit / 2.0**exponent) - 1e-9)
        vth = round(threshold / scale)
    else:
        vth = math.floor(start.mantissa(step) * 2.0**exponent)  # down, for the same reason
        scale = threshold / max(vth, 1)
    _check_threshold(start, vth, step, exponent)
    grid = LayerGrid(
        scale=scale,
        unit=unit,
        weight_exp=exponent,
        weight_bits=weight_bits,
        sign_mode="mixed",
        vth=vth,
        du=MEMORYLESS if alpha is None else fp.decay_from_factor(alpha_on_grid(alpha)) - fp.CURRENT_DECAY_OFFSET,
        dv=fp.decay_from_factor(on_grid(beta)),
        accumulator_bits=start.accumulator_bits,
        coarsened=step / wanted,
    )
    _check_bias(start, grid)
    return grid


@dataclass(frozen=True)
class _Start:
    """A layer that a grid is wanted for; arguments as in :func:`choose_grid`, ``bias`` the largest magnitude.

    A *step* is the float weight of one integer unit at ``weight_exp`` 0.
    """

    layer: str
    weight: Tensor
    bias: float
    threshold: float
    unit: float
    bits: int
    chip: Chip

    @property
    def accumulator_bits(self) -> int:
        return min(self.chip.formats.accumulator_bits, fp.STATE_BITS)

    @property
    def room(self) -> float:
        """What the largest possible sum may reach at the start."""
        return ROOM * (1 << (self.accumulator_bits - 1))

    @property
    def largest_vth(self) -> int:
        return int((1 << self.chip.formats.vth_bits) - 1)

    def rounded(self, step: float) -> Tensor:
        return round_to_grid(self.weight / step, self.bits, "mixed")

    def worst_sum(self, step: float) -> int:
        return worst_sum(self.rounded(step), round(1.0 / self.unit))

    def mantissa(self, step: float) -> float:
        """vth at ``weight_exp`` 0, not yet rounded."""
        return self.threshold / (step * self.unit)


def _check_choice(layer: str, weight_bits: int, search: str, chip: Chip) -> None:
    widths = [bits for bits in chip.formats.weight_bits_allowed if bits >= 2]  # 1 bit of mixed sign: -256 and 0 only
    if type(weight_bits) is not int or weight_bits not in widths:
        raise ConfigError(
            f"{chip.title} has no synapses of this width",
            where=f"layer {layer}, weight_bits",
            got=repr(weight_bits),
            allowed=", ".join(map(str, widths)),
        )
    if search not in SEARCHES:
        raise ConfigError("unknown scale search", where="search", got=repr(search), allowed=", ".join(SEARCHES))


def _check_usable(layer: str, weight: Tensor, bias: Tensor) -> None:
    finite = bool(torch.isfinite(weight).all() and torch.isfinite(bias).all())
    if not finite or not bool(weight.any()):
        raise TrainingError(
            "the layer's weights cannot be put on a grid",
            where=f"layer {layer}",
            got="all zero" if finite else "values that are not finite",
            allowed="finite weights, not all zero",
            next_step="train the network first; a diverged run must be repeated with a smaller learning rate",
        )


def _weight_step(weight: Tensor, bits: int, search: str) -> float:
    low, high = fp.weight_limits(bits, "mixed")  # -256 and 192 at 3 bits: the positive side clips first
    needed = torch.maximum(weight / high, weight / low).flatten()
    if search == "max":
        return float(needed.max())
    if search == "percentile":
        return float(needed.kthvalue(math.ceil(PERCENTILE * len(needed))).values) or float(needed.max())
    largest = float(weight.abs().max()) / -low
    return min((largest * part for part in _CANDIDATES), key=lambda step: _rounding_error(weight, bits, step))


def _rounding_error(weight: Tensor, bits: int, step: float) -> float:
    return float(((round_to_grid(weight / step, bits, "mixed") * step - weight) ** 2).sum())


def _roomy_step(start: _Start, wanted: float) -> float:
    """The wanted step, or the next coarser one with which the largest possible sum leaves room in the accumulator."""
    step = wanted
    while step <= COARSEST * wanted:
        if start.worst_sum(step) <= start.room and bool(start.rounded(step).any()):
            return step
        step *= _COARSER
    raise TrainingError(
        "the layer's synaptic sums do not fit the accumulator",
        where=f"layer {start.layer}",
        got=f"sums up to {start.worst_sum(wanted)}: {start.weight[0].numel()} inputs of up to {round(1 / start.unit)} "
        f"and {start.bits}-bit weights",
        allowed=f"{start.room:.0f}, with weights at most {COARSEST:g} times as coarse as the search wants",
        next_step="use fewer input bits, a smaller fan-in, or weights with fewer large values",
    )


def _exponent(start: _Start, step: float) -> int:
    """The ``weight_exp`` nearest 0 that brings vth between its bounds, as far as the chip's range goes."""
    ceiling, mantissa = float(min(LARGEST_VTH, start.largest_vth)), start.mantissa(step)
    if start.bias > 0:  # room for the bias to double
        doubled = start.threshold / (2.0 * start.bias) * LARGEST_BIAS / (1 << fp.ACTIVATION_SHIFT)
        ceiling = max(2.0, min(ceiling, doubled))  # below 2 the exponent could round vth down to 0
    highest = math.floor(math.log2(ceiling / mantissa))
    if highest < 0:
        return max(highest, start.chip.formats.weight_exp_min)
    wanted = math.ceil(math.log2(min(LEAST_VTH, ceiling) / mantissa))
    room = math.floor(math.log2(start.room / start.worst_sum(step)))
    return max(0, min(wanted, highest, room, start.chip.formats.weight_exp_max))


def _check_threshold(start: _Start, vth: int, step: float, exponent: int) -> None:
    if 1 <= vth <= start.largest_vth:
        return
    large = vth > 1
    raise TrainingError(
        f"the threshold is too {'large' if large else 'small'} for the chip at this scale",
        where=f"layer {start.layer}",
        got=f"vth {vth} (threshold {start.threshold:.4g}, weights up to {float(start.weight.abs().max()):.4g}, "
        f"weight_exp {exponent})",
        allowed=f"vth 1..{start.largest_vth}",
        next_step="use fewer input bits, or train with a lower threshold or larger weights"
        if large
        else "train with a higher threshold, or with weight decay: one weight is many thresholds",
    )


def _check_bias(start: _Start, grid: LayerGrid) -> None:
    largest = LARGEST_BIAS * grid.bias_unit
    if start.bias > largest:
        raise TrainingError(
            "a bias has no mantissa and exponent on the chip at this scale",
            where=f"layer {start.layer}",
            got=f"bias {start.bias:.4g}, {start.bias / start.threshold:.4g} thresholds",
            allowed=f"up to {largest:.4g} at weight_exp {grid.weight_exp}",
            next_step="train with a norm or a penalty on the bias: it must stay near the threshold",
        )
