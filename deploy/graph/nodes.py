"""Typed, frozen nodes, checked when made: one class for each node of nir 1.0.8 (neurons in ``neurons.py``).

Arrays are float64 and read-only. Shapes have no batch and no time axis. Neuron parameters have the shape of
the population, or one element that stands for all neurons; :class:`deploy.graph.Graph` spreads those.

Source of the equations: the node docstrings of the ``nir`` package 1.0.8 and Pedersen et al.,
"Neuromorphic Intermediate Representation", Nature Communications 15 (2024).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, fields

import numpy as np

from deploy.errors import UnsupportedNode
from deploy.graph import coerce
from deploy.graph.coerce import FloatArray, Pair, Shape
from deploy.graph.quantization import SynapseGrid

Metadata = Mapping[str, object]


@dataclass(frozen=True, eq=False)
class Node:
    """What every node has.

    Attributes:
        name: Unique in its graph.
        metadata: What other tools stored with the node; kept, written back, not interpreted.
    """

    name: str
    metadata: Metadata = field(default_factory=dict, kw_only=True)

    @property
    def kind(self) -> str:
        """The node's type as NIR names it."""
        return type(self).__name__

    def _set(self, **values: object) -> None:
        for key, value in values.items():
            object.__setattr__(self, key, value)

    def _floats(self, *names: str) -> None:
        self._set(**{name: coerce.float_array(name, getattr(self, name)) for name in names})

    def __eq__(self, other: object) -> bool:
        if type(other) is not type(self):
            return NotImplemented
        return all(same(getattr(self, f.name), getattr(other, f.name)) for f in fields(self))

    def __hash__(self) -> int:
        return hash((type(self), self.name))


def same(left: object, right: object) -> bool:
    """Equality of field values, arrays by shape and every element."""
    if isinstance(left, np.ndarray) or isinstance(right, np.ndarray):
        return np.array_equal(np.asarray(left), np.asarray(right))
    if isinstance(left, Mapping) and isinstance(right, Mapping):
        return left.keys() == right.keys() and all(same(left[key], right[key]) for key in left)
    return bool(left == right)


@dataclass(frozen=True, eq=False)
class Input(Node):
    """Where data enters. ``shape`` has no batch and no time axis."""

    shape: Shape

    def __post_init__(self) -> None:
        self._set(shape=coerce.integers("shape", self.shape, 1))


@dataclass(frozen=True, eq=False)
class Output(Node):
    """Where spikes leave. ``shape`` has no batch and no time axis."""

    shape: Shape

    def __post_init__(self) -> None:
        self._set(shape=coerce.integers("shape", self.shape, 1))


@dataclass(frozen=True, eq=False)
class Synapse(Node):
    """A node with weights.

    Attributes:
        quantization: The integer grid of the weights, where the file states it.
    """

    quantization: SynapseGrid | None = field(default=None, kw_only=True)


@dataclass(frozen=True, eq=False)
class Affine(Synapse):
    """``y = W x + b`` (``nir.Affine``), or ``y = W x`` (``nir.Linear``) where ``bias`` is None.

    Attributes:
        weight: ``[out, in]``.
        bias: ``[out]`` or None.
    """

    weight: FloatArray
    bias: FloatArray | None = None

    def __post_init__(self) -> None:
        self._floats("weight")
        _require_axes(self.weight, 2, "[out, in]")
        self._set(bias=_bias(self.bias, self.weight.shape[0]))


@dataclass(frozen=True, eq=False)
class Conv2d(Synapse):
    """2-d cross-correlation with symmetric zero padding.

    Attributes:
        weight: ``[out channels, in channels / groups, kernel height, kernel width]``.
        bias: ``[out channels]``; None when absent or all zero (NIR cannot say "none").
        stride, padding, dilation: (height, width); ``same`` and ``valid`` become numbers.
        groups: Channel groups.
        input_shape: (height, width) of the input; None until a Graph has inferred it.
    """

    weight: FloatArray
    bias: FloatArray | None = None
    stride: Pair = (1, 1)
    padding: Pair = (0, 0)
    dilation: Pair = (1, 1)
    groups: int = 1
    input_shape: Pair | None = None

    def __post_init__(self) -> None:
        self._floats("weight")
        _require_axes(self.weight, 4, "[out, in / groups, kernel height, kernel width]")
        stride = coerce.pair("stride", self.stride, 1)
        dilation = coerce.pair("dilation", self.dilation, 1)
        kernel = self.weight.shape[2:]
        self._set(
            bias=_bias(self.bias, self.weight.shape[0], zero_is_none=True),
            stride=stride,
            dilation=dilation,
            padding=coerce.padding("padding", self.padding, kernel, dilation, stride),
            groups=_groups(self.groups, self.weight.shape[0]),
            input_shape=None if self.input_shape is None else coerce.pair("input_shape", self.input_shape, 1),
        )


