"""What a run on real Lava costs, and what many runs and kills leave behind. ``python -m benchmarks.lava_worker``.

Whether Lava's answers are right is the business of :mod:`benchmarks.parity`.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from benchmarks.lava_robust import kills, many_runs
from benchmarks.rows import Row, write
from deploy.loihi.client import run_lava, worker_info
from deploy.loihi.server import LavaWorker, run_parallel
from deploy.program import Dense, Input, Population, Program

COMMAND = "python -m benchmarks.lava_worker"
SEED = 0


def chain(sizes: Sequence[int]) -> Program:
    """A fully connected network with random weights that spikes in every layer."""
    rng = np.random.default_rng(SEED)
    names = ["in", *(f"layer{n}" for n in range(1, len(sizes)))]
    populations = [
        Population(name, (size,), 4095, 410, 100, rng.integers(-500, 500, size))
        for name, size in zip(names[1:], sizes[1:], strict=True)
    ]
    synapses = [
        Dense(f"to {names[n + 1]}", names[n], names[n + 1], rng.integers(-30, 31, (sizes[n + 1], sizes[n])) * 2)
        for n in range(len(sizes) - 1)
    ]
    return Program(Input("in", (sizes[0],)), tuple(populations), tuple(synapses))


def seconds(program: Program, samples: int, steps: int = 16) -> float:
    """Seconds of one run that records every layer's spikes, the worker's start included."""
    rng = np.random.default_rng(SEED)
    spikes = rng.random((steps, samples, program.input.size)) < 0.3
    start = time.perf_counter()
    run_lava(program, spikes)
    return time.perf_counter() - start


def speed_rows(rest: dict[str, Any]) -> list[Row]:
    """What a run costs: the start, and each step after it."""
    rows = []
    for sizes in ([64, 64, 10], [784, 128, 10]):
        program, case = chain(sizes), "-".join(map(str, sizes)) + " on Lava, 16 steps a sample"
        few, many = (min(seconds(program, samples) for _ in range(2)) for samples in (32, 232))
        rows.append(Row(case, "32 samples, the worker's start included", few, "s", "", **rest))
        rows.append(Row(case, "one more step", 1e3 * (many - few) / (200 * 16), "ms", "", **rest))
    return rows


def start_rows(rest: dict[str, Any]) -> list[Row]:
    """What the worker that stays saves: the same small run, alone and after others; and two workers at once."""
    program, rng = chain([64, 64, 10]), np.random.default_rng(SEED)
    few, many = (rng.random((16, samples, 64)) < 0.3 for samples in (4, 256))
    with LavaWorker() as worker:
        worker.run(program, few)
        later = min(_timed(lambda: worker.run(program, few)) for _ in range(5))
        whole = _timed(lambda: worker.run(program, many))
    alone = min(_timed(lambda: run_lava(program, few)) for _ in range(3))
    shared = _timed(lambda: run_parallel(program, many, workers=2))
    case = "64-64-10 on Lava, 16 steps a sample"
    return [
        Row(case, "4 samples, the worker's start included", alone, "s", "", **rest),
        Row(case, "4 samples, in a worker that has started", later, "s", "", **rest),
        Row(case, "256 samples, in a worker that has started", whole, "s", "", **rest),
        Row(case, "256 samples, two workers, their start included", shared, "s", "", **rest),
    ]


def _timed(run: Callable[[], object]) -> float:
    start = time.perf_counter()
    run()
    return time.perf_counter() - start


def main() -> int:
    """Measure and write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", type=int, default=200, help="consecutive runs (0: none)")
    parser.add_argument("--kills", type=int, default=20, help="runs that are killed (0: none)")
    parser.add_argument("--only", choices=("cost", "runs", "kills"), help="one part; what the others wrote stays")
    asked = parser.parse_args()
    rest: dict[str, Any] = {"command": COMMAND, "seed": SEED, "versions": worker_info().versions()}
    program, spikes = chain([64, 64, 10]), np.random.default_rng(SEED).random((16, 8, 64)) < 0.3
    parts: dict[str, Callable[[], list[Row]]] = {
        "cost": lambda: [*speed_rows(rest), *start_rows(rest)],
        "runs": lambda: many_runs(program, spikes, asked.runs, rest) if asked.runs else [],
        "kills": lambda: kills(program, spikes, asked.kills, SEED, rest) if asked.kills else [],
    }
    for name, measure in parts.items():
        if asked.only in (None, name):
            rows = measure()
            write("lava", rows)
            print(*(f"{row.case}: {row.metric} {row.value:.4g} {row.unit}" for row in rows), sep="\n", flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
