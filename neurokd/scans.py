"""The scans over time as differentiable torch functions: fused (numba), and as a plain loop for everything else.

For users there are :mod:`neurokd.neurons` and :mod:`neurokd.functional`. Quantization, whose forward pass is in
integers, takes the backward scans alone (:mod:`neurokd.backward_scans`).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from deploy.errors import TrainingError
from neurokd import kernels
from neurokd.lif_scans import LifMode, LifScan, channels_inside
from neurokd.surrogates import SpikeFunction, Surrogate


@dataclass(frozen=True)
class Neuron:
    """What a scan computes from: parameters, and states [B, *shape] before the first step.

    ``alpha`` and ``i0`` are None in a plain LIF, ``bias`` where there is none.
    """

    alpha: Tensor | None
    beta: Tensor
    threshold: Tensor
    bias: Tensor | None
    i0: Tensor | None
    v0: Tensor


@dataclass(frozen=True)
class Mode:
    """How a scan runs: T steps, the current held or not, the spike function, the reset detached or not.

    ``spikes`` is their type, the current's where it is None.
    """

    steps: int
    held: bool
    surrogate: Surrogate | SpikeFunction
    detach_reset: bool
    fused: bool
    spikes: torch.dtype | None = None


def scan(current: Tensor, neuron: Neuron, mode: Mode) -> tuple[Tensor, Tensor | None, Tensor]:
    """Spikes [T, B, *shape] and the last states i (None in a LIF) and v; fused where the kernels can take it."""
    kind = mode.spikes or current.dtype
    if not (mode.fused and current.device.type == "cpu" and isinstance(mode.surrogate, Surrogate)):
        spikes, i, v = _loop(_widen(current), neuron, mode)
    elif channels_inside(current, 1 if mode.held else 2):
        spikes, i, v = _back_in_order(*scan(current.movedim(-3, -1), _channels_last(neuron), mode))
    elif current.dtype in _PLAIN and kind in _PLAIN and _is_plain(neuron):
        spikes, i, v = _plain(current, neuron, mode, kind)
    elif _widen(current).dtype == torch.float32:
        spikes, i, v = _fused(_widen(current), neuron, mode)
    else:
        spikes, i, v = _loop(current, neuron, mode)
    return spikes.to(kind), i, v


_PLAIN = (torch.float32, torch.bfloat16)


def _widen(current: Tensor) -> Tensor:
    return current.float() if current.dtype in (torch.bfloat16, torch.float16) else current


def _is_plain(neuron: Neuron) -> bool:
    """Whether :mod:`neurokd.lif_kernels` can take it: a LIF with one decay and one threshold, neither learned."""
    shared = all(p.numel() == 1 and not p.requires_grad for p in (neuron.beta, neuron.threshold))
    return shared and neuron.alpha is None and neuron.bias is None


def _plain(current: Tensor, neuron: Neuron, mode: Mode, kind: torch.dtype) -> tuple[Tensor, None, Tensor]:
    if not isinstance(mode.surrogate, Surrogate):
        raise RuntimeError("the fused scan was reached with a surrogate it does not know")
    batch = neuron.v0.shape
    size = math.prod(batch)
    beta, threshold = float(neuron.beta), float(neuron.threshold)
    how = LifMode(mode.steps, beta, threshold, mode.surrogate, mode.detach_reset, kind)
    flat = current.reshape(1 if mode.held else mode.steps, size).contiguous()
    spikes, v = LifScan.apply(flat, neuron.v0.reshape(-1).contiguous(), how)  # type: ignore[no-untyped-call]
    return spikes.view(mode.steps, *batch), None, v.view(batch)


def _channels_last(neuron: Neuron) -> Neuron:
    """The neuron for a current [.., H, W, C]."""
    shape = neuron.v0.shape[1:]

    def moved(parameter: Tensor) -> Tensor:
        if parameter.numel() == 1:
            return parameter
        whole = parameter if parameter.dim() >= len(shape) else parameter.expand(shape)
        return whole.movedim(-3, -1)

    def optional(parameter: Tensor | None) -> Tensor | None:
        return None if parameter is None else moved(parameter)

    return Neuron(
        alpha=optional(neuron.alpha),
        beta=moved(neuron.beta),
        threshold=moved(neuron.threshold),
        bias=optional(neuron.bias),
        i0=optional(neuron.i0),
        v0=moved(neuron.v0),
    )


def _back_in_order(spikes: Tensor, i: Tensor | None, v: Tensor) -> tuple[Tensor, Tensor | None, Tensor]:
    return spikes.movedim(-1, -3), None if i is None else i.movedim(-1, -3), v.movedim(-1, -3)


def _loop(current: Tensor, neuron: Neuron, mode: Mode) -> tuple[Tensor, Tensor | None, Tensor]:
    i, v, spikes = neuron.i0, neuron.v0, []
    for t in range(mode.steps):
        x = current if mode.held else current[t]
        if neuron.alpha is not None and i is not None:
            i = x = neuron.alpha * i + x
        v = neuron.beta * v + x
        if neuron.bias is not None:
            v = v + neuron.bias
        s = mode.surrogate(v - neuron.threshold).to(v.dtype)
        v = v - (s.detach() if mode.detach_reset else s) * v
        spikes.append(s)
    return torch.stack(spikes), i, v


def _fused(current: Tensor, neuron: Neuron, mode: Mode) -> tuple[Tensor, Tensor | None, Tensor]:
    batch = neuron.v0.shape
    size, shape = math.prod(batch), batch[1:]
    i0 = current.new_empty(0) if neuron.i0 is None else neuron.i0
    parameters = (neuron.alpha, neuron.beta, neuron.threshold, neuron.bias)
    spikes, i, v = _Scan.apply(  # type: ignore[no-untyped-call]
        current.reshape(1 if mode.held else mode.steps, size).contiguous(),
        i0.reshape(-1).contiguous(),
        neuron.v0.reshape(-1).contiguous(),
        *(flattened(parameter, shape, current) for parameter in parameters),
        mode,
    )
    return spikes.view(mode.steps, *batch), None if neuron.i0 is None else i.view(batch), v.view(batch)


def flattened(parameter: Tensor | None, shape: torch.Size, like: Tensor) -> Tensor:
    """A parameter as the kernels want it: [1] if shared, [N] if per neuron, [0] if absent; [C] if C is innermost."""
    if parameter is None:
        return like.new_empty(0)
    if parameter.numel() == 1:
        return parameter.reshape(1)
    if parameter.dim() == len(shape) and parameter.numel() == shape[-1] == parameter.shape[-1]:
        return parameter.reshape(-1).contiguous()
    return parameter.expand(shape).reshape(-1).contiguous()


def _array(tensor: Tensor) -> kernels.F32:
    array: kernels.F32 = tensor.detach().numpy()
    return array


def _arrays(*tensors: Tensor) -> Any:
    return tuple(_array(tensor) for tensor in tensors)


class _Scan(torch.autograd.Function):
    """The fused scan. Tensors: current [T or 1, M], states [M] or [0], parameters [0], [1] or [N]; all float32."""

    @staticmethod
    def forward(
        ctx: Any, current: Tensor, i0: Tensor, v0: Tensor, alpha: Tensor, beta: Tensor, threshold: Tensor,
        bias: Tensor, mode: Mode,
    ) -> tuple[Tensor, Tensor, Tensor]:  # fmt: skip
        ctx.save_for_backward(current, i0, v0, alpha, beta, threshold, bias)
        ctx.mode = mode
        spikes = current.new_empty(mode.steps, current.shape[1])
        i_last, v_last = torch.empty_like(i0), torch.empty_like(v0)
        kernels.forward(
            _array(current),
            _arrays(i0, v0),
            _arrays(alpha, beta, threshold, bias),
            _array(spikes),
            _arrays(i_last, v_last),
            threads=torch.get_num_threads(),
        )
        return spikes, i_last, v_last

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        current, i0, v0, *params = ctx.saved_tensors
        grad_i, grad_v, wanted = grads[1].clone(), grads[2].clone(), ctx.needs_input_grad[3:7]
        source = Source(current, current.new_empty(0, current.shape[1]), (i0, v0), tuple(params))
        grad_current, out = reverse(source, grads[0], (grad_i, grad_v), wanted, ctx.mode, current.shape[0] == 1)
        reduced = [_reduce(*triple) for triple in zip(out, params, wanted, strict=True)]
        return (grad_current, grad_i, grad_v, *reduced, None)


@dataclass(frozen=True)
class Source:
    """What a backward scan starts from: the current, or given membranes [T, M] and their spikes [T, M]."""

    values: Tensor
    given: Tensor
    states: tuple[Tensor, Tensor]
    params: tuple[Tensor, ...]


def reverse(
    source: Source,
    grad_spikes: Tensor,
    grad_states: tuple[Tensor, Tensor],
    wanted: Sequence[bool],
    mode: Mode,
    summed: bool,
) -> tuple[Tensor, list[Tensor]]:
    """dL/dcurrent [T, M], [1, M] if ``summed``; dL/dparameter [M] each; ``grad_states`` change in place."""
    steps, size = grad_spikes.shape
    like, surrogate = source.values, mode.surrogate
    if not isinstance(surrogate, Surrogate):
        raise RuntimeError("the backward scan was reached with a surrogate it does not know")
    grad_current = like.new_zeros(1, size) if summed or steps == 1 else like.new_empty(steps, size)
    out = [like.new_zeros(size if want else 0) for want in wanted]
    kernels.backward(
        _array(like),
        _array(source.given),
        _arrays(*source.states),
        _arrays(*source.params),
        (surrogate.code, float(surrogate.slope), 0.0 if mode.detach_reset else 1.0),
        _array(grad_spikes.contiguous()),
        _arrays(*grad_states),
        _array(grad_current),
        _arrays(*out),
        threads=torch.get_num_threads(),
    )
    return grad_current, out


def _reduce(grad: Tensor, values: Tensor, wanted: bool) -> Tensor | None:
    """Sum a gradient [M] over the batch, and over the neurons too where they share one value."""
    return grad.view(-1, values.numel()).sum(0) if wanted else None


def as_parameter(value: float | Tensor | None, batch: torch.Size, like: Tensor, name: str = "parameter") -> Any:
    """A neuron parameter as a tensor of ``like``'s dtype: 0-D, or a shape that broadcasts to ``batch[1:]``.

    Raises:
        TrainingError: for a shape that does not.
    """
    if value is None:
        return None
    tensor = torch.as_tensor(value, dtype=like.dtype, device=like.device)
    if tensor.numel() == 1:
        return tensor.reshape(())
    expected = list(batch[1:])
    trailing = expected[len(expected) - tensor.dim() :]
    if tensor.dim() > len(expected) or any(a not in (1, b) for a, b in zip(tensor.shape, trailing, strict=True)):
        raise TrainingError(
            "a neuron parameter does not fit the neurons",
            where=name,
            got=list(tensor.shape),
            allowed=f"one number, or a shape that broadcasts to {expected}",
        )
    return tensor
