"""Numba scans of plain LIF layers: one decay and one threshold for all neurons, neither learned; float32 or bfloat16.

The scans of :mod:`neurokd.kernels` take every kind of neuron in several passes over a block. Here a step of a block is
one pass (two where the surrogate is not triangular), and two more things happen on the way:

* the batch norm's affine: the scan reads the synapse's raw output and computes with ``raw * scale[c] + shift[c]``;
  backward adds up what the norm's own gradient needs. So the normed current is never written to memory.
* bfloat16 in and out: membranes are float32 always; currents, spikes and gradients are widened and rounded (to nearest,
  ties to even) a row of a block at a time.

Layout: ``[T, M]`` as there; with a norm, element ``m`` belongs to channel ``m % C`` (channels last). bfloat16 arrives
as uint16. Without a norm the arithmetic is that of :mod:`neurokd.kernels`, operation by operation: equal bit for bit.
No ``fastmath``. All compiled functions are in this one file, for numba's cache.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar, cast

import numba
import numpy as np
import numpy.typing as npt
from numba.extending import overload

from neurokd.kernels import ATAN, FAST_SIGMOID, RECTANGULAR, SIGMOID, TRIANGULAR, parts, team

F32 = npt.NDArray[np.float32]
F64 = npt.NDArray[np.float64]
#: float32, or uint16 holding bfloat16.
Values = npt.NDArray[Any]
#: (scale, shift, mean), each [C]; of length 0 where there is no norm.
Norm = tuple[F32, F32, F32]
_F = TypeVar("_F", bound=Callable[..., Any])

BLOCK = 1024
#: Floats of recomputed membranes a block holds in backward.
SCRATCH = 128 * 1024
#: Rows added up in float32 before they go to float64.
RUN = 32

_OPTIONS: Any = {"nogil": True, "cache": True, "fastmath": False, "error_model": "numpy"}


def _serial(function: _F) -> _F:
    return cast(_F, numba.njit(**_OPTIONS)(function))


def _parallel(function: _F) -> _F:
    return cast(_F, numba.njit(parallel=True, **_OPTIONS)(function))


def _widened(row: Values, room: npt.NDArray[np.uint32], n: int) -> F32:
    """The row as float32: itself, or widened into ``room``."""
    raise NotImplementedError


@overload(_widened, strict=False)
def _widened_for(row: Any, room: Any, n: Any) -> Any:
    if row.dtype == numba.float32:
        return lambda row, room, n: row

    def widen(row, room, n):  # type: ignore[no-untyped-def]
        for k in range(n):
            room[k] = np.uint32(row[k]) << np.uint32(16)
        return room.view(np.float32)

    return widen


def _narrowed(row: F32, target: Values, n: int) -> None:
    """``target = row``, rounded to bfloat16 where that is what it holds."""
    raise NotImplementedError


@overload(_narrowed, strict=False)
def _narrowed_for(row: Any, target: Any, n: Any) -> Any:
    if target.dtype == numba.float32:

        def copy(row, target, n):  # type: ignore[no-untyped-def]
            for k in range(n):
                target[k] = row[k]

        return copy

    def narrow(row, target, n):  # type: ignore[no-untyped-def]
        bits = row.view(np.uint32)
        for k in range(n):
            b = bits[k]
            odd = (b >> np.uint32(16)) & np.uint32(1)
            target[k] = np.uint16((b + np.uint32(0x7FFF) + odd) >> np.uint32(16))

    return narrow


def _one(target: Values) -> Any:
    """1.0 as an element of ``target``."""
    raise NotImplementedError


@overload(_one, strict=False)
def _one_for(target: Any) -> Any:
    if target.dtype == numba.float32:
        return lambda target: np.float32(1.0)
    return lambda target: np.uint16(0x3F80)


@_serial
def _spread(values: F32, row: F32, lo: int, n: int) -> None:
    """Element ``lo + k`` takes ``values[(lo + k) % C]``."""
    size = values.shape[0]
    at, k = lo % size, 0
    while k < n:
        m = min(size - at, n - k)
        row[k : k + m] = values[at : at + m]
        k, at = k + m, 0


@_serial
def _gather(row: F64, sums: F64, lo: int, n: int) -> None:
    """Add element ``lo + k`` to ``sums[(lo + k) % C]``."""
    size = sums.shape[0]
    at, k = lo % size, 0
    while k < n:
        m = min(size - at, n - k)
        for j in range(m):
            sums[at + j] += row[k + j]
        k, at = k + m, 0


@_serial
def _width(norm: Norm, block: int) -> int:
    """Elements of a block: whole runs of channels, so that every block of a part starts at the same channel."""
    size = norm[0].shape[0]
    return block if size == 0 else size * max(1, block // size)


@_serial
def _affine(raw: F32, scale: F32, shift: F32, out: F32, n: int) -> None:
    for k in range(n):
        out[k] = raw[k] * scale[k] + shift[k]


@_serial
def _step(v: F32, beta: float, current: F32, threshold: float, spikes: Values, n: int) -> None:
    b, th, zero = np.float32(beta), np.float32(threshold), np.float32(0.0)
    one = _one(spikes)
    none = one - one
    for k in range(n):
        x = b * v[k] + current[k]
        fired = x > th
        spikes[k] = one if fired else none
        v[k] = zero if fired else x


@_serial
def _again(v: F32, beta: float, current: F32, threshold: float, before: F32, n: int) -> None:
    """As :func:`_step`, keeping the membrane before the reset instead of the spike."""
    b, th, zero = np.float32(beta), np.float32(threshold), np.float32(0.0)
    for k in range(n):
        x = b * v[k] + current[k]
        before[k] = x
        v[k] = zero if x > th else x


@_serial
def _derivative(kind: int, slope: float, v: F32, threshold: float, out: F32, n: int) -> None:
    """``out = h'(v - threshold)``; the triangular one is in :func:`_back_triangular`."""
    zero, one, s, th = np.float32(0.0), np.float32(1.0), np.float32(slope), np.float32(threshold)
    if kind == FAST_SIGMOID:
        for k in range(n):
            d = s * abs(v[k] - th) + one
            out[k] = one / (d * d)
    elif kind == ATAN:
        scale, half = np.float32(np.pi / 2.0 * slope), np.float32(slope / 2.0)
        for k in range(n):
            d = scale * (v[k] - th)
            out[k] = half / (one + d * d)
    elif kind == SIGMOID:
        for k in range(n):
            e = np.exp(-s * abs(v[k] - th))
            out[k] = s * e / ((one + e) * (one + e))
    elif kind == RECTANGULAR:
        width = np.float32(0.5 / slope)
        for k in range(n):
            out[k] = s if abs(v[k] - th) < width else zero
    else:
        out[:n] = one


