"""Users' snntorch modules -> NIR, with the same spikes: what is kept, what is folded, what other tools will not see.

The module's forward is run once on an example and watched; every call becomes a node, or is refused by name. Each
node is then checked on what its module was given and gave, and the whole graph on its output spikes. What the file
cannot say to other tools, what was folded and what was left out stands in ``graph.notes``.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any, Final

import torch
from torch import Tensor, nn

from deploy import graph as nir
from deploy.errors import ModuleError
from deploy.graph.quantization import Reset
from neurokd.accept_chain import refuse
from neurokd.accept_origin import DROPOUTS, RESHAPES, Call, Origin, tensors_in
from neurokd.accept_run import Example, arguments_of, preserved
from neurokd.accept_trace import Tracer
from neurokd.export_nodes import DT, NEURONS, TAKEN, add_norm, neuron_nodes, node_of, reset_rule
from neurokd.export_proof import prove

_FAILURES = (RuntimeError, TypeError, ValueError, AttributeError, LookupError, ArithmeticError, AssertionError)
_DROPPED: Final = "dropout does nothing in evaluation and is left out"
ALLOWED: Final = ", ".join(kind.__name__ for kind in TAKEN)


class _Tracer(Tracer):
    """Follows recurrent neurons too, and leaves states to the proof."""

    def _begin(self, path: str, module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Call:
        given = next(tensors_in((args, kwargs)), torch.zeros(0))
        ordinal = self._counts.get(module, 0)
        self._counts[module] = ordinal + 1
        return Call(path, module, ordinal, self.origin(given), given.detach().clone())

    def _finish(self, call: Call, outs: list[Tensor]) -> None:
        if type(call.module) not in TAKEN:
            super()._finish(call, outs)
            return
        call.output = outs[0].detach().clone()
        self._mark(outs[0], Origin("output", call), call.output)
        for state in outs[1:]:
            self._mark(state, Origin("foreign", text=f"a state of {call}"))


@dataclass
class _Built:
    """The graph while it is put together."""

    nodes: dict[str, nir.Node]
    edges: list[tuple[str, str]]
    notes: list[nir.Finding]
    entering: list[Call]
    calls: dict[str, list[Call]]
    shapes: dict[str, tuple[int, ...]]
    visited: set[str]

    def note(self, severity: Any, node: str, what: str, **more: str) -> None:
        self.notes.append(nir.Finding(severity, node, what, **more))


def module_graph(
    module: nn.Module,
    example_input: Tensor,
    *,
    steps: int | None = None,
    convert_reset: bool = False,
    forward_kwargs: Mapping[str, Any] | None = None,
) -> nir.Graph:
    """A user's snntorch module as a graph with the same output spikes; ``graph.notes`` is the report.

    Taken: Leaky, Synaptic, RLeaky and RSynaptic (values of their own in every neuron too), Linear, Conv1d, Conv2d,
    AvgPool2d, Flatten, BatchNorm (folded into the synapse before it), Dropout (left out, with a note); branches that
    read the same spikes; any reset rule, the delayed ones as metadata that only this toolkit reads.

    Args:
        module: The module; run in evaluation mode and left as it was.
        example_input: What forward takes: ``[B, ...]``, or ``[T, B, ...]`` where forward reads ``x[t]``.
        steps: Time steps, where forward makes one step a call.
        convert_reset: Write reset to zero in the same step, whatever the module does; a note says what it changes.
        forward_kwargs: Further arguments of forward.

    Raises:
        ModuleError: a module, setting or function with no counterpart, by name; or what was read off does not
            reproduce the module.
    """
    example = Example(_usable(example_input), steps, dict(forward_kwargs or {}))
    tracer, returned = _traced(module, example)
    by_path = _by_path(tracer.calls)
    output, count = _output(tracer.calls, returned, by_path)
    built = _Built({}, [], [], [], by_path, {}, set())
    _build(built, by_path[output.path][0])
    _beside(built, tracer.calls, returned, output)
    rule = _rule(built, convert_reset)
    graph = _graph(built, output, rule, count)
    notes = [*built.notes, *prove(graph, built.entering, built.calls, output.path, rule, convert_reset)]
    return replace(graph, notes=tuple(notes))


def _usable(example: object) -> Tensor:
    if isinstance(example, Tensor) and example.is_floating_point() and example.dim() >= 2 and example.numel():
        return example
    got = f"{example.dtype} of shape {list(example.shape)}" if isinstance(example, Tensor) else type(example).__name__
    raise ModuleError(
        "the example input is not usable",
        got=got,
        allowed="a float tensor [B, ...] or [T, B, ...] with at least one sample, as forward takes it",
        next_step="export(module, path, example_input=one batch as your training loop passes it)",
    )


def _traced(module: nn.Module, example: Example) -> tuple[_Tracer, list[Origin]]:
    with preserved(module), _fresh(module), torch.no_grad():
        tracer = _Tracer(module)
        with tracer:
            returned = _forward(module, tracer, example)
            again = 1 if example.steps is None or not _one_step(tracer) else example.steps
            for _ in range(1, again):
                returned += _forward(module, tracer, example)
    if tracer.branches:
        raise ModuleError(
            "the forward takes a Python decision on the values of a tensor",
            where="forward",
            got=f"an 'if', 'while' or bool() on {tracer.branches[0]}",
            allowed="the same modules whatever the values",
            next_step="take the decision out of forward",
        )
    return tracer, returned


def _one_step(tracer: _Tracer) -> bool:
    return all(call.ordinal == 0 for call in tracer.calls if type(call.module) in NEURONS)


def _forward(module: nn.Module, tracer: _Tracer, example: Example) -> list[Origin]:
    tensor = example.tensor.detach().clone()
    tracer.mark_input(tensor)
    try:
        out = module(tensor, **arguments_of(module, example))
    except _FAILURES as error:
        raise ModuleError(
            "the forward fails on the example",
            where=f"{type(module).__name__}.forward, input of shape {list(tensor.shape)}",
            got=f"{type(error).__name__}: {error}",
            allowed="an example as your training loop passes it",
            next_step="check example_input and forward_kwargs",
        ) from error
    return tracer.origins(out)


@contextmanager
def _fresh(module: nn.Module) -> Iterator[None]:
    """Every neuron starts anew, recurrent ones too; :func:`preserved` puts the states back."""
    for part in module.modules():
        for state in NEURONS.get(type(part), ()):
            setattr(part, state, torch.zeros(0, device=getattr(part, state).device))
    yield


def _by_path(calls: Sequence[Call]) -> dict[str, list[Call]]:
    found: dict[str, list[Call]] = {}
    for call in calls:
        found.setdefault(call.path, []).append(call)
    return found


def _output(calls: Sequence[Call], returned: Sequence[Origin], by_path: Mapping[str, list[Call]]) -> tuple[Call, int]:
    """The neuron that answers, and the number of steps."""
    handed = [call for origin in returned for call in _spikes_of(origin)]
    if not handed:
        raise ModuleError(
            "the forward returns no spikes of a neuron that can be exported",
            where="return value of forward",
            got="; ".join(dict.fromkeys(map(str, returned))) or "no tensor",
            allowed=f"spikes of {', '.join(kind.__name__ for kind in NEURONS)}, of one step or stacked over time",
            next_step="return torch.stack(spk_rec) of the last neuron",
        )
    last = max(handed, key=calls.index)
    return last, len(by_path[last.path])


def _spikes_of(origin: Origin) -> list[Call]:
    handed = (origin.call,) if origin.kind == "output" else origin.calls
    found = []
    for call in handed:
        while call is not None and isinstance(call.module, (*DROPOUTS, *RESHAPES)):
            call = call.source.call
        if call is not None and type(call.module) in NEURONS:
            found.append(call)
    return found


def _beside(built: _Built, calls: Sequence[Call], returned: Sequence[Origin], output: Call) -> None:
    """What is returned or called beside the way to the output is named."""
    others = {call.path for origin in returned for call in _spikes_of(origin)} - {output.path}
    for path in sorted(others):
        built.note("warning", path, "its spikes are returned too; the file has one output", got=f"output {output.path}")
    left = {call.path: call for call in calls if call.path not in built.visited}
    for path, call in left.items():
        if isinstance(call.module, DROPOUTS):
            built.note("note", path, _DROPPED, got=type(call.module).__name__)
        elif not isinstance(call.module, RESHAPES):
            what = "not on the way to the output spikes, and left out"
            built.note("warning", path, what, got=type(call.module).__name__)


# Structure --------------------------------------------------------------------------------------------------------


def _build(built: _Built, call: Call) -> str:
    """Add the node of a call and all that feed it; the node's name."""
    name = call.path or "module"
    if name in built.nodes:
        return name
    built.visited.add(call.path)
    _check_steps(built, call)
    if isinstance(call.module, DROPOUTS):
        built.note("note", name, _DROPPED, got=type(call.module).__name__)
        return _source(built, call)
    if isinstance(call.module, RESHAPES):
        return _source(built, call)
    if type(call.module) in NEURONS:
        return _add_neuron(built, name, call)
    source = _source(built, call)
    folded = add_norm(built.nodes, source, call)
    if folded:
        built.note("note", source, "a batch norm's running statistics are folded into its weights", got=str(call))
        return source
    return _add(built, node_of(name, call), _flattened(built, source, call), call)


