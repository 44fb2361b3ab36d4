"""Downloading from the official mirrors, with checksums. Nothing incomplete ever gets a real name."""

from __future__ import annotations

import gzip
import os
import tarfile
import zlib
from dataclasses import dataclass
from pathlib import Path

from deploy.errors import ConfigError, DataError
from deploy.files import atomic_path
from neurokd.data.catalog import DEFAULT_ROOT
from neurokd.data.fetch import Progress, Transfer, cannot_write, fetch
from neurokd.data.official import (
    CIFAR_ARCHIVE_MD5,
    CIFAR_BINARY,
    IDX_MD5,
    IDX_NAMES,
    md5_of,
    md5_of_file,
    md5_of_gzip,
)
from neurokd.data.places import damaged, unreadable

TIMEOUT = 30.0


@dataclass(frozen=True)
class RemoteFile:
    """A file a mirror has.

    Attributes:
        name: Its name on the mirror.
        size: Bytes; for the progress display, and to stop a stream that is something else.
        md5: Of the file, or, for ``.gz``, of its unpacked content.
    """

    name: str
    size: int
    md5: str


@dataclass(frozen=True)
class Remote:
    """Where a set can be fetched.

    Attributes:
        mirrors: Base addresses ending in ``/``, tried in order.
        files: What to fetch from there.
        folder: The folder below the root that receives it.
        members: For a ``.tar.gz``: the files to take out of it and their md5; empty for files kept as they are.
    """

    mirrors: tuple[str, ...]
    files: tuple[RemoteFile, ...]
    folder: str
    members: tuple[tuple[str, str], ...] = ()

    def __post_init__(self) -> None:
        for mirror in self.mirrors:
            if not mirror.startswith(("http://", "https://")) or not mirror.endswith("/"):
                raise ConfigError(
                    "the mirror is not a web address",
                    where="mirrors",
                    got=mirror,
                    allowed="http://.../ or https://.../, ending in /",
                    next_step="correct the address",
                )


def _idx_files(name: str, *sizes: int) -> tuple[RemoteFile, ...]:
    sums = IDX_MD5[name]
    return tuple(
        RemoteFile(f"{IDX_NAMES[part]}.gz", size, sums[part]) for part, size in zip(IDX_NAMES, sizes, strict=True)
    )


REMOTES = {
    "mnist": Remote(
        (
            "https://ossci-datasets.s3.amazonaws.com/mnist/",
            "https://storage.googleapis.com/cvdf-datasets/mnist/",
        ),
        _idx_files("mnist", 9912422, 28881, 1648877, 4542),
        "mnist",
    ),
    "fashion-mnist": Remote(
        (
            "https://fashion-mnist.s3.eu-central-1.amazonaws.com/",
            "https://raw.githubusercontent.com/zalandoresearch/fashion-mnist/master/data/fashion/",
            "https://storage.googleapis.com/tensorflow/tf-keras-datasets/",
        ),
        _idx_files("fashion-mnist", 26421880, 29515, 4422102, 5148),
        "fashion-mnist",
    ),
    "cifar10": Remote(
        ("https://www.cs.toronto.edu/~kriz/",),
        (RemoteFile("cifar-10-binary.tar.gz", 170052171, CIFAR_ARCHIVE_MD5),),
        CIFAR_BINARY.folder,
        tuple(CIFAR_BINARY.files.items()),
    ),
}


def download(
    name: str,
    root: str | Path | None = None,
    *,
    remote: Remote | None = None,
    progress: Progress | None = None,
    timeout: float = TIMEOUT,
) -> Path:
    """Fetch a set from its official mirrors.

    Files that are there with the official checksum are kept; others of the same name are never overwritten. A
    broken transfer leaves ``.NAME.partial`` behind, and the next call goes on where it stopped. Only a file whose
    checksum is the official one gets its real name.

    Args:
        name: ``mnist``, ``fashion-mnist`` or ``cifar10``; ``digits`` needs no download.
        root: The folder that holds the sets; default ``./data``.
        remote: Other mirrors: ``dataclasses.replace(REMOTES[name], mirrors=(...,))``.
        progress: Called as ``progress(file, done bytes, total bytes)``.
        timeout: Seconds without a byte before a mirror is given up.

    Returns:
        The folder that now holds the set.

    Raises:
        DataError: unknown name, no network, no mirror has the file, wrong checksum, another file in its place.
        FileError: the folder cannot be written, or the disk is full.
    """
    source = remote or _remote(name)
    folder = (DEFAULT_ROOT if root is None else Path(root).expanduser()) / source.folder
    _make(folder)
    if source.members:
        _download_archive(source, folder, progress, timeout)
    else:
        _download_files(source, folder, progress, timeout)
    return folder


