"""scikit-learn's 8x8 digits: 1,797 images with 17 grey levels, inside the package, so nothing is downloaded.

They are the test part of the UCI "Optical Recognition of Handwritten Digits" set; scikit-learn gives them no
official split, so this module fixes one (1,347 / 450, stratified by class) that depends on nothing.
"""

from __future__ import annotations

import importlib
from pathlib import Path

import numpy as np

from deploy.errors import DataError
from neurokd.data.draws import FOR_DIGITS, words
from neurokd.data.official import DIGITS_MD5, md5_of
from neurokd.data.types import Labels, RawSet, SourceFile, Split, note_for

CLASSES = 10
LEVELS = 16
TEST_SIZE = 450


def read_digits(name: str, root: Path) -> RawSet:
    """The digits with their fixed split; ``name`` and ``root`` are not used.

    Raises:
        DataError: scikit-learn is not installed.
    """
    try:
        module = importlib.import_module("sklearn.datasets")
    except ImportError as error:
        raise DataError(
            "the digits set comes with scikit-learn, which is not installed",
            where="digits",
            got=str(error),
            allowed="scikit-learn >= 1.4",
            next_step='pip install "neurokd[train]"',
        ) from error
    bunch = module.load_digits()
    images = np.ascontiguousarray(bunch.images, np.uint8)[:, None]
    labels = np.asarray(bunch.target, np.int64)
    return _split(images, labels)


def _split(images: np.ndarray[tuple[int, ...], np.dtype[np.uint8]], labels: Labels) -> RawSet:
    content = images.tobytes() + labels.astype(np.uint8).tobytes()
    md5 = md5_of(content)
    source = (SourceFile("sklearn.datasets.load_digits()", len(content), md5, md5 == DIGITS_MD5),)
    whole = Split(images, labels)
    chosen = test_rows(labels)
    rest = np.setdiff1d(np.arange(len(labels)), chosen)
    return RawSet(whole.take(rest), whole.take(chosen), source, note_for(source))


def test_rows(labels: Labels) -> Labels:
    """The rows of the fixed test part, ascending: a quarter of each class, by largest remainder, 450 in all."""
    counts = np.bincount(labels, minlength=CLASSES)
    shares = counts * TEST_SIZE // len(labels)
    remainders = counts * TEST_SIZE % len(labels)
    extra = np.argsort(-remainders, kind="stable")[: TEST_SIZE - int(shares.sum())]
    shares[extra] += 1
    rows = [_pick(np.flatnonzero(labels == label), int(shares[label]), label) for label in range(CLASSES)]
    return np.sort(np.concatenate(rows))


def _pick(rows: Labels, count: int, label: int) -> Labels:
    order = np.argsort(words(len(rows), 0, label, FOR_DIGITS), kind="stable")
    return rows[order[:count]]