@_serial
def _back_triangular(
    grad_spikes: F32, v: F32, threshold: float, slope: float, through: float, beta: float, grad_v: F32, flow: F32,
    n: int,
) -> None:  # fmt: skip
    """Back over one step: ``flow`` = dL/dx, ``grad_v`` = what the step before gets."""
    r, th, s, b = np.float32(through), np.float32(threshold), np.float32(slope), np.float32(beta)
    zero, one = np.float32(0.0), np.float32(1.0)
    for k in range(n):
        x, g = v[k], grad_v[k]
        h = max(zero, one - s * abs(x - th))
        keep = zero if x > th else one
        dx = (grad_spikes[k] - r * (g * x)) * h + g * keep
        flow[k] = dx
        grad_v[k] = b * dx


@_serial
def _back(
    grad_spikes: F32, v: F32, threshold: float, slopes: F32, through: float, beta: float, grad_v: F32, flow: F32, n: int
) -> None:
    """As :func:`_back_triangular`, from the derivatives in ``slopes``."""
    r, th, b = np.float32(through), np.float32(threshold), np.float32(beta)
    zero, one = np.float32(0.0), np.float32(1.0)
    for k in range(n):
        x, g = v[k], grad_v[k]
        keep = zero if x > th else one
        dx = (grad_spikes[k] - r * (g * x)) * slopes[k] + g * keep
        flow[k] = dx
        grad_v[k] = b * dx


