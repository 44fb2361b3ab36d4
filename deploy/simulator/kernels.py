"""Compiled synapse kernels: event-driven sums. ``nogil``, so threads run samples in parallel.

Layout: arrays are sample-major (``[B, T, n]``) and images channel-last, so that what one event adds lies together, in
rows padded to :data:`LANES`. Sums of 8-bit weights gather in int16 for as many rows as cannot overflow.

What runs once an event is written in LLVM's own vectors (the intrinsics; every processor has them): a numba loop over a
few weights costs more in checks and remainders than in additions. Measured on the first layer of
28x28x1-16c5s2-32c3s2-10: 4.1 us a step as loops. Intrinsics check no bounds; they stay private to this file, whose
kernels own and pad their arrays (and numba's cache only notices changes of the kernel's own file).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final

import numpy as np
from llvmlite import ir  # type: ignore[import-untyped]
from numba import njit, types
from numba.core import cgutils
from numba.extending import intrinsic

Array = Any  # numpy arrays; numba specialises on their types
LANES: Final = 16  # rows of weights are padded to a multiple of it
_WIDE: Final = 256
_MIDDLE: Final = 64
_WORD: Final = 64  # sources looked at together when searching for events
CHANNEL_FIRST: Final = 11  # place of that flag in the shape of a convolution
SHIFT: Final = 12  # place of the shift by which a place is divided; see canvas.divider
_INT16, _INT32, _INT64 = (ir.IntType(bits) for bits in (16, 32, 64))
_U: Final = np.uint64


def _data(context: Any, builder: Any, signature: Any, arguments: Any, position: int) -> Any:
    return context.make_array(signature.args[position])(context, builder, arguments[position]).data


def _vector(kind: Any, lanes: int) -> Any:
    return ir.VectorType(ir.IntType(kind.dtype.bitwidth), lanes)


def _load(builder: Any, data: Any, at: Any, vector: Any) -> Any:
    value = builder.load(builder.bitcast(builder.gep(data, [at]), vector.as_pointer()))
    value.align = vector.element.width // 8
    return value


def _store(builder: Any, value: Any, data: Any, at: Any) -> None:
    stored = builder.store(value, builder.bitcast(builder.gep(data, [at]), value.type.as_pointer()))
    stored.align = value.type.element.width // 8


def _widened(builder: Any, value: Any, vector: Any) -> Any:
    return builder.sext(value, vector) if value.type.element.width < vector.element.width else value


def _spread(builder: Any, value: Any, vector: Any) -> Any:
    """A vector with an int32 in every lane."""
    undefined = ir.Constant(vector, ir.Undefined)
    value = builder.trunc(value, vector.element) if vector.element.width < _INT32.width else value
    one = builder.insert_element(undefined, value, ir.Constant(_INT32, 0))
    return builder.shuffle_vector(one, undefined, ir.Constant(ir.VectorType(_INT32, vector.count), None))


def _typed_nonzero(_typing: Any, row: Any, at: Any) -> Any:
    """uint64 whose bit k tells whether ``row[at + k]`` is not zero; row uint8 ``[>= at + 64]``."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        vector = _vector(row, _WORD)
        values = _load(builder, _data(context, builder, signature, arguments, 0), arguments[1], vector)
        return builder.bitcast(builder.icmp_unsigned("!=", values, ir.Constant(vector, None)), _INT64)

    return types.uint64(row, types.uint64), generate


def _typed_ones(_typing: Any, word: Any) -> Any:
    """Bits of a uint64 that are one."""

    def generate(_context: Any, builder: Any, _signature: Any, arguments: Any) -> Any:
        return builder.ctpop(arguments[0])

    return types.uint64(types.uint64), generate


def _typed_trailing_zeros(_typing: Any, word: Any) -> Any:
    """Zero bits below the lowest one of a uint64 that is not zero."""

    def generate(_context: Any, builder: Any, _signature: Any, arguments: Any) -> Any:
        return builder.cttz(arguments[0], ir.Constant(ir.IntType(1), 1))

    return types.uint64(types.uint64), generate


