"""What needs a process of its own, as JSON: ``python -m benchmarks.fresh first PROGRAM | memory PROGRAM | chip``."""

from __future__ import annotations

import json
import resource
import sys
import time
from typing import Any

import numpy as np

from benchmarks import students
from deploy import simulator
from deploy.program import Program

STEPS = 100


def peak_megabytes() -> float:
    """Largest resident size of this process so far."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def first(path: str) -> dict[str, Any]:
    """A small run: nothing but what a user's script does. The caller takes the time."""
    program = Program.load(path)
    spikes = np.ones((students.STEPS, 1, *program.input.shape), np.uint8)
    return {"spikes": int(simulator.run(program, spikes).counts.sum())}


def memory(path: str) -> dict[str, Any]:
    """Peak memory of 2,000 samples, and the share of it that is there before the run."""
    program = Program.load(path)
    simulator.run(program, np.zeros((1, 1, *program.input.shape), np.uint8))
    before = peak_megabytes()
    spikes = students.rate_coded(program.input.shape, 2000, students.ACTIVITY)
    with_input = peak_megabytes()
    simulator.run(program, spikes)
    return {"before": before, "with input": with_input, "peak": peak_megabytes()}


def chip() -> dict[str, Any]:
    """One sample through a network of a whole chip's size, all steps at once and step by step."""
    program = students.chip_sized()
    spikes = students.rate_coded(program.input.shape, 1, 0.05, steps=STEPS, seed=1)
    trace = simulator.run(program, spikes, record=())
    seconds = min(_timed(lambda: simulator.run(program, spikes, record=())) for _ in range(5))
    session = simulator.open(program)
    stepping = min(_timed(lambda: [session.step(frame[0]) for frame in spikes[:20]]) for _ in range(3))
    fired = sum(int(counter.spikes.sum()) for counter in trace.counters.values())
    return {
        "neurons": program.neurons,
        "synapses": sum(synapse.weights.size for synapse in program.synapses),
        "activity": fired / STEPS / program.neurons,
        "steps a second": STEPS / seconds,
        "steps a second, one at a time": 20 / stepping,
        "peak": peak_megabytes(),
    }


def _timed(run: Any) -> float:
    started = time.perf_counter()
    run()
    return time.perf_counter() - started


if __name__ == "__main__":
    commands = {"first": first, "memory": memory, "chip": chip}
    print(json.dumps(commands[sys.argv[1]](*sys.argv[2:])))
