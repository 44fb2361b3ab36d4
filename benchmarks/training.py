"""Speed and memory of a training step beside snntorch's loop and SpikingJelly: ``python -m benchmarks.training``.

A step is forward, loss, backward and Adam (torch's fused one for all), batch 128, T = 25, direct encoding, the same
network: LIF with beta 0.9, reset to 0 with gradient, atan, biases, no batch norm (with one, the loop's norms see one
step at a time and are another computation; timed as rows without a goal). Every contender is a process of its own; they
take turns, a step unmeasured and then some measured, and a ratio is taken within a round: median, lowest and highest of
the rounds. Gradients of ours and of the loop are compared before. Peak memory is that of a process after a few steps.

Contenders: ``ours``; ``ours, bfloat16``; ``snntorch``, the loop as its tutorials have it; ``snntorch, tuned``, with the
first layer's current computed once an image and our allocator settings, the best a loop gets; SpikingJelly's multi-step
mode from the environment that NEUROKD_SPIKINGJELLY_PYTHON (or --spikingjelly) names. Without units for bfloat16 ours
trains in float32, and nothing is measured under its name.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Final

import torch

from benchmarks import training_runs
from benchmarks.clock import rounded
from benchmarks.rows import Row, Value, versions, write
from benchmarks.training_worker import SEED, B, T
from neurokd.precision import has_bfloat16

COMMAND: Final = "python -m benchmarks.training"
ROOT: Final = Path(__file__).resolve().parents[1]
VARIABLE: Final = "NEUROKD_SPIKINGJELLY_PYTHON"
NETWORKS: Final = {
    "dense": "784-800-10",
    "conv": "28x28x1-16c5s2-32c3s2-10",
    "deep": "32x32x3-32c3-64c3s2-64c3s2-10",
}
#: Rounds, and measured steps of a turn.
ROUNDS: Final = {"dense": (15, 3), "conv": (11, 2), "deep": (5, 1)}
GOALS: Final = {
    "dense": {"ours": ">= 5"},
    "conv": {"ours": ">= 3"},
    "deep": {"ours": ">= 1.5", "ours, bfloat16": ">= 2.5"},
}
LOOP: Final = "snntorch"
JELLY: Final = "SpikingJelly"
OURS: Final = ("ours", "ours, bfloat16")
PLAIN: Final = (*OURS, LOOP, "snntorch, tuned", JELLY)
NORMED: Final = ("ours, norm", "ours, bfloat16, norm", "snntorch, norm")
GRADIENT: Final = "<= 1e-4"
MEMORY_STEPS: Final = 4


def row(case: str, metric: str, value: Value, unit: str = "", goal: str = "") -> Row:
    """A row of this benchmark."""
    figure = rounded(value) if isinstance(value, float) else value
    known = {
        **versions("torch", "numba", "numpy", "snntorch"),
        "cores": os.cpu_count(),
        "threads": torch.get_num_threads(),
    }
    return Row(case, metric, figure, unit, goal, COMMAND, SEED, known)


class Contender:
    """A process that trains when asked to."""

    def __init__(self, name: str, spec: str, jelly: str) -> None:
        self.name = name
        ours = [sys.executable, "-m", "benchmarks.training_worker", name, spec]
        theirs = [jelly, str(ROOT / "benchmarks" / "training_spikingjelly.py"), spec]
        self.process = subprocess.Popen(
            theirs if name == JELLY else ours, cwd=ROOT, text=True, stdin=subprocess.PIPE, stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
        )  # fmt: skip
        self.answer()

    def ask(self, what: str) -> Any:
        """Send a line, wait for its answer."""
        assert self.process.stdin is not None
        self.process.stdin.write(what + "\n")
        self.process.stdin.flush()
        return self.answer()

    def answer(self) -> Any:
        """The next line."""
        assert self.process.stdout is not None
        line = self.process.stdout.readline()
        if not line:
            raise SystemExit(f"{self.name} ended without an answer")
        return json.loads(line)

    def close(self) -> None:
        """End it by the end of its input."""
        assert self.process.stdin is not None
        self.process.stdin.close()
        self.process.wait(60)


def there(names: Sequence[str], jelly: str) -> list[str]:
    """The contenders that this machine has."""
    absent = {JELLY: not jelly, "bfloat16": not has_bfloat16("cpu")}
    return [name for name in names if not any(word in name and gone for word, gone in absent.items())]


def race(names: Sequence[str], spec: str, rounds: int, steps: int, jelly: str) -> dict[str, list[float]]:
    """Median seconds of a step in every round, by contender."""
    contenders = [Contender(name, spec, jelly) for name in there(names, jelly)]
    try:
        for contender in contenders:
            contender.ask("steps 2")
        seconds: dict[str, list[float]] = {contender.name: [] for contender in contenders}
        for _ in range(rounds):
            for contender in contenders:
                time.sleep(0.02)  # OpenMP's threads of the turn before come to rest
                seconds[contender.name].append(statistics.median(contender.ask(f"steps {steps + 1}")[1:]))
        return seconds
    finally:
        for contender in contenders:
            contender.close()


def network(key: str, jelly: str) -> list[Row]:
    """One network: gradients and times."""
    spec, (rounds, steps) = NETWORKS[key], ROUNDS[key]
    case = f"{spec}, batch {B}, T = {T}"
    checked = _checked(spec)
    seconds = race(PLAIN, spec, rounds, steps, jelly)
    normed = race(NORMED, spec, max(3, rounds // 3), steps, jelly)
    found = [
        row(case, "spikes unlike the snntorch loop's, weights on a grid", checked["differing"], "", "== 0"),
        row(case, "largest difference of a gradient to the loop's", checked["gradient"], "of the largest", GRADIENT),
        *(row(case, f"{n}: a step", 1e3 * statistics.median(s), "ms") for n, s in {**seconds, **normed}.items()),
    ]
    for name in there(OURS, jelly):
        found += _ratio(case, f"{name}: faster than the snntorch loop", seconds, LOOP, name, GOALS[key].get(name, ""))
        found += _ratio(case, f"{name}: faster than the tuned loop", seconds, "snntorch, tuned", name)
        with_norm = f"{name}, norm"
        found += _ratio(case, f"{with_norm}: faster than the loop with norms", normed, "snntorch, norm", with_norm)
    if jelly:
        for name in there(OURS, jelly):
            found += _ratio(case, f"{name}: faster than SpikingJelly", seconds, JELLY, name, ">= 1" * (name == "ours"))
    else:
        found.append(row(case, "ours: faster than SpikingJelly", f"not measured: {VARIABLE} is not set", "x", ">= 1"))
    return found


def _checked(spec: str) -> dict[str, Any]:
    command = [sys.executable, "-m", "benchmarks.training_worker", "check", spec]
    done = subprocess.run(command, cwd=ROOT, check=True, stdout=subprocess.PIPE, text=True)
    found: dict[str, Any] = json.loads(done.stdout)
    return found


def _ratio(
    case: str, metric: str, seconds: Mapping[str, list[float]], slow: str, fast: str, goal: str = ""
) -> list[Row]:
    ratios = [a / b for a, b in zip(seconds[slow], seconds[fast], strict=True)]
    spread = f"{min(ratios):.3g} to {max(ratios):.3g} in {len(ratios)} rounds"
    return [row(case, metric, statistics.median(ratios), "x", goal), row(case, f"{metric}, rounds", spread, "x")]


def memory() -> list[Row]:
    """Peak memory of every network's contenders, one after the other."""
    found = []
    for spec in NETWORKS.values():
        measured = {name: _peaks(name, spec) for name in there((*OURS, LOOP, "snntorch, tuned"), "")}
        found += _memory(f"{spec}, batch {B}, T = {T}", measured)
    return found