def _scattering(lanes: int, scaled: bool = False, single: bool = False) -> Any:
    """The loop over the events of one step, for :func:`conv_events`; its arguments, flat, those of a place as uint64.

    ``single``: a kernel row is one run of ``lanes`` weights; otherwise it is ``runs`` of a multiple of ``lanes``.
    """

    def typed(_typing: Any, canvas: Any, weights: Any, index: Any, count: Any, values: Any, sites: Any, group: Any,
              multiplier: Any, inner: Any, shape: Any) -> Any:  # fmt: skip
        place = types.uint64
        signature = types.void(canvas, weights, index, place, values, sites, group, place, place, shape)
        return signature, _scatterer(lanes, scaled, single)

    return intrinsic(typed)


def _scatterer(lanes: int, scaled: bool, single: bool) -> Callable[..., Any]:
    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        canvas, weights, index, values, sites, group, shape = (
            _data(context, builder, signature, arguments, k) for k in (0, 1, 2, 4, 5, 6, 9)
        )
        in_channel, row_weights, row_cells, runs, size, run_cells = (_number(builder, shape, k) for k in range(6))
        swapped = builder.icmp_unsigned("!=", _number(builder, shape, CHANNEL_FIRST), _place(0))
        unit = min(lanes, LANES) if single else lanes
        wide, narrow = _vector(signature.args[0], unit), _vector(signature.args[1], unit)

        def add(cell: Any, weight: Any, factor: Any) -> None:
            added = _widened(builder, _load(builder, weights, weight, narrow), wide)
            added = builder.mul(added, factor) if scaled else added
            _store(builder, builder.add(_load(builder, canvas, cell, wide), added), canvas, cell)

        with _loop(builder, arguments[3]) as (e, _):
            i = _number(builder, index, e)
            quotient = builder.lshr(builder.mul(i, arguments[7]), _number(builder, shape, SHIFT))
            rest = builder.sub(i, builder.mul(quotient, arguments[8]))
            site, channel = builder.select(swapped, rest, quotient), builder.select(swapped, quotient, rest)
            start, first, rows = (
                _number(builder, sites, builder.add(builder.mul(site, _place(3)), _place(k))) for k in range(3)
            )
            cell = builder.add(start, _number(builder, group, channel))
            weight = builder.add(first, builder.mul(channel, in_channel))
            value = builder.trunc(_number(builder, values, i), _INT32)
            factor = _spread(builder, value, wide) if scaled else None
            with _loop(builder, rows) as (row, _):
                to, come = (builder.add(a, builder.mul(row, b)) for a, b in ((cell, row_cells), (weight, row_weights)))
                if single:
                    for k in range(0, lanes, unit):
                        add(builder.add(to, _place(k)), builder.add(come, _place(k)), factor)
                else:
                    with _loop(builder, runs) as (run, _), _loop(builder, size, lanes) as (k, _):
                        to_run, come_run = builder.mul(run, run_cells), builder.mul(run, size)
                        add(
                            builder.add(builder.add(to, to_run), k), builder.add(builder.add(come, come_run), k), factor
                        )
        return context.get_dummy_value()

    return generate


def _place(value: int) -> Any:
    return ir.Constant(_INT64, value)


def _number(builder: Any, data: Any, at: Any) -> Any:
    """``data[at]``, which is not negative, in 64 bits."""
    value = builder.load(builder.gep(data, [_place(at) if isinstance(at, int) else at]))
    return builder.zext(value, _INT64) if value.type.width < _INT64.width else value


def _loop(builder: Any, stop: Any, step: int = 1) -> Any:
    return cgutils.for_range_slice(builder, _place(0), stop, _place(step), _INT64)


def _row_adding(lanes: int, scaled: bool) -> Any:
    """``total[at : at + lanes] += sum of (values[i] *) weights[i * stride + at ...] over i in index[start:stop]``.

    total int32, weights int8 or int16, index uint32, values uint8, all flat; the sum stays in registers. Without
    values it gathers in int16 (the caller bounds the number of rows), with values in int32.
    """

    def typed(_typing: Any, total: Any, at: Any, weights: Any, stride: Any, index: Any, values: Any, start: Any,
              stop: Any) -> Any:  # fmt: skip
        place = types.uint64
        signature = types.void(total, place, weights, place, index, values, place, place)
        return signature, _row_adder(lanes, scaled)

    return intrinsic(typed)


