"""Compiled convolutions: spikes scattered from events onto a canvas, or gathered by the fields that hold them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final

import numpy as np
from numba import njit, types
from numba.extending import intrinsic

from deploy.simulator import vectors as vec
from deploy.simulator.fields import COPIED, gather_image
from deploy.simulator.neurons import scan_some
from deploy.simulator.patterns import look_up_image, operations, pack_bits
from deploy.simulator.vectors import LANES, U, emit, events

Array = Any  # numpy arrays; numba specialises on their types
CHANNEL_FIRST: Final = 11  # place of that flag in the shape of a convolution
SHIFT: Final = 12  # place of the shift by which a place is divided; see canvas.divider


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
            vec.data(context, builder, signature, arguments, k) for k in (0, 1, 2, 4, 5, 6, 9)
        )
        in_channel, row_weights, row_cells, runs, size, run_cells = (vec.number(builder, shape, k) for k in range(6))
        swapped = builder.icmp_unsigned("!=", vec.number(builder, shape, CHANNEL_FIRST), vec.place(0))
        unit = min(lanes, LANES) if single else lanes
        wide, narrow = vec.vector(signature.args[0], unit), vec.vector(signature.args[1], unit)

        def add(cell: Any, weight: Any, factor: Any) -> None:
            added = vec.widened(builder, vec.load(builder, weights, weight, narrow), wide)
            added = builder.mul(added, factor) if scaled else added
            vec.store(builder, builder.add(vec.load(builder, canvas, cell, wide), added), canvas, cell)

        with vec.loop(builder, arguments[3]) as (e, _):
            i = vec.number(builder, index, e)
            quotient = builder.lshr(builder.mul(i, arguments[7]), vec.number(builder, shape, SHIFT))
            rest = builder.sub(i, builder.mul(quotient, arguments[8]))
            site, channel = builder.select(swapped, rest, quotient), builder.select(swapped, quotient, rest)
            start, first, rows = (
                vec.number(builder, sites, builder.add(builder.mul(site, vec.place(3)), vec.place(k))) for k in range(3)
            )
            cell = builder.add(start, vec.number(builder, group, channel))
            weight = builder.add(first, builder.mul(channel, in_channel))
            value = builder.trunc(vec.number(builder, values, i), vec.INT32)
            factor = vec.spread(builder, value, wide) if scaled else None
            with vec.loop(builder, rows) as (row, _):
                to, come = (builder.add(a, builder.mul(row, b)) for a, b in ((cell, row_cells), (weight, row_weights)))
                if single:
                    for k in range(0, lanes, unit):
                        add(builder.add(to, vec.place(k)), builder.add(come, vec.place(k)), factor)
                else:
                    with vec.loop(builder, runs) as (run, _), vec.loop(builder, size, lanes) as (k, _):
                        to_run, come_run = builder.mul(run, run_cells), builder.mul(run, size)
                        add(
                            builder.add(builder.add(to, to_run), k), builder.add(builder.add(come, come_run), k), factor
                        )
        return context.get_dummy_value()

    return generate


_scatter_singly, _scatter, _scatter_middle = (_scattering(lanes) for lanes in (1, LANES, 4 * LANES))
_scatter_scaled_singly, _scatter_scaled = (_scattering(lanes, scaled=True) for lanes in (1, LANES))
_scatter_16, _scatter_32, _scatter_48, _scatter_64, _scatter_80 = (
    _scattering(lanes, single=True) for lanes in (16, 32, 48, 64, 80)
)
_scatter_96, _scatter_128, _scatter_160, _scatter_192, _scatter_256 = (
    _scattering(lanes, single=True) for lanes in (96, 128, 160, 192, 256)
)


@njit(cache=True, nogil=True)
def conv_events(
    source: Array, weights: Array, inner: int, multiplier: int, group: Array, sites: Array, shape: Array,
    graded: bool, scratch: Array, field_weights: Array, field_shape: Array, fields_from: int, table: Array,
    pieces: Array, patterns_from: int, fanout: Array, step: int, exponent: int, lag: int, first: int, fresh: bool,
    sums: Array, synops: Array,
) -> None:  # fmt: skip
    """Spikes through a convolution, scattered from each event onto a canvas wider than the output image.

    A step with at least ``patterns_from`` events is looked up instead (:mod:`deploy.simulator.patterns`), one with at
    least ``fields_from`` is gathered (:func:`deploy.simulator.fields.gather_image`). An
    event adds, in each output row it reaches, one run of weights (its taps along x, times output channels) or, where
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
        field_weights, field_shape: ``weights`` and ``shape`` of :func:`deploy.simulator.fields.gather_image`.
        table, pieces: ``table`` and ``shape`` of :class:`deploy.simulator.patterns.Patterns`.
        scratch: int16 or int32 ``[H', canvas width, canvas channels]``, all zero; int16 where no sum can leave it.
        sums: int32 ``[B, S, H'*W'*O]``; the rest as :func:`dense_events`.
    """
    index = np.empty(source.shape[2] + COPIED, np.uint32)
    before = np.empty(field_shape[1] * field_shape[2] + 1, np.uint32)
    field = np.empty(field_weights.shape[0] + COPIED, np.uint32)
    total = np.empty(field_shape[11] * max(field_weights.shape[1], table.shape[1]), np.int32)
    bits = np.zeros((field_shape[1] + 2 * field_shape[7]) * pieces[2], np.uint64)
    canvas, patterned = scratch.reshape(-1), table.shape[0] > 0
    for b in range(sums.shape[0]):
        for s in range(sums.shape[1]):
            row, count, met = source[b, max(0, min(first + s - lag, source.shape[1] - 1))], 0, 0
            arrived = first + s - lag >= 0
            if patterned and arrived and pack_bits(row, field_shape, pieces[2], bits) >= U(patterns_from):
                met = operations(row, fanout)
                synops[b, s] = met if fresh else synops[b, s] + met
                look_up_image(bits, table, pieces, field_shape, total, step, exponent, fresh, sums[b, s])
                continue
            if arrived:
                count = events(row, index)
                for e in range(count):
                    met += fanout[index[U(e)]]
            synops[b, s] = met if fresh else synops[b, s] + met
            if count >= fields_from:
                gather_image(
                    row, index, field_weights, field_shape, before, field, total, step, exponent, fresh, sums[b, s]
                )
            else:
                _scatter_events(
                    canvas, weights, index, U(count), row, sites, group, U(multiplier), U(inner), shape, graded
                )
                _emit_image(scratch, shape, step, exponent, fresh, sums[b, s])
                canvas[:] = 0


@njit(cache=True, nogil=True)
def conv_stage(
    source: Array, weights: Array, inner: int, multiplier: int, group: Array, sites: Array, shape: Array,
    graded: bool, scratch: Array, field_weights: Array, field_shape: Array, fields_from: int, table: Array,
    pieces: Array, patterns_from: int, fanout: Array, step: int, exponent: int, lag: int,
    from_step: int, sums: Array, synops: Array, calm: bool, constant: bool, bias: Array, du: int, dv: int, vth: int,
    subtract: bool, u: Array, v: Array, spikes: Array, first: int, tally: Array, keep_u: Array, keep_v: Array,
) -> None:  # fmt: skip
    """A population that one convolution reaches, as :func:`deploy.simulator.kernels.dense_stage`."""
    for start in range(0, u.shape[0], sums.shape[0]):
        some = slice(start, min(start + sums.shape[0], u.shape[0]))
        turn = slice(0, some.stop - start)
        conv_events(
            source[some], weights, inner, multiplier, group, sites, shape, graded, scratch, field_weights, field_shape,
            fields_from, table, pieces, patterns_from, fanout, step, exponent, lag, from_step, True, sums[turn],
            synops[turn],
        )  # fmt: skip
        scan_some(
            some, calm, sums[turn], synops[turn], constant, bias, du, dv, vth, subtract, u, v, spikes, first, tally,
            keep_u, keep_v,
        )  # fmt: skip


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
            emit(flat, start, step, exponent, fresh, sums[at : at + size])
