"""CIFAR-10's python batches without trusting the pickle.

Unpickling can call anything. These files need a dictionary, byte strings, lists of integers and one numpy array,
so only the names a pickled numpy array uses are known here, and each stands for a small recorder of ours: neither
numpy's own reconstruction nor any other function runs on what the file says.
"""

from __future__ import annotations

import io
import math
import pickle
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from neurokd.data.places import damaged
from neurokd.data.types import Images

MODULES = ("numpy.core.multiarray", "numpy._core.multiarray", "numpy.core.numeric", "numpy._core.numeric", "numpy")
BROKEN = (
    pickle.UnpicklingError,
    EOFError,
    ValueError,
    KeyError,
    IndexError,
    AttributeError,
    TypeError,
    OverflowError,
    MemoryError,
    RecursionError,
)


class _Dtype:
    """Stands for ``numpy.dtype``: keeps the type code."""

    def __init__(self, code: object, *_: object) -> None:
        self.code = code.decode("latin-1") if isinstance(code, bytes) else code

    def __setstate__(self, state: object) -> None:
        """Byte order and flags: single bytes have none."""


class _Array:
    """Stands for ``numpy.ndarray``: keeps shape, type and bytes."""

    def __init__(self, *_: object) -> None:
        self.shape: object = None
        self.code: object = None
        self.fortran: object = False
        self.content: object = b""

    def __setstate__(self, state: tuple[object, object, _Dtype, object, object]) -> None:
        _, self.shape, dtype, self.fortran, self.content = state
        self.code = dtype.code


def _from_buffer(content: object, dtype: _Dtype, shape: object, order: object) -> _Array:
    """Stands for ``numpy.core.numeric._frombuffer`` (pickle protocol 5)."""
    array = _Array()
    array.__setstate__((1, shape, dtype, order in ("F", b"F"), content))
    return array


def _latin1(text: str, encoding: str) -> bytes:
    """Stands for ``_codecs.encode``, which is how Python 3 writes byte strings in protocol 2."""
    if encoding != "latin1":
        raise pickle.UnpicklingError(f"encoding {encoding!r}")
    return text.encode("latin-1")


_KNOWN: dict[str, object] = {
    "_reconstruct": _Array,
    "ndarray": _Array,
    "dtype": _Dtype,
    "_frombuffer": _from_buffer,
}


class _Unpickler(pickle.Unpickler):
    def find_class(self, module: str, name: str) -> object:
        if module in MODULES and name in _KNOWN:
            return _KNOWN[name]
        if (module, name) == ("_codecs", "encode"):
            return _latin1
        raise pickle.UnpicklingError(f"it asks for {module}.{name}, which no CIFAR-10 file needs")


def read_batch_pickle(path: Path, content: bytes) -> tuple[Images, NDArray[np.int64]]:
    """``data`` (uint8) and ``labels`` (int64 ``[N]``) of a pickled CIFAR-10 batch.

    Raises:
        DataError: not a pickle, one that asks for anything else, or one that does not hold these two.
    """
    try:
        loaded = _Unpickler(io.BytesIO(content), encoding="bytes").load()
        entries = {_text(key): value for key, value in loaded.items()}
        return _pixels(entries["data"]), _labels(entries["labels"])
    except BROKEN as error:
        got = f"no entry {error}" if isinstance(error, KeyError) else str(error) or type(error).__name__
        raise damaged(
            path,
            "the CIFAR-10 python batch cannot be read",
            got[:200],
            "a pickled dictionary with data (uint8 rows of 3,072) and labels (a list of integers)",
        ) from error


def _text(key: object) -> object:
    return key.decode("latin-1") if isinstance(key, bytes) else key


def _pixels(value: object) -> Images:
    if not isinstance(value, _Array) or str(value.code).lstrip("|<>=") != "u1":
        raise ValueError("data is not an array of unsigned bytes")
    shape, content = value.shape, value.content
    if not (isinstance(shape, tuple) and all(type(length) is int and length >= 0 for length in shape)):
        raise ValueError(f"data has the shape {shape!r}")
    if not isinstance(content, bytes | bytearray) or len(content) != math.prod(shape):
        raise ValueError(f"data does not hold the {math.prod(shape)} bytes of its shape {shape}")
    return np.frombuffer(content, np.uint8).reshape(shape, order="F" if value.fortran else "C")


def _labels(value: object) -> NDArray[np.int64]:
    if not isinstance(value, list) or not all(type(label) is int and 0 <= label < 256 for label in value):
        raise ValueError("labels is not a list of small whole numbers")
    return np.array(value, np.int64)
