"""nengo's side of the interop worker: NIR nodes put together of nengo's own objects.

Imports nothing of this repository. nengo has no NIR; each node becomes what nengo has for it:

- Affine, Linear, Scale: a Connection's transform and a constant Node;
- Conv1d, Conv2d, pooling: a Connection with ``nengo.Convolution``, channels first. Its own padding is "same" or
  "valid", so other padding connects to the inner part of a larger Node; dilation puts zeros between a kernel's values;
- Flatten: nothing, nengo's signals are vectors; Delay: a ``LinearFilter`` z^-n for each number of steps n;
- LI, CubaLI: one ``Lowpass`` and two; I: the ``LinearFilter`` 1/s;
- LIF: ``nengo.LIF(tau_ref=0)`` with gain r / v_threshold, membranes let below 0 (its default floors them there);
  CubaLIF: the same behind a ``Lowpass``. Two limits of it: IF with a tau_rc of 1e10 steps (a membrane loses 1e-10 of
  itself in a step), Threshold with one of 1/30 of a step (1e-13 of a membrane is left after it).

A filter answers a step later; constants wait for it, and it is taken off the answer again. An edge that closes a loop
without a filter has ``synapse=0``, nengo's delay of one step.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Final

import numpy as np

NO_LEAK: Final = 1e10
NO_MEMORY: Final = 1 / 30
"""Time constants, in steps, of nengo's LIF where it stands for an IF and for a Threshold.

Below about 1/36 of a step exp(-dt / tau) is lost in rounding, and nengo 4.1.0 fails (``log1p`` of less than -1).
"""
SPIKING: Final = ("LIF", "CubaLIF", "IF")


@dataclass
class Part:
    """What one node became: where its input goes, where its answer comes from, and how many steps that is late."""

    entry: Any
    exit: Any
    shape: tuple[int, ...]
    late: int


class Nengo:
    """nengo, one sample after the other."""

    def modules(self) -> dict[str, Any]:
        """It writes no NIR."""
        return {}

    def load(self, path: str, x: Any, dt: float, reset: str) -> Any:
        """The graph, if its spikes do what nengo's do."""
        import nir

        graph = nir.read(path, type_check=False)
        spiking = [node for node in graph.nodes.values() if type(node).__name__ in SPIKING]
        if any(np.any(node.v_reset) for node in spiking):
            raise NotImplementedError("nengo.LIF resets to zero only")
        if spiking and reset != "zero":
            raise NotImplementedError(
                "nengo.LIF resets to zero; SpikingRectifiedLinear subtracts, has no leak and takes no negative input"
            )
        return graph, dt

    def forward(self, module: Any, x: Any) -> Any:
        """Every step's output ``[T, B, size]``."""
        import torch

        samples = [Network(*module).run(x[:, index].numpy()) for index in range(x.shape[1])]
        return torch.from_numpy(np.stack(samples, axis=1))


