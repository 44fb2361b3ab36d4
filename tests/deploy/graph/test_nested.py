"""Fields of nodes and nested graphs, given as plain dictionaries."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from deploy.errors import GraphError, UnsupportedNode
from deploy.graph import nested
from deploy.graph.analysis import analyse
from deploy.graph.problems import Problem

IF: dict[str, Any] = {"type": "IF", "r": np.ones(2), "v_threshold": np.ones(2)}
W: dict[str, Any] = {"type": "Linear", "weight": np.ones((2, 2))}
INPUT: dict[str, Any] = {"type": "Input", "shape": np.array([2])}
OUTPUT: dict[str, Any] = {"type": "Output", "shape": np.array([2])}


def graph(nodes: dict[str, Any], *edges: tuple[str, str], **more: Any) -> dict[str, Any]:
    return {"type": "NIRGraph", "nodes": nodes, "edges": list(edges), **more}


RECURRENT = graph(
    {"input": INPUT, "lif": IF, "w_rec": W, "output": OUTPUT},
    ("input", "lif"),
    ("lif", "w_rec"),
    ("w_rec", "lif"),
    ("lif", "output"),
)


def problems(tree: dict[str, Any]) -> list[Problem]:
    return analyse(tree, reset="zero").problems


def test_a_nested_graph_is_taken_apart() -> None:
    tree = graph({"in": INPUT, "fc": W, "rec": RECURRENT, "out": OUTPUT}, ("in", "fc"), ("fc", "rec"), ("rec", "out"))
    got = analyse(tree, reset="zero").graph
    assert got is not None
    assert got.edges == (
        ("in", "fc"),
        ("fc", "rec.lif"),
        ("rec.lif", "out"),
        ("rec.lif", "rec.w_rec"),
        ("rec.w_rec", "rec.lif"),
    )
    assert got.recurrent == {("rec.w_rec", "rec.lif")}


def test_graphs_within_graphs_and_wires_through_them() -> None:
    wire = graph({"i": INPUT, "o": OUTPUT}, ("i", "o"))
    outer = graph({"i": INPUT, "wire": wire, "o": OUTPUT}, ("i", "wire"), ("wire", "o"))
    got = analyse(graph({"in": INPUT, "a": outer, "b": outer, "l": IF, "out": OUTPUT},
                        ("in", "a"), ("a", "b"), ("b", "l"), ("l", "out")), reset="zero").graph  # fmt: skip
    assert got is not None
    assert got.edges == (("in", "l"), ("l", "out"))


def test_metadata_of_nested_graphs_is_kept() -> None:
    inner = graph(
        {"i": {**INPUT, "metadata": {"note": "x"}}, "l": IF, "o": OUTPUT}, ("i", "l"), ("l", "o"), metadata={"a": 1}
    )
    got = analyse(graph({"in": INPUT, "g": inner, "out": OUTPUT}, ("in", "g"), ("g", "out")), reset="zero")
    assert got.graph is not None
    assert got.graph.metadata == {"nested graphs": {"g": {"a": 1}, "g.i": {"note": "x"}}}
    assert any("kept" in note.what for note in got.notes)


def test_a_single_node_becomes_a_graph() -> None:
    got = analyse(IF, reset="zero")
    assert got.graph is not None
    assert got.graph.edges == (("input_if", "if"), ("if", "output_if"))
    assert [note.severity for note in got.notes if note.node == "if"] == ["warning", "warning"]


def test_missing_ends_get_names_that_are_free() -> None:
    got = analyse(graph({"if": IF, "w": W, "input_if": W, "i": INPUT}, ("if", "w"), ("i", "input_if")), reset="zero")
    assert got.graph is not None
    assert {node.name for node in got.graph.inputs} == {"i", "input_if_"}
    assert {node.name for node in got.graph.outputs} == {"output_w", "output_input_if"}


def test_a_doubled_edge_is_taken_once_and_said() -> None:
    got = analyse(graph({"in": INPUT, "l": IF, "out": OUTPUT}, ("in", "l"), ("in", "l"), ("l", "out")), reset="zero")
    assert got.graph is not None
    assert [note.severity for note in got.notes if "2 times" in note.what] == ["warning"]


CHAIN = (("in", "l"), ("l", "out"))
DEEP = graph({"in": INPUT, "l": IF, "out": OUTPUT}, *CHAIN)
for _ in range(20):
    DEEP = graph({"in": INPUT, "l": DEEP, "out": OUTPUT}, *CHAIN)
TWO_INPUTS = graph({"a": INPUT, "b": INPUT, "l": IF, "o": OUTPUT}, ("a", "l"), ("b", "l"), ("l", "o"))
WIRE = graph({"i": INPUT, "o": OUTPUT}, ("i", "o"))
WIDE = graph({"i": {"type": "Input", "shape": [3]}, "l": IF, "o": OUTPUT}, ("i", "l"), ("l", "o"))

BAD: list[tuple[str, dict[str, Any], str, str]] = [
    ("no type", graph({"in": INPUT, "l": {"r": 1}, "out": OUTPUT}, *CHAIN), "l", "does not say its type"),
    ("not a group", graph({"in": INPUT, "l": 3, "out": OUTPUT}, *CHAIN), "l", "does not say its type"),
    ("type not text", graph({"in": INPUT, "l": {"type": 3}, "out": OUTPUT}, *CHAIN), "l", "field 'type'"),
    ("unknown type", graph({"in": INPUT, "l": {"type": "ALIF"}, "out": OUTPUT}, *CHAIN), "l", "type that is not read"),
    ("missing", graph({"in": INPUT, "l": {"type": "IF"}, "out": OUTPUT}, *CHAIN), "l", "lacks fields 'r', 'v_thr"),
    ("unknown", graph({"in": INPUT, "l": {**IF, "q": 1}, "out": OUTPUT}, *CHAIN), "l", "unknown field 'q'"),
    ("metadata", graph({"in": INPUT, "l": {**IF, "metadata": 3}, "out": OUTPUT}, *CHAIN), "l", "field 'metadata'"),
    ("edges missing", {"type": "NIRGraph", "nodes": {}}, "", "lacks a field"),
    ("graph field", graph({"in": INPUT, "l": IF, "out": OUTPUT}, *CHAIN, extra=1), "", "lacks a field, or has one"),
    ("nodes", {"type": "NIRGraph", "nodes": 3, "edges": []}, "", "not a group"),
    ("edges", {"type": "NIRGraph", "nodes": {"in": INPUT}, "edges": "x"}, "", "not a list"),
    ("edge", {"type": "NIRGraph", "nodes": {"in": INPUT}, "edges": [["a"]]}, "", "not a pair"),
    ("edge numbers", {"type": "NIRGraph", "nodes": {"in": INPUT}, "edges": [[1, 2]]}, "", "field 'edges'"),
    ("nowhere", graph({"in": INPUT, "l": IF, "out": OUTPUT}, *CHAIN, ("l", "x")), "x", "not there"),
    ("deep", DEEP, "l" + ".l" * 16, "nested too deep"),
    ("two inputs", graph({"in": INPUT, "l": TWO_INPUTS, "out": OUTPUT}, *CHAIN), "l", "needs one end"),
    ("wire loop", graph({"in": INPUT, "l": WIRE, "out": OUTPUT}, *CHAIN, ("l", "l")), "l.o", "without any node"),
    (
        "two ways",
        graph({"in": INPUT, "w": WIRE, "l": IF, "out": OUTPUT}, ("in", "w"), ("w", "l"), *CHAIN),
        "w.o",
        "two ways",
    ),
    ("inner shape", graph({"in": INPUT, "l": WIDE, "out": OUTPUT}, *CHAIN), "l.i", "not what arrives"),
    (
        "same name",
        graph({"in": INPUT, "a.l": IF, "a": DEEP, "out": OUTPUT}, ("in", "a.l"), ("a.l", "out")),
        "a.l",
        "same name once flat",
    ),
]
BAD[-1][1]["nodes"]["a"] = graph({"l": IF}, ("l", "l"))


@pytest.mark.parametrize(("tree", "node", "message"), [case[1:] for case in BAD], ids=[case[0] for case in BAD])
def test_what_cannot_be_read_is_said_at_its_node(tree: dict[str, Any], node: str, message: str) -> None:
    found = problems(tree)
    assert node in [problem.node for problem in found]
    assert any(message in problem.error.what for problem in found if problem.node == node)


def test_unknown_types_are_unsupported_and_the_rest_is_still_checked() -> None:
    found = problems(graph({"in": INPUT, "l": {"type": "ALIF"}, "w": {**W, "bias": 1}, "out": OUTPUT}, ("in", "l")))
    assert [problem.node for problem in found] == ["l", "w"]
    assert isinstance(found[0].error, UnsupportedNode)
    assert "CubaLIF" in found[0].error.allowed


def test_edges_do_not_multiply_without_end(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(nested, "MAX_EDGES", 3)
    inner = graph({"i": INPUT, "a": IF, "b": IF, "o": OUTPUT}, ("i", "a"), ("i", "b"), ("a", "o"), ("b", "o"))
    tree = graph({"x": INPUT, "y": INPUT, "g": inner, "out": OUTPUT}, ("x", "g"), ("y", "g"), ("g", "out"))
    assert any("too many edges" in problem.error.what for problem in problems(tree))


def test_every_problem_is_a_graph_error_with_a_way_out() -> None:
    for _, tree, _, _ in BAD:
        for problem in problems(tree):
            assert isinstance(problem.error, GraphError)
            assert problem.error.got
            assert problem.error.next_step


def test_the_node_that_no_edge_names_is_said_but_not_taken() -> None:
    """As in two published files: edges to ``lif``, the node called ``lif1``."""
    inner = {"input": INPUT, "lif1": IF, "w_rec": W, "output": OUTPUT}
    tree = graph({"rec": {**RECURRENT, "nodes": inner}, "in": INPUT, "out": OUTPUT}, ("in", "rec"), ("rec", "out"))
    found = [p.error for p in problems(tree) if "not there" in p.error.what]
    assert len(found) == 4
    assert all("no edge names 'rec.lif1': if it is meant, rename it to 'lif'" in error.next_step for error in found)


def test_where_several_nodes_are_without_edges_none_is_said() -> None:
    tree = graph({"in": INPUT, "a": IF, "b": IF, "out": OUTPUT}, ("in", "lif"), ("lif", "out"))
    found = [p.error for p in problems(tree) if "not there" in p.error.what]
    assert found
    assert all(error.next_step == "export the network again with the nir package" for error in found)
