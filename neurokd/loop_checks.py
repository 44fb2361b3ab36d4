"""What the training loop refuses: networks, encodings and teachers that do not fit, losses and weights gone wrong."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence

import torch

from deploy.errors import TrainingError
from neurokd import losses
from neurokd.encoding import Encoding
from neurokd.feed import Feed, Network
from neurokd.teachers import Telling


def check_encoding(network: Network, code: Encoding, where: str) -> None:
    """Steps and input bits are exported with the network, so it must be trained with its own.

    Raises:
        TrainingError: the encoding has others.
    """
    bits = code.bits if code.kind == "direct" else 1
    if (code.steps, bits) != (network.steps, network.input_bits):
        raise TrainingError(
            "the encoding is not the one the network was built for",
            where=where,
            got=f"{code.kind} encoding: {code.steps} steps, {bits}-bit spikes",
            allowed=f"{network.steps} steps, {network.input_bits}-bit spikes",
            next_step=f"build the network with steps={code.steps}, input_bits={bits}",
        )


def check_teacher(
    teacher: Telling | None, feed: Feed, classes: int, terms: Sequence[losses.LossTerm], where: str
) -> None:
    """Refuse a teacher that is missing, of other images or classes, or cannot tell what the loss needs.

    Raises:
        TrainingError: one of these.
    """
    if teacher is None:
        if "teacher" not in losses.needs(terms):
            return
        raise TrainingError(
            "the loss needs a teacher and there is none",
            where=f"{where}: loss {losses.format_loss(terms)}",
            got="no teacher SATs",
            allowed="a loss on labels alone, such as ce",
            next_step="distil from a teacher, or choose the loss ce",
        )
    if teacher.samples != len(feed) or teacher.views < feed.views.count or teacher.classes != classes:
        raise TrainingError(
            "the teacher's SATs do not fit this stage",
            where=where,
            got=f"{teacher.samples} images, {teacher.views} views, {teacher.classes} classes",
            allowed=f"{len(feed)} images, {feed.views.count} views, {classes} classes",
            next_step="compute the teacher's SATs for the same data, validation share and views",
        )
    if not losses.of_teacher(terms) <= teacher.holds:
        raise TrainingError(
            "the teacher's cache does not hold what the loss needs",
            where=f"{where}: loss {losses.format_loss(terms)}",
            got=", ".join(sorted(teacher.holds)),
            allowed=", ".join(sorted(losses.of_teacher(terms))),
            next_step="compute the cache for a stage with this loss",
        )


def check_loss(values: Mapping[str, float], where: str, kept: Callable[[], str]) -> None:
    """Stop at a loss that is not a number.

    Args:
        values: The total under the empty name, its terms under theirs.
        where: Stage, epoch and batch.
        kept: Says what was kept of the run.

    Raises:
        TrainingError: names the terms.
    """
    if math.isfinite(values[""]):
        return
    terms = [f"{key} = {value}" for key, value in values.items() if key and not math.isfinite(value)]
    raise TrainingError(
        "the loss is not a number",
        where=where,
        got=", ".join(terms) or f"total = {values['']}",
        allowed="finite loss terms",
        next_step=f"lower the learning rate or that term's weight; {kept()}",
    )


def check_weights(network: Network, where: str, kept: str) -> None:
    """A neuron with a NaN current stays silent, so NaN weights need not show in the loss.

    Raises:
        TrainingError: names the first such tensor.
    """
    for key, value in network.state_dict().items():
        if value.is_floating_point() and not bool(torch.isfinite(value).all()):
            raise TrainingError(
                "a weight is not a number",
                where=f"{where}: {key}",
                got="NaN or infinity",
                allowed="finite weights",
                next_step=f"lower the learning rate; {kept}",
            )
