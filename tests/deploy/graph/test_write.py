"""Round trips: every node type with non-default values in every field, through memory and through files."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import h5py
import nir
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from deploy import graph as g
from deploy.errors import FileError, GraphError
from deploy.graph import Graph, Input, Node, Output, from_nir, read, to_nir, write
from deploy.graph.parse import READERS

FINITE = st.floats(-1e6, 1e6, allow_subnormal=False)
POSITIVE = st.floats(1e-3, 1e3)
METADATA = st.sampled_from(
    [
        {},
        {"tool": "x", "version": 3, "ratio": 0.1, "flag": True},
        {"a": {"b": {"c": np.arange(4, dtype=np.int8)}}, "list": ["p", "q"]},
        {"neurokd": {"later": 1}},
    ]
)
GRIDS = st.one_of(st.none(), st.builds(g.NeuronGrid, st.floats(1e-9, 1e9)))
SYNAPSE_GRIDS = st.one_of(
    st.none(),
    st.builds(
        g.SynapseGrid, st.integers(-31, 31), st.integers(1, 8), st.sampled_from(["mixed", "excitatory", "inhibitory"])
    ),
)


def floats(*shape: int, of: st.SearchStrategy[float] = FINITE) -> st.SearchStrategy[Any]:
    return arrays(np.float64, shape, elements=of)


def elementwise(make: type[Any], shape: tuple[int, ...], **fixed: Any) -> st.SearchStrategy[Any]:
    times = make.times + (("delay",) if make is g.Delay else ())
    fields = {name: floats(*shape, of=POSITIVE if name in times else FINITE) for name in make.parameters}
    return st.builds(make, st.just("n"), metadata=METADATA, **fields, **fixed)


def neuron(make: type[Any], shape: tuple[int, ...] = (2, 3)) -> st.SearchStrategy[Any]:
    return elementwise(make, shape, quantization=GRIDS)


def synapse(make: type[Any], weights: tuple[int, ...], **fields: Any) -> st.SearchStrategy[Any]:
    bias = st.one_of(st.none(), floats(weights[0]))
    return st.builds(
        make, st.just("n"), floats(*weights), bias, metadata=METADATA, quantization=SYNAPSE_GRIDS, **fields
    )


PAIR = st.tuples(st.integers(1, 3), st.integers(1, 3))
PADDING = st.tuples(st.integers(0, 2), st.integers(0, 2))

CASES: dict[str, tuple[tuple[int, ...], st.SearchStrategy[Node]]] = {
    "Affine": ((3,), synapse(g.Affine, (2, 3))),
    "Conv2d": (
        (4, 9, 8),
        synapse(g.Conv2d, (6, 2, 3, 2), stride=PAIR, padding=PADDING, dilation=PAIR, groups=st.just(2)),
    ),
    "Conv1d": (
        (4, 9),
        synapse(
            g.Conv1d,
            (6, 2, 3),
            stride=st.integers(1, 3),
            padding=st.integers(0, 2),
            dilation=st.integers(1, 3),
            groups=st.just(2),
        ),
    ),
    "SumPool2d": ((2, 9, 8), st.builds(g.SumPool2d, st.just("n"), PAIR, PAIR, PADDING, metadata=METADATA)),
    "AvgPool2d": ((2, 9, 8), st.builds(g.AvgPool2d, st.just("n"), PAIR, PAIR, PADDING, metadata=METADATA)),
    "Flatten": (
        (2, 3, 4),
        st.builds(g.Flatten, st.just("n"), st.sampled_from([0, -3]), st.sampled_from([1, -1]), metadata=METADATA),
    ),
    "LIF": ((2, 3), neuron(g.LIF)),
    "CubaLIF": ((2, 3), neuron(g.CubaLIF)),
    "IF": ((2, 3), neuron(g.IF)),
    "LI": ((2, 3), neuron(g.LI)),
    "I": ((2, 3), neuron(g.I)),
    "CubaLI": ((2, 3), neuron(g.CubaLI)),
    "Scale": ((2, 3), elementwise(g.Scale, (2, 3))),
    "Threshold": ((2, 3), elementwise(g.Threshold, (2, 3))),
    "Delay": ((2, 3), elementwise(g.Delay, (2, 3))),
}
SETTINGS = st.builds(
    g.RunSettings,
    st.one_of(st.none(), st.integers(1, 99)),
    st.sampled_from([None, "direct", "rate", "latency"]),
    st.one_of(st.none(), st.integers(1, 24)),
    st.sampled_from([None, "loihi2", "toy"]),
)


def around(node: Node, shape: tuple[int, ...], **more: Any) -> Graph:
    """Input -> node -> Output with the shape that the node gives."""
    out = g.shapes.output_shape(node, shape)
    nodes = (Input("in", shape, metadata={"first": 1}), node, Output("out", out, metadata={"last": 2}))
    return Graph(nodes, (("in", "n"), ("n", "out")), dt=1e-4, **more)


def reset_of(node: Node) -> Any:
    if not isinstance(node, g.SPIKING):
        return None
    return "value" if node.v_reset.any() else "subtract"  # type: ignore[attr-defined]


@pytest.mark.parametrize("kind", CASES)
@settings(max_examples=12, deadline=None)
@given(data=st.data())
def test_every_field_of_every_node_survives_files_and_memory(
    kind: str, data: st.DataObject, tmp_path_factory: pytest.TempPathFactory
) -> None:
    shape, nodes = CASES[kind]
    node = data.draw(nodes)
    given_ = around(node, shape, reset=reset_of(node), settings=data.draw(SETTINGS), metadata=data.draw(METADATA))
    path = tmp_path_factory.mktemp("w") / "a.nir"
    write(given_, path)
    got = read(path, trusted=True)
    assert got == given_
    assert from_nir(to_nir(given_)) == given_
    assert from_nir(nir.read(str(path), type_check=False)) == given_


def test_the_cases_are_every_node_of_nir() -> None:
    assert set(CASES) | {"Linear", "Input", "Output"} == set(READERS)
    known = {name for name in nir.ir.__all__ if isinstance(getattr(nir, name), type)} - {"NIRNode", "NIRGraph"}
    assert known == set(READERS)


def test_every_field_of_every_nir_class_is_read() -> None:
    for kind, reader in READERS.items():
        fields = {f.name for f in dataclasses.fields(getattr(nir, kind))} - {"metadata"}
        fields -= {"output_type", "input_type"}
        if kind in ("Input", "Output"):
            fields.add("shape")
        if kind == "Flatten":
            fields.add("input_type")
        assert fields == set(reader.required + reader.optional), kind


def network() -> Graph:
    conv = g.Conv2d("conv", np.ones((2, 1, 3, 3)))
    lif = g.LIF("lif", 1e-3, 10.0, 0.0, 1.0)
    nodes = (Input("in", (1, 5, 5)), conv, lif, Output("out", (2, 3, 3)))
    return Graph(nodes, (("in", "conv"), ("conv", "lif"), ("lif", "out")), 1e-4, "zero")


def test_other_tools_read_the_file_with_their_type_check_on(tmp_path: Path) -> None:
    assert write(network(), tmp_path / "a.nir") == ()
    got = nir.read(str(tmp_path / "a.nir"))
    assert got.nodes["lif"].tau.shape == (2, 3, 3)
    assert tuple(got.nodes["conv"].input_shape) == (5, 5)


def test_a_shape_that_nir_gets_wrong_is_said(tmp_path: Path) -> None:
    graph = around(g.Conv2d("n", np.ones((2, 1, 3, 5))), (1, 9, 9))
    (note,) = write(graph, tmp_path / "a.nir")
    assert note.node == "n"
    assert "type_check=False" in note.next_step
    with pytest.raises(ValueError, match="type"):
        nir.read(str(tmp_path / "a.nir"))
    assert read(tmp_path / "a.nir", trusted=True) == graph


def test_a_linear_node_stays_without_bias(tmp_path: Path) -> None:
    write(around(g.Affine("n", np.ones((2, 3))), (3,)), tmp_path / "a.nir")
    with h5py.File(tmp_path / "a.nir") as file:
        assert file["node/nodes/n/type"][()] == b"Linear"
        assert "bias" not in file["node/nodes/n"]


def test_integers_come_back_exactly(tmp_path: Path) -> None:
    scale, weights = 0.1 / 3, np.arange(-128, 128).reshape(2, 128) * 2
    grid = g.SynapseGrid(-3, 8, "mixed")
    node = g.Affine("n", weights * scale * 2.0**grid.weight_exp, quantization=grid)
    write(around(node, (128,)), tmp_path / "a.nir")
    got = read(tmp_path / "a.nir", trusted=True).node("n")
    assert isinstance(got, g.Affine)
    assert np.array_equal(np.rint(got.weight / scale / 2.0**grid.weight_exp), weights)


def test_the_same_graph_makes_the_same_file(tmp_path: Path) -> None:
    write(network(), tmp_path / "a.nir")
    write(network(), tmp_path / "b.nir")
    assert (tmp_path / "a.nir").read_bytes() == (tmp_path / "b.nir").read_bytes()


def test_nothing_is_half_written(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(FileError):
        write(network(), tmp_path / "file" / "a.nir")
    bad = dataclasses.replace(network(), metadata={"x": None})
    with pytest.raises(GraphError):
        write(bad, tmp_path / "a.nir")
    assert [path.name for path in tmp_path.iterdir()] == ["file"]


@pytest.mark.parametrize(
    "metadata", [{"a": None}, {"a": object()}, {"a": np.zeros(0)}, {"a": 1j}, {"a": "x\0y"}, {"a": {"b": b"raw"}}]
)
def test_metadata_that_no_file_holds_is_refused(metadata: dict[str, object]) -> None:
    with pytest.raises(GraphError, match="metadata value that a NIR file cannot hold") as caught:
        to_nir(dataclasses.replace(network(), metadata=metadata))
    assert "metadata 'a'" in caught.value.where


@pytest.mark.parametrize("name", ["", "a/b", ".", "a\n"])
def test_names_that_no_file_holds_are_refused(name: str, tmp_path: Path) -> None:
    graph = Graph((Input(name, (2,)), Output("out", (2,))), ((name, "out"),))
    with pytest.raises(GraphError, match="name that a NIR file cannot hold"):
        write(graph, tmp_path / "a.nir")
    with pytest.raises(GraphError, match="name that a NIR file cannot hold"):
        to_nir(dataclasses.replace(network(), metadata={"a": {name: 1}}))
