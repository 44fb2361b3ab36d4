"""Reading foreign files: conventions, notes, and objects of the nir package."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import h5py
import nir
import numpy as np
import pytest

from deploy.errors import FileError, GraphError, UnsupportedNode
from deploy.graph import LIF, Conv2d, Graph, from_nir, read
from deploy.graph.read import analyse_file


def foreign(**lif: Any) -> nir.NIRGraph:
    """As snntorch writes it: dt = 1e-4, r = tau / dt."""
    values = {"tau": 1e-3, "r": 10.0, "v_leak": 0.0, "v_threshold": 1.0, **lif}
    nodes = {
        "zz": nir.Input(np.array([3])),
        "fc": nir.Affine(np.ones((2, 3), dtype=np.float32), np.zeros(2, dtype=np.float32)),
        "lif": nir.LIF(**{key: np.full(2, value) for key, value in values.items()}),
        "a": nir.Output(np.array([2])),
    }
    return nir.NIRGraph(nodes, [("zz", "fc"), ("fc", "lif"), ("lif", "a")])


@pytest.fixture
def path(tmp_path: Path) -> Path:
    nir.write(str(tmp_path / "foreign.nir"), foreign())
    return tmp_path / "foreign.nir"


def test_a_foreign_file_in_the_order_of_its_edges(path: Path) -> None:
    graph = read(path, reset="zero")
    assert [node.name for node in graph.nodes] == ["zz", "fc", "lif", "a"]
    assert (graph.dt, graph.reset) == (1e-4, "zero")
    assert ["recognised" in note.what for note in graph.notes] == [True]
    assert from_nir(foreign(), reset="zero") == graph
    assert from_nir(nir.read(str(path)), reset="zero") == graph


def test_the_place_of_an_error_names_the_file_and_the_node(path: Path) -> None:
    with pytest.raises(GraphError, match="reset rule") as caught:
        read(path)
    assert caught.value.where == f"{path}, reset"
    with h5py.File(path, "r+") as file:
        file["node/nodes/fc/extra"] = 1
    with pytest.raises(GraphError, match="unknown field 'extra'") as caught:
        read(path)
    assert caught.value.where == f"{path}, node 'fc'"
    assert "2 more" not in caught.value.next_step


def test_unsupported_nodes_keep_their_type(path: Path) -> None:
    with h5py.File(path, "r+") as file:
        file["node/nodes/lif/type"][()] = "ALIF"
    with pytest.raises(UnsupportedNode, match="type that is not read") as caught:
        read(path, reset="zero")
    assert caught.value.got == "ALIF"


def test_what_is_beside_the_graph_is_said(path: Path) -> None:
    with h5py.File(path, "r+") as file:
        file["extra"] = 1
        file["node/nodes/fc"].attrs["author"] = "x"
        file["node/metadata/tool"] = "some tool"
    graph = read(path, reset="zero")
    said = [note.what for note in graph.notes]
    assert "not interpreted and not kept: 'extra' beside the graph" in said
    assert "not interpreted and not kept: 1 HDF5 attributes at /node/nodes/fc" in said
    assert "metadata not interpreted, but kept: tool" in said
    assert graph.metadata == {"tool": "some tool"}


def test_a_time_step_longer_than_a_time_constant_is_refused_at_its_node(path: Path) -> None:
    with pytest.raises(GraphError, match="longer than the time constant") as caught:
        read(path, dt=1.0, reset="zero")
    assert "node 'lif'" in caught.value.where


def test_the_given_time_step_wins_over_the_recognised_one(path: Path) -> None:
    assert read(path, dt=5e-4, reset="zero").dt == 5e-4


@pytest.mark.parametrize("dt", [0.0, -1e-4, float("nan")])
def test_a_time_step_that_is_none_is_refused(path: Path, dt: float) -> None:
    with pytest.raises(GraphError, match="not a positive number of seconds"):
        read(path, dt=dt, reset="zero", trusted=True)


def test_metadata_of_a_newer_version_is_refused(path: Path) -> None:
    with h5py.File(path, "r+") as file:
        file["node/metadata/neurokd/schema"] = 2
    with pytest.raises(GraphError, match="another schema"):
        read(path, reset="zero", trusted=True)


def test_files_that_are_not_networks(tmp_path: Path) -> None:
    nir.write_data(str(tmp_path / "data.nir"), nir.NIRGraphData({}))
    with pytest.raises(GraphError, match="holds no NIR graph") as caught:
        read(tmp_path / "data.nir")
    assert "write_data" in caught.value.next_step
    with pytest.raises(FileError, match="cannot read"):
        read(tmp_path / "none.nir")


def test_a_file_with_one_node_is_a_graph_of_one(tmp_path: Path) -> None:
    nir.write(str(tmp_path / "one.nir"), foreign().nodes["lif"])
    assert [node.name for node in read(tmp_path / "one.nir", reset="zero").nodes] == ["input_lif", "lif", "output_lif"]


def test_old_files_without_v_reset(path: Path) -> None:
    with h5py.File(path, "r+") as file:
        del file["node/nodes/lif/v_reset"]
    lif = read(path, reset="zero").node("lif")
    assert isinstance(lif, LIF)
    assert lif.v_reset.tolist() == [0, 0]


def test_nir_objects_are_left_as_they_are_and_open_shapes_are_inferred() -> None:
    conv = nir.Conv2d(None, np.ones((2, 1, 3, 5)), (1, 1), "same", (1, 1), 1, np.ones(2))
    nodes = {"in": nir.Input(np.array([1, 6, 8])), "c": conv, "f": nir.Flatten(None, 0, -1)}
    nodes["out"] = nir.Output(np.array([96]))
    given = nir.NIRGraph(nodes, [("in", "c"), ("c", "f"), ("f", "out")], type_check=False)
    node = from_nir(given).node("c")
    assert isinstance(node, Conv2d)
    assert (node.input_shape, node.padding) == ((6, 8), (1, 2))
    assert conv.input_shape is None


def test_what_is_no_nir_object_is_refused() -> None:
    with pytest.raises(GraphError, match="not a NIR graph"):
        from_nir(42)
    given = foreign()
    given.nodes["x"] = "y"
    with pytest.raises(GraphError, match="not a NIR graph"):
        from_nir(given)
    given.nodes["x"] = given
    with pytest.raises(GraphError, match="nested too deep"):
        from_nir(given)


def test_a_limit_on_the_size(path: Path) -> None:
    with pytest.raises(GraphError, match="more data than is taken"):
        read(path, max_bytes=64)
    with pytest.raises(GraphError, match="more data than is taken"):
        read(path, max_bytes=64, trusted=True)


def test_an_analysis_finds_everything_at_once(path: Path) -> None:
    with h5py.File(path, "r+") as file:
        del file["node/nodes/fc/bias"]
        file["node/nodes/lif/tau"][0] = -1
    found = analyse_file(path, trusted=True)
    assert found.graph is None
    assert [problem.node for problem in found.problems] == ["fc", "lif"]


PAPER = os.environ.get("NIR_PAPER_FILES", "")


@pytest.mark.skipif(not PAPER, reason="NIR_PAPER_FILES does not name a folder with the .nir files of the NIR paper")
@pytest.mark.parametrize(
    ("name", "nodes", "recurrent"),
    [
        ("lif_norse.nir", 4, set()),
        ("lif_rockpool.nir", 4, set()),
        ("cnn_sinabs.nir", 15, set()),
        ("braille_noDelay_bias_zero.nir", 7, {("lif1.w_rec", "lif1.lif")}),
        ("braille_noDelay_noBias_subtract.nir", 7, {("lif1.w_rec", "lif1.lif")}),
    ],
)
def test_the_files_of_the_nir_paper(name: str, nodes: int, recurrent: set[tuple[str, str]]) -> None:
    found = next(Path(PAPER).rglob(f"*{name}"))
    dt = 1e-4 if name.startswith("lif") else None
    graph: Graph = read(found, dt=dt, reset="zero")
    assert len(graph.nodes) == nodes
    assert graph.recurrent == recurrent
