"""What arrives at each layer of a student on the chip's integers, counted over images."""

from __future__ import annotations

import math
from dataclasses import dataclass

from torch import Tensor

from neurokd.feed import Feed
from neurokd.quantized import QuantizedNetwork
from neurokd.quantized_layer import QuantizedLayer
from neurokd.units import reach


@dataclass(frozen=True, eq=False)
class Arriving:
    """What arrives at a layer, summed over ``steps``, means over samples: float64 ``[*in_shape]``.

    Attributes:
        events: How often something arrives.
        values: The whole numbers that arrive: 1 for a spike, the grey level of a graded input.
        squares: Their squares.
        steps: T.
    """

    events: Tensor
    values: Tensor
    squares: Tensor
    steps: int

    @property
    def variance(self) -> Tensor:
        """Of the values about their mean, summed over the steps."""
        return (self.squares - self.values**2 / self.steps).clamp(min=0)


def arriving(network: QuantizedNetwork, feed: Feed, images: int) -> dict[str, Arriving]:
    """What arrives at each layer on the first images of a feed, by the layer's name."""
    steps = feed.encoding.steps
    totals: dict[str, list[Tensor]] = {}
    seen = 0
    for batch in feed.in_order():
        if seen >= images:
            break
        x, held = network.integers(batch.inputs, steps if feed.encoding.kind == "direct" else None)
        seen += len(batch.labels)
        for layer in network.quantized_layers():
            factor, axes = (held, 0) if held is not None else (1, (0, 1))
            found = [part.sum(axes) * factor for part in ((x > 0).double(), x.double(), x.double() ** 2)]
            old = totals.get(layer.name)
            totals[layer.name] = found if old is None else [a + b for a, b in zip(old, found, strict=True)]
            x, _ = layer.membranes(x, held)
            held = None
    return {name: Arriving(*(part / seen for part in found), steps) for name, found in totals.items()}


def mean_brought(layer: QuantizedLayer, weight: Tensor, seen: Arriving) -> Tensor:
    """What weights bring to a neuron's membrane, mean over steps and places, as a bias of the same effect.

    Args:
        layer: Whose inputs, grid and decays apply.
        weight: Float weights of the layer's shape.
        seen: What arrives there.

    Returns:
        Of the weight's shape; a neuron's bias is the sum over its weights.
    """
    places = math.prod(layer.block.out_shape) // len(layer.weight)
    arrived = reach(layer.synapse, layer.weight, seen.values) / (places * seen.steps)
    return weight.detach() * layer.grid.unit * arrived * _gain(layer.grid.alpha, seen.steps)


def _gain(alpha: float, steps: int) -> float:
    """How much more a constant sum brings through a current filter, on average over the first steps."""
    return sum(alpha**lag * (steps - lag) for lag in range(steps)) / steps
