"""The sets by name: load one, or say what of each is found where."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from deploy.errors import ConfigError, DataError
from neurokd.data import cifar, digits, idx
from neurokd.data.draws import FOR_VALIDATION, checked_seed, words
from neurokd.data.places import Place
from neurokd.data.types import Dataset, Labels, RawSet, SourceFile, Split

DEFAULT_ROOT = Path("data")
DIGIT_NAMES = tuple("0123456789")


@dataclass(frozen=True)
class _Entry:
    title: str
    classes: tuple[str, ...]
    shape: tuple[int, int, int]
    levels: int
    read: Callable[[str, Path], RawSet]
    places: Callable[[Path], list[Place]]


_CATALOG = {
    "digits": _Entry(
        "Digits 8x8 (scikit-learn)", DIGIT_NAMES, (1, 8, 8), digits.LEVELS, digits.read_digits, lambda root: []
    ),
    "mnist": _Entry(
        "MNIST", DIGIT_NAMES, (1, 28, 28), 255, idx.read_idx_set, lambda root: idx.idx_places("mnist", root)
    ),
    "fashion-mnist": _Entry(
        "Fashion-MNIST",
        ("T-shirt/top", "Trouser", "Pullover", "Dress", "Coat", "Sandal", "Shirt", "Sneaker", "Bag", "Ankle boot"),
        (1, 28, 28),
        255,
        idx.read_idx_set,
        lambda root: idx.idx_places("fashion-mnist", root),
    ),
    "cifar10": _Entry(
        "CIFAR-10",
        ("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck"),
        cifar.SHAPE,
        255,
        cifar.read_cifar10,
        cifar.cifar_places,
    ),
}
NAMES = tuple(_CATALOG)


def load(name: str, root: str | Path | None = None, *, validation: float = 0.1, seed: int = 0) -> Dataset:
    """Read a data set and split a validation part off its training part.

    Args:
        name: ``digits``, ``mnist``, ``fashion-mnist`` or ``cifar10``.
        root: The folder that holds the sets; default ``./data``. Not used for digits.
        validation: Share of each class of the training part that goes to validation, 0 <= share < 1.
        seed: Chooses which samples those are, 0 .. 2**64 - 1. The test part never depends on it.

    Raises:
        DataError: unknown name; files missing, damaged, of another set; a label out of range.
        ConfigError: ``validation`` or ``seed`` out of range.
    """
    entry = _entry(name)
    share = _checked_share(validation)
    raw = entry.read(name, _root(root))
    train, held = _hold_out(raw.train, share, checked_seed(seed))
    return Dataset(
        name=name,
        title=_title(entry, raw),
        source=raw.source,
        classes=entry.classes,
        shape=entry.shape,
        levels=entry.levels,
        train=train,
        validation=held,
        test=raw.test,
    )


@dataclass(frozen=True)
class SetStatus:
    """What was found of one set.

    Attributes:
        name, title: As in :class:`Dataset`; the title says when files are not the official ones.
        found: Whether it can be loaded.
        official: Whether every file has the official checksum; None when not found.
        train, test: Number of images, before any validation split.
        files: The files read, with sizes and checksums.
        looked_in: The folders looked in, in order; empty for the embedded digits.
        problem: Why it cannot be loaded, one line; empty when it can.
    """

    name: str
    title: str
    found: bool
    official: bool | None
    train: int
    test: int
    files: tuple[SourceFile, ...]
    looked_in: tuple[str, ...]
    problem: str

    @property
    def size(self) -> int:
        """Bytes on disk."""
        return sum(file.size for file in self.files)


def status(root: str | Path | None = None) -> list[SetStatus]:
    """Read every set below ``root`` (default ``./data``) and say what is there; no error for what is missing."""
    return [_status(name, _root(root)) for name in NAMES]


def _status(name: str, root: Path) -> SetStatus:
    entry = _CATALOG[name]
    looked_in = tuple(str(place.folder) for place in entry.places(root))
    try:
        raw = entry.read(name, root)
    except DataError as error:
        return SetStatus(name, entry.title, False, None, 0, 0, (), looked_in, f"{error.what}: {error.got}")
    official = all(file.official for file in raw.source)
    counts = len(raw.train), len(raw.test)
    return SetStatus(name, _title(entry, raw), True, official, *counts, raw.source, looked_in, "")


def _entry(name: str) -> _Entry:
    if name in _CATALOG:
        return _CATALOG[name]
    raise DataError(
        "unknown data set",
        where="data set name",
        got=repr(name),
        allowed=", ".join(NAMES),
        next_step="choose one of these names; `neurokd data` shows which are on this machine",
    )


def _root(root: str | Path | None) -> Path:
    return DEFAULT_ROOT if root is None else Path(root).expanduser()


def _title(entry: _Entry, raw: RawSet) -> str:
    return f"{entry.title} ({raw.note})" if raw.note else entry.title


def _checked_share(share: float) -> float:
    if isinstance(share, int | float) and not isinstance(share, bool) and 0 <= share < 1:
        return float(share)
    raise ConfigError(
        "the validation share is out of range",
        where="validation",
        got=repr(share),
        allowed="0 <= share < 1",
        next_step="0.1 holds out a tenth of each class; 0 holds out nothing",
    )


def _hold_out(train: Split, share: float, seed: int) -> tuple[Split, Split]:
    """Split off ``floor(share * count + 1/2)`` samples of each class, in seeded random choice, file order kept."""
    held = np.zeros(len(train), bool)
    for label in np.unique(train.labels):
        rows = np.flatnonzero(train.labels == label)
        order = np.argsort(words(len(rows), seed, int(label), FOR_VALIDATION), kind="stable")
        held[rows[order[: math.floor(share * len(rows) + 0.5)]]] = True
    if held.all():
        raise ConfigError(
            "the validation share leaves nothing to train on",
            where="validation",
            got=f"{share} of {len(train)} images",
            allowed="a smaller share",
            next_step="use a smaller share or more images",
        )
    return train.take(_rows(~held)), train.take(_rows(held))


def _rows(mask: np.ndarray[tuple[int, ...], np.dtype[np.bool_]]) -> Labels:
    return np.flatnonzero(mask).astype(np.int64)
