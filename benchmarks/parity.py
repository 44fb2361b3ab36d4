"""Parity at length, simulator = reference = Lava on random programs: ``python -m benchmarks.parity``.

The programs are those of :mod:`deploy.testing` (every layer kind and neuron mode, extreme parameters) and of
:mod:`deploy.edge_cases` (driven to the edges of the arithmetic); every third one carries its state from sample to
sample. Compared are spikes, u and v of every population, step and sample, the answers, and, with the reference, every
counter. Each finished block is written at once to ``benchmarks/results/parity.json`` and not run again, as long as the
code that took part is the same; a difference is named with its seed, from which ``deploy.testing.random_case(seed)``
makes the program again.
"""

from __future__ import annotations

import argparse
import hashlib
import sys
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Final

from rich.console import Console
from rich.progress import Progress

from benchmarks.rows import RESULTS, Row, read, versions, write
from deploy import reference, simulator
from deploy.edge_cases import edge_case
from deploy.errors import ConfigError
from deploy.loihi.client import Job, run_jobs
from deploy.testing import Case, Kinds, differences, random_case
from deploy.trace import Trace

COMMAND: Final = "make parity"
TOPIC: Final = "parity"
DEPLOY: Final = Path(reference.__file__).parent
TAKING_PART: Final = ("program", "fixed_point", "spikes", "trace", "reference", "testing", "edge_cases")
APART: Final = ("install", "doctor", "netx")  # of what is in loihi/
GOALS: Final = {"reference": 5000, "Lava": 300}  # programs
FOR_LAVA: Final = Kinds(short_loops=False)
CASES: Final[dict[str, Callable[[int], Case]]] = {
    "random": random_case,
    "edge": edge_case,
    "random pipelined": lambda seed: random_case(seed, FOR_LAVA),
}


@dataclass(frozen=True)
class Block:
    """Some seeds of one kind of case, and what the simulator is compared with on them."""

    against: str
    kind: str
    first: int
    count: int

    @property
    def case(self) -> str:
        """The row's name."""
        return f"simulator = {self.against}, {self.kind} programs, seeds {self.first}..{self.first + self.count - 1}"


def blocks(against: str, kind: str, count: int, size: int) -> list[Block]:
    """``count`` seeds from 0 on, in blocks."""
    return [Block(against, kind, first, min(size, count - first)) for first in range(0, count, size)]


def simulated(case: Case, reset: bool) -> Trace:
    """The simulator's run, with everything recorded."""
    return simulator.run(
        case.program, case.spikes, steps=case.given_steps, record="all", record_state="all",
        reset_between_samples=reset, threads=1,
    )  # fmt: skip


def expected(against: str, cases: Sequence[Case], resets: Sequence[bool]) -> list[Trace]:
    """The runs of the reference, or of Lava in one start of its worker."""
    pairs = list(zip(cases, resets, strict=True))
    if against == "reference":
        return [
            reference.run(c.program, c.spikes, steps=c.given_steps, reset_between_samples=reset) for c, reset in pairs
        ]
    jobs = [Job(c.program, c.spikes, c.given_steps, "all", "all", reset) for c, reset in pairs]
    return run_jobs(jobs, timeout=60.0 + 30.0 * len(jobs))


def run_block(block: Block) -> tuple[list[str], float]:
    """What differs, each with its seed, and the seconds it took."""
    started = time.perf_counter()
    seeds = range(block.first, block.first + block.count)
    cases, resets = [CASES[block.kind](seed) for seed in seeds], [bool(seed % 3) for seed in seeds]
    found = []
    for seed, case, reset, trace in zip(seeds, cases, resets, expected(block.against, cases, resets), strict=True):
        found += [f"seed {seed}: {difference}" for difference in differences(trace, simulated(case, reset))]
    return found, time.perf_counter() - started


@cache
def code() -> str:
    """Digest of the sources that decide what both sides compute."""
    lava = (path for path in DEPLOY.glob("loihi/**/*.py") if path.stem not in APART)
    sources = (*(DEPLOY / f"{name}.py" for name in TAKING_PART), *DEPLOY.glob("simulator/*.py"), *lava)
    text = b"".join(path.read_bytes() for path in sorted(sources))
    return hashlib.sha256(text).hexdigest()[:12]


