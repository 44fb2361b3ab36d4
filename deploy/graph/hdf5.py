"""An HDF5 file as plain dictionaries and arrays, every object checked before it is read.

``nir.read`` follows links, allocates what a file declares and recurses without end. Here nothing is followed or
allocated before its type, its filters and its declared size are known to be harmless.
"""

from __future__ import annotations

import stat
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Union

import h5py
import numpy as np

from deploy.errors import FileError, GraphError
from deploy.graph.coerce import shorten

Tree = dict[str, Union["Tree", object]]

_HDF5_TROUBLE = (
    OSError,
    RuntimeError,
    KeyError,
    ValueError,
    TypeError,
    AttributeError,
    OverflowError,
    MemoryError,
    NotImplementedError,
    SystemError,
    zlib.error,
)  # what h5py 3.16 raised for bit-flipped files; each becomes a GraphError
_FILTERS = {1: "gzip", 2: "shuffle", 3: "fletcher32", 32000: "lzf"}
_NUMBER_KINDS = "biuf"
_SMALL_CHUNK = 64 * 1024  # deflate inflates at most 1032-fold: below 64 KiB a chunk cannot exceed 66 MiB


@dataclass(frozen=True)
class Limits:
    """How much a file may hold.

    Attributes:
        max_bytes: Sum of all data once held as float64.
        max_objects: Number of groups and data sets.
        max_depth: Nesting of groups; a nested graph takes two.
        max_text: Length of one text and number of texts in one data set.
    """

    max_bytes: int = 512 * 2**20
    max_objects: int = 100_000
    max_depth: int = 32
    max_text: int = 2**18


def read_tree(path: Path, limits: Limits) -> tuple[Tree, list[str]]:
    """Everything in the file, and what was left out (attributes).

    Raises:
        FileError: missing, no plain file, or not readable.
        GraphError: not HDF5, damaged, or with anything that is refused.
    """
    reader = _Reader(limits, _check_plain(path))
    with _damage_is_typed(path), h5py.File(path, "r") as file:
        return reader.group(file, "", 0), reader.left_out


def _check_plain(path: Path) -> int:
    """Check that the file can be opened and starts as HDF5 does; its size in bytes."""
    try:
        status = path.stat()
        mode = status.st_mode
        with path.open("rb") if stat.S_ISREG(mode) else _nothing() as stream:
            start = stream.read(8) if stream else b""
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or str(error)
        raise FileError("cannot read the file", where=path, got=reason, allowed="a readable .nir file") from error
    if not stat.S_ISREG(mode):
        raise FileError("not a plain file", where=path, got="a folder or device", allowed="a readable .nir file")
    if start != b"\x89HDF\r\n\x1a\n":
        raise GraphError(
            "the file is not HDF5, so it is no NIR file",
            got=f"it starts with {start!r}" if start else "it is empty",
            allowed="a file written by the nir package",
            next_step="check the path, or export the network again",
        )
    return status.st_size


@contextmanager
def _nothing() -> Iterator[None]:
    yield None


@contextmanager
def _damage_is_typed(path: Path) -> Iterator[None]:
    try:
        yield
    except _HDF5_TROUBLE as error:
        raise GraphError(
            "the file is damaged: its HDF5 structure cannot be read",
            got=shorten(f"{type(error).__name__}: {error}"),
            allowed="a whole file written by the nir package",
            next_step="copy or export the file again",
        ) from error


