"""Real Lava against the reference on random Programs, and what a run on it costs: ``python -m benchmarks.lava_worker``.

The random Programs are those every parity test uses (:mod:`deploy.testing`): Dense and Conv, skips, recurrence, delays,
both reset rules, graded input, extreme parameters; every third one carries its state from sample to sample. Spikes, u
and v of every population are compared.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Iterable, Sequence
from contextlib import suppress
from typing import Any

import numpy as np

from benchmarks.rows import Row, versions, write
from deploy import reference
from deploy.errors import ProgramError
from deploy.loihi.client import Job, run_jobs, run_lava, worker_info
from deploy.loihi.protocol import lags
from deploy.program import Dense, Input, Population, Program
from deploy.testing import random_case
from deploy.trace import Trace

COMMAND = "python -m benchmarks.lava_worker"
SEED = 0
PROGRAMS_A_START = 20


def jobs(seeds: Iterable[int]) -> list[Job]:
    """A run of each seed's program, but for those whose loops are too short for Lava's pipeline."""
    made = []
    for seed in seeds:
        case = random_case(seed)
        with suppress(ProgramError):
            lags(case.program)
            made.append(Job(case.program, case.spikes, case.steps, "all", "all", bool(seed % 3)))
    return made


def differences(job: Job, trace: Trace) -> dict[str, int]:
    """Values of one run that differ from the reference's, by kind."""
    expected = reference.run(job.program, job.spikes, steps=job.steps, reset_between_samples=job.reset_between_samples)
    return {
        what: sum(int(np.sum(getattr(trace, what)[name] != array)) for name, array in getattr(expected, what).items())
        for what in ("spikes", "u", "v")
    }


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


def parity_rows(programs: int, rest: dict[str, Any]) -> list[Row]:
    """Differing values over random programs, several in one start of the worker."""
    found = []
    for first in range(0, programs, PROGRAMS_A_START):
        batch = jobs(range(first, min(first + PROGRAMS_A_START, programs)))
        found += [differences(job, trace) for job, trace in zip(batch, run_jobs(batch), strict=True)]
    case = "random programs, Lava against the reference"
    rows = [Row(case, "programs that ran on Lava", len(found), "programs", f">= {programs // 2}", **rest)]
    for what in ("spikes", "u", "v"):
        rows.append(Row(case, f"differing {what}", sum(d[what] for d in found), "values", "== 0", **rest))
    return rows


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure, write, and fail if a goal is missed."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--programs", type=int, default=200, help="random programs to compare (under 1 s each)")
    options = parser.parse_args(arguments)
    rest: dict[str, Any] = {"command": COMMAND, "seed": SEED, "versions": versions("numpy") | worker_info().versions()}
    rows = [*speed_rows(rest), *parity_rows(options.programs, rest)]
    write("lava", rows)
    print(*(f"{row.case}: {row.metric} {row.value:.4g} {row.unit} {row.goal}" for row in rows), sep="\n")
    return 0 if all(row.met is not False for row in rows) else 1


if __name__ == "__main__":
    sys.exit(main())
