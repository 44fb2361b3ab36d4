"""Shapes of every node, worked out here: nir 1.0.8 infers wrong ones for non-square kernels.

Shapes have no batch and no time axis.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from deploy.errors import GraphError
from deploy.graph.coerce import FloatArray, Shape
from deploy.graph.neurons import Elementwise
from deploy.graph.nodes import Affine, AvgPool2d, Conv1d, Conv2d, Flatten, Input, Node, Output, Pool2d, SumPool2d
from deploy.graph.order import Edge
from deploy.graph.problems import Problem

MAX_ELEMENTS = 2**24
"""Largest activation, in elements: 16 times the neurons of a whole Loihi 2 chip; stops absurd declared sizes."""

MAX_TOTAL = 2**26
"""Elements of all activations together: four of the largest."""


@dataclass(frozen=True)
class Shapes:
    """Shape of what a node takes and of what it gives."""

    input: Shape
    output: Shape


def infer(
    order: Sequence[Node], edges: Sequence[Edge], recurrent: frozenset[Edge]
) -> tuple[dict[str, Shapes], list[Problem]]:
    """Shapes of the nodes in ``order``, and everything that does not fit.

    A node whose input is not known falls back on its own parameters, so that one fault hides no other.
    """
    shapes: dict[str, Shapes] = {}
    problems: list[Problem] = []
    total = 0
    sources: dict[str, list[str]] = {node.name: [] for node in order}
    for source, target in edges:
        sources[target].append(source)
    for node in order:
        forward = [name for name in sources[node.name] if (name, node.name) not in recurrent]
        try:
            shapes[node.name] = _node_shapes(node, {name: shapes[name].output for name in forward if name in shapes})
        except GraphError as error:
            problems.append(Problem(node.name, error))
            shapes.update(_own_shapes(node))
        total += math.prod(shapes[node.name].output) if node.name in shapes else 0
        if total > MAX_TOTAL:
            allowed = f"{MAX_TOTAL} elements in all"
            problems.append(Problem(node.name, _misfit("the network is larger than any chip holds", total, allowed)))
            break
    problems += [problem for edge in sorted(recurrent) for problem in _check_recurrent(edge, shapes)]
    return shapes, problems


def _own_shapes(node: Node) -> dict[str, Shapes]:
    own = own_input(node)
    try:
        return {} if own is None else {node.name: Shapes(own, output_shape(node, own))}
    except GraphError:
        return {}


def _node_shapes(node: Node, incoming: Mapping[str, Shape]) -> Shapes:
    if len(set(incoming.values())) > 1:
        raise _misfit(
            "the inputs of the node have different shapes, so they cannot be added",
            got=", ".join(f"{shape} from {name!r}" for name, shape in incoming.items()),
            allowed="one shape",
        )
    if incoming:
        shape = next(iter(incoming.values()))
        return Shapes(shape, _limited(output_shape(node, shape)))
    own = own_input(node)
    if own is None:
        raise _misfit(
            "the shape of the node's input is not known",
            got="no input with a known shape, and no shape of its own",
            allowed="an Input node before it, or an input_shape",
        )
    return Shapes(_limited(own), _limited(output_shape(node, own)))


def _check_recurrent(edge: Edge, shapes: Mapping[str, Shapes]) -> list[Problem]:
    source, target = edge
    if source not in shapes or target not in shapes or shapes[source].output == shapes[target].input:
        return []
    error = _misfit(
        "a recurrent edge brings another shape than the node takes",
        got=f"{shapes[source].output} from {source!r}",
        allowed=f"{shapes[target].input}",
    )
    return [Problem(target, error)]


def output_shape(node: Node, shape: Shape) -> Shape:
    """Shape of what ``node`` gives for an input of ``shape``.

    Raises:
        GraphError: the input does not fit the node's parameters.
    """
    if isinstance(node, Elementwise):
        return _elementwise(node, shape)
    return _RULES[type(node)](node, shape)


def own_input(node: Node) -> Shape | None:
    """The input shape that the node's own fields state, None where they leave it open."""
    if isinstance(node, (Input, Output)):
        return node.shape
    if isinstance(node, Affine):
        return (node.weight.shape[1],)
    if isinstance(node, Elementwise):
        return node.shape
    if isinstance(node, Flatten):
        return node.input_shape
    if isinstance(node, Conv2d) and node.input_shape is not None:
        return (node.weight.shape[1] * node.groups, *node.input_shape)
    if isinstance(node, Conv1d) and node.input_shape is not None:
        return (node.weight.shape[1] * node.groups, node.input_shape)
    return None


def completed(node: Node, shapes: Shapes) -> Node:
    """``node`` with what inference found: one parameter for each neuron, ``input_shape`` of convolutions."""
    if isinstance(node, Elementwise):
        spread: dict[str, Any] = {name: _spread(getattr(node, name), shapes.input) for name in node.parameters}
        return replace(node, **spread)
    if isinstance(node, Conv2d) and node.input_shape is None:
        return replace(node, input_shape=(shapes.input[1], shapes.input[2]))
    if isinstance(node, Conv1d) and node.input_shape is None:
        return replace(node, input_shape=shapes.input[1])
    if isinstance(node, Flatten) and node.input_shape is None:
        return replace(node, input_shape=shapes.input)
    return node


