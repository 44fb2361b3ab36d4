"""The student in the chip's integers: its forward pass *is* the chip's arithmetic, its backward pass learns."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.nn import functional

from deploy.errors import SpikesError, TrainingError
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
from neurokd.network import SpikingNetwork
from neurokd.network_layers import SpikingLayer
from neurokd.neurons import CubaLIF, cuba_lif, lif
from neurokd.outputs import Outputs, check_wanted, readout
from neurokd.population import by_class, outputs_by_class
from neurokd.surrogates import Surrogate

Pair = tuple[int, int]
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


class QuantizedNetwork(nn.Module):
    """A student on the chip's integers; takes the same input and gives the same SAT form as :class:`SpikingNetwork`.

    Attributes:
        spec: The network's specification.
        options: Those of the float network; ``notes`` grow where something is worth saying.
        chip: Name of the chip the widths were taken from.
        steps, input_bits: As in the float network.

    Raises:
        TrainingError: the grids are not those of the network's layers.
    """

    def __init__(self, network: SpikingNetwork, grids: Mapping[str, LayerGrid], chip: str) -> None:
        super().__init__()
        self.spec, self.options, self.chip = network.spec, dict(network.options), chip
        self.steps, self.input_bits, self.population = network.steps, network.input_bits, network.population
        layers = network.spiking_layers()
        if {layer.name for layer in layers} != set(grids):
            raise TrainingError(
                "the grids are not those of the network's layers",
                where=str(network.spec),
                got=", ".join(sorted(grids)) or "none",
                allowed=", ".join(layer.name for layer in layers),
            )
        self.layers = nn.ModuleList(QuantizedLayer(layer, grids[layer.name]) for layer in layers)
        self.options["notes"] = [*network.notes, *_surrogate_notes(layers)]

    @property
    def levels(self) -> int:
        """Largest integer an input carries."""
        return int((1 << self.input_bits) - 1)

    @property
    def spec_text(self) -> str:
        """The specification as canonical text."""
        return str(self.spec)

    @property
    def classes(self) -> int:
        """Number of classes."""
        return self.spec.classes // self.population

    @property
    def notes(self) -> list[str]:
        """What was changed or left out on the way here, and layers that never spike."""
        return list(self.options["notes"])

    @property
    def grids(self) -> dict[str, LayerGrid]:
        """The fixed integers of each layer, by name."""
        return {layer.name: layer.grid for layer in self.quantized_layers()}

    def quantized_layers(self) -> list[QuantizedLayer]:
        """The layers, in order, typed."""
        return [layer for layer in self.layers if isinstance(layer, QuantizedLayer)]

    def learn(self, names: Collection[str]) -> None:
        """:meth:`QuantizedLayer.learn` of every layer."""
        for layer in self.quantized_layers():
            layer.learn(names)

    def freeze(self) -> None:
        """:meth:`QuantizedLayer.freeze` of every layer: what was learned becomes fixed integers."""
        for layer in self.quantized_layers():
            layer.freeze()

    def compute(self, arithmetic: Arithmetic) -> None:
        """What training computes with; evaluation is always exact."""
        for layer in self.quantized_layers():
            layer.arithmetic = arithmetic

    def check_exact(self) -> None:
        """:meth:`QuantizedLayer.check_exact` of every layer."""
        for layer in self.quantized_layers():
            layer.check_exact()

    def forward(
        self, x: Tensor, steps: int | None = None, record: bool = False
    ) -> Tensor | tuple[Tensor, dict[str, Tensor]]:
        """Run all steps in integers.

        Args:
            x: As :meth:`SpikingNetwork.forward`: float, integer / ``levels``; ``[T, B, *shape]`` or ``[B, *shape]``.
            steps: T of direct encoding; the network's own if absent.
            record: Whether to return every layer's spikes too.

        Returns:
            SAT ``[T, B, C]``; with ``record`` ``(sat, {layer name: spikes [T, B, *shape]})``.

        Raises:
            SpikesError: the input's shape, type, device or range does not fit.
            TrainingError: a layer's sums could leave the accumulator.
        """
        spikes, held = self.integers(x, steps)
        recorded: dict[str, Tensor] = {}
        for layer in self.quantized_layers():
            spikes = layer(spikes, held)
            recorded[layer.name], held = spikes, None
        sat = by_class(spikes, self.population)
        return (sat, recorded) if record else sat

    def sat(self, x: Tensor, steps: int | None = None) -> Tensor:
        """The SAT alone, ``[T, B, C]``."""
        out = self(x, steps)
        return out if isinstance(out, Tensor) else out[0]

    def outputs(self, x: Tensor, steps: int | None = None, want: Collection[str] = ("logits",)) -> Outputs:
        """The SAT and what else is wanted: ``logits``, ``currents`` (in the float network's units), ``layers``.

        Currents come from the chip's weights and unrounded biases, whatever training computes spikes with.

        Raises:
            SpikesError, TrainingError: as :meth:`forward`; membranes, which have no gradient in integers, are wanted.
        """
        check_wanted(want)
        if "membranes" in want:
            raise TrainingError(
                "a network on the chip's integers cannot tell what the loss needs",
                where=self.spec_text, got="membranes", allowed="a loss on its spikes, logits, currents or layers",
                next_step="distil membranes into the float student, and fine-tune with another loss",
            )  # fmt: skip
        spikes, held = self.integers(x, steps)
        layers: dict[str, Tensor] = {}
        for layer in self.quantized_layers():
            before, before_held = spikes, held
            spikes, held = layer(before, before_held), None
            layers[layer.name] = spikes
        logits = currents = None
        if {"logits", "currents"} & set(want):
            current = layer.currents(before, before_held) * layer.grid.scale
            logits, currents = readout(current, layer.bias, before_held)
        told = Outputs(
            spikes, logits if "logits" in want else None, currents if "currents" in want else None,
            layers=layers if "layers" in want else None,
        )  # fmt: skip
        return outputs_by_class(told, self.population)

    def integers(self, x: Tensor, steps: int | None = None) -> tuple[Tensor, int | None]:
        """The whole numbers that an input in 0..1 stands for, float32, and T where they are held.

        Raises:
            SpikesError: as :meth:`forward`.
        """
        held = self._held_steps(x, steps)  # type: ignore[misc]
        low, high = torch.aminmax(x.detach())
        if not (x.device.type == "cpu" and bool(low >= 0) and bool(high <= 1)):
            raise SpikesError(
                "the input cannot be put on the chip",
                where=f"input of {self.spec}",
                got=f"values {float(low):g}..{float(high):g} on {x.device}",
                allowed=f"0..1, whole numbers 0..{self.levels} divided by {self.levels}, on the cpu",
                next_step="encode images with neurokd.Encoding",
            )
        if len(self.spec.input_shape) == 1:
            x = x.flatten(1 if held else 2)
        return torch.round(x.float() * self.levels), held

    # Inputs are taken, and refused, as the float network does.
    _held_steps = SpikingNetwork._held_steps
    _positive = staticmethod(SpikingNetwork._positive)


def _surrogate_notes(layers: list[SpikingLayer]) -> list[str]:
    return [
        f"{layer.name}: its own spike function is not kept; fine-tuning uses {Surrogate()} (same spikes)"
        for layer in layers
        if not isinstance(layer.neuron.surrogate, Surrogate)
    ]
