"""The whole chain of executions, each compared with the next: float student to chip, layer by layer, membranes beside.

    float student -> trained student -> file in floats -> re-read file -> reference -> simulator -> Lava -> netx

Left of the first integers agreement is measured; from there on it must be exact. Every execution gives its traces with
pipeline delays taken out, so step t of one is step t of the next.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterable, Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from deploy import float_model
from deploy import graph as nir
from deploy.chip import Chip
from deploy.errors import UnsupportedNode, VerifyError
from deploy.float_model import FloatTrace
from deploy.lower import lower
from deploy.program import Program
from deploy.reading import Reading
from deploy.spikes import Stimulus, stimulus
from deploy.trace import Trace, by_class
from deploy.verify import RUNNERS, TRAINED, Spikes, Verification, compare, explained, matching, observed

Array = npt.NDArray[Any]
FLOAT: Final = "float student"
WRITTEN: Final = "file in floats"
REREAD: Final = "re-read file"


@dataclass(frozen=True, eq=False)
class Execution:
    """One execution's record.

    Attributes:
        name: See the module's head.
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


@dataclass(frozen=True)
class Place:
    """Where two executions part: earliest step, then first layer, sample, neuron.

    Attributes:
        layer, sample, step, neuron: Where; ``neuron`` is flattened row-major.
        left, right: Spike (or membrane of a readout) of the two.
        left_v, right_v: Their membranes in float units; None where none was recorded.
        threshold: The layer's, in the same units.
    """

    layer: str
    sample: int
    step: int
    neuron: int
    left: float
    right: float
    left_v: float | None
    right_v: float | None
    threshold: float | None

    def __str__(self) -> str:
        left, right, threshold = ("?" if v is None else f"{v:.6g}" for v in (self.left_v, self.right_v, self.threshold))
        return (
            f"layer {self.layer}, sample {self.sample}, step {self.step}, neuron {self.neuron}: {self.left:g} and "
            f"{self.right:g} (membranes {left} and {right}, threshold {threshold})"
        )


@dataclass(frozen=True)
class Pair:
    """Two neighbours of the chain compared.

    Attributes:
        left, right: Names.
        must_be_equal: Both are exact.
        samples: Compared.
        differing, total: Spikes that differ, and spikes there could be, by layer.
        same_answers: Samples given the same class by both.
        first: Where they part first; None where they do not.
    """

    left: str
    right: str
    must_be_equal: bool
    samples: int
    differing: Mapping[str, int]
    total: Mapping[str, int]
    same_answers: int
    first: Place | None

    def agreement(self, layer: str) -> float:
        """Agreeing spikes of a layer in percent."""
        return 100.0 * (1.0 - self.differing[layer] / self.total[layer])


@dataclass(frozen=True, eq=False)
class ChainReport:
    """Everything the chain showed.

    Attributes:
        verification: The exact executions against the base, as :func:`deploy.verify.verify` gives it.
        executions: In order of the chain.
        pairs: Each execution with the next.
        accuracy: In percent by execution; empty without labels.
        notes: What could not be run or compared, and why.
    """

    verification: Verification
    executions: tuple[Execution, ...]
    pairs: tuple[Pair, ...]
    accuracy: Mapping[str, float]
    notes: tuple[str, ...] = ()

    @property
    def equal(self) -> bool:
        """True when everything that must be equal is."""
        return self.verification.equal and not self.broken

    @property
    def broken(self) -> tuple[Pair, ...]:
        """Pairs that must be equal and are not."""
        return tuple(pair for pair in self.pairs if pair.must_be_equal and pair.first is not None)

    def raise_if_different(self) -> ChainReport:
        """Raise :class:`VerifyError` where executions that must be equal differ; give itself back otherwise."""
        self.verification.raise_if_different()
        for pair in self.broken:
            raise VerifyError(
                f"{pair.left} and {pair.right} differ in {sum(pair.differing.values())} spikes",
                where=pair.first,
                got=", ".join(f"{layer}: {n}" for layer, n in pair.differing.items()),
                allowed="0 differing spikes in every layer",
                next_step="the first differing layer is where to look; its inputs agree",
            )
        return self

    def to_json(self) -> dict[str, Any]:
        """The verification's plain data, and ``pairs``, ``accuracy``, ``notes``."""
        pairs = [
            {**asdict(pair), "agreement": {layer: pair.agreement(layer) for layer in pair.total}} for pair in self.pairs
        ]
        plain = {**self.verification.to_json(), "equal": self.equal}
        return {**plain, "pairs": pairs, "accuracy": dict(self.accuracy), "notes": list(self.notes)}

    def __str__(self) -> str:
        lines = [str(self.verification), "", "each execution and the next:"]
        for pair in self.pairs:
            lines.append(f"  {pair.left} -> {pair.right}: {_verdict(pair)}")
            lines += [] if pair.first is None else [f"    they part at {pair.first}"]
        lines += ["accuracy: " + ", ".join(f"{n} {a:.2f} %" for n, a in self.accuracy.items())] if self.accuracy else []
        return "\n".join([*lines, *(f"note: {note}" for note in self.notes)])


