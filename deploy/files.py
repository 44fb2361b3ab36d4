"""Writing the user's files: to a temporary name first, then renamed, so nothing is ever half-written."""

from __future__ import annotations

import json
import os
import struct
import zipfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from deploy.errors import FileError


@contextmanager
def atomic_path(path: str | Path) -> Iterator[Path]:
    """Yield a temporary path beside ``path``; rename it to ``path`` on success, remove it on failure.

    The temporary name keeps the suffix (``.npz`` stays last), so writers that append one by habit behave.

    Raises:
        FileError: the folder cannot be made, the disk is full, or the rename is refused.
    """
    target = Path(path)
    temporary = target.with_name(f".{target.stem}.{os.getpid()}.partial{target.suffix}")
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        yield temporary
        os.replace(temporary, target)
    except OSError as error:
        raise FileError(
            "cannot write the file",
            where=target,
            got=error.strerror or str(error),
            allowed="a writable folder with free space",
            next_step="choose another --out folder, or free some space; the previous file, if any, is untouched",
        ) from error
    finally:
        with suppress(OSError):
            temporary.unlink()


def write_json(path: str | Path, value: Any) -> None:
    """Write ``value`` as indented JSON with sorted lists kept as they are; numpy scalars and arrays are converted."""
    with atomic_path(path) as temporary:
        temporary.write_text(json.dumps(value, indent=2, default=_plain, allow_nan=False) + "\n")


def read_json(path: str | Path) -> Any:
    """Read a JSON file.

    Raises:
        FileError: missing, unreadable or not JSON.
    """
    source = Path(path)
    try:
        return json.loads(source.read_text())
    except OSError as error:
        raise FileError(
            "cannot read the file",
            where=source,
            got=error.strerror or str(error),
            allowed="a readable JSON file",
        ) from error
    except ValueError as error:
        raise FileError(
            "the file is not JSON",
            where=source,
            got=str(error),
            allowed="JSON as this tool writes it",
            next_step="delete the file and run the stage that writes it again",
        ) from error


_DAMAGED: Final = (
    OSError, ValueError, EOFError, KeyError, zipfile.BadZipFile, zlib.error, struct.error,
    NotImplementedError, RuntimeError,  # zip: an unknown compression, an encrypted member
    MemoryError,  # a header that declares an array larger than memory
)  # fmt: skip


def read_arrays(path: str | Path) -> dict[str, npt.NDArray[Any]]:
    """Every array of a ``.npz`` file by name, or the one of a ``.npy`` file as ``""``; never unpickles.

    Raises:
        FileError: missing, unreadable, damaged, pickled, or holding something other than arrays.
    """
    try:
        with open(path, "rb") as stream:
            loaded = np.load(stream, allow_pickle=False)
            found = {"": loaded} if isinstance(loaded, np.ndarray) else {name: loaded[name] for name in loaded.files}
        strange = [name for name, value in found.items() if not isinstance(value, np.ndarray)]
        if strange:
            raise ValueError(f"{', '.join(strange)}: no array")
    except _DAMAGED as error:
        raise FileError(
            "the arrays cannot be read",
            where=path,
            got=f"{type(error).__name__}: {error}",
            allowed="a .npy or .npz file as numpy writes it, without pickles",
            next_step="write the file again",
        ) from error
    return found


def _plain(value: object) -> object:
    if isinstance(value, np.generic):
        return value.item()
    if isinstance(value, np.ndarray):
        return value.tolist()
    if isinstance(value, Path):
        return str(value)
    raise TypeError(f"{type(value).__name__} has no JSON form here")
