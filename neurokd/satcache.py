"""What the frozen teacher says over the training split: computed once, its SAT kept as packed bits, read by index.

A SAT holds only spikes, so one sample needs ``ceil(T * C / 8)`` bytes a view: 60,000 samples of T = 8, C = 10 are
600 kB. Logits, where a loss needs them, are float32: 2.4 MB for those samples. The file carries a key made from the
teacher's weights, the images, the encoding and what is kept; a file with another key, or a damaged one, is computed
again, never trusted.
"""

from __future__ import annotations

import hashlib
import json
import time
import zipfile
import zlib
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from deploy.errors import TrainingError
from deploy.files import atomic_path
from neurokd.outputs import Outputs, as_outputs

Batch = tuple[npt.NDArray[np.int64], torch.Tensor | Outputs]
"""Image indices ``[B]`` and what the teacher says about them: a SAT of 0 and 1 ``[T, B, C]``, or its outputs."""
Floats = npt.NDArray[np.float32]


@dataclass(frozen=True)
class SatCache:
    """Packed teacher SATs, and logits where they were wanted.

    Args:
        packed: uint8 ``[V, N, ceil(T*C/8)]``: views, samples, bits of ``[T, C]`` in C order.
        steps: T; 0 where the teacher does not spike.
        classes: C, the width of the teacher's output layer.
        key: Digest of everything the SATs depend on.
        seconds: Time the teacher took.
        reused: True when it was read from a file instead of computed.
        logits: float32 ``[V, N, C]``, or None.
        population: Output neurons a class. Above 1, ``packed`` is ``[V, N, T*C]``: spikes a class and step.
    """

    packed: npt.NDArray[np.uint8]
    steps: int
    classes: int
    key: str
    seconds: float
    reused: bool = False
    logits: Floats | None = None
    population: int = 1

    @property
    def holds(self) -> frozenset[str]:
        """What it can tell: of ``sat`` and ``logits``."""
        return frozenset({"sat"} if self.steps else ()) | frozenset(() if self.logits is None else {"logits"})

    def _unpacked(self, packed: npt.NDArray[np.uint8]) -> npt.NDArray[Any]:
        """``[B, T * C]``: spikes, or shares of a class's neurons."""
        if self.population > 1:
            return np.asarray(packed / np.float32(self.population))
        return np.unpackbits(packed, axis=1, count=self.steps * self.classes)

    @property
    def shapes(self) -> Mapping[str, tuple[int, ...]]:
        """Of the teacher's layers: none is kept."""
        return {}

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
        """Size of the packed bits and the logits."""
        return int(self.packed.nbytes) + (0 if self.logits is None else int(self.logits.nbytes))

    def take(self, indices: npt.ArrayLike, view: int = 0) -> torch.Tensor:
        """The SATs of some images: ``[T, B, C]``, 0/1 or shares of a class's neurons.

        Raises:
            TrainingError: a view or index the cache does not hold.
        """
        rows = self._rows(indices, view)
        sat = self._unpacked(self.packed[view, rows]).reshape(rows.size, self.steps, self.classes).transpose(1, 0, 2)
        return torch.from_numpy(np.ascontiguousarray(sat)).to(torch.float32)

    def told(self, indices: npt.ArrayLike, view: int = 0) -> Outputs:
        """All it holds about some images.

        Raises:
            TrainingError: a view or index the cache does not hold.
        """
        logits = None if self.logits is None else torch.from_numpy(self.logits[view, self._rows(indices, view)])
        return Outputs(self.take(indices, view) if self.steps else None, logits)

    def _rows(self, indices: npt.ArrayLike, view: int) -> npt.NDArray[np.int64]:
        rows = np.asarray(indices, dtype=np.int64)
        if not 0 <= view < self.views or (rows.size and not (rows.min() >= 0 and rows.max() < self.samples)):
            raise TrainingError(
                "the teacher's SAT cache does not hold these images",
                where="teacher SAT cache",
                got=f"view {view}, indices {rows.min(initial=0)} .. {rows.max(initial=0)}",
                allowed=f"views 0 .. {self.views - 1}, indices 0 .. {self.samples - 1}",
                next_step="compute the cache for the same data, validation share and views",
            )
        return rows

    def __getitem__(self, indices: npt.ArrayLike) -> torch.Tensor:
        """The SATs of unchanged images (view 0)."""
        return self.take(indices)

    def save(self, path: str | Path) -> None:
        """Write the bits and the header as one ``.npz``, atomically.

        Raises:
            FileError: the folder cannot be written or the disk is full.
        """
        header = {
            "key": self.key, "steps": self.steps, "classes": self.classes, "seconds": self.seconds,
            "population": self.population,
        }  # fmt: skip
        arrays = {"packed": self.packed} if self.logits is None else {"packed": self.packed, "logits": self.logits}
        with atomic_path(path) as temporary:
            np.savez(temporary, header=np.array(json.dumps(header)), **arrays)


