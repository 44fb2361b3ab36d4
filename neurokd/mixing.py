"""Mixed images: each view but the first blends an image with another one of the split, and its label likewise.

    image = (1 - s) * image + s * other      label = (1 - s) * label + s * other's label      s in 0 .. strength / 2

s is uniform, and the other image is the image's place in a random order of the split. Strength 1 is mixup with
alpha = 1 (Zhang et al. 2018, arXiv 1710.09412), up to who is called the other. All is drawn from (seed, view) and the
image's index, so teacher and student see the same picture and a teacher's answers to it can be kept.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch

from neurokd.data import Split
from neurokd.data.draws import words

FOR_MIXING = 6  # stream number beside those in neurokd.data.draws and neurokd.views
_PARTS = 512  # s is a whole number of these, so that mixing is exact in integers


@dataclass(frozen=True)
class Mixing:
    """How images are mixed.

    Args:
        strength: 0 (not at all) to 1.
        classes: Number of classes.
        seed: Seed of the draws.
    """

    strength: float = 0.0
    classes: int = 0
    seed: int = 0

    def make(self, split: Split, view: int) -> Mixed:
        """A split in one view; view 0, and strength 0, leave it as it is."""
        if view == 0 or self.strength == 0:
            return Mixed(split, None, None, self.classes)
        draw = words(2 * len(split), self.seed, view, FOR_MIXING).reshape(2, -1)
        other = np.argsort(draw[0], kind="stable")
        most = int(self.strength * _PARTS / 2)
        parts = (draw[1] % np.uint64(most + 1)).astype(np.uint32)
        share = parts.reshape(-1, 1, 1, 1)
        own = split.images.astype(np.uint32) * (_PARTS - share)
        blended = (own + split.images[other] * share + _PARTS // 2) // _PARTS
        mixed = Split(blended.astype(np.uint8), split.labels)
        return Mixed(mixed, split.labels[other], parts / np.float32(_PARTS), self.classes)


@dataclass(frozen=True)
class Mixed:
    """A split whose images may be mixed.

    Args:
        split: Images as they are seen, labels of their larger parts.
        others: Labels of the smaller parts, int64 ``[N]``; None where nothing is mixed.
        shares: s, ``[N]``.
        classes: Number of classes.
    """

    split: Split
    others: npt.NDArray[np.int64] | None
    shares: npt.NDArray[np.floating] | None
    classes: int

    def targets(self, rows: npt.NDArray[np.int64], labels: npt.NDArray[np.int64]) -> torch.Tensor:
        """Labels of some images: int64 ``[B]``, or shares of the classes, float32 ``[B, C]``, where they are mixed."""
        if self.others is None or self.shares is None:
            return torch.from_numpy(labels)
        targets = np.zeros((len(rows), self.classes), np.float32)
        share, order = self.shares[rows].astype(np.float32), np.arange(len(rows))
        np.add.at(targets, (order, labels), 1 - share)
        np.add.at(targets, (order, self.others[rows]), share)
        return torch.from_numpy(targets)
