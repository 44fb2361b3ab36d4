"""The one result type of every backend: recorded spikes, optional state, exact counters."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt

from deploy.errors import SimulatorError
from deploy.records import Record, joined

Spikes = npt.NDArray[np.uint8]
State = npt.NDArray[np.int32]
Counts = npt.NDArray[np.int64]


@dataclass(frozen=True, eq=False)
class Counter:
    """What one population did, counted exactly. Arrays are ``[T, B]``: step by sample.

    Attributes:
        neurons: Size of the population; every neuron is updated once a step.
        spikes: Spikes it sent.
        synops: Synaptic operations at its input: for each event of a source, the nonzero weights it meets.
        active: Neurons whose u or v was not zero after the update (before the reset).
        wraps: Times the current left 24 bits and wrapped; each one is a fault waiting to happen.
        saturations: Times the membrane was clipped at ±(2^23 - 1).
    """

    neurons: int
    spikes: Counts
    synops: Counts
    active: Counts
    wraps: Counts
    saturations: Counts


@dataclass(frozen=True, eq=False)
class Trace:
    """What a backend saw.

    Attributes:
        backend: ``reference``, ``simulator`` or ``lava``.
        program: Digest of the program that ran.
        output: Name of the output population.
        counts: int64 ``[B, N]``: spikes of each output neuron over all steps.
        membranes: int64 ``[B, N]``: v of each output neuron after the last step, where the output does not spike; None
            where it does.
        input_events: int64 ``[T, B]``: nonzero inputs.
        counters: One :class:`Counter` a population; empty when the backend cannot count.
        spikes: Recorded spikes ``[T, B, *shape]`` uint8, by population; always holds the output unless told not to.
        packed: Recorded spikes as :class:`~deploy.records.Bits` or :class:`~deploy.records.Events`, by population, of a
            run that was asked for these instead (``spikes`` is empty then).
        u, v: Recorded current and membrane (after reset) int32 ``[T, B, *shape]``, by population.
        population: Output neurons a class; neuron ``n`` belongs to class ``n // population``.
    """

    backend: str
    program: str
    output: str
    counts: Counts
    input_events: Counts
    counters: Mapping[str, Counter] = field(default_factory=dict)
    spikes: Mapping[str, Spikes] = field(default_factory=dict)
    u: Mapping[str, State] = field(default_factory=dict)
    v: Mapping[str, State] = field(default_factory=dict)
    membranes: Counts | None = None
    packed: Mapping[str, Record] = field(default_factory=dict)
    population: int = 1

    @property
    def steps(self) -> int:
        """Time steps T a sample lasted."""
        return int(self.input_events.shape[0])

    @property
    def samples(self) -> int:
        """Number of samples B."""
        return int(self.input_events.shape[1])

    @property
    def sat(self) -> Spikes:
        """The spiking activation tensor: the output's spikes ``[T, B, *shape]``.

        Raises:
            SimulatorError: the output was not recorded.
        """
        if self.output in self.packed:
            return self.packed[self.output].dense()
        if self.output not in self.spikes:
            raise SimulatorError(
                "the output's spikes were not recorded",
                where=self.output,
                got=sorted(self.spikes),
                allowed="a run that records the output",
                next_step="run with record=('output',) or record='all'",
            )
        return self.spikes[self.output]

    @property
    def scores(self) -> Counts:
        """The answer, int64 ``[B, classes]``: output spikes (membranes of a readout) of each class's neurons, added up.

        Raises:
            SimulatorError: the output's neurons cannot be shared out among classes.
        """
        return by_class(self.counts if self.membranes is None else self.membranes, self.population)

    def predictions(self) -> Counts:
        """Class of each sample, int64 ``[B]``: the one of the highest score, ties to the lowest class."""
        best: Counts = np.argmax(self.scores, axis=1).astype(np.int64)
        return best

    def accuracy(self, labels: npt.NDArray[np.integer]) -> float:
        """Share of right answers in percent.

        Raises:
            SimulatorError: as many labels as samples are needed.
        """
        if np.shape(labels) != (self.samples,):
            raise SimulatorError("labels do not match the run", got=np.shape(labels), allowed=(self.samples,))
        return 100.0 * int(np.count_nonzero(self.predictions() == labels)) / self.samples

    @property
    def wraps(self) -> int:
        """Total wraps of any current: not zero means the network's sums are too large for the chip."""
        return sum(int(counter.wraps.sum()) for counter in self.counters.values())

    @property
    def saturations(self) -> int:
        """Total saturations of any membrane."""
        return sum(int(counter.saturations.sum()) for counter in self.counters.values())


def by_class(answers: npt.NDArray[Any], population: int) -> npt.NDArray[Any]:
    """Sums over each class's neurons: ``[..., N]`` to ``[..., N // population]``; neuron n is of class n // population.

    Raises:
        SimulatorError: ``population`` is no whole number above 0 that divides N.
    """
    size = answers.shape[-1]
    whole = isinstance(population, (int, np.integer)) and not isinstance(population, bool) and population >= 1
    if not whole or size % population:
        raise SimulatorError(
            "the output's neurons cannot be shared out among classes",
            where="population",
            got=f"{size} neurons, population {population!r}",
            allowed=f"a divisor of {size}",
        )
    if population == 1:
        return answers
    added: npt.NDArray[Any] = answers.reshape(*answers.shape[:-1], size // population, population).sum(axis=-1)
    return added


def concatenate(parts: list[Trace]) -> Trace:
    """Join runs of the same program over different samples, in order.

    Raises:
        SimulatorError: no parts, or parts of different programs.
    """
    if not parts or len({(p.program, p.backend, p.steps, p.population) for p in parts}) != 1:
        raise SimulatorError(
            "only runs of one program on one backend can be joined", got=len(parts), allowed="1 or more"
        )
    first = parts[0]
    return Trace(
        backend=first.backend,
        program=first.program,
        output=first.output,
        counts=np.concatenate([p.counts for p in parts]),
        input_events=np.concatenate([p.input_events for p in parts], axis=1),
        counters={name: _join_counters([p.counters[name] for p in parts]) for name in first.counters},
        spikes={name: np.concatenate([p.spikes[name] for p in parts], axis=1) for name in first.spikes},
        u={name: np.concatenate([p.u[name] for p in parts], axis=1) for name in first.u},
        v={name: np.concatenate([p.v[name] for p in parts], axis=1) for name in first.v},
        membranes=None if first.membranes is None else np.concatenate([_membranes(p) for p in parts]),
        packed={name: joined([p.packed[name] for p in parts]) for name in first.packed},
        population=first.population,
    )


def _membranes(part: Trace) -> Counts:
    assert part.membranes is not None, "runs of one program all have membranes or none has"
    return part.membranes


def _join_counters(parts: list[Counter]) -> Counter:
    return Counter(
        neurons=parts[0].neurons,
        spikes=np.concatenate([p.spikes for p in parts], axis=1),
        synops=np.concatenate([p.synops for p in parts], axis=1),
        active=np.concatenate([p.active for p in parts], axis=1),
        wraps=np.concatenate([p.wraps for p in parts], axis=1),
        saturations=np.concatenate([p.saturations for p in parts], axis=1),
    )
