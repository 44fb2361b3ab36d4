"""Weights as lava-dl 0.6.0's netx holds them, and as a Program does; the two keep the same sums in other words.

A netx file holds weights as whole numbers in units of one. For a fully connected layer netx then chooses sign mode,
weight bits and exponent itself (``netx/utils.py optimize_weight_bits``) and Lava's Dense truncates to them; a
convolution is taken as it is. A Program says exponent, bits and sign mode outright.
"""

from __future__ import annotations

from typing import Any, Final

import numpy as np
import numpy.typing as npt

from deploy import fixed_point as fp
from deploy.program import Synapse

Array = npt.NDArray[Any]
Format = tuple[Array, int, fp.SignMode]
MIXED: Final = fp.weight_limits(8, "mixed")
SINGLE: Final = fp.weight_limits(8, "excitatory")[1]


def in_units(synapse: Synapse) -> Array | None:
    """The weights in units of one, int64; None where ``weight_exp`` makes fractions of them."""
    weights = synapse.weights.astype(np.int64)
    if synapse.weight_exp >= 0:
        return weights << synapse.weight_exp
    step = 1 << -synapse.weight_exp
    return weights >> -synapse.weight_exp if not np.any(weights % step) else None


def why_not_dense(weights: Array) -> str:
    """Why netx's Dense cannot hold these (units of one); empty where it holds them exactly."""
    low, high = int(weights.min()), int(weights.max())
    if low == high == 0:
        return "every weight is 0, which netx cannot scale"
    if low >= 0:
        return f"a weight of {high}; without negative ones at most {SINGLE}" if high > SINGLE else ""
    if high < 0:
        return f"a weight of {low}; without positive ones at least {-SINGLE}" if low < -SINGLE else ""
    if low < MIXED[0] or high > MIXED[1]:
        return f"weights {low}..{high}; of both signs {MIXED[0]}..{MIXED[1]}"
    bits_beyond = max(high / 127, low / -128) > 1
    return "an odd weight beyond 127, between which only even ones fit" if bits_beyond and np.any(weights % 2) else ""


def on_grid(weights: Array) -> Format | None:
    """Weights in units of one as ``(weights, weight_exp, sign mode)`` at 8 bits; None where no exponent holds them."""
    weights = weights.astype(np.int64)
    low, high = int(weights.min(initial=0)), int(weights.max(initial=0))
    for exponent in range(fp.WEIGHT_EXP_MAX + 1):
        if np.any(weights % (1 << exponent)):
            return None
        least, most = low >> exponent, high >> exponent
        if MIXED[0] <= least and most <= MIXED[1] and not np.any(weights % (2 << exponent)):
            return weights >> exponent, exponent, "mixed"
        if exponent == 0 and least >= -128 and most <= 127:
            return weights * 2, -1, "mixed"
        if least >= 0 and most <= SINGLE:
            return weights >> exponent, exponent, "excitatory"
        if most <= 0 and least >= -SINGLE:
            return weights >> exponent, exponent, "inhibitory"
    return None
