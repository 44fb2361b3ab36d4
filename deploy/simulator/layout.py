"""How arrays lie in memory for the kernels: populations channel-last, rows padded, starts on cache lines."""

from __future__ import annotations

from math import prod
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from deploy.program import Shape
from deploy.simulator.vectors import LANES

Array = npt.NDArray[Any]
CACHE_LINE: Final = 64


def to_inner(values: Array, shape: Shape) -> Array:
    """Reorder the last axis from row-major ``shape`` to channel-last."""
    if len(shape) != 3:
        return values
    image: Array = np.moveaxis(values.reshape(*values.shape[:-1], *shape), -3, -1)
    return image.reshape(values.shape)


def to_outer(values: Array, shape: Shape) -> Array:
    """Split a channel-last last axis into ``shape`` (row-major)."""
    if len(shape) != 3:
        return values.reshape(*values.shape[:-1], *shape)
    channels, height, width = shape
    return np.moveaxis(values.reshape(*values.shape[:-1], height, width, channels), -1, -3)


def aligned_zeros(shape: tuple[int, ...], dtype: type[np.generic]) -> Array:
    """Zeros that begin at a cache line: vectors that straddle two lines take twice as long."""
    size = prod(shape) * np.dtype(dtype).itemsize
    memory = np.zeros(size + CACHE_LINE, np.uint8)
    start = -memory.ctypes.data % CACHE_LINE
    return memory[start : start + size].view(dtype).reshape(shape)


def aligned(values: Array) -> Array:
    """A copy that begins at a cache line."""
    made = aligned_zeros(values.shape, values.dtype.type)
    made[...] = values
    return made


def padded(values: Array) -> Array:
    """The last axis filled up with zeros to a multiple of :data:`deploy.simulator.vectors.LANES`."""
    missing = -values.shape[-1] % LANES
    return aligned(np.pad(values, [(0, 0)] * (values.ndim - 1) + [(0, missing)]))
