"""Whole neurons and channels removed: a smaller network, whose exported file is smaller too."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import Final

import torch
from torch import Tensor

from deploy.errors import TrainingError
from neurokd.feed import Feed
from neurokd.network import SpikingNetwork, build
from neurokd.neurons import LIF
from neurokd.prune import Worth, worths
from neurokd.quantized import QuantizedNetwork
from neurokd.quantized_layer import QuantizedLayer
from neurokd.spec import NetworkSpec
from neurokd.spec_layers import Dense, LayerSpec, Pool
from neurokd.units import copy_units, units_of

#: Steps in which the share of units that stay is looked for.
STEPS: Final = 100


@dataclass(frozen=True, eq=False)
class _Part:
    """A layer's weights as the chip holds them, what they cost and are worth."""

    layer: QuantizedLayer
    worth: Worth

    @property
    def units(self) -> int:
        return len(self.layer.weight)

    @property
    def groups(self) -> int:
        return 1 if self.layer.geometry is None else int(self.layer.geometry["groups"])

    def of_sources(self, values: Tensor, sources: int) -> Tensor:
        """``[out, sources]``: values of the weights that are not 0, summed by source."""
        with torch.no_grad():
            kept = values.double() * (self.layer.integer_weights() != 0)
        return kept.reshape(self.units, sources, -1).sum(2)


def shrink(network: SpikingNetwork, quantized: QuantizedNetwork, feed: Feed, target: float) -> SpikingNetwork:
    """A smaller float network: every hidden layer keeps the same share of its neurons or channels, norms folded.

    In each layer those of least worth for their cost go: worth to the layer behind, cost with all that comes in and
    goes out. Between layers the two are not comparable: over all layers at once, half the synops of a network of three
    convolutions leave the last of them 2 channels of 64. What the units that go brought on average is in the biases
    behind them.

    Args:
        network: The float student.
        quantized: The same on the chip's integers: its events say what a unit costs.
        feed: Images.
        target: Synops a sample that are expected afterwards.

    Raises:
        TrainingError: no hidden layer can lose neurons.
    """
    found = worths(quantized, feed)
    parts = [_Part(layer, found[layer.name]) for layer in quantized.quantized_layers()]
    orders = {here.layer.name: _order(here, behind) for here, behind in pairwise(parts) if _prunable(here, behind)}
    if not orders:
        raise TrainingError(
            "there is no hidden layer to prune neurons of", where=network.spec_text, got="one layer, or groups",
            allowed="a hidden layer without groups", next_step="prune weights instead",
        )  # fmt: skip
    kept = _largest(parts, orders, target)
    made = smaller(network, kept)
    with torch.no_grad():
        for layer, more in zip(made.spiking_layers(), _means(parts, kept), strict=True):
            bias = layer.synapse.bias if isinstance(layer.neuron, LIF) else layer.neuron.bias
            assert bias is not None, "a folded layer has a bias"
            bias += more.reshape(bias.shape)
    return made


def _prunable(here: _Part, behind: _Part) -> bool:
    return here.groups == behind.groups == 1


def _order(here: _Part, behind: _Part) -> Tensor:
    """Units of a layer, those of most worth for their cost first, int64."""
    incoming = (here.worth.cost * (here.layer.integer_weights().detach() != 0)).flatten(1).sum(1)
    outgoing = behind.of_sources(behind.worth.cost, here.units).sum(0)
    value = behind.of_sources(behind.worth.value, here.units).sum(0)
    return (value / (incoming + outgoing).clamp(min=1e-30)).argsort(descending=True)


def _largest(parts: list[_Part], orders: Mapping[str, Tensor], target: float) -> dict[str, Tensor]:
    """Which units stay, int64 in order: the largest share with which ``target`` is kept, or the smallest there is."""
    kept: dict[str, Tensor] = {}
    costs = list(_matrices(parts, "cost"))
    for step in range(STEPS, 0, -1):
        kept = {name: order[: max(1, len(order) * step // STEPS)].sort().values for name, order in orders.items()}
        if _cost(costs, kept) <= target:
            break
    return kept


def _cost(costs: list[tuple[_Part, Tensor]], kept: Mapping[str, Tensor]) -> float:
    """Synops a sample that are expected of the units that stay, if the others' spikes change nobody's."""
    total, sources = 0.0, None
    for part, matrix in costs:
        stay = kept.get(part.layer.name, slice(None))
        total += float(matrix[stay].sum() if sources is None else matrix[stay][:, sources].sum())
        sources = stay
    return total


def _means(parts: list[_Part], kept: Mapping[str, Tensor]) -> Iterator[Tensor]:
    """By layer, for each unit that stays: what came from units that go, on average, float32."""
    gone: Tensor | None = None
    for part, matrix in _matrices(parts, "mean"):
        stay = kept.get(part.layer.name, torch.arange(part.units))
        nothing = gone is None or not bool(gone.any())  # nothing goes in front of a layer with groups
        lost = torch.zeros(part.units) if nothing else matrix[:, gone].sum(1)
        yield lost[stay].float()
        gone = torch.ones(part.units, dtype=torch.bool)
        gone[stay] = False


def _matrices(parts: list[_Part], what: str) -> Iterator[tuple[_Part, Tensor]]:
    """Each layer's costs or means by source, ``[out, sources]``; a layer with groups has one source for all."""
    before: _Part | None = None
    for part in parts:
        sources = 1 if before is None or part.groups > 1 else before.units
        yield part, part.of_sources(getattr(part.worth, what), sources)
        before = part


def smaller(network: SpikingNetwork, kept: Mapping[str, Tensor]) -> SpikingNetwork:
    """The folded network with only the neurons or channels ``kept`` of each layer (the output keeps all)."""
    folded = network.folded()
    old = folded.spiking_layers()
    keep = {layer.name: kept.get(layer.name, torch.arange(units_of(layer))) for layer in old}
    keep[old[-1].name] = torch.arange(units_of(old[-1]))
    made = build(_smaller_spec(folded.spec, [len(keep[layer.name]) for layer in old]), **folded.options)
    before: Tensor | None = None
    for layer, new in zip(old, made.spiking_layers(), strict=True):
        copy_units(layer, new, keep[layer.name], before)
        before = keep[layer.name]
    return made.train(network.training)


def _smaller_spec(spec: NetworkSpec, sizes: list[int]) -> NetworkSpec:
    left = list(sizes)

    def resized(layer: LayerSpec) -> LayerSpec:
        if isinstance(layer, Pool):
            return layer
        size = left.pop(0)
        return Dense(size) if isinstance(layer, Dense) else replace(layer, channels=size)

    return NetworkSpec(spec.input_shape, tuple(resized(layer) for layer in spec.layers))
