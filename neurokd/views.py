"""Fixed views of a data set's images: seeded shifts and flips that every stage sees alike.

View 0 is the image itself; view v is made from (seed, v) and the image's index alone. A stage shows view
``epoch mod V``. Since there are only V views, the frozen teacher's SAT can be cached for each of them, and teacher
and student always see the same pixels.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from neurokd.data.draws import words

FOR_VIEWS = 5  # stream number beside those in neurokd.data.draws

Images = npt.NDArray[np.uint8]


@dataclass(frozen=True)
class Views:
    """Which views there are.

    Args:
        count: V, at least 1.
        shift: Largest shift in pixels, both ways; what comes in from outside is 0.
        flip: Whether a view may mirror the image left to right.
        seed: Seed of the draws.
    """

    count: int = 1
    shift: int = 0
    flip: bool = False
    seed: int = 0

    def of_epoch(self, epoch: int) -> int:
        """The view an epoch (from 0) shows."""
        return epoch % self.count

    def make(self, images: Images, view: int) -> Images:
        """All images in one view: uint8 ``[N, C, H, W]``, a copy for every view but 0.

        Args:
            images: uint8 ``[N, C, H, W]``; an image's place is its index in the draws.
            view: 0 .. ``count`` - 1.
        """
        if view == 0 or not (self.shift or self.flip):
            return images
        draw = words(3 * len(images), self.seed, view, FOR_VIEWS).reshape(3, -1)
        moved = _shifted(images, _offsets(draw[0], self.shift), _offsets(draw[1], self.shift), self.shift)
        if self.flip:
            mirrored = (draw[2] >> np.uint64(63)).astype(bool)
            moved[mirrored] = moved[mirrored][..., ::-1]
        return moved


def _offsets(draw: npt.NDArray[np.uint64], shift: int) -> npt.NDArray[np.int64]:
    """Words to 0 .. 2*shift; the modulo's bias is below 2**-59."""
    return np.asarray(draw % np.uint64(2 * shift + 1), dtype=np.int64)


def _shifted(images: Images, down: npt.NDArray[np.int64], right: npt.NDArray[np.int64], shift: int) -> Images:
    """Cut each image out of its zero-padded self, at (down, right) of the padding."""
    height, width = images.shape[2:]
    edge = ((0, 0), (0, 0), (shift, shift), (shift, shift))
    padded = np.pad(images, edge)
    moved = np.empty_like(images)
    for y in range(2 * shift + 1):
        for x in range(2 * shift + 1):
            rows = np.flatnonzero((down == y) & (right == x))
            moved[rows] = padded[rows, :, y : y + height, x : x + width]
    return moved
