"""Timing on a machine that others may share: things take turns, and the least time of each counts."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping

import numpy as np
from numba import njit

from benchmarks.rows import Value

Run = Callable[[], object]
ROW = 512
TURN = 3


def least(runs: Mapping[str, Run], *, seconds: float = 3.0, rounds: int = 300) -> dict[str, float]:
    """Seconds of the fastest call of each: at least 3 rounds, then until time or rounds are used up.

    A turn is three calls, for the first still shares the machine with the turn before it: threads of OpenMP, torch's
    for one, go on spinning for some milliseconds after their work.
    """
    for run in runs.values():
        run()
    best = dict.fromkeys(runs, float("inf"))
    started, round_ = time.perf_counter(), 0
    while round_ < 3 or (round_ < rounds and time.perf_counter() - started < seconds * len(runs)):
        for name, run in runs.items():
            for _ in range(TURN):
                before = time.perf_counter()
                run()
                best[name] = min(best[name], time.perf_counter() - before)
        round_ += 1
    return best


@njit(cache=True, nogil=True)
def _adds(rows: np.ndarray, total: np.ndarray, repeats: int) -> None:
    a, b, c, d, e, f, g, h = rows[0], rows[1], rows[2], rows[3], rows[4], rows[5], rows[6], rows[7]
    for _ in range(repeats):
        for j in range(total.size):
            total[j] = np.int16(total[j] + a[j] + b[j] + c[j] + d[j] + e[j] + f[j] + g[j] + h[j])


def peak_adds(kind: type[np.generic]) -> float:
    """Additions a second of one core that does nothing else: eight rows from its first-level cache, to int16."""
    rows, total = np.ones((8, ROW), kind), np.zeros(ROW, np.int16)
    repeats = 20_000
    return 8 * ROW * repeats / least({"adds": lambda: _adds(rows, total, repeats)}, rounds=10)["adds"]


def line(columns: Mapping[str, np.ndarray], seconds: np.ndarray) -> tuple[dict[str, float], float]:
    """Least squares of seconds over columns and a constant, each point weighted by 1 / seconds; slopes and R2.

    R2 is that of the plain residuals: 1 - sum((t - fit)^2) / sum((t - mean)^2).
    """
    names = [*columns, "constant"]
    table = np.column_stack([*columns.values(), np.ones(len(seconds))])
    solution, *_ = np.linalg.lstsq(table / seconds[:, None], np.ones(len(seconds)), rcond=None)
    rest = seconds - table @ solution
    r2 = 1 - float(rest @ rest) / float(np.sum((seconds - seconds.mean()) ** 2))
    return dict(zip(names, solution.tolist(), strict=True)), r2


def rounded(value: float) -> Value:
    """Four significant digits: the fifth is noise."""
    return float(f"{value:.4g}")
