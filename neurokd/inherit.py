"""A student that starts as the most useful part of its assistant, instead of from fresh weights.

Teacher -> assistant -> student hands on answers; a student of the assistant's own kind, only narrower, can be handed
its weights too. Measured against a fresh start in ``docs/losses.md``, "Through an assistant".
"""

from __future__ import annotations

from itertools import pairwise

import torch
from torch import Tensor

from deploy.errors import TrainingError
from neurokd.data import Dataset
from neurokd.encoding import Encoding
from neurokd.feed import Feed, run_layers
from neurokd.network import SpikingNetwork
from neurokd.network_layers import SpikingLayer
from neurokd.train import encoding_of
from neurokd.units import by_source, copy_units, reach, units_of

#: Training images that spikes are counted on.
IMAGES = 2000
#: Options that two networks may differ in and still share weights.
_FREE = frozenset({"seed", "steps", "notes"})


def inherit(
    student: SpikingNetwork, wide: SpikingNetwork, data: Dataset, *, encoding: Encoding | None = None
) -> SpikingNetwork:
    """Start a student as the most useful units of a wider network of its kind, in place.

    Of each hidden layer the neurons or channels stay that matter most to the layer behind: by the squared weights that
    read them, in thresholds, times the variance of their spikes over steps, places and training images. Their weights,
    norms and neurons are copied as they are; training does the rest.

    Args:
        student: The narrower network.
        wide: Trained; a network of the same layers with at least as many units in each, and the same options.
        data: Its first :data:`IMAGES` training images are seen, their labels are not.
        encoding: What the wide network sees; its own direct encoding when absent.

    Returns:
        The student.

    Raises:
        TrainingError: the student is not a narrower form of the wide network.
    """
    check_narrower(student, wide)
    kept = _most_useful(student, wide, Feed(data.train, encoding or encoding_of(wide, data)))
    before: Tensor | None = None
    for old, new, rows in zip(wide.spiking_layers(), student.spiking_layers(), kept, strict=True):
        copy_units(old, new, rows, before)
        before = rows
    return student


def check_narrower(student: SpikingNetwork, wide: SpikingNetwork) -> None:
    """Refuse a student that could not be a part of the wide network.

    Raises:
        TrainingError: other layers, more units, or other options.
    """
    names = (student.options.keys() | wide.options.keys()) - _FREE
    mine, theirs = ({name: network.options.get(name) for name in names} for network in (student, wide))
    unlike = sorted(name for name in names if mine[name] != theirs[name])
    if student.spec.narrows(wide.spec) and not unlike:
        return
    raise TrainingError(
        "the student is not a narrower form of the network it should start from",
        where=student.spec_text,
        got=", ".join(f"{name} {mine[name]}, not {theirs[name]}" for name in unlike) or f"a start from {wide.spec}",
        allowed="the same layers without groups, at most as many neurons or channels in each, the same options",
        next_step="choose such an assistant, or start fresh (distill.start = fresh)",
    )


def _most_useful(student: SpikingNetwork, wide: SpikingNetwork, feed: Feed) -> list[Tensor]:
    """For each layer the units that stay, int64 in order; all of the output's."""
    wanted = [units_of(layer) for layer in student.spiking_layers()]
    scores = usefulness(wide, feed)
    kept = [score.topk(count).indices.sort().values for score, count in zip(scores, wanted[:-1], strict=True)]
    return [*kept, torch.arange(wanted[-1])]


def usefulness(network: SpikingNetwork, feed: Feed, images: int = IMAGES) -> list[Tensor]:
    """How much the units of each hidden layer matter to the layer behind: float32 ``[units]``, squared thresholds.

    If unit j were held at its mean, the currents behind it would lose a variance of the sum over its synapses of
    ``(w / threshold)^2 var(s_j)``, where its spikes s_j are 0 or 1, so ``var = p (1 - p)`` at a rate p.
    """
    rates = _rates(network, feed, images)
    pairs = zip(rates, pairwise(network.spiking_layers()), strict=False)
    return [_to_next(here, behind, rate * (1 - rate)) for rate, (here, behind) in pairs]


def _to_next(here: SpikingLayer, behind: SpikingLayer, variance: Tensor) -> Tensor:
    def product(x: Tensor, weight: Tensor) -> Tensor:
        return behind.product(x if behind.pool is None else behind.pool(x), weight, None)

    weight = behind.folded()[0].float() / behind.neuron.threshold.detach().mean()
    return by_source(weight**2 * reach(product, weight, variance), units_of(here))


def _rates(network: SpikingNetwork, feed: Feed, images: int) -> list[Tensor]:
    """Mean spikes a step of every neuron, float32 ``[*shape]`` a layer, on the first images of a feed."""
    was, seen = network.training, 0
    sums: list[Tensor] = []
    network.eval()
    with torch.no_grad():
        for batch in feed.in_order():
            if seen >= images:
                break
            means = [layer.mean(0).sum(0) for layer in run_layers(network, batch, feed.encoding)[1]]
            sums = [a + b for a, b in zip(sums, means, strict=True)] if sums else means
            seen += len(batch.labels)
    network.train(was)
    return [total / seen for total in sums]
