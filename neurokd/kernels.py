"""Numba scans over time for LIF and CUBA-LIF neurons, forward and backward, on float32 memory.

Every array is ``[T, M]``: time first, then batch and neurons flattened to ``M`` elements. A scan cuts ``M`` into
blocks that stay in the processor's cache and walks each block through all ``T`` steps, so a tensor passes once
through main memory. Backward recomputes the membranes of a block from the input current instead of storing them:
the forward scan writes spikes and last states, nothing else.

The arithmetic is float32 without ``fastmath``, in the order of the plain torch loop of :mod:`neurokd.neurons`, so
membranes and spikes are equal bit for bit.

Parameters (``alpha``, ``beta``, ``threshold``, ``bias``) are 1-D: of length 1, of length ``N`` (the neurons of one
sample: element ``m`` uses entry ``m % N``), or of length 0 where the neuron has none (``alpha``: plain LIF). A
current of shape ``[1, M]`` is held for every step; its gradient is summed over the steps inside the scan.

Threads: the parallel versions use numba's threading layer. With its usual OpenMP layer that is the runtime torch
has loaded, so both share their threads. Measured on 2 cores, [25, 128, 800], right after a matrix product: forward
0.9 ms this way, 1.9 ms on Python threads, which compete with OpenMP's spinning ones.

All compiled functions are in this one file because numba's cache does not notice a change in a function another
file's kernel calls.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, TypeVar, cast

import numba
import numpy as np
import numpy.typing as npt

F32 = npt.NDArray[np.float32]
_F = TypeVar("_F", bound=Callable[..., Any])

#: Elements of a block, 4 KiB a row: the fastest of 256 to 4096 on a 32 KiB L1 cache.
BLOCK = 1024
#: Floats of recomputed state a block holds in backward (512 KiB: half of a usual L2 cache).
SCRATCH = 128 * 1024
#: With fewer element-steps than this one thread is as fast as several.
PARALLEL_FROM = 1 << 17

#: Kinds of surrogate derivative.
FAST_SIGMOID, ATAN, SIGMOID, TRIANGULAR, RECTANGULAR, STRAIGHT_THROUGH = range(6)
#: Places in ``Params`` and rows of a block's parameters.
ALPHA, BETA, THRESHOLD, BIAS = range(4)

#: (alpha, beta, threshold, bias), and gradients of them [M].
Params = tuple[F32, F32, F32, F32]
#: (synaptic current i, membrane v), each [M]; i of length 0 where the neuron has none.
States = tuple[F32, F32]
#: (kind, slope, 1.0 or 0.0 where the reset is detached).
SurrogateCode = tuple[int, float, float]


# error_model="numpy": with Python's, each division is checked for zero and no loop with one is vectorised.
_OPTIONS: Any = {"nogil": True, "cache": True, "fastmath": False, "error_model": "numpy"}


def _serial(function: _F) -> _F:
    return cast(_F, numba.njit(**_OPTIONS)(function))


def _parallel(function: _F) -> _F:
    return cast(_F, numba.njit(parallel=True, **_OPTIONS)(function))


@_serial
def _copy(source: F32, target: F32, n: int) -> None:
    for k in range(n):
        target[k] = source[k]


@_serial
def _leak(v: F32, beta: F32, current: F32, n: int) -> None:
    for k in range(n):
        v[k] = beta[k] * v[k] + current[k]


@_serial
def _add(v: F32, bias: F32, n: int) -> None:
    for k in range(n):
        v[k] = v[k] + bias[k]


@_serial
def _fire(v: F32, threshold: F32, spikes: F32, n: int) -> None:
    one, zero = np.float32(1.0), np.float32(0.0)
    for k in range(n):
        fired = v[k] > threshold[k]
        spikes[k] = one if fired else zero
        v[k] = zero if fired else v[k]


@_serial
def _leak_and_fire(v: F32, beta: F32, current: F32, threshold: F32, spikes: F32, n: int) -> None:
    """``_leak`` and ``_fire`` in one pass over the cache."""
    one, zero = np.float32(1.0), np.float32(0.0)
    for k in range(n):
        x = beta[k] * v[k] + current[k]
        fired = x > threshold[k]
        spikes[k] = one if fired else zero
        v[k] = zero if fired else x


@_serial
def _store_and_reset(v: F32, threshold: F32, before: F32, n: int) -> None:
    zero = np.float32(0.0)
    for k in range(n):
        x = v[k]
        before[k] = x
        v[k] = zero if x > threshold[k] else x


@_serial
def _silent(v: F32, threshold: F32, keep: F32, n: int) -> None:
    """1 where the neuron keeps its membrane, 0 where it fires."""
    one, zero = np.float32(1.0), np.float32(0.0)
    for k in range(n):
        keep[k] = zero if v[k] > threshold[k] else one


@_serial
def _complement(spikes: F32, keep: F32, n: int) -> None:
    one = np.float32(1.0)
    for k in range(n):
        keep[k] = one - spikes[k]


@_serial
def _masked(v: F32, keep: F32, target: F32, n: int) -> None:
    zero = np.float32(0.0)
    for k in range(n):
        target[k] = v[k] if keep[k] > zero else zero


@_serial
def _scale(v: F32, factor: F32, n: int) -> None:
    for k in range(n):
        v[k] = factor[k] * v[k]


@_serial
def _add_product(target: F32, a: F32, b: F32, n: int) -> None:
    for k in range(n):
        target[k] += a[k] * b[k]


@_serial
def _subtract(target: F32, a: F32, n: int) -> None:
    for k in range(n):
        target[k] -= a[k]


@_serial
def _smooth_derivative(kind: int, slope: float, v: F32, threshold: F32, out: F32, n: int) -> None:
    one, s = np.float32(1.0), np.float32(slope)
    if kind == FAST_SIGMOID:
        for k in range(n):
            d = s * abs(v[k] - threshold[k]) + one
            out[k] = one / (d * d)
    elif kind == ATAN:
        scale, half = np.float32(np.pi / 2.0 * slope), np.float32(slope / 2.0)
        for k in range(n):
            d = scale * (v[k] - threshold[k])
            out[k] = half / (one + d * d)
    else:
        for k in range(n):
            e = np.exp(-s * abs(v[k] - threshold[k]))
            out[k] = s * e / ((one + e) * (one + e))


@_serial
def _compact_derivative(kind: int, slope: float, v: F32, threshold: F32, out: F32, n: int) -> None:
    zero, one, s = np.float32(0.0), np.float32(1.0), np.float32(slope)
    if kind == TRIANGULAR:
        for k in range(n):
            out[k] = max(zero, one - s * abs(v[k] - threshold[k]))
    elif kind == RECTANGULAR:
        half = np.float32(0.5 / slope)
        for k in range(n):
            out[k] = s if abs(v[k] - threshold[k]) < half else zero
    else:
        out[:n] = one


@_serial
def _derivative(kind: int, slope: float, v: F32, threshold: F32, out: F32, n: int) -> None:
    """``out = h'(v - threshold)``, the formulas of ``neurons.Surrogate``."""
    if kind <= SIGMOID:
        _smooth_derivative(kind, slope, v, threshold, out, n)
    else:
        _compact_derivative(kind, slope, v, threshold, out, n)


