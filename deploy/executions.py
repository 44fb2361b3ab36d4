"""What a network does, run one way: in floats, on integers, or as a student recorded it; layer by layer."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from deploy import float_model
from deploy import graph as nir
from deploy.chip import Chip
from deploy.errors import VerifyError
from deploy.float_model import FloatTrace
from deploy.lower import lower
from deploy.program import Program
from deploy.reading import Reading
from deploy.spikes import Stimulus
from deploy.trace import Trace, by_class
from deploy.verify import RUNNERS, TRAINED, Spikes, observed

Array = npt.NDArray[Any]
FLOAT: Final = "float student"
WRITTEN: Final = "file in floats"
REREAD: Final = "re-read file"


@dataclass(frozen=True, eq=False)
class Execution:
    """One execution's record.

    Attributes:
        name: See :mod:`deploy.verify_chain`.
        exact: It computes the chip's integers, so it must equal every other exact one.
        layers: Spikes (membranes of a readout, in the chip's integers where exact) by population, ``[T, B, *shape]``.
        v: Membranes after each step in float units of the network, by population; empty where none were recorded.
        charged: Membranes before the reset, likewise.
        threshold: Thresholds in the same units, ``[*shape]`` or one number.
        predictions: Class of each sample.
        trace: What the backend gave, if one ran.
    """

    name: str
    exact: bool
    layers: Mapping[str, Array]
    v: Mapping[str, Array]
    charged: Mapping[str, Array]
    threshold: Mapping[str, Array]
    predictions: Array
    trace: Trace | None = None

    @property
    def samples(self) -> int:
        """Samples it ran."""
        return len(self.predictions)

    def membrane(self, layer: str, step: int, sample: int, neuron: int) -> float | None:
        """What met the threshold (or, where only that was recorded, what the step left), in float units."""
        record = self.charged.get(layer, self.v.get(layer))
        return None if record is None else float(record[step, sample].reshape(-1)[neuron])


def execution(program: Program, given: Stimulus, name: str, runner: Callable[[Program, Any, int], Trace]) -> Execution:
    """An execution on integers, its membranes in float units."""
    values = given.values.reshape(-1, given.samples, *program.input.shape)
    trace = runner(program, values[0] if given.constant else values, given.steps)
    units = {p.name: (p.scale or 1.0) / 64 for p in program.populations}
    v = {name: array * units[name] for name, array in trace.v.items()}
    return Execution(
        name, True, observed(program, trace), v, {}, _thresholds(program), trace.predictions(), trace
    )  # fmt: skip


def _thresholds(program: Program) -> dict[str, Array]:
    return {p.name: np.asarray(p.vth * (p.scale or 1.0)) for p in program.populations if p.spiking}


def recorded(program: Program, spikes: Spikes) -> Execution:
    out = spikes[program.output.name]
    answers = out.reshape(*out.shape[:2], -1)
    scores = answers.astype(np.int64).sum(axis=0) if program.output.spiking else answers[-1]
    predictions = np.argmax(by_class(scores, program.population), axis=1)
    return Execution(TRAINED, True, spikes, {}, {}, _thresholds(program), predictions)


def reread(graph: nir.Graph, program: Program, given: Stimulus, chip: Chip | str) -> Execution:
    """The graph written, read, lowered and simulated: what any reader of the file gets."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "again.nir"
        nir.write(graph, path)
        again = lower(nir.read(path, trusted=True), chip)
    return execution(again, given, REREAD, RUNNERS["simulator"])


def floats(
    name: str, graph: nir.Graph, program: Program, given: Stimulus, how: Reading | str, unit: float
) -> Execution:
    """The float network (the quantized file's floats, too), its populations by the program's names.

    Where its file does not say how many output neurons a class has, the program does.

    Raises:
        VerifyError: it has other populations, or another number of neurons a class. SpikesError, SimulatorError: from
            the run.
    """
    stated = graph.settings.population or program.population
    if stated != program.population:
        raise VerifyError(
            "the float network has another number of output neurons a class than the program",
            got=stated, allowed=program.population, next_step="give the float network that was quantized",
        )  # fmt: skip
    values = given.values.reshape(-1, given.samples, *program.input.shape) * unit
    trace = float_model.run(graph, values[0] if given.constant else values, steps=given.steps, how=how)
    renamed = _named(trace, program)
    trace = replace(trace, population=program.population)
    layers = {ours: trace.outputs[theirs] for ours, theirs in renamed.items()}
    return Execution(
        name, False, layers, {ours: trace.v[theirs] for ours, theirs in renamed.items()},
        {ours: trace.charged[theirs] for ours, theirs in renamed.items()},
        {ours: trace.threshold[theirs] for ours, theirs in renamed.items() if theirs in trace.threshold},
        trace.predictions(),
    )  # fmt: skip


def _named(trace: FloatTrace, program: Program) -> dict[str, str]:
    """The float network's population for each of the program's: by name, or in order where the names differ."""
    ours = [p.name for p in program.populations]
    theirs = list(trace.v)
    names = dict(zip(ours, ours if set(ours) <= set(theirs) else theirs, strict=False))
    fits = len(names) == len(ours) and (set(ours) <= set(theirs) or len(theirs) == len(ours))
    wrong = [n for n in names if trace.v[names[n]].shape[2:] != program.node(n).shape] if fits else []
    if not fits or wrong:
        got = {n: trace.v[n].shape[2:] for n in theirs}
        raise VerifyError(
            "the float network's populations are not the program's",
            got=", ".join(f"{name} {shape}" for name, shape in got.items()),
            allowed=", ".join(f"{p.name} {p.shape}" for p in program.populations),
            next_step="give the float network that was quantized",
        )
    return names
