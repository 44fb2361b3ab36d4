"""Values as files hold them (numpy scalars, arrays of one, tuples) to the types of the nodes, or a typed error."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from deploy.errors import GraphError, UnsupportedNode

FloatArray = npt.NDArray[np.float64]
Shape = tuple[int, ...]
Pair = tuple[int, int]

_REAL_KINDS = "biuf"
_LARGEST_INT = 2**31 - 1


def bad(field: str, got: object, allowed: str, what: str = "") -> GraphError:
    """The error for a field whose value cannot be taken; the caller's node is added where it is known."""
    return GraphError(
        what or f"the field {field!r} has a value that cannot be used",
        where=f"field {field!r}",
        got=shorten(got),
        allowed=allowed,
        next_step="write the file again with a value that is allowed",
    )


def shorten(value: object, limit: int = 120) -> str:
    """``value`` as text that fits an error message; arrays by their shape, type and range."""
    if isinstance(value, np.ndarray) and value.size > 4:
        return f"array of shape {value.shape}, {value.dtype}"
    text = value if isinstance(value, str) else repr(value)
    return text if len(text) <= limit else text[: limit - 3] + "..."


def float_array(field: str, value: object) -> FloatArray:
    """A read-only float64 array of finite numbers, of any shape; float32 and integers convert exactly.

    An array that somebody could still write to is copied.
    """
    array = real_array(field, value)
    if array.dtype.itemsize > 8 or (array.dtype.kind in "iu" and array.dtype.itemsize == 8):
        _require_exact(field, array)
    result = array.astype(np.float64, copy=array.flags.writeable)
    if not np.isfinite(result).all():
        raise bad(field, f"{int((~np.isfinite(result)).sum())} of {result.size} are NaN or infinite", "finite numbers")
    frozen: FloatArray = result.view()
    frozen.flags.writeable = False
    return frozen


def real_array(field: str, value: object) -> npt.NDArray[Any]:
    """``value`` as an array of real numbers."""
    try:
        array = np.asarray(value)
    except (ValueError, TypeError, RuntimeError, OverflowError) as error:
        raise bad(field, f"{type(value).__name__}: {error}", "an array of real numbers") from error
    if array.dtype.kind not in _REAL_KINDS:
        raise bad(field, value, "an array of real numbers")
    return array


def _require_exact(field: str, array: npt.NDArray[Any]) -> None:
    with np.errstate(over="ignore", invalid="ignore"):
        exact = np.array_equal(array.astype(np.float64).astype(array.dtype), array)
    if not exact:
        raise bad(field, f"{array.dtype} values that float64 cannot hold", "values that float64 holds exactly")


def integer(field: str, value: object, low: int = -_LARGEST_INT, high: int = _LARGEST_INT) -> int:
    """One integer in ``low..high``; also from an array of one, or a float that is whole."""
    array = real_array(field, value)
    if array.size != 1:
        raise bad(field, value, "one whole number")
    number = array.reshape(-1)[0].item()
    if not low <= number <= high or number != int(number):
        raise bad(field, number, f"a whole number from {low} to {high}")
    return int(number)


def integers(field: str, value: object, low: int, count: int | None = None) -> Shape:
    """A row of integers of at least ``low``; where ``count`` is given, one number stands for all of them."""
    array = real_array(field, value)
    if array.ndim > 1 or array.size > 32:
        raise bad(field, value, f"a row of whole numbers of at least {low}")
    row = tuple(integer(field, item, low) for item in array.reshape(-1))
    if count is not None and len(row) == 1:
        row = row * count
    if count is not None and len(row) != count:
        raise bad(field, value, f"{count} whole numbers of at least {low}")
    return row


def pair(field: str, value: object, low: int) -> Pair:
    """Two integers (height, width) of at least ``low``; one stands for both."""
    height, width = integers(field, value, low, 2)
    return height, width


def text(field: str, value: object) -> str:
    """One string, also from bytes or a numpy string."""
    if isinstance(value, np.ndarray) and value.size == 1:
        value = value.reshape(-1)[0]
    if isinstance(value, bytes):
        try:
            return value.decode("utf-8")
        except UnicodeDecodeError as error:
            raise bad(field, value, "text in UTF-8") from error
    if not isinstance(value, str):
        raise bad(field, value, "text")
    return str(value)


def padding(field: str, value: object, kernel: Shape, dilation: Shape, stride: Shape) -> Shape:
    """Symmetric zero padding for each axis; ``valid`` and ``same`` become the numbers they stand for."""
    if not is_text(value):
        return integers(field, value, 0, len(kernel))
    word = text(field, value)
    if word == "valid":
        return (0,) * len(kernel)
    if word != "same":
        raise bad(field, word, "'same', 'valid' or whole numbers of at least 0")
    if set(stride) != {1}:
        raise UnsupportedNode(
            "padding 'same' with a stride is not defined",
            where=f"field {field!r}",
            got=f"'same' with stride {stride}",
            allowed="stride 1, or the padding as numbers",
            next_step="write the padding as numbers",
        )
    return _same(field, kernel, dilation)


def _same(field: str, kernel: Shape, dilation: Shape) -> Shape:
    totals = tuple(d * (k - 1) for k, d in zip(kernel, dilation, strict=True))
    if any(total % 2 for total in totals):
        raise UnsupportedNode(
            "padding 'same' with an even kernel pads one side more than the other",
            where=f"field {field!r}",
            got=f"kernel {kernel}, dilation {dilation}",
            allowed="an odd kernel, or the padding as numbers",
            next_step="use an odd kernel, or pad symmetrically with numbers",
        )
    return tuple(total // 2 for total in totals)


def is_text(value: object) -> bool:
    """True for a string in any of the forms files and numpy give."""
    if isinstance(value, np.ndarray):
        return value.size == 1 and value.dtype.kind in "OSU" and is_text(value.reshape(-1)[0])
    return isinstance(value, (str, bytes))