def _check_steps(built: _Built, call: Call) -> None:
    """Every step calls the module once, on the output of the same module."""
    sources = {str(other.source) if other.source.kind != "input" else "the input" for other in built.calls[call.path]}
    if len(sources) > 1:
        raise refuse(call, "the steps do not feed it alike", got="; ".join(sorted(sources)[:3]), allowed="one source")
    if call.source.kind == "output" and call.source.call is not None:
        before = len(built.calls[call.source.call.path])
        if before != len(built.calls[call.path]):
            got = f"{len(built.calls[call.path])} calls on {before} of {call.source.call}"
            raise refuse(call, "it is not called once a step", got=got, allowed="one call of each module at every step")
    elif call.source.kind != "input":
        raise refuse(
            call,
            "its input is not the output of a module, nor the network's input",
            got=str(call.source),
            allowed=f"outputs of {ALLOWED}, and shape functions (flatten, view, reshape, squeeze) on them",
            next_step="use the nn module of that function; add and scale in the weights",
        )


def _source(built: _Built, call: Call) -> str:
    if call.source.kind == "output" and call.source.call is not None:
        return _build(built, call.source.call)
    if "input" not in built.nodes:
        built.shapes["input"] = tuple(call.given.shape[1:])
        built.nodes["input"] = nir.Input("input", built.shapes["input"])
        built.entering = built.calls[call.path]
    return "input"


