"""Torch functions on whole numbers: the chip's arithmetic forward, straight-through and surrogate gradients backward.

Synaptic sums are float32 matrix products and convolutions of whole numbers, exact because no partial sum reaches 2^24
(:func:`neurokd.layer_grid.check_sums`). The neurons run in the simulator's own compiled integer rules: 24-bit state
times a 12-bit decay fits no float32.
"""

from __future__ import annotations

import math
import os
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Any, Final

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from deploy import fixed_point as fp
from deploy.simulator import neurons
from neurokd.backward_scans import cuba_lif_backward, lif_backward
from neurokd.grid import project
from neurokd.layer_grid import LARGEST_BIAS, MEMORYLESS, LayerGrid, round_to_grid
from neurokd.learned_grid import Moving
from neurokd.lif_scans import channels_inside
from neurokd.surrogates import Surrogate

PARALLEL_FROM: Final = 1 << 17  # element-steps; below, a second thread costs more than it brings


@contextmanager
def exact_products() -> Iterator[None]:
    """Keep torch's products exact: no autocast (bfloat16 sums), no NNPACK (Winograd convolutions, fractions).

    torch takes NNPACK for convolutions where oneDNN is off or absent; measured error of a 16-channel 3 x 3 one: 0.19.
    """
    with torch.autocast("cpu", enabled=False), torch.backends.nnpack.flags(enabled=False):
        yield


def integer_weights(weight: Tensor, grid: LayerGrid, unit: Tensor | None = None) -> Tensor:
    """Float weights as the chip's whole numbers; the gradient goes straight through, not out of the grid.

    ``unit`` is ``grid.weight_unit`` as a tensor with a gradient, where the scale is learned.
    """
    units = weight / (grid.weight_unit if unit is None else unit)
    return round_to_grid(units, grid.weight_bits, grid.sign_mode)


def integer_biases(bias: Tensor) -> Tensor:
    """The biases the chip adds, ``bias_mant << bias_exp`` with one exponent for all; halves round up.

    Args:
        bias: ``[C]`` in 1/64 units of a synaptic sum, magnitude at most :data:`LARGEST_BIAS`.

    Returns:
        float64 whole numbers ``[C]``, without gradient.
    """
    values = bias.detach().double()
    step = float(1 << fp.bias_exponent(math.floor(float(values.abs().max()) + 0.5)))
    rounded: Tensor = torch.floor(values / step + 0.5) * step
    return rounded


def shift(sums: Tensor, exponent: int) -> Tensor:
    """``floor(sums * 2^exponent)``, the chip's ``weight_exp``; the gradient is the product's."""
    shifted: Tensor = _Shift.apply(sums, exponent) if exponent else sums  # type: ignore[no-untyped-call]
    return shifted


class _Shift(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, sums: Tensor, exponent: int) -> Tensor:
        ctx.factor = 2.0**exponent
        shifted: Tensor = sums * ctx.factor
        return shifted.floor_()

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, None]:
        return grads[0] * ctx.factor, None


@dataclass(frozen=True)
class NeuronRule:
    """What the neurons of a layer compute with, how their gradient is taken, and which axis of their shape the channels
    are on: 0, or -1 of images channels last."""

    grid: LayerGrid
    surrogate: Surrogate
    detach_reset: bool = False
    channels: int = 0

    def by_channel(self, values: Tensor) -> Tensor:
        """Sums ``[C]`` of ``[B, *shape]``."""
        axis = 1 + self.channels % (values.dim() - 1)
        return values.sum([other for other in range(values.dim()) if other != axis])


def spikes_of(
    sums: Tensor, bias: Tensor, rule: NeuronRule, steps: int | None = None, moving: Moving | None = None
) -> Tensor:
    """All steps of one layer of neurons.

    Args:
        sums: float32 whole numbers ``[T, B, *shape]``; with ``steps`` ``[B, *shape]``, the same at every step. Images
            whose channels lie innermost in memory stay so, and so do the spikes.
        bias: ``[C]`` in 1/64 units of a sum, not yet rounded; its gradient goes straight through the rounding, but not
            beyond what mantissa and exponent can hold.
        rule: Thresholds, decays, surrogate.
        steps: T of held sums.
        moving: Threshold and decays that are learned; their values are those of ``rule.grid``.

    Returns:
        float32 spikes ``[T, B, *shape]``. Gradients: those of a float neuron with these membranes and spikes.
    """
    if channels_inside(sums, 2 if steps is None else 1):
        inside = replace(rule, channels=-1)
        return spikes_of(sums.movedim(-3, -1), bias, inside, steps, moving).movedim(-1, -3)
    held = project(bias, -float(LARGEST_BIAS), float(LARGEST_BIAS), 0)
    if not torch.is_grad_enabled():
        return scan(sums, integer_biases(held), rule.grid, steps, rule.channels)[0]
    if moving is None or (moving.vth is None and moving.beta is None and moving.alpha is None):
        spikes: Tensor = _Neurons.apply(sums, held, rule, steps)  # type: ignore[no-untyped-call]
        return spikes
    learned: Tensor = _LearnedNeurons.apply(  # type: ignore[no-untyped-call]
        sums, held, moving.vth, moving.beta, moving.alpha, rule, steps
    )
    return learned


