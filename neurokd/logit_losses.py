"""Losses on logits ``[B, C]``: real numbers a sample and class, from a spiking network or an ANN.

z_S and z_R are the student's and the teacher's logits, tau the temperature. Of a spiking network they are the mean over
time of its output neurons' input current (:class:`neurokd.outputs.Outputs`), which says more than the 0 .. T spikes a
class of its SAT. Every loss is a mean over the batch; divergences and entropies are in nats.
"""

from __future__ import annotations

from torch import Tensor
from torch.nn import functional

from deploy.errors import TrainingError
from neurokd.loss_checks import between, check_sat, check_targets, positive, targets_for, wide


def logit_ce(student: Tensor, labels: Tensor) -> Tensor:
    """Cross-entropy on logits: ``mean over b of -log softmax(z_S[b])[label]``.

    Source: the standard direct training that TET starts from (arXiv 2202.11946), on the mean input of the output layer.

    Args:
        student: z_S [B, C].
        labels: class numbers [B], int64; or shares of the classes [B, C].

    Raises:
        TrainingError: logits or labels that do not fit.
    """
    check_logits(student, "student logits")
    check_targets(labels, *student.shape)
    return functional.cross_entropy(wide(student), targets_for(wide(student), labels))


def logit_kl(student: Tensor, teacher: Tensor, *, temperature: float = 2.0) -> Tensor:
    """KL of softened logits: ``tau**2 * mean over b of KL(softmax(z_R / tau) || softmax(z_S / tau))``.

    Source: Hinton, Vinyals & Dean 2015 (arXiv 1503.02531); on a spiking student KDSNN (arXiv 2304.05627).

    Args:
        student: z_S [B, C].
        teacher: z_R [B, C].
        temperature: tau > 0.

    Raises:
        TrainingError: logits that do not fit each other.
        ConfigError: a temperature that is not positive.
    """
    check_logit_pair(student, teacher)
    positive("temperature", temperature)
    return temperature**2 * divergence(wide(student) / temperature, wide(teacher) / temperature)


def logit_mse(student: Tensor, teacher: Tensor) -> Tensor:
    """Mean square between logits: ``mean over b, c of (z_R - z_S)**2``, each sample's logits less their mean.

    A constant added to all of a sample's logits changes no class, so it costs nothing here. For a high temperature it
    is the limit of :func:`logit_kl` times 2 (Hinton et al. 2015, section 2.1).
    Source: Ba & Caruana 2014 (arXiv 1312.6184).

    Args:
        student: z_S [B, C].
        teacher: z_R [B, C].

    Raises:
        TrainingError: logits that do not fit each other.
    """
    check_logit_pair(student, teacher)
    difference = wide(teacher) - wide(student)
    return (difference - difference.mean(-1, keepdim=True)).square().mean()


def logit_mix(student: Tensor, teacher: Tensor, *, temperature: float = 2.0, reverse: float = 0.5) -> Tensor:
    """Forward and reverse KL: ``tau**2 * mean over b of (1 - m) KL(p_R || p_S) + m KL(p_S || p_R)``.

    ``p = softmax(z / tau)``; m is ``reverse``. The forward part makes the student cover whatever the teacher thinks
    possible, the reverse part keeps it from what the teacher thinks impossible. Source: HTA-KL (arXiv 2504.20445)
    mixes the two, weighted class by class by the teacher's head and tail; here the weight is one number.

    Args:
        student: z_S [B, C].
        teacher: z_R [B, C].
        temperature: tau > 0.
        reverse: m, 0 to 1.

    Raises:
        TrainingError: logits that do not fit each other.
        ConfigError: a temperature that is not positive, ``reverse`` outside 0 to 1.
    """
    check_logit_pair(student, teacher)
    share = between("reverse", reverse, 0.0, 1.0)
    z_s, z_r = wide(student) / positive("temperature", temperature), wide(teacher) / temperature
    return temperature**2 * ((1 - share) * divergence(z_s, z_r) + share * divergence(z_r, z_s))


def step_ce(steps: Tensor, labels: Tensor) -> Tensor:
    """Cross-entropy on the logits of every step: ``mean over t, b of -log softmax(z_S[t, b])[label]``.

    Sources: TSER (arXiv 2503.03144) and arXiv 2501.15925; before them TET (arXiv 2202.11946).

    Args:
        steps: z_S [T, B, C], the output layer's currents.
        labels: class numbers [B], int64; or shares of the classes [B, C].

    Raises:
        TrainingError: currents or labels that do not fit.
    """
    check_sat(steps, "currents of the student")
    check_targets(labels, *steps.shape[1:])
    logits = wide(steps)
    repeats = (len(steps), *[1] * (labels.dim() - 1))
    return functional.cross_entropy(logits.flatten(0, 1), targets_for(logits, labels).repeat(repeats))


def step_kl(steps: Tensor, teacher: Tensor, *, temperature: float = 2.0) -> Tensor:
    """The teacher's logits for every step: ``tau**2 * mean over t, b of KL(softmax(z_R[b] / tau) || p_S[t, b])``.

    ``p_S[t, b] = softmax(z_S[t, b] / tau)``; z_R is the teacher's answer over all its steps, or an ANN's, so T may
    differ. Sources: HSD (arXiv 2409.12507), TSER (arXiv 2503.03144), arXiv 2501.15925.

    Args:
        steps: z_S [T, B, C], the output layer's currents.
        teacher: z_R [B, C].
        temperature: tau > 0.

    Raises:
        TrainingError: currents and logits that do not fit each other.
        ConfigError: a temperature that is not positive.
    """
    check_sat(steps, "currents of the student")
    check_logit_pair(steps[0], teacher)
    positive("temperature", temperature)
    return temperature**2 * divergence(wide(steps) / temperature, wide(teacher)[None] / temperature)


def divergence(student: Tensor, teacher: Tensor) -> Tensor:
    """Mean over all leading axes of KL(teacher || student) over the last one, both given as logits."""
    log_s = functional.log_softmax(student, dim=-1)
    log_r = functional.log_softmax(teacher, dim=-1)
    return (log_r.exp() * (log_r - log_s)).sum(-1).mean()


def check_logits(logits: Tensor, name: str) -> None:
    """Refuse what is not one real number a sample and class."""
    if logits.dim() != 2 or logits.numel() == 0 or not logits.is_floating_point():
        raise TrainingError(
            "logits have the shape [B, C], none of them 0, and are floating point",
            where=name,
            got=f"{logits.dtype} {list(logits.shape)}",
            allowed="e.g. torch.float32 [128, 10]",
        )


def check_logit_pair(student: Tensor, teacher: Tensor) -> None:
    """Refuse logits that do not fit each other."""
    check_logits(student, "student logits")
    check_logits(teacher, "teacher logits")
    if student.shape[1] != teacher.shape[1]:
        raise TrainingError(
            "teacher and student have different numbers of classes",
            where="logits",
            got=f"student {student.shape[1]}, teacher {teacher.shape[1]}",
            allowed="the same number of classes",
        )
    if student.shape != teacher.shape:
        raise TrainingError(
            "the logits of teacher and student are not of the same samples",
            where="logits",
            got=f"student {list(student.shape)}, teacher {list(teacher.shape)}",
            allowed="[B, C] for both",
        )
