"""The proof of equality: the same spikes in every execution, compared by layer, sample, step and neuron.

Where the quantized student's own spikes are at hand, everything is compared with them: what was trained. Otherwise the
reference interpreter, which defines the semantics, is the base. The first difference is named with its membranes. Of a
readout, which does not spike, the membranes of every step are compared in place of spikes.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from deploy import graph as nir
from deploy import reference, simulator
from deploy.chip import Chip
from deploy.errors import VerifyError
from deploy.lower import lower
from deploy.program import Population, Program
from deploy.spikes import Stimulus, stimulus
from deploy.trace import Trace

Spikes = Mapping[str, npt.NDArray[Any]]
Runner = Callable[[Program, npt.NDArray[Any], int], Trace]
TRAINED: Final = "trained student"


@dataclass(frozen=True)
class Difference:
    """The first spike (or membrane of a readout) that differs: earliest step, then first layer, sample, neuron.

    Attributes:
        layer, sample, step, neuron: Where; ``neuron`` is flattened row-major.
        expected, got: Spike (or membrane) of the base and of the other execution.
        expected_v: Membrane after the step (int32, 24-bit) by the reference interpreter.
        got_v: That of the other execution, None where it recorded none.
        vth: The layer's threshold, ``vth << 6``.
    """

    layer: str
    sample: int
    step: int
    neuron: int
    expected: int
    got: int
    expected_v: int | None
    got_v: int | None
    vth: int

    def __str__(self) -> str:
        expected, got = ("?" if v is None else v for v in (self.expected_v, self.got_v))
        return (
            f"layer {self.layer}, sample {self.sample}, step {self.step}, neuron {self.neuron}: "
            f"{self.got} instead of {self.expected} (v after the step {got} instead of {expected}, "
            f"threshold {self.vth})"
        )


@dataclass(frozen=True)
class Comparison:
    """One execution against the base.

    Attributes:
        name: The execution: ``reference``, ``simulator``, ``lava``, or a recorded one's name.
        samples, steps: What was compared.
        spikes: Spikes of the base, in all compared layers.
        differing: Differing spikes, by layer.
        first: The first difference, if any.
    """

    name: str
    samples: int
    steps: int
    spikes: int
    differing: Mapping[str, int]
    first: Difference | None

    @property
    def differing_spikes(self) -> int:
        """Differing spikes over all layers."""
        return sum(self.differing.values())

    def __str__(self) -> str:
        verdict = "equal" if self.first is None else f"{self.differing_spikes} spikes differ; first: {self.first}"
        return f"{self.name}: {self.samples} samples x {self.steps} steps, {self.spikes} spikes: {verdict}"


@dataclass(frozen=True)
class Verification:
    """Every comparison made of one program; ``base`` is what the others were compared with."""

    program: str
    base: str
    comparisons: tuple[Comparison, ...]

    @property
    def equal(self) -> bool:
        """True when no comparison found a difference."""
        return all(c.first is None for c in self.comparisons)

    def comparison(self, name: str) -> Comparison:
        """The comparison of that execution.

        Raises:
            VerifyError: it was not compared.
        """
        for comparison in self.comparisons:
            if comparison.name == name:
                return comparison
        names = ", ".join(c.name for c in self.comparisons)
        raise VerifyError("this execution was not compared", got=name, allowed=names)

    def raise_if_different(self) -> Verification:
        """Raise :class:`VerifyError` on any difference; give itself back otherwise."""
        broken = [c for c in self.comparisons if c.first is not None]
        if broken:
            raise VerifyError(
                "; ".join(f"{c.name} differs in {c.differing_spikes} spikes" for c in broken),
                where=broken[0].first,
                got=", ".join(f"{layer}: {n}" for layer, n in broken[0].differing.items()),
                allowed="0 differing spikes in every layer",
                next_step="the first differing layer is where to look; its inputs agree",
            )
        return self

    def to_json(self) -> dict[str, Any]:
        """Plain data: ``program``, ``equal`` and one entry a comparison."""
        return {
            "program": self.program,
            "base": self.base,
            "equal": self.equal,
            "comparisons": [_entry(comparison) for comparison in self.comparisons],
        }

    def __str__(self) -> str:
        return "\n".join([f"compared with {self.base}", *(str(c) for c in self.comparisons)])


def _entry(comparison: Comparison) -> dict[str, Any]:
    plain = asdict(comparison)
    first = plain.pop("first")
    return {**plain, "differing_spikes": comparison.differing_spikes, "first_difference": first}


def _by_reference(program: Program, spikes: npt.NDArray[Any], steps: int) -> Trace:
    return reference.run(program, spikes, steps=steps)


def _by_simulator(program: Program, spikes: npt.NDArray[Any], steps: int) -> Trace:
    return simulator.run(program, spikes, steps=steps, record="all", record_state="all")


def _by_lava(program: Program, spikes: npt.NDArray[Any], steps: int) -> Trace:
    from deploy.loihi.client import run_lava

    return run_lava(program, spikes, steps=steps, record="all", record_state="all")


def _by_netx(program: Program, spikes: npt.NDArray[Any], steps: int) -> Trace:
    from deploy.loihi.netx_run import run_netx

    return run_netx(program, spikes, steps=steps)


RUNNERS: Final[dict[str, Runner]] = {
    "reference": _by_reference, "simulator": _by_simulator, "lava": _by_lava, "netx": _by_netx,
}  # fmt: skip


def verify(
    source: Program | nir.Graph | str | Path,
    spikes: npt.ArrayLike,
    *,
    against: Iterable[str] = ("reference", "simulator", "lava"),
    trained: Spikes | None = None,
    recorded: Mapping[str, Spikes] | None = None,
    samples: Mapping[str, int] | None = None,
    steps: int | None = None,
    chip: Chip | str = "loihi2",
) -> Verification:
    """Compare executions of one network with each other.

    Args:
        source: A program, or what :func:`deploy.lower.lower` takes.
        spikes: Input integers ``[T, B, *shape]`` or ``[B, *shape]``.
        against: Executions to compare: ``reference``, ``simulator``, ``lava``, ``netx``.
        trained: Spikes of the quantized student on the first samples, ``{layer: [T, B, *shape]}`` (v, in the chip's
            integers, of a readout): the base. Without them the reference is the base.
        recorded: Further executions by name, of the same form.
        samples: How many of the samples an execution runs, by name (the reference and Lava are slow); default all.

    Raises:
        VerifyError: an unknown execution, none at all, or recorded spikes of other layers or shapes.
        GraphError, ProgramError, SpikesError, RuleError: from lowering and from the input.
        LavaMissing, WorkerError: from Lava.
    """
    names = list(dict.fromkeys(against))
    unknown = [name for name in (*names, *(samples or {})) if name not in RUNNERS]
    if unknown:
        raise VerifyError("no such execution", got=", ".join(unknown), allowed=", ".join(RUNNERS))
    program = source if isinstance(source, Program) else lower(source, chip)
    given = stimulus(program, spikes, steps)
    if trained is None:
        base = _run("reference", program, given, samples)
        base_name, base_spikes = "reference", observed(program, base)
        names = [name for name in names if name != "reference"]
    else:
        base_name, base_spikes = TRAINED, matching(trained, program, given)
    comparisons = [
        compare(program, base_spikes, name, matching(other, program, given)) for name, other in (recorded or {}).items()
    ]
    if not names and not comparisons:
        raise VerifyError("nothing is compared", got=list(against), allowed=f"an execution beside the {base_name}")
    for name in names:
        trace = _run(name, program, given, samples)
        comparisons.append(compare(program, base_spikes, name, observed(program, trace), trace))
    return Verification(program.digest, base_name, tuple(explained(c, program, given) for c in comparisons))


def explained(comparison: Comparison, program: Program, given: Stimulus) -> Comparison:
    """The comparison with the reference's membrane at the first difference, found by interpreting that one sample."""
    first = comparison.first
    if first is None:
        return comparison
    alone = given.part(first.sample, first.sample + 1)
    values = alone.values.reshape(-1, 1, *program.input.shape)
    truth = reference.run(program, values[0] if alone.constant else values, steps=alone.steps)
    membrane = int(truth.v[first.layer][first.step, 0].reshape(-1)[first.neuron])
    return replace(comparison, first=replace(first, expected_v=membrane))