def _row_adder(lanes: int, scaled: bool) -> Callable[..., Any]:
    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        total, weights, index, values = (_data(context, builder, signature, arguments, k) for k in (0, 2, 4, 5))
        at, stride, start, stop = (arguments[k] for k in (1, 3, 6, 7))
        wide, narrow = _vector(signature.args[0], lanes), _vector(signature.args[2], lanes)
        register = wide if scaled else ir.VectorType(_INT16, lanes)
        nothing = ir.Constant(register, None)
        sums = cgutils.alloca_once(builder, register)  # type: ignore[no-untyped-call]
        builder.store(nothing, sums)
        column = builder.gep(weights, [at])
        with cgutils.for_range_slice(builder, start, stop, ir.Constant(_INT64, 1), _INT64) as (e, _):
            i = builder.zext(builder.load(builder.gep(index, [e])), _INT64)
            row = _widened(builder, _load(builder, column, builder.mul(i, stride), narrow), register)
            if scaled:
                value = builder.zext(builder.load(builder.gep(values, [i])), _INT32)
                row = builder.mul(row, _spread(builder, value, register))
            builder.store(builder.add(builder.load(sums), row), sums)
        gathered = _widened(builder, builder.load(sums), wide)
        _store(builder, builder.add(_load(builder, total, at, wide), gathered), total, at)
        return context.get_dummy_value()

    return generate


_nonzero: Any = intrinsic(_typed_nonzero)
_ones: Any = intrinsic(_typed_ones)
_trailing_zeros: Any = intrinsic(_typed_trailing_zeros)
_add_rows_wide, _add_rows_middle, _add_rows = (_row_adding(lanes, False) for lanes in (_WIDE, _MIDDLE, LANES))
_add_scaled_rows_middle, _add_scaled_rows = (_row_adding(lanes, True) for lanes in (_MIDDLE, LANES))
_scatter_singly, _scatter, _scatter_middle = (_scattering(lanes) for lanes in (1, LANES, 4 * LANES))
_scatter_scaled_singly, _scatter_scaled = (_scattering(lanes, scaled=True) for lanes in (1, LANES))
_scatter_16, _scatter_32, _scatter_48, _scatter_64, _scatter_80 = (
    _scattering(lanes, single=True) for lanes in (16, 32, 48, 64, 80)
)
_scatter_96, _scatter_128, _scatter_160, _scatter_192, _scatter_256 = (
    _scattering(lanes, single=True) for lanes in (96, 128, 160, 192, 256)
)


@njit(cache=True, nogil=True, inline="always")
def _events(row: Array, index: Array) -> Any:
    """Positions of the nonzero entries of ``row``; returns how many. ``index`` holds one more than ``row``."""
    count, at, size = _U(0), _U(0), _U(row.size)
    while at + _U(_WORD) <= size:
        word = _nonzero(row, at)
        while word != _U(0):
            index[count] = at + _trailing_zeros(word)
            count += _U(1)
            word &= word - _U(1)
        at += _U(_WORD)
    while at < size:
        index[count] = at
        count += _U(row[at] != 0)
        at += _U(1)
    return count


@njit(cache=True, nogil=True, inline="always")
def _emit(total: Array, start: int, step: int, exponent: int, fresh: bool, sums: Array) -> None:
    """``sums (+)= shift(total[start:] * step, exponent)``; the right shift rounds toward minus infinity, as numpy's."""
    factor, right, at = np.int32(step << max(exponent, 0)), max(-exponent, 0), _U(start)
    if fresh and right == 0:
        for j in range(sums.size):
            sums[j] = np.int32(np.int32(total[at + _U(j)]) * factor)
    else:
        for j in range(sums.size):
            shifted = np.int32(np.int32(np.int32(total[at + _U(j)]) * factor) >> right)
            sums[j] = shifted if fresh else np.int32(sums[j] + shifted)