def _peaks(name: str, spec: str) -> list[float]:
    contender = Contender(name, spec, "")
    try:
        contender.ask(f"steps {MEMORY_STEPS}")
        peaks: list[float] = contender.ask("memory")
        return peaks
    finally:
        contender.close()


def _memory(case: str, memory: Mapping[str, list[float]]) -> list[Row]:
    found = []
    for place, since in enumerate(("import", "loading")):
        for name, megabytes in memory.items():
            found.append(row(case, f"{name}: peak memory since {since}", megabytes[place], "MB"))
        for name in (name for name in OURS if name in memory):
            share = memory[name][place] / memory[LOOP][place]
            found.append(row(case, f"{name}: peak memory since {since}, share of the loop's", share, "x", "<= 0.6"))
    return found


def rates() -> list[Row]:
    """Epochs with and without a teacher; accuracy with and without bfloat16."""
    return [row(*figure) for figure in (*training_runs.epochs(), *training_runs.accuracies())]


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure, write ``benchmarks/results/training.json``, print; fails where a gradient or spike differs."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", nargs="*", choices=[*NETWORKS, "memory", "runs"], help="only these (default: all)")
    parser.add_argument("--spikingjelly", default=os.environ.get(VARIABLE, ""), help="Python that has SpikingJelly")
    parser.add_argument("--dry", action="store_true", help="print, and write nothing")
    options = parser.parse_args(arguments)
    parts: dict[str, Callable[[], list[Row]]] = {
        **{key: lambda key=key: network(key, options.spikingjelly) for key in NETWORKS},   # type: ignore[misc]
        "memory": memory, "runs": rates,
    }  # fmt: skip
    failed = False
    for name in options.only or parts:
        started = time.perf_counter()
        found = [row("machine", f"load before {name}", os.getloadavg()[0], "processes"), *parts[name]()]
        if not options.dry:
            write("training", found)
        for r in found:
            print(f"{r.case:<52} {r.metric:<62} {r.value!s:>12} {r.unit:<14} {r.goal:<8} {_word(r.met)}")
        print(f"{name}: {time.perf_counter() - started:.0f} s", file=sys.stderr)
        failed |= any(r.met is False for r in found if "loop's" in r.metric and "memory" not in r.metric)
    return int(failed)


def _word(met: bool | None) -> str:
    return "" if met is None else "met" if met else "missed"


if __name__ == "__main__":
    sys.exit(main())
