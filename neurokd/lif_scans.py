"""Plain LIF layers as differentiable torch functions on :mod:`neurokd.lif_kernels`: alone, and behind a batch norm.

Memory order: tensors ``[.., C, H, W]`` may be channels last, as the convolutions here make them; a scan walks over
memory as it lies, and gives its spikes and gradients in the same order.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from neurokd import lif_kernels
from neurokd.parallel import of_first, total
from neurokd.surrogates import Surrogate

_NO_NORM = (np.empty(0, np.float32),) * 3


@dataclass(frozen=True)
class LifMode:
    """How a plain LIF layer runs: T steps, one decay and threshold, and the type of its spikes."""

    steps: int
    beta: float
    threshold: float
    surrogate: Surrogate
    detach_reset: bool
    spikes: torch.dtype

    @property
    def code(self) -> tuple[int, float, float]:
        """The surrogate as the kernels want it."""
        return self.surrogate.code, float(self.surrogate.slope), 0.0 if self.detach_reset else 1.0


def values(tensor: Tensor) -> lif_kernels.Values:
    """The tensor's memory: float32, or bfloat16 as uint16."""
    plain = tensor.detach()
    return plain.view(torch.int16).numpy().view(np.uint16) if plain.dtype == torch.bfloat16 else plain.numpy()


def channels_inside(x: Tensor, lead: int) -> bool:
    """Whether ``x`` [*lead, C, H, W] lies in memory with its channels innermost."""
    return x.dim() == lead + 3 and not x.is_contiguous() and x.movedim(-3, -1).is_contiguous()


class LifScan(torch.autograd.Function):
    """current [T or 1, M], v0 [M] -> spikes [T, M], last v [M]."""

    @staticmethod
    def forward(ctx: Any, current: Tensor, v0: Tensor, mode: LifMode) -> tuple[Tensor, Tensor]:
        ctx.save_for_backward(current, v0)
        ctx.mode = mode
        spikes = current.new_empty((mode.steps, current.shape[1]), dtype=mode.spikes)
        last = torch.empty_like(v0)
        lif_kernels.forward(
            values(current), values(v0), mode.beta, mode.threshold, _NO_NORM, values(spikes), values(last),
            threads=torch.get_num_threads(),
        )  # fmt: skip
        return spikes, last

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        current, v0 = ctx.saved_tensors
        mode, grad_v, out = ctx.mode, grads[1].clone(), torch.empty_like(current)
        lif_kernels.backward(
            values(current), values(v0), mode.beta, mode.threshold, _NO_NORM, mode.code,
            values(grads[0].contiguous()), values(grad_v), values(out), threads=torch.get_num_threads(),
        )  # fmt: skip
        return out, grad_v, None


class NormLifScan(torch.autograd.Function):
    """raw [T, M] channels innermost, norm's scale and shift [C] -> spikes [T, M]; the batch's mean, variance, count."""

    @staticmethod
    def forward(
        ctx: Any, raw: Tensor, weight: Tensor, bias: Tensor, eps: float, mode: LifMode
    ) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        threads = torch.get_num_threads()
        memory = values(raw)
        mean, variance, count = _statistics(memory, len(weight), threads)
        deviation = 1.0 / np.sqrt(variance + eps)
        scale = values(weight).astype(np.float64) * deviation
        shift = values(bias).astype(np.float64) - mean * scale
        norm = (scale.astype(np.float32), shift.astype(np.float32), mean.astype(np.float32))
        ctx.save_for_backward(raw, weight)
        ctx.kept = (mode, norm, deviation, count)
        spikes = raw.new_empty(raw.shape, dtype=mode.spikes)
        v = np.zeros(raw.shape[1], np.float32)
        lif_kernels.forward(memory, v, mode.beta, mode.threshold, norm, values(spikes), v, threads=threads)
        found = (torch.from_numpy(mean), torch.from_numpy(variance), torch.tensor(count))
        ctx.mark_non_differentiable(*found)
        return spikes, *found

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        raw, weight = ctx.saved_tensors
        mode, norm, deviation, count = ctx.kept
        threads, memory, out = torch.get_num_threads(), values(raw), torch.empty_like(raw)
        v = np.zeros(raw.shape[1], np.float32)
        own = lif_kernels.backward(
            memory, v, mode.beta, mode.threshold, norm, mode.code, values(grads[0].contiguous()), v.copy(),
            values(out), threads=threads,
        )  # fmt: skip
        first, second = total(torch.from_numpy(own)).numpy() / count
        a = values(weight).astype(np.float64) * deviation
        b = -a * deviation**2 * second
        factors = np.stack([a, b, -a * first - b * norm[2]]).astype(np.float32)
        lif_kernels.norm_back(values(out).reshape(-1), memory.reshape(-1), factors, threads=threads)
        grad_weight = torch.from_numpy((own[1] * deviation).astype(np.float32))
        return out, grad_weight, torch.from_numpy(own[0].astype(np.float32)), None, None


def _statistics(raw: lif_kernels.Values, channels: int, threads: int) -> tuple[Any, Any, int]:
    """Mean and biased variance a channel (float64), and the values of one channel, over every process."""
    flat = raw.reshape(-1)
    row = flat[:channels]
    origin = row if row.dtype == np.float32 else (row.astype(np.uint32) << 16).view(np.float32)
    local = torch.from_numpy(lif_kernels.moments(flat, np.ascontiguousarray(origin), threads=threads))
    first, second, count, start = _combined(local, torch.from_numpy(origin.astype(np.float64)), flat.size // channels)
    mean = first / count
    return start + mean, np.maximum(second / count - mean**2, 0.0), count


def _combined(sums: Tensor, origin: Tensor, count: int) -> tuple[Any, Any, int, Any]:
    """The sums of every process about one origin, rank 0's."""
    shared = of_first(origin)
    move = origin - shared
    first = sums[0] + count * move
    second = sums[1] + 2.0 * move * sums[0] + count * move**2
    every = total(torch.cat([first, second, torch.tensor([float(count)], dtype=torch.float64)])).numpy()
    channels = len(origin)
    return every[:channels], every[channels:-1], int(every[-1]), shared.numpy()


def norm_lif(
    raw: Tensor, weight: Tensor, bias: Tensor, eps: float, mode: LifMode
) -> tuple[Tensor, Tensor, Tensor, int]:
    """Batch norm in training and LIF in one.

    Args:
        raw: the synapse's output [T * B, C, H, W], channels last, float32 or bfloat16.
        weight: the norm's scale [C], float32.
        bias: the norm's shift [C].
        eps: the norm's.
        mode: T and the neurons.

    Returns:
        spikes [T, B, C, H, W] (channels last); mean and biased variance [C], float64; values a channel.
    """
    inside = raw.movedim(1, -1)
    size = math.prod(inside.shape) // mode.steps
    spikes, mean, variance, count = NormLifScan.apply(  # type: ignore[no-untyped-call]
        inside.reshape(mode.steps, size), weight, bias, eps, mode
    )
    shape = (mode.steps, inside.shape[0] // mode.steps, *inside.shape[1:])
    return spikes.view(shape).movedim(-1, -3), mean, variance, int(count)
