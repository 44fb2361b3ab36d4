"""The neurons' backward scans where the forward pass ran elsewhere, e.g. in the chip's integers."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from deploy.errors import TrainingError
from neurokd.scans import Mode, Source, as_parameter, flattened, reverse
from neurokd.surrogates import Surrogate


def lif_backward(
    grad_spikes: Tensor,
    v_pre: Tensor,
    spikes: Tensor,
    beta: float | Tensor,
    threshold: float | Tensor,
    surrogate: Surrogate,
    *,
    held: bool = False,
    detach_reset: bool = False,
) -> Tensor:
    """dL/dcurrent of a LIF whose forward pass ran elsewhere, e.g. in the chip's integers.

    Args:
        grad_spikes: dL/dspikes [T, B, *shape], float32.
        v_pre: membranes before the reset [T, B, *shape], float32, in the units of ``threshold``.
        spikes: [T, B, *shape], 0.0 or 1.0, as the forward pass had them (``v_pre > threshold`` is not asked again).
        beta: decay, one number or a tensor that broadcasts to ``shape``.
        threshold: likewise.
        surrogate: the spike function's derivative.
        held: the current was held over time: sum its gradient.
        detach_reset: no gradient through the reset.

    Returns:
        [T, B, *shape], or [B, *shape] if ``held``, in the units of ``v_pre``: multiply by d v_pre / d(your current).

    Raises:
        TrainingError: shapes that differ, or tensors that are not float32 on the CPU.
    """
    parameters = (None, beta, threshold, None)
    return _given_backward(grad_spikes, v_pre, spikes, parameters, surrogate, held, detach_reset)[0]


def cuba_lif_backward(
    grad_spikes: Tensor,
    v_pre: Tensor,
    spikes: Tensor,
    alpha: float | Tensor,
    beta: float | Tensor,
    threshold: float | Tensor,
    surrogate: Surrogate,
    *,
    held: bool = False,
    detach_reset: bool = False,
) -> tuple[Tensor, Tensor]:
    """dL/dcurrent and dL/dbias of a CUBA-LIF whose forward pass ran elsewhere; arguments as in :func:`lif_backward`.

    Returns:
        The current's gradient [T, B, *shape] ([B, *shape] if ``held``), and the gradient of a bias on the membrane
        [B, *shape], summed over time: sum it over the batch for a parameter.

    Raises:
        TrainingError: as :func:`lif_backward`.
    """
    parameters = (alpha, beta, threshold, None)
    return _given_backward(grad_spikes, v_pre, spikes, parameters, surrogate, held, detach_reset)


def _given_backward(
    grad_spikes: Tensor,
    v_pre: Tensor,
    spikes: Tensor,
    parameters: tuple[float | Tensor | None, ...],
    surrogate: Surrogate,
    held: bool,
    detach_reset: bool,
) -> tuple[Tensor, Tensor]:
    _same(grad_spikes=grad_spikes, v_pre=v_pre, spikes=spikes)
    steps, batch = v_pre.shape[0], v_pre.shape[1:]
    size = math.prod(batch)
    params = tuple(flattened(as_parameter(p, batch, v_pre), batch[1:], v_pre) for p in parameters)
    filtered = params[0].numel() > 0
    source = Source(
        v_pre.detach().reshape(steps, size).contiguous(),
        spikes.detach().reshape(steps, size).contiguous(),
        (v_pre.new_zeros(size if filtered else 0), v_pre.new_zeros(size)),
        params,
    )
    grad_states = (v_pre.new_zeros(size if filtered else 0), v_pre.new_zeros(size))
    mode, wanted = Mode(steps, held, surrogate, detach_reset, True), (False, False, False, filtered)
    current, out = reverse(source, grad_spikes.reshape(steps, size), grad_states, wanted, mode, held)
    return current.view(batch if held else v_pre.shape), out[3].view(batch if filtered else (0,))


def _same(**tensors: Tensor) -> None:
    shape = tensors["v_pre"].shape
    for name, tensor in tensors.items():
        if tensor.shape != shape or tensor.dim() < 2 or tensor.dtype != torch.float32 or tensor.is_cuda:
            raise TrainingError(
                "the backward scan was given a tensor that does not fit",
                where=name,
                got=f"{tensor.dtype} {list(tensor.shape)} on {tensor.device}",
                allowed=f"torch.float32 {list(shape)} on the cpu, [T, B, *shape]",
            )