@njit(cache=True, nogil=True)
def count_events(source: Array) -> Array:
    """Nonzero values of each row of ``[B, T, n]``, int64 ``[B, T]``."""
    counts = np.empty(source.shape[:2], np.int64)
    for b in range(source.shape[0]):
        for t in range(source.shape[1]):
            row, at, count = source[b, t], _U(0), _U(0)
            while at + _U(_WORD) <= _U(row.size):
                count += _ones(_nonzero(row, at))
                at += _U(_WORD)
            while at < _U(row.size):
                count += _U(row[at] != 0)
                at += _U(1)
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
    stride, flat = _U(weights.shape[1]), weights.reshape(-1)
    index = np.empty(source.shape[2] + 1, np.uint32)
    total = np.empty(weights.shape[1], np.int32)
    for b in range(sums.shape[0]):
        for s in range(sums.shape[1]):
            total[:] = 0
            count, operations = 0, 0
            if first + s - lag >= 0:
                row = source[b, min(first + s - lag, source.shape[1] - 1)]
                count = _events(row, index)
                for start in range(0, count, rows):
                    _gather(total, flat, stride, index, row, start, min(start + rows, count), graded)
                for e in range(count):
                    operations += fanout[index[_U(e)]]
            _emit(total, 0, step, exponent, fresh, sums[b, s])
            synops[b, s] = operations if fresh else synops[b, s] + operations


@njit(cache=True, nogil=True, inline="always")
def _gather(
    total: Array, weights: Array, stride: int, index: Array, values: Array, start: int, stop: int, graded: bool
) -> None:
    """Add the rows ``index[start:stop]`` of the weights to ``total``, as many columns at a time as registers hold."""
    at, begin, end = _U(0), _U(start), _U(stop)
    while not graded and at + _U(_WIDE) <= stride:
        _add_rows_wide(total, at, weights, stride, index, values, begin, end)
        at += _U(_WIDE)
    while at + _U(_MIDDLE) <= stride:
        if graded:
            _add_scaled_rows_middle(total, at, weights, stride, index, values, begin, end)
        else:
            _add_rows_middle(total, at, weights, stride, index, values, begin, end)
        at += _U(_MIDDLE)
    while at < stride:
        if graded:
            _add_scaled_rows(total, at, weights, stride, index, values, begin, end)
        else:
            _add_rows(total, at, weights, stride, index, values, begin, end)
        at += _U(LANES)


@njit(cache=True, nogil=True)
def conv_events(
    source: Array, weights: Array, inner: int, multiplier: int, group: Array, sites: Array, shape: Array,
    graded: bool, scratch: Array, fanout: Array, step: int, exponent: int, lag: int, first: int, fresh: bool,
    sums: Array, synops: Array,
) -> None:  # fmt: skip
    """Spikes through a convolution, scattered from each event onto a canvas wider than the output image.

    An event adds, in each output row it reaches, one run of weights (its taps along x, times output channels) or, where
    taps land apart, one run a tap. All runs of a block have the same length, whatever the event: a loop of changing
    length costs more in mispredicted branches than the zero weights it saves. What lands beside the image is dropped.

    Args:
        source: uint8 ``[B, T or 1, H*W*C]``, channel-last, or channel-first (the input, as it comes).
        weights: int16 ``[C * ...]``; see :func:`deploy.simulator.plan.scatter`.
        inner: Length of the source's inner axis: C, or H*W where channel-first; multiplier: divides by it.
        group: int32 ``[C]``: canvas channel at which a source channel's outputs begin.
        sites: int32 ``[H*W, 3]``: place on the canvas of the first run, place of its weights, number of rows.
        shape: int64 ``[13]``: weights a source channel, weights and canvas cells from one row to the next; runs a row,
            weights a run, canvas cells between runs; output height, width and channels of a group; groups; first cell
            of the image in a canvas row; whether the source is channel-first; the
            multiplier's shift.
        graded: Whether events carry values above 1.
        scratch: int16 or int32 ``[H', canvas width, canvas channels]``, all zero; int16 where no sum can leave it.
        sums: int32 ``[B, S, H'*W'*O]``; the rest as :func:`dense_events`.
    """
    index = np.empty(source.shape[2] + 1, np.uint32)
    canvas = scratch.reshape(-1)
    for b in range(sums.shape[0]):
        for s in range(sums.shape[1]):
            operations = 0
            if first + s - lag >= 0:
                row = source[b, min(first + s - lag, source.shape[1] - 1)]
                count = _events(row, index)
                for e in range(count):
                    operations += fanout[index[_U(e)]]
                _scatter_events(
                    canvas, weights, index, _U(count), row, sites, group, _U(multiplier), _U(inner), shape, graded
                )
            _emit_image(scratch, shape, step, exponent, fresh, sums[b, s])
            canvas[:] = 0
            synops[b, s] = operations if fresh else synops[b, s] + operations


