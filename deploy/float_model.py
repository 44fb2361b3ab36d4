"""What a NIR graph says, in floats: any graph, quantized or not, on numpy alone.

Event order: at each step every node is computed once, in the graph's topological order; an edge that closes a cycle
carries what its source gave at the step before. At step 0 such an edge carries what its source gives while nothing has
spiked yet (a recurrent layer's bias acts from the first step, as in snntorch, unless the reading says otherwise). A
Delay hands on zeros until its time. The time step is the graph's ``dt``; how equations become steps is a
:class:`~deploy.reading.Reading`. All in float64.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from deploy import graph as nir
from deploy.errors import GraphError, SimulatorError, SpikesError
from deploy.float_neurons import Cells
from deploy.float_nodes import apply
from deploy.reading import Reading, reading
from deploy.trace import by_class

Float = npt.NDArray[np.float64]
Watch = Callable[[nir.Node, Float], None]
MAX_ELEMENTS: Final = 2**28
"""Largest record, in numbers: 2 GB of float64."""


@dataclass(frozen=True, eq=False)
class FloatTrace:
    """What a float execution saw.

    Attributes:
        output: Name of the node that feeds the (first) Output.
        spiking: Names of the populations that spike.
        outputs: What each recorded node gave, float64 ``[T, B, *shape]``: spikes, or membranes of readouts.
        v: Membranes after each step, of neurons.
        charged: Membranes before the reset, which met the threshold.
        threshold: Of each spiking population, its shape.
        reading: How equations became steps.
        population: Output neurons a class; neuron ``n`` belongs to class ``n // population``.
    """

    output: str
    spiking: tuple[str, ...]
    outputs: Mapping[str, Float]
    v: Mapping[str, Float]
    charged: Mapping[str, Float]
    threshold: Mapping[str, Float]
    reading: Reading
    population: int = 1

    @property
    def steps(self) -> int:
        """Time steps T."""
        return int(self.outputs[self.output].shape[0])

    @property
    def samples(self) -> int:
        """Samples B."""
        return int(self.outputs[self.output].shape[1])

    @property
    def scores(self) -> Float:
        """The answer, float64 ``[B, classes]``: spikes (last membranes of a readout) of each class's neurons, added up.

        Raises:
            SimulatorError: the output's neurons cannot be shared out among classes.
        """
        given = self.outputs[self.output].reshape(self.steps, self.samples, -1)
        answers = given[-1] if self.output in self.v and self.output not in self.spiking else given.sum(axis=0)
        return by_class(answers, self.population)

    def predictions(self) -> npt.NDArray[np.int64]:
        """Class of each sample, int64 ``[B]``: the one of the highest score, ties to the lowest class."""
        best: npt.NDArray[np.int64] = np.argmax(self.scores, axis=1).astype(np.int64)
        return best

    def accuracy(self, labels: npt.NDArray[np.integer]) -> float:
        """Share of right answers in percent.

        Raises:
            SimulatorError: as many labels as samples are needed.
        """
        if np.shape(labels) != (self.samples,):
            raise SimulatorError("labels do not match the run", got=np.shape(labels), allowed=(self.samples,))
        return 100.0 * int(np.count_nonzero(self.predictions() == labels)) / self.samples


def run(
    source: nir.Graph | str | Path,
    spikes: npt.ArrayLike | Mapping[str, npt.ArrayLike],
    *,
    steps: int | None = None,
    how: Reading | str = "euler",
    dt: float | None = None,
    reset: str | None = None,
    watch: Watch | None = None,
) -> FloatTrace:
    """Run a graph in floats.

    Args:
        source: A graph, or a ``.nir`` file.
        spikes: Numbers ``[T, B, *shape]`` or ``[B, *shape]`` (the same at every one of ``steps`` steps); by the name of
            the Input where there are several.
        steps: For the second form; default: what the file says.
        how: A :class:`Reading`, or the name of one (:data:`deploy.reading.READINGS`).
        dt, reset: Where a file does not say.
        watch: Called at each step with every node that is no Input and what arrives at it, float64 ``[B, *shape]``.

    Raises:
        GraphError: the file cannot be read, a loop has no neuron in it, or a delay is no whole number of steps.
        SpikesError: the input does not fit.
        SimulatorError: the record would be larger than 2 GB.
    """
    graph = source if isinstance(source, nir.Graph) else nir.read(source, dt=dt, reset=reset)
    entering = _entering(graph, spikes, steps)
    network = _Network(graph, reading(how), next(iter(entering.values())).shape[1], watch)
    count = next(iter(entering.values())).shape[0]
    network.reserve(count)
    for step in range(count):
        network.step({name: values[step] for name, values in entering.items()}, step)
    return network.trace()


class _Network:
    """Every node ready to be stepped, and what has been recorded."""

    def __init__(self, graph: nir.Graph, how: Reading, samples: int, watch: Watch | None) -> None:
        self._graph, self._how, self._samples, self._watch = graph, how, samples, watch
        self._cells: dict[str, Cells] = {}
        self._delays: dict[str, _Line] = {}
        for node in graph.nodes:
            if isinstance(node, nir.Neuron):
                assert graph.dt is not None, "a graph with neurons has a time step"
                self._cells[node.name] = Cells(node, graph.dt, graph.reset, how, samples)
            elif isinstance(node, nir.Delay):
                self._delays[node.name] = _Line(node, delay_steps(graph, node, samples), samples)
        self._fed_back = {source for source, _ in graph.recurrent}
        self._before = self._silent() if graph.recurrent else {}
        self._recorded = [*self._cells, *(n.name for n in graph.nodes if isinstance(n, nir.Threshold))]
        answering = dict.fromkeys(name for out in graph.outputs for name in graph.sources(out.name))
        self._recorded += [name for name in answering if name not in self._recorded]

    def _silent(self) -> dict[str, Float]:
        """What the sources of recurrent edges give while neurons and inputs are silent."""
        if self._how.loops == "second step":
            return {n: np.zeros((self._samples, *self._graph.output_shape(n))) for n in self._fed_back}
        found: dict[str, Float] = {}
        for name in stateless_last(self._graph):
            node = self._graph.node(name)
            if isinstance(node, (nir.Neuron, nir.Delay, nir.Input)):
                found[name] = np.zeros((self._samples, *self._graph.output_shape(name)))
            else:
                found[name] = apply(node, sum((found[s] for s in self._graph.sources(name)), start=np.zeros(1)))
        return {name: found[name] for name in self._fed_back}

    def reserve(self, steps: int) -> None:
        """Make room for a record of ``steps`` steps."""
        size = sum(math.prod(self._graph.output_shape(n)) * (3 if n in self._cells else 1) for n in self._recorded)
        if steps * self._samples * size > MAX_ELEMENTS:
            raise SimulatorError(
                "the record of a float run would be too large",
                got=f"{steps} steps x {self._samples} samples x {size} numbers",
                allowed=f"{MAX_ELEMENTS} numbers (2 GB)",
                next_step="run fewer samples at a time",
            )

        def room(name: str) -> Float:
            return np.zeros((steps, self._samples, *self._graph.output_shape(name)))

        self._outputs = {name: room(name) for name in self._recorded}
        self._v = {name: room(name) for name in self._cells}
        self._charged = {name: room(name) for name in self._cells}

    def step(self, entering: Mapping[str, Float], step: int) -> None:
        """One step of the whole network."""
        given: dict[str, Float] = {}
        for node in self._graph.nodes:
            given[node.name] = self._node(node, entering, given)
        self._before = {name: given[name] for name in self._fed_back}
        for line in self._delays.values():
            line.push()
        for name in self._recorded:
            self._outputs[name][step] = given[name]
        for name, cells in self._cells.items():
            self._v[name][step], self._charged[name][step] = cells.v, cells.charged

    def _node(self, node: nir.Node, entering: Mapping[str, Float], given: Mapping[str, Float]) -> Float:
        if isinstance(node, nir.Input):
            return entering[node.name]
        parts = [
            self._before[source] if (source, node.name) in self._graph.recurrent else given[source]
            for source in self._graph.sources(node.name)
        ]
        x: Float = sum(parts[1:], start=parts[0])
        if self._watch is not None:
            self._watch(node, x)
        if node.name in self._cells:
            return self._cells[node.name].step(x)
        return self._delays[node.name].through(x) if node.name in self._delays else apply(node, x)

    def trace(self) -> FloatTrace:
        """What was recorded."""
        spiking = tuple(name for name, cells in self._cells.items() if cells.spiking)
        thresholds = {
            name: cells.parameters.threshold
            for name, cells in self._cells.items()
            if cells.parameters.threshold is not None
        }
        output = self._graph.sources(self._graph.outputs[0].name)[0]
        each = self._graph.settings.population or 1
        return FloatTrace(output, spiking, self._outputs, self._v, self._charged, thresholds, self._how, each)


class _Line:
    """A delay line: each element a whole number of steps late."""

    def __init__(self, node: nir.Delay, steps: npt.NDArray[np.int64], samples: int) -> None:
        self._late = np.broadcast_to(steps, node.shape)
        self._ring = np.zeros((int(steps.max(initial=0)) + 1, samples, *node.shape))
        self._place = 0

    def through(self, x: Float) -> Float:
        """What comes out while ``x`` goes in."""
        self._ring[self._place] = x
        read = (self._place - self._late) % len(self._ring)
        index = np.broadcast_to(read[None, None], (1, *x.shape))
        out: Float = np.take_along_axis(self._ring, index, axis=0)[0]
        return out

    def push(self) -> None:
        """Go on to the next step."""
        self._place = (self._place + 1) % len(self._ring)


def stateless_last(graph: nir.Graph) -> list[str]:
    """Names so that nodes without a state come after all that feed them, through recurrent edges too.

    Raises:
        GraphError: a loop has no neuron and no Delay in it.
    """
    order: list[str] = []
    stateful = (nir.Neuron, nir.Delay, nir.Input)
    waiting = {node.name: isinstance(node, stateful) for node in graph.nodes}
    while waiting:
        ready = [name for name, free in waiting.items() if free or not any(s in waiting for s in graph.sources(name))]
        if not ready:
            raise GraphError(
                "a loop of nodes without a neuron or a Delay in it never settles",
                where=f"node {next(iter(waiting))!r}",
                got=", ".join(list(waiting)[:8]),
                allowed="a neuron in each loop",
                next_step="put a spiking population into the loop",
            )
        order += ready
        for name in ready:
            del waiting[name]
    return order


def delay_steps(graph: nir.Graph, node: nir.Delay, samples: int = 1) -> npt.NDArray[np.int64]:
    """How many time steps each element of a Delay is late.

    Raises:
        GraphError: no whole number of steps, or more than a record may hold for ``samples`` samples.
    """
    assert graph.dt is not None, "a graph with a Delay has a time step"
    steps = node.delay / graph.dt
    whole = np.round(steps)
    off = (np.abs(steps - whole) > 1e-6 * np.maximum(1.0, whole)).any()
    if off or whole.max(initial=0) * node.delay.size * samples > MAX_ELEMENTS:
        raise GraphError(
            "a delay is no whole number of time steps, or too long",
            where=f"node {node.name!r}, field 'delay'",
            got=f"{float(steps.max()):g} steps of {graph.dt:g} s",
            allowed="a whole number of steps",
            next_step="give the time step the network was made for: --dt SECONDS",
        )
    return whole.astype(np.int64)


def _entering(graph: nir.Graph, spikes: Any, steps: int | None) -> dict[str, Float]:
    """Input by name, ``[T, B, *shape]`` each."""
    named = spikes if isinstance(spikes, Mapping) else {graph.inputs[0].name: spikes}
    wanted = {node.name: node.shape for node in graph.inputs}
    if named.keys() != wanted.keys():
        raise SpikesError(
            "each Input needs its spikes", got=", ".join(map(str, named)), allowed=", ".join(wanted),
            next_step="give a dictionary {name of the Input: array}",
        )  # fmt: skip
    steps = steps or graph.settings.steps
    found = {name: _timed(name, np.asarray(named[name]), shape, steps) for name, shape in wanted.items()}
    if len({values.shape[:2] for values in found.values()}) > 1:
        got = ", ".join(f"{name} {values.shape[:2]}" for name, values in found.items())
        raise SpikesError("the inputs differ in steps or samples", got=got, allowed="the same [T, B] for all")
    return found


def _timed(name: str, values: npt.NDArray[Any], shape: tuple[int, ...], steps: int | None) -> Float:
    rank = len(shape)
    fits = values.ndim in (rank + 1, rank + 2) and values.shape[-rank:] == shape and 0 not in values.shape
    if not fits or values.dtype.kind not in "buif":
        raise SpikesError(
            "the spikes do not fit the graph's input",
            where=name,
            got=f"{values.dtype} {values.shape}",
            allowed=f"numbers [T, B, {', '.join(map(str, shape))}], or without T where steps are given",
        )
    if values.ndim == rank + 2:
        return values.astype(np.float64)
    if steps is None:
        raise SpikesError(
            "the number of time steps is not known", where=name, got="no time axis, and no steps",
            allowed="steps=T, or [T, B, ...]", next_step="give --steps T",
        )  # fmt: skip
    return np.broadcast_to(values.astype(np.float64), (steps, *values.shape))
