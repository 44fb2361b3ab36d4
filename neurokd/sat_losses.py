"""Distillation losses as pure functions on spiking activation tensors (SATs): ``[T, B, C] x [T, B, C] -> scalar``.

S is the student's SAT, R the teacher's (both [T, B, C], time first, entries 0 or 1, or rates in between once
:func:`align` has averaged steps), D = R - S; t, b, c run over time, batch, classes; r[b, c] = mean over t.

Every loss is a mean: over the batch and over whatever else it adds up, never a sum. For SATs of 0 and 1 the distances
lie in [0, 1] whatever T, B, C and the window are, so their weights can be compared; divergences are in nats. No loss
detaches the teacher: whoever wants it frozen passes it frozen (:func:`neurokd.losses.evaluate` does).

[poster] is "Distilling Spikes: Knowledge Distillation in Spiking Neural Networks" (Kushawaha et al., poster and
arXiv 2005.00288, ICPR 2020). It names the losses and gives one formula (sliding window); norm, normalisation, window
and weights are choices made here and stated in each docstring.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from deploy.errors import TrainingError
from neurokd.logit_losses import divergence
from neurokd.loss_checks import check_sat, difference_of, not_negative, one_of, positive, whole, wide

#: Factor from rates (0 .. 1) to logits, so that softmax can tell classes apart: one more spike in T = 10 steps is one
#: more in the logit. Independent of T, unlike spike counts as logits (snntorch's ``ce_count_loss``).
LOGIT_SCALE = 10.0
#: Default window of the sliding losses, in time steps.
DELTA = 3


# The poster's five ------------------------------------------------------------------------------------------------


def full_l1(student: Tensor, teacher: Tensor) -> Tensor:
    """L1 on the whole SAT: ``mean over t, b, c of |D|``.

    For 0/1 SATs this is the share of entries that differ. Source: [poster] (name), mean as in ``torch.nn.L1Loss``.

    Args:
        student: S [T, B, C].
        teacher: R [T, B, C].

    Raises:
        TrainingError: SATs that do not fit each other.
    """
    return difference_of(student, teacher).abs().mean()


def full_l2(student: Tensor, teacher: Tensor, *, reduce: str = "norm") -> Tensor:
    """L2 on the whole SAT: ``mean over b of ||D[:, b, :]||_2 / sqrt(T C)``.

    The norm of each sample's whole difference, as the poster's notation ``||.||_m`` says; the gradient is 0 where a
    sample's SATs are equal. ``reduce="mse"`` gives ``mean of D**2``, the usual "L2 loss" (``torch.nn.MSELoss``): on
    0/1 SATs its value is that of :func:`full_l1` and its gradient twice that, so it teaches nothing full L1 does not.
    Source: [poster] (name).

    Args:
        student: S [T, B, C].
        teacher: R [T, B, C].
        reduce: "norm" or "mse".

    Raises:
        TrainingError: SATs that do not fit each other.
        ConfigError: another ``reduce``.
    """
    one_of("reduce", reduce, ("norm", "mse"))
    difference = difference_of(student, teacher)
    if reduce == "mse":
        return difference.square().mean()
    steps, _, classes = difference.shape
    return _norm(difference.transpose(0, 1).flatten(1), 2).mean() / math.sqrt(steps * classes)


def full_kl(student: Tensor, teacher: Tensor, *, over: str = "rates", scale: float = LOGIT_SCALE) -> Tensor:
    """KL divergence on the SAT, teacher to student, in nats: ``mean over b of sum p_R log(p_R / p_S)``.

    A SAT is not a distribution, and the poster does not say how it is made one. The choices:

    - ``over="rates"``: ``p[b] = softmax over c of scale * r[b, c]``: the whole SAT summed over time, KL of the classes;
    - ``over="steps"``: ``p[t, b] = softmax over c of scale * S[t, b, c]``, then the mean over t as well;
    - ``over="tensor"``: ``p[b] = softmax over t and c of scale * S[:, b, :]``, one distribution over all T C entries.

    Source: [poster] (name).

    Args:
        student: S [T, B, C].
        teacher: R [T, B, C].
        over: "rates", "steps" or "tensor".
        scale: factor from spikes or rates to logits, > 0.

    Raises:
        TrainingError: SATs that do not fit each other.
        ConfigError: another ``over``, a scale that is not positive.
    """
    one_of("over", over, ("rates", "steps", "tensor"))
    difference_of(student, teacher)
    positive("scale", scale)
    return divergence(scale * logits_of(student, over), scale * logits_of(teacher, over))


def sliding_l1(student: Tensor, teacher: Tensor, *, delta: int = DELTA, reduce: str = "norm") -> Tensor:
    """Sliding-window L1 (m = 1), see :func:`sliding`."""
    return sliding(student, teacher, order=1, delta=delta, reduce=reduce)


def sliding_l2(student: Tensor, teacher: Tensor, *, delta: int = DELTA, reduce: str = "norm") -> Tensor:
    """Sliding-window L2 (m = 2), see :func:`sliding`."""
    return sliding(student, teacher, order=2, delta=delta, reduce=reduce)


def sliding(student: Tensor, teacher: Tensor, *, order: int, delta: int = DELTA, reduce: str = "norm") -> Tensor:
    """The poster's sliding-window loss, ``sum over k in b, j in c, i in t of ||R[i:i+D; j; k] - S[i:i+D; j; k]||_m``.

    Read as: windows of ``delta`` steps, stride 1, only full ones (i = 0 .. T - delta), each of one class and sample;
    the sums become means, over windows, classes and samples.

    - ``reduce="norm"``: the norm of the window's difference, ``||D[i:i+delta, b, c]||_m / delta**(1/m)``. For m = 1
      this is :func:`full_l1` with the outermost steps weighing less; for m = 2 it is concave in the number of
      differing steps: a burst of them costs less than the same number far apart.
    - ``reduce="sum"``: the window sums are compared, ``|sum of D[i:i+delta, b, c] / delta|**m``: a spike that comes a
      step early or late costs little. ``delta = T`` compares spike counts.

    Source: [poster] (formula); normalisation, stride and window sums are choices made here.

    Args:
        student: S [T, B, C].
        teacher: R [T, B, C].
        order: m, 1 or 2.
        delta: window in steps, 1 .. T.
        reduce: "norm" or "sum".

    Raises:
        TrainingError: SATs that do not fit each other, a window longer than T.
        ConfigError: a window below 1, another order or ``reduce``.
    """
    one_of("reduce", reduce, ("norm", "sum"))
    one_of("order", order, (1, 2))
    difference = difference_of(student, teacher)
    if whole("delta", delta) > difference.shape[0]:
        raise window_too_long(delta, difference.shape[0], "sliding loss")
    if reduce == "sum":
        sums: Tensor = difference.unfold(0, delta, 1).sum(-1) / delta
        return sums.abs().pow(order).mean()
    return _window_norms(difference, order, delta).mean() / float(delta ** (1 / order))


def _window_norms(difference: Tensor, order: int, delta: int) -> Tensor:
    """Norms [T - delta + 1, B, C] of all windows of delta steps.

    The strided norm over ``unfold`` is 3 (order 2) to 10 times slower, and on spikes equal bit for bit, forward and
    backward: sums of 0 and 1 are exact in any order.
    """
    if order == 2:
        return _norm(difference.unfold(0, delta, 1).contiguous(), 2)
    sizes, count = difference.abs(), len(difference) - delta + 1
    norms = sizes[:count]
    for shift in range(1, delta):
        norms = norms + sizes[shift : shift + count]
    return norms


def window_too_long(delta: int, steps: int, where: str) -> TrainingError:
    """The refusal of a window that does not fit into the steps compared."""
    return TrainingError(
        "the sliding window is longer than the SAT",
        where=where,
        got=f"delta={delta}, T={steps}",
        allowed=f"1 to {steps}",
        next_step="lower delta, or raise the number of time steps",
    )


def combined(
    student: Tensor,
    teacher: Tensor,
    *,
    weights: tuple[float, float, float, float, float] = (1.0, 1.0, 1.0, 1.0, 1.0),
    delta: int = DELTA,
) -> Tensor:
    """Weighted sum of (full L1, full L2, full KL, sliding L1, sliding L2), each with its defaults.

    Source: [poster] ("Proposed"); it gives no weights.

    Args:
        student: S [T, B, C].
        teacher: R [T, B, C].
        weights: one a loss, in the order above, >= 0.
        delta: window of the sliding losses.

    Raises:
        TrainingError: as the single losses.
        ConfigError: a negative weight.
    """
    for weight in weights:
        not_negative("weight", weight)
    parts = (
        full_l1(student, teacher),
        full_l2(student, teacher),
        full_kl(student, teacher),
        sliding_l1(student, teacher, delta=delta),
        sliding_l2(student, teacher, delta=delta),
    )
    return torch.stack([weight * part for weight, part in zip(weights, parts, strict=True)]).sum()


# Teacher and student of different T ----------------------------------------------------------------------------


def align(sat: Tensor, steps: int) -> Tensor:
    """A SAT of T steps as one of ``steps <= T``: each new step is the mean over its T / steps old ones.

    Where T is not a multiple, an old step that straddles two new ones counts for each by its overlap, so the rate of
    every neuron is kept exactly. Entries become rates between 0 and 1. Teacher and student of different T are compared
    at the smaller T; a SAT is never stretched, since that would invent spike times.

    Args:
        sat: [T, B, C].
        steps: 1 .. T.

    Returns:
        [steps, B, C].

    Raises:
        TrainingError: more steps than the SAT has, or fewer than one.
    """
    check_sat(sat, "SAT")
    old = sat.shape[0]
    if not 1 <= steps <= old:
        raise TrainingError(
            "a SAT can only be averaged to fewer time steps", where="align", got=steps, allowed=f"1 to {old}"
        )
    if steps == old:
        return sat
    edges = torch.arange(steps + 1, dtype=torch.float64) * old / steps
    start = torch.arange(old, dtype=torch.float64)
    overlap = torch.minimum(edges[1:, None], start + 1) - torch.maximum(edges[:-1, None], start)
    weights = (overlap.clamp(min=0) * steps / old).to(sat)
    averaged: Tensor = torch.tensordot(weights, sat, dims=1)
    return averaged


# Shared -----------------------------------------------------------------------------------------------------------


def _norm(values: Tensor, order: int) -> Tensor:
    """Norm over the last axis; torch's subgradient at 0 is 0."""
    norm: Tensor = torch.linalg.vector_norm(values, ord=order, dim=-1)
    return norm


def logits_of(sat: Tensor, over: str) -> Tensor:
    """A SAT as logits without scale: its rates [B, C], its steps [T, B, C], or all its entries [B, T C]."""
    sat = wide(sat)
    if over == "rates":
        return sat.mean(0)
    return sat if over == "steps" else sat.transpose(0, 1).flatten(1)
