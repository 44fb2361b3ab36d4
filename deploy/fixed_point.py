"""The integer rules of a Loihi-class neuron core: pure functions, widths as arguments.

These functions *are* the semantics. They take and give plain integers, so the reference interpreter calls them with
unbounded Python integers, and the simulator compiles the very same source with numba. The oracle is lava-nc 0.10.0,
``Loihi2SimCfg(select_tag="fixed_pt")`` (``proc/lif/models.py``, ``proc/dense/models.py``, ``utils/weightutils.py``),
including what it does at the edges.
"""

from __future__ import annotations

from typing import Final, Literal, get_args

SignMode = Literal["mixed", "excitatory", "inhibitory"]
SIGN_MODES: Final = get_args(SignMode)

STATE_BITS: Final = 24  # u and v
DECAY_BITS: Final = 12  # du and dv
ACTIVATION_SHIFT: Final = 6  # synaptic sums, vth and thus every float unit are aligned 6 bits up in u and v
VTH_BITS: Final = 17
BIAS_MANTISSA_BITS: Final = 13  # signed
BIAS_EXPONENT_MAX: Final = 7
REFRACTORY_MAX: Final = 4095  # steps; a bound of ours, no chip field: the mode runs on CPU simulators only
WEIGHT_BITS: Final = 8
WEIGHT_EXP_MIN: Final = -8
WEIGHT_EXP_MAX: Final = 7
CURRENT_DECAY_OFFSET: Final = 1  # Loihi's ds_offset: the decay that acts on u is du + 1
REGISTER_BITS: Final = 32  # Lava keeps u and v in int32 arrays; sums wrap there before the 24-bit rule acts
MAX_STATE: Final = (1 << (STATE_BITS - 1)) - 1
MAX_VTH: Final = (1 << VTH_BITS) - 1


def wrap(x: int, bits: int) -> int:
    """Two's complement: the value in ``[-2^(bits-1), 2^(bits-1))`` congruent to ``x`` modulo ``2^bits``.

    >>> wrap(2**23, 24), wrap(-(2**23) - 1, 24)
    (-8388608, 8388607)
    """
    half = 1 << (bits - 1)
    return ((x + half) & ((half << 1) - 1)) - half


def wrap_current(u: int, bits: int) -> int:
    """Lava's wrap of the current: one turn of ``2^bits``, with ``+2^(bits-1)`` kept and ``-2^(bits-1)`` turned up.

    This is not two's complement at the two edges, nor beyond one and a half turns; measured against
    ``AbstractPyLifModelFixed.subthr_dynamics``.

    >>> wrap_current(2**23, 24), wrap_current(2**23 + 1, 24), wrap_current(-(2**23), 24)
    (8388608, -8388607, 8388608)
    """
    limit = 1 << (bits - 1)
    if u > limit:
        return u - (limit << 1)
    if u <= -limit:
        return u + (limit << 1)
    return u


def saturate(v: int, bits: int) -> int:
    """Clip to ``±(2^(bits-1) - 1)``, Lava's symmetric limit of the membrane."""
    limit = (1 << (bits - 1)) - 1
    return max(-limit, min(limit, v))


def decay(x: int, d: int) -> int:
    """Multiply by ``(4096 - d) / 4096`` and round toward zero; ``d`` in 0..4096.

    >>> decay(5, 2048), decay(-5, 2048), decay(-1, 1), decay(123, 4096)
    (2, -2, 0, 0)
    """
    magnitude = (abs(x) * ((1 << DECAY_BITS) - d)) >> DECAY_BITS
    return magnitude if x >= 0 else -magnitude


def shift(a: int, exponent: int) -> int:
    """Apply ``weight_exp`` to a synaptic sum: left when positive, else right, rounding toward minus infinity."""
    return a << exponent if exponent > 0 else a >> -exponent


def raw_current(u: int, a: int, du: int) -> int:
    """The current before its 24-bit wrap: ``decay(u, du + 1) + (a << 6)``, as it stands in Lava's int32 register."""
    return wrap(decay(u, du + CURRENT_DECAY_OFFSET) + wrap(a << ACTIVATION_SHIFT, REGISTER_BITS), REGISTER_BITS)


def raw_membrane(v: int, u: int, bias: int, dv: int) -> int:
    """The membrane before it saturates: ``decay(v, dv) + u + bias`` in Lava's int32 register."""
    return wrap(decay(v, dv) + u + bias, REGISTER_BITS)


def lif_step(u: int, v: int, a: int, du: int, dv: int, bias: int, vth: int) -> tuple[int, int, int]:
    """One step of the LIF / CUBA-LIF neuron with reset to zero.

    Args:
        u, v: State before the step.
        a: Synaptic sum of the step, after ``weight_exp``.
        du, dv: Decays, 0..4095; ``du = 4095`` makes the current memoryless (plain LIF).
        bias: Effective bias ``bias_mant << bias_exp``, in units of v (1/64 of a synaptic unit).
        vth: Threshold mantissa, 0..131071; the neuron spikes when ``v > vth << 6``.

    Returns:
        ``(u, v, spike)`` after the step.
    """
    u = wrap_current(raw_current(u, a, du), STATE_BITS)
    v = saturate(raw_membrane(v, u, bias, dv), STATE_BITS)
    spike = 1 if v > vth << ACTIVATION_SHIFT else 0
    return u, 0 if spike else v, spike


def weight_step(weight_bits: int, sign_mode: str) -> int:
    """Distance of neighbouring weights: Lava truncates ``8 - weight_bits`` bits, one more when signs are mixed."""
    return 1 << (WEIGHT_BITS - weight_bits + (1 if sign_mode == "mixed" else 0))


def weight_limits(weight_bits: int, sign_mode: str) -> tuple[int, int]:
    """Smallest and largest weight a synapse can hold.

    >>> weight_limits(8, "mixed"), weight_limits(8, "excitatory"), weight_limits(4, "inhibitory")
    ((-256, 254), (0, 255), (-240, 0))
    """
    top = (1 << WEIGHT_BITS) - weight_step(weight_bits, sign_mode)
    if sign_mode == "mixed":
        return -(1 << WEIGHT_BITS), top
    return (0, top) if sign_mode == "excitatory" else (-top, 0)


def bias_exponent(largest: int) -> int:
    """Smallest exponent with which a bias of magnitude ``largest`` fits the signed 13-bit mantissa.

    Returns a number above :data:`BIAS_EXPONENT_MAX` when no exponent of the chip is enough.

    >>> bias_exponent(4095), bias_exponent(4096), bias_exponent(100_000)
    (0, 1, 5)
    """
    limit = (1 << (BIAS_MANTISSA_BITS - 1)) - 1
    exponent = 0
    while (largest + (1 << exponent >> 1)) >> exponent > limit:
        exponent += 1
    return exponent


def decay_from_factor(factor: float) -> int:
    """The nearest decay ``d`` for a factor per step: ``round(4096 * (1 - factor))``, 0..4096.

    >>> decay_from_factor(0.9), decay_from_factor(0.0), decay_from_factor(1.0)
    (410, 4096, 0)
    """
    return round((1 << DECAY_BITS) * (1.0 - factor))
