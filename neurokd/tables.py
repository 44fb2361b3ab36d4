"""Tables (as TOML gives them) into frozen dataclasses: known keys, declared types, ranges; errors name the key."""

from __future__ import annotations

import dataclasses
import difflib
import math
from collections.abc import Mapping, Sequence
from typing import Any, TypeVar, get_type_hints

from deploy.errors import ConfigError

_T = TypeVar("_T")


def read_table(kind: type[_T], table: Mapping[str, Any], where: str = "") -> _T:
    """Build the dataclass ``kind`` from nested tables.

    Every key must be a field, every value of the field's declared type (an integer is accepted for a float).

    Raises:
        ConfigError: unknown or missing key, value of another type, or what ``kind`` itself refuses.
    """
    hints = get_type_hints(kind)
    for key in table:
        if key not in hints:
            raise unknown_key(join(where, key), key, list(hints))
    values = {key: _read_value(hints[key], value, join(where, key)) for key, value in table.items()}
    for name in _required(kind):
        if name not in table:
            raise ConfigError("a required key is missing", where=join(where, name), got="nothing", allowed="a value")
    try:
        return kind(**values)
    except ConfigError as error:
        raise moved(error, join(where, error.where)) from error


def _required(kind: type[Any]) -> list[str]:
    missing = dataclasses.MISSING
    return [f.name for f in dataclasses.fields(kind) if f.default is missing and f.default_factory is missing]


def _read_value(kind: Any, value: Any, where: str) -> Any:
    if dataclasses.is_dataclass(kind):
        if not isinstance(value, Mapping):
            raise ConfigError("a table is expected", where=where, got=repr(value), allowed=f"a table [{where}]")
        return read_table(kind, value, where)  # type: ignore[arg-type]
    if kind is float and type(value) is int:
        return float(value)
    if type(value) is not kind:
        raise ConfigError(
            "value of another type", where=where, got=repr(value), allowed=f"a value of type {kind.__name__}"
        )
    return value


def set_dotted(table: dict[str, Any], key: str, value: Any) -> None:
    """Set ``section.name`` in nested tables, in place.

    Raises:
        ConfigError: a section or the name itself is not in the tables.
    """
    names = key.split(".")
    for depth, name in enumerate(names):
        if name not in table:
            raise unknown_key(key, ".".join(names[: depth + 1]), list(table))
        if depth == len(names) - 1:
            table[name] = value
        elif not isinstance(table[name], dict):
            raise ConfigError("this key has no parts", where=key, got=name, allowed="a table")
        else:
            table = table[name]


def join(where: str, key: str) -> str:
    """``section.key``, or ``key`` at the top."""
    return f"{where}.{key}" if where else key


def moved(error: ConfigError, where: str) -> ConfigError:
    """The same error at a place seen from further out."""
    return type(error)(error.what, where=where, got=error.got, allowed=error.allowed, next_step=error.next_step)


def unknown_key(where: str, key: str, known: Sequence[str]) -> ConfigError:
    """The error for a key nobody knows, with the nearest known ones."""
    near = difflib.get_close_matches(key.split(".")[-1], known, n=3, cutoff=0.5)
    hint = f"did you mean {' or '.join(near)}?" if near else "remove the key"
    return ConfigError("unknown key", where=where, got=key, allowed=", ".join(known), next_step=hint)


def one_of(name: str, value: str, allowed: Sequence[str]) -> None:
    """Check that ``value`` is one of the choices."""
    if value in allowed:
        return
    near = difflib.get_close_matches(str(value), allowed, n=1)
    hint = f"did you mean {near[0]}?" if near else ""
    raise ConfigError("unknown choice", where=name, got=repr(value), allowed=", ".join(allowed), next_step=hint)


def between(name: str, value: float, low: float, high: float) -> None:
    """Check that ``value`` is a number in ``low .. high``, both included; not-a-number is refused."""
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not low <= value <= high:
        raise ConfigError("value out of range", where=name, got=repr(value), allowed=f"a number in {low} .. {high}")


def positive(name: str, value: float) -> None:
    """Check that ``value`` is a finite number above 0."""
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not (0 < value < math.inf):
        raise ConfigError("value out of range", where=name, got=repr(value), allowed="a finite number above 0")


def not_empty(name: str, value: str) -> None:
    """Check that ``value`` is a text with something in it."""
    if not isinstance(value, str) or not value.strip():
        raise ConfigError("empty text", where=name, got=repr(value), allowed="a text that is not empty")
