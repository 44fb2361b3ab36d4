"""Any NIR graph as a torch module: branches, loops, readouts, every node of nir 1.0.8; trainable, and back to NIR.

Where :func:`neurokd.from_nir` gives a chain of layers as this toolkit's own students, this takes the graph as it is:
one step of time after the other, in the event order of :mod:`deploy.float_model`, in float64, with surrogate gradients.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, Final

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from deploy import graph as nir
from deploy.errors import ModuleError
from deploy.float_model import delay_steps, stateless_last
from neurokd.surrogates import SpikeFunction, Surrogate, as_surrogate

TRAINED: Final = ("weight", "bias", "scale", "v_threshold", "v_leak", "threshold")
"""Fields that are parameters; the others (time constants, resistances, delays) are buffers."""


class GraphModule(nn.Module):
    """A NIR graph that torch can run and train.

    Args:
        graph: The graph; its integer grids, if any, do not survive training and are dropped from what comes back.
        surrogate: Gradient of the spike function.

    Raises:
        GraphError: a loop has no neuron in it, or a delay is no whole number of steps.
    """

    def __init__(self, graph: nir.Graph, surrogate: str | Surrogate | SpikeFunction = "fast_sigmoid") -> None:
        super().__init__()
        self.graph = graph
        self._spike = as_surrogate(surrogate)
        self.nodes = nn.ModuleList([_Held(node) for node in graph.nodes])
        self._place = {node.name: place for place, node in enumerate(graph.nodes)}
        _check(graph)

    def held(self, name: str) -> Any:
        """The tensors of one node, by the names of its fields: ``module.held("fc1").weight``."""
        return self.nodes[self._place[self.graph.node(name).name]]

    def forward(self, x: Tensor) -> Tensor:
        """Spikes (membranes of a readout) of the node before the Output: ``[T, B, *shape]`` to ``[T, B, *shape]``."""
        return self.record(x)[self.graph.sources(self.graph.outputs[0].name)[0]]

    def record(self, x: Tensor | Mapping[str, Tensor]) -> dict[str, Tensor]:
        """What every node gives, ``{name: [T, B, *shape]}``.

        Args:
            x: Input ``[T, B, *shape]``, by the name of the Input where there are several.

        Raises:
            ModuleError: the input does not fit.
        """
        entering = self._entering(x)
        steps, batch = next(iter(entering.values())).shape[:2]
        run = _Run(self, batch)
        found = [run.step({name: values[step] for name, values in entering.items()}) for step in range(steps)]
        return {node.name: torch.stack([step[node.name] for step in found]) for node in self.graph.nodes}

    def to_graph(self) -> nir.Graph:
        """The graph with the tensors as they are now; without integer grids where a tensor changed."""
        changed = [held.as_node() for held in self.nodes]  # type: ignore[operator]
        same = all(new == old for new, old in zip(changed, self.graph.nodes, strict=True))
        nodes = self.graph.nodes if same else tuple(_without_grid(node) for node in changed)
        graph = self.graph
        return nir.Graph(nodes, graph.edges, graph.dt, graph.reset, graph.settings, graph.metadata, graph.notes)

    def _entering(self, x: Tensor | Mapping[str, Tensor]) -> dict[str, Tensor]:
        named = {self.graph.inputs[0].name: x} if isinstance(x, Tensor) else dict(x)
        wanted = {node.name: node.shape for node in self.graph.inputs}
        shapes = {name: tuple(values.shape[2:]) for name, values in named.items()}
        if shapes != wanted or len({values.shape[:2] for values in named.values()}) != 1:
            raise ModuleError(
                "the input does not fit the graph",
                got=", ".join(f"{name} {list(values.shape)}" for name, values in named.items()),
                allowed=", ".join(f"{name} [T, B, {', '.join(map(str, shape))}]" for name, shape in wanted.items()),
            )
        return {name: values.to(torch.float64) for name, values in named.items()}


def to_torch(
    source: str | Path | nir.Graph,
    *,
    dt: float | None = None,
    reset: str | None = None,
    surrogate: str | Surrogate | SpikeFunction = "fast_sigmoid",
) -> GraphModule:
    """Any NIR file or graph as a torch module.

    Args:
        source: A ``.nir`` file or a graph.
        dt: Time step in seconds, where the file does not say.
        reset: Reset rule, where the file does not say.
        surrogate: Gradient of the spike function.

    Raises:
        GraphError, UnsupportedNode: the file cannot be read; or a loop has no neuron, a delay no whole number of steps.
    """
    return GraphModule(source if isinstance(source, nir.Graph) else nir.read(source, dt=dt, reset=reset), surrogate)


class _Held(nn.Module):
    """The float fields of one node as tensors."""

    def __init__(self, node: nir.Node) -> None:
        super().__init__()
        self.node = node
        for name, value in vars(node).items():
            if isinstance(value, np.ndarray):
                tensor = torch.from_numpy(np.array(value, dtype=np.float64))
                if name in TRAINED:
                    self.register_parameter(name, nn.Parameter(tensor))
                else:
                    self.register_buffer(name, tensor)

    def as_node(self) -> nir.Node:
        """The node with the tensors' present values."""
        tensors = {**dict(self.named_parameters()), **dict(self.named_buffers())}
        fields: dict[str, Any] = {name: tensor.detach().numpy() for name, tensor in tensors.items()}
        return replace(self.node, **fields)


