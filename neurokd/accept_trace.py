"""Watching a user's forward once: which module's output enters which module, at which time step.

A :class:`Tracer` hooks every module that computes something and sits in torch's function dispatch
(``TorchFunctionMode``), so it knows for each tensor where its values come from (:class:`Origin`). Functions that keep
all values in row-major order (``flatten``, ``view``, ``detach``, ...) keep the origin. Anything else makes a
``foreign`` tensor: harmless in a log, refused by :mod:`neurokd.accept_chain` on the way from input to output.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode
from torch.utils.hooks import RemovableHandle

from neurokd.accept_origin import (
    OUTSIDE,
    STATES,
    SUPPORTED,
    Call,
    Origin,
    argument,
    foreign,
    function_name,
    is_leaf,
    not_fresh,
    one_step,
    same_values,
    tensors_in,
)  # fmt: skip

#: Functions that may keep all values in row-major order; whether this call did is checked on the values.
_RESHAPING = {"flatten", "unflatten", "view", "view_as", "reshape", "reshape_as", "ravel", "squeeze", "unsqueeze"}
_RESHAPING |= {"contiguous", "clone", "detach", "detach_", "alias", "to", "float", "type", "type_as", "cpu", "data"}
_COLLECTING = {"stack", "cat", "concat", "concatenate", "vstack"}
#: What a forward may do to its collected output spikes before it returns them.
_READOUT = {"sum", "mean", "permute", "transpose", "swapaxes", "swapdims", "movedim"}
_READS = {"item", "tolist", "numpy", "__array__", "__float__", "__int__", "__index__", "equal", "allclose"}


@dataclass
class _Known:
    tensor: Tensor
    origin: Origin
    values: Tensor | None = None


class Tracer(TorchFunctionMode):
    """Records the calls of one or several forwards of ``root``; use as a context around them."""

    def __init__(self, root: nn.Module) -> None:
        super().__init__()
        self.calls: list[Call] = []
        self.reads: list[str] = []
        self.branches: list[str] = []
        self.step_reads = False
        self._root = root
        self._known: dict[int, _Known] = {}
        self._inside = 0
        self._last: dict[nn.Module, dict[str, Tensor]] = {}
        self._counts: dict[nn.Module, int] = {}
        self._handles: list[RemovableHandle] = []

    def __enter__(self) -> Tracer:
        for path, module in self._root.named_modules():
            if is_leaf(module):
                self._handles += [
                    module.register_forward_pre_hook(self._before(path), with_kwargs=True),
                    module.register_forward_hook(self._after, with_kwargs=True),
                ]
        super().__enter__()  # type: ignore[no-untyped-call]
        return self

    def __exit__(self, *exception: Any) -> None:
        super().__exit__(*exception)  # type: ignore[no-untyped-call]
        for handle in self._handles:
            handle.remove()
        self._handles.clear()

    def mark_input(self, example: Tensor) -> None:
        """Make ``example`` the network's input."""
        with self._paused():
            self._mark(example, Origin("input"), example.detach().clone())

    def origin(self, tensor: Tensor) -> Origin:
        """Where ``tensor`` comes from; a tensor changed in place since it was made is foreign."""
        known = self._known.get(id(tensor))
        if known is None:
            return OUTSIDE
        if known.values is not None and not same_values(known.values, tensor):
            return Origin("foreign", text=f"{known.origin}, changed in place")
        return known.origin

    def origins(self, values: Any) -> list[Origin]:
        """The origin of every tensor in nested tuples, lists and dicts."""
        with self._paused():
            return [self.origin(value) for value in tensors_in(values)]

    def _mark(self, tensor: Tensor, origin: Origin, values: Tensor | None = None) -> None:
        # The tensor is kept, so that its id cannot be given to another one while the trace lives.
        self._known[id(tensor)] = _Known(tensor, origin, values)

    def _values(self, tensor: Tensor, origin: Origin) -> Tensor:
        """A copy of ``tensor`` that nobody writes to: the one already held, where the origin says it is the same."""
        known = self._known.get(id(tensor))
        if known is None or known.values is None or origin.kind == "foreign":
            return tensor.detach().clone()
        return known.values.reshape(tensor.shape)

    # -- modules ------------------------------------------------------------------------------------------------

    @contextmanager
    def _paused(self) -> Iterator[None]:
        """Functions called within are the tracer's or a watched module's own and leave no trace."""
        self._inside += 1
        yield
        self._inside -= 1

    def _before(self, path: str) -> Callable[..., None]:
        def hook(module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
            if not self._inside:
                with self._paused():
                    self.calls.append(self._begin(path, module, args, kwargs))
            self._inside += 1

        return hook

    def _begin(self, path: str, module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Call:
        given = next(tensors_in((args, kwargs)), torch.zeros(0))
        ordinal = self._counts.get(module, 0)
        self._counts[module] = ordinal + 1
        origin = self.origin(given)
        call = Call(path, module, ordinal, origin, self._values(given, origin))
        if type(module) in STATES:
            self._check_states(call, args, kwargs)
        return call

    def _after(self, module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any], out: Any) -> None:
        if self._inside == 1:
            self._finish(self.calls[-1], list(tensors_in(out)))
        self._inside -= 1

    def _finish(self, call: Call, outs: list[Tensor]) -> None:
        if type(call.module) in SUPPORTED:
            call.output = outs[0].detach().clone()
            self._mark(outs[0], Origin("output", call), call.output)
            self._mark_states(call, call.module)
            return
        for tensor in outs:
            self._mark(tensor, Origin("foreign", text=f"the output of {call}"))

    def _mark_states(self, call: Call, module: nn.Module) -> None:
        self._last[module] = {name: getattr(module, name) for name in STATES.get(type(module), ())}
        for name, state in self._last[module].items():
            self._mark(state, Origin("state", call, text=name))

    def _check_states(self, call: Call, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> None:
        names = STATES[type(call.module)]
        handed = {**dict(zip(names, args[1:], strict=False)), **kwargs}
        for name in names:
            state = handed.get(name)
            state = getattr(call.module, name) if state is None else state
            if call.ordinal == 0:
                call.problem = call.problem or not_fresh(name, state, call.given)
            elif not self._carries(call, name, state):
                call.problem = f"its '{name}' at this step is not the one it returned at the step before"
                call.restarted = isinstance(state, Tensor) and not bool(state.any())

    def _carries(self, call: Call, name: str, state: object) -> bool:
        last = self._last[call.module][name]
        if not isinstance(state, Tensor):
            return False
        origin = self.origin(state)
        return origin.kind == "state" and origin.text == name and self.origin(last) == origin

    # -- functions ----------------------------------------------------------------------------------------------

    def __torch_function__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        kwargs = kwargs or {}
        out = func(*args, **kwargs)
        if not self._inside:
            self._follow(function_name(func), args, kwargs, out)
        return out

    def _follow(self, name: str, args: tuple[Any, ...], kwargs: dict[str, Any], out: Any) -> None:
        sources = [self._known[id(t)].origin for t in tensors_in((args, kwargs)) if id(t) in self._known]
        if not sources:
            return
        if name == "__setitem__":
            self._put(args)
        elif name in ("__bool__", "is_nonzero"):
            self.branches.append(str(sources[0]))
        elif name in _READS:
            self.reads.append(str(sources[0]))
        elif name == "unbind" and isinstance(out, Sequence) and self._whole_input(args[0]):
            axis = argument(args, kwargs, 1, "dim", 0)
            self.step_reads = True
            for step, tensor in enumerate(out):
                origin = Origin("input", step=step, axis=int(axis))
                self._mark(tensor, origin, self._held(args, origin, tensor))
        else:
            for tensor in tensors_in(out):
                origin = self._derive(name, args, kwargs, tensor, sources)
                self._mark(tensor, origin, self._held(args, origin, tensor))

    def _held(self, args: tuple[Any, ...], origin: Origin, out: Tensor) -> Tensor | None:
        """The copy of ``out``'s values that a copy of its source's values already is."""
        source = self._known.get(id(args[0])) if args else None
        if source is None or source.values is None or origin.kind not in ("input", "output"):
            return None
        if origin.step is None or origin is source.origin:
            return source.values.reshape(out.shape)
        return source.values.select(origin.axis, origin.step)

    def _derive(
        self, name: str, args: tuple[Any, ...], kwargs: dict[str, Any], out: Tensor, sources: list[Origin]
    ) -> Origin:
        if name in _COLLECTING:
            return self._collect(args, kwargs, out, sources)
        if not args or not isinstance(args[0], Tensor) or id(args[0]) not in self._known:
            return foreign(name, sources)
        origin = self.origin(args[0])
        if name in _RESHAPING and args[0].dtype == out.dtype and same_values(args[0], out):
            return origin
        if name in ("__getitem__", "select") and self._whole_input(args[0]):
            step = one_step(name, args, kwargs)
            self.step_reads = self.step_reads or step is not None
            return step or foreign(name, sources)
        if name in _READOUT and origin.kind in ("record", "readout") and (len(args) > 1 or kwargs):
            return Origin("readout", calls=origin.calls, text=f"{origin.text} {name}".strip())
        return foreign(name, sources)

    def _whole_input(self, tensor: Tensor) -> bool:
        origin = self.origin(tensor)
        return origin.kind == "input" and origin.step is None

    def _collect(self, args: tuple[Any, ...], kwargs: dict[str, Any], out: Tensor, sources: list[Origin]) -> Origin:
        items: Sequence[Tensor] = argument(args, kwargs, 0, "tensors", ())
        origins = [self.origin(item) for item in items]
        calls = tuple(origin.call for origin in origins if origin.kind == "output" and origin.call is not None)
        axis = int(argument(args, kwargs, 1, "dim", 0))
        if len(calls) == len(origins) and out.shape[axis : axis + 1] == (len(items),):
            return Origin("record", calls=calls)
        return foreign("stack", sources)

    def _put(self, args: tuple[Any, ...]) -> None:
        """``record[step] = spikes``: the common way to collect into a tensor made before the loop."""
        target, index, value = args
        held = self._known[id(target)].origin if id(target) in self._known else Origin("record")
        origin = self.origin(value) if isinstance(value, Tensor) else OUTSIDE
        in_order = isinstance(index, int) and index == len(held.calls)
        if held.kind == "record" and origin.kind == "output" and origin.call is not None and in_order:
            self._mark(target, Origin("record", calls=(*held.calls, origin.call)))
        else:
            self._mark(target, Origin("foreign", text=f"a tensor written to piece by piece ({origin} among them)"))
