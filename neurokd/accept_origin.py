"""What a trace is made of: module calls, and for each tensor where its values come from."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import snntorch  # type: ignore[import-untyped]
import torch
from snntorch._neurons import SpikingNeuron  # type: ignore[import-untyped]
from torch import Tensor, nn

#: The states a neuron hands out after its spikes, in order; exact types, a subclass may compute anything.
STATES: dict[type[nn.Module], tuple[str, ...]] = {snntorch.Leaky: ("mem",), snntorch.Synaptic: ("syn", "mem")}
SYNAPSES: tuple[type[nn.Module], ...] = (nn.Linear, nn.Conv2d)
POOLS: tuple[type[nn.Module], ...] = (nn.AvgPool2d,)
NORMS: tuple[type[nn.Module], ...] = (nn.BatchNorm1d, nn.BatchNorm2d)
DROPOUTS: tuple[type[nn.Module], ...] = (nn.Dropout, nn.Dropout1d, nn.Dropout2d)
RESHAPES: tuple[type[nn.Module], ...] = (nn.Flatten, nn.Unflatten, nn.Identity)
SUPPORTED = (*STATES, *SYNAPSES, *POOLS, *NORMS, *DROPOUTS, *RESHAPES)
_CONTAINERS = (nn.Sequential, nn.ModuleList, nn.ModuleDict, nn.Module)


@dataclass(eq=False)
class Call:
    """One call of a module: the ``ordinal``-th of this module; tensors are copies made at the time."""

    path: str
    module: nn.Module
    ordinal: int
    source: Origin
    given: Tensor
    output: Tensor | None = None
    problem: str = ""
    restarted: bool = False

    def __str__(self) -> str:
        return f"{self.path or 'the module itself'} ({type(self.module).__name__})"


@dataclass(frozen=True)
class Origin:
    """Where a tensor's values come from.

    ``kind``: ``input`` (``step`` None: all of it, else one step of ``axis``), ``output`` of ``call``, ``state`` of
    ``call`` (``text`` names it), ``record`` (outputs of ``calls``, one after the other), ``readout`` (a record after
    the functions ``text``), ``foreign`` (``text`` says what made it), ``outside`` (unknown to the tracer).
    """

    kind: str
    call: Call | None = None
    step: int | None = None
    axis: int = 0
    calls: tuple[Call, ...] = ()
    text: str = ""

    def __str__(self) -> str:
        if self.kind == "input":
            return "the input" if self.step is None else f"step {self.step} of the input"
        if self.kind == "output":
            return f"the output of {self.call}"
        if self.kind == "state":
            return f"'{self.text}' of {self.call}"
        if self.kind in ("record", "readout"):
            return f"the collected outputs of {self.calls[0]}"
        return self.text


#: Characters of a text that is no longer extended (a value that a loop changes at every step).
_LONG = 200
OUTSIDE = Origin("outside", text="a tensor that does not come from the input by torch functions")


def is_leaf(module: nn.Module) -> bool:
    """Whether the module is watched as a whole; other modules are the user's own code, watched function by function."""
    if isinstance(module, (*SUPPORTED, SpikingNeuron)):
        return True
    return type(module).__module__.split(".")[0] in ("torch", "snntorch") and type(module) not in _CONTAINERS


def tensors_in(values: Any) -> Iterator[Tensor]:
    """All tensors in nested tuples, lists and dicts, in order."""
    if isinstance(values, Tensor):
        yield values
    elif isinstance(values, Mapping):
        for value in values.values():
            yield from tensors_in(value)
    elif isinstance(values, (tuple, list)):
        for value in values:
            yield from tensors_in(value)


def same_values(a: Tensor, b: Tensor) -> bool:
    """Whether both hold the same values in row-major order, whatever their shapes."""
    if a is b:
        return True
    return math.prod(a.shape) == math.prod(b.shape) and torch.equal(a.reshape(-1), b.reshape(-1))


def function_name(func: Any) -> str:
    """Name of a torch function; of an attribute such as ``x.data`` that attribute's."""
    name = str(getattr(func, "__name__", func))
    return str(getattr(getattr(func, "__self__", None), "__name__", name)) if name == "__get__" else name


def foreign(name: str, sources: list[Origin]) -> Origin:
    """Origin of a result that no layer computes; its text says the function and what it was given."""
    source = next((origin for origin in sources if origin.kind != "foreign"), sources[0])
    if source.kind == "foreign" and len(source.text) > _LONG:
        return source
    return Origin("foreign", text=f"the result of torch function '{name}' on {source}")


def argument(args: tuple[Any, ...], kwargs: Mapping[str, Any], place: int, name: str, default: Any) -> Any:
    """An argument given by place or by name."""
    return args[place] if len(args) > place else kwargs.get(name, default)


def one_step(name: str, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Origin | None:
    """``x[t]``, ``x[:, t]``, ``x.select(axis, t)``: one step of the input, on axis 0 or 1."""
    if name == "select":
        axis, step = argument(args, kwargs, 1, "dim", 0), argument(args, kwargs, 2, "index", 0)
        return Origin("input", step=int(step), axis=int(axis))
    index = args[1] if isinstance(args[1], tuple) else (args[1],)
    numbers = [place for place, entry in enumerate(index) if isinstance(entry, int) and not isinstance(entry, bool)]
    rest = [entry for place, entry in enumerate(index) if place not in numbers]
    after_dots = any(entry is Ellipsis for entry in index[: numbers[0]]) if numbers else True
    if len(numbers) != 1 or after_dots or any(entry != slice(None) and entry is not Ellipsis for entry in rest):
        return None
    return Origin("input", step=index[numbers[0]], axis=numbers[0])


def not_fresh(name: str, state: object, given: Tensor) -> str:
    """Empty where the neuron starts from zero: snntorch itself replaces a state of another shape by zeros."""
    if isinstance(state, Tensor) and (state.shape != given.shape or not bool(state.any())):
        return ""
    return f"its '{name}' is not zero at the first step"