@_serial
def _reverse(grad_spikes: F32, v: F32, keep: F32, through: float, slope: F32, grad_v: F32, n: int) -> None:
    """Back over one spike and reset, ``s = h(x - threshold); v = x - s * x``.

    In: ``slope`` = h'(x - threshold), ``grad_v`` = dL/dv. Out: ``slope`` = the part of dL/dx that came through the
    spike, which is also -dL/dthreshold; ``grad_v`` = dL/dx. ``through`` is 0 where the reset is detached.
    """
    r = np.float32(through)
    for k in range(n):
        fired = (grad_spikes[k] - r * (grad_v[k] * v[k])) * slope[k]
        slope[k] = fired
        grad_v[k] = fired + grad_v[k] * keep[k]


@_serial
def _load(p: F32, params: Params, lo: int, n: int) -> None:
    """The parameters of elements ``lo`` to ``lo + n`` into the rows of ``p``."""
    for q in range(4):
        values, row = params[q], p[q]
        size = values.shape[0]
        if size == 1:
            row[:n] = values[0]
        elif size > 1:
            for k in range(n):
                row[k] = values[(lo + k) % size]


@_serial
def _start(values: States, s: F32, filtered: bool, lo: int, n: int) -> None:
    """States (or their gradients) of one block into the first two rows of ``s``."""
    s[1][:n] = values[1][lo : lo + n]
    if filtered:
        s[0][:n] = values[0][lo : lo + n]


