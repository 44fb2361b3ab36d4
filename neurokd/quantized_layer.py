"""One layer of a student in the chip's integers."""

from __future__ import annotations

from collections.abc import Collection
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.nn import functional

from neurokd.grid import project
from neurokd.integers import (
    NeuronRule,
    exact_products,
    integer_biases,
    integer_weights,
    scan,
    shift,
    spikes_of,
)
from neurokd.layer_grid import LARGEST_BIAS, LayerGrid, check_sums
from neurokd.learned_grid import LearnedGrid
from neurokd.network_layers import SpikingLayer
from neurokd.neurons import CubaLIF, cuba_lif, lif
from neurokd.surrogates import Surrogate

Arithmetic = Literal["exact", "fake", "float"]


class QuantizedLayer(nn.Module):
    """One layer: latent float weight and bias on a :class:`LayerGrid`, fixed unless :meth:`learn` is called.

    Attributes:
        name, block: As in the float layer.
        cuba: Whether the neurons filter their current.
        geometry: Stride, padding, dilation and groups of a convolution; None in a dense layer.
        weight: float32, of the synapse's shape; bias: float32 ``[C]``, on the membrane.
        arithmetic: What training computes with: ``exact`` (the chip's integers), ``fake`` (weights and biases on the
            grid, float membranes) or ``float``. Evaluation is always exact.
        mask: float32 of the weight's shape, 0 where a weight is pruned; None where none is.
    """

    mask: Tensor | None

    def __init__(self, layer: SpikingLayer, grid: LayerGrid) -> None:
        super().__init__()
        weight, bias = layer.folded()
        self.name, self.block, self._grid = layer.name, layer.block, grid
        self.cuba = isinstance(layer.neuron, CubaLIF)
        given = layer.neuron.surrogate
        surrogate = given if isinstance(given, Surrogate) else Surrogate()
        self._surrogate, self._detach_reset = surrogate, layer.neuron.detach_reset
        self.arithmetic: Arithmetic = "exact"
        self.learned: LearnedGrid | None = None
        self.geometry = geometry_of(layer.synapse)
        self.weight = nn.Parameter(weight.float())
        self.bias = nn.Parameter(bias.float())
        self.register_buffer("mask", None, persistent=False)

    @property
    def grid(self) -> LayerGrid:
        """The layer's integers as they are now."""
        return self._grid if self.learned is None else self.learned.now(self.learned.moving())

    @property
    def rule(self) -> NeuronRule:
        """What the neurons compute with."""
        return NeuronRule(self.grid, self._surrogate, self._detach_reset)

    def learn(self, names: Collection[str]) -> None:
        """Make thresholds, decays or scales parameters; :meth:`freeze` ends it.

        Raises:
            ConfigError: a name that cannot be learned.
        """
        self.learned = LearnedGrid(self._grid, names, self.cuba) if names else None

    def freeze(self) -> None:
        """Keep the learned integers as they are now; spikes stay the same."""
        self._grid, self.learned = self.grid, None

    def prune(self, mask: Tensor) -> None:
        """Set weights to 0 for good: ``mask`` is of the weight's shape, 0 where one goes."""
        self.mask = mask.to(self.weight)
        with torch.no_grad():
            self.weight.mul_(self.mask)

    def integer_weights(self) -> Tensor:
        """Weights as the chip holds them: float32 whole numbers, with a straight-through gradient to ``weight``."""
        weight = self.weight if self.mask is None else self.weight * self.mask
        return integer_weights(weight, self.grid, self._unit("weight_unit"))

    def integer_biases(self) -> Tensor:
        """Biases as the chip adds them: float64 whole numbers ``[C]`` in 1/64 units of a sum, without gradient."""
        return integer_biases(self._bias_units().clamp(-LARGEST_BIAS, LARGEST_BIAS))

    def _bias_units(self) -> Tensor:
        unit = self._unit("bias_unit")
        return self.bias / (self.grid.bias_unit if unit is None else unit)

    def _unit(self, name: str) -> Tensor | None:
        """``weight_unit`` or ``bias_unit`` with a gradient, where the scale is learned; the grid's number."""
        factor = None if self.learned is None else self.learned.moving().factor
        if factor is None:
            return None
        value = getattr(self.grid, name)
        return value * (factor / factor.detach())

    def sums(self, x: Tensor) -> Tensor:
        """Synaptic sums after ``weight_exp`` of N step-samples of whole numbers ``[N, *in_shape]``.

        Raises:
            TrainingError: a sum could leave the accumulator; weights grow in training.
        """
        weights = self.integer_weights()
        check_sums(self.name, self.grid, weights.detach())
        return shift(self.synapse(x, weights), self.grid.weight_exp)

    def synapse(self, x: Tensor, weights: Tensor) -> Tensor:
        """Sums of N step-samples ``[N, *in_shape]`` with any weights of the layer's shape: sum pool, then synapse.

        Images are computed channels last, which convolutions are fastest on; whole numbers add up alike in any order.
        """
        pool = self.block.pool
        with exact_products():
            if pool is not None:
                x = functional.avg_pool2d(x, pool.kernel, pool.stride, pool.padding, divisor_override=1)
            if self.geometry is None:
                return functional.linear(x.flatten(1), weights)
            x = x.contiguous(memory_format=torch.channels_last)
            return functional.conv2d(x, weights, **self.geometry).contiguous(memory_format=torch.channels_last)

    def currents(self, x: Tensor, steps: int | None = None) -> Tensor:
        """:meth:`sums` of whole numbers ``[T, B, *in_shape]``, or ``[B, *in_shape]`` held for ``steps``."""
        if steps is not None:
            return self.sums(x)
        sums = self.sums(x.flatten(0, 1))
        return sums.reshape(*x.shape[:2], *sums.shape[1:])

    def forward(self, x: Tensor, steps: int | None = None) -> Tensor:
        """Spikes ``[T, B, *out_shape]`` of whole numbers ``[T, B, *in_shape]``, or ``[B, *in_shape]`` held."""
        if self.training and self.arithmetic != "exact":
            return self._approximate(x, steps)
        moving = None if self.learned is None else self.learned.moving()
        return spikes_of(self.currents(x, steps), self._bias_units(), self.rule, steps, moving)

    def _approximate(self, x: Tensor, steps: int | None) -> Tensor:
        """Spikes of float membranes, from weights and biases on the grid (``fake``) or off it (``float``)."""
        grid, weight, bias = self.grid, self.weight * self.grid.unit, self.bias
        if self.mask is not None:
            weight = weight * self.mask
        if self.arithmetic == "fake":
            weight = self.integer_weights() * (grid.scale * 2.0**grid.weight_exp)
            bias = project(self.bias / grid.bias_unit, -float(LARGEST_BIAS), float(LARGEST_BIAS), 1) * grid.bias_unit
        flat = x if steps is not None else x.flatten(0, 1)
        current = self.synapse(flat, weight)
        if steps is None:
            current = current.reshape(*x.shape[:2], *current.shape[1:])
        bias = bias.view(-1, *[1] * (len(self.block.out_shape) - 1))
        common: dict[str, Any] = {
            "beta": grid.beta, "threshold": grid.threshold, "steps": steps, "surrogate": self._surrogate,
            "detach_reset": self._detach_reset,
        }  # fmt: skip
        if self.cuba:
            return cuba_lif(current, alpha=grid.alpha, bias=bias, **common)[0]
        return lif(current + bias, **common)[0]

    def membranes(self, x: Tensor, steps: int | None = None) -> tuple[Tensor, Tensor]:
        """Spikes, and membranes before threshold and reset in units of a sum; ``[T, B, *out_shape]``, no gradient."""
        with torch.no_grad():
            return scan(self.currents(x, steps), self.integer_biases(), self.grid, steps)

    def check_exact(self) -> None:
        """Refuse weights with which a sum could leave the accumulator, and so float32's exact range.

        Raises:
            TrainingError: with the bound and the way out.
        """
        check_sums(self.name, self.grid, self.integer_weights().detach())

    @property
    def windows_overlap(self) -> bool:
        """Whether pooling windows overlap so that several weights meet on one pixel when the pool is folded."""
        pool = self.block.pool
        if pool is None:
            return False
        taps = self.weight.shape[2:] if self.geometry else self.block.synapse_shape[1:]
        dilation = self.geometry["dilation"] if self.geometry else (1, 1)
        axes = zip(taps, dilation, pool.stride, pool.kernel, strict=True)
        return any(n > 1 and spread * stride < window for n, spread, stride, window in axes)


def geometry_of(synapse: nn.Linear | nn.Conv2d) -> dict[str, Any] | None:
    """Stride, padding, dilation and groups of a convolution, None of a dense synapse."""
    if isinstance(synapse, nn.Linear):
        return None
    return {name: getattr(synapse, name) for name in ("stride", "padding", "dilation", "groups")}