@dataclass(frozen=True, eq=False)
class Conv1d(Synapse):
    """1-d cross-correlation with symmetric zero padding.

    Attributes:
        weight: ``[out channels, in channels / groups, kernel]``.
        bias: ``[out channels]``; None when absent or all zero (NIR cannot say "none").
        stride, padding, dilation: One number each; ``same`` and ``valid`` become numbers.
        groups: Channel groups.
        input_shape: Length of the input; None until a Graph has inferred it.
    """

    weight: FloatArray
    bias: FloatArray | None = None
    stride: int = 1
    padding: int = 0
    dilation: int = 1
    groups: int = 1
    input_shape: int | None = None

    def __post_init__(self) -> None:
        self._floats("weight")
        _require_axes(self.weight, 3, "[out, in / groups, kernel]")
        stride = coerce.integer("stride", self.stride, 1)
        dilation = coerce.integer("dilation", self.dilation, 1)
        kernel = self.weight.shape[2:]
        self._set(
            bias=_bias(self.bias, self.weight.shape[0], zero_is_none=True),
            stride=stride,
            dilation=dilation,
            padding=coerce.padding("padding", self.padding, kernel, (dilation,), (stride,))[0],
            groups=_groups(self.groups, self.weight.shape[0]),
            input_shape=None if self.input_shape is None else coerce.integer("input_shape", self.input_shape, 1),
        )


@dataclass(frozen=True, eq=False)
class Flatten(Node):
    """Joins the axes ``start_dim..end_dim`` (both included, no batch axis, negative from the end)."""

    start_dim: int = 1
    end_dim: int = -1
    input_shape: Shape | None = None

    def __post_init__(self) -> None:
        self._set(
            start_dim=coerce.integer("start_dim", self.start_dim),
            end_dim=coerce.integer("end_dim", self.end_dim),
            input_shape=None if self.input_shape is None else coerce.integers("input_type", self.input_shape, 1),
        )


@dataclass(frozen=True, eq=False)
class Pool2d(Node):
    """What both pooling nodes have: windows of ``kernel_size`` (height, width), zeros as padding."""

    kernel_size: Pair
    stride: Pair
    padding: Pair = (0, 0)

    def __post_init__(self) -> None:
        self._set(
            kernel_size=coerce.pair("kernel_size", self.kernel_size, 1),
            stride=coerce.pair("stride", self.stride, 1),
            padding=coerce.pair("padding", self.padding, 0),
        )


@dataclass(frozen=True, eq=False)
class SumPool2d(Pool2d):
    """The sum of each window."""


@dataclass(frozen=True, eq=False)
class AvgPool2d(Pool2d):
    """The mean of each window, padding counted as zeros (torch's ``count_include_pad=True``)."""


def _require_axes(weight: FloatArray, axes: int, allowed: str) -> None:
    if weight.ndim != axes or 0 in weight.shape:
        raise UnsupportedNode(
            f"weights with {weight.ndim} axes cannot be used here"
            if weight.ndim != axes
            else "weights without elements",
            where="field 'weight'",
            got=f"shape {weight.shape}",
            allowed=f"shape {allowed}",
            next_step="write one node for each weight matrix",
        )


def _bias(value: object, count: int, *, zero_is_none: bool = False) -> FloatArray | None:
    if value is None:
        return None
    bias = coerce.float_array("bias", value)
    if zero_is_none and not bias.any():
        return None
    if bias.shape != (count,):
        raise coerce.bad("bias", f"shape {bias.shape}", f"shape ({count},), one for each output")
    return bias


def _groups(value: object, outputs: int) -> int:
    groups = coerce.integer("groups", value, 1)
    if outputs % groups:
        raise coerce.bad("groups", groups, f"a divisor of the {outputs} output channels")
    return groups
