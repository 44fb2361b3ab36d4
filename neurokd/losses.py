"""Losses by name: terms, weighted sums as text, presets, and their evaluation.

    >>> from neurokd import losses
    >>> terms = losses.parse_loss("ce:1.0+sliding-l2:0.5,delta=4+full-kl")
    >>> losses.format_loss(terms)
    'ce+sliding-l2:0.5,delta=4+full-kl'

The functions themselves, with formulas and sources, are in :mod:`neurokd.sat_losses` and can be called without this.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor

from deploy.errors import ConfigError, TrainingError
from neurokd.loss_checks import not_negative, one_of, positive, whole
from neurokd.sat_losses import (
    DELTA,
    LOGIT_SCALE,
    activity,
    align,
    combined,
    cross_entropy,
    full_kl,
    full_l1,
    full_l2,
    rate_kl,
    sliding,
    sliding_l1,
    sliding_l2,
    temporal,
    temporal_ce,
    temporal_kl,
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
    "names",
    "needs",
    "parse_loss",
    "rate_kl",
    "sliding",
    "sliding_l1",
    "sliding_l2",
    "temporal",
    "temporal_ce",
    "temporal_kl",
]

Value = float | int | str
_Check = Callable[[Any], object]

_SCALE: Mapping[str, _Check] = {"scale": partial(positive, "scale")}
_SOFT: Mapping[str, _Check] = {**_SCALE, "temperature": partial(positive, "temperature")}
_WINDOW: Mapping[str, _Check] = {
    "delta": partial(whole, "delta"),
    "reduce": partial(one_of, "reduce", allowed=("norm", "sum")),
}


@dataclass(frozen=True)
class _Loss:
    """A loss of the registry: what it is computed from besides the student's SAT, and the options it takes."""

    function: Callable[..., Tensor]
    inputs: tuple[str, ...]
    options: Mapping[str, _Check]


_LOSSES: dict[str, _Loss] = {
    "ce": _Loss(cross_entropy, ("labels",), _SCALE),
    "full-l1": _Loss(full_l1, ("teacher",), {}),
    "full-l2": _Loss(full_l2, ("teacher",), {"reduce": partial(one_of, "reduce", allowed=("norm", "mse"))}),
    "full-kl": _Loss(
        full_kl, ("teacher",), {**_SCALE, "over": partial(one_of, "over", allowed=("rates", "steps", "tensor"))}
    ),
    "sliding-l1": _Loss(sliding_l1, ("teacher",), _WINDOW),
    "sliding-l2": _Loss(sliding_l2, ("teacher",), _WINDOW),
    "rate-kl": _Loss(rate_kl, ("teacher",), _SOFT),
    "temporal-ce": _Loss(temporal_ce, ("labels",), _SCALE),
    "temporal-kl": _Loss(temporal_kl, ("teacher",), _SOFT),
    "activity": _Loss(activity, ("spikes",), {"target": partial(not_negative, "target")}),
}

#: Ready sums. The poster's five alone carry no labels; ``sat-ce`` adds cross-entropy and is the default to distil with.
PRESETS: dict[str, str] = {
    "sat-combined": "full-l1+full-l2+full-kl+sliding-l1+sliding-l2",
    "sat-ce": "ce+full-l1+full-l2+full-kl+sliding-l1+sliding-l2",
    "temporal": "temporal-ce+temporal-kl",
}


def names() -> tuple[str, ...]:
    """Every name :func:`parse_loss` takes: the single losses, then the presets."""
    return (*_LOSSES, *PRESETS)


@dataclass(frozen=True)
class LossTerm:
    """One weighted loss of a sum.

    Args:
        name: a single loss of :func:`names`.
        weight: >= 0.
        options: keyword options of the loss's function, as a mapping or (name, value) pairs.

    Raises:
        ConfigError: an unknown name or option, a negative weight, an option out of its range.
    """

    name: str
    weight: float = 1.0
    options: Mapping[str, Value] | tuple[tuple[str, Value], ...] = ()

    def __post_init__(self) -> None:
        if self.name not in _LOSSES:
            raise ConfigError(
                "unknown loss",
                where="loss",
                got=self.name,
                allowed=", ".join(_LOSSES),
                next_step=_did_you_mean(self.name),
            )
        not_negative("weight", self.weight)
        pairs = dict(self.options)
        known = _LOSSES[self.name].options
        for key, value in pairs.items():
            if key not in known:
                raise ConfigError(
                    "the loss has no such option",
                    where=f"loss {self.name}",
                    got=key,
                    allowed=", ".join(known) or "none",
                )
            known[key](value)
        object.__setattr__(self, "options", tuple(sorted(pairs.items())))

    @property
    def key(self) -> str:
        """Name and options, without the weight: the key of this term's value in :func:`evaluate`'s parts."""
        return ",".join([self.name, *(f"{key}={value}" for key, value in dict(self.options).items())])

    def __str__(self) -> str:
        weight = "" if self.weight == 1 else f":{self.weight!r}"
        return self.name + weight + self.key[len(self.name) :]


def _did_you_mean(name: str) -> str:
    return "write the preset as text and read it with parse_loss" if name in PRESETS else ""


# Text -------------------------------------------------------------------------------------------------------------

_TERM = re.compile(r"\s*([a-z][a-z0-9-]*)\s*(?::\s*([^,\s]+)\s*)?((?:,[^,]*)*)")
#: A '+' between terms, not the one of an exponent such as 1e+3.
_PLUS = re.compile(r"(?<![0-9.][eE])\+")


