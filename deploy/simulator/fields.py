"""Compiled convolution by receptive fields: every output adds up the events of its field, its sum in registers.

An event list is in order of place, so the events of one row of a field lie together in it: two look-ups in a table of
running counts find them. They are copied beside those of the field's other rows, and one loop adds their weights.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final

from llvmlite import ir  # type: ignore[import-untyped]
from numba import njit, types
from numba.core import cgutils
from numba.extending import intrinsic

from deploy.simulator import vectors as vec
from deploy.simulator.vectors import LANES, MIDDLE, WORD, U, emit, nonzero, ones

Array = Any  # numpy arrays; numba specialises on their types
COPIED: Final = 16  # places copied together


def _field_summing(lanes: int) -> Any:
    """``total[to : to + lanes] = sum of weights[field[i] * stride + at ...] over i < stop``, gathered in int16.

    total int32, weights int8 or int16, field uint32, all flat.
    """

    def typed(_typing: Any, total: Any, to: Any, weights: Any, at: Any, stride: Any, field: Any, stop: Any) -> Any:
        place = types.uint64
        return types.void(total, place, weights, place, place, field, place), _field_summer(lanes)

    return intrinsic(typed)


def _field_summer(lanes: int) -> Callable[..., Any]:
    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        total, weights, field = (vec.data(context, builder, signature, arguments, k) for k in (0, 2, 5))
        to, at, stride, stop = (arguments[k] for k in (1, 3, 4, 6))
        narrow, register = vec.vector(signature.args[2], lanes), ir.VectorType(vec.INT16, lanes)
        sums = cgutils.alloca_once(builder, register)  # type: ignore[no-untyped-call]
        builder.store(ir.Constant(register, None), sums)
        column = builder.gep(weights, [at])
        with vec.loop(builder, stop) as (e, _):
            row = vec.load(builder, column, builder.mul(vec.number(builder, field, e), stride), narrow)
            builder.store(builder.add(builder.load(sums), vec.widened(builder, row, register)), sums)
        gathered = vec.widened(builder, builder.load(sums), vec.vector(signature.args[0], lanes))
        vec.store(builder, gathered, total, to)
        return context.get_dummy_value()

    return generate


def _typed_copy(_typing: Any, field: Any, to: Any, index: Any, at: Any, less: Any) -> Any:
    """``field[to : to + COPIED] = index[at : at + COPIED] - less``; both uint32, less modulo 2^32."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        target, source = (vec.data(context, builder, signature, arguments, k) for k in (0, 2))
        wide = vec.vector(signature.args[0], COPIED)
        taken = vec.spread(builder, builder.trunc(arguments[4], vec.INT32), wide)
        values = vec.load(builder, source, arguments[3], wide)
        vec.store(builder, builder.sub(values, taken), target, arguments[1])
        return context.get_dummy_value()

    place = types.uint64
    return types.void(field, place, index, place, types.int64), generate


_copy_less: Any = intrinsic(_typed_copy)
_sum_field_middle, _sum_field_half, _sum_field = (_field_summing(lanes) for lanes in (MIDDLE, MIDDLE // 2, LANES))


@njit(cache=True, nogil=True)
def gather_image(
    row: Array, index: Array, weights: Array, shape: Array, before: Array, field: Array, total: Array, step: int,
    exponent: int, fresh: bool, sums: Array,
) -> None:  # fmt: skip
    """One step of one sample: the sums of a convolution without groups, undilated along x, of binary events.

    Args:
        row: uint8 ``[H*W*C]``, channel-last; index: uint32, its events in order, and room for :data:`COPIED` more.
        weights: int8 or int16 ``[kh*kw*C, O padded to LANES]``; no sum of a field may leave int16.
        shape: int64 ``[13]``: C, H, W, kh, kw, strides, paddings, dilation along y, H', W', O.
        before: uint32 ``[H*W + 1]``, field: uint32 ``[kh*kw*C + COPIED]``, total: int32 ``[W' * padded O]``: scratch.
        sums: int32 ``[H'*W'*O]``; ``step``, ``exponent``, ``fresh`` as in :mod:`deploy.simulator.kernels`.
    """
    down, across, height, width, out = shape[5], shape[6], shape[10], shape[11], shape[12]
    stride, flat = weights.shape[1], weights.reshape(-1)
    _count_before(row, shape[0], before)
    for y in range(height):
        for x in range(width):
            count = _collect(index, before, shape, y * down - shape[7], x * across - shape[8], field)
            _sum(total, U(x * stride), flat, U(stride), field, count)
        if out == stride:
            emit(total, 0, step, exponent, fresh, sums[y * width * out : (y + 1) * width * out])
        else:
            for x in range(width):
                at = (y * width + x) * out
                emit(total, x * stride, step, exponent, fresh, sums[at : at + out])


@njit(cache=True, nogil=True, inline="always")
def _count_before(row: Array, channels: int, before: Array) -> None:
    """``before[p]``: events at the pixels before ``p``."""
    count, at, p, pixels = U(0), U(0), U(0), U(before.size - 1)
    wide, size = U(channels), U(row.size)
    if wide <= U(WORD):
        own = U(0xFFFFFFFFFFFFFFFF) >> (U(WORD) - wide)
        while at + U(WORD) <= size:
            before[p] = count
            count += ones(nonzero(row, at) & own)
            at += wide
            p += U(1)
    while p < pixels:
        before[p] = count
        end = at + wide
        while at + U(WORD) <= end:
            count += ones(nonzero(row, at))
            at += U(WORD)
        while at < end:
            count += U(row[at] != 0)
            at += U(1)
        p += U(1)
    before[pixels] = count


@njit(cache=True, nogil=True, inline="always")
def _collect(index: Array, before: Array, shape: Array, top: int, left: int, field: Array) -> Any:
    """The weights' rows of the events in the field at (top, left), to ``field``; returns how many."""
    channels, height, width, kernel_height, kernel_width = shape[0], shape[1], shape[2], shape[3], shape[4]
    first, last = max(left, 0), min(left + kernel_width, width)
    count = U(0)
    for k in range(kernel_height):
        y = top + k * shape[9]
        if 0 <= y < height and first < last:
            at, end = U(before[y * width + first]), U(before[y * width + last])
            less = (y * width + left - k * kernel_width) * channels
            to = count
            count += end - at
            while at < end:
                _copy_less(field, to, index, at, less)
                at += U(COPIED)
                to += U(COPIED)
    return count


@njit(cache=True, nogil=True, inline="always")
def _sum(total: Array, to: int, weights: Array, stride: int, field: Array, count: int) -> None:
    """``total[to : to + stride]`` = the sum of the rows of ``weights`` that ``field[:count]`` names."""
    at = U(0)
    while at + U(MIDDLE) <= stride:
        _sum_field_middle(total, to + at, weights, at, stride, field, count)
        at += U(MIDDLE)
    if at + U(MIDDLE // 2) <= stride:
        _sum_field_half(total, to + at, weights, at, stride, field, count)
        at += U(MIDDLE // 2)
    if at < stride:
        _sum_field(total, to + at, weights, at, stride, field, count)
