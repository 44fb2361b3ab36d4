"""Vectors for the kernels: numba intrinsics that write LLVM's own vector code, and what the kernels share.

Every processor has them. What runs once an event is written so: a numba loop over a few weights costs more in checks
and remainders than in additions. Measured on the first layer of 28x28x1-16c5s2-32c3s2-10: 4.1 us a step as loops.
Intrinsics check no bounds: the kernels that use them own and pad their arrays. numba's cache only notices changes of a
kernel's own file: after a change here, delete the package's ``__pycache__``.
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
WIDE: Final = 256
MIDDLE: Final = 64
WORD: Final = 64  # sources looked at together when searching for events
INT16, INT32, INT64 = (ir.IntType(bits) for bits in (16, 32, 64))
U: Final = np.uint64


def data(context: Any, builder: Any, signature: Any, arguments: Any, position: int) -> Any:
    return context.make_array(signature.args[position])(context, builder, arguments[position]).data


def vector(kind: Any, lanes: int) -> Any:
    return ir.VectorType(ir.IntType(kind.dtype.bitwidth), lanes)


def load(builder: Any, data: Any, at: Any, vector: Any) -> Any:
    value = builder.load(builder.bitcast(builder.gep(data, [at]), vector.as_pointer()))
    value.align = vector.element.width // 8
    return value


def store(builder: Any, value: Any, data: Any, at: Any) -> None:
    stored = builder.store(value, builder.bitcast(builder.gep(data, [at]), value.type.as_pointer()))
    stored.align = value.type.element.width // 8


def widened(builder: Any, value: Any, vector: Any) -> Any:
    return builder.sext(value, vector) if value.type.element.width < vector.element.width else value


def spread(builder: Any, value: Any, vector: Any) -> Any:
    """A vector with an int32 in every lane."""
    undefined = ir.Constant(vector, ir.Undefined)
    value = builder.trunc(value, vector.element) if vector.element.width < INT32.width else value
    one = builder.insert_element(undefined, value, ir.Constant(INT32, 0))
    return builder.shuffle_vector(one, undefined, ir.Constant(ir.VectorType(INT32, vector.count), None))


def _typed_nonzero(_typing: Any, row: Any, at: Any) -> Any:
    """uint64 whose bit k tells whether ``row[at + k]`` is not zero; row uint8 ``[>= at + 64]``."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        word = vector(row, WORD)
        values = load(builder, data(context, builder, signature, arguments, 0), arguments[1], word)
        return builder.bitcast(builder.icmp_unsigned("!=", values, ir.Constant(word, None)), INT64)

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


def place(value: int) -> Any:
    return ir.Constant(INT64, value)


def number(builder: Any, data: Any, at: Any) -> Any:
    """``data[at]``, which is not negative, in 64 bits."""
    value = builder.load(builder.gep(data, [place(at) if isinstance(at, int) else at]))
    return builder.zext(value, INT64) if value.type.width < INT64.width else value


def bits_at(builder: Any, words: Any, shift: Any) -> Any:
    """The bits from bit ``shift`` of ``words`` (uint64) on: 64 of them, or 57 where they begin within a byte."""
    byte = builder.gep(builder.bitcast(words, ir.IntType(8).as_pointer()), [builder.lshr(shift, place(3))])
    value = builder.load(builder.bitcast(byte, INT64.as_pointer()))
    value.align = 1
    return builder.lshr(value, builder.and_(shift, place(7)))


def loop(builder: Any, stop: Any, step: int = 1) -> Any:
    return cgutils.for_range_slice(builder, place(0), stop, place(step), INT64)


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
        total, weights, index, values = (data(context, builder, signature, arguments, k) for k in (0, 2, 4, 5))
        at, stride, start, stop = (arguments[k] for k in (1, 3, 6, 7))
        wide, narrow = vector(signature.args[0], lanes), vector(signature.args[2], lanes)
        register = wide if scaled else ir.VectorType(INT16, lanes)
        nothing = ir.Constant(register, None)
        sums = cgutils.alloca_once(builder, register)  # type: ignore[no-untyped-call]
        builder.store(nothing, sums)
        column = builder.gep(weights, [at])
        with cgutils.for_range_slice(builder, start, stop, ir.Constant(INT64, 1), INT64) as (e, _):
            i = builder.zext(builder.load(builder.gep(index, [e])), INT64)
            row = widened(builder, load(builder, column, builder.mul(i, stride), narrow), register)
            if scaled:
                value = builder.zext(builder.load(builder.gep(values, [i])), INT32)
                row = builder.mul(row, spread(builder, value, register))
            builder.store(builder.add(builder.load(sums), row), sums)
        gathered = widened(builder, builder.load(sums), wide)
        store(builder, builder.add(load(builder, total, at, wide), gathered), total, at)
        return context.get_dummy_value()

    return generate


nonzero: Any = intrinsic(_typed_nonzero)
ones: Any = intrinsic(_typed_ones)
trailing_zeros: Any = intrinsic(_typed_trailing_zeros)
add_rows_wide, add_rows_middle, add_rows = (_row_adding(lanes, False) for lanes in (WIDE, MIDDLE, LANES))
add_scaled_rows_middle, add_scaled_rows = (_row_adding(lanes, True) for lanes in (MIDDLE, LANES))


@njit(cache=True, nogil=True, inline="always")
def events(row: Array, index: Array) -> Any:
    """Positions of the nonzero entries of ``row``; returns how many. ``index`` holds one more than ``row``."""
    count, at, size = U(0), U(0), U(row.size)
    while at + U(WORD) <= size:
        word = nonzero(row, at)
        while word != U(0):
            index[count] = at + trailing_zeros(word)
            count += U(1)
            word &= word - U(1)
        at += U(WORD)
    while at < size:
        index[count] = at
        count += U(row[at] != 0)
        at += U(1)
    return count


@njit(cache=True, nogil=True, inline="always")
def emit(total: Array, start: int, step: int, exponent: int, fresh: bool, sums: Array) -> None:
    """``sums (+)= shift(total[start:] * step, exponent)``; the right shift rounds toward minus infinity, as numpy's."""
    factor, right, at = np.int32(step << max(exponent, 0)), max(-exponent, 0), U(start)
    if fresh and right == 0:
        for j in range(sums.size):
            sums[j] = np.int32(np.int32(total[at + U(j)]) * factor)
    else:
        for j in range(sums.size):
            shifted = np.int32(np.int32(np.int32(total[at + U(j)]) * factor) >> right)
            sums[j] = shifted if fresh else np.int32(sums[j] + shifted)
