"""CIFAR-10 in its official layouts (https://www.cs.toronto.edu/~kriz/cifar.html): binary and python.

A binary batch is records of 3,073 bytes: the label, then 32x32 red, green and blue values, row by row. A python
batch is a pickle of a dictionary with the same rows under ``data`` and the labels under ``labels``.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from neurokd.data.official import CIFAR_BINARY, CIFAR_PYTHON, CifarLayout, md5_of
from neurokd.data.pickles import read_batch_pickle
from neurokd.data.places import Place, check_labels, damaged, locate, unreadable
from neurokd.data.types import Images, RawSet, SourceFile, Split, note_for

SHAPE = (3, 32, 32)
PIXELS = 3072
CLASSES = 10
JPEG_NOTE = "JPEG copy"
# Mean step over the edges of 8x8 blocks / mean step beside them. Measured: 0.999 on 4,000 original training images
# (0.987 .. 1.010 over parts of 500), 1.074 on JPEG copies of 30.5 dB (1.052 .. 1.100).
BLOCKY = 1.03
ENOUGH_TO_TELL = 1000

Batch = tuple[Images, NDArray[np.int64]]


def cifar_places(root: Path) -> list[Place]:
    """Where CIFAR-10 may lie, in either layout, directly in the root or in ``cifar10/``."""
    return [
        Place(root / parent / layout.folder, {file: (file,) for file in layout.files})
        for layout in (CIFAR_BINARY, CIFAR_PYTHON)
        for parent in ("", "cifar10")
    ]


def read_cifar10(name: str, root: Path) -> RawSet:
    """Read CIFAR-10.

    Raises:
        DataError: files missing or damaged, a label out of range.
    """
    place, files = locate(name, root, cifar_places(root))
    layout, read = _layout(place.folder.name)
    batches, source = [], []
    for file, path in files.items():
        content = _content(path)
        md5 = md5_of(content)
        source.append(SourceFile(str(path), len(content), md5, md5 == layout.files[file]))
        batches.append(read(path, content))
    train = Split(np.concatenate([b[0] for b in batches[:-1]]), np.concatenate([b[1] for b in batches[:-1]]))
    test = Split(*batches[-1])
    return RawSet(train, test, tuple(source), _note(tuple(source), train.images))


def _layout(folder: str) -> tuple[CifarLayout, Callable[[Path, bytes], Batch]]:
    if folder == CIFAR_BINARY.folder:
        return CIFAR_BINARY, read_binary_batch
    return CIFAR_PYTHON, read_python_batch


def _content(path: Path) -> bytes:
    try:
        content = path.read_bytes()
    except OSError as error:
        raise unreadable(path, error) from error
    if not content:
        raise damaged(path, "the data file is empty", "0 bytes", "a CIFAR-10 batch")
    return content


def read_binary_batch(path: Path, content: bytes) -> Batch:
    """Images uint8 ``[N, 3, 32, 32]`` and labels int64 ``[N]`` of a binary batch; DataError if it is not one."""
    record = PIXELS + 1
    if len(content) % record:
        raise damaged(
            path,
            "the CIFAR-10 batch is truncated or of another format",
            f"{len(content)} bytes",
            f"whole records of {record} bytes (official: 10,000 of them)",
        )
    rows = np.frombuffer(content, np.uint8).reshape(-1, record)
    return _batch(path, rows[:, 1:], rows[:, 0].astype(np.int64))


def read_python_batch(path: Path, content: bytes) -> Batch:
    """The same of a python batch, without running anything the pickle asks for."""
    data, labels = read_batch_pickle(path, content)
    if data.ndim != 2 or data.shape[1] != PIXELS:
        raise damaged(path, "the images have another size", f"shape {data.shape}", f"(N, {PIXELS})")
    if len(data) != len(labels):
        raise damaged(
            path,
            "images and labels differ in number",
            f"{len(data)} images, {len(labels)} labels",
            "one label an image",
        )
    if not len(data):
        raise damaged(path, "the CIFAR-10 batch holds no images", "0 images", "at least one")
    return _batch(path, data, labels)


def _batch(path: Path, pixels: Images, labels: NDArray[np.int64]) -> Batch:
    check_labels(path, int(labels.max()), CLASSES)
    return np.array(pixels, order="C").reshape(-1, *SHAPE), labels


def _note(source: tuple[SourceFile, ...], images: Images) -> str:
    note = note_for(source)
    return JPEG_NOTE if note and looks_like_jpeg(images) else note


def looks_like_jpeg(images: Images) -> bool:
    """Whether the images carry the 8x8 block edges that JPEG leaves; False for fewer than 1,000 images.

    CIFAR-10's own images were scaled down from larger ones, so no block grid survives in them.
    """
    if len(images) < ENOUGH_TO_TELL:
        return False
    steps = np.zeros(images.shape[-1] - 1)
    for start in range(0, min(len(images), 10_000), 1000):
        part = images[start : start + 1000].astype(np.int16)
        steps += np.abs(np.diff(part, axis=3)).mean((0, 1, 2)) + np.abs(np.diff(part, axis=2)).mean((0, 1, 3))
    edges = np.arange(7, len(steps), 8)
    beside = steps[np.concatenate([edges - 1, edges + 1])].mean()
    return bool(beside > 0 and steps[edges].mean() / beside > BLOCKY)
