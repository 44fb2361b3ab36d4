"""Layers that never spike: found on given images, named with the threshold that would wake them."""

from __future__ import annotations

from dataclasses import dataclass

from deploy import fixed_point as fp
from neurokd.feed import Feed
from neurokd.quantized import QuantizedNetwork


class DeadLayerWarning(UserWarning):
    """A layer none of whose neurons spikes."""


@dataclass(frozen=True)
class DeadLayer:
    """A layer that never spikes on given images.

    Attributes:
        name: The layer.
        vth: Its threshold mantissa.
        scale: Float value of one unit of synaptic sum.
        largest: The largest membrane seen, in 1/64 units of a sum: the neuron spikes above ``64 * vth``.
        silenced_by: The dead layer before it, from which nothing arrives; empty if it is the first.
    """

    name: str
    vth: int
    scale: float
    largest: int
    silenced_by: str = ""

    @property
    def waking_vth(self) -> int | None:
        """The largest threshold mantissa at which a neuron spikes on these images; None where no membrane rose."""
        return (self.largest - 1) >> fp.ACTIVATION_SHIFT if self.largest > 0 else None

    @property
    def waking_scale(self) -> float | None:
        """The float value of one unit of sum below which a neuron spikes at this ``vth``; None where none does."""
        return self.scale * self.largest / (self.vth << fp.ACTIVATION_SHIFT) if self.largest > 0 and self.vth else None

    def __str__(self) -> str:
        seen = f"layer {self.name} never spikes: its largest membrane is {self.largest / 64:g}, vth {self.vth}"
        if self.silenced_by:
            return f"{seen}; nothing arrives from layer {self.silenced_by}, which is dead too"
        if self.waking_vth is None:
            return f"{seen}; no threshold wakes it: train the float student until this layer spikes"
        factor = self.vth * 64 / self.largest
        return (
            f"{seen}; a threshold of {self.waking_vth * self.scale:.4g} (vth {self.waking_vth}) "
            f"or weights and biases {factor:.3g} times as large wake it (a scale below {self.waking_scale:.4g}, "
            f"now {self.scale:.4g})"
        )


def dead_layers(network: QuantizedNetwork, feed: Feed) -> list[DeadLayer]:
    """The layers none of whose neurons spikes on any image of a feed, in order."""
    steps = feed.encoding.steps if feed.encoding.kind == "direct" else None
    layers, alive, largest = network.quantized_layers(), set[str](), dict[str, int]()
    for batch in feed.in_order():
        spikes, held = network.integers(batch.inputs, steps)
        for layer in layers:
            spikes, membranes = layer.membranes(spikes, held)
            held = None
            if bool(spikes.any()):
                alive.add(layer.name)
            highest = round(float(membranes.max()) * (1 << fp.ACTIVATION_SHIFT))
            largest[layer.name] = max(highest, largest.get(layer.name, highest))
        if len(alive) == len(layers):
            return []
    dead: list[DeadLayer] = []
    for layer in layers:
        if layer.name not in alive:
            before = dead[-1].name if dead else ""
            dead.append(DeadLayer(layer.name, layer.grid.vth, layer.grid.scale, largest[layer.name], before))
    return dead
