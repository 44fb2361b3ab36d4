"""A Program made ready for the kernels: weights transposed, images channel-last, fan-out counted."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from deploy import fixed_point as fp
from deploy.program import Conv, Dense, Input, Population, Program, Shape, Synapse
from deploy.simulator import kernels

Array = npt.NDArray[Any]

# Measured on 784 -> 800: BLAS over all weights overtakes the event-driven kernel near 30 % activity (benchmarks/).
DENSE_FROM_ACTIVITY: Final = 0.3
INT16_MAX: Final = 32767


@dataclass(frozen=True, eq=False)
class Block:
    """One synapse block: ``add(source, first, sums, synops)`` adds its sums to those of its target."""

    source: str
    lag: int
    add: Callable[[Array, int, Array, Array], None]


@dataclass(frozen=True, eq=False)
class Stage:
    """One population with what reaches it; arrays are in the kernels' layout."""

    population: Population
    blocks: tuple[Block, ...]
    bias: npt.NDArray[np.int32]


@dataclass(frozen=True, eq=False)
class Plan:
    """A whole program: stages in order, and whether it must run step by step (it has cycles)."""

    program: Program
    stages: tuple[Stage, ...]
    stepwise: bool
    longest_lag: int


def plan(program: Program) -> Plan:
    """Prepare a program; done once, used for any number of runs."""
    order = {program.input.name: -1, **{p.name: i for i, p in enumerate(program.populations)}}
    stages = tuple(
        Stage(
            population,
            tuple(_block(program, synapse) for synapse in program.incoming(population.name)),
            np.ascontiguousarray(to_inner(population.bias, population.shape)),
        )
        for population in program.populations
    )
    stepwise = any(order[s.source] >= order[s.target] for s in program.synapses)
    return Plan(program, stages, stepwise, max((s.delay for s in program.synapses), default=0))


def to_inner(values: Array, shape: Shape) -> Array:
    """Reorder the last axis from row-major ``shape`` to channel-last."""
    if len(shape) != 3:
        return values
    image: Array = np.moveaxis(values.reshape(*values.shape[:-1], *shape), -3, -1)
    return image.reshape(values.shape)


def to_outer(values: Array, shape: Shape) -> Array:
    """Split a channel-last last axis into ``shape`` (row-major)."""
    if len(shape) != 3:
        return values.reshape(*values.shape[:-1], *shape)
    channels, height, width = shape
    return np.moveaxis(values.reshape(*values.shape[:-1], height, width, channels), -1, -3)


def _block(program: Program, synapse: Synapse) -> Block:
    graded = isinstance(program.node(synapse.source), Input) and program.input.bits > 1
    if isinstance(synapse, Dense):
        return _dense_block(program, synapse, graded)
    return _conv_block(program, synapse, graded)


def _packed(weights: Array, step: int) -> Array:
    """Weights in units of the grid's step, as int8 where they fit (they do on every mixed-sign grid)."""
    units = weights // step
    small = units.min(initial=0) >= -128 and units.max(initial=0) <= 127
    return np.ascontiguousarray(units.astype(np.int8 if small else np.int16))


