"""Chips as cited data: limits, number formats, energies and times, each with its source and evidence grade.

A chip is one TOML file. ``load_chip("loihi2")`` reads it from the ``hardware_configs`` package,
``load_chip("my.toml")`` from a path. An unknown key, a missing key, a wrong unit or a value outside its range is a
:class:`~deploy.errors.ChipError`. What nobody has published is written ``published = false`` with a note: as a number
it is refused, ``chip.energy["synop"].value`` gives ``None``.
"""

from __future__ import annotations

import difflib
import sys
from dataclasses import dataclass
from functools import lru_cache
from importlib import resources
from pathlib import Path
from typing import Any, TypeVar

from deploy.chip_schema import GRADES, Energy, Formats, Key, Limits, Power, Quantity, Section, Time
from deploy.errors import ChipError

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

__all__ = ["Chip", "Quantity", "chips", "load_chip", "parse_chip"]

SectionT = TypeVar("SectionT", bound=Section)
SCHEMA = 1
_KINDS: tuple[type[Section], ...] = (Limits, Formats, Energy, Time, Power)
_FIELDS = {"value", "unit", "source", "grade", "published", "note"}


@dataclass(frozen=True)
class Chip:
    """One chip: identity and five cited sections.

    Attributes:
        name: Short name, the chip file's stem: what ``--chip`` takes.
        title: Name for people.
        maker: Who built it.
        summary: One or two sentences: what this file holds and what it does not.
    """

    name: str
    title: str
    maker: str
    summary: str
    limits: Limits
    formats: Formats
    energy: Energy
    time: Time
    power: Power

    @property
    def sections(self) -> tuple[Section, ...]:
        """The five sections in file order."""
        return self.limits, self.formats, self.energy, self.time, self.power

    def to_json(self) -> dict[str, Any]:
        """The whole chip as plain data, as the profile and the report store it."""
        identity = {"name": self.name, "title": self.title, "maker": self.maker, "summary": self.summary}
        return {**identity, **{section.title: section.to_json() for section in self.sections}}


def chips() -> tuple[str, ...]:
    """Names of the chips in the ``hardware_configs`` package, sorted."""
    found = (entry.name for entry in resources.files("hardware_configs").iterdir())
    return tuple(sorted(name[: -len(".toml")] for name in found if name.endswith(".toml")))


def load_chip(chip: str | Path) -> Chip:
    """Read a chip by name (``"loihi2"``) or by path (anything that ends in ``.toml``).

    Raises:
        ChipError: no such chip or file, not TOML, a key unknown or missing, a value of a wrong unit, type or
            range, or limits that contradict each other.
    """
    if str(chip).endswith(".toml"):
        return parse_chip(_read(Path(chip)), Path(chip).stem, str(chip))
    if chip not in chips():
        close = difflib.get_close_matches(str(chip), chips(), n=1)
        raise ChipError(
            f"there is no chip {str(chip)!r}",
            got=chip,
            allowed=f"{', '.join(chips())}, or the path of a .toml file",
            next_step=f"did you mean {close[0]!r}?" if close else "run `neurokd-deploy chips` to see them all",
        )
    return _packaged(str(chip))


@lru_cache
def _packaged(name: str) -> Chip:
    """A chip of the package; it is a value, so it is read once."""
    source = resources.files("hardware_configs").joinpath(f"{name}.toml")
    return parse_chip(source.read_text(encoding="utf-8"), name, f"hardware_configs/{name}.toml")


