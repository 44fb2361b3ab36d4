"""The neurokd metadata block, as files and memory hold it."""

from __future__ import annotations

import numpy as np
import pytest

from deploy.errors import GraphError
from deploy.graph import NeuronGrid, RunSettings, SynapseGrid, block

FULL = {"schema": 1, "dt": 1e-3, "reset": "zero", "steps": 8, "encoding": "direct", "input_bits": 4, "chip": "loihi2"}


def test_a_graph_block_comes_back() -> None:
    settings = RunSettings(8, "direct", 4, "loihi2")
    assert block.graph_metadata(1e-3, "zero", settings) == FULL
    assert block.graph_block(dict(FULL)) == (block.GraphBlock(1e-3, "zero", settings), {})


def test_everything_is_optional_and_numpy_scalars_are_taken() -> None:
    assert block.graph_block({}) == (block.GraphBlock(), {})
    got, rest = block.graph_block({"dt": np.float32(0.5), "steps": np.int8(3), "reset": b"zero", "later": 1})
    assert got == block.GraphBlock(0.5, "zero", RunSettings(steps=3))
    assert rest == {"later": 1}
    assert block.graph_metadata(None, None, RunSettings()) == {}


def test_node_grids_come_back() -> None:
    synapse = SynapseGrid(-3, 6, "inhibitory")
    assert block.synapse_grid(block.node_metadata(synapse)) == (synapse, {})
    assert block.neuron_grid(block.node_metadata(NeuronGrid(0.1))) == (NeuronGrid(0.1), {})
    assert block.synapse_grid({"x": 1}) == (None, {"x": 1})
    assert block.neuron_grid({}) == (None, {})
    assert block.node_metadata(None) == {}


def test_split_leaves_none_out_and_makes_scalars_plain() -> None:
    ours, foreign = block.split({"neurokd": {"dt": np.float64(1)}, "a": None, "b": np.array(2), "c": {"d": b"x"}})
    assert (ours, foreign) == ({"dt": 1.0}, {"b": 2, "c": {"d": "x"}})
    assert block.split(None) == ({}, {})


def test_what_is_kept_is_said() -> None:
    carried, notes = block.kept("n", {"b": 1}, {"later": 2})
    assert carried == {"b": 1, "neurokd": {"later": 2}}
    assert [(note.node, note.severity) for note in notes] == [("n", "note")]
    assert "b, neurokd/later" in notes[0].what
    assert block.kept("n", {}, {}) == ({}, [])


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"schema": 2}, "another schema"),
        ({"schema": "one"}, "metadata/neurokd/schema"),
        ({"dt": [1.0, 2.0]}, "metadata/neurokd/dt"),
        ({"dt": "x"}, "metadata/neurokd/dt"),
        ({"reset": 3}, "metadata/neurokd/reset"),
        ({"steps": 0}, "'steps' is out of range"),
        ({"encoding": "none"}, "'encoding' is out of range"),
        ({"input_bits": 2.5}, "metadata/neurokd/input_bits"),
        ({"chip": ""}, "'chip' is out of range"),
    ],
)
def test_a_damaged_graph_block_is_refused(values: dict[str, object], message: str) -> None:
    with pytest.raises(GraphError, match=message):
        block.graph_block(values)


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"weight_exp": 1}, "'metadata/neurokd' has a value"),
        ({"weight_exp": 1, "weight_bits": 8, "sign_mode": "both"}, "'sign_mode' is out of range"),
        ({"weight_exp": "x"}, "metadata/neurokd/weight_exp"),
    ],
)
def test_a_damaged_synapse_block_is_refused(values: dict[str, object], message: str) -> None:
    with pytest.raises(GraphError, match=message):
        block.synapse_grid(values)


def test_a_damaged_neuron_block_is_refused() -> None:
    with pytest.raises(GraphError, match="'scale' is out of range"):
        block.neuron_grid({"scale": -1.0})


@pytest.mark.parametrize("metadata", [3, "x", np.zeros(3), {"neurokd": 3}])
def test_metadata_must_be_groups(metadata: object) -> None:
    with pytest.raises(GraphError, match="field 'metadata"):
        block.split(metadata)