def key_of(parts: Mapping[str, Any]) -> str:
    """Digest of what the SATs depend on (teacher weights, images, encoding, views), as plain JSON values."""
    return hashlib.blake2b(json.dumps(parts, sort_keys=True).encode(), digest_size=16).hexdigest()


def compute(views: int, samples: int, key: str, run: Callable[[int], Iterable[Batch]], population: int = 1) -> SatCache:
    """Run the teacher over every view of every image and pack its spikes.

    Args:
        views: V.
        samples: N; every index 0 .. N-1 must come once a view.
        key: From :func:`key_of`.
        run: For a view number, yields indices and SATs.
        population: Output neurons a class; the SATs' entries are multiples of one over it.

    Raises:
        TrainingError: the teacher's output is not spikes (0 or 1), or not shares of that population.
    """
    start = time.perf_counter()
    made: SatCache | None = None
    for view in range(views):
        for indices, told in run(view):
            outputs = as_outputs(told)
            made = made or _empty(outputs, views, samples, key, population)
            if outputs.sat is not None:
                made.packed[view, indices] = _pack(outputs.sat, population)
            if made.logits is not None and outputs.logits is not None:
                made.logits[view, indices] = _finite(outputs.logits)
    if made is None:
        raise TrainingError("there are no images to run the teacher on", where="teacher SAT cache", got="0 images")
    return replace(made, seconds=time.perf_counter() - start)


def _empty(first: Outputs, views: int, samples: int, key: str, population: int) -> SatCache:
    """Room for what a teacher says, from what it said first."""
    steps, classes = (0, 0) if first.sat is None else (first.sat.shape[0], first.sat.shape[2])
    classes = classes if first.logits is None else first.logits.shape[1]
    packed = np.zeros((views, samples, _bytes(steps * classes, population)), dtype=np.uint8)
    logits = None if first.logits is None else np.zeros((views, samples, classes), dtype=np.float32)
    return SatCache(packed, steps, classes, key, 0.0, logits=logits, population=population)


def _bytes(entries: int, population: int) -> int:
    """Of one sample: a bit an entry, or with a population a byte (0 .. population)."""
    return entries if population > 1 else (entries + 7) // 8


def _finite(logits: torch.Tensor) -> Floats:
    if not bool(torch.isfinite(logits).all()):
        raise TrainingError(
            "the teacher's logits are not numbers",
            where="teacher logits",
            got="NaN or infinity",
            allowed="finite logits",
            next_step="train the teacher again, or choose another checkpoint of it",
        )
    return np.asarray(logits.detach().cpu().numpy(), dtype=np.float32)


def load(path: str | Path, key: str) -> SatCache | None:
    """The cache in ``path`` when it has this key and is whole; otherwise None (compute it again)."""
    if not Path(path).is_file():
        return None
    try:
        with np.load(path, allow_pickle=False) as archive:
            header = json.loads(str(archive["header"]))
            packed = np.asarray(archive["packed"], dtype=np.uint8)
            logits = np.asarray(archive["logits"], dtype=np.float32) if "logits" in archive else None
        steps, classes = int(header["steps"]), int(header["classes"])
        seconds, population = float(header["seconds"]), int(header.get("population", 1))
    except (OSError, ValueError, KeyError, TypeError, zipfile.BadZipFile, zlib.error):
        return None
    if header.get("key") != key or packed.ndim != 3 or packed.shape[2] != _bytes(steps * classes, population):
        return None
    if logits is not None and logits.shape != (*packed.shape[:2], classes):
        return None
    return SatCache(packed, steps, classes, key, seconds, True, logits, population)


def load_or_compute(
    path: str | Path | None,
    views: int,
    samples: int,
    key: str,
    run: Callable[[int], Iterable[Batch]],
    population: int = 1,
) -> SatCache:
    """:func:`load`, or else :func:`compute` and save. Without a path the cache stays in memory.

    Raises:
        TrainingError: as :func:`compute`.
        FileError: the folder cannot be written.
    """
    found = load(path, key) if path is not None else None
    if found is not None and found.views == views and found.samples == samples:
        return found
    cache = compute(views, samples, key, run, population)
    if path is not None:
        cache.save(path)
    return cache


def _pack(sat: torch.Tensor, population: int) -> npt.NDArray[np.uint8]:
    """``[T, B, C]`` to uint8 ``[B, ceil(T*C/8)]`` of bits, or ``[B, T*C]`` of spikes a class."""
    counts = sat.detach().cpu().numpy() * population
    if not ((counts == np.round(counts)) & (counts >= 0) & (counts <= population)).all():
        raise TrainingError(
            "the teacher's output is not spikes",
            where="teacher SAT",
            got=f"values {counts.min() / population} .. {counts.max() / population}",
            allowed="0 or 1" if population == 1 else f"0 to 1 in steps of 1/{population}",
            next_step="give a teacher whose last layer spikes",
        )
    rows: npt.NDArray[np.uint8] = counts.astype(np.uint8).transpose(1, 0, 2).reshape(sat.shape[1], -1)
    return rows if population > 1 else np.packbits(rows, axis=1)
