"""Compiled kernels: event-driven synapses and the integer neuron scan. ``nogil``, so threads run samples in parallel.

Layout: arrays are sample-major (``[B, T, n]``) and images channel-last, so the innermost loop always runs over
neighbouring memory and vectorizes. Sums of 8-bit weights gather in int16 for as many rows as cannot overflow, then
move to int32. Every 32-bit operation is cast back at once: numba would widen it to 64 bits and halve the vector width.

The neuron arithmetic is that of :mod:`deploy.fixed_point`, rewritten for 32-bit registers:
``(|x| * k) >> 12 = (|x| >> 12) * k + (((|x| & 4095) * k) >> 12)`` for ``k <= 4096``, exact and never above ``|x|``.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numba import njit

Array = Any  # numpy arrays; numba specialises on their types


@njit(cache=True, nogil=True, inline="always")
def _events(row: Array, index: Array) -> int:
    """Positions of the nonzero entries of ``row``; returns how many. ``index`` holds one more than ``row``."""
    count = 0
    for i in range(row.size):
        index[count] = i
        count += 1 if row[i] != 0 else 0
    return count


@njit(cache=True, nogil=True, inline="always")
def _add_rows(weights: Array, index: Array, start: int, stop: int, partial: Array) -> None:
    """``partial[j] += sum of weights[index[start:stop], j]`` in int16, eight rows at a time."""
    at = start
    while at + 8 <= stop:
        a, b, c, d = weights[index[at]], weights[index[at + 1]], weights[index[at + 2]], weights[index[at + 3]]
        e, f, g, h = weights[index[at + 4]], weights[index[at + 5]], weights[index[at + 6]], weights[index[at + 7]]
        for j in range(partial.size):
            partial[j] = np.int16(partial[j] + a[j] + b[j] + c[j] + d[j] + e[j] + f[j] + g[j] + h[j])
        at += 8
    while at < stop:
        row = weights[index[at]]
        for j in range(partial.size):
            partial[j] = np.int16(partial[j] + row[j])
        at += 1


@njit(cache=True, nogil=True, inline="always")
def _emit(total: Array, step: int, exponent: int, sums: Array) -> None:
    """``sums += shift(total * step, exponent)``; the right shift rounds toward minus infinity, as numpy's does."""
    left, right = max(exponent, 0), max(-exponent, 0)
    for j in range(sums.size):
        sums[j] = np.int32(sums[j] + np.int32(np.int32(np.int32(total[j] * step) << left) >> right))


@njit(cache=True, nogil=True)
def dense_events(
    source: Array, weights: Array, fanout: Array, step: int, exponent: int, rows: int, lag: int, first: int,
    sums: Array, synops: Array,
) -> None:  # fmt: skip
    """Binary spikes through a dense block.

    Args:
        source: uint8 ``[B, T, n_in]`` of 0 and 1.
        weights: int8 or int16 ``[n_in, n_out]``, in units of ``step``.
        fanout: int32 ``[n_in]``: nonzero weights of each source.
        rows: How many rows cannot overflow int16.
        lag: Delay in steps; ``first``: step of the first row of ``sums`` within ``source``.
        sums: int32 ``[B, S, n_out]``, added to; synops: int64 ``[B, S]``, added to.
    """
    n_out = weights.shape[1]
    index = np.empty(source.shape[2] + 1, np.int64)
    partial, total = np.empty(n_out, np.int16), np.empty(n_out, np.int32)
    for b in range(sums.shape[0]):
        for s in range(sums.shape[1]):
            if first + s - lag < 0:
                continue
            count = _events(source[b, first + s - lag], index)
            total[:] = 0
            for start in range(0, count, rows):
                partial[:] = 0
                _add_rows(weights, index, start, min(start + rows, count), partial)
                for j in range(n_out):
                    total[j] = np.int32(total[j] + partial[j])
            _emit(total, step, exponent, sums[b, s])
            for e in range(count):
                synops[b, s] += fanout[index[e]]


