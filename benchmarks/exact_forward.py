"""Is the fine-tuning forward the chip, and what does that cost? ``python -m benchmarks.exact_forward``.

Random students: spikes of the torch forward against the simulator on the Program lowered from the exported file, every
layer, step and sample. Speed: epochs of exact fine-tuning against float epochs of the same student, taking turns.
``--data-root DIR`` adds whole test sets: students trained and fine-tuned for an epoch each (what is measured is
equality, not accuracy).
"""

from __future__ import annotations

import argparse
import dataclasses
import multiprocessing
import statistics
import tempfile
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

import numpy as np
import torch

from benchmarks.rows import Row, versions, write
from deploy import graph as nir
from deploy.lower import lower
from deploy.program import Program
from neurokd import losses
from neurokd.config_parts import StageConfig
from neurokd.data import Dataset, Split, load
from neurokd.encoding import Encoding
from neurokd.export import export
from neurokd.feed import Feed, Network
from neurokd.loop import fit
from neurokd.network import SpikingNetwork, build
from neurokd.quantize import fine_tune
from neurokd.quantized import QuantizedNetwork
from neurokd.rounding import to_integers
from neurokd.testing import differing_spikes, random_case, simulated

TOPIC = "exact-forward"
NETWORKS = 1000
SPEEDS = ("784-128-10", "28x28x1-16c5s2-32c3s2-10")
SETS = {
    "mnist": ("784-128-10", "28x28x1-8c5s2-16c3s2-10"),
    "fashion-mnist": ("784-128-10", "28x28x1-8c5s2-16c3s2-10"),
    "cifar10": ("3072-128-10", "32x32x3-16c5s2-p2-32c3-10"),
}
STEPS, BITS = 8, 8
COMMAND = "python -m benchmarks.exact_forward"


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure, and write ``benchmarks/results/exact-forward.json``."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("parts", nargs="*", default=["random", "speed"], help="random, speed, sets")
    parser.add_argument("--networks", type=int, default=NETWORKS)
    parser.add_argument("--processes", type=int, default=2)
    parser.add_argument("--data-root", type=Path, help="folder with the data files, for the part 'sets'")
    parser.add_argument("--sets", nargs="*", default=list(SETS), help=", ".join(SETS))
    options = parser.parse_args(arguments)
    if "random" in options.parts:
        write(TOPIC, random_rows(options.networks, options.processes))
    if "speed" in options.parts:
        for spec in SPEEDS:
            write(TOPIC, speed_rows(spec))
    if "sets" in options.parts:
        for name in options.sets:
            for found in set_rows(load(name, options.data_root)):
                write(TOPIC, [found])
    return 0


def _row(case: str, metric: str, value: float, unit: str, goal: str = "", part: str = "", seed: int = 0) -> Row:
    used = versions("torch", "numpy", "numba", "nir")
    print(f"{case}: {metric} {value} {unit} {goal}", flush=True)
    return Row(case, metric, value, unit, goal, f"{COMMAND} {part}".strip(), seed, used)


# Random students --------------------------------------------------------------------------------------------------


def random_rows(count: int, processes: int) -> list[Row]:
    """Equality over ``count`` random students."""
    totals: dict[str, int] = {}
    with ProcessPoolExecutor(processes, multiprocessing.get_context("spawn")) as pool:
        for found in pool.map(compare_random, range(count), chunksize=10):
            for key, value in found.items():
                totals[key] = totals.get(key, 0) + value
    case = f"{count:,} random students"
    return [
        _row(case, "differing spikes, torch forward against the simulator", totals["differing"], "spikes", "== 0"),
        _row(case, "spikes compared, those that are none included", totals["compared"], "spikes"),
        _row(case, "spikes among them", totals["spikes"], "spikes"),
        _row(case, "students whose current wraps", totals["wraps"], "students", "> 0"),
        _row(case, "students whose membrane saturates", totals["saturations"], "students", "> 0"),
        _row(case, "convolutional among them", totals["convolutional"], "students"),
    ]


def compare_random(seed: int) -> dict[str, int]:
    """Differing spikes of one random student, through its file, and what was seen on the way."""
    torch.set_num_threads(1)
    case = random_case(seed)
    program = through_file(case.network)
    trace = simulated(program, case.network, case.x)
    return {
        "differing": sum(differing_spikes(trace, case.network, case.x).values()),
        "compared": sum(spikes.size for spikes in trace.spikes.values()),
        "spikes": sum(int(spikes.sum()) for spikes in trace.spikes.values()),
        "wraps": int(trace.wraps > 0),
        "saturations": int(trace.saturations > 0),
        "convolutional": int(len(program.input.shape) == 3),
    }


