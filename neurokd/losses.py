"""Losses by name: terms, weighted sums as text, presets, and their evaluation.

    >>> from neurokd import losses
    >>> terms = losses.parse_loss("ce:1.0+sliding-l2:0.5,delta=4+full-kl")
    >>> losses.format_loss(terms)
    'ce+sliding-l2:0.5,delta=4+full-kl'

The functions themselves, with formulas and sources, are in :mod:`neurokd.sat_losses`, :mod:`neurokd.rate_losses` and
:mod:`neurokd.logit_losses` and can be called without this; ``docs/losses.md`` lists them all.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from deploy.errors import ConfigError, TrainingError
from neurokd.logit_losses import logit_ce, logit_kl, logit_mix, logit_mse
from neurokd.loss_registry import LOSSES, PRESETS, names
from neurokd.loss_terms import LossTerm, format_loss, parse_loss
from neurokd.outputs import Outputs, as_outputs
from neurokd.rate_losses import activity, cross_entropy, rate_kl, temporal, temporal_ce, temporal_kl
from neurokd.sat_losses import (
    DELTA,
    LOGIT_SCALE,
    align,
    combined,
    full_kl,
    full_l1,
    full_l2,
    sliding,
    sliding_l1,
    sliding_l2,
)

__all__ = [
    "DELTA",
    "LOGIT_SCALE",
    "PRESETS",
    "LossTerm",
    "activity",
    "align",
    "combined",
    "cross_entropy",
    "evaluate",
    "format_loss",
    "full_kl",
    "full_l1",
    "full_l2",
    "logit_ce",
    "logit_kl",
    "logit_mix",
    "logit_mse",
    "names",
    "needs",
    "of_student",
    "of_teacher",
    "parse_loss",
    "rate_kl",
    "sliding",
    "sliding_l1",
    "sliding_l2",
    "temporal",
    "temporal_ce",
    "temporal_kl",
]


def of_student(terms: Sequence[LossTerm]) -> frozenset[str]:
    """What the student must tell beside its SAT, as names of :data:`neurokd.outputs.EXTRAS`."""
    return frozenset(name for term in terms for name in LOSSES[term.name].of_student()) - {"sat"}


def of_teacher(terms: Sequence[LossTerm]) -> frozenset[str]:
    """What the teacher must tell: ``sat`` or names of :data:`neurokd.outputs.EXTRAS`; empty where none is needed."""
    return frozenset(name for term in terms for name in LOSSES[term.name].of_teacher())


def needs(terms: Sequence[LossTerm]) -> frozenset[str]:
    """What :func:`evaluate` must be given for these terms beside the student's SAT.

    Of ``teacher``, ``labels``, and what the student must tell: ``logits``, ``currents``, ``membranes``, ``layers``.
    """
    labels = {"labels"} if any("labels" in LOSSES[term.name].takes for term in terms) else set()
    teacher = {"teacher"} if of_teacher(terms) else set()
    return of_student(terms) | labels | teacher


def evaluate(
    terms: Sequence[LossTerm],
    student: Tensor | Outputs,
    teacher: Tensor | Outputs | None = None,
    labels: Tensor | None = None,
) -> tuple[Tensor, dict[str, Tensor]]:
    """The weighted sum and its parts.

    The teacher is frozen here (detached). If teacher and student differ in T, terms that compare them see both at the
    smaller T (:func:`neurokd.sat_losses.align`); terms on labels see all of the student's steps.

    Args:
        terms: at least one.
        student: its outputs, or its SAT [T, B, C] alone.
        teacher: its outputs or its SAT [T', B, C], where a term needs it.
        labels: [B] int64, or shares of the classes [B, C], where a term needs them.

    Returns:
        total, a scalar with gradient; parts by :attr:`LossTerm.key`, unweighted, without gradient.

    Raises:
        TrainingError: something a term needs is missing, or does not fit.
        ConfigError: no terms, or options that do not suit the data.
    """
    if not terms:
        raise ConfigError("there is no loss to evaluate", where="loss", got="no terms", allowed="at least one term")
    given = _Given(as_outputs(student), as_outputs(teacher).detached(), labels)
    given.check(terms)
    values = [given.value_of(term) for term in terms]
    total = torch.stack([term.weight * value for term, value in zip(terms, values, strict=True)]).sum()
    return total, {term.key: value.detach() for term, value in zip(terms, values, strict=True)}


class _Given:
    """What the terms of one evaluation are computed from, each found by its name in :attr:`Loss.takes`."""

    def __init__(self, student: Outputs, teacher: Outputs, labels: Tensor | None) -> None:
        self.student, self.teacher, self.labels = student, teacher, labels

    def check(self, terms: Sequence[LossTerm]) -> None:
        """Refuse to go on without something a term takes."""
        taken = dict.fromkeys(name for term in terms for name in LOSSES[term.name].takes)
        missing = [_WORDS.get(name, name) for name in taken if self._find(name) is None]
        if missing:
            raise TrainingError(
                "the loss needs more than it was given",
                where=f"loss {format_loss(terms)}",
                got=f"no {', no '.join(missing)}",
                allowed="labels, the student's and the teacher's outputs for the terms that need them",
                next_step="pass it, or leave the term out",
            )

    def value_of(self, term: LossTerm) -> Tensor:
        """The term's unweighted value."""
        loss = LOSSES[term.name]
        values = [self._find(name) for name in loss.takes]
        if loss.takes[-1] in ("teacher.sat", "teacher.membranes"):
            values = _at_the_smaller_t(*values)
        return loss.function(*values, **dict(term.options))

    def _find(self, name: str) -> Tensor | Sequence[Tensor] | None:
        if name == "labels":
            return self.labels
        whose, _, field = name.rpartition(".")
        found = getattr(self.teacher if whose else self.student, field)
        return list(found.values()) if field == "layers" and found is not None else found


_WORDS = {
    "sat": "SAT of the student", "logits": "logits of the student", "layers": "spikes of the student's layers",
    "teacher.sat": "SAT of the teacher", "teacher.logits": "logits of the teacher",
}  # fmt: skip


def _at_the_smaller_t(student: Tensor, teacher: Tensor) -> list[Tensor]:
    steps = min(len(student), len(teacher))
    return [align(student, steps), align(teacher, steps)]
