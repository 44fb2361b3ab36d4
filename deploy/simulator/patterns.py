"""Compiled convolution by patterns: weights of neighbouring places are summed beforehand, for each of their patterns.

The spikes of an image row are bits, and what a kernel row sees of it are neighbouring ones. They are cut into pieces
of a few bits; what a piece adds at an output is one row of a table that has an entry for each of its patterns. So an
output costs the same look-ups whatever the activity, five for a 5 x 5 kernel on one channel, and no loop has a length
that a processor must guess: on the second layer of 28x28x1-16c5s2-32c3s2-10 gathering takes 0.7 us a step when the
same spikes come again and again, and 1.3 when they do not.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import numpy.typing as npt
from llvmlite import ir  # type: ignore[import-untyped]
from numba import njit, types
from numba.core import cgutils
from numba.extending import intrinsic

from deploy.program import Conv, Shape
from deploy.simulator import vectors as vec
from deploy.simulator.layout import aligned_zeros
from deploy.simulator.vectors import WORD, U, emit, nonzero, ones

Array = Any  # numpy arrays; numba specialises on their types
LARGEST: Final = 8  # bits of a pattern where one piece is all a kernel row sees
PIECE: Final = 4  # bits of a piece otherwise: 16 entries, so that the table stays in the caches
HEIGHTS: Final = (3, 5)
WIDTHS: Final = (16, 32, 64)


@dataclass(frozen=True, eq=False)
class Patterns:
    """Tables of :func:`look_up_image`; without rows where this way is not open.

    Attributes:
        table: int16 ``[(kh * pieces) << bits, lanes]``: what each pattern of each piece adds to the output channels.
        shape: int64 ``[3]``: bits of a piece, pieces of a kernel row, words of an image row (1: it is one word).
    """

    table: npt.NDArray[np.int16]
    shape: npt.NDArray[np.int64]

    @property
    def lookups(self) -> int:
        """Entries of 16 lanes that an output adds up."""
        return int((len(self.table) >> int(self.shape[0])) * self.table.shape[1] // WIDTHS[0])


NONE: Final = Patterns(np.zeros((0, 1), np.int16), np.zeros(3, np.int64))


def patterns(units: npt.NDArray[Any], shape: Shape, conv: Conv) -> Patterns:
    """Tables for kernels of 3 or 5 rows, undilated along x, and at most 64 output channels.

    Args:
        units: ``[O, C, kh, kw]`` in units of the grid's step; no sum of a field may leave int16.
        shape: ``(C, H, W)`` of the source, at least 64 places.
    """
    channels, rows, width = shape
    out, _, height, across = conv.weights.shape
    seen, row = across * channels, (width + 2 * conv.padding[1]) * channels
    start = 0 if channels * conv.stride[1] % 8 == 0 else 7  # a kernel row may begin anywhere in a byte
    fits = seen + start <= WORD <= rows * width * channels and height in HEIGHTS and out <= WIDTHS[-1]
    if not fits or conv.dilation[1] > 1 or conv.groups > 1:
        return NONE
    whole = seen <= LARGEST and row <= WORD
    bits = seen if whole else PIECE
    pieces, lanes = -(-seen // bits), next(lanes for lanes in WIDTHS if lanes >= out)
    each = np.zeros((height, pieces * bits, lanes), np.int64)
    each[:, :seen, :out] = units.transpose(2, 3, 1, 0).reshape(height, seen, out)
    spiking = (np.arange(1 << bits)[:, None] >> np.arange(bits)) & 1
    table = aligned_zeros(((height * pieces) << bits, lanes), np.int16)
    table[:] = np.einsum("pb,kbo->kpo", spiking, each.reshape(height * pieces, bits, lanes)).reshape(-1, lanes)
    words = 1 if whole else -(-row // WORD) + 2  # 64 bits are read from the last byte of a row on
    return Patterns(table, np.array([bits, pieces, words]))


def _looking_up(rows: int, lanes: int, *, whole: bool) -> Any:
    """Outputs of one image row: ``total[x * lanes ...]`` = the sum of table rows ``(k * pieces + c) << size | seen``.

    ``seen`` are the ``size`` bits of piece ``c`` of what kernel row ``k < rows`` sees, which begins ``x * across`` bits
    after ``base + k * gap`` words; ``whole``: image rows of one word, kernel rows of one piece. total int32, table
    int16, bits uint64, all flat; ``width`` outputs. Sums stay in registers.
    """

    def typed(_typing: Any, total: Any, table: Any, size: Any, pieces: Any, bits: Any, base: Any, gap: Any,
              across: Any, width: Any) -> Any:  # fmt: skip
        place = types.uint64
        signature = types.void(total, table, place, place, bits, place, place, place, place)
        return signature, _looker(rows, lanes) if whole else _piece_looker(rows, lanes)

    return intrinsic(typed)


def _looker(rows: int, lanes: int) -> Callable[..., Any]:
    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        total, table, bits = (vec.data(context, builder, signature, arguments, k) for k in (0, 1, 4))
        size, _, base, gap, across, width = (arguments[k] for k in (2, 3, 5, 6, 7, 8))
        patterns = builder.shl(vec.place(1), size)
        mask, register = builder.sub(patterns, vec.place(1)), ir.VectorType(vec.INT16, lanes)
        words = [vec.number(builder, bits, builder.add(base, builder.mul(gap, vec.place(k)))) for k in range(rows)]
        starts = [builder.mul(patterns, vec.place(k)) for k in range(rows)]
        with vec.loop(builder, width) as (x, _):
            shift, found = builder.mul(x, across), []
            for word, start in zip(words, starts, strict=True):
                seen = builder.and_(builder.lshr(word, shift), mask)
                at = builder.mul(builder.add(start, seen), vec.place(lanes))
                found.append(vec.load(builder, table, at, register))
            wide = vec.widened(builder, functools.reduce(builder.add, found), vec.vector(signature.args[0], lanes))
            vec.store(builder, wide, total, builder.mul(x, vec.place(lanes)))
        return context.get_dummy_value()

    return generate


def _piece_looker(rows: int, lanes: int) -> Callable[..., Any]:
    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        total, table, bits = (vec.data(context, builder, signature, arguments, k) for k in (0, 1, 4))
        _, pieces, base, gap, across, width = (arguments[k] for k in (2, 3, 5, 6, 7, 8))
        mask, register = vec.place((1 << PIECE) - 1), ir.VectorType(vec.INT16, lanes)
        begins = [builder.gep(bits, [builder.add(base, builder.mul(gap, vec.place(k)))]) for k in range(rows)]
        a_row = builder.mul(pieces, vec.place(lanes << PIECE))
        tables = [builder.gep(table, [builder.mul(a_row, vec.place(k))]) for k in range(rows)]
        sums = cgutils.alloca_once(builder, register)  # type: ignore[no-untyped-call]
        with vec.loop(builder, width) as (x, _):
            words = [vec.bits_at(builder, begin, builder.mul(x, across)) for begin in begins]
            builder.store(ir.Constant(register, None), sums)
            with vec.loop(builder, pieces) as (c, _):
                shift, piece, found = builder.mul(c, vec.place(PIECE)), builder.shl(c, vec.place(PIECE)), []
                for word, of_row in zip(words, tables, strict=True):
                    seen = builder.and_(builder.lshr(word, shift), mask)
                    at = builder.mul(builder.or_(piece, seen), vec.place(lanes))
                    found.append(vec.load(builder, of_row, at, register))
                builder.store(functools.reduce(builder.add, found, builder.load(sums)), sums)
            wide = vec.widened(builder, builder.load(sums), vec.vector(signature.args[0], lanes))
            vec.store(builder, wide, total, builder.mul(x, vec.place(lanes)))
        return context.get_dummy_value()

    return generate


_three_16, _three_32, _three_64 = (_looking_up(3, lanes, whole=True) for lanes in WIDTHS)
_five_16, _five_32, _five_64 = (_looking_up(5, lanes, whole=True) for lanes in WIDTHS)
_pieces_of_three_16, _pieces_of_three_32, _pieces_of_three_64 = (_looking_up(3, lanes, whole=False) for lanes in WIDTHS)
_pieces_of_five_16, _pieces_of_five_32, _pieces_of_five_64 = (_looking_up(5, lanes, whole=False) for lanes in WIDTHS)


@njit(cache=True, nogil=True, inline="always")
def pack_bits(row: Array, shape: Array, words: int, bits: Array) -> Any:
    """The spikes of each image row as bits, behind those of its padding; returns how many there are.

    Args:
        row: uint8 ``[H*W*C]``, channel-last, at least WORD.
        shape: As :func:`deploy.simulator.fields.gather_image`.
        words: Of an image row.
        bits: uint64 ``[(H + 2 * padding) * words]``, written; the padding stays zero.
    """
    wide, last, count = U(shape[2] * shape[0]), U(row.size - WORD), U(0)
    up, left = U(shape[7]), U(shape[8] * shape[0])
    if words == 1:
        own = U(0xFFFFFFFFFFFFFFFF) >> (U(WORD) - wide)
        for y in range(U(shape[1])):
            at = min(y * wide, last)  # the last rows are read from words that begin before them
            word = (nonzero(row, at) >> (y * wide - at)) & own
            count += ones(word)
            bits[y + up] = word << left
    else:
        for y in range(U(shape[1])):
            count += _pack_row(row, y * wide, wide, last, bits, (y + up) * U(words), left)
    return count


@njit(cache=True, nogil=True, inline="always")
def _pack_row(row: Array, begin: int, wide: int, last: int, bits: Array, to: int, left: int) -> Any:
    """``wide`` places from ``begin`` on, to the words from ``to`` on, behind ``left`` bits that stay."""
    part, carried, done, count = left & U(63), U(0), U(0), U(0)
    to += left >> U(6)
    while done < wide:
        at = min(begin + done, last)
        word = nonzero(row, at) >> (begin + done - at)
        if wide - done < U(WORD):
            word &= U(0xFFFFFFFFFFFFFFFF) >> (U(WORD) - (wide - done))
        count += ones(word)
        bits[to] = carried | word << part
        carried = word >> U(1) >> (U(63) - part)
        to += U(1)
        done += U(WORD)
    if part != U(0):
        bits[to] = carried
    return count


@njit(cache=True, nogil=True)
def look_up_image(
    bits: Array, table: Array, pieces: Array, shape: Array, total: Array, step: int, exponent: int, fresh: bool,
    sums: Array,
) -> None:  # fmt: skip
    """One step of one sample, from the bits of its rows; other args as :func:`deploy.simulator.fields.gather_image`.

    Args:
        bits: From :func:`pack_bits`.
        table, pieces: ``table`` and ``shape`` of :class:`Patterns`.
        total: int32 ``[W' * lanes]``: scratch.
    """
    height, width, out, lanes = shape[10], shape[11], shape[12], table.shape[1]
    size, count, words = U(pieces[0]), U(pieces[1]), U(pieces[2])
    down, gap, across, wide = U(shape[5]) * words, U(shape[9]) * words, U(shape[6] * shape[0]), U(width)
    flat = table.reshape(-1)
    for y in range(height):
        if words == U(1):
            _look_up(shape[3], lanes, total, flat, size, count, bits, U(y) * down, gap, across, wide)
        else:
            _look_up_pieces(shape[3], lanes, total, flat, size, count, bits, U(y) * down, gap, across, wide)
        if out == lanes:
            emit(total, 0, step, exponent, fresh, sums[y * width * out : (y + 1) * width * out])
        else:
            for x in range(width):
                at = (y * width + x) * out
                emit(total, x * lanes, step, exponent, fresh, sums[at : at + out])


@njit(cache=True, nogil=True, inline="always")
def _look_up(
    rows: int, lanes: int, total: Array, table: Array, size: int, pieces: int, bits: Array, base: int, gap: int,
    across: int, width: int,
) -> None:  # fmt: skip
    if rows == 3 and lanes == 16:
        _three_16(total, table, size, pieces, bits, base, gap, across, width)
    elif rows == 3 and lanes == 32:
        _three_32(total, table, size, pieces, bits, base, gap, across, width)
    elif rows == 3:
        _three_64(total, table, size, pieces, bits, base, gap, across, width)
    elif lanes == 16:
        _five_16(total, table, size, pieces, bits, base, gap, across, width)
    elif lanes == 32:
        _five_32(total, table, size, pieces, bits, base, gap, across, width)
    else:
        _five_64(total, table, size, pieces, bits, base, gap, across, width)


@njit(cache=True, nogil=True, inline="always")
def _look_up_pieces(
    rows: int, lanes: int, total: Array, table: Array, size: int, pieces: int, bits: Array, base: int, gap: int,
    across: int, width: int,
) -> None:  # fmt: skip
    if rows == 3 and lanes == 16:
        _pieces_of_three_16(total, table, size, pieces, bits, base, gap, across, width)
    elif rows == 3 and lanes == 32:
        _pieces_of_three_32(total, table, size, pieces, bits, base, gap, across, width)
    elif rows == 3:
        _pieces_of_three_64(total, table, size, pieces, bits, base, gap, across, width)
    elif lanes == 16:
        _pieces_of_five_16(total, table, size, pieces, bits, base, gap, across, width)
    elif lanes == 32:
        _pieces_of_five_32(total, table, size, pieces, bits, base, gap, across, width)
    else:
        _pieces_of_five_64(total, table, size, pieces, bits, base, gap, across, width)


@njit(cache=True, nogil=True, inline="always")
def operations(row: Array, fanout: Array) -> Any:
    """Synaptic operations of the spikes in ``row``."""
    found = np.int32(0)
    for i in range(row.size):
        found += fanout[i] if row[i] != 0 else np.int32(0)
    return found
