"""What the report computes itself from a run folder's program and test spikes: answers, confusion, rasters, early exit.

The whole test set runs on the integer simulator once (10,000 images of a small network: under a second); a few samples
run again with every spike recorded, and those go into the page, packed as bits.
"""

from __future__ import annotations

import base64
from pathlib import Path
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from deploy import simulator
from deploy.early_exit import early_exit
from deploy.errors import NeurokdError
from deploy.place import place
from deploy.program import Population, Program
from deploy.runfolder import PROGRAM, Samples, samples_of
from deploy.trace import Trace

SHOWN: Final = 24
WRONG: Final = 8  # of those shown, at most so many that the network got wrong
BYTES: Final = 1_500_000  # of packed spikes in the page
CHIP: Final = "loihi1"


def explore(folder: Path, chip: str = CHIP, placed_on: str | None = None) -> dict[str, Any]:
    """Plain data of a run's test set: ``confusion``, ``exits`` and ``samples`` (see :func:`_samples`).

    Args:
        chip: Whose energies price stopping early.
        placed_on: Chip whose cores the program is placed on; by default the same.

    Raises:
        FileError, SpikesError, ProgramError: ``program.npz`` or ``test_spikes.npz`` is missing or damaged.
    """
    program = Program.load(folder / PROGRAM)
    given = samples_of(folder, None)
    trace = simulator.run(program, given.spikes, steps=given.steps)
    predictions = trace.predictions()
    found: dict[str, Any] = {"count": trace.samples, "steps": trace.steps, "silent": _silent(trace)}
    found["population"] = program.population
    if given.labels is not None and given.labels.shape == predictions.shape:
        found["confusion"] = _confusion(given.labels, predictions, program.classes)
        if program.output.spiking:
            found["exits"] = _exits(program, trace, given.labels, chip, placed_on)
    chosen = _chosen(predictions, given.labels)
    found["samples"] = _samples(program, given, chosen, predictions)
    return found


def _silent(trace: Trace) -> int:
    """Samples no class of which has an output spike: their answer is class 0 by convention, not by evidence."""
    return 0 if trace.membranes is not None else int(np.count_nonzero(trace.scores.sum(axis=1) == 0))


def _exits(program: Program, trace: Any, labels: Any, chip: str, placed_on: str | None) -> dict[str, Any] | None:
    try:
        placement = place(program, placed_on or chip)
        return early_exit(program, trace, labels, chip, placement).to_json()
    except NeurokdError:
        return None


def _confusion(labels: npt.NDArray[Any], predictions: npt.NDArray[np.int64], classes: int) -> list[list[int]]:
    """Counts by right class (rows) and answer (columns)."""
    inside = (labels >= 0) & (labels < classes)
    table = np.zeros((classes, classes), np.int64)
    np.add.at(table, (labels[inside], predictions[inside]), 1)
    return [[int(n) for n in row] for row in table]


def _chosen(predictions: npt.NDArray[np.int64], labels: npt.NDArray[Any] | None) -> npt.NDArray[np.int64]:
    """The first samples, and the first that are wrong."""
    first = np.arange(min(SHOWN - WRONG, len(predictions)))
    if labels is None or labels.shape != predictions.shape:
        return np.arange(min(SHOWN, len(predictions)))
    wrong = np.flatnonzero(predictions != labels)[:WRONG]
    return np.unique(np.concatenate([first, wrong])).astype(np.int64)


def _samples(
    program: Program, given: Samples, chosen: npt.NDArray[np.int64], predictions: npt.NDArray[np.int64]
) -> dict[str, Any]:
    """Input values and every layer's spikes of some samples, base64.

    ``layers``: name, shape and bits packed from ``[S, T, n]``; ``input``: uint8 ``[S, T or 1, n]``; ``output``: number
    of the layer that answers, ``population`` of whose neurons stand for each class; ``spiking``: whether it spikes.
    """
    timed = given.spikes.ndim == len(program.input.shape) + 2
    a_sample = (program.neurons + program.input.size) * (given.steps or len(given.spikes)) // 8 + 1
    chosen = chosen[: max(1, BYTES // a_sample)]
    spikes = given.spikes[:, chosen] if timed else given.spikes[chosen]
    trace = simulator.run(program, spikes, steps=given.steps, record="all")
    values = np.asarray(spikes, np.uint8).reshape(*(spikes.shape[:2] if timed else (1, len(chosen))), -1)
    labels = None if given.labels is None else [int(x) for x in given.labels[chosen]]
    return {
        "index": [int(x) for x in chosen],
        "labels": labels,
        "answers": [int(x) for x in predictions[chosen]],
        "steps": trace.steps,
        "output": [p.name for p in program.populations].index(program.output.name),
        "population": program.population,
        "spiking": program.output.spiking,
        "input": {
            "shape": list(program.input.shape),
            "largest": program.input.largest,
            "frames": len(values),
            "data": _text(values.swapaxes(0, 1)),
        },
        "layers": [_layer(population, trace.spikes[population.name]) for population in program.populations],
    }


def _layer(population: Population, spikes: npt.NDArray[np.uint8]) -> dict[str, Any]:
    ordered = spikes.reshape(*spikes.shape[:2], -1).swapaxes(0, 1)
    return {"name": population.name, "shape": list(population.shape), "bits": _text(np.packbits(ordered.reshape(-1)))}


def _text(array: npt.NDArray[np.uint8]) -> str:
    return base64.b64encode(np.ascontiguousarray(array).tobytes()).decode("ascii")
