"""Running a user's forward under watch: with an example, in evaluation, leaving no mark on the module."""

from __future__ import annotations

import inspect
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from snntorch._neurons import SpikingNeuron  # type: ignore[import-untyped]
from torch import Tensor, nn

from deploy.errors import ModuleError
from neurokd.accept_chain import Chain, read_chain
from neurokd.accept_neurons import NeuronReading, apply_changes
from neurokd.accept_origin import STATES, Origin
from neurokd.accept_trace import Tracer

#: Parameters of a forward that get the number of steps, where they have no default.
_STEP_NAMES = ("num_steps", "n_steps", "nsteps", "steps", "time_steps", "timesteps", "T")
#: What a forward that cannot take the example may raise.
_FAILURES = (RuntimeError, TypeError, ValueError, AttributeError, LookupError, ArithmeticError, AssertionError)
_MAX_STEPS = 2**15


@dataclass(frozen=True)
class Example:
    """What the forward is run on; ``constant``: made up from ``input_shape`` as one step that is always the same."""

    tensor: Tensor
    steps: int | None
    extra: Mapping[str, Any]
    constant: bool = False


def examples(
    example: Tensor | None, shape: Sequence[int] | None, steps: int | None, extra: Mapping[str, Any] | None, device: Any
) -> list[Example]:
    """The example, or made-up ones in the order they are tried: constant input first, then time-first spikes."""
    extra = dict(extra or {})
    if steps is not None and not 1 <= steps <= _MAX_STEPS:
        raise ModuleError("the number of steps is out of range", got=f"steps={steps}", allowed=f"1 to {_MAX_STEPS}")
    if (example is None) == (shape is None):
        raise ModuleError(
            "one of example_input and input_shape is needed",
            got="both" if shape is not None else "neither",
            allowed="example_input=a tensor as forward takes it, or input_shape=(784,) and the like",
        )
    if shape is None:
        assert example is not None
        return [Example(_float_example(example).to(device), steps, extra)]
    generator = torch.Generator().manual_seed(0)
    image = torch.rand(2, *shape, generator=generator)
    made = [Example(image.to(device), steps, extra, constant=True)]
    if steps is not None:
        spikes = (torch.rand(steps, *image.shape, generator=generator) < 0.5).float()
        made.append(Example(spikes.to(device), steps, extra))
    return made


def _float_example(example: object) -> Tensor:
    if isinstance(example, Tensor) and example.dtype == torch.float32 and example.dim() >= 2 and example.numel():
        return example
    got = f"{example.dtype} of shape {list(example.shape)}" if isinstance(example, Tensor) else type(example).__name__
    raise ModuleError(
        "the example input is not usable",
        got=got,
        allowed="a float32 tensor [B, ...] or [T, B, ...] with at least one sample",
        next_step="pass one batch as your training loop passes it; or input_shape=(784,) for one sample's shape",
    )


class _TimeFirst(ModuleError):
    """The forward reads a constant example step by step: it wants another example."""


def trace_any(module: nn.Module, tried: Sequence[Example]) -> tuple[Chain, Example]:
    """The chain of the first example that the forward reads as it was meant.

    Raises:
        ModuleError: why the forward cannot be taken; or that it wants a time-first example and none is there.
    """
    for example in tried[:-1]:
        try:
            return trace(module, example), example
        except _TimeFirst:
            continue
    return trace(module, tried[-1]), tried[-1]


def _check_meant(tracer: Tracer, example: Example) -> None:
    if example.constant and tracer.step_reads:
        raise _TimeFirst(
            "the forward reads its input step by step, so input_shape does not say all",
            where="input_shape",
            got="no number of steps",
            allowed="example_input=[T, B, ...], or steps=T beside input_shape",
        )


def trace(
    module: nn.Module, example: Example, readings: Sequence[NeuronReading] = (), like: Chain | None = None
) -> Chain:
    """Run and read the forward.

    Args:
        module: The user's module; as before afterwards.
        example: Its input.
        readings: Changes to make to the neurons of the chain ``like`` for this run.
        like: A chain of the same module.

    Raises:
        ModuleError: the forward fails, or is not a chain that can be taken.
    """
    with preserved(module), torch.no_grad():
        for part, reading in zip(like.parts if like else (), readings, strict=True):
            apply_changes(part.neurons[0].module, reading.changes)
        tracer = Tracer(module)
        tensor = example.tensor.detach().clone()
        returned = _run(module, tracer, tensor, example)
    _check_meant(tracer, example)
    if tracer.branches:
        raise ModuleError(
            "the forward takes a Python decision on the values of a tensor",
            where="forward",
            got=f"an 'if', 'while' or bool() on {tracer.branches[0]}",
            allowed="the same chain of modules whatever the values",
            next_step="take the decision out of forward (checks of shapes are fine)",
        )
    chain = read_chain(tracer.calls, returned, tuple(tensor.shape[:2]))
    if example.steps not in (None, chain.steps):
        raise ModuleError(
            "the forward makes another number of steps",
            where="steps",
            got=f"steps={example.steps}, forward makes {chain.steps}",
            allowed="steps only where forward makes one step a call and keeps its states, or as many as forward makes",
        )
    return Chain(chain.parts, chain.steps, chain.time_axis, (*chain.notes, *_reading_notes(tracer, chain, tensor)))


