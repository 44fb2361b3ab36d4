"""Speed of the integer simulator, beside Lava, PyTorch and snntorch on the same input: ``python -m benchmarks.run``.

Everything takes turns within one run and the least time of each counts, so ratios hold on a busy machine too; absolute
figures want a quiet one (the load before the run is a row). Outputs are checked: every layer's spikes equal Lava's
exactly; and, on the same student without leak, where floats are exact, PyTorch's and snntorch's.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

import numpy as np
import torch

from benchmarks import clock, floats, students
from benchmarks.clock import least, rounded
from benchmarks.rows import Row, Value, versions, write
from benchmarks.scoreboard import lines, show
from deploy import simulator
from deploy.loihi.client import run_lava
from deploy.program import Program
from neurokd import data, encoding

COMMAND: Final = "python -m benchmarks.run"
SEED: Final = 0
ROOT: Final = Path(__file__).resolve().parents[1]
DATA: Final = ROOT.parent / "shared" / "datasets"
T: Final = students.STEPS
TOOLS: Final = ("numpy", "numba", "torch", "snntorch", "lava-nc")


def row(case: str, metric: str, value: Value, unit: str = "", goal: str = "") -> Row:
    """A row of this benchmark."""
    figure = rounded(value) if isinstance(value, float) else value
    return Row(case, metric, figure, unit, goal, COMMAND, SEED, {**versions(*TOOLS), "cores": os.cpu_count()})


def machine() -> list[Row]:
    """What this machine is, and how busy it was."""
    model = next(x.split(":")[1].strip() for x in Path("/proc/cpuinfo").read_text().splitlines() if "model name" in x)
    load = os.getloadavg()[0]
    return [row("machine", "processor", model), row("machine", "load before the run", load, "processes")]


LAVA_GOALS: Final = {students.DENSE: ">= 300", students.CONV: ">= 3000", students.DEEP: ">= 3000"}
SAMPLES: Final = {students.DENSE: 512, students.CONV: 512, students.DEEP: 128}
LAVA_SAMPLES: Final = {students.DENSE: (2, 22), students.CONV: (1, 5), students.DEEP: (1, 3)}


def student(spec: str) -> list[Row]:
    """One student: ours against PyTorch and snntorch in turns, then against Lava; equality of all."""
    program = students.program(spec, seed=SEED)
    spikes = students.rate_coded(program.input.shape, SAMPLES[spec], students.ACTIVITY, seed=SEED + 1)
    x = torch.from_numpy(spikes.astype(np.float32))
    network, loop = floats.network(spec, program), floats.SnntorchLoop(program)
    seconds = least(
        {
            "ours": lambda: simulator.run(program, spikes),
            "PyTorch": lambda: floats.in_batches(network, x),
            "snntorch": lambda: floats.in_batches(loop, x),
        },
        seconds=6,
    )
    seconds |= cores(program, spikes)
    each = {name: 1e6 * s / T / spikes.shape[1] for name, s in seconds.items()}
    case = f"{spec}, T = {T}"
    return [
        *(row(case, f"{name}: time a sample and step", us, "us") for name, us in each.items()),
        row(case, "faster than snntorch", each["snntorch"] / each["ours"], "x", ">= 5"),
        row(case, "faster than PyTorch", each["PyTorch"] / each["ours"], "x"),
        row(case, "two cores against one", each["ours, one core"] / each["ours, two cores"], "x", ">= 1.8"),
        *_work(case, program, spikes, seconds),
        *_equal_floats(case, spec, spikes),
        *_against_lava(case, spec, program, spikes, each["ours"]),
    ]


def cores(program: Program, spikes: Any, record: tuple[str, ...] = ("output",)) -> dict[str, float]:
    """Seconds on one core and on two, in turns of their own: a run on two wants both quiet at once, so more of them."""
    return least(
        {
            "ours, one core": lambda: simulator.run(program, spikes, record=record, threads=1),
            "ours, two cores": lambda: simulator.run(program, spikes, record=record, threads=2),
        },
        seconds=15,
    )


def _work(case: str, program: Program, spikes: Any, seconds: dict[str, float]) -> list[Row]:
    counters = simulator.run(program, spikes, record=()).counters.values()
    synops = sum(int(c.synops.sum()) for c in counters)
    fired = {f"activity of layer {k}": float(c.spikes.mean()) / c.neurons for k, c in enumerate(counters)}
    rate = synops / seconds["ours"] / 1e9
    return [row(case, "synops a second", rate, "G/s"), *(row(case, name, 100 * a, "%") for name, a in fired.items())]


def _equal_floats(case: str, spec: str, spikes: Any) -> list[Row]:
    """Without leak (beta 1) float32 holds every membrane exactly, so every spike must be the same."""
    program = students.program(spec, seed=SEED, dv=0)
    some = spikes[:, :16]
    ours = dict(simulator.run(program, some, record="all").spikes)
    ordered = {p.name: ours[p.name] for p in program.populations}
    differing = floats.differing_spikes(spec, program, some, ordered)
    return [row(case, f"spikes unlike {name}'s, beta 1", n, "", "== 0") for name, n in differing.items()]


def _against_lava(case: str, spec: str, program: Program, spikes: Any, ours: float) -> list[Row]:
    """Two lengths of run; the difference leaves Lava's start out. The longer one's spikes are compared."""
    few, many = LAVA_SAMPLES[spec]
    took = {n: float("inf") for n in (few, many)}
    for _ in range(3):
        for n in (few, many):
            started = time.perf_counter()
            trace = run_lava(program, spikes[:, :n])
            took[n] = min(took[n], time.perf_counter() - started)
    mine = simulator.run(program, spikes[:, :many], record="all").spikes
    differing = sum(int(np.sum(trace.spikes[name] != mine[name])) for name in mine)
    lava = 1e6 * (took[many] - took[few]) / (many - few) / T
    return [
        row(case, "Lava: time a sample and step", lava, "us"),
        row(case, "faster than Lava", lava / ours, "x", LAVA_GOALS[spec]),
        row(case, f"spikes unlike Lava's, all layers, {many * T} steps", differing, "", "== 0"),
    ]


def throughput() -> list[Row]:
    """784 -> 800 alone: synaptic operations a second, beside what the processor can add."""
    program = students.program("784-800", seed=SEED)
    spikes = students.rate_coded((784,), 512, students.ACTIVITY, seed=SEED + 1)
    synops = int(simulator.run(program, spikes).counters["layer0"].synops.sum())
    seconds = cores(program, spikes, record=())
    peaks = {kind.__name__: clock.peak_adds(kind) for kind in (np.int8, np.int16)}
    case = "784-800, 13 % activity"
    rates = {name.split()[1]: synops / s for name, s in seconds.items()}
    return [
        row(case, "synops a second, two cores, whole run", rates["two"] / 1e9, "G/s", ">= 25"),
        row(case, "synops a second, one core, whole run", rates["one"] / 1e9, "G/s"),
        row(case, "two cores against one", rates["two"] / rates["one"], "x", ">= 1.8"),
        *(row(case, f"peak of one core, {k} rows added to int16", p / 1e9, "G/s") for k, p in peaks.items()),
        *(row(case, f"one core, share of the {k} peak", 100 * rates["one"] / p, "%") for k, p in peaks.items()),
    ]


def mnist() -> list[Row]:
    """The 10,000 test images, rate-coded with their own grey levels."""
    program = students.program(students.DENSE, seed=SEED)
    if not DATA.is_dir():
        return [row("MNIST test set", "10,000 images, warm", None, "s", "<= 2")]
    images = data.load("mnist", DATA).test.images.reshape(-1, 784)
    spikes = encoding.rate(images, T, SEED)
    seconds = least({"run": lambda: simulator.run(program, spikes)}, seconds=4)["run"]
    case = f"{students.DENSE}, the {len(images):,} MNIST test images, T = {T}"
    return [row(case, "warm run", seconds, "s", "<= 2"), row(case, "input activity", 100 * float(spikes.mean()), "%")]


def sweep() -> list[Row]:
    """Growth with batch, activity and size, on one core; and how straight a line time is over the work done."""
    points: list[tuple[str, float, float, float]] = []
    for name, spec, samples, activity in SWEEP:
        program = students.program(spec, seed=SEED, activity=activity)
        spikes = students.rate_coded(program.input.shape, samples, activity, seed=SEED + 1)
        seconds = least({"run": lambda p=program, s=spikes: simulator.run(p, s, record=(), threads=1)}, seconds=1)[
            "run"
        ]
        synops = sum(int(c.synops.sum()) for c in simulator.run(program, spikes, record=()).counters.values())
        rows = samples * T
        points.append((name, 1e6 * seconds / rows, synops / rows, program.neurons))
    table = np.array([point[1:] for point in points[BATCHES:]])
    slopes, r2 = clock.line({"synop": table[:, 1], "update": table[:, 2]}, table[:, 0])
    case = "784-n-10, n 100 to 3200, 1 to 50 % activity, one core"
    return [
        *(row("growth, one core", f"{name}: time a sample and step", us, "us") for name, us, _, _ in points),
        row(case, "R2 of time over synops and neuron updates", r2, "", ">= 0.98"),
        row(case, "a synop", 1e3 * slopes["synop"], "ns"),
        row(case, "a neuron update", 1e3 * slopes["update"], "ns"),
        row(case, "a step otherwise", 1e3 * slopes["constant"], "ns"),
    ]


BATCH_SIZES: Final = (1, 8, 64, 512)
BATCHES: Final = len(BATCH_SIZES)
SWEEP: Final = [
    *((f"784-800-10, batch {n}", students.DENSE, n, 0.13) for n in BATCH_SIZES),
    *((f"784-800-10, {100 * a:.3g} % activity", students.DENSE, 256, a) for a in (0.01, 0.02, 0.05, 0.13, 0.25, 0.5)),
    *((f"784-{n}-10, 13 % activity", f"784-{n}-10", 256, 0.13) for n in (100, 200, 400, 1600, 3200)),
    *((f"784-{n}-10, {100 * a:.3g} % activity", f"784-{n}-10", 256, a) for n in (200, 3200) for a in (0.02, 0.5)),
]


def latency() -> list[Row]:
    """One sample, one step: what a closed loop waits for."""
    rows = []
    for spec in (students.DENSE, students.CONV, students.DEEP):
        program = students.program(spec, seed=SEED)
        frames = students.rate_coded(program.input.shape, 1, students.ACTIVITY, steps=200, seed=SEED)[:, 0]
        session = simulator.open(program)
        seconds = least({"steps": lambda s=session, f=frames: [s.step(frame) for frame in f]}, seconds=1)["steps"]
        one = least({"run": lambda p=program, f=frames: simulator.run(p, f[:T, None])}, seconds=1)["run"]
        rows += [
            row(spec, "session, one sample: a step", 1e6 * seconds / len(frames), "us"),
            row(spec, f"run, one sample, T = {T}: a step", 1e6 * one / T, "us"),
        ]
    return rows


def fresh() -> list[Row]:
    """Processes of their own: first result, memory, a network of a chip's size."""
    with tempfile.TemporaryDirectory() as folder:
        path = str(Path(folder) / "student.npz")
        students.program(students.DENSE, seed=SEED).save(path)
        _process("first", path)  # fills numba's cache, as an earlier use would have
        first = min(_process("first", path)[1] for _ in range(5))
        memory, chip = _process("memory", path)[0], _process("chip")[0]
    case = f"chip-sized: {chip['neurons']:,} neurons, {chip['synapses']:,} synapses, {chip['activity']:.1%} activity"
    return [
        row("a second process", "start to first result", first, "s", "<= 2"),
        row("784-800-10, 2,000 samples", "peak memory", memory["peak"], "MB"),
        row("784-800-10, 2,000 samples", "peak memory above the program's and its input's",
            memory["peak"] - memory["with input"], "MB"),
        row(case, "one sample", chip["steps a second"], "steps/s", ">= 100"),
        row(case, "one sample, step by step", chip["steps a second, one at a time"], "steps/s"),
        row(case, "activity", 100 * chip["activity"], "%"),
        row(case, "peak memory", chip["peak"] / 1024, "GB", "<= 2"),
    ]  # fmt: skip


