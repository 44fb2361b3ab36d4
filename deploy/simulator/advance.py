"""Advancing the populations of a Plan over steps, in pieces whose synaptic sums stay in a processor's cache."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import CancelledError
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from deploy.simulator import neurons
from deploy.simulator.buffers import NOTHING, Buffers
from deploy.simulator.plan import Plan, Stage

Array = npt.NDArray[Any]
SUMS_BYTES: Final = 1024 * 1024
Piece = tuple[slice, int, int]  # samples, first step, steps


def advance(prepared: Plan, buffers: Buffers, first: int, count: int) -> None:
    """Run every population over the steps ``first`` to ``first + count``.

    Raises:
        CancelledError: ``buffers.stop`` was set meanwhile.
    """
    for stage in prepared.stages:
        advance_stage(stage, buffers, first, count)


def advance_stage(stage: Stage, buffers: Buffers, first: int, count: int) -> None:
    """Run one population over the steps ``first`` to ``first + count``; its sources have run that far."""
    samples, steps, size = buffers.spikes[stage.population.name].shape
    sources = [buffers.spikes[block.source] for block in stage.blocks]
    constant = all(s.shape[1] == 1 < steps for s in sources) and all(b.lag == 0 for b in stage.blocks)
    for piece in _pieces(samples, first, count, size):
        if buffers.stop.is_set():
            raise CancelledError
        _advance_piece(stage, buffers, sources, constant, piece)


def _pieces(samples: int, first: int, count: int, neurons: int) -> Iterator[Piece]:
    rows = max(1, SUMS_BYTES // (4 * neurons))
    together, window = max(1, rows // count), min(rows, count)
    for sample in range(0, samples, together):
        for step in range(first, first + count, window):
            yield slice(sample, sample + together), step, min(window, first + count - step)


def _advance_piece(stage: Stage, buffers: Buffers, sources: list[Array], constant: bool, piece: Piece) -> None:
    samples, first, count = piece
    population, name = stage.population, stage.population.name
    u = buffers.u[name][samples]
    rows = 1 if constant else count
    sums = buffers.workspace.take("sums", "", (*u.shape[:1], rows, u.shape[1]), np.int32)
    synops = buffers.workspace.take("synops", "", (len(u), rows), np.int64)
    for position, (block, source) in enumerate(zip(stage.blocks, sources, strict=True)):
        block.add(source[samples], 0 if constant else first, position == 0, sums, synops)
    tally = buffers.tallies[name][:, samples, first : first + count]
    tally[4] = synops
    neurons.scan_population(
        population, sums, constant, stage.bias, u, buffers.v[name][samples], buffers.held[name][samples],
        buffers.spikes[name][samples], first, tally, _window(buffers.u_record, name, piece),
        _window(buffers.v_record, name, piece),
    )  # fmt: skip


def _window(records: dict[str, Array], name: str, piece: Piece) -> Array:
    samples, first, count = piece
    return records[name][samples, first : first + count] if name in records else NOTHING
