"""Compiled synapse kernels: event-driven sums. ``nogil``, so threads run samples in parallel.

Layout: arrays are sample-major (``[B, T, n]``) and images channel-last, so the innermost loop always runs over
neighbouring memory and vectorizes. Sums of 8-bit weights gather in int16 for as many rows as cannot overflow, then
move to int32. Every 32-bit operation is cast back at once: numba would widen it to 64 bits and halve the vector width.
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