@_serial
def _end(values: States, s: F32, filtered: bool, lo: int, n: int) -> None:
    values[1][lo : lo + n] = s[1][:n]
    if filtered:
        values[0][lo : lo + n] = s[0][:n]


@_serial
def _forward_block(current: F32, p: F32, filtered: bool, biased: bool, spikes: F32, s: F32, lo: int, n: int) -> None:
    hi, held, i, v = lo + n, current.shape[0] == 1, s[0], s[1]
    for t in range(spikes.shape[0]):
        row = current[0 if held else t][lo:hi]
        if filtered:
            _leak(i, p[ALPHA], row, n)
            row = i
        if biased:
            _leak(v, p[BETA], row, n)
            _add(v, p[BIAS], n)
            _fire(v, p[THRESHOLD], spikes[t][lo:hi], n)
        else:
            _leak_and_fire(v, p[BETA], row, p[THRESHOLD], spikes[t][lo:hi], n)


@_serial
def _recompute_block(
    current: F32, p: F32, filtered: bool, biased: bool, synapses: F32, membranes: F32, s: F32, lo: int, n: int
) -> None:
    """Membranes before the reset, and synaptic currents where ``synapses`` has rows, as the forward scan had them."""
    hi, held, i, v = lo + n, current.shape[0] == 1, s[0], s[1]
    for t in range(membranes.shape[0]):
        row = current[0 if held else t][lo:hi]
        if filtered:
            _leak(i, p[ALPHA], row, n)
            row = i
        if synapses.shape[0] > 0:
            _copy(i, synapses[t], n)
        _leak(v, p[BETA], row, n)
        if biased:
            _add(v, p[BIAS], n)
        _store_and_reset(v, p[THRESHOLD], membranes[t], n)


@_serial
def _keep(v: F32, given: F32, threshold: F32, t: int, keep: F32, lo: int, n: int) -> None:
    if given.shape[0] > 0:
        _complement(given[t][lo : lo + n], keep, n)
    else:
        _silent(v, threshold, keep, n)


@_serial
def _parameter_step(
    v: F32, at: int, synapses: F32, given: F32, initial: States, p: F32, out: Params, t: int, s: F32, lo: int, n: int
) -> None:
    """Add step ``t`` to the gradients of beta, threshold and bias, from this step's dL/dv and slope in ``s``."""
    hi, gv, keep, last, slope = lo + n, s[1], s[2], s[3], s[4]
    if out[THRESHOLD].shape[0] > 0:
        _subtract(out[THRESHOLD][lo:hi], slope, n)
    if out[BIAS].shape[0] > 0:
        _add(out[BIAS][lo:hi], gv, n)
    if out[BETA].shape[0] > 0:
        if t == 0:
            last[:n] = initial[1][lo:hi]
        else:
            before = v[t - 1][at : at + n]
            _keep(before, given, p[THRESHOLD], t - 1, keep, lo, n)
            _masked(before, keep, last, n)
        _add_product(out[BETA][lo:hi], gv, last, n)


