"""Compiled synapse kernels: event-driven sums. ``nogil``, so threads run samples in parallel.

Layout: arrays are sample-major (``[B, T, n]``) and images channel-last, so that what one event adds lies together, in
rows padded to :data:`deploy.simulator.vectors.LANES`. Sums of 8-bit weights gather in int16 for as many rows as cannot
overflow. Convolutions: :mod:`deploy.simulator.convolution`.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numba import njit

from deploy.simulator.neurons import scan_some
from deploy.simulator.vectors import (
    LANES,
    MIDDLE,
    WIDE,
    WORD,
    U,
    add_rows,
    add_rows_middle,
    add_rows_wide,
    add_scaled_rows,
    add_scaled_rows_middle,
    emit,
    events,
    nonzero,
    ones,
)

Array = Any  # numpy arrays; numba specialises on their types


@njit(cache=True, nogil=True)
def count_events(source: Array) -> Array:
    """Nonzero values of each row of ``[B, T, n]``, int64 ``[B, T]``."""
    counts = np.empty(source.shape[:2], np.int64)
    for b in range(source.shape[0]):
        for t in range(source.shape[1]):
            row, at, count = source[b, t], U(0), U(0)
            while at + U(WORD) <= U(row.size):
                count += ones(nonzero(row, at))
                at += U(WORD)
            while at < U(row.size):
                count += U(row[at] != 0)
                at += U(1)
            counts[b, t] = count
    return counts


@njit(cache=True, nogil=True)
def dense_events(
    source: Array, weights: Array, fanout: Array, step: int, exponent: int, rows: int, graded: bool, lag: int,
    first: int, fresh: bool, sums: Array, synops: Array,
) -> None:  # fmt: skip
    """Spikes through a dense block.

    Args:
        source: uint8 ``[B, T, n_in]``: 0 and 1, or any value when ``graded``; T = 1: the same at every step.
        weights: int8 or int16 ``[n_in, n_out padded to LANES]``, in units of ``step``.
        fanout: int32 ``[n_in]``: nonzero weights of each source.
        rows: How many rows cannot overflow int16.
        lag: Delay in steps; ``first``: step of the first row of ``sums`` within ``source``.
        fresh: True writes ``sums`` and ``synops`` anew, False adds to them.
        sums: int32 ``[B, S, n_out]``; synops: int64 ``[B, S]``.
    """
    stride, flat = U(weights.shape[1]), weights.reshape(-1)
    index = np.empty(source.shape[2] + 1, np.uint32)
    total = np.empty(weights.shape[1], np.int32)
    for b in range(sums.shape[0]):
        for s in range(sums.shape[1]):
            total[:] = 0
            count, operations = 0, 0
            if first + s - lag >= 0:
                row = source[b, min(first + s - lag, source.shape[1] - 1)]
                count = events(row, index)
                for start in range(0, count, rows):
                    _gather(total, flat, stride, index, row, start, min(start + rows, count), graded)
                for e in range(count):
                    operations += fanout[index[U(e)]]
            emit(total, 0, step, exponent, fresh, sums[b, s])
            synops[b, s] = operations if fresh else synops[b, s] + operations


@njit(cache=True, nogil=True)
def dense_stage(
    source: Array, weights: Array, fanout: Array, step: int, exponent: int, rows: int, graded: bool, lag: int,
    from_step: int, sums: Array, synops: Array, calm: bool, constant: bool, bias: Array, du: int, dv: int, vth: int,
    subtract: bool, u: Array, v: Array, spikes: Array, first: int, tally: Array, keep_u: Array, keep_v: Array,
) -> None:  # fmt: skip
    """A population that one dense block reaches: :func:`dense_events` and the scan, some samples at a time.

    One call where there were two for every few samples: threads that call often wait for the interpreter's lock (28x28
    convolutions on two cores: 7 % of a chunk's time). Args as :func:`dense_events` (``from_step`` its ``first``) and
    :func:`deploy.simulator.neurons.scan_some`, with sums and synops of the samples of one turn.
    """
    for start in range(0, u.shape[0], sums.shape[0]):
        some = slice(start, min(start + sums.shape[0], u.shape[0]))
        turn = slice(0, some.stop - start)
        dense_events(
            source[some], weights, fanout, step, exponent, rows, graded, lag, from_step, True, sums[turn], synops[turn]
        )
        scan_some(
            some, calm, sums[turn], synops[turn], constant, bias, du, dv, vth, subtract, u, v, spikes, first, tally,
            keep_u, keep_v,
        )  # fmt: skip


@njit(cache=True, nogil=True, inline="always")
def _gather(
    total: Array, weights: Array, stride: int, index: Array, values: Array, start: int, stop: int, graded: bool
) -> None:
    """Add the rows ``index[start:stop]`` of the weights to ``total``, as many columns at a time as registers hold."""
    at, begin, end = U(0), U(start), U(stop)
    while not graded and at + U(WIDE) <= stride:
        add_rows_wide(total, at, weights, stride, index, values, begin, end)
        at += U(WIDE)
    while at + U(MIDDLE) <= stride:
        if graded:
            add_scaled_rows_middle(total, at, weights, stride, index, values, begin, end)
        else:
            add_rows_middle(total, at, weights, stride, index, values, begin, end)
        at += U(MIDDLE)
    while at < stride:
        if graded:
            add_scaled_rows(total, at, weights, stride, index, values, begin, end)
        else:
            add_rows(total, at, weights, stride, index, values, begin, end)
        at += U(LANES)
