"""Losses on labels, rates and single steps of SATs, and a penalty on spikes; notation of :mod:`neurokd.sat_losses`.

Every loss is a mean over the batch and whatever else it adds up; divergences are in nats.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn import functional

from deploy.errors import TrainingError
from neurokd.logit_losses import divergence
from neurokd.loss_checks import check_labels, difference_of, not_negative, positive, targets_for, wide
from neurokd.sat_losses import LOGIT_SCALE, logits_of


def cross_entropy(student: Tensor, labels: Tensor, *, scale: float = LOGIT_SCALE) -> Tensor:
    """Cross-entropy on rates: ``mean over b of -log softmax(scale * r[b])[label]``, in nats.

    Args:
        student: S [T, B, C].
        labels: class numbers [B], int64; or shares of the classes [B, C].
        scale: factor from rates to logits, > 0.

    Raises:
        TrainingError: labels that do not fit.
        ConfigError: a scale that is not positive.
    """
    check_labels(student, labels)
    logits = positive("scale", scale) * wide(student).mean(0)
    return functional.cross_entropy(logits, targets_for(logits, labels))


def rate_kl(student: Tensor, teacher: Tensor, *, temperature: float = 2.0, scale: float = LOGIT_SCALE) -> Tensor:
    """KL of softened rates: ``tau**2 * mean over b of KL(softmax(scale r_R / tau) || softmax(scale r_S / tau))``.

    Source: Hinton, Vinyals & Dean 2015 (arXiv 1503.02531), on rates as logits.

    Args:
        student: S [T, B, C].
        teacher: R [T, B, C].
        temperature: tau > 0.
        scale: factor from rates to logits, > 0.

    Raises:
        TrainingError: SATs that do not fit each other.
        ConfigError: a temperature or scale that is not positive.
    """
    difference_of(student, teacher)
    factor = positive("scale", scale) / positive("temperature", temperature)
    return temperature**2 * divergence(factor * logits_of(student, "rates"), factor * logits_of(teacher, "rates"))


def corrected_kl(
    student: Tensor, teacher: Tensor, labels: Tensor, *, temperature: float = 2.0, scale: float = LOGIT_SCALE
) -> Tensor:
    """:func:`rate_kl` against a teacher whose mistakes are mended (:func:`corrected`).

    Source: the probability shift of Wen, Lai & Qian 2019 (arXiv 1911.07471), on spike trains.

    Args:
        student: S [T, B, C].
        teacher: R [T, B, C].
        labels: class numbers [B], int64; or shares of the classes [B, C].
        temperature: tau > 0.
        scale: factor from rates to logits, > 0.

    Raises:
        TrainingError: SATs or labels that do not fit.
        ConfigError: a temperature or scale that is not positive.
    """
    check_labels(student, labels)
    difference_of(student, teacher)
    return rate_kl(student, corrected(teacher, labels), temperature=temperature, scale=scale)


def corrected(teacher: Tensor, labels: Tensor) -> Tensor:
    """The teacher's SAT, with the trains of its answer and of the label exchanged where it is wrong.

    A student whose teacher errs on the training images learns what it knows of the other classes, but not the error.

    Args:
        teacher: R [T, B, C].
        labels: class numbers [B], int64; of shares of the classes [B, C] the largest.

    Returns:
        ``[T, B, C]``; spike counts of a sample are the same, in another order.
    """
    label = labels.argmax(1) if labels.is_floating_point() else labels
    rates = wide(teacher).mean(0)
    told = torch.where(rates.gather(1, label[:, None])[:, 0] >= rates.max(1).values, label, rates.argmax(1))
    order = torch.arange(teacher.shape[2], device=teacher.device).repeat(len(label), 1)
    order = order.scatter(1, label[:, None], told[:, None]).scatter(1, told[:, None], label[:, None])
    return teacher.gather(2, order.expand_as(teacher))


def temporal_ce(student: Tensor, labels: Tensor, *, scale: float = 1.0) -> Tensor:
    """Cross-entropy at every step: ``mean over t, b of -log softmax(scale * S[t, b])[label]``, in nats.

    Source: the per-step ("temporal-wise") losses of arXiv 2503.03144 and 2501.15925, on spikes as logits; scale 1 is
    snntorch's ``ce_rate_loss``.

    Args:
        student: S [T, B, C].
        labels: class numbers [B], int64; or shares of the classes [B, C].
        scale: factor from spikes to logits, > 0.

    Raises:
        TrainingError: labels that do not fit.
        ConfigError: a scale that is not positive.
    """
    check_labels(student, labels)
    logits = positive("scale", scale) * wide(student)
    repeats = (student.shape[0], *[1] * (labels.dim() - 1))
    return functional.cross_entropy(logits.flatten(0, 1), targets_for(logits, labels).repeat(repeats))


def temporal_kl(student: Tensor, teacher: Tensor, *, temperature: float = 1.0, scale: float = 1.0) -> Tensor:
    """KL at every step: ``tau**2 * mean over t, b of KL(p_R[t, b] || p_S[t, b])``, ``p = softmax(scale * SAT / tau)``.

    Source: arXiv 2503.03144 and 2501.15925 (tau 2 to 6 there, on real-valued logits), here on spikes as logits.

    Args:
        student: S [T, B, C].
        teacher: R [T, B, C].
        temperature: tau > 0.
        scale: factor from spikes to logits, > 0.

    Raises:
        TrainingError: SATs that do not fit each other.
        ConfigError: a temperature or scale that is not positive.
    """
    difference_of(student, teacher)
    factor = positive("scale", scale) / positive("temperature", temperature)
    return temperature**2 * divergence(factor * logits_of(student, "steps"), factor * logits_of(teacher, "steps"))


def temporal(
    student: Tensor,
    teacher: Tensor,
    labels: Tensor,
    *,
    weight: float = 1.0,
    temperature: float = 1.0,
    scale: float = 1.0,
) -> Tensor:
    """Per-step cross-entropy and KL: ``temporal_ce + weight * temporal_kl``; see both.

    Args:
        student: S [T, B, C].
        teacher: R [T, B, C].
        labels: class numbers [B], int64; or shares of the classes [B, C].
        weight: of the KL, >= 0.
        temperature: tau > 0 of the KL.
        scale: factor from spikes to logits, > 0.

    Raises:
        TrainingError: SATs or labels that do not fit.
        ConfigError: a negative weight, a temperature or scale that is not positive.
    """
    divergence = temporal_kl(student, teacher, temperature=temperature, scale=scale)
    return temporal_ce(student, labels, scale=scale) + not_negative("weight", weight) * divergence


def activity(layers: Tensor | Sequence[Tensor], *, target: float = 0.0) -> Tensor:
    """Penalty on spikes: ``max(0, spikes per neuron and step - target)`` over all layers together.

    Fewer spikes are fewer synaptic operations on the chip. The gradient is the same for every spike of every layer.

    Args:
        layers: spikes [T, B, *shape] of one layer or of several.
        target: mean activity that costs nothing, >= 0.

    Raises:
        TrainingError: no layer, or an empty one.
        ConfigError: a negative target.
    """
    each = (layers,) if isinstance(layers, Tensor) else tuple(layers)
    count = sum(layer.numel() for layer in each)
    if count == 0:
        raise TrainingError(
            "the activity penalty has no spikes to count", where="activity", got=f"{len(each)} layers, 0 elements"
        )
    mean = torch.stack([wide(layer).sum() for layer in each]).sum() / count
    return (mean - not_negative("target", target)).clamp(min=0)