@_serial
def _synapse_step(synapses: F32, i0: F32, out_alpha: F32, t: int, s: F32, lo: int, n: int) -> None:
    """Back from the membrane to the filtered current, and this step's part of alpha's gradient."""
    _add(s[0], s[1], n)
    if out_alpha.shape[0] > 0:
        before = i0[lo : lo + n] if t == 0 else synapses[t - 1][:n]
        _add_product(out_alpha[lo : lo + n], s[0], before, n)


@_serial
def _backward_block(
    v: F32, at: int, synapses: F32, given: F32, initial: States, p: F32, filtered: bool, surrogate: SurrogateCode,
    grad_spikes: F32, out_current: F32, out: Params, s: F32, lo: int, n: int,
) -> None:  # fmt: skip
    """Walk one block from the last step to the first; its membranes are columns ``at`` to ``at + n`` of ``v``."""
    hi, gi, gv, keep, slope = lo + n, s[0], s[1], s[2], s[4]
    for t in range(grad_spikes.shape[0] - 1, -1, -1):
        x = v[t][at : at + n]
        _derivative(surrogate[0], surrogate[1], x, p[THRESHOLD], slope, n)
        _keep(x, given, p[THRESHOLD], t, keep, lo, n)
        _reverse(grad_spikes[t][lo:hi], x, keep, surrogate[2], slope, gv, n)
        _parameter_step(v, at, synapses, given, initial, p, out, t, s, lo, n)
        flow = gv
        if filtered:
            _synapse_step(synapses, initial[0], out[ALPHA], t, s, lo, n)
            flow = gi
        if out_current.shape[0] == 1:
            _add(out_current[0][lo:hi], flow, n)
        else:
            _copy(flow, out_current[t][lo:hi], n)
        _scale(gv, p[BETA], n)
        if filtered:
            _scale(gi, p[ALPHA], n)


@_serial
def _forward(current: F32, initial: States, params: Params, spikes: F32, last: States, start: int, stop: int) -> None:
    filtered, biased = params[ALPHA].shape[0] > 0, params[BIAS].shape[0] > 0
    p, s = np.empty((4, BLOCK), np.float32), np.empty((2, BLOCK), np.float32)
    for lo in range(start, stop, BLOCK):
        n = min(BLOCK, stop - lo)
        _load(p, params, lo, n)
        _start(initial, s, filtered, lo, n)
        _forward_block(current, p, filtered, biased, spikes, s, lo, n)
        _end(last, s, filtered, lo, n)


