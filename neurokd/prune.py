"""Pruning by what a weight is worth and what it costs: fewer synaptic operations for the least loss.

A weight costs one synaptic operation for each event of its source; counted over images, that is exactly what the
simulator counts (it skips weights that are 0). It is worth the squared current it brings, in squared thresholds.
Weights (:func:`prune_weights`) or whole neurons and channels (:func:`shrink`) go in the order of worth over cost, over
all layers at once, until the expected synops fit; or weights within each layer (:func:`prune_evenly`).
"""

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
from neurokd.quantized import QuantizedNetwork
from neurokd.quantized_layer import QuantizedLayer
from neurokd.spec import NetworkSpec
from neurokd.spec_layers import Dense, LayerSpec, Pool
from neurokd.units import by_source, copy_units, reach, units_of

#: Images the events are counted on; 2,000 give synops within half a percent of 10,000's.
IMAGES: Final = 2000
#: A layer keeps at least this share of its weights, and of its neurons or channels.
LEAST: Final = 0.02


@dataclass(frozen=True, eq=False)
class Worth:
    """What each weight of a layer costs and is worth, of the weight's shape, means over samples.

    Attributes:
        cost: Synaptic operations.
        value: Squared current it brings, in squared thresholds.
    """

    cost: Tensor
    value: Tensor

    @property
    def score(self) -> Tensor:
        """Worth over cost; weights that cost nothing are never pruned."""
        return torch.where(self.cost > 0, self.value / self.cost.clamp(min=1e-30), torch.inf)


def worths(network: QuantizedNetwork, feed: Feed, images: int = IMAGES) -> dict[str, Worth]:
    """Cost and worth of every weight on the first images of a feed, by layer."""
    events = _events(network, feed, images)
    return {layer.name: _worth(layer, *events[layer.name]) for layer in network.quantized_layers()}


def synops(network: QuantizedNetwork, feed: Feed, images: int = IMAGES) -> float:
    """Synaptic operations a sample on the first images of a feed: those the simulator counts."""
    found = worths(network, feed, images)
    return sum(_expected(layer, found[layer.name]) for layer in network.quantized_layers())


def _expected(layer: QuantizedLayer, worth: Worth) -> float:
    with torch.no_grad():
        return float((worth.cost.double() * (layer.integer_weights() != 0)).sum())


def _events(network: QuantizedNetwork, feed: Feed, images: int) -> dict[str, tuple[Tensor, Tensor]]:
    """What arrives at each layer over all steps, means over samples ``[*in_shape]``: events, and squared values."""
    steps = feed.encoding.steps if feed.encoding.kind == "direct" else None
    totals: dict[str, tuple[Tensor, Tensor]] = {}
    seen = 0
    for batch in feed.in_order():
        if seen >= images:
            break
        x, held = network.integers(batch.inputs, steps)
        seen += len(batch.inputs)
        for layer in network.quantized_layers():
            factor, axes = (held, 0) if held is not None else (1, (0, 1))
            counted = (x > 0).double().sum(axes) * factor, (x.double() ** 2).sum(axes) * factor
            old = totals.get(layer.name, (0.0, 0.0))
            totals[layer.name] = (old[0] + counted[0], old[1] + counted[1])
            x, _ = layer.membranes(x, held)
            held = None
    return {name: (events / seen, squares / seen) for name, (events, squares) in totals.items()}


def _worth(layer: QuantizedLayer, events: Tensor, squares: Tensor) -> Worth:
    weight = layer.weight.detach()
    value = (weight * layer.grid.unit / layer.grid.threshold) ** 2 * reach(layer.synapse, layer.weight, squares)
    return Worth(reach(layer.synapse, layer.weight, events), value)


# Weights ----------------------------------------------------------------------------------------------------------


def prune_weights(network: QuantizedNetwork, feed: Feed, target: float) -> None:
    """Mask the weights of least worth for their cost until ``target`` synops a sample are expected, in place.

    Raises:
        TrainingError: the target is below what the last :data:`LEAST` of each layer's weights cost.
    """
    found = worths(network, feed)
    layers = network.quantized_layers()
    now = sum(_expected(layer, found[layer.name]) for layer in layers)
    if now <= target:
        return
    scores, costs = zip(*(_prunable(layer, found[layer.name]) for layer in layers), strict=True)
    least = now - float(torch.cat(costs).sum())
    if target < least:
        raise TrainingError(
            "the budget cannot be reached by pruning",
            where=str(network.spec),
            got=f"{target:,.0f} synops a sample",
            allowed=f"at least {least:,.0f}",
            next_step="ask for a larger budget, or train a smaller student",
        )
    gone = _of_least_score(torch.cat(scores), torch.cat(costs), now - target)
    for layer, part in zip(layers, gone.split([len(score) for score in scores]), strict=True):
        _mask(layer, part)


