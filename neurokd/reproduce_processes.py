"""A grid's data sets and seeds shared out over processes; the rows of one seed teach each other and stay together.

Small networks leave a second thread waiting: on two cores, two processes of one thread each train twice as many cells.
"""

from __future__ import annotations

import multiprocessing
import os
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import dataclass
from pathlib import Path

import torch

from deploy.errors import ConfigError, NeurokdError
from neurokd.config import Config
from neurokd.reproduce import Grid, compute_missing
from neurokd.reproduce_rows import Job, jobs

Failed = list[tuple[Job, NeurokdError]]


@dataclass(frozen=True)
class Cells:
    """Which cells, and where they and what they need are kept.

    Args:
        table: ``1``, ``2``, ``3`` or ``all``.
        work: Folder for checkpoints and training state.
        out: Folder for the cells.
        make_config: Gives the configuration of a data set and seed; crosses process boundaries.
    """

    table: str
    work: Path
    out: Path
    make_config: Callable[[str, int], Config]


def reproduce_in_processes(
    cells: Cells, data: str, seeds: int | None, processes: int, tell: Callable[[str], None] = print
) -> Failed:
    """:func:`neurokd.reproduce.reproduce` on several processes at once, a data set and seed each.

    Args:
        cells: Which and where.
        data: A data set, or ``all``.
        seeds: As :func:`neurokd.reproduce.reproduce`.
        processes: At most so many; each gets an even share of the processor's cores as threads, and with the number of
            threads the last bits of sums change.
        tell: Called with a line for each cell, when its data set and seed are finished.

    Returns:
        The cells that failed, with the reason.

    Raises:
        ConfigError: an unknown table, set or number of seeds or processes, or cells of another configuration.
    """
    if processes < 1:
        raise ConfigError("a grid needs processes", where="--processes", got=processes, allowed="1 or more")
    groups: dict[tuple[str, int], list[Job]] = {}
    for job in jobs(cells.table, data, seeds):
        groups.setdefault((job.data, job.seed), []).append(job)
    threads = max(1, len(os.sched_getaffinity(0)) // processes)
    failed: Failed = []
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(processes, context, torch.set_num_threads, (threads,)) as pool:
        running = [pool.submit(_group, cells, group) for group in groups.values()]
        try:
            for done in as_completed(running):
                lines, lost = done.result()
                failed += lost
                for line in lines:
                    tell(line)
        except BaseException:
            pool.shutdown(wait=False, cancel_futures=True)
            raise
    return failed


def _group(cells: Cells, group: list[Job]) -> tuple[list[str], Failed]:
    """All missing cells of one data set and seed, in a process of the pool."""
    grid = Grid(cells.make_config(group[0].data, group[0].seed), cells.work, cells.out)
    lines: list[str] = []
    return lines, compute_missing(((grid, job) for job in group), lines.append)
