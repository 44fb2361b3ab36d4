"""The compiled neuron scan: the arithmetic of :mod:`deploy.fixed_point`, rewritten for 32-bit registers.

``(|x| * k) >> 12 = (|x| >> 12) * k + (((|x| & 4095) * k) >> 12)`` for ``k <= 4096``: exact, and never above ``|x|``, so
24-bit state times a 12-bit decay fits 32 bits. Every operation is cast back to int32 at once: numba would widen it to
64 bits and halve the vector width.
"""

from __future__ import annotations

from typing import Any, Final

import numpy as np
from numba import njit

from deploy.program import Population

Array = Any  # numpy arrays; numba specialises on their types
MEMORYLESS: Final = 4095  # the du of a plain LIF: nothing of u is left after a step
EDGE: Final = 1 << 23
TOGETHER: Final = 1024  # neurons whose u, v, bias, sums and spikes (17 bytes each) fit the first-level cache
NEVER: Final = (1 << 25) - 1  # a vth that no saturated membrane exceeds, and whose ``<< 6`` fits int32: a readout's


@njit(cache=True, nogil=True, inline="always")
def _decay(x: int, k: int) -> Any:
    """:func:`deploy.fixed_point.decay` with ``k = 4096 - d``, in 32-bit registers."""
    sign = np.int32(x >> 31)
    magnitude = np.int32(np.int32(x ^ sign) - sign)
    high = np.int32(np.int32(magnitude >> 12) * k)
    low = np.int32(np.int32(np.int32(magnitude & 4095) * k) >> 12)
    return np.int32(np.int32(np.int32(high + low) ^ sign) - sign)


@njit(cache=True, nogil=True, inline="always")
def integrate(u: int, v: int, a: int, bias: int, current_factor: int, membrane_factor: int) -> Any:
    """One step before the threshold; also the forward pass of quantization-aware fine-tuning.

    Args:
        u, v: int32 state; a: int32 synaptic sum; bias: int32 effective bias.
        current_factor: ``4096 - (du + 1)``; membrane_factor: ``4096 - dv``.

    Returns:
        (u, v, raw u, raw v): the state after its 24-bit rules, and before them. int32 each.
    """
    edge, turn, limit = np.int32(1 << 23), np.int32(1 << 24), np.int32((1 << 23) - 1)
    raw_u = np.int32(np.int32(a) << 6)
    if current_factor != 0:
        raw_u = np.int32(_decay(u, current_factor) + raw_u)
    lowered = np.int32(raw_u - turn) if raw_u > edge else raw_u
    current = np.int32(raw_u + turn) if raw_u <= -edge else lowered
    raw_v = np.int32(np.int32(_decay(v, membrane_factor) + current) + bias)
    return current, min(max(raw_v, np.int32(-limit)), limit), raw_u, raw_v


def values(population: Population) -> tuple[int, int, int, bool]:
    """What a scan needs to know of a population: ``(du, dv, vth, subtract)``."""
    vth = population.vth if population.spiking else NEVER
    return population.du, population.dv, vth, population.reset == "subtract"


def is_calm(population: Population, calm: bool) -> bool:
    """Whether :func:`calm_scan` may run it; ``calm``: no edge can be reached."""
    return calm and population.du == MEMORYLESS


def scan_population(
    population: Population, calm: bool, sums: Array, constant: bool, bias: Array, u: Array, v: Array, held: Array,
    spikes: Array, first: int, tally: Array, keep_u: Array, keep_v: Array,
) -> None:  # fmt: skip
    """The scan of a population in its neuron mode; arrays as :func:`scan`, ``held`` as :func:`refractory_scan`."""
    common = (sums, constant, bias, *values(population), u, v)
    if population.refractory:
        refractory_scan(*common, population.refractory, held, spikes, first, tally, keep_u, keep_v)
    elif is_calm(population, calm):
        calm_scan(*common, spikes, first, tally, keep_u, keep_v)
    else:
        scan(*common, spikes, first, tally, keep_u, keep_v)


def stays_inside(population: Population, worst: int) -> bool:
    """Whether no input can make ``u`` wrap or ``v`` saturate, when no synaptic sum exceeds ``worst`` in magnitude.

    ``|decay(x, d)| <= |x| (4096 - d) / 4096``, so a state driven by at most ``a`` a step stays within
    ``a + a (4096 - d) / d``; a reset only lowers ``|v|`` or takes away a threshold that ``v`` exceeds.
    """
    driven = _limit(worst << 6, population.du + 1)
    largest_bias = int(np.abs(population.bias.astype(np.int64)).max(initial=0))
    return driven < EDGE and population.dv > 0 and _limit(driven + largest_bias, population.dv) < EDGE


