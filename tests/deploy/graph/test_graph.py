"""The Graph sorts its nodes, refuses bad wiring and answers by name."""

from __future__ import annotations

import dataclasses
import itertools

import numpy as np
import pytest

from deploy.errors import GraphError
from deploy.graph import (
    IF,
    LIF,
    Affine,
    Finding,
    Graph,
    Input,
    NeuronGrid,
    Node,
    Output,
    Quantization,
    RunSettings,
    SynapseGrid,
)

NODES: tuple[Node, ...] = (
    Input("in", (3,)),
    Affine("fc", np.ones((2, 3)), quantization=SynapseGrid(0, 8, "mixed")),
    LIF("lif", 1.0, 1.0, 0.0, 1.0, quantization=NeuronGrid(0.5)),
    Affine("w_rec", np.ones((2, 2))),
    Output("out", (2,)),
)
EDGES = (("in", "fc"), ("fc", "lif"), ("lif", "w_rec"), ("w_rec", "lif"), ("lif", "out"))


def test_order_does_not_depend_on_the_order_given() -> None:
    expected = Graph(NODES, EDGES, 1e-4, "zero")
    assert [node.name for node in expected.nodes] == ["in", "fc", "lif", "out", "w_rec"]
    for nodes in itertools.permutations(NODES):
        assert Graph(nodes, tuple(reversed(EDGES)), 1e-4, "zero") == expected


def test_answers_by_name() -> None:
    graph = Graph(NODES, EDGES, 1e-4, "zero")
    assert graph.node("fc") is graph.nodes[1]
    assert graph.sources("lif") == ("fc", "w_rec")
    assert graph.targets("lif") == ("out", "w_rec")
    assert (graph.sources("in"), graph.targets("out")) == ((), ())
    assert graph.recurrent == {("w_rec", "lif")}
    assert [node.name for node in (*graph.inputs, *graph.outputs)] == ["in", "out"]
    assert graph.quantization == Quantization({"lif": NeuronGrid(0.5)}, {"fc": SynapseGrid(0, 8, "mixed")})
    with pytest.raises(GraphError, match="no node of that name") as caught:
        graph.node("fc2")
    assert caught.value.allowed == "in, fc, lif, out, w_rec"


def test_a_float_graph_has_no_quantization() -> None:
    assert Graph((Input("in", (2,)), Output("out", (2,))), (("in", "out"),)).quantization is None


def test_equality_looks_at_everything_but_notes() -> None:
    graph = Graph(NODES, EDGES, 1e-4, "zero")
    assert graph == dataclasses.replace(graph, notes=(Finding("note", "", "x"),))
    assert hash(graph) == hash(dataclasses.replace(graph, dt=1e-3))
    assert graph != dataclasses.replace(graph, dt=1e-3)
    assert graph != dataclasses.replace(graph, reset="subtract")
    assert graph != dataclasses.replace(graph, settings=RunSettings(steps=3))
    assert graph != dataclasses.replace(graph, metadata={"a": 1})
    assert graph != dataclasses.replace(graph, edges=EDGES[:-1] + (("w_rec", "out"),))


IN, OUT, L = Input("in", (2,)), Output("out", (2,)), IF("l", 1.0, 1.0)

BAD: list[tuple[str, tuple[Node, ...], tuple[tuple[str, str], ...], str]] = [
    ("names", (IN, L, L, OUT), (("in", "l"), ("l", "out")), "two nodes have the same name"),
    ("nowhere", (IN, L, OUT), (("in", "l"), ("l", "out"), ("l", "x")), "names a node that is not there"),
    ("twice", (IN, L, OUT), (("in", "l"), ("in", "l"), ("l", "out")), "more than once"),
    ("no input", (L, OUT), (("l", "out"),), "no Input node"),
    ("no output", (IN, L), (("in", "l"),), "no Output node"),
    ("into input", (IN, L, OUT), (("in", "l"), ("l", "out"), ("l", "in")), "goes into an Input"),
    ("out of output", (IN, L, OUT), (("in", "l"), ("l", "out"), ("out", "l")), "comes out of an Output"),
    ("idle output", (IN, L, OUT), (("in", "l"),), "nothing leads to the Output"),
]


@pytest.mark.parametrize(("nodes", "edges", "message"), [case[1:] for case in BAD], ids=[case[0] for case in BAD])
def test_bad_wiring_is_refused(nodes: tuple[Node, ...], edges: tuple[tuple[str, str], ...], message: str) -> None:
    with pytest.raises(GraphError, match=message):
        Graph(nodes, edges)


@pytest.mark.parametrize("dt", [0.0, -1.0, float("nan"), float("inf")])
def test_a_time_step_is_positive(dt: float) -> None:
    with pytest.raises(GraphError, match="not a positive number of seconds"):
        Graph(NODES, EDGES, dt)


def test_an_unknown_reset_rule_is_refused() -> None:
    with pytest.raises(GraphError, match="reset rule is not known"):
        Graph(NODES, EDGES, 1e-4, "hard")  # type: ignore[arg-type]


def test_the_first_of_several_faults_says_how_many_more_there_are() -> None:
    with pytest.raises(GraphError) as caught:
        Graph((L, OUT), (("l", "out"), ("l", "x"), ("l", "y")))
    assert "2 more, `neurokd-deploy check` shows all" in caught.value.next_step
