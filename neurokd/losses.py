"""Losses by name: terms, weighted sums as text, presets, and their evaluation.

    >>> from neurokd import losses
    >>> terms = losses.parse_loss("ce:1.0+sliding-l2:0.5,delta=4+full-kl")
    >>> losses.format_loss(terms)
    'ce+sliding-l2:0.5,delta=4+full-kl'

The functions themselves, with formulas and sources, are in :mod:`neurokd.sat_losses`, :mod:`neurokd.rate_losses`,
:mod:`neurokd.logit_losses`, :mod:`neurokd.self_distillation` and :mod:`neurokd.feature_losses` and can be called
without this; ``docs/losses.md`` lists them all.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from deploy.errors import ConfigError, TrainingError
from neurokd.feature_losses import Alignments, attention, feature, layer_of, rates, same_size
from neurokd.logit_losses import logit_ce, logit_kl, logit_mix, logit_mse, step_ce, step_kl
from neurokd.loss_registry import LOSSES, PLACES, PRESETS, names
from neurokd.loss_schedule import Moment, Schedule, weight_at
from neurokd.loss_terms import LossTerm, format_loss, parse_loss
from neurokd.outputs import Outputs, as_outputs
from neurokd.rate_losses import (
    activity,
    corrected,
    corrected_kl,
    cross_entropy,
    rate_kl,
    temporal,
    temporal_ce,
    temporal_kl,
)
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
    window_too_long,
)
from neurokd.self_distillation import entropy, membrane, self_ensemble, self_pair

__all__ = [
    "DELTA",
    "LOGIT_SCALE",
    "PRESETS",
    "Alignments",
    "LossTerm",
    "Moment",
    "Schedule",
    "activity",
    "align",
    "alignments_for",
    "attention",
    "check_schedules",
    "check_windows",
    "combined",
    "corrected",
    "corrected_kl",
    "cross_entropy",
    "entropy",
    "evaluate",
    "feature",
    "format_loss",
    "full_kl",
    "full_l1",
    "full_l2",
    "logit_ce",
    "logit_kl",
    "logit_mix",
    "logit_mse",
    "membrane",
    "names",
    "needs",
    "of_student",
    "of_teacher",
    "parse_loss",
    "rate_kl",
    "self_ensemble",
    "self_pair",
    "sliding",
    "sliding_l1",
    "sliding_l2",
    "step_ce",
    "step_kl",
    "temporal",
    "temporal_ce",
    "temporal_kl",
]

Shapes = Mapping[str, tuple[int, ...]]


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


def check_schedules(terms: Sequence[LossTerm], epochs: int, where: str) -> None:
    """Refuse weights that a training of so many epochs never reaches.

    Raises:
        ConfigError: a term starts after the last epoch.
    """
    for term in terms:
        if isinstance(term.weight, Schedule):
            term.weight.check(epochs, f"{where}: loss {term}")


def check_windows(terms: Sequence[LossTerm], steps: int, where: str) -> None:
    """Refuse windows longer than the SATs that will be compared, before a teacher is run.

    Raises:
        TrainingError: ``delta`` above ``steps``.
    """
    for term in terms:
        delta = dict(term.options).get("delta", DELTA)
        if term.name.startswith("sliding-") and isinstance(delta, int) and delta > steps:
            raise window_too_long(delta, steps, f"{where}: loss {term}")


def evaluate(
    terms: Sequence[LossTerm],
    student: Tensor | Outputs,
    teacher: Tensor | Outputs | None = None,
    labels: Tensor | None = None,
    *,
    moment: Moment | None = None,
    alignments: Alignments | None = None,
) -> tuple[Tensor, dict[str, Tensor]]:
    """The weighted sum and its parts.

    The teacher is frozen here (detached). If teacher and student differ in T, terms that compare them see both at the
    smaller T (:func:`neurokd.sat_losses.align`); terms on labels see all of the student's steps.

    Args:
        terms: at least one.
        student: its outputs, or its SAT [T, B, C] alone.
        teacher: its outputs or its SAT [T', B, C], where a term needs it.
        labels: [B] int64, or shares of the classes [B, C], where a term needs them.
        moment: the place in training, for weights with a schedule; its start if absent.
        alignments: from :func:`alignments_for`, where a term between layers learns one.

    Returns:
        total, a scalar with gradient; parts by :attr:`LossTerm.key`, unweighted, without gradient.

    Raises:
        TrainingError: something a term needs is missing, or does not fit.
        ConfigError: no terms, or options that do not suit the data.
    """
    if not terms:
        raise ConfigError("there is no loss to evaluate", where="loss", got="no terms", allowed="at least one term")
    given = _Given(as_outputs(student), as_outputs(teacher).detached(), labels, alignments)
    given.check(terms)
    values = [given.value_of(term) for term in terms]
    weights = [weight_at(term.weight, moment or Moment()) for term in terms]
    total = torch.stack([weight * value for weight, value in zip(weights, values, strict=True)]).sum()
    return total, {term.key: value.detach() for term, value in zip(terms, values, strict=True)}


def alignments_for(terms: Sequence[LossTerm], student: Shapes, teacher: Shapes, seed: int) -> Alignments | None:
    """The learned alignments of all terms between layers; None where there are none.

    Args:
        terms: the loss.
        student: each layer's shape without time and batch, in order.
        teacher: likewise.
        seed: of their first weights.

    Raises:
        TrainingError: a layer that is not there, or two that cannot be aligned.
    """
    pairs = []
    for term in terms:
        if "layer" in LOSSES[term.name].takes:
            own, other = _layer(term, "student", student), _layer(term, "teacher", teacher)
            if _align(term) == "learned":
                pairs.append((term.key, student[own], teacher[other]))
    return Alignments(pairs, seed) if pairs else None


def _align(term: LossTerm) -> object:
    return dict(term.options).get("align", LOSSES[term.name].align)


def _layer(term: LossTerm, whose: str, layers: Mapping[str, object]) -> str:
    """The named layer, or by default the one before the last."""
    chosen = dict(term.options).get(whose, list(layers)[-2] if len(layers) > 1 else "")
    return layer_of(layers, str(chosen), whose)


class _Given:
    """What the terms of one evaluation are computed from, each found by its name in :attr:`Loss.takes`."""

    def __init__(
        self, student: Outputs, teacher: Outputs, labels: Tensor | None, alignments: Alignments | None
    ) -> None:
        self.student, self.teacher, self.labels, self.alignments = student, teacher, labels, alignments

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
        options = {name: value for name, value in dict(term.options).items() if name not in PLACES}
        if "layer" in loss.takes:
            return loss.function(*self._features(term), **options)
        values = [self._find(name) for name in loss.takes]
        if loss.takes[1:2] in (("teacher.sat",), ("teacher.membranes",)):
            values[:2] = _at_the_smaller_t(*values[:2])
        return loss.function(*values, **options)

    def _find(self, name: str) -> Any:
        if name == "labels":
            return self.labels
        whose, _, field = name.rpartition(".")
        outputs = self.teacher if whose else self.student
        if field == "layers":
            return None if outputs.layers is None else list(outputs.layers.values())
        return outputs.layers if field == "layer" else getattr(outputs, field)

    def _features(self, term: LossTerm) -> tuple[Tensor, Tensor]:
        """The term's two layers as rates, aligned and of one size."""
        own, other = self.student.layers or {}, self.teacher.layers or {}
        student = rates(own[_layer(term, "student", own)])
        if _align(term) == "learned":
            if self.alignments is None:
                raise TrainingError(
                    "the loss needs more than it was given",
                    where=f"loss {term}",
                    got="no alignment",
                    allowed="alignments_for(terms, student's shapes, teacher's shapes, seed), or the option align=none",
                )
            student = self.alignments.of(term.key)(student)
        return same_size(student, rates(other[_layer(term, "teacher", other)]))


_WORDS = {
    "sat": "SAT of the student", "logits": "logits of the student", "layers": "spikes of the student's layers",
    "layer": "spikes of the student's layers", "currents": "output currents of the student",
    "membranes": "output membranes of the student", "teacher.sat": "SAT of the teacher",
    "teacher.logits": "logits of the teacher", "teacher.membranes": "output membranes of the teacher",
    "teacher.layer": "outputs of the teacher's layers",
}  # fmt: skip


def _at_the_smaller_t(student: Tensor, teacher: Tensor) -> list[Tensor]:
    steps = min(len(student), len(teacher))
    return [align(student, steps), align(teacher, steps)]