class Network:
    """A nengo network of one NIR graph."""

    def __init__(self, graph: Any, dt: float) -> None:
        import nengo

        self._graph, self._dt, self._nengo = graph, dt, nengo
        self._loops = loops(graph.edges, [name for name, node in graph.nodes.items() if kind(node) == "Input"])
        self._parts: dict[str, Part] = {}

    def run(self, x: Any) -> Any:
        """Outputs ``[T, size]`` for one sample ``[T, *shape]``."""
        nengo, dt = self._nengo, self._dt
        with nengo.Network() as network:
            for name in order(self._graph.edges, self._loops):
                self._parts[name] = self._part(name)
            stimulus = nengo.Node(lambda t: x[min(max(round(t / dt) - 1, 0), len(x) - 1)].ravel(), size_out=x[0].size)
            self._join(stimulus, self._parts["input"].entry)
            for source, target in self._graph.edges:
                self._edge(source, target)
            probe = nengo.Probe(self._parts["output"].exit)
        with nengo.Simulator(network, dt=dt, progress_bar=False) as run:
            late = self._parts["output"].late
            run.run_steps(len(x) + late)
            return np.array(run.data[probe], np.float32)[late:]

    def _edge(self, source: str, target: str) -> None:
        """A connection; one that closes a loop carries the last step's spikes, unless the target's filter does that."""
        before = [self._parts[s].late for s, t in self._graph.edges if t == target and (s, t) not in self._loops]
        again = (source, target) in self._loops and self._parts[target].late == max(before)
        self._join(self._parts[source].exit, self._parts[target].entry, synapse=0 if again else None)

    def _part(self, name: str) -> Part:
        before = [self._parts[s] for s, t in self._graph.edges if t == name and (s, t) not in self._loops]
        if len({part.late for part in before}) > 1:
            raise NotImplementedError("paths that nengo's filters delay by different numbers of steps meet")
        node = self._graph.nodes[name]
        shape = before[0].shape if before else tuple(int(n) for n in next(iter(node.output_type.values())))
        make = getattr(self, f"_{kind(node).lower()}", None)
        if make is None:
            raise NotImplementedError(f"no nengo object was found that is NIR's {kind(node)}")
        return make(node, shape, before[0].late if before else 0)

    def _join(self, source: Any, target: Any, synapse: Any = None, **transform: Any) -> None:
        self._nengo.Connection(source, target, synapse=synapse, **transform)

    def _sum(self, shape: tuple[int, ...]) -> Any:
        """A node that adds up what arrives."""
        return self._nengo.Node(None, size_in=int(np.prod(shape)))

    def _constant(self, values: Any, target: Any, late: int) -> None:
        """Numbers that are there from the step on at which the input's first step arrives."""
        values, dt = np.ravel(values), self._dt
        if np.any(values):
            node = self._nengo.Node(lambda t: values * (round(t / dt) > late), size_out=values.size)
            self._join(node, target)

    def _input(self, _: Any, shape: tuple[int, ...], late: int) -> Part:
        node = self._sum(shape)
        return Part(node, node, shape, late)

    _output = _input

    def _flatten(self, node: Any, shape: tuple[int, ...], late: int) -> Part:
        return self._input(node, (int(np.prod(shape)),), late)

    def _linear(self, node: Any, shape: tuple[int, ...], late: int) -> Part:
        weight = np.asarray(node.weight, np.float64)
        part = Part(self._sum(shape), self._sum((len(weight),)), (len(weight),), late)
        self._join(part.entry, part.exit, transform=weight)
        self._constant(getattr(node, "bias", 0.0), part.exit, late)
        return part

    _affine = _linear

    def _scale(self, node: Any, shape: tuple[int, ...], late: int) -> Part:
        part = Part(self._sum(shape), self._sum(shape), shape, late)
        self._join(part.entry, part.exit, transform=np.broadcast_to(node.scale, shape).ravel())
        return part

    def _conv2d(self, node: Any, shape: tuple[int, ...], late: int) -> Part:
        weight = dilated(np.asarray(node.weight, np.float64), node.dilation)
        part = self._slide(weight, (node.stride, node.padding, node.groups), shape, late)
        self._constant(np.repeat(node.bias, int(np.prod(part.shape[1:]))), part.exit, late)
        return part

    _conv1d = _conv2d

    def _sumpool2d(self, node: Any, shape: tuple[int, ...], late: int) -> Part:
        size = np.broadcast_to(node.kernel_size, 2)
        weight = np.full((shape[0], 1, *size), 1.0 if kind(node) == "SumPool2d" else 1.0 / np.prod(size))
        return self._slide(weight, (node.stride, node.padding, shape[0]), shape, late)

    _avgpool2d = _sumpool2d

    def _slide(self, weight: Any, how: tuple[Any, Any, Any], shape: tuple[int, ...], late: int) -> Part:
        """A kernel ``[outputs, inputs / groups, *size]`` over channels-first images."""
        stride, padding, groups = how
        wide, inner = padded(shape, padding)
        transform = self._nengo.Convolution(
            len(weight), wide, kernel_size=weight.shape[2:], channels_last=False, padding="valid", groups=int(groups),
            strides=tuple(int(n) for n in np.broadcast_to(stride, len(shape) - 1)),
            init=np.moveaxis(weight, (0, 1), (-1, -2)),
        )  # fmt: skip
        out = tuple(int(n) for n in transform.output_shape.shape)
        part, room = Part(self._sum(shape), self._sum(out), out, late), self._sum(wide)
        self._join(part.entry, room[inner])
        self._join(room, part.exit, transform=transform)
        return part

    def _delay(self, node: Any, shape: tuple[int, ...], late: int) -> Part:
        part = Part(self._sum(shape), self._sum(shape), shape, late)
        steps = np.broadcast_to(np.round(np.asarray(node.delay) / self._dt).astype(int), shape).ravel()
        for count in np.unique(steps):
            chosen = np.flatnonzero(steps == count).tolist()
            line = self._nengo.LinearFilter([1], [1] + [0] * int(count), analog=False) if count else None
            self._join(part.entry[chosen], part.exit[chosen], synapse=line)
        return part

    def _filtered(self, shape: tuple[int, ...], late: int, *stages: tuple[Any, Any]) -> Part:
        """Filters, one behind the other, each with the factor of what leaves it."""
        nodes = [self._sum(shape) for _ in range(len(stages) + 1)]
        for source, target, (synapse, factor) in zip(nodes[:-1], nodes[1:], stages, strict=True):
            between = self._sum(shape)
            self._join(source, between, synapse=synapse)
            self._join(between, target, transform=np.broadcast_to(factor, shape).ravel())
        return Part(nodes[0], nodes[-1], shape, late + len(stages))

    def _li(self, node: Any, shape: tuple[int, ...], late: int) -> Part:
        part = self._filtered(shape, late, (self._nengo.Lowpass(one(node.tau)), node.r))
        self._constant(node.v_leak / node.r, part.entry, late)
        return part

    def _cubali(self, node: Any, shape: tuple[int, ...], late: int) -> Part:
        if np.any(node.v_leak):
            raise NotImplementedError("a leak potential between the two filters of a CubaLI was not put together")
        low = self._nengo.Lowpass
        return self._filtered(shape, late, (low(one(node.tau_syn)), node.w_in), (low(one(node.tau_mem)), node.r))

    def _i(self, node: Any, shape: tuple[int, ...], late: int) -> Part:
        return self._filtered(shape, late, (self._nengo.LinearFilter([1], [1, 0]), node.r))

    def _neurons(self, tau: float, gain: Any, node: Any, shape: tuple[int, ...], late: int) -> Part:
        rest = {"voltage": self._nengo.dists.Choice([0])}
        cell = self._nengo.LIF(tau, tau_ref=0, min_voltage=-np.inf, amplitude=self._dt, initial_state=rest)
        threshold = getattr(node, "v_threshold", getattr(node, "threshold", 1.0))
        if np.any(np.asarray(threshold) <= 0):
            raise NotImplementedError("thresholds of nengo's neurons are 1 times a gain, so above 0")
        count, gain = int(np.prod(shape)), np.broadcast_to(gain / threshold, shape).ravel()
        made = self._nengo.Ensemble(count, 1, neuron_type=cell, gain=gain, bias=np.zeros(count)).neurons
        return Part(made, made, shape, late)

    def _lif(self, node: Any, shape: tuple[int, ...], late: int) -> Part:
        part = self._neurons(one(node.tau), node.r, node, shape, late)
        self._constant(node.v_leak / node.r, part.entry, late)
        return part

    def _cubalif(self, node: Any, shape: tuple[int, ...], late: int) -> Part:
        synapse = self._filtered(shape, late, (self._nengo.Lowpass(one(node.tau_syn)), node.w_in))
        cells = self._neurons(one(node.tau_mem), node.r, node, shape, synapse.late)
        self._join(synapse.exit, cells.entry)
        self._constant(node.v_leak / node.r, cells.entry, cells.late)
        return Part(synapse.entry, cells.exit, shape, cells.late)

    def _if(self, node: Any, shape: tuple[int, ...], late: int) -> Part:
        return self._neurons(NO_LEAK * self._dt, node.r * NO_LEAK * self._dt, node, shape, late)

    def _threshold(self, node: Any, shape: tuple[int, ...], late: int) -> Part:
        return self._neurons(NO_MEMORY * self._dt, 1.0, node, shape, late)