def _verdict(pair: Pair) -> str:
    if pair.first is None:
        return f"equal ({pair.samples} samples)"
    layers = ", ".join(f"{layer} {pair.agreement(layer):.3f} %" for layer in pair.total)
    return f"agree in {layers}; {pair.same_answers} of {pair.samples} answers"


def chain(
    source: Program | nir.Graph | str | Path,
    spikes: npt.ArrayLike,
    *,
    against: Iterable[str] = ("reference", "simulator", "lava"),
    float_source: nir.Graph | str | Path | None = None,
    trained: Spikes | None = None,
    labels: npt.NDArray[np.integer] | None = None,
    steps: int | None = None,
    chip: Chip | str = "loihi2",
    how: Reading | str = "euler",
    dt: float | None = None,
    reset: str | None = None,
    input_unit: float = 1.0,
) -> ChainReport:
    """Run every execution there is and compare each with the next.

    Args:
        source: A quantized file or graph, or a program (then nothing can be re-read).
        spikes: Input integers ``[T, B, *shape]`` or ``[B, *shape]``.
        against: Executions to run: ``reference``, ``simulator``, ``lava``, ``netx``.
        float_source: The float network it came from: a file or a graph with as many populations.
        trained: Spikes of the quantized student on the first samples.
        labels: Classes, for the accuracy.
        steps: T of spikes without a time axis.
        chip: For lowering.
        how, dt, reset: How ``float_source`` is read, where it does not say.
        input_unit: Float value of one unit of input in ``float_source`` (1/255 where it saw images as 0..1).

    Raises:
        VerifyError: an unknown execution, or recorded spikes and floats that do not fit the program.
        GraphError, ProgramError, SpikesError, RuleError, LavaMissing, WorkerError: from what runs.
    """
    names = list(dict.fromkeys(against))
    if unknown := [name for name in names if name not in RUNNERS]:
        raise VerifyError("no such execution", got=", ".join(unknown), allowed=", ".join(RUNNERS))
    if not names:
        raise VerifyError("nothing is compared", got="no execution", allowed=", ".join(RUNNERS))
    if trained is None and "reference" not in names:
        names.insert(0, "reference")  # it defines the semantics: the base of every comparison
    graph = nir.read(source) if isinstance(source, (str, Path)) else source
    program = graph if isinstance(graph, Program) else lower(graph, chip)
    given = stimulus(program, spikes, steps)
    runs: list[Execution] = []
    notes: list[str] = []
    if float_source is not None:
        runs.append(floats(FLOAT, _read(float_source, dt, reset), program, given, how, input_unit))
    if trained is not None:
        runs.append(_recorded(program, matching(trained, program, given)))
    if isinstance(graph, nir.Graph):
        runs += [floats(WRITTEN, graph, program, given, "euler", 1.0), _reread(graph, program, given, chip)]
    else:
        notes.append("a program has no file to read again; give the .nir file to compare that too")
    for name in names:
        try:
            runs.append(execution(program, given, name, RUNNERS[name]))
        except UnsupportedNode as error:
            if name != "netx":
                raise
            notes.append(f"netx is left out: {error.what} ({error.where})")
    return _report(program, given, runs, names, labels, notes)


