"""bfloat16 synapses: what a network may compute in half the width while it trains, and what stays in float32.

Narrow: the products of a layer that sees spikes of every step, its currents, its spikes (0 and 1 are exact), and the
gradients that flow through them. Wide: weights, their gradients' sums and the optimizer; membranes, batch norms, the
first layer under direct encoding (it sees grey levels, once an image), the output layer's currents and spikes, losses,
and all of evaluation: what is tested and exported never was narrow.

On a processor without units for it (:func:`has_bfloat16`) training stays in float32 altogether. Its own bfloat16
convolutions take 12 to 27 times as long there (AVX2), and rounding the operands of float32 ones 7 to 38 % longer.
"""

from __future__ import annotations

import platform
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import cache
from typing import Any, Final

import torch

from neurokd.device import device_of
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
    """The network with synapses in ``precision`` inside, where its device has units for it; in float32 afterwards.

    A network that computes in the chip's integers stays as it is: they are exact in float32 alone.
    """
    layers = [layer for layer in network.modules() if isinstance(layer, SpikingLayer)]
    set_precision(layers, suited(precision, device_of(network).type))
    try:
        yield
    finally:
        set_precision(layers, "float32")


def suited(precision: str, device: str) -> str:
    """``precision``, or ``float32`` where a kind of device has no units for it."""
    return precision if precision == "float32" or has_bfloat16(device) else "float32"


@cache
def has_bfloat16(device: str) -> bool:
    """Whether a kind of device has units for products of bfloat16: AVX-512 BF16 or AMX on x86 processors."""
    if device == "cuda":
        return torch.cuda.is_bf16_supported(including_emulation=False)
    if device != "cpu":
        return True
    if platform.machine().lower() not in ("x86_64", "amd64"):
        return bool(torch.ops.mkldnn._is_mkldnn_bf16_supported())
    asked = (getattr(torch.cpu, f"_is_{unit}_supported", None) for unit in ("avx512_bf16", "amx_tile"))
    return any(unit is not None and unit() for unit in asked)
