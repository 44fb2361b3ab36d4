"""Losses in which the student's time steps teach each other, and the entropy regulariser; no teacher is needed.

z[t, b] are the logits of step t: the output neurons' input current at that step; tau is the temperature. A step that
teaches is detached: gradients go to the taught alone. Every loss is a mean over the batch; divergences are in nats.
The loss on output membranes, which does need a teacher, is here too.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional

from neurokd.logit_losses import divergence
from neurokd.loss_checks import check_sat, difference_of, one_of, positive, wide

WAYS = ("strong-to-weak", "weak-to-strong", "both")


def self_ensemble(steps: Tensor, *, temperature: float = 2.0) -> Tensor:
    """All steps together teach each: ``tau**2 * mean over t, b of KL(softmax(z[b] / tau) || softmax(z[t, b] / tau))``.

    ``z[b]`` is the mean of z[t, b] over t, detached. A network trained so answers well after fewer steps too.
    Source: the self-distillation part of arXiv 2501.15925 (ICML 2025).

    Args:
        steps: z [T, B, C], the output layer's currents.
        temperature: tau > 0.

    Raises:
        TrainingError: currents of another shape.
        ConfigError: a temperature that is not positive.
    """
    check_sat(steps, "currents of the student")
    soft = wide(steps) / positive("temperature", temperature)
    return temperature**2 * divergence(soft, soft.detach().mean(0, keepdim=True))


def self_pair(steps: Tensor, *, temperature: float = 2.0, way: str = "strong-to-weak") -> Tensor:
    """The most and the least confident step of each sample: ``tau**2 * mean over b of KL(p_teaching || p_taught)``.

    Confidence is the largest probability of softmax(z[t, b]), of equal ones the first step counts. ``way`` says who
    teaches: the strong step the weak one, the weak the strong (a regulariser against overconfidence), or both (the mean
    of the two). Where T is 1, or all steps are alike, the loss is 0. Source: Strong2Weak and Weak2Strong (arXiv
    2510.07924); the softening 2 is theirs, confidence by the largest probability is a choice made here.

    Args:
        steps: z [T, B, C], the output layer's currents.
        temperature: tau > 0.
        way: "strong-to-weak", "weak-to-strong" or "both".

    Raises:
        TrainingError: currents of another shape.
        ConfigError: a temperature that is not positive, another ``way``.
    """
    check_sat(steps, "currents of the student")
    one_of("way", way, WAYS)
    logits = wide(steps)
    sure = logits.detach().softmax(-1).amax(-1)
    soft = logits / positive("temperature", temperature)
    strong, weak = _picked(soft, sure.argmax(0)), _picked(soft, sure.argmin(0))
    forward, back = divergence(weak, strong.detach()), divergence(strong, weak.detach())
    value = {"strong-to-weak": forward, "weak-to-strong": back, "both": (forward + back) / 2}[way]
    return temperature**2 * value


def entropy(steps: Tensor) -> Tensor:
    """What each step's answer lacks in entropy: ``log C - mean over t, b of H(softmax(z[t, b]))``, >= 0.

    It keeps a student from being sure where its teacher is wrong. Sources: Pereyra et al. 2017 (arXiv 1701.06548,
    confidence penalty); per time step in a spiking student TSER (arXiv 2503.03144). ``log C`` is added here, so that
    the loss is not negative; its gradient is that of ``-H``.

    Args:
        steps: z [T, B, C], the output layer's currents.

    Raises:
        TrainingError: currents of another shape.
    """
    check_sat(steps, "currents of the student")
    log_p = functional.log_softmax(wide(steps), dim=-1)
    most = torch.full((), float(steps.shape[-1]), dtype=log_p.dtype, device=log_p.device).log()
    return most + (log_p.exp() * log_p).sum(-1).mean()


def membrane(student: Tensor, teacher: Tensor) -> Tensor:
    """Mean square between output membranes: ``mean over t, b, c of (V_R - V_S)**2``.

    V are the membranes before threshold and reset in units of the network's own threshold, so networks with other
    thresholds can be compared. Source: MD-SNN (arXiv 2512.04443) distils membrane potentials; which layers and how they
    are scaled is a choice made here.

    Args:
        student: V_S [T, B, C].
        teacher: V_R [T, B, C].

    Raises:
        TrainingError: membranes that do not fit each other.
    """
    return difference_of(student, teacher).square().mean()


def _picked(soft: Tensor, step: Tensor) -> Tensor:
    """The logits [B, C] of one step a sample."""
    return soft[step, torch.arange(soft.shape[1], device=soft.device)]