def _download_files(source: Remote, folder: Path, progress: Progress | None, timeout: float) -> None:
    for file in source.files:
        unpacked = folder / file.name.removesuffix(".gz")
        if _there(folder / file.name, file.md5) or _there(unpacked, file.md5):
            continue
        partial = _fetch(source, file, folder, progress, timeout)
        try:
            os.replace(partial, folder / file.name)
        except OSError as error:
            raise cannot_write(folder / file.name, error) from error


def _download_archive(source: Remote, folder: Path, progress: Progress | None, timeout: float) -> None:
    missing = {name: md5 for name, md5 in source.members if not _there(folder / name, md5)}
    if not missing:
        return
    for file in source.files:
        partial = _fetch(source, file, folder, progress, timeout)
        _unpack(partial, folder, missing)
        partial.unlink()


def _fetch(source: Remote, file: RemoteFile, folder: Path, progress: Progress | None, timeout: float) -> Path:
    partial = folder / f".{file.name}.partial"
    urls = tuple(mirror + file.name for mirror in source.mirrors)
    fetch(Transfer(urls, file.size, partial, lambda path: _has(path, file.md5), progress, timeout))
    return partial


def _there(path: Path, md5: str) -> bool:
    """Whether the right file is there; DataError when another one is in its place."""
    if not path.exists():
        return False
    if _has(path, md5):
        return True
    raise DataError(
        "another file is in the place of the official one",
        where=path,
        got="a different checksum",
        allowed=f"md5 {md5}",
        next_step="move or delete it, then download again; downloads never overwrite",
    )


def _has(path: Path, md5: str) -> bool:
    """Whether the file, or what it unpacks to where it is gzipped IDX, has this md5."""
    try:
        return md5_of_file(path) == md5 or md5_of_gzip(path) == md5
    except OSError as error:
        raise unreadable(path, error) from error


def _unpack(archive: Path, folder: Path, missing: dict[str, str]) -> None:
    """Take the missing members out of the archive, each checked before it gets its name."""
    left = dict(missing)
    try:
        with tarfile.open(archive, "r:gz") as tar:
            for info in tar:
                name = Path(info.name).name
                if info.isfile() and name in left:
                    _write_member(tar, info, folder / name, left.pop(name))
    except (tarfile.TarError, EOFError, zlib.error, gzip.BadGzipFile) as error:
        raise damaged(archive, "the downloaded archive is damaged", error, "a whole .tar.gz") from error
    if left:
        raise damaged(archive, "the downloaded archive lacks files", f"no {', '.join(left)}", ", ".join(missing))


def _write_member(tar: tarfile.TarFile, info: tarfile.TarInfo, target: Path, md5: str) -> None:
    reader = tar.extractfile(info)
    content = reader.read() if reader is not None else b""
    if md5_of(content) != md5:
        raise damaged(target, "the unpacked file has a wrong checksum", f"md5 {md5_of(content)}", f"md5 {md5}")
    with atomic_path(target) as temporary:
        temporary.write_bytes(content)


def _make(folder: Path) -> None:
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise cannot_write(folder, error) from error


def _remote(name: str) -> Remote:
    if name in REMOTES:
        return REMOTES[name]
    raise DataError(
        "the digits set needs no download" if name == "digits" else "unknown data set",
        where="data set name",
        got=repr(name),
        allowed=", ".join(REMOTES),
        next_step="use it as it is: it comes with scikit-learn" if name == "digits" else "choose one of these names",
    )