class _LearnedNeurons(torch.autograd.Function):
    """As :class:`_Neurons`, with gradients to the threshold mantissa and the decays.

    With g[t] = dL/dv[t] before the reset (v[t] = beta v'[t-1] + i[t] + bias, v' = v (1 - s), i[t] = alpha i[t-1] + I):
    dL/dbeta = sum g[t] v'[t-1]; dL/dalpha = sum dL/di[t] i[t-1]; and the threshold takes, with the opposite sign, what
    reaches v through the spike: g[t] - beta g[t+1] (1 - s[t]).
    """

    @staticmethod
    def forward(
        ctx: Any, sums: Tensor, bias: Tensor, vth: Tensor | None, beta: Tensor | None, alpha: Tensor | None,
        rule: NeuronRule, steps: int | None,
    ) -> Tensor:  # fmt: skip
        spikes, membranes = scan(sums, integer_biases(bias), rule.grid, steps, rule.channels)
        ctx.save_for_backward(spikes, membranes.mul_(rule.grid.scale), sums)
        ctx.rule, ctx.held = rule, steps is not None
        ctx.wanted = tuple(value is not None for value in (vth, beta, alpha))
        return spikes

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        spikes, membranes, sums = ctx.saved_tensors
        rule: NeuronRule = ctx.rule
        grid, options = rule.grid, {"detach_reset": rule.detach_reset}
        common = (grid.beta, grid.threshold, rule.surrogate)
        if grid.du == MEMORYLESS:
            currents = on_membrane = lif_backward(grads[0], membranes, spikes, *common, **options)
        else:
            currents, _ = cuba_lif_backward(grads[0], membranes, spikes, grid.alpha, *common, **options)
            on_membrane = currents.clone()
            on_membrane[:-1] -= grid.alpha * currents[1:]
        on_vth, on_beta, on_alpha = ctx.wanted
        rest = membranes * (1.0 - spikes)
        through = on_membrane.clone()
        through[:-1] -= grid.beta * on_membrane[1:] * (1.0 - spikes[:-1])
        return (
            (currents.sum(0) if ctx.held else currents) * grid.scale,
            rule.by_channel(on_membrane.sum(0)) * grid.bias_unit,
            -through.sum() * grid.scale if on_vth else None,
            (on_membrane[1:] * rest[:-1]).sum() if on_beta else None,
            _on_alpha(currents, sums, grid) if on_alpha else None,
            None,
            None,
        )


def _on_alpha(currents: Tensor, sums: Tensor, grid: LayerGrid) -> Tensor:
    """dL/dalpha: the current is computed again, in floats."""
    total, current = sums.new_zeros(()), torch.zeros_like(currents[0])
    for step, grad in enumerate(currents):
        total = total + (grad * current).sum()
        current = grid.alpha * current + (sums[step] if sums.shape == currents.shape else sums) * grid.scale
    return total


class _Neurons(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, sums: Tensor, bias: Tensor, rule: NeuronRule, steps: int | None) -> Tensor:
        spikes, membranes = scan(sums, integer_biases(bias), rule.grid, steps, rule.channels)
        ctx.save_for_backward(spikes, membranes.mul_(rule.grid.scale))
        ctx.rule, ctx.held = rule, steps is not None
        return spikes

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, Tensor, None, None]:
        spikes, membranes = ctx.saved_tensors
        rule: NeuronRule = ctx.rule
        grid = rule.grid
        common = (grid.beta, grid.threshold, rule.surrogate)
        options = {"held": ctx.held, "detach_reset": rule.detach_reset}
        if grid.du == MEMORYLESS:
            current = lif_backward(grads[0], membranes, spikes, *common, **options)
            on_bias = current if ctx.held else current.sum(0)
        else:
            current, on_bias = cuba_lif_backward(grads[0], membranes, spikes, grid.alpha, *common, **options)
        to_bias = rule.by_channel(on_bias) * grid.bias_unit  # before the current, which it may be, is scaled in place
        return current.mul_(grid.scale), to_bias, None, None


def scan(
    sums: Tensor, bias: Tensor, grid: LayerGrid, steps: int | None = None, channels: int = 0
) -> tuple[Tensor, Tensor]:
    """The chip's neurons over all steps, without gradient.

    Args:
        sums: As in :func:`spikes_of`.
        bias: Whole numbers ``[C]``, as :func:`integer_biases` gives them.
        grid: Thresholds and decays.
        steps: T of held sums.
        channels: Axis of ``shape`` that the channels are on, 0 or -1.

    Returns:
        Spikes, and membranes before threshold and reset in units of a synaptic sum; float32 ``[T, B, *shape]`` both.
    """
    batch = sums.shape if steps is not None else sums.shape[1:]
    count, neuron = steps if steps is not None else sums.shape[0], batch[1:]
    spikes, membranes = sums.new_empty(count, *batch), sums.new_empty(count, *batch)
    across = [1] * len(neuron)
    across[channels] = -1
    each = bias.to(torch.int32).view(across).expand(neuron).reshape(-1).numpy()
    flat = sums.detach().contiguous().view(-1, batch.numel()).numpy()
    outputs = spikes.view(count, -1).numpy(), membranes.view(count, -1).numpy()

    def part(start: int, stop: int) -> None:
        neurons.training_scan(flat, steps is not None, each, grid.du, grid.dv, grid.vth, *outputs, start, stop)

    size, threads = batch.numel(), torch.get_num_threads() if spikes.numel() >= PARALLEL_FROM else 1
    edges = [size * index // threads for index in range(threads + 1)]
    if threads == 1:
        part(0, size)
    else:
        list(_workers(os.getpid(), threads).map(part, edges[:-1], edges[1:]))
    return spikes, membranes


@lru_cache(maxsize=4)
def _workers(process: int, threads: int) -> ThreadPoolExecutor:
    """Threads that stay; a forked child, in which they do not exist, gets its own."""
    return ThreadPoolExecutor(threads, thread_name_prefix="neurokd-scan")