def _without_grid(node: nir.Node) -> nir.Node:
    return replace(node, quantization=None) if isinstance(node, (nir.Neuron, nir.Synapse)) else node


class _Run:
    """The states of one forward."""

    def __init__(self, module: GraphModule, batch: int) -> None:
        self._module, self._graph, self._batch = module, module.graph, batch
        self._cells = {node.name: self._cell(node) for node in self._graph.nodes if isinstance(node, nir.Neuron)}
        self._lines: dict[str, list[Tensor]] = {}
        self._back = {source for source, _ in self._graph.recurrent}
        self._before = self._silent() if self._back else {}

    def _cell(self, node: nir.Neuron) -> _Cell:
        assert self._graph.dt is not None, "a graph with neurons has a time step"
        zeros = torch.zeros(self._batch, *node.shape, dtype=torch.float64)
        return _Cell(self._module.held(node.name), self._graph.dt, self._graph.reset, self._module._spike, zeros)

    def _silent(self) -> dict[str, Tensor]:
        """What is fed back at the first step: nothing has spiked, but a recurrent layer's bias acts."""
        found: dict[str, Tensor] = {}
        for name in stateless_last(self._graph):
            node = self._graph.node(name)
            if isinstance(node, (nir.Neuron, nir.Delay, nir.Input)):
                found[name] = torch.zeros(self._batch, *self._graph.output_shape(name), dtype=torch.float64)
            else:
                found[name] = self._apply(node, [found[source] for source in self._graph.sources(name)])
        return {name: found[name] for name in self._back}

    def step(self, entering: Mapping[str, Tensor]) -> dict[str, Tensor]:
        given: dict[str, Tensor] = {}
        for node in self._graph.nodes:
            parts = [
                self._before[source] if (source, node.name) in self._graph.recurrent else given[source]
                for source in self._graph.sources(node.name)
            ]
            given[node.name] = entering[node.name] if isinstance(node, nir.Input) else self._apply(node, parts)
        self._before = {name: given[name] for name in self._back}
        return given

    def _apply(self, node: nir.Node, parts: list[Tensor]) -> Tensor:
        x = sum(parts[1:], start=parts[0])
        held = self._module.held(node.name)
        if node.name in self._cells:
            return self._cells[node.name].step(x)
        if isinstance(node, nir.Delay):
            return self._delayed(node, x)
        return _RULES[type(node)](node, held, x, self._module._spike)

    def _delayed(self, node: nir.Delay, x: Tensor) -> Tensor:
        line = self._lines.setdefault(node.name, [])
        line.insert(0, x)
        steps = torch.from_numpy(delay_steps(self._graph, node)).broadcast_to(node.shape)
        del line[int(steps.max()) + 1 :]
        out = torch.zeros_like(x)
        for late, values in enumerate(line):
            out = torch.where(steps == late, values, out)
        return out