def kind(node: Any) -> str:
    """Name of a node's type."""
    return type(node).__name__


def one(values: Any) -> float:
    """The one value of an array; nengo's ensembles and filters have a single time constant."""
    found = np.unique(values)
    if found.size != 1:
        raise NotImplementedError("one time constant for each of nengo's ensembles")
    return float(found[0])


def dilated(weight: Any, dilation: Any) -> Any:
    """A kernel ``[outputs, inputs, *size]`` with zeros between its values."""
    gaps = np.broadcast_to(dilation, weight.ndim - 2)
    sizes = [int(gap * (size - 1) + 1) for gap, size in zip(gaps, weight.shape[2:], strict=True)]
    wide = np.zeros((*weight.shape[:2], *sizes))
    wide[(slice(None), slice(None), *(slice(None, None, int(gap)) for gap in gaps))] = weight
    return wide


def padded(shape: tuple[int, ...], padding: Any) -> tuple[tuple[int, ...], list[int]]:
    """Shape of a channels-first image with its border, and where the image's own values are in it."""
    borders = [(0, 0), *((int(n), int(n)) for n in np.broadcast_to(padding, len(shape) - 1))]
    own = np.pad(np.ones(shape, bool), borders)
    return own.shape, np.flatnonzero(own).tolist()


def loops(edges: list[tuple[str, str]], starts: list[str]) -> set[tuple[str, str]]:
    """Edges that lead back to a node on the way to them."""
    found, done = set(), set()

    def visit(name: str, way: tuple[str, ...]) -> None:
        for target in [t for s, t in edges if s == name]:
            if target in (*way, name):
                found.add((name, target))
            elif (name, target) not in done:
                done.add((name, target))
                visit(target, (*way, name))

    for start in starts:
        visit(start, ())
    return found


def order(edges: list[tuple[str, str]], without: set[tuple[str, str]]) -> list[str]:
    """Names so that each comes after those that feed it, loops left out."""
    left, names = [edge for edge in edges if edge not in without], []
    waiting = list(dict.fromkeys(name for edge in edges for name in edge))
    while waiting:
        ready = [name for name in waiting if not any(t == name and s in waiting for s, t in left)]
        names += ready
        waiting = [name for name in waiting if name not in ready]
    return names