@njit(cache=True, nogil=True, inline="always")
def _scatter_events(
    canvas: Array, weights: Array, index: Array, count: int, row: Array, sites: Array, group: Array, multiplier: int,
    inner: int, shape: Array, graded: bool,
) -> None:  # fmt: skip
    """One step's events, by the loop made for the length of their runs."""
    size = shape[4] if shape[3] == 1 and not graded else 0
    if graded and shape[4] % LANES != 0:
        _scatter_scaled_singly(canvas, weights, index, count, row, sites, group, multiplier, inner, shape)
    elif graded:
        _scatter_scaled(canvas, weights, index, count, row, sites, group, multiplier, inner, shape)
    elif 0 < size <= 80 and size % 16 == 0:
        _scatter_short(canvas, weights, index, count, row, sites, group, multiplier, inner, shape)
    elif size in (96, 128, 160, 192, 256):
        _scatter_long(canvas, weights, index, count, row, sites, group, multiplier, inner, shape)
    elif shape[4] % (4 * LANES) == 0:
        _scatter_middle(canvas, weights, index, count, row, sites, group, multiplier, inner, shape)
    elif shape[4] % LANES == 0:
        _scatter(canvas, weights, index, count, row, sites, group, multiplier, inner, shape)
    else:
        _scatter_singly(canvas, weights, index, count, row, sites, group, multiplier, inner, shape)


@njit(cache=True, nogil=True, inline="always")
def _scatter_short(
    canvas: Array, weights: Array, index: Array, count: int, row: Array, sites: Array, group: Array, multiplier: int,
    inner: int, shape: Array,
) -> None:  # fmt: skip
    size = shape[4]
    if size == 16:
        _scatter_16(canvas, weights, index, count, row, sites, group, multiplier, inner, shape)
    elif size == 32:
        _scatter_32(canvas, weights, index, count, row, sites, group, multiplier, inner, shape)
    elif size == 48:
        _scatter_48(canvas, weights, index, count, row, sites, group, multiplier, inner, shape)
    elif size == 64:
        _scatter_64(canvas, weights, index, count, row, sites, group, multiplier, inner, shape)
    elif size == 80:
        _scatter_80(canvas, weights, index, count, row, sites, group, multiplier, inner, shape)


@njit(cache=True, nogil=True, inline="always")
def _scatter_long(
    canvas: Array, weights: Array, index: Array, count: int, row: Array, sites: Array, group: Array, multiplier: int,
    inner: int, shape: Array,
) -> None:  # fmt: skip
    size = shape[4]
    if size == 96:
        _scatter_96(canvas, weights, index, count, row, sites, group, multiplier, inner, shape)
    elif size == 128:
        _scatter_128(canvas, weights, index, count, row, sites, group, multiplier, inner, shape)
    elif size == 160:
        _scatter_160(canvas, weights, index, count, row, sites, group, multiplier, inner, shape)
    elif size == 192:
        _scatter_192(canvas, weights, index, count, row, sites, group, multiplier, inner, shape)
    elif size == 256:
        _scatter_256(canvas, weights, index, count, row, sites, group, multiplier, inner, shape)


@njit(cache=True, nogil=True, inline="always")
def _emit_image(scratch: Array, shape: Array, step: int, exponent: int, fresh: bool, sums: Array) -> None:
    """The image on the canvas, to ``sums`` ``[H'*W'*O]``; one stroke a row where the channels have no padding."""
    height, width, per_group, groups, left = shape[6], shape[7], shape[8], shape[9], shape[10]
    padded = scratch.shape[2] // groups
    strokes = 1 if padded == per_group else width * groups
    size = width * groups * per_group // strokes
    flat = scratch.reshape(-1)
    for y in range(height):
        for k in range(strokes):
            start = (y * scratch.shape[1] + left) * scratch.shape[2] + k * padded
            at = (y * strokes + k) * size
            _emit(flat, start, step, exponent, fresh, sums[at : at + size])