class _Reader:
    """Walks one file and keeps account of what it has taken."""

    def __init__(self, limits: Limits, file_size: int) -> None:
        self.limits = limits
        self.file_size = max(1, file_size)
        self.bytes = 0
        self.objects = 0
        self.seen: set[int] = set()
        self.left_out: list[str] = []

    def group(self, group: Any, place: str, depth: int) -> Tree:
        if depth > self.limits.max_depth:
            raise refused(place, "groups nested too deep", f"more than {depth - 1}", f"{self.limits.max_depth}")
        self._count(group, place)
        tree: Tree = {}
        for name in group:
            inner = f"{place}/{name}"
            _check_name(name, place)
            tree[name] = self._member(group, name, inner, depth)
        return tree

    def _member(self, group: Any, name: str, place: str, depth: int) -> Tree | object:
        link = group.get(name, getlink=True)
        if not isinstance(link, h5py.HardLink):
            raise refused(place, "a link to elsewhere is not followed", type(link).__name__, "data in the file itself")
        member = group[name]
        if isinstance(member, h5py.Group):
            return self.group(member, place, depth + 1)
        if isinstance(member, h5py.Dataset):
            self._count(member, place)
            return self._value(member, place)
        raise refused(
            place, "an object that is neither group nor data set", type(member).__name__, "groups and data sets"
        )

    def _count(self, member: Any, place: str) -> None:
        self.objects += 1
        if self.objects > self.limits.max_objects:
            raise refused(
                place, "the file has too many objects", f"more than {self.objects - 1}", self.limits.max_objects
            )
        address = h5py.h5o.get_info(member.id).addr
        if address in self.seen:
            raise refused(place, "an object that is in the file under two names", "a second hard link", "one name each")
        self.seen.add(address)
        attributes = h5py.h5a.get_num_attrs(member.id)
        if attributes:
            self.left_out.append(f"{attributes} HDF5 attributes at {place or '/'}")

    def _value(self, data: Any, place: str) -> object:
        _check_storage(data, place)
        if h5py.check_string_dtype(data.dtype) is not None:
            return self._text(data, place)
        if data.dtype.kind not in _NUMBER_KINDS or h5py.check_ref_dtype(data.dtype) is not None:
            raise refused(place, "data of a type that is not read", shorten(str(data.dtype)), "real numbers and text")
        self._reserve(data, place, max(data.dtype.itemsize, 8))
        self._check_stored(data, place)
        array = np.asarray(data[()])
        array.flags.writeable = False
        return array

    def _text(self, data: Any, place: str) -> object:
        if data.size > self.limits.max_text or data.dtype.itemsize > self.limits.max_text or data.ndim > 2:
            raise refused(place, "too much text", f"shape {data.shape}", f"{self.limits.max_text} texts, 2 axes")
        self._reserve(data, place, max(data.dtype.itemsize, 64))
        self._check_stored(data, place)
        if data.ndim == 0:
            return self._decoded(data[()], place)
        # In blocks: the length of a text is not declared, and every one may point at the file's largest.
        rows = max(1, self.limits.max_bytes // (self.file_size * max(1, data.size // max(1, data.shape[0]))))
        blocks = (data[start : start + rows] for start in range(0, data.shape[0], rows))
        return [text for block in blocks for text in self._texts(block.tolist(), place)]

    def _texts(self, block: list[Any], place: str) -> list[object]:
        return [self._texts(item, place) if isinstance(item, list) else self._decoded(item, place) for item in block]

    def _decoded(self, value: object, place: str) -> object:
        raw = value if isinstance(value, bytes) else str(value).encode("utf-8", "surrogateescape")
        self.bytes += len(raw)
        if len(raw) > self.limits.max_text or self.bytes > self.limits.max_bytes:
            raise refused(place, "a text is too long", f"{len(raw)} bytes", f"{self.limits.max_text} bytes")
        try:
            return raw.decode("utf-8")
        except UnicodeDecodeError as error:
            raise refused(place, "text that is not UTF-8", shorten(ascii(raw)), "UTF-8") from error

    def _check_stored(self, data: Any, place: str) -> None:
        """Refuse data of which less is stored than declared: HDF5 would fill the rest with zeros."""
        declared = int(np.prod([int(n) for n in data.shape], dtype=object)) * data.dtype.itemsize
        if data.chunks is not None:
            stored = _check_chunks(data, place, self.limits.max_bytes)
        else:
            stored = min(data.id.get_storage_size(), self.file_size)
        if stored < declared:
            raise refused(place, "less data is stored than declared", f"{stored} of {declared} bytes", "all of it")

    def _reserve(self, data: Any, place: str, itemsize: int) -> None:
        if data.ndim > 8:
            raise refused(place, "data with too many axes", f"{data.ndim}", "8")
        self.bytes += int(np.prod([int(n) for n in data.shape], dtype=object)) * itemsize
        if self.bytes > self.limits.max_bytes:
            raise refused(
                place,
                "the file declares more data than is taken",
                f"{self.bytes / 2**20:.0f} MiB so far, shape {data.shape} here",
                f"{self.limits.max_bytes / 2**20:.0f} MiB (max_bytes)",
            )


def _check_name(name: object, place: str) -> None:
    # h5py gives names that are not UTF-8 as bytes
    if not isinstance(name, str) or not name.isprintable() or len(name) > 1000:
        raise refused(place, "a name that cannot be printed", shorten(ascii(name)), "printable text")


def _check_storage(data: Any, place: str) -> None:
    if data.shape is None:
        raise refused(place, "data without a value", "an empty data space", "a number, an array or text")
    if data.is_virtual or data.external:
        raise refused(
            place, "data kept in another file is not followed", "external or virtual data", "data in the file"
        )
    plist = data.id.get_create_plist()
    codes = [plist.get_filter(index)[0] for index in range(plist.get_nfilters())]
    unknown = [code for code in codes if code not in _FILTERS]
    if unknown:
        raise refused(
            place, "a compression that is not read", f"HDF5 filter {unknown[0]}", ", ".join(_FILTERS.values())
        )


def _check_chunks(data: Any, place: str, limit: int) -> int:
    """Refuse chunks that would be larger once decompressed than they say; the bytes all of them hold."""
    nominal: int = int(np.prod([int(n) for n in data.chunks], dtype=object)) * int(data.dtype.itemsize)
    if nominal > limit:
        raise refused(place, "a chunk is larger than is taken", f"chunks {data.chunks}", f"{limit} bytes")
    count = int(data.id.get_num_chunks())
    for index in range(count):
        chunk = data.id.get_chunk_info(index)
        if chunk.size > 2 * nominal + _SMALL_CHUNK:
            raise refused(place, "a chunk is stored larger than it says", f"{chunk.size} bytes", f"{nominal} bytes")
        if chunk.size > _SMALL_CHUNK and data.compression == "gzip":
            _, raw = data.id.read_direct_chunk(chunk.chunk_offset)
            if len(zlib.decompressobj().decompress(raw, nominal + 1)) > nominal:
                raise refused(place, "a chunk decompresses to more than it says", f"over {nominal} bytes", nominal)
    return count * nominal


def refused(place: str, what: str, got: object, allowed: object) -> GraphError:
    """The error for an object of the file that is not read."""
    return GraphError(
        f"the file is refused: {what}",
        where=place or "/",
        got=got,
        allowed=allowed,
        next_step="export the network again; files of the nir package have none of this",
    )
