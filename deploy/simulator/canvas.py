"""Where a convolution's events land: tables for :func:`deploy.simulator.convolution.conv_events`."""

from __future__ import annotations

from dataclasses import dataclass
from math import gcd
from typing import Final

import numpy as np
import numpy.typing as npt

from deploy.program import Conv, Shape
from deploy.simulator.layout import aligned, padded
from deploy.simulator.patterns import NONE, Patterns, patterns
from deploy.simulator.vectors import LANES

NEVER: Final = 1 << 40
# Costs in vectors of 16 weights, fitted to seven layers (3 x 3 and 5 x 5 kernels, 1 to 64 channels) at 1 % to 50 %
# activity: what scattering spends on an event beside its weights, and gathering on an output whatever it gathers.
AN_EVENT: Final = 5
AN_OUTPUT: Final = 42
A_LOOKUP: Final = 0.8  # what looking up 16 lanes of a piece of a kernel row spends


def divider(outer: int, inner: int) -> tuple[int, int]:
    """``(m, s)`` with ``(i * m) >> s == i // inner`` in 64 bits, for every place ``i`` of ``outer * inner < 2^31``.

    ``m = ceil(2^s / inner)`` and ``s = 63 - bits(outer)``: ``i * m < outer * 2^s + 2^31 < 2^64``; and ``m * inner``
    exceeds ``2^s`` by less than ``inner``, so the quotient is exact while ``i * inner < 2^s``, which
    ``(outer * inner)^2 < 2^62`` ensures.
    """
    shift = 63 - outer.bit_length()
    return -(-(1 << shift) // inner), shift


@dataclass(frozen=True, eq=False)
class Scatter:
    """Where an input pixel's events go; see :func:`deploy.simulator.convolution.conv_events` for the arrays."""

    weights: npt.NDArray[np.int16]
    group: npt.NDArray[np.int32]
    sites: npt.NDArray[np.int32]
    shape: npt.NDArray[np.int64]
    canvas: tuple[int, int, int]
    inner: int
    multiplier: int


@dataclass(frozen=True)
class _Axis:
    """How one axis of a convolution lands: the taps of a phase reach one input position together.

    Attributes:
        phases: For each phase (``(position + padding) mod stride``) its taps, those that land lowest first.
        gap: Distance at which neighbouring taps of a phase land.
        first: For each input position, where the first tap of its phase lands (may be beside the output).
        size: Length of the output.
    """

    phases: tuple[tuple[int, ...], ...]
    gap: int
    first: tuple[int, ...]
    size: int

    @classmethod
    def of(cls, conv: Conv, axis: int, side: int, size: int) -> _Axis:
        stride, padding, dilation = conv.stride[axis], conv.padding[axis], conv.dilation[axis]
        taps = range(conv.weights.shape[2 + axis] - 1, -1, -1)
        phases = tuple(tuple(k for k in taps if k * dilation % stride == phase) for phase in range(stride))
        reached = [(at + padding, phases[(at + padding) % stride]) for at in range(side)]
        first = tuple((top - found[0] * dilation) // stride if found else 0 for top, found in reached)
        return cls(phases, dilation // gcd(dilation, stride), first, size)

    def phase(self, position: int, padding: int) -> int:
        """The phase of an input position."""
        return (position + padding) % len(self.phases)

    def inside(self, position: int, taps: int) -> tuple[int, int]:
        """Of the taps that reach a position: the first that lands inside the output, and how many do."""
        landings = [self.first[position] + self.gap * k for k in range(taps)]
        kept = [k for k, at in enumerate(landings) if 0 <= at < self.size]
        return (kept[0], len(kept)) if kept else (0, 0)


def scatter(conv: Conv, shape: Shape, out: Shape, step: int, channel_first: bool) -> Scatter:
    """Tables for a source of shape ``(C, H, W)`` and a target of shape ``(O, H', W')``.

    Weights are laid out ``[C, kernel rows by phase, phases along x, taps of a phase, output channels]``: what an event
    adds in one output row lies together. Rows are exact; along x every phase has as many taps as the longest (zeros
    where there are none), and the canvas is as wide as the farthest of them.
    """
    rows, columns = (_Axis.of(conv, axis, shape[1 + axis], out[1 + axis]) for axis in (0, 1))
    taps = max(len(phase) for phase in columns.phases)
    weights = _by_phase(conv, rows, columns, taps, step)
    lanes = weights.shape[4]
    left = max(0, -min(columns.first))
    width = left + max(out[2], max(columns.first) + columns.gap * (taps - 1) + 1)
    merged = columns.gap == 1 and conv.groups == 1
    run = lanes * taps if merged else lanes
    per_row, canvas_row = weights[0, 0].size, width * lanes * conv.groups
    sites = _sites(conv, rows, columns, (per_row, weights[0, 0, 0].size), (canvas_row, lanes * conv.groups, left))
    axes = (shape[0], shape[1] * shape[2])
    outer, inner = axes if channel_first else axes[::-1]
    multiplier, shift = divider(outer, inner)
    geometry = [
        weights[0].size, per_row, canvas_row * rows.gap, 1 if merged else taps, run, columns.gap * lanes * conv.groups,
        out[1], out[2], out[0] // conv.groups, conv.groups, left, int(channel_first), shift,
    ]  # fmt: skip
    return Scatter(
        aligned(weights.reshape(-1)),
        (np.arange(shape[0]) // conv.weights.shape[1] * lanes).astype(np.int32),
        sites.reshape(-1),
        np.array(geometry, np.int64),
        (out[1], width, lanes * conv.groups),
        inner,
        multiplier,
    )


def _by_phase(conv: Conv, rows: _Axis, columns: _Axis, taps: int, step: int) -> npt.NDArray[np.int16]:
    """``[C, kernel rows by phase, phases along x, taps, O/groups]``; channels padded where that costs little."""
    weights = _by_input_channel(conv, step)
    if conv.groups == 1 or weights.shape[3] >= LANES // 2:
        weights = padded(weights)
    order = [tap for phase in rows.phases for tap in phase]
    made = np.zeros((weights.shape[0], len(order), len(columns.phases), taps, weights.shape[3]), np.int16)
    for at, phase in enumerate(columns.phases):
        if phase:
            made[:, :, at, : len(phase)] = weights[:, order][:, :, list(phase)]
    return made


def _sites(
    conv: Conv, rows: _Axis, columns: _Axis, weight_strides: tuple[int, int], canvas: tuple[int, int, int]
) -> npt.NDArray[np.int32]:
    """int32 ``[H*W, 3]``: cell of the first run, place of its weights, rows; see the kernel."""
    (per_row, per_phase), (canvas_row, cell, left) = weight_strides, canvas
    starts = np.concatenate([[0], np.cumsum([len(phase) for phase in rows.phases])])
    down, across = [], []
    for y in range(len(rows.first)):
        phase = rows.phase(y, conv.padding[0])
        tap, count = rows.inside(y, len(rows.phases[phase]))
        landing = rows.first[y] + rows.gap * tap if count else 0
        down.append((landing * canvas_row, (int(starts[phase]) + tap) * per_row, count))
    for x in range(len(columns.first)):
        across.append(((columns.first[x] + left) * cell, columns.phase(x, conv.padding[1]) * per_phase, 0))
    sites = np.array(down)[:, None] + np.array(across)[None]
    return np.ascontiguousarray(sites.reshape(-1, 3).astype(np.int32))


def _by_input_channel(conv: Conv, step: int) -> npt.NDArray[np.int16]:
    """``[C, kh, kw, O/groups]``: for each input channel, its kernels to the output channels of its group."""
    out_channels, per_group, height, width = conv.weights.shape
    grouped = (conv.weights // step).reshape(conv.groups, out_channels // conv.groups, per_group, height, width)
    by_channel = grouped.transpose(0, 2, 3, 4, 1).reshape(conv.groups * per_group, height, width, -1)
    return np.ascontiguousarray(by_channel.astype(np.int16))


@dataclass(frozen=True, eq=False)
class Fields:
    """How outputs gather from their fields; see :func:`deploy.simulator.fields.gather_image` for the arrays.

    ``least``: from how many events a step on it is faster than scattering; ``patterns`` and ``least_looked_up``: the
    same of :mod:`deploy.simulator.patterns`.
    """

    weights: npt.NDArray[np.int8] | npt.NDArray[np.int16]
    shape: npt.NDArray[np.int64]
    least: int
    patterns: Patterns
    least_looked_up: int


def fields(conv: Conv, shape: Shape, out: Shape, step: int, *, possible: bool) -> Fields:
    """Tables for a channel-last source; where not ``possible``, or the geometry forbids it, ones that are not used."""
    units = conv.weights // step
    if not possible or conv.groups > 1 or conv.dilation[1] > 1:
        return Fields(np.zeros((1, LANES), np.int8), np.zeros(13, np.int64), NEVER, NONE, NEVER)
    outgoing = np.ascontiguousarray(units.transpose(2, 3, 1, 0).reshape(-1, out[0]))
    small = units.min(initial=0) >= -128 and units.max(initial=0) <= 127
    weights = padded(outgoing.astype(np.int8 if small else np.int16))
    height, width = conv.weights.shape[2:]
    numbers = [*shape, height, width, *conv.stride, *conv.padding, conv.dilation[0], out[1], out[2], out[0]]
    vectors = height / conv.stride[0] * -(-width // conv.stride[1]) * weights.shape[1] / LANES
    an_event, outputs = AN_EVENT + vectors, out[1] * out[2]
    least = max(1, round(AN_OUTPUT * outputs / an_event))  # before the first spike arrives there is no row
    found = patterns(units, shape, conv)
    looked_up = max(1, round(A_LOOKUP * found.lookups * outputs / an_event))
    return Fields(weights, np.array(numbers, np.int64), least, found, looked_up)


def conv_fanout(conv: Conv, shape: Shape, out: Shape) -> npt.NDArray[np.int32]:
    """int32 ``[C, H, W]``: nonzero weights one event at each place meets."""
    per_tap = np.count_nonzero(_by_input_channel(conv, 1), axis=3)  # [C, kh, kw]
    reach = [_reach(conv, axis, shape[axis + 1], out[axis + 1]) for axis in (0, 1)]
    fanout: npt.NDArray[np.int32] = np.einsum("cij,iy,jx->cyx", per_tap, *reach).astype(np.int32)
    return fanout


def _reach(conv: Conv, axis: int, side: int, out_side: int) -> npt.NDArray[np.int64]:
    """``[k, side]``: 1 where a kernel tap carries an input position to an output that exists."""
    taps = np.arange(conv.weights.shape[axis + 2])[:, None]
    top = np.arange(side)[None, :] + conv.padding[axis] - taps * conv.dilation[axis]
    lands = (top >= 0) & (top % conv.stride[axis] == 0) & (top // conv.stride[axis] < out_side)
    reach: npt.NDArray[np.int64] = lands.astype(np.int64)
    return reach