def parse_loss(text: str) -> tuple[LossTerm, ...]:
    """Read a weighted sum of losses.

    ``name[:weight][,option=value ...]`` joined by ``+``, e.g. ``ce:1.0+sliding-l2:0.5,delta=3+full-kl``. A preset is a
    term too; its weight multiplies those inside. Terms of the same name and options are added up.

    Args:
        text: the sum.

    Raises:
        ConfigError: text of another form, and as :class:`LossTerm`.
    """
    found: dict[str, LossTerm] = {}
    for term in (term for part in _PLUS.split(text) for term in _parse_term(part, text)):
        weight = term.weight + (found[term.key].weight if term.key in found else 0.0)
        found[term.key] = LossTerm(term.name, weight, term.options)
    return tuple(found.values())


def _parse_term(part: str, text: str) -> tuple[LossTerm, ...]:
    match = _TERM.fullmatch(part)
    if match is None:
        raise _unreadable(text, part.strip() or "an empty term")
    name, weight_text, option_text = match.groups()
    weight = 1.0 if weight_text is None else _number(weight_text, text)
    if name not in PRESETS:
        return (LossTerm(name, weight, _options(option_text, text)),)
    if option_text:
        raise _unreadable(text, f"options on the preset {name}")
    not_negative("weight", weight)
    return tuple(LossTerm(term.name, weight * term.weight, term.options) for term in parse_loss(PRESETS[name]))


def _options(option_text: str, text: str) -> dict[str, Value]:
    options: dict[str, Value] = {}
    for part in option_text.split(",")[1:]:
        key, equals, value = (piece.strip() for piece in part.partition("="))
        if not (key and equals and value) or key in options:
            raise _unreadable(text, f"option {part.strip()!r}")
        options[key] = _value(value)
    return options


def _value(text: str) -> Value:
    for kind in (int, float):
        try:
            return kind(text)
        except ValueError:
            continue
    return text


def _number(number: str, text: str) -> float:
    try:
        return float(number)
    except ValueError:
        raise _unreadable(text, f"weight {number!r}") from None


def _unreadable(text: str, got: str) -> ConfigError:
    return ConfigError(
        "the loss cannot be read",
        where=f"loss {text!r}",
        got=got,
        allowed="name[:weight][,option=value ...] joined by +, e.g. ce:1.0+sliding-l2:0.5,delta=3+full-kl; names: "
        + ", ".join(names()),
    )


def format_loss(terms: Sequence[LossTerm]) -> str:
    """The text :func:`parse_loss` reads back to the same terms."""
    return "+".join(str(term) for term in terms)


# Evaluation -------------------------------------------------------------------------------------------------------


def needs(terms: Sequence[LossTerm]) -> frozenset[str]:
    """What :func:`evaluate` must be given for these terms: of "teacher", "labels", "spikes"."""
    return frozenset(name for term in terms for name in _LOSSES[term.name].inputs)


def evaluate(
    terms: Sequence[LossTerm],
    student_sat: Tensor,
    teacher_sat: Tensor | None = None,
    labels: Tensor | None = None,
    *,
    spikes: Sequence[Tensor] | None = None,
) -> tuple[Tensor, dict[str, Tensor]]:
    """The weighted sum and its parts.

    The teacher is frozen here (detached). If teacher and student differ in T, terms that compare them see both at the
    smaller T (:func:`neurokd.sat_losses.align`); terms on labels see all of the student's steps.

    Args:
        terms: at least one.
        student_sat: [T, B, C].
        teacher_sat: [T', B, C], where a term needs it.
        labels: [B] int64, where a term needs them.
        spikes: the layers' spikes [T, B, *shape] each, where a term needs them (``activity``).

    Returns:
        total, a scalar with gradient; parts by :attr:`LossTerm.key`, unweighted, without gradient.

    Raises:
        TrainingError: something a term needs is missing, or does not fit.
        ConfigError: no terms, or options that do not suit the data.
    """
    if not terms:
        raise ConfigError("there is no loss to evaluate", where="loss", got="no terms", allowed="at least one term")
    given = {"teacher": teacher_sat, "labels": labels, "spikes": spikes}
    missing = sorted(name for name in needs(terms) if given[name] is None)
    if missing:
        raise TrainingError(
            "the loss needs more than it was given",
            where=f"loss {format_loss(terms)}",
            got=f"no {', no '.join(missing)}",
            allowed="a teacher's SAT, labels or the layers' spikes for the terms that need them",
            next_step="pass it, or leave the term out",
        )
    pair = _aligned(student_sat, teacher_sat)
    values = [_value_of(term, student_sat, pair, labels, spikes) for term in terms]
    total = torch.stack([term.weight * value for term, value in zip(terms, values, strict=True)]).sum()
    return total, {term.key: value.detach() for term, value in zip(terms, values, strict=True)}


def _aligned(student: Tensor, teacher: Tensor | None) -> tuple[Tensor, Tensor] | None:
    if teacher is None:
        return None
    steps = min(len(student), len(teacher))
    return align(student, steps), align(teacher.detach(), steps)


def _value_of(
    term: LossTerm,
    student: Tensor,
    pair: tuple[Tensor, Tensor] | None,
    labels: Tensor | None,
    spikes: Sequence[Tensor] | None,
) -> Tensor:
    loss = _LOSSES[term.name]
    options = dict(term.options)
    if loss.inputs == ("teacher",) and pair is not None:
        return loss.function(*pair, **options)
    return loss.function(*((student, labels) if loss.inputs == ("labels",) else (spikes,)), **options)