@_serial
def _backward(
    source: F32, given: F32, initial: States, params: Params, surrogate: SurrogateCode, grad_spikes: F32,
    grad_state: States, out_current: F32, out: Params, start: int, stop: int,
) -> None:  # fmt: skip
    filtered, biased = params[ALPHA].shape[0] > 0, params[BIAS].shape[0] > 0
    steps, recompute = grad_spikes.shape[0], given.shape[0] == 0
    block = max(64, min(BLOCK, SCRATCH // max(steps, 1)))
    membranes = np.empty((steps if recompute else 0, block), np.float32)
    synapses = np.empty((steps if out[ALPHA].shape[0] > 0 else 0, block), np.float32)
    p, s = np.empty((4, BLOCK), np.float32), np.empty((5, BLOCK), np.float32)
    for lo in range(start, stop, block):
        n = min(block, stop - lo)
        _load(p, params, lo, n)
        if recompute:
            _start(initial, s, filtered, lo, n)
            _recompute_block(source, p, filtered, biased, synapses, membranes, s, lo, n)
        v, at = (membranes, 0) if recompute else (source, lo)
        _start(grad_state, s, filtered, lo, n)
        _backward_block(
            v, at, synapses, given, initial, p, filtered, surrogate, grad_spikes, out_current, out, s, lo, n
        )
        _end(grad_state, s, filtered, lo, n)


@_parallel
def _forward_parallel(
    current: F32, initial: States, params: Params, spikes: F32, last: States, size: int, parts: int
) -> None:
    for w in numba.prange(parts):
        _forward(current, initial, params, spikes, last, size * w // parts, size * (w + 1) // parts)


@_parallel
def _backward_parallel(
    source: F32, given: F32, initial: States, params: Params, surrogate: SurrogateCode, grad_spikes: F32,
    grad_state: States, out_current: F32, out: Params, size: int, parts: int,
) -> None:  # fmt: skip
    for w in numba.prange(parts):
        _backward(
            source, given, initial, params, surrogate, grad_spikes, grad_state, out_current, out,
            size * w // parts, size * (w + 1) // parts,
        )  # fmt: skip


_LOCK = threading.Lock()
_OWNER = os.getpid()


def parts(threads: int, elements: int) -> int:
    """How many threads a scan of ``elements`` element-steps gets, at most ``threads``.

    One in a forked child: GNU OpenMP cannot be used there once the parent has used it, and numba would end the
    process. (torch hangs there unless ``torch.set_num_threads(1)`` is called first, as DataLoader workers do.)
    """
    if elements < PARALLEL_FROM or os.getpid() != _OWNER:
        return 1
    return max(1, min(threads, int(cast(Any, numba.config).NUMBA_NUM_THREADS)))


@contextmanager
def team(count: int) -> Iterator[None]:
    """Hold numba's threads, ``count`` of them, one scan at a time.

    The workqueue layer, used where OpenMP is missing, ends the process on concurrent calls.
    """
    with _LOCK:
        before = numba.get_num_threads()
        numba.set_num_threads(count)
        try:
            yield
        finally:
            numba.set_num_threads(before)


def forward(current: F32, initial: States, params: Params, spikes: F32, last: States, *, threads: int = 1) -> None:
    """Scan forward: fills ``spikes`` [T, M] and the states ``last`` after step T.

    Args:
        current: [T, M], or [1, M] held for all steps.
        initial: states (i, v) before the first step, [M] each.
        params: (alpha, beta, threshold, bias), see the module's text.
        spikes: output [T, M], 0.0 or 1.0.
        last: output states.
        threads: upper bound, normally ``torch.get_num_threads()``.
    """
    size, count = spikes.shape[1], parts(threads, spikes.size)
    if count == 1:
        _forward(current, initial, params, spikes, last, 0, size)
        return
    with team(count):
        _forward_parallel(current, initial, params, spikes, last, size, count)


def backward(
    source: F32, given: F32, initial: States, params: Params, surrogate: SurrogateCode, grad_spikes: F32,
    grad_state: States, out_current: F32, out: Params, *, threads: int = 1,
) -> None:  # fmt: skip
    """Scan backward.

    Args:
        source: the current the forward scan had, or, where ``given`` has rows, the membranes before the reset [T, M].
        given: spikes [T, M] of a forward pass in another arithmetic; [0, M] to recompute from the current.
        initial: states before the first step.
        params: as in the forward scan.
        surrogate: kind, slope, and 1.0 (gradient through the reset) or 0.0 (reset detached).
        grad_spikes: dL/dspikes [T, M].
        grad_state: in: dL/d(last i, last v); out: dL/d(initial i, initial v).
        out_current: output [T, M], or zeros [1, M] to get the sum over time.
        out: zeros [M] for each parameter whose gradient is wanted, summed over time; length 0 for the others.
        threads: upper bound.
    """
    size, count = grad_spikes.shape[1], parts(threads, grad_spikes.size)
    arguments = (source, given, initial, params, surrogate, grad_spikes, grad_state, out_current, out)
    if count == 1:
        _backward(*arguments, 0, size)
        return
    with team(count):
        _backward_parallel(*arguments, size, count)
