"""Weighted sums of losses as text, and as :class:`LossTerm` of them."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from deploy.errors import ConfigError
from neurokd.loss_checks import not_negative
from neurokd.loss_registry import LOSSES, PRESETS, names
from neurokd.loss_schedule import Schedule, parse_weight

Value = float | int | str


@dataclass(frozen=True)
class LossTerm:
    """One weighted loss of a sum.

    Args:
        name: a single loss of :func:`names`.
        weight: >= 0, or a :class:`neurokd.loss_schedule.Schedule`.
        options: keyword options of the loss's function, as a mapping or (name, value) pairs.

    Raises:
        ConfigError: an unknown name or option, a negative weight, an option out of its range.
    """

    name: str
    weight: float | Schedule = 1.0
    options: Mapping[str, Value] | tuple[tuple[str, Value], ...] = ()

    def __post_init__(self) -> None:
        if self.name not in LOSSES:
            raise ConfigError(
                "unknown loss",
                where="loss",
                got=self.name,
                allowed=", ".join(LOSSES),
                next_step=_did_you_mean(self.name),
            )
        if not isinstance(self.weight, Schedule):
            not_negative("weight", self.weight)
        pairs = dict(self.options)
        known = LOSSES[self.name].options
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
        """Name and options, without the weight: the key of this term's value in the parts of a sum."""
        return ",".join([self.name, *(f"{key}={value}" for key, value in dict(self.options).items())])

    def __str__(self) -> str:
        scheduled = isinstance(self.weight, Schedule)
        weight = "" if self.weight == 1 else f":{self.weight}" if scheduled else f":{self.weight!r}"
        return self.name + weight + self.key[len(self.name) :]


def _did_you_mean(name: str) -> str:
    return "write the preset as text and read it with parse_loss" if name in PRESETS else ""


_TERM = re.compile(r"\s*([a-z][a-z0-9-]*)\s*(?::\s*([^,\s]+)\s*)?((?:,[^,]*)*)")
#: A '+' between terms, not the one of an exponent such as 1e+3.
_PLUS = re.compile(r"(?<![0-9.][eE])\+")


def parse_loss(text: str) -> tuple[LossTerm, ...]:
    """Read a weighted sum of losses.

    ``name[:weight][,option=value ...]`` joined by ``+``, e.g. ``ce:1.0+sliding-l2:0.5,delta=3+full-kl``. A preset is a
    term too; its weight multiplies those inside. Terms of the same name and options are added up. A weight may change
    in training (:mod:`neurokd.loss_schedule`): ``full-kl:1->0.2``, ``ce:1@5``.

    Args:
        text: the sum.

    Raises:
        ConfigError: text of another form, and as :class:`LossTerm`.
    """
    found: dict[str, LossTerm] = {}
    for term in (term for part in _PLUS.split(text) for term in _parse_term(part, text)):
        found[term.key] = _added(found[term.key], term) if term.key in found else term
    return tuple(found.values())


def _added(one: LossTerm, other: LossTerm) -> LossTerm:
    if isinstance(one.weight, Schedule) or isinstance(other.weight, Schedule):
        raise ConfigError(
            "a term with a schedule is given twice",
            where="loss",
            got=f"{one} and {other}",
            allowed="a term once, or both times with a number",
        )
    return LossTerm(one.name, other.weight + one.weight, one.options)


def _parse_term(part: str, text: str) -> tuple[LossTerm, ...]:
    match = _TERM.fullmatch(part)
    if match is None:
        raise _unreadable(text, part.strip() or "an empty term")
    name, weight_text, option_text = match.groups()
    weight = 1.0 if weight_text is None else _weight(weight_text, text)
    if name not in PRESETS:
        return (LossTerm(name, weight, _options(option_text, text)),)
    if option_text:
        raise _unreadable(text, f"options on the preset {name}")
    inner = parse_loss(PRESETS[name])
    return tuple(LossTerm(term.name, _times(weight, term.weight), term.options) for term in inner)


def _times(outer: float | Schedule, inner: float | Schedule) -> float | Schedule:
    """A preset's weight times one inside, which is a number."""
    assert not isinstance(inner, Schedule)
    return outer.scaled(inner) if isinstance(outer, Schedule) else not_negative("weight", outer) * inner


def _options(option_text: str, text: str) -> dict[str, Value]:
    options: dict[str, Value] = {}
    for part in option_text.split(",")[1:]:
        key, equals, value = (piece.strip() for piece in part.partition("="))
        if not (key and equals and value) or key in options:
            raise _unreadable(text, f"option {part.strip()!r}")
        options[key] = value if key in ("student", "teacher") else _value(value)
    return options


def _value(text: str) -> Value:
    for kind in (int, float):
        try:
            return kind(text)
        except ValueError:
            continue
    return text


def _weight(number: str, text: str) -> float | Schedule:
    weight = parse_weight(number)
    if weight is None:
        raise _unreadable(text, f"weight {number!r}")
    return weight


def _unreadable(text: str, got: str) -> ConfigError:
    return ConfigError(
        "the loss cannot be read",
        where=f"loss {text!r}",
        got=got,
        allowed="name[:weight][,option=value ...] joined by +, e.g. ce:1.0+sliding-l2:0.5,delta=3+full-kl; "
        "weights: 0.5, 1->0.2, 1@5, 1->0.2@5-10; names: " + ", ".join(names()),
    )


def format_loss(terms: Sequence[LossTerm]) -> str:
    """The text :func:`parse_loss` reads back to the same terms."""
    return "+".join(str(term) for term in terms)