@njit(cache=True, nogil=True)
def dense_graded(
    source: Array, weights: Array, fanout: Array, step: int, exponent: int, rows: int, lag: int, first: int,
    sums: Array, synops: Array,
) -> None:  # fmt: skip
    """Graded spikes (uint8 values) through a dense block; arguments as :func:`dense_events`."""
    n_out = weights.shape[1]
    total = np.empty(n_out, np.int32)
    for b in range(sums.shape[0]):
        for s in range(sums.shape[1]):
            if first + s - lag < 0:
                continue
            total[:] = 0
            for i in range(source.shape[2]):
                value = np.int32(source[b, first + s - lag, i])
                if value != 0:
                    row = weights[i]
                    for j in range(n_out):
                        total[j] = np.int32(total[j] + np.int32(value * row[j]))
                    synops[b, s] += fanout[i]
            _emit(total, step, exponent, sums[b, s])


@njit(cache=True, nogil=True)
def conv_events(
    source: Array, weights: Array, place: Array, rows: Array, row_start: Array, runs: Array, run_start: Array,
    width: int, out_channels: int, per_group: int, graded: bool, scratch: Array, fanout: Array, step: int,
    exponent: int, lag: int, first: int, sums: Array, synops: Array,
) -> None:  # fmt: skip
    """Spikes through a convolution, scattered from each event; outputs channel-last, one run of them per kernel row.

    Taps that carry a pixel to neighbouring outputs lie side by side in ``weights``, so an event adds a whole run
    (taps x output channels) at once. See :func:`deploy.simulator.plan.scatter_tables`.

    Args:
        source: uint8 ``[B, T, H*W*C]``, channel-last.
        weights: int16 ``[C, kh, kw * O/groups]``, taps of a row ordered by run, in units of ``step``.
        place: int32 ``[H*W*C, 3]``: y, x and channel of each source.
        rows, row_start: For each y its (kernel row, output row) pairs, ``rows[row_start[y]:row_start[y + 1]]``.
        runs, run_start: For each x its runs (first tap, first output column, taps).
        width: Output width; per_group: output channels a group; graded: whether events carry values above 1.
        scratch: int16 or int32 ``[H'*W'*O]``: int16 where no sum of unit weights can leave it.
        sums: int32 ``[B, S, H'*W'*O]``, added to; the rest as :func:`dense_events`.
    """
    index = np.empty(source.shape[2] + 1, np.int64)
    in_group = weights.shape[0] // (out_channels // per_group)
    for b in range(sums.shape[0]):
        for s in range(sums.shape[1]):
            if first + s - lag < 0:
                continue
            scratch[:] = 0
            row = source[b, first + s - lag]
            count = _events(row, index)
            for e in range(count):
                i = index[e]
                y, x, channel = place[i, 0], place[i, 1], place[i, 2]
                synops[b, s] += fanout[i]
                offset = (channel // in_group) * per_group
                for r in range(row_start[y], row_start[y + 1]):
                    for t in range(run_start[x], run_start[x + 1]):
                        base = (rows[r, 1] * width + runs[t, 1]) * out_channels + offset
                        size = runs[t, 2] * per_group
                        kernel = weights[channel, rows[r, 0], runs[t, 0] * per_group : runs[t, 0] * per_group + size]
                        target = scratch[base : base + size]
                        if graded:
                            _add_scaled(target, kernel, row[i])
                        else:
                            _add(target, kernel)
            _emit(scratch, step, exponent, sums[b, s])


@njit(cache=True, nogil=True, inline="always")
def _add(target: Array, kernel: Array) -> None:
    for o in range(target.size):
        target[o] += kernel[o]


@njit(cache=True, nogil=True, inline="always")
def _add_scaled(target: Array, kernel: Array, value: int) -> None:
    for o in range(target.size):
        target[o] += np.int32(value) * np.int32(kernel[o])


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


@njit(cache=True, nogil=True)
def neurons(
    sums: Array, constant: bool, bias: Array, du: int, dv: int, vth: int, subtract: bool, u: Array, v: Array,
    spikes: Array, first: int, tally: Array, keep_u: Array, keep_v: Array,
) -> None:  # fmt: skip
    """The integer scan of one population over steps.

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
    for b in range(u.shape[0]):
        state_u, state_v = u[b], v[b]
        for s in range(tally.shape[2]):
            a = sums[b, 0 if constant else s]
            out = spikes[b, first + s]
            fired, active, wraps, clipped = np.int32(0), np.int32(0), np.int32(0), np.int32(0)
            for j in range(bias.size):
                current, membrane, raw_u, raw_v = integrate(
                    state_u[j], state_v[j], a[j], bias[j], current_factor, membrane_factor
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