@_serial
def _add(target: F32, a: F32, n: int) -> None:
    for k in range(n):
        target[k] = target[k] + a[k]


@_serial
def _widen_add(target: F64, a: F32, n: int) -> None:
    for k in range(n):
        target[k] = target[k] + a[k]


@_serial
def _norm_sums(flow: F32, raw: F32, mean: F32, first: F32, second: F32, n: int) -> None:
    for k in range(n):
        first[k] = first[k] + flow[k]
        second[k] = second[k] + flow[k] * (raw[k] - mean[k])


@_serial
def _forward(
    current: Values,
    v0: F32,
    beta: float,
    threshold: float,
    norm: Norm,
    spikes: Values,
    last: F32,
    start: int,
    stop: int,
) -> None:
    normed, held, width = norm[0].shape[0] > 0, current.shape[0] == 1, _width(norm, BLOCK)
    p, s, room = np.empty((2, width), np.float32), np.empty((2, width), np.float32), np.empty(width, np.uint32)
    v = s[0]
    if normed:
        _spread(norm[0], p[0], start, width)
        _spread(norm[1], p[1], start, width)
    for lo in range(start, stop, width):
        n = min(width, stop - lo)
        hi = lo + n
        v[:n] = v0[lo:hi]
        for t in range(spikes.shape[0]):
            row = _widened(current[0 if held else t][lo:hi], room, n)
            if normed:
                _affine(row, p[0], p[1], s[1], n)
                row = s[1]
            _step(v, beta, row, threshold, spikes[t][lo:hi], n)
        last[lo:hi] = v[:n]


@_serial
def _recompute_block(
    current: Values, beta: float, threshold: float, normed: bool, p: F32, s: F32, room: npt.NDArray[np.uint32],
    membranes: F32, lo: int, n: int,
) -> None:  # fmt: skip
    """The block's membranes before the reset, from those before the first step in ``s[0]``."""
    held = current.shape[0] == 1
    for t in range(membranes.shape[0]):
        row = _widened(current[0 if held else t][lo : lo + n], room, n)
        if normed:
            _affine(row, p[0], p[1], s[3], n)
            row = s[3]
        _again(s[0], beta, row, threshold, membranes[t], n)


@_serial
def _back_step(
    upper: F32, x: F32, threshold: float, kind: int, slope: float, through: float, beta: float, s: F32, n: int
) -> None:
    """One step back, from dL/dv in ``s[0]`` to the step before's; ``s[1]`` = dL/dx, ``s[2]`` is used."""
    if kind == TRIANGULAR:
        _back_triangular(upper, x, threshold, slope, through, beta, s[0], s[1], n)
    else:
        _derivative(kind, slope, x, threshold, s[2], n)
        _back(upper, x, threshold, s[2], through, beta, s[0], s[1], n)


