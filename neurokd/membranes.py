"""The output layer's membranes before threshold and reset, with gradients, for losses on them.

The fused scans keep no membranes; an output layer has so few neurons that a plain loop over its steps is cheap.
"""

from __future__ import annotations

import torch
from torch import Tensor

from neurokd.network_layers import SpikingLayer
from neurokd.neurons import CubaLIF


def fire_and_tell(
    layer: SpikingLayer, current: Tensor, bias: Tensor | None, steps: int | None = None
) -> tuple[Tensor, Tensor]:
    """Spikes of a layer, as :meth:`SpikingLayer.fire` gives them, and its membranes.

    Args:
        layer: The layer.
        current: ``[T, B, *shape]``, or ``[B, *shape]`` held for ``steps`` steps.
        bias: On the membrane, from :meth:`SpikingLayer.currents`.
        steps: T of a held current.

    Returns:
        Spikes of current's type and membranes before threshold and reset in units of the threshold, at least float32;
        both ``[T, B, *shape]``.
    """
    neuron = layer.neuron
    alpha = neuron.alpha if isinstance(neuron, CubaLIF) else None
    bias = neuron.bias if bias is None and isinstance(neuron, CubaLIF) else bias
    wide = current.float() if current.dtype in (torch.bfloat16, torch.float16) else current
    beta, threshold = neuron.beta, neuron.threshold
    i = v = wide.new_zeros(wide.shape[1:] if steps is None else wide.shape)
    spikes, membranes = [], []
    for t in range(len(wide) if steps is None else steps):
        x = wide[t] if steps is None else wide
        if alpha is not None:
            i = x = alpha * i + x
        v = beta * v + x
        v = v if bias is None else v + bias
        s = neuron.surrogate(v - threshold).to(v.dtype)
        membranes.append(v / threshold)
        v = v - (s.detach() if neuron.detach_reset else s) * v
        spikes.append(s)
    return torch.stack(spikes).to(current.dtype), torch.stack(membranes)
