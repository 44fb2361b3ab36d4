"""How much each layer can give up: pruned where its own SAT tells the least difference.

Worth over cost orders the weights of a layer; it does not compare layers, whose fan-ins and places differ. So each
layer alone is pruned by several shares of its synaptic operations, and what the output's spikes lose is measured; then
the layers' shares are chosen together, for the least sum of losses at the synops wanted.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final

import torch
from torch import Tensor

from neurokd.feed import Feed
from neurokd.prune import expected, give_up, worths
from neurokd.quantized import QuantizedNetwork
from neurokd.quantized_layer import QuantizedLayer

#: Images that the output is compared on.
IMAGES: Final = 1000
#: Shares of a layer's synops that are tried.
SHARES: Final = (0.0, 0.15, 0.3, 0.45, 0.6, 0.75, 0.9, 0.97)
#: A layer's share is chosen in hundredths.
STEPS: Final = 100


def prune_by_sensitivity(network: QuantizedNetwork, feed: Feed, target: float) -> dict[str, float]:
    """Mask weights until ``target`` synops a sample are expected, more where the output minds less, in place.

    Within a layer the weights of least worth for their cost go, as :func:`neurokd.prune.prune_evenly` takes them.

    Args:
        network: On the chip's integers.
        feed: Images; labels are not read.
        target: Synops a sample.

    Returns:
        The share of its synops that each layer gave up, by name.
    """
    found, layers = worths(network, feed), network.quantized_layers()
    costs = {layer.name: expected(layer, found[layer.name]) for layer in layers}
    curves = damages(network, feed)
    shares = shares_for(curves, costs, sum(costs.values()) - target)
    for layer in layers:
        give_up(layer, found[layer.name], shares[layer.name])
    return shares


def damages(network: QuantizedNetwork, feed: Feed) -> dict[str, list[float]]:
    """By layer, for each of :data:`SHARES`: what the output loses if that layer alone gives up so much.

    The mean squared difference of the classes' mean spike counts on the feed's first :data:`IMAGES` images.
    """
    found, whole = worths(network, feed), _counts(network, feed)
    curves: dict[str, list[float]] = {}
    for layer in network.quantized_layers():
        curves[layer.name] = [0.0]
        for share in SHARES[1:]:
            with _as_it_was(layer):
                give_up(layer, found[layer.name], share)
                lost = float((_counts(network, feed) - whole).square().mean())
            curves[layer.name].append(max(lost, curves[layer.name][-1]))
    return curves


def shares_for(curves: dict[str, list[float]], costs: dict[str, float], excess: float) -> dict[str, float]:
    """The share that each layer gives up, so that ``excess`` synops are saved for the least sum of damages.

    Between two shares tried the damage is taken as linear, and of a curve its convex hull from below; then the cheapest
    hundredth, in damage per synop saved, is the right one to take next.
    """
    steps = sorted(
        (slope / max(costs[name], 1e-30), number, name)
        for name, curve in curves.items()
        for number, slope in enumerate(_slopes(curve))
    )
    taken = dict.fromkeys(curves, 0)
    saved = 0.0
    for _, _, name in steps:
        if saved >= excess:
            break
        taken[name] += 1
        saved += costs[name] / STEPS
    return {name: count / STEPS for name, count in taken.items()}


def _slopes(curve: list[float]) -> Iterator[float]:
    """Damage per share given up, of each step, rising: that of the curve's lower hull."""
    here, last = 0, len(SHARES) - 1

    def slope(to: int) -> float:
        return (curve[to] - curve[here]) / (SHARES[to] - SHARES[here])

    while here < last:
        to = min(range(last, here, -1), key=slope)  # the furthest of equal ones
        yield from [slope(to)] * round((SHARES[to] - SHARES[here]) * STEPS)
        here = to


def _counts(network: QuantizedNetwork, feed: Feed) -> Tensor:
    """float32 ``[images, classes]``: the SAT, summed over all steps."""
    steps = feed.encoding.steps if feed.encoding.kind == "direct" else None
    found: list[Tensor] = []
    with torch.no_grad():
        for batch in feed.in_order():
            if sum(map(len, found)) >= IMAGES:
                break
            found.append(network(batch.inputs, steps).sum(0))
    return torch.cat(found)


@contextmanager
def _as_it_was(layer: QuantizedLayer) -> Iterator[None]:
    """Weights, biases and mask are put back."""
    weight, bias, mask = layer.weight.detach().clone(), layer.bias.detach().clone(), layer.mask
    try:
        yield
    finally:
        layer.mask = mask
        with torch.no_grad():
            layer.weight.copy_(weight)
            layer.bias.copy_(bias)
