"""From a :class:`Graph` to the ``nir`` package's classes and ``.nir`` files that other tools read."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import h5py
import nir
import numpy as np

from deploy.errors import GraphError
from deploy.files import atomic_path
from deploy.graph import block, coerce
from deploy.graph.finding import Finding
from deploy.graph.graph import Graph
from deploy.graph.neurons import Elementwise, Neuron
from deploy.graph.nodes import Affine, Conv1d, Conv2d, Flatten, Input, Node, Output, Pool2d, Synapse
from deploy.graph.shapes import Shapes


@dataclass(frozen=True)
class Converted:
    """A graph of the ``nir`` package and what is worth saying about it."""

    graph: Any
    notes: tuple[Finding, ...]


def write(graph: Graph, path: str | Path) -> tuple[Finding, ...]:
    """Write a ``.nir`` file, whole or not at all.

    Returns:
        What a reader of the file should know; empty as a rule.

    Raises:
        FileError: the folder or disk refuses.
        GraphError: a name or a metadata value that a NIR file cannot hold.
    """
    for node in graph.nodes:
        _check_name(node.name, f"node {node.name!r}")
    converted = convert(graph)
    with atomic_path(path) as temporary:
        nir.write(str(temporary), converted.graph)
        _without_zero_resets(temporary)
    return converted.notes


def _without_zero_resets(path: Path) -> None:
    """Leave out each ``v_reset`` of zeros, the default: nir up to 1.0.4, which sinabs 3.1.3 pins, has no such field."""
    with h5py.File(path, "r+") as file:
        for group in file["node/nodes"].values():
            if "v_reset" in group and not np.any(group["v_reset"][()]):
                del group["v_reset"]


def to_nir(graph: Graph) -> Any:
    """The graph as a ``nir.NIRGraph``, its types set to the shapes worked out here."""
    return convert(graph).graph


def convert(graph: Graph) -> Converted:
    """The graph as a ``nir.NIRGraph``, and notes on what other tools will make of it."""
    notes: list[Finding] = []
    nodes = {node.name: _node(node, graph.shapes[node.name], notes) for node in graph.nodes}
    ours = block.graph_metadata(graph.dt, graph.reset, graph.settings)
    metadata = _metadata(graph.metadata, ours, "graph")
    # type_check=False: nir 1.0.8 infers wrong shapes for non-square kernels; ours are checked already.
    return Converted(nir.NIRGraph(nodes, list(graph.edges), metadata=metadata, type_check=False), tuple(notes))


def _node(node: Node, shapes: Shapes, notes: list[Finding]) -> Any:
    made = _maker(node)(node)
    grid = node.quantization if isinstance(node, (Neuron, Synapse)) else None
    made.metadata = _metadata(node.metadata, block.node_metadata(grid), f"node {node.name!r}")
    inferred = (made.input_type or {}).get("input"), (made.output_type or {}).get("output")
    wanted = shapes.input, shapes.output
    if any(a is not None and tuple(np.atleast_1d(a)) != b for a, b in zip(inferred, wanted, strict=True)):
        notes.append(
            Finding(
                "note",
                node.name,
                "the nir package infers another shape for this node, so its own type check refuses the file",
                got=f"{inferred[0]} -> {inferred[1]}",
                allowed=f"{wanted[0]} -> {wanted[1]}",
                next_step="other tools read it with nir.read(path, type_check=False)",
            )
        )
    made.input_type = {"input": np.array(shapes.input, dtype=np.int64)}
    made.output_type = {"output": np.array(shapes.output, dtype=np.int64)}
    return made


def _maker(node: Node) -> Callable[[Any], Any]:
    for kind, make in _MAKERS.items():
        if isinstance(node, kind):
            return make
    raise AssertionError(f"every node class has a maker; {node.kind} has none")


def _input(node: Input) -> Any:
    return nir.Input({"input": np.array(node.shape, dtype=np.int64)})


def _output(node: Output) -> Any:
    return nir.Output({"output": np.array(node.shape, dtype=np.int64)})


def _affine(node: Affine) -> Any:
    return nir.Linear(node.weight) if node.bias is None else nir.Affine(node.weight, node.bias)


def _conv(node: Conv2d | Conv1d) -> Any:
    kind = nir.Conv2d if isinstance(node, Conv2d) else nir.Conv1d
    return kind(
        input_shape=node.input_shape,
        weight=node.weight,
        stride=node.stride,
        padding=node.padding,
        dilation=node.dilation,
        groups=node.groups,
        bias=np.zeros(node.weight.shape[0]) if node.bias is None else node.bias,
    )


def _pool(node: Pool2d) -> Any:
    return getattr(nir, node.kind)(*(np.array(v) for v in (node.kernel_size, node.stride, node.padding)))


def _flatten(node: Flatten) -> Any:
    shape = {"input": None if node.input_shape is None else np.array(node.input_shape, dtype=np.int64)}
    return nir.Flatten(shape, start_dim=node.start_dim, end_dim=node.end_dim)


def _elementwise(node: Elementwise) -> Any:
    return getattr(nir, node.kind)(**{name: np.array(getattr(node, name)) for name in node.parameters})


_MAKERS: dict[type[Node], Callable[[Any], Any]] = {
    Input: _input,
    Output: _output,
    Affine: _affine,
    Conv2d: _conv,
    Conv1d: _conv,
    Pool2d: _pool,
    Flatten: _flatten,
    Elementwise: _elementwise,
}


def _metadata(foreign: Mapping[str, object], ours: Mapping[str, object], place: str) -> dict[str, object]:
    merged = {key: _writable(value, f"{place}, metadata {key!r}") for key, value in foreign.items()}
    if ours:
        unknown = merged.get(block.KEY, {})
        merged[block.KEY] = {**(unknown if isinstance(unknown, dict) else {}), **ours}
    for key in merged:
        _check_name(key, f"{place}, metadata")
    return merged


def _writable(value: object, place: str) -> object:
    """``value`` in a form that ``nir.write`` takes, or a typed error."""
    if isinstance(value, Mapping):
        for key in value:
            _check_name(key, place)
        return {key: _writable(item, f"{place}/{key}") for key, item in value.items()}
    if isinstance(value, (list, tuple)) and value and all(isinstance(item, (str, list, tuple)) for item in value):
        return [_writable(item, place) for item in value]
    if isinstance(value, str) and "\0" not in value:
        return value
    array = np.asarray(value) if not isinstance(value, (str, bytes)) and value is not None else None
    if array is None or array.dtype.kind not in "biuf" or (array.size == 0):
        raise GraphError(
            "a metadata value that a NIR file cannot hold",
            where=place,
            got=coerce.shorten(value),
            allowed="numbers, arrays of numbers with elements, text, lists of text, and groups of them",
            next_step="remove the value or store it as text",
        )
    return array if array.ndim else array.item()


def _check_name(name: object, place: str) -> None:
    if not isinstance(name, str) or not name or "/" in name or name in (".", "..") or not name.isprintable():
        raise GraphError(
            "a name that a NIR file cannot hold",
            where=place,
            got=coerce.shorten(name),
            allowed="printable text without '/', not empty, not '.' or '..'",
            next_step="rename it",
        )
