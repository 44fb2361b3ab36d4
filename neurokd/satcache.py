"""The frozen teacher's SAT over the training split: computed once, kept as packed bits, read back by index.

A SAT holds only spikes, so one sample needs ``ceil(T * C / 8)`` bytes a view: 60,000 samples of T = 8, C = 10 are
600 kB. The file carries a key made from the teacher's weights, the images and the encoding; a file with another key,
or a damaged one, is computed again, never trusted.
"""

from __future__ import annotations

import hashlib
import json
import time
import zipfile
import zlib
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from deploy.errors import TrainingError
from deploy.files import atomic_path

Batch = tuple[npt.NDArray[np.int64], torch.Tensor]
"""Image indices ``[B]`` and the teacher's SAT for them, float 0/1 ``[T, B, C]``."""


@dataclass(frozen=True)
class SatCache:
    """Packed teacher SATs.

    Args:
        packed: uint8 ``[V, N, ceil(T*C/8)]``: views, samples, bits of ``[T, C]`` in C order.
        steps: T.
        classes: C, the width of the teacher's output layer.
        key: Digest of everything the SATs depend on.
        seconds: Time the teacher took.
        reused: True when it was read from a file instead of computed.
    """

    packed: npt.NDArray[np.uint8]
    steps: int
    classes: int
    key: str
    seconds: float
    reused: bool = False

    @property
    def views(self) -> int:
        """Number of fixed views an image has."""
        return int(self.packed.shape[0])

    @property
    def samples(self) -> int:
        """Number of images N."""
        return int(self.packed.shape[1])

    @property
    def nbytes(self) -> int:
        """Size of the packed bits."""
        return int(self.packed.nbytes)

    def take(self, indices: npt.ArrayLike, view: int = 0) -> torch.Tensor:
        """The SATs of some images: float 0/1 ``[T, B, C]``.

        Raises:
            TrainingError: a view or index the cache does not hold.
        """
        rows = np.asarray(indices, dtype=np.int64)
        if not 0 <= view < self.views or (rows.size and not (rows.min() >= 0 and rows.max() < self.samples)):
            raise TrainingError(
                "the teacher's SAT cache does not hold these images",
                where="teacher SAT cache",
                got=f"view {view}, indices {rows.min(initial=0)} .. {rows.max(initial=0)}",
                allowed=f"views 0 .. {self.views - 1}, indices 0 .. {self.samples - 1}",
                next_step="compute the cache for the same data, validation share and views",
            )
        bits = np.unpackbits(self.packed[view, rows], axis=1, count=self.steps * self.classes)
        sat = bits.reshape(rows.size, self.steps, self.classes).transpose(1, 0, 2)
        return torch.from_numpy(np.ascontiguousarray(sat)).to(torch.float32)

    def __getitem__(self, indices: npt.ArrayLike) -> torch.Tensor:
        """The SATs of unchanged images (view 0)."""
        return self.take(indices)

    def save(self, path: str | Path) -> None:
        """Write the bits and the header as one ``.npz``, atomically.

        Raises:
            FileError: the folder cannot be written or the disk is full.
        """
        header = {"key": self.key, "steps": self.steps, "classes": self.classes, "seconds": self.seconds}
        with atomic_path(path) as temporary:
            np.savez(temporary, packed=self.packed, header=np.array(json.dumps(header)))


def key_of(parts: Mapping[str, Any]) -> str:
    """Digest of what the SATs depend on (teacher weights, images, encoding, views), as plain JSON values."""
    return hashlib.blake2b(json.dumps(parts, sort_keys=True).encode(), digest_size=16).hexdigest()


def compute(views: int, samples: int, key: str, run: Callable[[int], Iterable[Batch]]) -> SatCache:
    """Run the teacher over every view of every image and pack its spikes.

    Args:
        views: V.
        samples: N; every index 0 .. N-1 must come once a view.
        key: From :func:`key_of`.
        run: For a view number, yields indices and SATs.

    Raises:
        TrainingError: the teacher's output is not spikes (0 or 1).
    """
    start = time.perf_counter()
    packed: npt.NDArray[np.uint8] | None = None
    steps = classes = 0
    for view in range(views):
        for indices, sat in run(view):
            steps, _, classes = sat.shape
            rows = _pack(sat)
            if packed is None:
                packed = np.zeros((views, samples, rows.shape[1]), dtype=np.uint8)
            packed[view, indices] = rows
    if packed is None:
        raise TrainingError("there are no images to run the teacher on", where="teacher SAT cache", got="0 images")
    return SatCache(packed, steps, classes, key, time.perf_counter() - start)


def load(path: str | Path, key: str) -> SatCache | None:
    """The cache in ``path`` when it has this key and is whole; otherwise None (compute it again)."""
    if not Path(path).is_file():
        return None
    try:
        with np.load(path, allow_pickle=False) as archive:
            header = json.loads(str(archive["header"]))
            packed = np.asarray(archive["packed"], dtype=np.uint8)
        steps, classes = int(header["steps"]), int(header["classes"])
        seconds = float(header["seconds"])
    except (OSError, ValueError, KeyError, TypeError, zipfile.BadZipFile, zlib.error):
        return None
    if header.get("key") != key or packed.ndim != 3 or packed.shape[2] != (steps * classes + 7) // 8:
        return None
    return SatCache(packed, steps, classes, key, seconds, reused=True)


def load_or_compute(
    path: str | Path | None, views: int, samples: int, key: str, run: Callable[[int], Iterable[Batch]]
) -> SatCache:
    """:func:`load`, or else :func:`compute` and save. Without a path the cache stays in memory.

    Raises:
        TrainingError: as :func:`compute`.
        FileError: the folder cannot be written.
    """
    found = load(path, key) if path is not None else None
    if found is not None and found.views == views and found.samples == samples:
        return found
    cache = compute(views, samples, key, run)
    if path is not None:
        cache.save(path)
    return cache


def _pack(sat: torch.Tensor) -> npt.NDArray[np.uint8]:
    """Float 0/1 ``[T, B, C]`` to uint8 ``[B, ceil(T*C/8)]``."""
    spikes = sat.detach().cpu().numpy()
    if not np.isin(spikes, (0.0, 1.0)).all():
        raise TrainingError(
            "the teacher's output is not spikes",
            where="teacher SAT",
            got=f"values {spikes.min()} .. {spikes.max()}",
            allowed="0 or 1",
            next_step="give a teacher whose last layer spikes",
        )
    return np.packbits(spikes.astype(bool).transpose(1, 0, 2).reshape(spikes.shape[1], -1), axis=1)
