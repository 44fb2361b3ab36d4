"""Neurons and channels as units of a layer: what weights mean by their source, and a layer with some of its units."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import torch
from torch import Tensor, nn

from neurokd.network_layers import SpikingLayer
from neurokd.spec_layers import Conv


def units_of(layer: SpikingLayer) -> int:
    """Neurons of a dense layer, channels of a convolution."""
    return len(layer.synapse.weight)


def by_source(values: Tensor, sources: int) -> Tensor:
    """``[sources]``: sums of ``[out, in, ...]`` over all but the source; a dense layer reads channels row-major."""
    return values.reshape(len(values), sources, -1).sum((0, 2))


def reach(product: Callable[[Tensor, Tensor], Tensor], like: Tensor, arriving: Tensor) -> Tensor:
    """For each weight the sum of ``arriving [*in_shape]`` over the places it meets.

    Args:
        product: Sums of inputs ``[1, *in_shape]`` and weights.
        like: A tensor of the weights' shape.
        arriving: Any numbers.
    """
    with torch.enable_grad():
        weight = torch.zeros_like(like, dtype=torch.float32).requires_grad_()
        return torch.autograd.grad(product(arriving.float().unsqueeze(0), weight).sum(), weight)[0]


def copy_units(old: SpikingLayer, new: SpikingLayer, rows: Tensor, before: Tensor | None) -> None:
    """Give ``new`` all that belongs to some units of ``old``: weights, bias, norm, neuron.

    Args:
        old, new: Of the same kind and options; ``new`` has ``len(rows)`` units.
        rows: Which units of ``old``, int64.
        before: Which units of the layer before are left; None for all.
    """
    weight = _from_sources(old, before)[rows]
    with torch.no_grad():
        new.synapse.weight.copy_(weight.reshape(new.synapse.weight.shape))
        if old.synapse.bias is not None and new.synapse.bias is not None:
            new.synapse.bias.copy_(old.synapse.bias[rows])
    _load_rows(old.neuron, new.neuron, rows, units_of(old))
    if old.norm is not None and new.norm is not None:
        _load_rows(old.norm, new.norm, rows, units_of(old))


def _from_sources(layer: SpikingLayer, before: Tensor | None) -> Tensor:
    weight = layer.synapse.weight.detach()
    if before is None:
        return weight
    if isinstance(layer.block.synapse, Conv):
        if layer.block.synapse.groups > 1:
            assert len(before) == layer.block.in_shape[0], "a layer with groups keeps all its sources"
            return weight
        return weight[:, before]
    return weight.reshape(len(weight), layer.block.in_shape[0], -1)[:, before]


def _load_rows(old: nn.Module, new: nn.Module, rows: Tensor, units: int) -> None:
    state: Mapping[str, Tensor] = old.state_dict()
    new.load_state_dict(
        {name: value[rows] if value.dim() and len(value) == units else value for name, value in state.items()}
    )
