"""bfloat16 synapses: what a network may compute in half the width while it trains, and what stays in float32.

Narrow: the products of a layer that sees spikes of every step, its currents, its spikes (0 and 1 are exact), and the
gradients that flow through them. Wide: weights, their gradients' sums and the optimizer; membranes, batch norms, the
first layer under direct encoding (it sees grey levels, once an image), the output layer's currents and spikes, losses,
and all of evaluation: what is tested and exported never was narrow.

On a processor without units for it the products are made in float32 of the rounded operands
(:func:`neurokd.network_layers.has_bfloat16`).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any, Final

import torch

from neurokd.network_layers import SpikingLayer

PRECISIONS: Final = {"float32": torch.float32, "bfloat16": torch.bfloat16}


def set_precision(layers: Sequence[SpikingLayer], precision: str) -> None:
    """Let synapses compute in ``precision`` while they train; the last layer's spikes stay float32."""
    kind = PRECISIONS[precision]
    for place, layer in enumerate(layers):
        layer.synapse_type = kind
        layer.spike_type = kind if place + 1 < len(layers) else torch.float32


@contextmanager
def precision_of(network: Any, precision: str) -> Iterator[None]:
    """The network with synapses in ``precision`` inside, in float32 afterwards.

    A network that computes in the chip's integers stays as it is: they are exact in float32 alone.
    """
    layers = [layer for layer in network.modules() if isinstance(layer, SpikingLayer)]
    set_precision(layers, precision)
    try:
        yield
    finally:
        set_precision(layers, "float32")
