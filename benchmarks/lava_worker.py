"""What a run on real Lava costs: its start, and each step after it. ``python -m benchmarks.lava_worker``.

Whether Lava's answers are right is the business of :mod:`benchmarks.parity`.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Sequence
from typing import Any

import numpy as np

from benchmarks.rows import Row, write
from deploy.loihi.client import run_lava, worker_info
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


def main() -> int:
    """Measure and write."""
    argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter).parse_args()
    rest: dict[str, Any] = {"command": COMMAND, "seed": SEED, "versions": worker_info().versions()}
    rows = speed_rows(rest)
    write("lava", rows)
    print(*(f"{row.case}: {row.metric} {row.value:.4g} {row.unit}" for row in rows), sep="\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