def _dense_block(program: Program, dense: Dense, graded: bool) -> Block:
    source, target = program.node(dense.source), program.node(dense.target)
    outgoing = to_inner(dense.weights.astype(np.int32), source.shape).T  # [n_in, n_out]
    outgoing = np.ascontiguousarray(to_inner(outgoing, target.shape))
    step = fp.weight_step(dense.weight_bits, dense.sign_mode)
    weights = _packed(outgoing, step)
    fanout = np.count_nonzero(outgoing, axis=1).astype(np.int32)
    as_float = outgoing.astype(np.float32)
    largest = int(np.abs(weights.astype(np.int32)).max(initial=1)) or 1
    rows = max(INT16_MAX // largest, 1)
    sparse = kernels.dense_graded if graded else kernels.dense_events

    def add(given: Array, first: int, sums: Array, synops: Array) -> None:
        start = first - dense.delay
        window = given[:, max(start, 0) : max(start + sums.shape[1], 0)]
        if window.size and np.count_nonzero(window) > DENSE_FROM_ACTIVITY * window.size:
            skipped = sums.shape[1] - window.shape[1]
            _add_by_blas(window, as_float, fanout, dense.weight_exp, sums[:, skipped:], synops[:, skipped:])
        else:
            sparse(given, weights, fanout, step, dense.weight_exp, rows, dense.delay, first, sums, synops)

    return Block(dense.source, dense.delay, add)


def _add_by_blas(window: Array, weights: Array, fanout: Array, exponent: int, sums: Array, synops: Array) -> None:
    """Sums by a float32 matrix product: exact, because a Program bounds every partial sum by 2^23 < 2^24."""
    product = window.reshape(-1, window.shape[2]).astype(np.float32) @ weights
    integers = product.astype(np.int32)
    shifted = integers << exponent if exponent > 0 else integers >> -exponent
    sums += shifted.reshape(sums.shape)
    synops += (window != 0) @ fanout.astype(np.int64)


def _conv_block(program: Program, conv: Conv, graded: bool) -> Block:
    shape = program.node(conv.source).shape
    out = conv.output_shape(shape)
    step = fp.weight_step(conv.weight_bits, conv.sign_mode)
    tables = scatter_tables(conv, shape, out)
    weights = _by_input_channel(conv, step)[:, :, tables.tap_order]
    weights = np.ascontiguousarray(weights.reshape(*weights.shape[:2], -1))
    units = np.abs(conv.weights.astype(np.int64) // step).reshape(out[0], -1).sum(axis=1).max(initial=0)
    register = np.int16 if units <= INT16_MAX and not graded else np.int32
    fanout = np.ascontiguousarray(to_inner(_conv_fanout(conv, shape, out).reshape(-1), shape))

    def add(given: Array, first: int, sums: Array, synops: Array) -> None:
        scratch = np.empty(sums.shape[2], register)
        kernels.conv_events(
            given, weights, tables.place, tables.rows, tables.row_start, tables.runs, tables.run_start,
            out[2], out[0], out[0] // conv.groups, graded, scratch, fanout, step, conv.weight_exp, conv.delay, first,
            sums, synops,
        )  # fmt: skip

    return Block(conv.source, conv.delay, add)


@dataclass(frozen=True, eq=False)
class ScatterTables:
    """Where an input pixel's events go; see :func:`deploy.simulator.kernels.conv_events`."""

    place: npt.NDArray[np.int32]
    tap_order: npt.NDArray[np.int64]
    rows: npt.NDArray[np.int32]
    row_start: npt.NDArray[np.int32]
    runs: npt.NDArray[np.int32]
    run_start: npt.NDArray[np.int32]


def scatter_tables(conv: Conv, shape: Shape, out: Shape) -> ScatterTables:
    """Tables for a source of shape ``(C, H, W)`` and a target of shape ``(O, H', W')``.

    Along x, taps ``kx`` with the same ``kx * dilation mod stride`` reach one pixel together, at outputs one apart when
    they are ``stride / gcd`` taps apart; ordered by that phase, then downward, a pixel's taps form one run or a few.
    """
    channels, height, width = shape
    y, x, c = np.meshgrid(np.arange(height), np.arange(width), np.arange(channels), indexing="ij")
    taps = np.arange(conv.weights.shape[3])
    tap_order = np.lexsort((-taps, taps * conv.dilation[1] % conv.stride[1]))
    pairs = [_landings(conv, 0, row, range(conv.weights.shape[2]), out[1]) for row in range(height)]
    order = tap_order.tolist()
    runs = [_runs(_landings(conv, 1, column, order, out[2]), conv.groups == 1) for column in range(width)]
    return ScatterTables(
        place=np.stack([y, x, c], axis=-1).reshape(-1, 3).astype(np.int32),
        tap_order=tap_order,
        rows=_table([(conv_row, out_row) for row in pairs for conv_row, out_row in row], 2),
        row_start=_starts(pairs),
        runs=_table([run for column in runs for run in column], 3),
        run_start=_starts(runs),
    )


def _landings(conv: Conv, axis: int, at: int, taps: Sequence[int], side: int) -> list[tuple[int, int]]:
    """(position in ``taps``, output position) of every tap that carries input position ``at`` to an output."""
    found = []
    for position, tap in enumerate(taps):
        target, rest = divmod(at + conv.padding[axis] - tap * conv.dilation[axis], conv.stride[axis])
        if rest == 0 and 0 <= target < side:
            found.append((position, target))
    return found


def _runs(landings: list[tuple[int, int]], mergeable: bool) -> list[tuple[int, int, int]]:
    """(first tap, first output, taps): neighbours in both joined, where output channels of all groups lie together."""
    runs: list[tuple[int, int, int]] = []
    for tap, target in landings:
        if mergeable and runs and (runs[-1][0] + runs[-1][2], runs[-1][1] + runs[-1][2]) == (tap, target):
            runs[-1] = (runs[-1][0], runs[-1][1], runs[-1][2] + 1)
        else:
            runs.append((tap, target, 1))
    return runs


def _table(entries: list[tuple[int, ...]], columns: int) -> npt.NDArray[np.int32]:
    return np.array(entries, dtype=np.int32).reshape(-1, columns)


def _starts(lists: Sequence[Sequence[object]]) -> npt.NDArray[np.int32]:
    return np.concatenate([[0], np.cumsum([len(entries) for entries in lists])]).astype(np.int32)


def _by_input_channel(conv: Conv, step: int) -> npt.NDArray[np.int16]:
    """``[C, kh, kw, O/groups]``: for each input channel, its kernels to the output channels of its group."""
    out_channels, per_group, height, width = conv.weights.shape
    grouped = (conv.weights // step).reshape(conv.groups, out_channels // conv.groups, per_group, height, width)
    by_channel = grouped.transpose(0, 2, 3, 4, 1).reshape(conv.groups * per_group, height, width, -1)
    return np.ascontiguousarray(by_channel.astype(np.int16))


def _conv_fanout(conv: Conv, shape: Shape, out: Shape) -> npt.NDArray[np.int32]:
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