def rows_of(block: Block, found: Sequence[str], seconds: float) -> list[Row]:
    """The rows of a finished block."""
    packages = ("numpy", "numba") if block.against == "reference" else ("numpy", "numba", "lava-nc")
    rest = {"command": COMMAND, "seed": block.first, "versions": {**versions(*packages), "code": code()}}
    wrong = {difference.partition(":")[0] for difference in found}
    rows = [
        Row(block.case, "differing programs", len(wrong), "programs", "== 0", **rest),
        Row(block.case, "programs", block.count, "programs", "", **rest),
        Row(block.case, "time", round(seconds, 1), "s", "", **rest),
    ]
    return rows + ([Row(block.case, "differences", "; ".join(found[:20]), **rest)] if found else [])


def finished(folder: Path) -> dict[tuple[str, str], float]:
    """Figures of the blocks that this code has done, by case and metric."""
    rows = read(folder).get(TOPIC, [])
    return {(row["case"], row["metric"]): row["value"] for row in rows if row["versions"].get("code") == code()}


def totals(wanted: Sequence[Block], folder: Path, goals: dict[str, int]) -> list[Row]:
    """Programs, differences and speed over all finished blocks, for each backend compared with."""
    done, rows = finished(folder), []
    for against, goal in goals.items():
        cases = [b.case for b in wanted if b.against == against and (b.case, "time") in done]
        programs, seconds, wrong = (
            sum(done[case, metric] for case in cases) for metric in ("programs", "time", "differing programs")
        )
        name = f"simulator = {against}"
        rows += [
            Row(name, "programs compared", int(programs), "programs", f">= {goal}", COMMAND),
            Row(name, "differing programs", int(wrong), "programs", "== 0", COMMAND),
            Row(name, "programs a second, one process", round(programs / max(seconds, 0.1), 2), "1/s", "", COMMAND),
        ]
    return rows


def run(wanted: Sequence[Block], workers: int, folder: Path, console: Console) -> list[str]:
    """Run the blocks that are not done yet, write each when it is; gives back what differs."""
    done, found = finished(folder), []
    todo = [block for block in wanted if (block.case, "time") not in done]
    console.print(f"{len(wanted) - len(todo)} of {len(wanted)} blocks are done already")
    with ProcessPoolExecutor(workers) as pool, Progress(console=console) as progress:
        task = progress.add_task("blocks", total=len(todo))
        pending = {pool.submit(run_block, block): block for block in todo}
        for future in as_completed(pending):
            differing, seconds = future.result()
            write(TOPIC, rows_of(pending[future], differing, seconds), folder)
            progress.advance(task)
            console.print(f"{pending[future].case}: {len(differing)} differences, {seconds:.0f} s")
            found += differing
    return found


def main(arguments: Sequence[str] | None = None) -> int:
    """Run what is left; 1 where anything differs."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--reference", type=int, default=5000, help="random programs to compare with the reference")
    parser.add_argument("--reference-edges", type=int, default=1000, help="edge programs to compare with it")
    parser.add_argument("--lava", type=int, default=400, help="random programs to compare with Lava")
    parser.add_argument("--lava-edges", type=int, default=100, help="edge programs to compare with it")
    parser.add_argument("--workers", type=int, default=2, help="processes")
    parser.add_argument("--out", type=Path, default=RESULTS, help="folder of parity.json")
    options = parser.parse_args(arguments)
    if options.workers < 1:
        raise ConfigError("workers must be positive", got=options.workers, allowed="1 or more")
    wanted = [
        *blocks("Lava", "random pipelined", options.lava, 25),
        *blocks("Lava", "edge", options.lava_edges, 25),
        *blocks("reference", "random", options.reference, 500),
        *blocks("reference", "edge", options.reference_edges, 500),
    ]
    console = Console()
    found = run(wanted, options.workers, options.out, console)
    summary = totals(wanted, options.out, GOALS)
    write(TOPIC, summary, options.out)
    console.print("\n".join([*found, *(f"{row.case}: {row.metric} {row.value}" for row in summary)]))
    return 1 if any(row.metric == "differing programs" and row.value for row in summary) else 0


if __name__ == "__main__":
    sys.exit(main())
