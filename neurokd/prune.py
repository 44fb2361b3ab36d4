"""Pruning by what a weight is worth and what it costs: fewer synaptic operations for the least loss.

A weight costs one synaptic operation for each event of its source; counted over images, that is exactly what the
simulator counts (it skips weights that are 0). It is worth the variance of the current it brings, in squared
thresholds: what a pruned weight brought on average goes into the bias. Weights go in the order of worth over cost, over
all layers at once, until the expected synops fit (:func:`prune_weights`), or within each layer (:func:`prune_evenly`;
as much of each as the output minds least: :mod:`neurokd.sensitivity`). Neurons and channels: :mod:`neurokd.shrink`.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import torch
from torch import Tensor

from deploy.errors import TrainingError
from neurokd.arriving import Arriving, arriving, mean_brought
from neurokd.feed import Feed
from neurokd.quantized import QuantizedNetwork
from neurokd.quantized_layer import QuantizedLayer
from neurokd.units import reach

#: Images the events are counted on; 2,000 give synops within half a percent of 10,000's.
IMAGES: Final = 2000
#: A layer keeps at least this share of its weights.
LEAST: Final = 0.02


@dataclass(frozen=True, eq=False)
class Worth:
    """What each weight of a layer costs and is worth, of the weight's shape, means over samples.

    Attributes:
        cost: Synaptic operations.
        value: Variance of the current it brings, over steps and samples, in squared thresholds; summed over the steps
            and the places it is used at.
        mean: Current it brings to a neuron, mean over steps and places, as a bias of the membrane.
    """

    cost: Tensor
    value: Tensor
    mean: Tensor

    @property
    def score(self) -> Tensor:
        """Worth over cost; weights that cost nothing are never pruned."""
        return torch.where(self.cost > 0, self.value / self.cost.clamp(min=1e-30), torch.inf)


def worths(network: QuantizedNetwork, feed: Feed, images: int = IMAGES) -> dict[str, Worth]:
    """Cost and worth of every weight on the first images of a feed, by layer."""
    seen = arriving(network, feed, images)
    return {layer.name: _worth(layer, seen[layer.name]) for layer in network.quantized_layers()}


def synops(network: QuantizedNetwork, feed: Feed, images: int = IMAGES) -> float:
    """Synaptic operations a sample on the first images of a feed: those the simulator counts."""
    found = worths(network, feed, images)
    return sum(expected(layer, found[layer.name]) for layer in network.quantized_layers())


def expected(layer: QuantizedLayer, worth: Worth) -> float:
    """Synaptic operations a sample of a layer's weights that are not 0."""
    with torch.no_grad():
        return float((worth.cost.double() * (layer.integer_weights() != 0)).sum())


def _worth(layer: QuantizedLayer, seen: Arriving) -> Worth:
    events, variance = (reach(layer.synapse, layer.weight, part) for part in (seen.events, seen.variance))
    brought = layer.weight.detach() * layer.grid.unit / layer.grid.threshold
    return Worth(events, brought**2 * variance, mean_brought(layer, layer.weight, seen))


# Weights ----------------------------------------------------------------------------------------------------------


def prune_weights(network: QuantizedNetwork, feed: Feed, target: float) -> None:
    """Mask the weights of least worth for their cost until ``target`` synops a sample are expected, in place.

    Raises:
        TrainingError: the target is below what the last :data:`LEAST` of each layer's weights cost.
    """
    found = worths(network, feed)
    layers = network.quantized_layers()
    now = sum(expected(layer, found[layer.name]) for layer in layers)
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
        _mask(layer, part, found[layer.name])


def prune_evenly(network: QuantizedNetwork, feed: Feed, target: float) -> None:
    """As :func:`prune_weights`, but every layer gives up the same share of its own synops, as far as it can.

    Worth over cost is not comparable between layers whose fan-ins differ much: of a network that sees grey levels
    through 27 weights a neuron and answers through 1,024, it takes all but a few of the latter first.
    """
    found = worths(network, feed)
    layers = network.quantized_layers()
    given_up = 1.0 - target / sum(expected(layer, found[layer.name]) for layer in layers)
    for layer in layers:
        give_up(layer, found[layer.name], given_up)


def give_up(layer: QuantizedLayer, worth: Worth, share: float) -> None:
    """Mask a layer's weights of least worth for their cost, until a share of its synops is gone, as far as it can."""
    if share > 0:
        _mask(layer, _of_least_score(*_prunable(layer, worth), share * expected(layer, worth)), worth)


def _of_least_score(scores: Tensor, costs: Tensor, excess: float) -> Tensor:
    """bool, of the shape of ``scores``: those of least score whose costs sum to ``excess`` or just above."""
    order = scores.argsort()
    removed = costs[order].cumsum(0)
    count = int(torch.searchsorted(removed, torch.tensor(excess, dtype=removed.dtype))) + 1
    gone = torch.zeros(len(order), dtype=torch.bool)
    gone[order[: min(count, int((costs > 0).sum()))]] = True
    return gone


def _mask(layer: QuantizedLayer, gone: Tensor, worth: Worth) -> None:
    """Weights that are gone are 0 for good; what they brought on average is in the bias."""
    gone = gone.view_as(layer.weight)
    with torch.no_grad():
        layer.bias += (worth.mean * gone).flatten(1).sum(1)
    old = torch.ones_like(layer.weight) if layer.mask is None else layer.mask
    layer.prune(torch.where(gone, 0.0, old))


def _prunable(layer: QuantizedLayer, worth: Worth) -> tuple[Tensor, Tensor]:
    """Scores and costs of all weights, flat; those that are 0 or must stay have an infinite score and no cost."""
    with torch.no_grad():
        score = torch.where(layer.integer_weights() != 0, worth.score, torch.inf).flatten()
    keep = max(1, round(LEAST * len(score)))
    finite = torch.where(torch.isinf(score), -torch.inf, score)
    score = score.clone()
    score[finite.topk(keep).indices] = torch.inf
    return score, torch.where(torch.isinf(score), 0.0, worth.cost.flatten()).double()
