"""Choosing a layer's integer grid before fine-tuning: weight step, threshold, exponent, decays.

With S the float value of one unit of synaptic sum and ``x_int = x / unit`` the integers that arrive:

    sum     a = shift(sum(w_int * x_int), weight_exp)          I = S * a
    weight  w_int = w * unit / (S * 2^weight_exp), rounded to the grid of ``weight_bits`` and ``sign_mode``
    vth     threshold / S, a whole number by the choice of S
    bias    64 * b / S, rounded to a mantissa of 13 bits under one exponent

``weight_exp`` is negative where it must be: a fine weight step with a graded input would put the threshold so high in
the 24-bit state that strong inputs wrap. It leaves the threshold at :data:`LARGEST_VTH` or below, so that a current of
64 thresholds still fits, and low enough for the largest bias.
"""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass
from typing import Any, Final, Literal

import torch
from torch import Tensor

from deploy import fixed_point as fp
from deploy.chip import Chip
from deploy.errors import ConfigError, TrainingError

ScaleSearch = Literal["mse", "max", "percentile"]
SEARCHES: Final = ("mse", "max", "percentile")
LARGEST_VTH: Final = 2048
_BIAS_LIMIT: Final = ((1 << (fp.BIAS_MANTISSA_BITS - 1)) - 1) << fp.BIAS_EXPONENT_MAX  # in 1/64 units
_CANDIDATES: Final = 40


@dataclass(frozen=True)
class LayerGrid:
    """The integers of one layer that fine-tuning does not change.

    Attributes:
        scale: S, the float value of one unit of synaptic sum.
        unit: Float value of one unit of what arrives (1 for spikes, ``1 / levels`` for graded input), times the
            pooling factor.
        weight_exp, weight_bits, sign_mode: As on the chip.
        vth: Threshold mantissa; ``threshold = vth * scale``.
        du, dv: Decays 0..4095.
    """

    scale: float
    unit: float
    weight_exp: int
    weight_bits: int
    sign_mode: fp.SignMode
    vth: int
    du: int
    dv: int

    @property
    def weight_unit(self) -> float:
        """Float weight of one integer unit."""
        return self.scale * 2.0**self.weight_exp / self.unit

    def plain(self) -> dict[str, Any]:
        """The fields as a plain dict."""
        return asdict(self)


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
) -> LayerGrid:
    """The grid of one layer.

    Args:
        layer: Name, for errors.
        weight: Folded float weights; bias: folded float biases.
        unit: See :class:`LayerGrid`.
        search: ``mse`` (least squared rounding and clipping error), ``max`` (nothing clipped) or ``percentile``
            (99.9 % of the weights unclipped).

    Raises:
        ConfigError: the chip does not have ``weight_bits``, or an unknown search.
        TrainingError: the weights are all zero or not finite, or the bias fits no exponent.
    """
    if weight_bits not in chip.formats.weight_bits_allowed:
        raise ConfigError(
            f"{chip.title} has no synapses of this width",
            where=f"layer {layer}, weight_bits",
            got=weight_bits,
            allowed=list(chip.formats.weight_bits_allowed),
        )
    if search not in SEARCHES:
        raise ConfigError("unknown scale search", where="search", got=search, allowed=", ".join(SEARCHES))
    _require_usable(layer, weight, bias)
    step = _weight_step(weight.double(), weight_bits, search) * unit
    exponent = _exponent(layer, step, threshold, float(bias.abs().max()), chip)
    vth = max(1, round(threshold / step * 2.0**exponent))
    return LayerGrid(
        scale=threshold / vth,
        unit=unit,
        weight_exp=exponent,
        weight_bits=weight_bits,
        sign_mode="mixed",
        vth=vth,
        du=(1 << fp.DECAY_BITS) - 1 if alpha is None else fp.decay_from_factor(alpha) - fp.CURRENT_DECAY_OFFSET,
        dv=fp.decay_from_factor(beta),
    )


def _require_usable(layer: str, weight: Tensor, bias: Tensor) -> None:
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
    """Float weight of one integer unit (the grid's step is a multiple of it)."""
    low, _ = fp.weight_limits(bits, "mixed")
    largest = float(weight.abs().max())
    if search == "max":
        return largest / -low
    if search == "percentile":
        return float(torch.quantile(weight.abs().flatten()[: 1 << 24], 0.999)) / -low or largest / -low
    steps = [largest / -low * (1.0 - 0.7 * i / _CANDIDATES) for i in range(_CANDIDATES)]
    return min(
        steps, key=lambda step: float(((round_to_grid(weight / step, bits, "mixed") * step - weight) ** 2).sum())
    )


def round_to_grid(units: Tensor, bits: int, sign_mode: str) -> Tensor:
    """The nearest weights the chip can hold, in its integer units; halves go to the even multiple of the step."""
    low, high = fp.weight_limits(bits, sign_mode)
    step = fp.weight_step(bits, sign_mode)
    return (torch.round(units / step) * step).clamp(low, high)


def _exponent(layer: str, step: float, threshold: float, largest_bias: float, chip: Chip) -> int:
    ceiling = float(LARGEST_VTH)
    if largest_bias > 0:
        ceiling = min(ceiling, threshold / largest_bias * _BIAS_LIMIT / 64.0)
    exponent = min(0, math.floor(math.log2(ceiling * step / threshold)))
    if exponent < chip.formats.weight_exp_min:
        raise TrainingError(
            "the layer fits no weight exponent of the chip",
            where=f"layer {layer}",
            got=f"exponent {exponent} (threshold {threshold:g}, weight step {step:.3g}, largest bias {largest_bias:.3g})",
            allowed=f"exponents from {chip.formats.weight_exp_min}",
            next_step="use fewer input bits, or train with weight decay: threshold and bias must stay near the weights",
        )
    return exponent
