"""Teacher, assistant and student beside an ANN of each one's shape: what compression gains, in one table.

Every network is put into the chip's integers without fine-tuning (the student is taken as it was fine-tuned), lowered,
placed, and run on test images spread over the set. The report shows the table from ``networks.json``.
"""

from __future__ import annotations

from typing import Any, Final

import numpy as np

from deploy import simulator
from deploy.chip import load_chip
from deploy.errors import NeurokdError
from deploy.files import write_json
from deploy.lower import lower
from deploy.neurobench import connections
from deploy.place import place
from deploy.profile import profile
from deploy.program import Program
from deploy.runfolder import PROGRAM
from neurokd.energy import ENERGY_CHIP
from neurokd.export import to_graph
from neurokd.pipeline import Facts, Run
from neurokd.rounding import to_integers

NAME: Final = "networks.json"
SAMPLES: Final = 1000
FLOATS: Final = ("teacher", "assistant", "student_plain")
ARITHMETIC: Final = "arithmetic45nm"
PICO: Final = 1e-12


def write(run: Run) -> Facts:
    """Compute the table of a run and write ``networks.json`` into its folder."""
    count = min(SAMPLES, len(run.data.test))
    found = [_entry(run, name, count) for name in (*FLOATS, "quantized") if run.done(name)]
    facts: Facts = {"chip": ENERGY_CHIP, "placed_on": run.config.chip, "samples": count, "networks": found}
    write_json(run.folder / NAME, facts)
    return facts


def _entry(run: Run, name: str, count: int) -> dict[str, Any]:
    facts = run.facts("student" if name == "quantized" else name)
    entry: dict[str, Any] = {"name": name, "spec": facts["spec"], "parameters": facts["parameters"]}
    try:
        program = _program(run, name)
        return {**entry, **figures(program, run, count)}
    except NeurokdError as error:  # a teacher need not fit the chip its student is made for
        empty = dict.fromkeys(FIGURES)
        return {**entry, **empty, "accuracy": facts["accuracy"], "refused": error.what}


FIGURES: Final = (
    "accuracy", "cores", "spikes", "synops", "energy_J", "latency_s", "ann_macs", "ann_energy_J", "ac_energy_J",
)  # fmt: skip


def _program(run: Run, name: str) -> Program:
    if name == "quantized":
        return Program.load(run.folder / PROGRAM)
    return lower(to_graph(to_integers(run.network(name), run.config.chip)), run.config.chip)


def figures(program: Program, run: Run, count: int) -> dict[str, Any]:
    """Counts of a program on test images spread over the set, and what they cost; the keys are :data:`FIGURES`."""
    chosen = np.arange(0, len(run.data.test), max(1, len(run.data.test) // count))[:count]  # a copy may be sorted
    images, labels = run.data.test.images[chosen], run.data.test.labels[chosen]
    spikes = run.encoding.encode(images, chosen)
    lead = spikes.shape[:1] if run.encoding.kind == "direct" else spikes.shape[:2]
    steps = run.encoding.steps
    trace = simulator.run(program, spikes.reshape(*lead, *program.input.shape), steps=steps)
    placement = place(program, run.config.chip)
    result = profile(program, trace, ENERGY_CHIP, placement)
    arithmetic = load_chip(ARITHMETIC).energy
    macs = connections(program)
    synops = result.synops.mean or 0.0
    return {
        "accuracy": trace.accuracy(labels),
        "cores": len(placement.cores),
        "spikes": result.spikes.mean,
        "synops": synops,
        "energy_J": result.energy.mean,
        "latency_s": result.latency.mean,
        "ann_macs": macs,
        "ann_energy_J": macs * arithmetic.mac * PICO,
        "ac_energy_J": (synops * arithmetic.synop + program.neurons * steps * arithmetic.neuron_active) * PICO,
    }
