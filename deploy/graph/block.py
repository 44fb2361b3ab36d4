"""The ``neurokd`` metadata block: dictionaries as they come from files to typed values, and back.

Graph level: ``schema, dt, reset, steps, encoding, input_bits, chip, population``. Neuron nodes: ``scale``. Synapse
nodes: ``weight_exp, weight_bits, sign_mode``. Everything is optional; what is not known here is kept and reported.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, cast

import numpy as np

from deploy.errors import GraphError
from deploy.graph import coerce
from deploy.graph.finding import Finding
from deploy.graph.quantization import SCHEMA, NeuronGrid, RunSettings, SynapseGrid

KEY = "neurokd"
"""Where the block sits in a node's or graph's metadata."""

_RUN_KEYS = ("steps", "encoding", "input_bits", "chip", "population")


@dataclass(frozen=True)
class GraphBlock:
    """The graph's own block.

    Attributes:
        dt: Time step in seconds, if stated.
        reset: Reset rule, if stated.
        settings: The rest.
    """

    dt: float | None = None
    reset: str | None = None
    settings: RunSettings = field(default_factory=RunSettings)


def split(metadata: object) -> tuple[dict[str, object], dict[str, object]]:
    """The block, and everything else as plain Python values.

    Raises:
        GraphError: metadata or the block is not a group of named values.
    """
    values = {} if metadata is None else plain(metadata)
    if not isinstance(values, dict):
        raise coerce.bad("metadata", metadata, "a group of named values")
    block = values.pop(KEY, {})
    if not isinstance(block, dict):
        raise coerce.bad(f"metadata/{KEY}", block, "a group of named values")
    return block, values


def plain(value: object) -> object:
    """``value`` with numpy scalars as Python ones, texts as lists of str, and without None (no file holds it)."""
    if isinstance(value, Mapping):
        return {str(key): plain(item) for key, item in value.items() if item is not None}
    if isinstance(value, np.ndarray) and value.ndim == 0:
        return plain(value.item())
    if isinstance(value, np.ndarray) and value.dtype.kind in "OSU":
        return plain(value.tolist())
    if isinstance(value, (list, tuple)):
        return [plain(item) for item in value]
    if isinstance(value, np.generic):
        return value.item()
    if isinstance(value, bytes):
        return coerce.text("metadata", value)
    return value


def graph_block(block: dict[str, object]) -> tuple[GraphBlock, dict[str, object]]:
    """The typed block of a graph, and the keys not known.

    Raises:
        GraphError: a value of the wrong type or range, or a newer schema.
    """
    rest = dict(block)
    schema = _taken(rest, "schema", coerce.integer)
    if schema is not None and schema != SCHEMA:
        raise GraphError(
            "the neurokd block is of another schema than this version reads",
            where="metadata field 'schema'",
            got=schema,
            allowed=SCHEMA,
            next_step="install the neurokd version that wrote the file, or a newer one",
        )
    dt = _taken(rest, "dt", _seconds)
    reset = _taken(rest, "reset", coerce.text)
    settings = RunSettings(
        steps=_taken(rest, "steps", coerce.integer),
        encoding=cast(Any, _taken(rest, "encoding", coerce.text)),
        input_bits=_taken(rest, "input_bits", coerce.integer),
        chip=_taken(rest, "chip", coerce.text),
        population=_taken(rest, "population", coerce.integer),
    )
    return GraphBlock(dt, reset, settings), rest


def synapse_grid(block: dict[str, object]) -> tuple[SynapseGrid | None, dict[str, object]]:
    """The weights' grid of a synapse node, and the keys not known.

    Raises:
        GraphError: a part of the grid is missing, of the wrong type or out of range.
    """
    rest = dict(block)
    exponent = _taken(rest, "weight_exp", coerce.integer)
    bits = _taken(rest, "weight_bits", coerce.integer)
    mode = _taken(rest, "sign_mode", coerce.text)
    if exponent is None and bits is None and mode is None:
        return None, rest
    if exponent is None or bits is None or mode is None:
        got = ", ".join(key for key in ("weight_exp", "weight_bits", "sign_mode") if key in block)
        raise coerce.bad(f"metadata/{KEY}", f"only {got}", "weight_exp, weight_bits and sign_mode together")
    return SynapseGrid(exponent, bits, cast(Any, mode)), rest


def neuron_grid(block: dict[str, object]) -> tuple[NeuronGrid | None, dict[str, object]]:
    """The membrane's grid of a neuron node, and the keys not known.

    Raises:
        GraphError: the scale is of the wrong type or out of range.
    """
    rest = dict(block)
    scale = _taken(rest, "scale", _seconds)
    return (None if scale is None else NeuronGrid(scale)), rest


def _taken(block: dict[str, object], key: str, read: Callable[[str, object], Any]) -> Any:
    return read(f"metadata/{KEY}/{key}", block.pop(key)) if key in block else None


def _seconds(field_name: str, value: object) -> float:
    array = coerce.float_array(field_name, value)
    if array.size != 1:
        raise coerce.bad(field_name, value, "one number")
    return float(array.reshape(-1)[0])


def kept(node: str, foreign: dict[str, object], rest: dict[str, object]) -> tuple[dict[str, object], list[Finding]]:
    """Metadata that is carried along but not interpreted, and the notes that say so."""
    carried = {**foreign, KEY: rest} if rest else dict(foreign)
    names = [*foreign, *(f"{KEY}/{key}" for key in rest)]
    what = "metadata not interpreted, but kept: " + coerce.shorten(", ".join(sorted(names)))
    return carried, [Finding("note", node, what)] if names else []


def graph_metadata(dt: float | None, reset: str | None, settings: RunSettings) -> dict[str, object]:
    """The graph's block as NIR metadata holds it; empty where nothing is known (None cannot be written)."""
    values = {"dt": dt, "reset": reset, **{key: getattr(settings, key) for key in _RUN_KEYS}}
    known = {key: value for key, value in values.items() if value is not None}
    return {"schema": SCHEMA, **known} if known else {}


def node_metadata(grid: NeuronGrid | SynapseGrid | None) -> dict[str, object]:
    """A node's block as NIR metadata holds it."""
    if isinstance(grid, NeuronGrid):
        return {"scale": np.float64(grid.scale)}
    if isinstance(grid, SynapseGrid):
        return {"weight_exp": grid.weight_exp, "weight_bits": grid.weight_bits, "sign_mode": grid.sign_mode}
    return {}
