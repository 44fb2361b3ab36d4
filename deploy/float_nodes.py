"""Nodes without a state in floats: one function a node type, on ``[N, *shape]`` (N: batch, or batch times steps)."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from deploy.graph import (
    Affine,
    AvgPool2d,
    Conv1d,
    Conv2d,
    Flatten,
    Input,
    Node,
    Output,
    Pool2d,
    Scale,
    SumPool2d,
    Threshold,
)  # fmt: skip

Float = npt.NDArray[np.float64]


def apply(node: Node, x: Float) -> Float:
    """What a node without state gives for ``x`` ``[N, *shape]``."""
    return _RULES[type(node)](node, x)


def _same(_: Node, x: Float) -> Float:
    return x


def _affine(node: Affine, x: Float) -> Float:
    y: Float = x @ node.weight.T
    return y if node.bias is None else y + node.bias


def _conv2d(node: Conv2d, x: Float) -> Float:
    (stride_y, stride_x), (gap_y, gap_x), groups = node.stride, node.dilation, node.groups
    outputs, inputs, height, width = node.weight.shape
    windows = _windows(_padded(x, node.padding), (gap_y * (height - 1) + 1, gap_x * (width - 1) + 1))
    windows = windows[:, :, ::stride_y, ::stride_x, ::gap_y, ::gap_x]
    parts = []
    for group in range(groups):
        weight = node.weight[group * (outputs // groups) : (group + 1) * (outputs // groups)]
        seen = windows[:, group * inputs : (group + 1) * inputs]
        parts.append(np.tensordot(seen, weight, axes=((1, 4, 5), (1, 2, 3))))
    y: Float = np.moveaxis(np.concatenate(parts, axis=-1), -1, 1)
    return y if node.bias is None else y + node.bias[:, None, None]


def _conv1d(node: Conv1d, x: Float) -> Float:
    """As a two-dimensional one over images of one line."""
    flat = Conv2d(
        node.name, node.weight[:, :, None, :], node.bias, (1, node.stride), (0, node.padding), (1, node.dilation),
        node.groups,
    )  # fmt: skip
    return _conv2d(flat, x[:, :, None, :])[:, :, 0, :]


def _pool(node: Pool2d, x: Float) -> Float:
    windows = _windows(_padded(x, node.padding), node.kernel_size)[:, :, :: node.stride[0], :: node.stride[1]]
    total: Float = windows.sum(axis=(4, 5))
    return total / (node.kernel_size[0] * node.kernel_size[1]) if isinstance(node, AvgPool2d) else total


def _padded(x: Float, padding: tuple[int, int]) -> Float:
    return np.pad(x, ((0, 0), (0, 0), (padding[0],) * 2, (padding[1],) * 2)) if any(padding) else x


def _windows(x: Float, size: tuple[int, int]) -> Float:
    return np.lib.stride_tricks.sliding_window_view(x, size, axis=(2, 3))


def _flatten(node: Flatten, x: Float) -> Float:
    rank = x.ndim - 1
    start, end = (d + rank if d < 0 else d for d in (node.start_dim, node.end_dim))
    return x.reshape(*x.shape[: start + 1], -1, *x.shape[end + 2 :])


def _scale(node: Scale, x: Float) -> Float:
    return x * node.scale


def _threshold(node: Threshold, x: Float) -> Float:
    return (x > node.threshold).astype(np.float64)


_RULES: Final[Mapping[type[Node], Callable[[Any, Float], Float]]] = {
    Input: _same, Output: _same, Affine: _affine, Conv2d: _conv2d, Conv1d: _conv1d, SumPool2d: _pool,
    AvgPool2d: _pool, Flatten: _flatten, Scale: _scale, Threshold: _threshold,
}  # fmt: skip