def _limit(a_step: int, decay: int) -> int:
    return -(-a_step * 4096 // decay)


@njit(cache=True, nogil=True)
def scan(
    sums: Array, constant: bool, bias: Array, du: int, dv: int, vth: int, subtract: bool, u: Array, v: Array,
    spikes: Array, first: int, tally: Array, keep_u: Array, keep_v: Array,
) -> None:  # fmt: skip
    """The integer scan of one population over steps.

    Some neurons run through all steps before the next ones, so that their state stays in the first-level cache.

    Args:
        sums: int32 ``[B, S, n]``, or ``[B, 1, n]`` used at every step when ``constant``.
        bias: int32 ``[n]`` effective bias.
        u, v: int32 ``[B, n]`` state, updated in place.
        spikes: uint8 ``[B, T, n]``; rows ``first`` to ``first + S`` are written.
        tally: int64 ``[4, B, S]`` or longer: spikes, active neurons, wraps, saturations.
        keep_u, keep_v: int32 ``[B, S, n]`` records, or of zero size when not asked for.
    """
    current_factor, membrane_factor = np.int32(4096 - (du + 1)), np.int32(4096 - dv)
    threshold = np.int32(vth << 6)
    tally[:4] = 0
    for b in range(u.shape[0]):
        for start in range(0, bias.size, TOGETHER):
            some = slice(start, min(start + TOGETHER, bias.size))
            state_u, state_v, drive = u[b, some], v[b, some], bias[some]
            for s in range(tally.shape[2]):
                a = sums[b, 0 if constant else s, some]
                out = spikes[b, first + s, some]
                fired, active, wraps, clipped = np.int32(0), np.int32(0), np.int32(0), np.int32(0)
                for j in range(drive.size):
                    current, membrane, raw_u, raw_v = integrate(
                        state_u[j], state_v[j], a[j], drive[j], current_factor, membrane_factor
                    )
                    spike = membrane > threshold
                    rest = np.int32(membrane - threshold) if subtract else np.int32(0)
                    state_u[j] = current
                    state_v[j] = rest if spike else membrane
                    out[j] = np.uint8(spike)
                    fired = np.int32(fired + np.int32(spike))
                    active = np.int32(active + np.int32((current | membrane) != 0))
                    wraps = np.int32(wraps + np.int32(current != raw_u))
                    clipped = np.int32(clipped + np.int32(membrane != raw_v))
                tally[0, b, s] += fired
                tally[1, b, s] += active
                tally[2, b, s] += wraps
                tally[3, b, s] += clipped
                if keep_u.size:
                    keep_u[b, s, some] = state_u
                if keep_v.size:
                    keep_v[b, s, some] = state_v


@njit(cache=True, nogil=True)
def calm_scan(
    sums: Array, constant: bool, bias: Array, du: int, dv: int, vth: int, subtract: bool, u: Array, v: Array,
    spikes: Array, first: int, tally: Array, keep_u: Array, keep_v: Array,
) -> None:  # fmt: skip
    """:func:`scan` of a memoryless current where neither edge can be reached (:func:`stays_inside`).

    Without the edges' comparisons and without loading and storing u at every step. Args as :func:`scan`; ``du`` 4095.
    """
    membrane_factor, threshold = np.int32(4096 - dv), np.int32(vth << 6)
    last = tally.shape[2] - 1
    tally[:4] = 0
    for b in range(u.shape[0]):
        for start in range(0, bias.size, TOGETHER):
            some = slice(start, min(start + TOGETHER, bias.size))
            state_v, drive = v[b, some], bias[some]
            for s in range(last + 1):
                a = sums[b, 0 if constant else s, some]
                out = spikes[b, first + s, some]
                fired, active = np.int32(0), np.int32(0)
                for j in range(drive.size):
                    current = np.int32(a[j] << 6)
                    membrane = np.int32(np.int32(_decay(state_v[j], membrane_factor) + current) + drive[j])
                    spike = membrane > threshold
                    rest = np.int32(membrane - threshold) if subtract else np.int32(0)
                    state_v[j] = rest if spike else membrane
                    out[j] = np.uint8(spike)
                    fired = np.int32(fired + np.int32(spike))
                    active = np.int32(active + np.int32((current | membrane) != 0))
                tally[0, b, s] += fired
                tally[1, b, s] += active
                if s == last:
                    u[b, some] = a << np.int32(6)
                if keep_u.size:
                    keep_u[b, s, some] = a << np.int32(6)
                if keep_v.size:
                    keep_v[b, s, some] = state_v


@njit(cache=True, nogil=True)
def scan_some(
    some: slice, calm: bool, sums: Array, synops: Array, constant: bool, bias: Array, du: int, dv: int, vth: int,
    subtract: bool, u: Array, v: Array, spikes: Array, first: int, tally: Array, keep_u: Array, keep_v: Array,
) -> None:  # fmt: skip
    """:func:`scan`, or :func:`calm_scan` where ``calm``, of the samples ``some``; their synops go to ``tally[4]``.

    ``sums`` and ``synops`` hold those samples alone, the other arrays all of them.
    """
    kept_u, kept_v, own = keep_u[some], keep_v[some], tally[:, some]
    own[4] = synops
    if calm:
        calm_scan(
            sums, constant, bias, du, dv, vth, subtract, u[some], v[some], spikes[some], first, own, kept_u, kept_v
        )
    else:
        scan(sums, constant, bias, du, dv, vth, subtract, u[some], v[some], spikes[some], first, own, kept_u, kept_v)


@njit(cache=True, nogil=True)
def refractory_scan(
    sums: Array, constant: bool, bias: Array, du: int, dv: int, vth: int, subtract: bool, u: Array, v: Array,
    refractory: int, held: Array, spikes: Array, first: int, tally: Array, keep_u: Array, keep_v: Array,
) -> None:  # fmt: skip
    """:func:`scan` for neurons whose v is held for ``refractory`` steps after a spike, as Lava's ``LIFRefractory``.

    A kernel of its own, so that the plain one stays free of the branch. Args as :func:`scan`, and:
        held: int32 ``[B, n]`` steps each v is still held, updated in place.
    """
    current_factor, membrane_factor = np.int32(4096 - (du + 1)), np.int32(4096 - dv)
    threshold = np.int32(vth << 6)
    for b in range(u.shape[0]):
        state_u, state_v, wait = u[b], v[b], held[b]
        for s in range(tally.shape[2]):
            a = sums[b, 0 if constant else s]
            out = spikes[b, first + s]
            fired, active, wraps, clipped = np.int32(0), np.int32(0), np.int32(0), np.int32(0)
            for j in range(bias.size):
                free = wait[j] == 0
                current, integrated, raw_u, raw_v = integrate(
                    state_u[j], state_v[j], a[j], bias[j], current_factor, membrane_factor
                )
                membrane = integrated if free else state_v[j]
                spike = free and membrane > threshold
                rest = np.int32(membrane - threshold) if subtract else np.int32(0)
                state_u[j] = current
                state_v[j] = rest if spike else membrane
                wait[j] = refractory if spike else max(wait[j] - 1, 0)
                out[j] = np.uint8(spike)
                fired = np.int32(fired + np.int32(spike))
                active = np.int32(active + np.int32((current | membrane) != 0))
                wraps = np.int32(wraps + np.int32(current != raw_u))
                clipped = np.int32(clipped + np.int32(free and integrated != raw_v))
            tally[0, b, s], tally[1, b, s] = fired, active
            tally[2, b, s], tally[3, b, s] = wraps, clipped
            if keep_u.size:
                keep_u[b, s] = state_u
            if keep_v.size:
                keep_v[b, s] = state_v


@njit(cache=True, nogil=True)
def training_scan(
    sums: Array, held: bool, bias: Array, du: int, dv: int, vth: int, spikes: Array, membranes: Array,
    start: int, stop: int,
) -> None:  # fmt: skip
    """The same scan, time first and with floats at its ends, for fine-tuning; elements ``start:stop``.

    Args:
        sums: float32 ``[T, M]`` whole numbers (or ``[1, M]`` when ``held``), M = samples * neurons.
        bias: int32 ``[n]``; n divides M.
        spikes: float32 ``[T, M]``, written: 0 or 1.
        membranes: float32 ``[T, M]``, written: v before threshold and reset, in units of a synaptic sum (v / 64).
    """
    current_factor, membrane_factor = np.int32(4096 - (du + 1)), np.int32(4096 - dv)
    threshold, n = np.int32(vth << 6), bias.size
    u, v = np.zeros(stop - start, np.int32), np.zeros(stop - start, np.int32)
    b = np.empty(stop - start, np.int32)
    for m in range(start, stop):
        b[m - start] = bias[m % n]
    for t in range(spikes.shape[0]):
        a, out, before = sums[0 if held else t, start:stop], spikes[t, start:stop], membranes[t, start:stop]
        for m in range(u.size):
            current, membrane, _, _ = integrate(u[m], v[m], np.int32(a[m]), b[m], current_factor, membrane_factor)
            spike = membrane > threshold
            u[m] = current
            v[m] = np.int32(0) if spike else membrane
            out[m] = np.float32(spike)
            before[m] = np.float32(membrane) * np.float32(0.015625)