def _process(*arguments: str) -> tuple[dict[str, Any], float]:
    """What ``benchmarks.fresh`` prints, and the seconds it took from start to end."""
    started = time.perf_counter()
    done = subprocess.run(
        [sys.executable, "-m", "benchmarks.fresh", *arguments], cwd=ROOT, check=True, capture_output=True, text=True
    )
    return json.loads(done.stdout), time.perf_counter() - started


SECTIONS: Final[dict[str, Callable[[], list[Row]]]] = {
    "machine": machine,
    "throughput": throughput,
    "mnist": mnist,
    "fresh": fresh,
    "latency": latency,
    "sweep": sweep,
    "dense": lambda: student(students.DENSE),
    "conv": lambda: student(students.CONV),
    "deep": lambda: student(students.DEEP),
}


def main() -> int:
    """Measure, write ``benchmarks/results/simulator.json``, print; fails if an output differs."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("sections", nargs="*", choices=[*SECTIONS, []], help="only these (default: all)")
    options = parser.parse_args()
    found: list[Row] = []
    for name in options.sections or SECTIONS:
        started = time.perf_counter()
        found += SECTIONS[name]()
        write("simulator", found)
        print(f"{name}: {time.perf_counter() - started:.0f} s", file=sys.stderr)
    table = [
        {"case": r.case, "metric": r.metric, "value": r.value, "unit": r.unit, "goal": r.goal, "met": r.met}
        for r in found
    ]
    show(lines({"simulator": table}), f"{len(found)} figures")
    return 0 if all(r.value == 0 for r in found if "unlike" in r.metric) else 1


if __name__ == "__main__":
    sys.exit(main())
