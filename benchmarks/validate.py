"""Validate profiles: SANA-FE event for event, published figures, NeuroBench: ``python -m benchmarks.validate``.

SANA-FE and NeuroBench run as processes in environments of their own; NEUROKD_SANAFE_PYTHON and
NEUROKD_NEUROBENCH_PYTHON name their interpreters (``make validate`` makes both). Figures go to
``benchmarks/results/validate.json``, docs/energy-model.md is made from them. With ``--grid mnist fashion-mnist cifar10
--data-root DIR`` NeuroBench also measures the distillation grid's students.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks import neurobench, published, sanafe, students
from benchmarks.replace_rows import replace_cases
from benchmarks.rows import Row, versions
from deploy import simulator
from deploy.place import place
from deploy.profile import profile
from deploy.program import Dense, Program
from deploy.runfolder import samples_of

COMMAND = "make validate"
SAMPLES = 2
STEPS = 12
TURNS = 9
IMAGES = 64  # of a trained student through NeuroBench
NETWORKS = (
    "64-48-10",
    "784-128-10",
    "784-800-10",
    "28x28x1-16c5s2-32c3s2-10",
    "32x32x3-32c3s2-64c3s2-10",
)


def _row(case: str, metric: str, value: Any, unit: str = "", goal: str = "", **about: Any) -> Row:
    return Row(case, metric, value, unit, goal, COMMAND, 0, {**versions("numpy"), **about})


def against_sanafe(_: argparse.Namespace) -> list[Row]:
    """Counts exactly, energy and latency within 2 %."""
    rows = []
    for name, program in _sanafe_networks():
        spikes = students.rate_coded(program.input.shape, SAMPLES, students.ACTIVITY, steps=STEPS, seed=3)
        found = sanafe.compare(name, program, spikes)
        case = f"SANA-FE: {name}"
        rows.append(_row(case, "cores", len(found.placement.cores), "cores", sanafe="2.2.9"))
        for event, (theirs, ours) in found.counts.items():
            rows.append(_row(case, event, ours, "a sample"))
            rows.append(_row(case, f"{event}: ours minus SANA-FE's", ours - theirs, "a sample", "== 0"))
        for figure, (theirs, ours), unit in (("energy", found.energy, "µJ"), ("latency", found.latency, "µs")):
            rows.append(_row(case, f"{figure}, SANA-FE", 1e6 * theirs, unit))
            rows.append(_row(case, f"{figure}, ours", 1e6 * ours, unit))
            rows.append(_row(case, f"{figure}: distance", 100 * abs(ours / theirs - 1), "%", "<= 2"))
    return rows


def _sanafe_networks() -> list[tuple[str, Program]]:
    made = [(spec, students.program(spec)) for spec in NETWORKS]
    return [*made, ("784-128-10, nine of ten weights pruned", pruned("784-128-10", 0.9))]


def pruned(spec: str, share: float) -> Program:
    """The same network without most of its weights; it keeps firing, as its thresholds shrink with the sums."""
    whole = students.program(spec)
    rng = np.random.default_rng(5)
    kept = [
        replace(block, weights=np.where(rng.random(block.weights.shape) < share, 0, block.weights))
        for block in whole.synapses
        if isinstance(block, Dense)
    ]
    lower = [replace(p, vth=int(p.vth * (1 - share))) for p in whole.populations]
    return replace(whole, populations=tuple(lower), synapses=tuple(kept))


def detailed(_: argparse.Namespace) -> list[Row]:
    """How far SANA-FE's detailed timing (messages queue in the mesh) is from its simple one, which we share."""
    rows = []
    for spec in ("784-128-10", "28x28x1-16c5s2-32c3s2-10"):
        program = students.program(spec)
        spikes = students.rate_coded(program.input.shape, SAMPLES, students.ACTIVITY, steps=STEPS, seed=3)
        found = sanafe.compare(spec, program, spikes, "detailed")
        theirs, ours = found.latency
        rows.append(_row(f"SANA-FE, detailed timing: {spec}", "latency: ours / SANA-FE's", ours / theirs, "×"))
    return rows


def against_neurobench(options: argparse.Namespace) -> list[Row]:
    """Every metric equal."""
    rows = []
    for case, program, spikes, steps in [*_of_runs(options.runs), *_of_grid(options), *_random()]:
        for metric, (theirs, ours) in neurobench.compare(program, spikes, steps).items():
            rows.append(_row(f"NeuroBench: {case}", metric, ours, "", neurobench="2.3.0"))
            rows.append(_row(f"NeuroBench: {case}", f"{metric}: ours minus NeuroBench's", ours - theirs, "", "== 0"))
    return rows


Case = tuple[str, Program, Any, int]