def prune_evenly(network: QuantizedNetwork, feed: Feed, target: float) -> None:
    """As :func:`prune_weights`, but every layer gives up the same share of its own synops, as far as it can.

    Worth over cost is not comparable between layers whose fan-ins differ much: of a network that sees grey levels
    through 27 weights a neuron and answers through 1,024, it takes all but a few of the latter first.
    """
    found = worths(network, feed)
    layers = network.quantized_layers()
    now = {layer.name: _expected(layer, found[layer.name]) for layer in layers}
    given_up = 1.0 - target / sum(now.values())
    if given_up <= 0:
        return
    for layer in layers:
        _mask(layer, _of_least_score(*_prunable(layer, found[layer.name]), given_up * now[layer.name]))


def _of_least_score(scores: Tensor, costs: Tensor, excess: float) -> Tensor:
    """bool, of the shape of ``scores``: those of least score whose costs sum to ``excess`` or just above."""
    order = scores.argsort()
    removed = costs[order].cumsum(0)
    count = int(torch.searchsorted(removed, torch.tensor(excess, dtype=removed.dtype))) + 1
    gone = torch.zeros(len(order), dtype=torch.bool)
    gone[order[: min(count, int((costs > 0).sum()))]] = True
    return gone


def _mask(layer: QuantizedLayer, gone: Tensor) -> None:
    old = torch.ones_like(layer.weight) if layer.mask is None else layer.mask
    layer.prune(torch.where(gone.view_as(layer.weight), 0.0, old))


def _prunable(layer: QuantizedLayer, worth: Worth) -> tuple[Tensor, Tensor]:
    """Scores and costs of all weights, flat; those that are 0 or must stay have an infinite score and no cost."""
    with torch.no_grad():
        score = torch.where(layer.integer_weights() != 0, worth.score, torch.inf).flatten()
    keep = max(1, round(LEAST * len(score)))
    finite = torch.where(torch.isinf(score), -torch.inf, score)
    score = score.clone()
    score[finite.topk(keep).indices] = torch.inf
    return score, torch.where(torch.isinf(score), 0.0, worth.cost.flatten()).double()


# Neurons and channels ---------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Unit:
    """A neuron or channel: what it is worth, and what it costs with all that comes in and goes out."""

    score: float
    cost: float
    layer: str
    index: int


def shrink(network: SpikingNetwork, quantized: QuantizedNetwork, feed: Feed, target: float) -> SpikingNetwork:
    """A smaller float network: neurons and channels of least worth are gone, norms folded.

    Args:
        network: The float student.
        quantized: The same on the chip's integers: its events say what a unit costs.
        feed: Images.
        target: Synops a sample that are expected afterwards.

    Raises:
        TrainingError: no hidden layer can lose neurons.
    """
    found = worths(quantized, feed)
    units = sorted(_units(quantized, found), key=lambda unit: unit.score)
    if not units:
        raise TrainingError(
            "there is no hidden layer to prune neurons of", where=network.spec_text, got="one layer, or groups",
            allowed="a hidden layer without groups", next_step="prune weights instead",
        )  # fmt: skip
    sizes = {layer.name: len(layer.weight) for layer in quantized.quantized_layers()}
    gone: dict[str, set[int]] = {name: set() for name in sizes}
    excess = sum(_expected(layer, found[layer.name]) for layer in quantized.quantized_layers()) - target
    for unit in units:
        if excess <= 0:
            break
        if (
            len(gone[unit.layer]) + 1 <= sizes[unit.layer] * (1 - LEAST)
            and len(gone[unit.layer]) + 1 < sizes[unit.layer]
        ):
            gone[unit.layer].add(unit.index)
            excess -= unit.cost
    kept = {name: torch.tensor([n for n in range(size) if n not in gone[name]]) for name, size in sizes.items()}
    return smaller(network, kept)


def _units(network: QuantizedNetwork, found: Mapping[str, Worth]) -> Iterator[_Unit]:
    for layer, after in pairwise(network.quantized_layers()):
        groups = [part.geometry["groups"] for part in (layer, after) if part.geometry is not None]
        if any(count > 1 for count in groups):
            continue
        with torch.no_grad():
            here, there = (part.integer_weights() != 0 for part in (layer, after))
        incoming = (found[layer.name].cost * here).flatten(1).sum(1)
        outgoing = by_source(found[after.name].cost * there, len(layer.weight))
        value = by_source(found[after.name].value * there, len(layer.weight))
        for index, (cost, worth) in enumerate(zip((incoming + outgoing).tolist(), value.tolist(), strict=True)):
            yield _Unit(worth / cost if cost > 0 else 0.0, cost, layer.name, index)


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
