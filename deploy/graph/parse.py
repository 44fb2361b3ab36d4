"""Plain dictionaries, as files and ``nir`` objects give them, to typed nodes: every field consumed or refused."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from deploy.errors import GraphError, UnsupportedNode
from deploy.graph import block, coerce
from deploy.graph.finding import Finding
from deploy.graph.neurons import IF, LI, LIF, CubaLI, CubaLIF, Delay, I, Neuron, Scale, Threshold
from deploy.graph.nodes import Affine, AvgPool2d, Conv1d, Conv2d, Flatten, Input, Node, Output, SumPool2d, Synapse


@dataclass(frozen=True)
class Fields:
    """How one NIR type is read.

    Attributes:
        make: The node class.
        required: Fields that must be there.
        optional: Fields that may be missing.
        renamed: NIR's field name to ours, where they differ.
    """

    make: Callable[..., Node]
    required: tuple[str, ...]
    optional: tuple[str, ...] = ()
    renamed: Mapping[str, str] = field(default_factory=dict)


_CONV = ("weight", "bias", "stride", "padding", "dilation", "groups")
_POOL = ("kernel_size", "stride", "padding")

READERS: dict[str, Fields] = {
    "Input": Fields(Input, ("shape",)),
    "Output": Fields(Output, ("shape",)),
    "Affine": Fields(Affine, ("weight", "bias")),
    "Linear": Fields(Affine, ("weight",)),
    "Conv1d": Fields(Conv1d, _CONV, ("input_shape",)),
    "Conv2d": Fields(Conv2d, _CONV, ("input_shape",)),
    "SumPool2d": Fields(SumPool2d, _POOL),
    "AvgPool2d": Fields(AvgPool2d, _POOL),
    "Flatten": Fields(Flatten, ("start_dim", "end_dim"), ("input_type",), {"input_type": "input_shape"}),
    "Scale": Fields(Scale, ("scale",)),
    "Threshold": Fields(Threshold, ("threshold",)),
    "Delay": Fields(Delay, ("delay",)),
    "I": Fields(I, ("r",)),
    "IF": Fields(IF, ("r", "v_threshold"), ("v_reset",)),
    "LI": Fields(LI, ("tau", "r", "v_leak")),
    "LIF": Fields(LIF, ("tau", "r", "v_leak", "v_threshold"), ("v_reset",)),
    "CubaLI": Fields(CubaLI, ("tau_syn", "tau_mem", "r", "v_leak"), ("w_in",)),
    "CubaLIF": Fields(CubaLIF, ("tau_syn", "tau_mem", "r", "v_leak", "v_threshold"), ("v_reset", "w_in")),
}
"""Every node type of nir 1.0.8 but NIRGraph, which :mod:`deploy.graph.nested` takes apart."""


def parse_node(name: str, tree: Mapping[str, Any]) -> tuple[Node, list[Finding]]:
    """The typed node of one group, and notes on what was kept without being interpreted.

    Raises:
        UnsupportedNode: a type, or a value, with no counterpart here.
        GraphError: a field missing, unknown, or with a value that cannot be used.
    """
    kind = node_type(tree)
    if kind not in READERS:
        raise UnsupportedNode(
            "the node has a type that is not read",
            got=coerce.shorten(kind),
            allowed=", ".join([*READERS, "NIRGraph"]),
            next_step="rebuild this part of the network from the types that are read",
        )
    reader = READERS[kind]
    values = {key: value for key, value in tree.items() if key not in ("type", "metadata") and value is not None}
    _check_fields(kind, reader, values)
    ours, foreign = block.split(tree.get("metadata"))
    grid, rest = _grid(reader.make, ours)
    metadata, notes = block.kept(name, foreign, rest)
    given = {reader.renamed.get(key, key): value for key, value in values.items()}
    return reader.make(name, metadata=metadata, **grid, **given), notes


def node_type(tree: Mapping[str, Any]) -> str:
    """The NIR type a group names.

    Raises:
        GraphError: it names none.
    """
    if not isinstance(tree, Mapping) or "type" not in tree:
        got = "fields " + ", ".join(sorted(map(str, tree))) if isinstance(tree, Mapping) else "a value"
        raise GraphError(
            "the node does not say its type",
            got=coerce.shorten(got),
            allowed="a group with a text 'type'",
            next_step="export the network again",
        )
    return coerce.text("type", tree["type"])


def _check_fields(kind: str, reader: Fields, values: Mapping[str, object]) -> None:
    missing = [key for key in reader.required if key not in values]
    unknown = [key for key in values if key not in reader.required + reader.optional]
    for what, names in (("lacks", missing), ("has an unknown", unknown)):
        if names:
            raise GraphError(
                f"the {kind} node {what} field{'s' if len(names) > 1 else ''} "
                + ", ".join(repr(name) for name in sorted(names)),
                got="fields " + coerce.shorten(", ".join(sorted(values))),
                allowed=f"{', '.join(reader.required)}; optional: {', '.join((*reader.optional, 'metadata'))}",
                next_step="export the network again with the nir package 1.0.8, or remove the field",
            )


def _grid(make: object, ours: dict[str, object]) -> tuple[dict[str, object], dict[str, object]]:
    """The node's own grid as a keyword, and what of its block is not known."""
    if isinstance(make, type) and issubclass(make, Neuron):
        neuron, rest = block.neuron_grid(ours)
        return {"quantization": neuron}, rest
    if isinstance(make, type) and issubclass(make, Synapse):
        synapse, rest = block.synapse_grid(ours)
        return {"quantization": synapse}, rest
    return {}, ours