def _of_runs(runs: Path) -> list[Case]:
    """The students of run folders, on their first test images."""
    found = []
    for file in sorted(runs.glob("*/program.npz")):
        program = Program.load(file)
        given = samples_of(file.parent, None).first(IMAGES, len(program.input.shape))
        found.append((f"{file.parent.name} student", program, given.spikes, given.steps or len(given.spikes)))
    return found


def _of_grid(options: argparse.Namespace) -> list[Case]:
    """The distillation grid's students, on test images spread over the set."""
    if not options.grid:
        return []
    from benchmarks.grid_networks import ROLES, grid_networks

    found = []
    for name in options.grid:
        (one,) = grid_networks(name, options.data_root, work=options.work, roles={"student": ROLES["student"]})
        spread = one.spikes[:: max(1, len(one.spikes) // IMAGES)][:IMAGES]
        found.append((one.case, one.program, spread, one.steps))
    return found


def _random() -> list[Case]:
    """Networks with random weights."""
    found = []
    for spec in ("784-128-10", "784-800-10", "28x28x1-16c5s2-32c3s2-10"):
        program = students.program(spec)
        spikes = students.rate_coded(program.input.shape, 4, students.ACTIVITY, steps=STEPS, seed=3)
        found.append((f"{spec}, random", program, spikes, STEPS))
    return found


def against_published(_: argparse.Namespace) -> list[Row]:
    """Mappings and measurements of papers beside ours."""
    rows = []
    for beside in (*published.mappings(), *published.keyword_spotting(), *published.measurements()):
        case = f"published: {beside.case}"
        about = {"source": beside.source, "why": beside.why}
        rows.append(_row(case, f"{beside.figure}, published", beside.published, beside.unit, **about))
        rows.append(_row(case, f"{beside.figure}, ours", beside.ours, beside.unit, **about))
        if "Keyword" in beside.case:
            distance = 100 * abs(beside.ours / beside.published - 1)
            rows.append(_row(case, f"{beside.figure}: distance", distance, "%", "<= 25", **about))
    return rows


def overhead(_: argparse.Namespace) -> list[Row]:
    """What profiling costs beside the simulation it profiles."""
    rows = []
    for spec, samples in (("784-128-10", 10_000), (students.DENSE, 4_000), (students.CONV, 500)):
        program = students.program(spec)
        spikes = students.rate_coded(program.input.shape, samples, students.ACTIVITY, steps=16, seed=1)
        simulator.run(program, spikes[:, :8], threads=1)
        placement = place(program, "loihi1")
        trace = simulator.run(program, spikes, threads=1)
        ran, spent = [], []
        for _turn in range(TURNS):  # in turns, so that a busy machine slows both
            ran.append(_seconds(lambda p=program, s=spikes: simulator.run(p, s, threads=1)))
            spent.append(_seconds(lambda p=program, t=trace, q=placement: profile(p, t, "loihi1", q)))
        case = f"profiling: {spec}, {samples:,} samples"
        rows.append(_row(case, "simulation", min(ran), "s"))
        rows.append(_row(case, "cost over simulating", 100 * min(spent) / min(ran), "%", "<= 10"))
    return rows


def _seconds(call: Callable[[], object]) -> float:
    start = time.perf_counter()
    call()
    return time.perf_counter() - start


#: Each part with how its rows' cases begin.
PARTS: dict[str, tuple[str, Callable[[argparse.Namespace], list[Row]]]] = {
    "sanafe": ("SANA-FE: ", against_sanafe),
    "detailed": ("SANA-FE, detailed timing: ", detailed),
    "neurobench": ("NeuroBench: ", against_neurobench),
    "published": ("published: ", against_published),
    "overhead": ("profiling: ", overhead),
}


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure, and write ``benchmarks/results/validate.json`` part by part; a part's earlier rows go."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("parts", nargs="*", default=list(PARTS), help=", ".join(PARTS))
    parser.add_argument("--runs", type=Path, default=Path("runs"), help="folder of run folders to measure too")
    parser.add_argument("--grid", nargs="+", default=[], metavar="DATA", help="data sets of the distillation grid")
    parser.add_argument("--data-root", type=Path, help="folder with the data files, for --grid")
    parser.add_argument("--work", type=Path, default=Path("runs/reproduce"), help="where the grid keeps its networks")
    options = parser.parse_args(arguments)
    for part in options.parts:
        start, measure = PARTS[part]
        rows = measure(options)
        replace_cases("validate", rows, start)
        short = [row for row in rows if row.met is False]
        print(f"{part}: {len(rows)} figures, {len(short)} short of their goal", flush=True)
        for row in short:
            print(f"  {row.case}: {row.metric} {row.value} {row.unit}, goal {row.goal}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