class _Cell:
    """A population's state: decay, input, threshold, reset, as :class:`deploy.float_neurons.Cells`."""

    def __init__(
        self, held: Any, dt: float, reset: str | None, spike: Callable[[Tensor], Tensor], zeros: Tensor
    ) -> None:
        self._held, self._rule, self._spike = held, reset, spike
        self._v, self._i, self._s = zeros, zeros, zeros
        self._factors(held.node, nir.discretize(held.node, dt), dt)

    def _factors(self, node: nir.Neuron, step: nir.LifParameters, dt: float) -> None:
        """Decays and gains are the graph's own numbers; the leak follows the trained ``v_leak``."""
        as_tensor = torch.from_numpy
        self._beta, self._gain = as_tensor(np.array(step.beta)), as_tensor(np.array(step.gain))
        self._alpha = None if step.alpha is None else as_tensor(np.array(step.alpha))
        self._leak: Tensor | float = 0.0
        if node.times:
            tau: Tensor = getattr(self._held, node.times[-1])
            self._leak = self._held.v_leak * torch.clamp(dt / tau, max=1.0)

    def step(self, x: Tensor) -> Tensor:
        current = self._gain * x
        if self._alpha is not None:
            self._i = current = self._alpha * self._i + current
        v = self._beta * self._v + current + self._leak
        threshold = getattr(self._held, "v_threshold", None)
        if threshold is None:
            self._v = v
            return v
        if self._rule == "late-subtract":
            v = v - self._s.detach() * threshold
        elif self._rule == "late-zero":
            v = torch.where(self._s > 0, torch.zeros_like(v), v)
        self._s = self._spike(v - threshold)
        fired = self._s.detach()
        if self._rule == "subtract":
            v = v - fired * threshold
        elif self._rule in ("zero", "value"):
            v = torch.where(fired > 0, self._held.v_reset.expand_as(v), v)
        self._v = v
        return self._s


def _affine(_: Any, held: Any, x: Tensor, __: Any) -> Tensor:
    return functional.linear(x, held.weight, getattr(held, "bias", None))


def _conv2d(node: nir.Conv2d, held: Any, x: Tensor, _: Any) -> Tensor:
    bias = getattr(held, "bias", None)
    return functional.conv2d(x, held.weight, bias, node.stride, node.padding, node.dilation, node.groups)


def _conv1d(node: nir.Conv1d, held: Any, x: Tensor, _: Any) -> Tensor:
    bias = getattr(held, "bias", None)
    return functional.conv1d(x, held.weight, bias, node.stride, node.padding, node.dilation, node.groups)


def _average(node: nir.Pool2d, _: Any, x: Tensor, __: Any) -> Tensor:
    return functional.avg_pool2d(x, node.kernel_size, node.stride, node.padding)


def _sum(node: nir.Pool2d, _: Any, x: Tensor, __: Any) -> Tensor:
    padded = functional.pad(x, (node.padding[1],) * 2 + (node.padding[0],) * 2)
    return functional.avg_pool2d(padded, node.kernel_size, node.stride, divisor_override=1)


def _flatten(node: nir.Flatten, _: Any, x: Tensor, __: Any) -> Tensor:
    start, end = (d if d < 0 else d + 1 for d in (node.start_dim, node.end_dim))
    return torch.flatten(x, start, end)


def _threshold(_: Any, held: Any, x: Tensor, spike: Callable[[Tensor], Tensor]) -> Tensor:
    return spike(x - held.threshold)


_RULES: Final[Mapping[type[nir.Node], Callable[[Any, Any, Tensor, Any], Tensor]]] = {
    nir.Output: lambda _, __, x, ___: x, nir.Affine: _affine, nir.Conv2d: _conv2d, nir.Conv1d: _conv1d,
    nir.AvgPool2d: _average, nir.SumPool2d: _sum, nir.Flatten: _flatten, nir.Threshold: _threshold,
    nir.Scale: lambda _, held, x, __: x * held.scale,
}  # fmt: skip


def _check(graph: nir.Graph) -> None:
    stateless_last(graph)
    for node in graph.nodes:
        if isinstance(node, nir.Delay):
            delay_steps(graph, node)