def _run(name: str, program: Program, given: Stimulus, samples: Mapping[str, int] | None) -> Trace:
    part = given.part(0, (samples or {}).get(name, given.samples))
    values = part.values.reshape(-1, part.samples, *program.input.shape)
    return RUNNERS[name](program, values[0] if part.constant else values, part.steps)


def observed(program: Program, trace: Trace) -> Spikes:
    """What is compared of each population: its spikes, or v where it does not spike."""
    return {p.name: trace.spikes[p.name] if p.spiking else trace.v[p.name] for p in program.populations}


def matching(other: Spikes, program: Program, given: Stimulus) -> Spikes:
    """Recorded spikes as they are, checked against the program's layers and shapes.

    Raises:
        VerifyError: other layers or shapes.
    """
    layers = [p.name for p in program.populations]
    if sorted(other) != sorted(layers):
        raise VerifyError("the recorded layers are not the program's", got=sorted(other), allowed=sorted(layers))
    for population in program.populations:
        shape = other[population.name].shape
        allowed = (given.steps, f"1..{given.samples}", *population.shape)
        if shape[0] != given.steps or shape[2:] != population.shape or not 1 <= shape[1] <= given.samples:
            raise VerifyError("recorded spikes have another shape", where=population.name, got=shape, allowed=allowed)
    return other


def compare(program: Program, base: Spikes, name: str, got: Spikes, trace: Trace | None = None) -> Comparison:
    """Compare the spikes of two executions on the samples both have; ``trace`` supplies membranes."""
    samples = min(got[program.output.name].shape[1], base[program.output.name].shape[1])
    differs = {p.name: base[p.name][:, :samples] != got[p.name][:, :samples] for p in program.populations}
    return Comparison(
        name=name,
        samples=samples,
        steps=base[program.output.name].shape[0],
        spikes=sum(int(np.count_nonzero(base[p.name][:, :samples])) for p in program.populations if p.spiking),
        differing={layer: int(np.count_nonzero(wrong)) for layer, wrong in differs.items()},
        first=_first(program, base, got, differs, trace),
    )


def _first(
    program: Program, base: Spikes, got: Spikes, differs: Mapping[str, npt.NDArray[Any]], trace: Trace | None
) -> Difference | None:
    found: list[tuple[int, int, int, int, Population]] = []
    for depth, population in enumerate(program.populations):
        wrong = differs[population.name].reshape(*differs[population.name].shape[:2], -1)
        if wrong.any():
            step, sample, neuron = (int(n) for n in np.unravel_index(int(np.argmax(wrong)), wrong.shape))
            found.append((step, depth, sample, neuron, population))
    if not found:
        return None
    step, _, sample, neuron, population = min(found, key=lambda place: place[:4])
    layer = population.name

    def at(record: Mapping[str, npt.NDArray[Any]]) -> int | None:
        return int(record[layer][step, sample].reshape(-1)[neuron]) if layer in record else None

    return Difference(
        layer, sample, step, neuron,
        expected=at(base) or 0, got=at(got) or 0, expected_v=None, got_v=None if trace is None else at(trace.v),
        vth=population.vth << 6,
    )  # fmt: skip