def _read(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise ChipError(
            "cannot read the chip file",
            where=path,
            got=getattr(error, "strerror", None) or str(error),
            allowed="a readable UTF-8 TOML file",
            next_step="see hardware_configs/README.md for the format",
        ) from error


def parse_chip(text: str, name: str, where: str) -> Chip:
    """Check a chip file's text and build the :class:`Chip`; ``where`` names the file in errors."""
    try:
        raw = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise ChipError(
            "the chip file is not TOML",
            where=where,
            got=error,
            allowed="TOML 1.0",
            next_step="see hardware_configs/README.md for the format",
        ) from error
    _check_keys(raw, ("schema", "chip", *(kind.title for kind in _KINDS)), where, "the file")
    if raw["schema"] != SCHEMA:
        raise ChipError(
            "unknown chip file schema",
            where=where,
            got=raw["schema"],
            allowed=f"schema = {SCHEMA}",
            next_step="see hardware_configs/README.md for the format of this version",
        )
    identity = _identity(raw["chip"], where)
    chip = Chip(
        name=name,
        **identity,
        limits=_section(Limits, raw, name, where),
        formats=_section(Formats, raw, name, where),
        energy=_section(Energy, raw, name, where),
        time=_section(Time, raw, name, where),
        power=_section(Power, raw, name, where),
    )
    _check_contradictions(chip, where)
    return chip


def _identity(table: object, where: str) -> dict[str, str]:
    fields = ("title", "maker", "summary")
    table = _check_keys(table, fields, where, "[chip]")
    for field in fields:
        if not isinstance(table[field], str) or not table[field].strip():
            raise ChipError(
                f"chip.{field} is not a text",
                where=where,
                got=repr(table[field]),
                allowed="a text, not empty",
                next_step=f"write what the chip's {field} is, in quotes",
            )
    return {field: table[field] for field in fields}


def _section(kind: type[SectionT], raw: dict[str, Any], chip: str, where: str) -> SectionT:
    table = _check_keys(raw[kind.title], kind.names(), where, f"[{kind.title}]")
    entries = ((name, _quantity(vars(kind)[name], table[name], kind.title, where)) for name in kind.names())
    return kind(chip, tuple(entries))


def _check_keys(table: object, expected: tuple[str, ...], where: str, place: str) -> dict[str, Any]:
    if not isinstance(table, dict):
        raise ChipError(
            f"{place} is not a table",
            where=where,
            got=table,
            allowed="a TOML table",
            next_step="see hardware_configs/README.md for the format",
        )
    for name in table:
        if name not in expected:
            close = difflib.get_close_matches(name, expected, n=1)
            raise ChipError(
                f"unknown key {name!r} in {place}",
                where=where,
                got=name,
                allowed=", ".join(expected),
                next_step=f"did you mean {close[0]!r}?" if close else "remove the key",
            )
    missing = [name for name in expected if name not in table]
    if missing:
        raise ChipError(
            f"{place} lacks {', '.join(missing)}",
            where=where,
            got=f"{len(table)} of {len(expected)} keys",
            allowed='every key; one nobody has published is {published = false, note = "…"}',
            next_step="copy the missing keys from hardware_configs/loihi2.toml and put your values",
        )
    return table


def _quantity(key: Key[Any], raw: object, section: str, where: str) -> Quantity:
    name = f"{section}.{key.name}"
    _check_fields(name, raw, where)
    assert isinstance(raw, dict)
    if not raw.get("published", True):
        return Quantity(None, key.unit, raw.get("source", ""), "", raw["note"])
    value = key.read(raw["value"])
    if raw["unit"] != key.unit:
        what, got, allowed = "a wrong unit", raw["unit"], f"unit = {key.unit!r}"
        next_step = f"give the value in {key.unit}: units are never converted here"
    elif raw["grade"] not in GRADES:
        what, got, allowed = "an unknown grade", raw["grade"], ", ".join(GRADES)
        next_step = "say how the value is known with one of these"
    elif value is None:
        what, got, allowed = "a value that makes no sense", repr(raw["value"]), key.allowed
        next_step = 'correct the value, or write {published = false, note = "…"} where nothing is known'
    else:
        return Quantity(value, key.unit, raw["source"], raw["grade"], raw.get("note", ""))
    raise ChipError(f"{name} has {what}", where=where, got=got, allowed=allowed, next_step=next_step)


def _check_fields(name: str, raw: object, where: str) -> None:
    if not isinstance(raw, dict):
        raise ChipError(
            f"{name} is a bare value",
            where=where,
            got=raw,
            allowed="{value = …, unit = …, source = …, grade = …} or {published = false, note = …}",
            next_step="say where the value stands and how it is known",
        )
    needed = ("note",) if raw.get("published") is False else ("value", "unit", "source", "grade")
    absent = [field for field in needed if raw.get(field) in (None, "")]
    surplus = sorted(set(raw) - _FIELDS) + (["value"] if raw.get("published") is False and "value" in raw else [])
    if absent or surplus or raw.get("published", True) not in (True, False):
        raise ChipError(
            f"{name} lacks or mixes fields",
            where=where,
            got=f"missing: {', '.join(absent) or 'none'}; not allowed: {', '.join(surplus) or 'none'}",
            allowed="{value, unit, source, grade, note} or {published = false, note, source}",
            next_step="write all of the first (note is optional), or say that nothing is published and what is known",
        )


def _check_contradictions(chip: Chip, where: str) -> None:
    for left, right, meaning in _ORDERED:
        low, high = _value(chip, left), _value(chip, right)
        if low is not None and high is not None and low > high:
            raise ChipError(
                f"{left} contradicts {right}",
                where=where,
                got=f"{left} = {low}, {right} = {high}",
                allowed=meaning,
                next_step="correct one of the two",
            )
    tiles = _product(chip, "mesh_columns", "mesh_rows", "cores_per_tile")
    cores = chip.limits["cores"].value
    if tiles is not None and cores is not None and tiles < cores:
        raise ChipError(
            "limits.cores contradicts the mesh",
            where=where,
            got=f"{cores} cores; mesh_columns × mesh_rows × cores_per_tile = {tiles}",
            allowed="a mesh with room for every core",
            next_step="correct limits.cores or the mesh",
        )
    widths = chip.formats["weight_bits_allowed"].value
    if widths is not None and chip.formats["weight_bits"].value not in (None, max(widths)):
        raise ChipError(
            "formats.weight_bits contradicts formats.weight_bits_allowed",
            where=where,
            got=f"{chip.formats['weight_bits'].value} and {list(widths)}",
            allowed="weight_bits is the largest of weight_bits_allowed",
            next_step="correct one of the two",
        )


_ORDERED = (
    ("formats.weight_exp_min", "formats.weight_exp_max", "the smallest exponent first"),
    ("formats.vth_bits", "formats.state_bits", "a threshold the state can reach"),
    ("formats.bias_mantissa_bits", "formats.state_bits", "a bias the state can hold"),
    ("formats.weight_bits", "formats.accumulator_bits", "an accumulator that holds one weight"),
    ("formats.weight_bits", "limits.synaptic_memory_bits_per_core", "room for one weight"),
    ("limits.synaptic_memory_word_bits", "limits.synaptic_memory_bits_per_core", "room for one word"),
    ("energy.neuron_inactive", "energy.neuron_active", "an idle update costs no more than an active one"),
    ("time.neuron_inactive", "time.neuron_active", "an idle update takes no longer than an active one"),
)


def _value(chip: Chip, path: str) -> Any:
    section, key = path.split(".")
    return next(part for part in chip.sections if part.title == section)[key].value


def _product(chip: Chip, *keys: str) -> int | None:
    result = 1
    for key in keys:
        value = chip.limits[key].value
        if value is None:
            return None
        result *= value
    return result