def through_file(network: QuantizedNetwork) -> Program:
    """The Program lowered from the exported and re-read file."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "student.nir"
        export(network, path)
        return lower(nir.read(path, trusted=True))


# Speed ------------------------------------------------------------------------------------------------------------


def speed_rows(spec: str, turns: int = 7) -> Iterator[Row]:
    """Epochs of the float student (with its norms, and folded) and of exact fine-tuning, taking turns."""
    data, encoding = noise(28), Encoding("direct", BITS, STEPS)
    stage = StageConfig(epochs=1, batch=128, lr=1e-4, weight_decay=0.0)
    student = build(spec, steps=STEPS, input_bits=BITS).eval()
    kinds: dict[str, Network] = {"float": student, "folded": student.folded(), "exact": to_integers(student)}
    seconds: dict[str, list[float]] = {kind: [] for kind in kinds}
    for turn in range(turns + 1):
        for kind, network in kinds.items():
            taken = epoch_seconds(network, data, encoding, stage)
            if turn:
                seconds[kind].append(taken)
    exact = statistics.median(seconds["exact"])
    case = f"{spec}, T = {STEPS}, batch {stage.batch}, {torch.get_num_threads()} threads"
    yield _row(case, "epoch of exact fine-tuning, 2,560 images", exact, "s", part="speed")
    for kind, words in (("float", "float epoch"), ("folded", "float epoch without norms")):
        ratio = exact / statistics.median(seconds[kind])
        yield _row(case, f"exact epoch / {words} of the same student", round(ratio, 3), "x", "<= 2", "speed")


def epoch_seconds(network: Network, data: Dataset, encoding: Encoding, stage: StageConfig) -> float:
    """Wall time of one epoch of the training loop, validation included."""
    return fit(network, data, encoding, stage, loss_terms=losses.parse_loss("ce")).seconds


def noise(side: int) -> Dataset:
    """Random images, a third of their pixels lit, as in MNIST's."""
    rng = np.random.default_rng(0)

    def split(count: int) -> Split:
        images = rng.integers(0, 256, (count, 1, side, side)) * (rng.random((count, 1, side, side)) < 0.3)
        return Split(images.astype(np.uint8), rng.integers(0, 10, count))

    classes = tuple(str(digit) for digit in range(10))
    return Dataset("noise", "noise", (), classes, (1, side, side), 255, split(2560), split(256), split(256))


# Whole test sets --------------------------------------------------------------------------------------------------


def set_rows(data: Dataset) -> Iterator[Row]:
    """Equality on a whole test set, for a dense and a convolutional student, at 8 and 4 bits."""
    small = dataclasses.replace(
        data, train=data.train.take(range(10_000)), validation=data.validation.take(range(1000))
    )  # fmt: skip
    encoding = Encoding("direct", BITS, STEPS, raw_levels=data.levels)
    for spec in SETS[data.name]:
        student = build(spec, steps=STEPS, input_bits=BITS, surrogate="triangular")
        stage = StageConfig(epochs=1, batch=128, lr=2e-3, weight_decay=0.0)
        fit(student, small, encoding, stage, loss_terms=losses.parse_loss("ce"))
        for bits in (8, 4):
            yield set_row(student, small, encoding, stage, bits)


def set_row(student: SpikingNetwork, data: Dataset, encoding: Encoding, stage: StageConfig, bits: int) -> Row:
    """Fine-tune one epoch, export, and compare on every test image."""
    network, _ = fine_tune(student, data, encoding, dataclasses.replace(stage, lr=5e-4), weight_bits=bits)
    program, differing = through_file(network), 0
    for batch in Feed(data.test, encoding).in_order():
        x = batch.inputs.reshape(len(batch.inputs), *network.spec.input_shape)
        differing += sum(differing_spikes(simulated(program, network, x), network, x).values())
    case = f"{data.title}, {student.spec_text}, {bits} bits, {len(data.test):,} test images"
    return _row(
        case, "differing spikes, torch forward against the simulator", differing, "spikes", "== 0",
        "sets --data-root DIR",
    )  # fmt: skip


if __name__ == "__main__":
    raise SystemExit(main())
