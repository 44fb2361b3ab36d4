"""Random words that depend on nothing but (seed, item, purpose).

numpy keeps the raw streams of its bit generators fixed between versions but not what ``Generator`` makes of them
(NEP 19). So shuffles and spikes are made here from raw Philox-4x64-10 words (Salmon et al., "Parallel random
numbers: as easy as 1, 2, 3", SC11): a counter-based generator, whose stream for one sample is the same whatever
the batch it is asked for in.
"""

from __future__ import annotations

import operator

import numpy as np
from numpy.random import Philox
from numpy.typing import NDArray

from deploy.errors import ConfigError

# The counter's highest word, so that streams for different purposes never meet.
FOR_SPIKES, FOR_VALIDATION, FOR_BATCHES, FOR_DIGITS = 1, 2, 3, 4


def words(count: int, seed: int, item: int, purpose: int) -> NDArray[np.uint64]:
    """``count`` uniform 64-bit words of stream (seed, item, purpose).

    Args:
        count: How many; the first ``n`` words do not depend on it.
        seed: 0 .. 2**64 - 1.
        item: Sample index, epoch or the like, 0 .. 2**64 - 1.
        purpose: One of the ``FOR_...`` constants.
    """
    key = np.array([seed, item], np.uint64)
    counter = np.array([0, 0, 0, purpose], np.uint64)
    return np.asarray(Philox(key=key, counter=counter).random_raw(count), np.uint64)


def shuffled(count: int, seed: int, item: int, purpose: int) -> NDArray[np.int64]:
    """A permutation of 0 .. count-1: the order of ``count`` random words (ties, if ever, by position)."""
    return np.argsort(words(count, seed, item, purpose), kind="stable").astype(np.int64)


def whole_number(value: object, name: str, low: int, high: int) -> int:
    """``value`` as an int in ``low .. high``.

    Raises:
        ConfigError: not a whole number (booleans are not), or outside the range.
    """
    try:
        number = operator.index(value)  # type: ignore[arg-type]
    except TypeError:
        number = None
    if number is None or isinstance(value, bool | np.bool_) or not low <= number <= high:
        raise ConfigError(
            f"{name} is not a whole number in its range",
            where=name,
            got=repr(value),
            allowed=f"{low} .. {high}",
            next_step=f"give {name} a whole number from {low} to {high}",
        )
    return number


def checked_seed(seed: object) -> int:
    """The seed as an int, 0 .. 2**64 - 1; ConfigError otherwise."""
    return whole_number(seed, "seed", 0, 2**64 - 1)