@_serial
def _backward(
    current: Values, v0: F32, beta: float, threshold: float, norm: Norm, kind: int, slope: float, through: float,
    grad_spikes: Values, grad_v: F32, out: Values, sums: F64, start: int, stop: int,
) -> None:  # fmt: skip
    normed, summed = norm[0].shape[0] > 0, out.shape[0] == 1
    steps = grad_spikes.shape[0]
    width = _width(norm, max(64, min(BLOCK, SCRATCH // max(steps, 1))))
    membranes = np.empty((steps, width), np.float32)
    p, s, totals = np.empty((3, width), np.float32), np.empty((6, width), np.float32), np.zeros((2, width))
    room, other = np.empty(width, np.uint32), np.empty(width, np.uint32)
    v, g, flow = s[0], s[0], s[1]
    if normed:
        for q in range(3):
            _spread(norm[q], p[q], start, width)
    for lo in range(start, stop, width):
        n = min(width, stop - lo)
        hi = lo + n
        s[4:] = np.float32(0.0)
        v[:n] = v0[lo:hi]
        _recompute_block(current, beta, threshold, normed, p, s, room, membranes, lo, n)
        g[:n] = grad_v[lo:hi]
        s[3][:n] = np.float32(0.0)
        for t in range(steps - 1, -1, -1):
            upper = _widened(grad_spikes[t][lo:hi], other, n)
            _back_step(upper, membranes[t], threshold, kind, slope, through, beta, s, n)
            if normed:
                _norm_sums(flow, _widened(current[t][lo:hi], room, n), p[2], s[4], s[5], n)
            if summed:
                _add(s[3], flow, n)
            else:
                _narrowed(flow, out[t][lo:hi], n)
        if summed:
            _narrowed(s[3], out[0][lo:hi], n)
        if normed:
            _widen_add(totals[0], s[4], n)
            _widen_add(totals[1], s[5], n)
        grad_v[lo:hi] = g[:n]
    if normed:
        _gather(totals[0], sums[0], start, width)
        _gather(totals[1], sums[1], start, width)


@_serial
def _moments(raw: Values, origin: F32, sums: F64, start: int, stop: int) -> None:
    """Sums of ``raw - origin`` and of its square a channel, over elements ``start`` to ``stop`` of ``raw`` [M]."""
    size = origin.shape[0]
    width = size * max(1, BLOCK // size)
    o, s, room = np.empty(width, np.float32), np.zeros((2, width), np.float32), np.empty(width, np.uint32)
    totals = np.zeros((2, width))
    _spread(origin, o, start, width)
    rows = 0
    for lo in range(start, stop, width):
        n = min(width, stop - lo)
        row = _widened(raw[lo : lo + n], room, n)
        _squares(row, o, s[0], s[1], n)
        rows += 1
        if rows == RUN or lo + width >= stop:
            _widen_add(totals[0], s[0], width)
            _widen_add(totals[1], s[1], width)
            s[:] = np.float32(0.0)
            rows = 0
    _gather(totals[0], sums[0], start, width)
    _gather(totals[1], sums[1], start, width)


@_serial
def _squares(row: F32, origin: F32, first: F32, second: F32, n: int) -> None:
    for k in range(n):
        d = row[k] - origin[k]
        first[k] = first[k] + d
        second[k] = second[k] + d * d


@_serial
def _norm_back(grad: Values, raw: Values, factors: F32, start: int, stop: int) -> None:
    """``grad = a * grad + b * raw + d`` a channel, in place, over elements of [M]; ``factors`` is (a, b, d), [3, C]."""
    size = factors.shape[1]
    width = size * max(1, BLOCK // size)
    p, out = np.empty((3, width), np.float32), np.empty(width, np.float32)
    room, other = np.empty(width, np.uint32), np.empty(width, np.uint32)
    for q in range(3):
        _spread(factors[q], p[q], start, width)
    for lo in range(start, stop, width):
        n = min(width, stop - lo)
        g = _widened(grad[lo : lo + n], room, n)
        x = _widened(raw[lo : lo + n], other, n)
        _mixed(g, x, p[0], p[1], p[2], out, n)
        _narrowed(out, grad[lo : lo + n], n)


@_serial
def _mixed(g: F32, x: F32, a: F32, b: F32, d: F32, out: F32, n: int) -> None:
    for k in range(n):
        out[k] = a[k] * g[k] + (b[k] * x[k] + d[k])


@_parallel
def _forward_parallel(
    current: Values,
    v0: F32,
    beta: float,
    threshold: float,
    norm: Norm,
    spikes: Values,
    last: F32,
    size: int,
    count: int,
) -> None:
    for w in numba.prange(count):
        _forward(current, v0, beta, threshold, norm, spikes, last, size * w // count, size * (w + 1) // count)


@_parallel
def _backward_parallel(
    current: Values, v0: F32, beta: float, threshold: float, norm: Norm, kind: int, slope: float, through: float,
    grad_spikes: Values, grad_v: F32, out: Values, sums: F64, size: int, count: int,
) -> None:  # fmt: skip
    for w in numba.prange(count):
        _backward(
            current, v0, beta, threshold, norm, kind, slope, through, grad_spikes, grad_v, out, sums[w],
            size * w // count, size * (w + 1) // count,
        )  # fmt: skip


@_parallel
def _moments_parallel(raw: Values, origin: F32, sums: F64, size: int, count: int) -> None:
    for w in numba.prange(count):
        _moments(raw, origin, sums[w], size * w // count, size * (w + 1) // count)


@_parallel
def _norm_back_parallel(grad: Values, raw: Values, factors: F32, size: int, count: int) -> None:
    for w in numba.prange(count):
        _norm_back(grad, raw, factors, size * w // count, size * (w + 1) // count)


def forward(
    current: Values, v0: F32, beta: float, threshold: float, norm: Norm, spikes: Values, last: F32, *, threads: int = 1
) -> None:
    """Fill ``spikes`` [T, M] and the membranes ``last`` [M] from ``current`` [T, M], or [1, M] held (without norm)."""
    size, count = spikes.shape[1], parts(threads, spikes.size)
    if count == 1:
        _forward(current, v0, beta, threshold, norm, spikes, last, 0, size)
        return
    with team(count):
        _forward_parallel(current, v0, beta, threshold, norm, spikes, last, size, count)


def backward(
    current: Values, v0: F32, beta: float, threshold: float, norm: Norm, surrogate: tuple[int, float, float],
    grad_spikes: Values, grad_v: F32, out: Values, *, threads: int = 1,
) -> F64:  # fmt: skip
    """Backward of :func:`forward`, membranes recomputed.

    Args:
        current, v0, beta, threshold, norm: As forward had them.
        surrogate: Kind, slope, and 1.0 or (reset detached) 0.0.
        grad_spikes: dL/dspikes [T, M].
        grad_v: In: dL/d(last v) [M]; out: dL/dv0.
        out: Output [T, M], dL/d(current as the neuron sees it); [1, M]: its sum over time.
        threads: Upper bound.

    Returns:
        With a norm the sums over time, batch and place of ``out`` and of ``out * (raw - mean)``, float64 [2, C], of
        the unrounded gradient; else of length 0.
    """
    size, count = grad_spikes.shape[1], parts(threads, grad_spikes.size)
    sums = np.zeros((count, 2, norm[0].shape[0]))
    kind, slope, through = surrogate
    scan = (current, v0, beta, threshold, norm, kind, slope, through, grad_spikes, grad_v, out)
    if count == 1:
        _backward(*scan, sums[0], 0, size)
    else:
        with team(count):
            _backward_parallel(*scan, sums, size, count)
    total: F64 = sums.sum(0)
    return total


def moments(raw: Values, origin: F32, *, threads: int = 1) -> F64:
    """Sums of ``raw - origin`` and of its square a channel, float64 [2, C]; ``raw`` flat, channels last."""
    count = parts(threads, raw.size)
    sums = np.zeros((count, 2, origin.shape[0]))
    if count == 1:
        _moments(raw, origin, sums[0], 0, raw.size)
    else:
        with team(count):
            _moments_parallel(raw, origin, sums, raw.size, count)
    total: F64 = sums.sum(0)
    return total


def norm_back(grad: Values, raw: Values, factors: F32, *, threads: int = 1) -> None:
    """``grad = a * grad + b * raw + d`` a channel, in place; flat arrays, channels last; factors (a, b, d) [3, C]."""
    count = parts(threads, raw.size)
    if count == 1:
        _norm_back(grad, raw, factors, 0, raw.size)
        return
    with team(count):
        _norm_back_parallel(grad, raw, factors, raw.size, count)
