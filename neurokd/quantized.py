"""The student in the chip's integers: its forward pass *is* the chip's arithmetic, its backward pass learns."""

from __future__ import annotations

from collections.abc import Collection, Mapping

import torch
from torch import Tensor, nn

from deploy.errors import SpikesError, TrainingError
from neurokd.layer_grid import LayerGrid
from neurokd.network import SpikingNetwork
from neurokd.network_layers import SpikingLayer
from neurokd.outputs import Outputs, check_wanted, readout
from neurokd.population import by_class, outputs_by_class
from neurokd.quantized_layer import Arithmetic, QuantizedLayer
from neurokd.surrogates import Surrogate


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
