"""The whole chain of executions, each compared with the next: float student to chip, layer by layer, membranes beside.

    float student -> trained student -> file in floats -> re-read file -> reference -> simulator -> Lava -> netx

Left of the first integers agreement is measured; from there on it must be exact. Every execution gives its traces with
pipeline delays taken out, so step t of one is step t of the next.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from deploy import graph as nir
from deploy.chip import Chip
from deploy.errors import UnsupportedNode, VerifyError
from deploy.execution_pairs import Pair, paired
from deploy.executions import FLOAT, WRITTEN, Execution, execution, floats, recorded, reread
from deploy.lower import lower
from deploy.program import Program
from deploy.reading import Reading
from deploy.spikes import Stimulus, stimulus
from deploy.verify import RUNNERS, TRAINED, Spikes, Verification, compare, explained, matching


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
        runs.append(recorded(program, matching(trained, program, given)))
    if isinstance(graph, nir.Graph):
        runs += [floats(WRITTEN, graph, program, given, "euler", 1.0), reread(graph, program, given, chip)]
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
    pairs = tuple(paired(left, right) for left, right in zip(runs[:-1], runs[1:], strict=True))
    accuracy = {} if labels is None else {run.name: _accuracy(run, labels) for run in runs}
    if program.population > 1:
        notes = [*notes, f"an answer is one of {program.classes} classes of {program.population} output neurons each"]
    return ChainReport(verification, tuple(runs), pairs, accuracy, tuple(notes))


def _accuracy(run: Execution, labels: Any) -> float:
    return 100.0 * int(np.count_nonzero(run.predictions == labels[: run.samples])) / run.samples


def _read(source: nir.Graph | str | Path, dt: float | None, reset: str | None) -> nir.Graph:
    return source if isinstance(source, nir.Graph) else nir.read(source, dt=dt, reset=reset)
