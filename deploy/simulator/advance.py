"""Advancing the populations of a Plan over steps, in pieces whose synaptic sums stay in a processor's cache."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import CancelledError
from functools import partial
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from deploy.simulator import neurons
from deploy.simulator.buffers import NOTHING, Buffers
from deploy.simulator.plan import Plan, Stage

Array = npt.NDArray[Any]
SUMS_BYTES: Final = 1024 * 1024
MOST_KEPT_STEPS: Final = 512  # of a program with cycles: each holds some kilobytes
Piece = tuple[slice, int, int]  # samples, first step, steps


def advance(prepared: Plan, buffers: Buffers, steps: int) -> None:
    """Run every population over all steps, layer by layer, or step by step where there are cycles.

    Raises:
        CancelledError: ``buffers.stop`` was set meanwhile.
    """
    windows = [(step, 1) for step in range(steps)] if prepared.stepwise else [(0, steps)]
    if buffers.pieces:
        _perform(buffers.pieces, buffers)
    elif len(windows) > MOST_KEPT_STEPS:
        _perform(_all_pieces(prepared, buffers, windows), buffers)
    else:
        buffers.pieces.extend(_all_pieces(prepared, buffers, windows))
        _perform(buffers.pieces, buffers)


def _all_pieces(prepared: Plan, buffers: Buffers, windows: list[tuple[int, int]]) -> Iterator[Callable[[], None]]:
    return (piece for window in windows for stage in prepared.stages for piece in bound(stage, buffers, *window))


def advance_stage(stage: Stage, buffers: Buffers, first: int, count: int) -> None:
    """Run one population over the steps ``first`` to ``first + count``; its sources have run that far.

    Raises:
        CancelledError: ``buffers.stop`` was set meanwhile.
    """
    _perform(bound(stage, buffers, first, count), buffers)


def _perform(pieces: Iterable[Callable[[], None]], buffers: Buffers) -> None:
    for piece in pieces:
        if buffers.stop.is_set():
            raise CancelledError
        piece()


def bound(stage: Stage, buffers: Buffers, first: int, count: int) -> Iterator[Callable[[], None]]:
    """The pieces of :func:`advance_stage`, to be called in order, once or again and again: making one takes longer
    than calling it, and only one thread at a time can make them.
    """
    samples, steps, size = buffers.spikes[stage.population.name].shape
    sources = [buffers.spikes[block.source] for block in stage.blocks]
    constant = all(s.shape[1] == 1 < steps for s in sources) and all(b.lag == 0 for b in stage.blocks)
    rows = max(1, SUMS_BYTES // (4 * size))
    if len(stage.blocks) == 1 and not stage.population.refractory and rows >= count:
        yield _bound_stage(stage, buffers, sources[0], constant, (slice(0, samples), first, count), rows // count)
        return
    for piece in _pieces(samples, first, count, rows):
        yield _bound_piece(stage, buffers, sources, constant, piece)


def _pieces(samples: int, first: int, count: int, rows: int) -> Iterator[Piece]:
    together, window = max(1, rows // count), min(rows, count)
    for sample in range(0, samples, together):
        for step in range(first, first + count, window):
            yield slice(sample, sample + together), step, min(window, first + count - step)


def _bound_stage(
    stage: Stage, buffers: Buffers, source: Array, constant: bool, piece: Piece, together: int
) -> Callable[[], None]:
    """All samples of a population that one block reaches, in one call; ``together`` of them at a time."""
    samples, first, count = piece
    population, name, (block,) = stage.population, stage.population.name, stage.blocks
    u, v = buffers.u[name], buffers.v[name]
    rows, from_step = (1, 0) if constant else (count, first)
    together = min(together, len(u))
    sums = buffers.workspace.take("sums", "", (together, rows, u.shape[1]), np.int32)
    synops = buffers.workspace.take("synops", "", (together, rows), np.int64)
    tally = buffers.tallies[name][:, :, first : first + count]
    arguments = (
        source, *block.bind(), from_step, sums, synops, neurons.is_calm(population, stage.calm), constant, stage.bias,
        *neurons.values(population), u, v, buffers.spikes[name], first, tally,
        _window(buffers.u_record, name, piece), _window(buffers.v_record, name, piece),
    )  # fmt: skip
    return partial(block.stage, *arguments)


def _bound_piece(
    stage: Stage, buffers: Buffers, sources: list[Array], constant: bool, piece: Piece
) -> Callable[[], None]:
    samples, first, count = piece
    population, name = stage.population, stage.population.name
    u, v, held = buffers.u[name][samples], buffers.v[name][samples], buffers.held[name][samples]
    rows, from_step = (1, 0) if constant else (count, first)
    sums = buffers.workspace.take("sums", "", (*u.shape[:1], rows, u.shape[1]), np.int32)
    synops = buffers.workspace.take("synops", "", (*u.shape[:1], rows), np.int64)
    adding = [(block.add, (given[samples], *block.bind())) for block, given in zip(stage.blocks, sources, strict=True)]
    tally = buffers.tallies[name][:, samples, first : first + count]
    operations, spikes = tally[4], buffers.spikes[name][samples]
    keep_u, keep_v = _window(buffers.u_record, name, piece), _window(buffers.v_record, name, piece)

    def run() -> None:
        fresh = True
        for add, given in adding:
            add(*given, from_step, fresh, sums, synops)
            fresh = False
        operations[:] = synops
        neurons.scan_population(
            population, stage.calm, sums, constant, stage.bias, u, v, held, spikes, first, tally, keep_u, keep_v
        )

    return run


def _window(records: dict[str, Array], name: str, piece: Piece) -> Array:
    samples, first, count = piece
    return records[name][samples, first : first + count] if name in records else NOTHING
