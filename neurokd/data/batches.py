"""Minibatches of data that is all in memory: one permutation an epoch and one gather a batch."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from neurokd.data.draws import FOR_BATCHES, checked_seed, shuffled, whole_number
from neurokd.data.types import Images, Labels, Split


def batches(
    split: Split, size: int, *, seed: int = 0, epoch: int = 0, shuffle: bool = True, drop_last: bool = False
) -> Iterator[tuple[Labels, Images, Labels]]:
    """Walk a split once in minibatches.

    The order depends on (seed, epoch, number of samples) only: the same on every machine, Python and numpy.

    Args:
        split: The samples.
        size: Samples a batch, at least 1.
        seed: 0 .. 2**64 - 1.
        epoch: 0 .. 2**64 - 1; each has an order of its own.
        shuffle: False walks in file order.
        drop_last: Leave out a last batch that is not full.

    Returns:
        An iterator of (indices int64 ``[B]`` into the split, images uint8 ``[B, C, H, W]``, labels int64 ``[B]``).

    Raises:
        ConfigError: ``size``, ``seed`` or ``epoch`` out of range (at the call, not at the first batch).
    """
    size = whole_number(size, "batch size", 1, 2**31 - 1)
    seed, epoch = checked_seed(seed), whole_number(epoch, "epoch", 0, 2**64 - 1)
    count = len(split)
    order = shuffled(count, seed, epoch, FOR_BATCHES) if shuffle else np.arange(count, dtype=np.int64)
    end = count - count % size if drop_last else count
    return _walk(split, order[:end], size)


def _walk(split: Split, order: Labels, size: int) -> Iterator[tuple[Labels, Images, Labels]]:
    for start in range(0, len(order), size):
        rows = order[start : start + size]
        yield rows, split.images.take(rows, axis=0), split.labels.take(rows)
