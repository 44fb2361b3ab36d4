"""The repository's students on every chip file, with the teacher beside: ``python -m benchmarks.chips RUN [RUN ...]``.

Each run folder's student, and its teacher in the chip's integers without fine-tuning, is placed on each chip by its
limits and profiled with its constants; where it does not fit or nothing is published, the row says why. The report of
each run is timed too. Figures go to ``benchmarks/results/chips.json``; docs/chips.md is made from them.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.rows import Row, versions, write
from deploy import rules, simulator
from deploy.chip import Chip, chips, load_chip
from deploy.errors import NeurokdError
from deploy.lower import lower
from deploy.place import place
from deploy.profile import profile
from deploy.program import Program
from deploy.report import render
from deploy.runfolder import PROGRAM, samples_of
from deploy.trace import Trace
from neurokd.config import Config
from neurokd.data import load
from neurokd.data.types import Split
from neurokd.export import to_graph
from neurokd.network import build
from neurokd.pipeline import Run
from neurokd.quantize import to_integers
from neurokd.train import train

COMMAND = "python -m benchmarks.chips RUN"
SAMPLES = 1000
IMAGES = 1000  # of a quick training
TITLES = {"cifar10": "CIFAR-10 (JPEG copy)"}
ELSEWHERE = "loihi1"  # where a network stands whose constants come from a file without limits


def measure(folder: Path) -> list[Row]:
    """Every chip's rows for the student and the teacher of a run, and its report's time and size."""
    run = Run.open(folder)
    title = TITLES.get(run.config.data, run.data.title)
    given = samples_of(folder, None).first(SAMPLES, len(run.quantized().spec.input_shape))
    found = []
    teacher = lower(to_graph(to_integers(run.network("teacher"), run.config.chip)), run.config.chip)
    for role, program in (("student", Program.load(folder / PROGRAM)), ("teacher", teacher)):
        trace = simulator.run(program, given.spikes, steps=given.steps)
        spec = run.facts(role)["spec"]
        case = f"{title}, {role} {spec}"
        if given.labels is not None:
            found.append(
                _row(
                    case,
                    "accuracy in integers",
                    trace.accuracy(given.labels),
                    "%",
                    epochs=run.config.training.student.epochs,
                )
            )
        found.append(_row(case, "synops a sample", _synops(trace), "synops"))
        for name in chips():
            if name != "toy":
                found += _on(case, program, trace, load_chip(name))
    return found + report_cost(folder, title, run)


def quick(name: str, root: Path | None) -> list[Row]:
    """The same without a run folder: teacher and student of the default configuration, one epoch on a few images."""
    config = Config.default(name)
    data = load(name, root)
    few = replace(data, train=Split(data.train.images[:IMAGES], data.train.labels[:IMAGES]))
    encoding = config.make_encoding(data.levels)
    chosen = np.arange(0, len(data.test), len(data.test) // SAMPLES)[:SAMPLES]  # a copy may be sorted by class
    spikes = encoding.encode(data.test.images[chosen], chosen)
    found = []
    for role in ("student", "teacher"):
        network = build(config.networks.spec(role), **config.network_options())
        train(network, few, getattr(config.training, role), encoding=encoding, epochs=1, loss="ce")
        program = lower(to_graph(to_integers(network, config.chip)), config.chip)
        trace = simulator.run(program, spikes.reshape(SAMPLES, *program.input.shape), steps=encoding.steps)
        case = f"{TITLES.get(name, data.title)}, {role} {network.spec_text}"
        how = f"one epoch on {IMAGES:,} images"
        accuracy = trace.accuracy(data.test.labels[chosen])
        found += [_row(case, "accuracy in integers", accuracy, "%", trained=how)]
        found += [_row(case, "synops a sample", _synops(trace), "synops")]
        for chip in chips():
            found += [] if chip == "toy" else _on(case, program, trace, load_chip(chip))
    return found


def _synops(trace: Trace) -> float:
    return float(sum(c.synops.sum() for c in trace.counters.values())) / trace.samples


def _row(case: str, metric: str, value: Any, unit: str = "", goal: str = "", **about: Any) -> Row:
    return Row(case, metric, value, unit, goal, COMMAND, 0, {**versions("numpy", "torch"), **about})


def _on(case: str, program: Program, trace: Trace, chip: Chip) -> list[Row]:
    case = f"{case} on {chip.name}"
    standing = load_chip(ELSEWHERE) if chip.limits["cores"].value is None else chip
    try:
        placement = place(program, standing)
    except NeurokdError as error:
        return [_row(case, "does not fit", f"{error.what}; got {error.got}; {error.next_step}")]
    result = profile(program, trace, chip, placement)
    findings = rules.check(program, chip)
    broken = [f.what for f in findings if f.severity == "error"]
    open_questions = sum(f.severity == "note" for f in findings)
    binding = max(placement.cores, key=lambda core: _fullness(core.pair(core.binding))).binding
    on = f" (placed on {standing.name})" if standing is not chip else ""
    found = [_row(case, "cores" + on, len(placement.cores), "cores", binding=binding)]
    for what, value, unit in (("energy", result.energy.mean, "µJ"), ("latency", result.latency.mean, "µs")):
        found.append(_row(case, what, None if value is None else 1e6 * value, unit))
    unsaid = [f"{open_questions} of {len(rules.RULES)} not published"] if open_questions else []
    found.append(_row(case, "formats that differ", "; ".join([*dict.fromkeys(broken), *unsaid]) or "none"))
    return found


def _fullness(pair: tuple[int, int | None]) -> float:
    return pair[0] / pair[1] if pair[1] else 0.0


def report_cost(folder: Path, title: str, run: Run) -> list[Row]:
    """Seconds and bytes of the report of a whole run."""
    render(folder)
    start = time.perf_counter()
    page = render(folder)
    seconds = time.perf_counter() - start
    case = f"report of {title}, {len(run.data.test):,} images"
    return [
        _row(case, "written in", seconds, "s", "<= 10"),
        _row(case, "size", page.stat().st_size / 1e6, "MB", "<= 8"),
    ]


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure and write."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("runs", nargs="*", type=Path)
    parser.add_argument("--quick", help="a data set whose networks are trained for a moment, without a run folder")
    parser.add_argument("--data-root", type=Path, help="folder with the data files, for --quick")
    options = parser.parse_args(arguments)
    for folder in options.runs:
        rows = measure(folder)
        write("chips", rows)
        print(f"{folder}: {len(rows)} rows")
    if options.quick:
        rows = quick(options.quick, options.data_root)
        write("chips", rows)
        print(f"{options.quick}: {len(rows)} rows")
    return 0


if __name__ == "__main__":
    sys.exit(main())