def _add(built: _Built, node: nir.Node, source: str, call: Call) -> str:
    assert call.output is not None, "every traced call has an output"
    built.nodes[node.name] = node
    built.edges.append((source, node.name))
    built.shapes[node.name] = tuple(call.output.shape[1:])
    return node.name


def _flattened(built: _Built, source: str, call: Call) -> str:
    """The source, or a Flatten after it where the call takes its values in a row."""
    before, given = built.shapes[source], tuple(call.given.shape[1:])
    if before == given:
        return source
    if given != (math.prod(before),):
        raise refuse(
            call,
            "an image is reshaped between layers",
            got=f"{list(before)} became {list(given)}",
            allowed="all of it in a row (nn.Flatten), before a Linear",
        )
    name = f"{call.path or 'module'} flatten"
    built.nodes[name], built.shapes[name] = nir.Flatten(name, -len(before), -1), given
    built.edges.append((source, name))
    return name


def _add_neuron(built: _Built, name: str, call: Call) -> str:
    source = _source(built, call)
    cell, feedback = neuron_nodes(name, call)
    _add(built, cell, _flattened(built, source, call), call)
    if feedback is not None:
        built.nodes[feedback.name] = feedback
        built.edges += [(name, feedback.name), (feedback.name, name)]
    return name


def _rule(built: _Built, convert: bool) -> Reset:
    neurons = [built.calls[name][0] for name, node in built.nodes.items() if isinstance(node, nir.SPIKING)]
    rules: dict[Reset, Call] = {}
    for call in neurons:
        rules.setdefault(reset_rule(call), call)
    if convert:
        return "zero"
    if len(rules) > 1:
        got = ", ".join(f"{call}: {rule}" for rule, call in rules.items())
        raise refuse(
            next(iter(rules.values())),
            "the neurons do not all reset alike, and a NIR graph has one rule for all",
            got=got,
            allowed="one reset_mechanism and reset_delay in all neurons",
            next_step="make them alike, or export(..., convert_reset=True): zero in the same step for all, with a note",
        )
    return next(iter(rules))


def _graph(built: _Built, output: Call, rule: Reset, steps: int) -> nir.Graph:
    assert output.output is not None, "every traced call has an output"
    name = output.path or "module"
    nodes = (*built.nodes.values(), nir.Output("output", tuple(output.output.shape[1:])))
    return nir.Graph(nodes, (*built.edges, (name, "output")), DT, rule, nir.RunSettings(steps=steps))