def _spread(value: FloatArray, shape: Shape) -> FloatArray:
    return np.broadcast_to(value.reshape(()) if value.size == 1 else value, shape)


def _elementwise(node: Elementwise, shape: Shape) -> Shape:
    for name in node.parameters:
        value = getattr(node, name)
        fits = value.size == 1 or (
            value.ndim == len(shape) and all(a in (1, b) for a, b in zip(value.shape, shape, strict=True))
        )
        if not fits:
            raise _misfit(
                f"the parameter {name!r} does not fit the input of the node",
                got=f"{name} of shape {value.shape}, input of shape {shape}",
                allowed=f"shape {shape}, or one element for all neurons",
            )
    return shape


def _same_shape(node: Any, shape: Shape) -> Shape:
    if node.shape != shape:
        raise _misfit("the declared shape is not what arrives", got=f"{shape} arrives", allowed=f"{node.shape}")
    return shape


def _affine(node: Any, shape: Shape) -> Shape:
    outputs, inputs = node.weight.shape
    if shape != (inputs,):
        hint = "; a Flatten before it is missing" if math.prod(shape) == inputs else ""
        raise _misfit(
            "the weight matrix does not fit the input" + hint, got=f"input of shape {shape}", allowed=f"({inputs},)"
        )
    return (outputs,)


def _conv2d(node: Any, shape: Shape) -> Shape:
    _check_channels(node, shape, 3)
    if node.input_shape is not None and node.input_shape != shape[1:]:
        raise _misfit("input_shape is not what arrives", got=f"{shape[1:]} arrives", allowed=f"{node.input_shape}")
    return (node.weight.shape[0], *_windows(shape[1:], node.weight.shape[2:], node.stride, node.padding, node.dilation))


def _conv1d(node: Any, shape: Shape) -> Shape:
    _check_channels(node, shape, 2)
    if node.input_shape is not None and node.input_shape != shape[1]:
        raise _misfit("input_shape is not what arrives", got=f"{shape[1]} arrives", allowed=f"{node.input_shape}")
    windows = _windows(shape[1:], node.weight.shape[2:], (node.stride,), (node.padding,), (node.dilation,))
    return (node.weight.shape[0], *windows)


def _check_channels(node: Any, shape: Shape, axes: int) -> None:
    channels = node.weight.shape[1] * node.groups
    if len(shape) != axes or shape[0] != channels:
        raise _misfit(
            "the convolution does not fit its input",
            got=f"input of shape {shape}",
            allowed=f"{axes} axes with {channels} channels (weight {node.weight.shape}, groups {node.groups})",
        )


def _pool(node: Pool2d, shape: Shape) -> Shape:
    if len(shape) != 3:
        raise _misfit("pooling needs channels, height and width", got=f"input of shape {shape}", allowed="3 axes")
    return (shape[0], *_windows(shape[1:], node.kernel_size, node.stride, node.padding, (1, 1)))


def _flatten(node: Any, shape: Shape) -> Shape:
    if node.input_shape is not None and node.input_shape != shape:
        raise _misfit("input_type is not what arrives", got=f"{shape} arrives", allowed=f"{node.input_shape}")
    start, end = (d + len(shape) if d < 0 else d for d in (node.start_dim, node.end_dim))
    if not 0 <= start <= end < len(shape):
        raise _misfit(
            "the axes to flatten are not in the input",
            got=f"start_dim {node.start_dim}, end_dim {node.end_dim}, input of shape {shape}",
            allowed=f"0 <= start_dim <= end_dim < {len(shape)} (no batch axis; negative from the end)",
        )
    return (*shape[:start], math.prod(shape[start : end + 1]), *shape[end + 1 :])


def _windows(size: Shape, kernel: Shape, stride: Shape, padding: Shape, dilation: Shape) -> Shape:
    axes = zip(size, kernel, stride, padding, dilation, strict=True)
    counts = tuple((n + 2 * p - d * (k - 1) - 1) // s + 1 for n, k, s, p, d in axes)
    if min(counts) < 1:
        raise _misfit(
            "the kernel is larger than the padded input",
            got=f"input {size}, kernel {kernel}, padding {padding}, dilation {dilation}",
            allowed="at least one position of the kernel",
        )
    return counts


def _limited(shape: Shape) -> Shape:
    if math.prod(shape) > MAX_ELEMENTS:
        raise _misfit("the shape is larger than any chip holds", got=shape, allowed=f"{MAX_ELEMENTS} elements")
    return shape


def _misfit(what: str, got: object, allowed: object) -> GraphError:
    return GraphError(
        what, got=got, allowed=allowed, next_step="correct the node or the one before it, and export the graph again"
    )


_RULES: dict[type[Node], Callable[[Any, Shape], Shape]] = {
    Input: _same_shape,
    Output: _same_shape,
    Affine: _affine,
    Conv2d: _conv2d,
    Conv1d: _conv1d,
    SumPool2d: _pool,
    AvgPool2d: _pool,
    Flatten: _flatten,
}
