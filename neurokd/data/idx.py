"""MNIST and Fashion-MNIST: the IDX format (http://yann.lecun.com/exdb/mnist), plain or gzipped.

A file is: two zero bytes, the type (0x08 = unsigned byte), the number of axes, one big-endian 32-bit length an
axis, then the values in C order.
"""

from __future__ import annotations

import gzip
import zlib
from pathlib import Path
from typing import IO

import numpy as np
from numpy.typing import NDArray

from neurokd.data.official import IDX_FOLDERS, IDX_MD5, IDX_NAMES, md5_of
from neurokd.data.places import Place, check_labels, damaged, locate, unreadable
from neurokd.data.types import Images, Labels, RawSet, SourceFile, Split, note_for

UNSIGNED_BYTE = 0x08
LARGEST = 1 << 31  # bytes of content; 40 times MNIST, and a header cannot make us allocate more
GZIP_MAGIC = b"\x1f\x8b"
SIDE = 28
CLASSES = 10


def idx_places(name: str, root: Path) -> list[Place]:
    """Where the four files of ``name`` may lie; ``train-images.idx3-ubyte`` is how some tools unpack them."""
    wanted: dict[str, tuple[str, ...]] = {
        part: (file, f"{file}.gz", file.replace("-idx", ".idx"), file.replace("-idx", ".idx") + ".gz")
        for part, file in IDX_NAMES.items()
    }
    return [Place(root / folder, wanted) for folder in IDX_FOLDERS[name]]


def read_idx_set(name: str, root: Path) -> RawSet:
    """Read ``mnist`` or ``fashion-mnist``.

    Raises:
        DataError: files missing, damaged, or of the other set; counts that differ; a label out of range.
    """
    _, files = locate(name, root, idx_places(name, root))
    train, train_source = _read_part(name, files, "train")
    test, test_source = _read_part(name, files, "t10k")
    source = train_source + test_source
    return RawSet(train, test, source, note_for(source))


def _read_part(name: str, files: dict[str, Path], part: str) -> tuple[Split, tuple[SourceFile, ...]]:
    image_key, label_key = f"{part}-images", f"{part}-labels"
    images, image_file = _read_images(name, files[image_key], image_key)
    labels, label_file = _read_labels(name, files[label_key], label_key)
    if len(images) != len(labels):
        raise damaged(
            files[label_key],
            "images and labels differ in number",
            f"{len(labels)} labels, {len(images)} images in {files[image_key].name}",
            "one label an image",
        )
    return Split(images, labels), (image_file, label_file)


def _read_images(name: str, path: Path, key: str) -> tuple[Images, SourceFile]:
    array, md5 = read_idx(path, axes=3)
    if array.shape[1:] != (SIDE, SIDE):
        raise damaged(path, "the images have another size", f"{array.shape[1:]}", f"({SIDE}, {SIDE})")
    return array.reshape(-1, 1, SIDE, SIDE), _source(name, path, key, md5)


def _read_labels(name: str, path: Path, key: str) -> tuple[Labels, SourceFile]:
    array, md5 = read_idx(path, axes=1)
    check_labels(path, int(array.max()), CLASSES)
    return array.astype(np.int64), _source(name, path, key, md5)


def _source(name: str, path: Path, key: str, md5: str) -> SourceFile:
    for other, sums in IDX_MD5.items():
        if other != name and md5 in sums.values():
            raise damaged(path, f"this file belongs to {other}, not to {name}", f"md5 {md5}", f"the files of {name}")
    return SourceFile(str(path), path.stat().st_size, md5, md5 == IDX_MD5[name][key])


def read_idx(path: Path, axes: int) -> tuple[NDArray[np.uint8], str]:
    """Read one IDX file of unsigned bytes.

    Args:
        path: The file; gzip is recognised by its first bytes, not by the name.
        axes: The number of axes it must have.

    Returns:
        The values, uint8, writable, with at least one along the first axis; and the md5 of the unpacked content.

    Raises:
        DataError: empty, not IDX, another type or rank, shorter or longer than its header says, damaged gzip,
            unreadable.
    """
    try:
        with path.open("rb") as raw:
            start = raw.read(len(GZIP_MAGIC))
            raw.seek(0)
            if not start:
                raise damaged(path, "the data file is empty", "0 bytes", "an IDX file")
            if start != GZIP_MAGIC:
                return _read_stream(path, raw, axes)
            with gzip.GzipFile(fileobj=raw) as unpacked:
                return _read_stream(path, unpacked, axes)
    except (EOFError, zlib.error, gzip.BadGzipFile) as error:
        raise damaged(
            path, "the gzip file is damaged", str(error) or type(error).__name__, "a whole .gz file"
        ) from error
    except OSError as error:
        raise unreadable(path, error) from error


def _read_stream(path: Path, stream: IO[bytes] | gzip.GzipFile, axes: int) -> tuple[NDArray[np.uint8], str]:
    header = stream.read(4 + 4 * axes)
    shape = _shape(path, header, axes)
    size = int(np.prod(shape, dtype=object))
    if not 0 < size <= LARGEST:
        raise damaged(path, "the IDX header gives an impossible shape", shape, f"1 .. {LARGEST} values")
    body = bytearray(size)
    got = _read_into(stream, memoryview(body))
    if got < size or stream.read(1):
        found = f"{got} bytes after the header" if got < size else f"more than {size} bytes after the header"
        what = "the IDX file is truncated" if got < size else "the IDX file is longer than its header says"
        raise damaged(path, what, found, f"{size} bytes for the shape {shape}")
    return np.frombuffer(body, np.uint8).reshape(shape), md5_of(header, body)


def _read_into(stream: IO[bytes] | gzip.GzipFile, target: memoryview) -> int:
    """Fill ``target`` as far as the stream goes; the number of bytes read."""
    done = 0
    while done < len(target):
        piece = stream.read(min(len(target) - done, 1 << 20))
        if not piece:
            break
        target[done : done + len(piece)] = piece
        done += len(piece)
    return done


def _shape(path: Path, header: bytes, axes: int) -> tuple[int, ...]:
    expected = bytes((0, 0, UNSIGNED_BYTE, axes))
    if header[:4] != expected[: len(header)]:
        raise damaged(path, "the file has a wrong magic number", f"0x{header[:4].hex()}", f"0x{expected.hex()}")
    if len(header) < 4 + 4 * axes:
        raise damaged(path, "the IDX file is truncated", f"{len(header)} bytes", f"a header of {4 + 4 * axes} bytes")
    return tuple(int(length) for length in np.frombuffer(header, ">u4", offset=4))