def _report(
    program: Program, given: Stimulus, runs: list[Execution], names: list[str], labels: Any, notes: list[str]
) -> ChainReport:
    exact = [run for run in runs if run.exact]
    base = next(run for name in (TRAINED, "reference") for run in exact if run.name == name)
    others = [run for run in exact if run is not base]
    if not others:
        raise VerifyError("nothing is compared", got=names, allowed="at least two executions on integers")
    comparisons = [compare(program, base.layers, run.name, run.layers, run.trace) for run in others]
    verification = Verification(
        program.digest, base.name, tuple(explained(comparison, program, given) for comparison in comparisons)
    )
    pairs = tuple(pair(left, right) for left, right in zip(runs[:-1], runs[1:], strict=True))
    accuracy = {} if labels is None else {run.name: _accuracy(run, labels) for run in runs}
    if program.population > 1:
        notes = [*notes, f"an answer is one of {program.classes} classes of {program.population} output neurons each"]
    return ChainReport(verification, tuple(runs), pairs, accuracy, tuple(notes))


def _accuracy(run: Execution, labels: Any) -> float:
    return 100.0 * int(np.count_nonzero(run.predictions == labels[: run.samples])) / run.samples


# Executions -------------------------------------------------------------------------------------------------------


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


def _recorded(program: Program, spikes: Spikes) -> Execution:
    out = spikes[program.output.name]
    answers = out.reshape(*out.shape[:2], -1)
    scores = answers.astype(np.int64).sum(axis=0) if program.output.spiking else answers[-1]
    predictions = np.argmax(by_class(scores, program.population), axis=1)
    return Execution(TRAINED, True, spikes, {}, {}, _thresholds(program), predictions)


def _reread(graph: nir.Graph, program: Program, given: Stimulus, chip: Chip | str) -> Execution:
    """The graph written, read, lowered and simulated: what any reader of the file gets."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "again.nir"
        nir.write(graph, path)
        again = lower(nir.read(path, trusted=True), chip)
    return execution(again, given, REREAD, RUNNERS["simulator"])


def _read(source: nir.Graph | str | Path, dt: float | None, reset: str | None) -> nir.Graph:
    return source if isinstance(source, nir.Graph) else nir.read(source, dt=dt, reset=reset)


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


# Pairs ------------------------------------------------------------------------------------------------------------


def pair(left: Execution, right: Execution) -> Pair:
    """Two executions compared on the samples both have; a readout's membranes only where both are exact."""
    samples, exact = min(left.samples, right.samples), left.exact and right.exact
    layers = [n for n in left.layers if n in right.layers and (exact or n in left.threshold)]
    differs = {n: left.layers[n][:, :samples] != right.layers[n][:, :samples] for n in layers}
    return Pair(
        left.name,
        right.name,
        exact,
        samples,
        {name: int(np.count_nonzero(wrong)) for name, wrong in differs.items()},
        {name: int(wrong.size) for name, wrong in differs.items()},
        int(np.count_nonzero(left.predictions[:samples] == right.predictions[:samples])),
        _first(left, right, differs),
    )


def _first(left: Execution, right: Execution, differs: Mapping[str, Array]) -> Place | None:
    found = []
    for depth, (layer, wrong) in enumerate(differs.items()):
        flat = wrong.reshape(*wrong.shape[:2], -1)
        if flat.any():
            step, sample, neuron = (int(n) for n in np.unravel_index(int(np.argmax(flat)), flat.shape))
            found.append((step, depth, sample, neuron, layer))
    if not found:
        return None
    step, _, sample, neuron, layer = min(found)
    threshold = left.threshold.get(layer)
    if threshold is not None:
        threshold = np.asarray(threshold).reshape(-1)
    return Place(
        layer, sample, step, neuron,
        float(left.layers[layer][step, sample].reshape(-1)[neuron]),
        float(right.layers[layer][step, sample].reshape(-1)[neuron]),
        left.membrane(layer, step, sample, neuron), right.membrane(layer, step, sample, neuron),
        None if threshold is None else float(threshold[neuron if threshold.size > 1 else 0]),
    )  # fmt: skip