def _run(module: nn.Module, tracer: Tracer, tensor: Tensor, example: Example) -> list[Origin]:
    """One forward that loops over time, or ``steps`` forwards of one step each."""
    with tracer:
        returned = _forward(module, tracer, tensor, example)
        if not _one_step_a_call(tracer):
            return returned
        calls = len(tracer.calls)
        again = _forward(module, tracer, tensor, example)
    restarted = all(call.restarted for call in tracer.calls[calls:] if type(call.module) in STATES)
    if restarted or example.steps == 1:
        # Its states start anew in every call: a loop over a single step.
        del tracer.calls[calls:]
        return returned
    if example.steps is None:
        raise ModuleError(
            "the forward makes one time step a call, so the number of steps is not known",
            got="steps=None",
            allowed="steps=T, as many as your training loop makes",
        )
    with tracer:
        for _ in range(2, example.steps):
            again += _forward(module, tracer, tensor, example)
    return returned + again


def _one_step_a_call(tracer: Tracer) -> bool:
    return all(call.ordinal == 0 for call in tracer.calls if type(call.module) in STATES)


def _forward(module: nn.Module, tracer: Tracer, tensor: Tensor, example: Example) -> list[Origin]:
    tracer.mark_input(tensor)
    try:
        out = module(tensor, **arguments_of(module, example))
    except _FAILURES as error:
        _check_meant(tracer, example)
        raise ModuleError(
            "the forward fails on the example",
            where=f"{type(module).__name__}.forward, input of shape {list(tensor.shape)}",
            got=f"{type(error).__name__}: {error}",
            allowed="an example as your training loop passes it",
            next_step="check example_input (or input_shape) and forward_kwargs" + _hopeless(module),
        ) from error
    return tracer.origins(out)


def _hopeless(module: nn.Module) -> str:
    """Neurons that could not be taken even if the forward did not fail."""
    found = [f"{path} ({type(part).__name__})" for path, part in module.named_modules() if _foreign_neuron(part)]
    return f"; {', '.join(found)} could not be taken anyway: use snn.Leaky or snn.Synaptic" if found else ""


def _foreign_neuron(module: nn.Module) -> bool:
    return isinstance(module, SpikingNeuron) and type(module) not in STATES


def arguments_of(module: nn.Module, example: Example) -> dict[str, Any]:
    """Values of forward's further arguments: as given; a step count; None for states, which starts them at zero."""
    parameters = list(inspect.signature(module.forward).parameters.values())[1:]
    arguments: dict[str, Any] = dict(example.extra)
    for parameter in parameters:
        variadic = parameter.kind in (parameter.VAR_POSITIONAL, parameter.VAR_KEYWORD)
        if parameter.name in arguments or parameter.default is not parameter.empty or variadic:
            continue
        arguments[parameter.name] = example.steps if parameter.name in _STEP_NAMES else None
    return arguments


@contextmanager
def preserved(module: nn.Module) -> Iterator[None]:
    """Evaluation mode and fresh neuron states; every module's attributes and the generators are put back after."""
    held = [(part, dict(part.__dict__), dict(part._buffers), dict(part._parameters)) for part in module.modules()]
    with torch.random.fork_rng():
        try:
            for part in module.modules():
                part.training = False
                for state in STATES.get(type(part), ()):
                    setattr(part, state, torch.zeros(0, device=getattr(part, state).device))
            yield
        finally:
            for part, fields, buffers, parameters in held:
                part.__dict__.clear()
                part.__dict__.update(fields)
                part._buffers.clear()
                part._buffers.update(buffers)
                part._parameters.clear()
                part._parameters.update(parameters)


def _reading_notes(tracer: Tracer, chain: Chain, tensor: Tensor) -> list[str]:
    notes = []
    if tracer.reads:
        notes.append(f"forward reads values of {tracer.reads[0]} into Python; taken for a log without effect")
    if chain.time_axis == 1:
        notes.append("forward takes [B, T, ...]; this network takes [T, B, ...]")
    first = chain.parts[0].starts[0].given
    sample = tuple(tensor.shape[1:] if chain.time_axis is None else tensor.shape[2:])
    if first.dim() > 2 and tuple(first.shape[1:]) != sample:
        notes.append(f"forward reshapes a sample {sample} to {tuple(first.shape[1:])}; this network takes the latter")
    return notes
