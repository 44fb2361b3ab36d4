"""Compiled convolution by patterns: where a kernel row sees at most 8 spikes, their weights are summed beforehand.

The spikes of an image row are the bits of a word. What one row of a kernel adds at an output is then one row of a
table with an entry for each of its 256 or fewer patterns, whatever the activity: five look-ups for a 5 x 5 kernel.
Cutting what wider rows see into pieces of 4 bits gained nothing against gathering: 0.64 us against 0.72 for 16 channels
of 12 x 12 and a 3 x 3 kernel, and more to pack.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any, Final

import numpy as np
import numpy.typing as npt
from llvmlite import ir  # type: ignore[import-untyped]
from numba import njit, types
from numba.extending import intrinsic

from deploy.program import Conv, Shape
from deploy.simulator import vectors as vec
from deploy.simulator.layout import aligned_zeros
from deploy.simulator.vectors import WORD, U, emit, nonzero, ones

Array = Any  # numpy arrays; numba specialises on their types
LARGEST: Final = 8  # bits of a pattern: 256 rows of weights a kernel row
HEIGHTS: Final = (3, 5)
WIDTHS: Final = (16, 32, 64)


def pattern_table(units: npt.NDArray[Any], shape: Shape, conv: Conv) -> npt.NDArray[np.int16]:
    """int16 ``[kh * 2**bits, lanes]``, bits = kw * C; no rows where this way is not open.

    It is for kernels of 3 or 5 rows, undilated along x, and at most 64 output channels, padded to 16, 32 or 64 lanes.

    Args:
        units: ``[O, C, kh, kw]`` in units of the grid's step; no sum of a field may leave int16.
        shape: ``(C, H, W)`` of the source, at least 64 places, and 64 bits a row with its padding.
    """
    channels, rows, width = shape
    out, _, height, across = conv.weights.shape
    bits, row = across * channels, (width + 2 * conv.padding[1]) * channels
    fits = bits <= LARGEST and row <= WORD <= rows * width * channels and height in HEIGHTS and out <= WIDTHS[-1]
    if not fits or conv.dilation[1] > 1 or conv.groups > 1:
        return np.zeros((0, 1), np.int16)
    lanes = next(lanes for lanes in WIDTHS if lanes >= out)
    spiking = (np.arange(1 << bits)[:, None] >> np.arange(bits)) & 1
    each = units.transpose(2, 3, 1, 0).reshape(height, bits, out).astype(np.int64)
    table = aligned_zeros((height << bits, lanes), np.int16)
    table[:, :out] = np.einsum("pb,kbo->kpo", spiking, each).reshape(height << bits, out)
    return table


def _looking_up(rows: int, lanes: int) -> Any:
    """Outputs of one image row: ``total[x * lanes ...] = sum over k of table[(k * patterns + seen) * lanes ...]``.

    ``seen = (bits[base + k * gap] >> x * across) & (patterns - 1)`` for the kernel rows ``k < rows``. total int32,
    table int16, bits uint64, all flat; ``width`` outputs. The words of the kernel rows and the sums stay in registers.
    """

    def typed(_typing: Any, total: Any, table: Any, patterns: Any, bits: Any, base: Any, gap: Any, across: Any,
              width: Any) -> Any:  # fmt: skip
        place = types.uint64
        return types.void(total, table, place, bits, place, place, place, place), _looker(rows, lanes)

    return intrinsic(typed)


def _looker(rows: int, lanes: int) -> Callable[..., Any]:
    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        total, table, bits = (vec.data(context, builder, signature, arguments, k) for k in (0, 1, 3))
        patterns, base, gap, across, width = (arguments[k] for k in (2, 4, 5, 6, 7))
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


_three_16, _three_32, _three_64 = (_looking_up(3, lanes) for lanes in WIDTHS)
_five_16, _five_32, _five_64 = (_looking_up(5, lanes) for lanes in WIDTHS)


@njit(cache=True, nogil=True, inline="always")
def pack_bits(row: Array, shape: Array, bits: Array) -> Any:
    """The spikes of each image row as bits, behind those of its padding; returns how many there are.

    Args:
        row: uint8 ``[H*W*C]``, channel-last, at least WORD.
        shape: As :func:`deploy.simulator.fields.gather_image`.
        bits: uint64 ``[H + 2 * padding]``, written; rows of the padding stay zero.
    """
    wide, last, count = U(shape[2] * shape[0]), U(row.size - WORD), U(0)
    own, up, left = U(0xFFFFFFFFFFFFFFFF) >> (U(WORD) - wide), U(shape[7]), U(shape[8] * shape[0])
    for y in range(U(shape[1])):
        at = min(y * wide, last)  # the last rows are read from words that begin before them
        word = (nonzero(row, at) >> (y * wide - at)) & own
        count += ones(word)
        bits[y + up] = word << left
    return count


@njit(cache=True, nogil=True)
def look_up_image(
    bits: Array, table: Array, shape: Array, total: Array, step: int, exponent: int, fresh: bool, sums: Array
) -> None:
    """One step of one sample, from the bits of its rows; other args as :func:`deploy.simulator.fields.gather_image`.

    Args:
        bits: From :func:`pack_bits`.
        table: From :func:`pattern_table`.
        total: int32 ``[W' * lanes]``: scratch.
    """
    height, width, out, lanes = shape[10], shape[11], shape[12], table.shape[1]
    down, gap, across, wide = U(shape[5]), U(shape[9]), U(shape[6] * shape[0]), U(width)
    rows, flat = shape[3], table.reshape(-1)
    patterns = U(table.shape[0] // rows)
    for y in range(height):
        base = U(y) * down
        if rows == 3 and lanes == 16:
            _three_16(total, flat, patterns, bits, base, gap, across, wide)
        elif rows == 3 and lanes == 32:
            _three_32(total, flat, patterns, bits, base, gap, across, wide)
        elif rows == 3:
            _three_64(total, flat, patterns, bits, base, gap, across, wide)
        elif lanes == 16:
            _five_16(total, flat, patterns, bits, base, gap, across, wide)
        elif lanes == 32:
            _five_32(total, flat, patterns, bits, base, gap, across, wide)
        else:
            _five_64(total, flat, patterns, bits, base, gap, across, wide)
        if out == lanes:
            emit(total, 0, step, exponent, fresh, sums[y * width * out : (y + 1) * width * out])
        else:
            for x in range(width):
                at = (y * width + x) * out
                emit(total, x * lanes, step, exponent, fresh, sums[at : at + out])


@njit(cache=True, nogil=True, inline="always")
def operations(row: Array, fanout: Array) -> Any:
    """Synaptic operations of the spikes in ``row``."""
    found = np.int32(0)
    for i in range(row.size):
        found += fanout[i] if row[i] != 0 else np.int32(0)
    return found
