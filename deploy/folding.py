"""Pooling folded exactly into the synapses that follow it: no neuron, no extra step of delay.

A sum over windows followed by weights is one set of weights on the unpooled image: each weight repeated over its
window, the stride multiplied. Where windows overlap, weights that meet on a pixel are added.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from deploy.errors import UnsupportedNode
from deploy.graph import AvgPool2d, Pool2d

FloatArray = npt.NDArray[np.float64]
Pair = tuple[int, int]


@dataclass(frozen=True, eq=False)
class ConvBlock:
    """A convolution with float weights ``[O, I/groups, kh, kw]``, as torch's Conv2d."""

    weights: FloatArray
    stride: Pair
    padding: Pair
    dilation: Pair
    groups: int


def factor(pool: Pool2d) -> float:
    """What one pixel counts in its window: 1 for a sum, ``1 / (kh * kw)`` for a mean (padding counted as zeros)."""
    return 1.0 / (pool.kernel_size[0] * pool.kernel_size[1]) if isinstance(pool, AvgPool2d) else 1.0


def into_dense(pool: Pool2d, weights: FloatArray, image: tuple[int, ...], pooled: tuple[int, ...]) -> FloatArray:
    """Weights ``[out, C*H'*W']`` on pooled values to weights ``[out, C*H*W]`` on the image ``(C, H, W)``."""
    channels, height, width = image
    spread_y = _windows(pool, 0, height, pooled[1])
    spread_x = _windows(pool, 1, width, pooled[2])
    on_pooled = weights.reshape(-1, channels, pooled[1], pooled[2])
    on_image: FloatArray = np.einsum("ocpq,py,qx->ocyx", on_pooled, spread_y, spread_x)
    return on_image.reshape(len(weights), -1) * factor(pool)


def _windows(pool: Pool2d, axis: int, side: int, pooled: int) -> FloatArray:
    """``[pooled, side]``: 1 where a pixel lies in a window."""
    start = np.arange(pooled)[:, None] * pool.stride[axis] - pool.padding[axis]
    pixel = np.arange(side)[None, :]
    return ((pixel >= start) & (pixel < start + pool.kernel_size[axis])).astype(np.float64)


def into_conv(pool: Pool2d, conv: ConvBlock, image: tuple[int, ...], pooled: tuple[int, ...]) -> ConvBlock:
    """A convolution on pooled values to one on the image ``(C, H, W)``.

    Raises:
        UnsupportedNode: the convolution pads, and its border would see pixels that no window or another one covers.
    """
    for axis in (0, 1):
        _require_clean_border(pool, conv, axis, image[axis + 1], pooled[axis + 1])
    weights = conv.weights
    for axis in (0, 1):
        weights = _widened(weights, axis + 2, conv.dilation[axis] * pool.stride[axis], pool.kernel_size[axis])
    return ConvBlock(
        weights * factor(pool),
        stride=(conv.stride[0] * pool.stride[0], conv.stride[1] * pool.stride[1]),
        padding=(
            conv.padding[0] * pool.stride[0] + pool.padding[0],
            conv.padding[1] * pool.stride[1] + pool.padding[1],
        ),
        dilation=(1, 1),
        groups=conv.groups,
    )


def _widened(weights: FloatArray, axis: int, spacing: int, window: int) -> FloatArray:
    """Each tap along ``axis`` becomes ``window`` taps; taps that meet are added."""
    taps = weights.shape[axis]
    shape = list(weights.shape)
    shape[axis] = (taps - 1) * spacing + window
    wide = np.moveaxis(np.zeros(shape), axis, 0)
    for tap, values in enumerate(np.moveaxis(weights, axis, 0)):
        wide[tap * spacing : tap * spacing + window] += values
    return np.ascontiguousarray(np.moveaxis(wide, 0, axis))


def _require_clean_border(pool: Pool2d, conv: ConvBlock, axis: int, side: int, pooled: int) -> None:
    """A padding position stands for zero; on the image it must therefore cover no pixel."""
    before = pool.kernel_size[axis] - pool.stride[axis] - pool.padding[axis]
    after = side + pool.padding[axis] - pooled * pool.stride[axis]
    if conv.padding[axis] > 0 and (before > 0 or after > 0):
        raise UnsupportedNode(
            "this pooling cannot be folded exactly into the convolution that follows",
            where=f"node {pool.name!r}",
            got=f"axis {'yx'[axis]}: the convolution's padding would see "
            + ("overlapping windows" if before > 0 else "pixels that pooling leaves out"),
            allowed="windows that cover the image without overlap, or a convolution without padding",
            next_step="crop the image to a multiple of the window, or set padding=0 in the convolution",
        )
