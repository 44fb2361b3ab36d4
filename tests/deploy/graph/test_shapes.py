"""Shapes are worked out here, and everything that does not fit is said at its node."""

from __future__ import annotations

import numpy as np
import pytest

from deploy.errors import GraphError
from deploy.graph import (
    IF,
    LIF,
    Affine,
    AvgPool2d,
    Conv1d,
    Conv2d,
    CubaLI,
    Delay,
    Flatten,
    Graph,
    Input,
    Node,
    Output,
    Scale,
    SumPool2d,
)
from deploy.graph import shapes as module
from deploy.graph.shapes import infer


def chain(*nodes: Node, shape: tuple[int, ...], out: tuple[int, ...] | None = None) -> Graph:
    """Input -> nodes -> Output."""
    every = (Input("in", shape), *nodes, Output("out", out or (1,)))
    names = [node.name for node in every]
    return Graph(every, tuple(zip(names[:-1], names[1:], strict=True)), 1e-4, "zero")


@pytest.mark.parametrize(
    ("node", "shape", "out"),
    [
        (Affine("n", np.ones((3, 4))), (4,), (3,)),
        (Conv2d("n", np.ones((4, 2, 3, 5))), (2, 10, 10), (4, 8, 6)),
        (Conv2d("n", np.ones((4, 1, 3, 5)), stride=(2, 3), padding=(1, 0), groups=2), (2, 10, 11), (4, 5, 3)),
        (Conv2d("n", np.ones((4, 2, 3, 3)), dilation=(2, 1)), (2, 10, 10), (4, 6, 8)),
        (Conv1d("n", np.ones((4, 2, 3)), stride=2, padding=1), (2, 10), (4, 5)),
        (SumPool2d("n", (2, 3), (2, 3)), (2, 10, 10), (2, 5, 3)),
        (AvgPool2d("n", (3, 3), (1, 2), (1, 0)), (2, 10, 10), (2, 10, 4)),
        (Flatten("n", 0, -1), (2, 3, 4), (24,)),
        (Flatten("n", 0, -2), (2, 3, 4), (6, 4)),
        (Flatten("n", -2, 2), (2, 3, 4), (2, 12)),
        (Flatten("n", 1, 1), (2, 3, 4), (2, 3, 4)),
        (Scale("n", np.ones((2, 1, 1))), (2, 3, 4), (2, 3, 4)),
        (Delay("n", 0.1), (5,), (5,)),
    ],
)
def test_output_shapes(node: Node, shape: tuple[int, ...], out: tuple[int, ...]) -> None:
    graph = chain(node, shape=shape, out=out)
    assert (graph.input_shape("n"), graph.output_shape("n")) == (shape, out)


def test_what_was_left_open_is_filled_in() -> None:
    graph = chain(
        Conv2d("c", np.ones((2, 1, 3, 5))),
        LIF("l", 1.0, np.arange(1.0, 3.0).reshape(2, 1, 1), 0.0, [1.0]),
        Flatten("f", 0),
        shape=(1, 6, 8),
        out=(32,),
    )
    conv, lif, flat = graph.node("c"), graph.node("l"), graph.node("f")
    assert isinstance(conv, Conv2d)
    assert isinstance(lif, LIF)
    assert isinstance(flat, Flatten)
    assert conv.input_shape == (6, 8)
    assert lif.tau.shape == lif.v_reset.shape == (2, 4, 4)
    assert (lif.r[1] == 2).all()
    assert flat.input_shape == (2, 4, 4)
    line = chain(Conv1d("c", np.ones((2, 1, 3))), Flatten("f", 0), shape=(1, 6), out=(8,)).node("c")
    assert isinstance(line, Conv1d)
    assert line.input_shape == 6


BAD: list[tuple[str, Node, tuple[int, ...], str]] = [
    ("matrix", Affine("n", np.ones((3, 4))), (5,), "weight matrix does not fit the input"),
    ("no flatten", Affine("n", np.ones((3, 4))), (2, 2), "a Flatten before it is missing"),
    ("channels", Conv2d("n", np.ones((4, 2, 3, 3))), (3, 9, 9), "convolution does not fit"),
    ("axes", Conv2d("n", np.ones((4, 2, 3, 3))), (2, 9), "convolution does not fit"),
    ("input_shape", Conv2d("n", np.ones((4, 2, 3, 3)), input_shape=(8, 9)), (2, 9, 9), "input_shape is not"),
    ("input_shape 1d", Conv1d("n", np.ones((4, 2, 3)), input_shape=8), (2, 9), "input_shape is not"),
    ("axes 1d", Conv1d("n", np.ones((4, 2, 3))), (9,), "convolution does not fit"),
    ("kernel", Conv2d("n", np.ones((4, 2, 3, 3))), (2, 2, 9), "kernel is larger"),
    ("pool axes", SumPool2d("n", 2, 2), (9,), "channels, height and width"),
    ("pool kernel", AvgPool2d("n", 5, 1), (1, 4, 9), "kernel is larger"),
    ("flatten range", Flatten("n", 1, 3), (2, 3), "axes to flatten"),
    ("flatten order", Flatten("n", 1, 0), (2, 3), "axes to flatten"),
    ("flatten type", Flatten("n", 0, 1, (2, 4)), (2, 3), "input_type is not"),
    ("parameters", LIF("n", np.ones(4), 1, 0, 1), (5,), "'tau' does not fit"),
    ("channel parameters", LIF("n", np.ones(2), 1, 0, 1), (2, 3, 3), "'tau' does not fit"),
    ("size", Conv2d("n", np.ones((1, 1, 1, 1)), padding=(4096, 4096)), (1, 1, 1), "larger than any chip"),
]


@pytest.mark.parametrize(("node", "shape", "message"), [case[1:] for case in BAD], ids=[case[0] for case in BAD])
def test_what_does_not_fit_is_refused_at_its_node(node: Node, shape: tuple[int, ...], message: str) -> None:
    with pytest.raises(GraphError, match=message) as caught:
        chain(node, shape=shape)
    assert caught.value.where.startswith("node 'n'")


def test_a_declared_output_shape_must_be_what_arrives() -> None:
    with pytest.raises(GraphError, match="declared shape is not what arrives") as caught:
        chain(IF("l", 1.0, 1.0), shape=(5,), out=(6,))
    assert caught.value.where == "node 'out'"


def test_inputs_of_different_shapes_cannot_be_added() -> None:
    nodes = (Input("a", (2,)), Input("b", (3,)), IF("l", 1.0, 1.0), Output("out", (2,)))
    with pytest.raises(GraphError, match="different shapes, so they cannot be added"):
        Graph(nodes, (("a", "l"), ("b", "l"), ("l", "out")))


def test_a_recurrent_edge_must_fit_too() -> None:
    nodes = (Input("in", (2,)), IF("l", 1.0, 1.0), Affine("w", np.ones((3, 2))), Output("out", (2,)))
    with pytest.raises(GraphError, match="recurrent edge brings another shape"):
        Graph(nodes, (("in", "l"), ("l", "w"), ("w", "l"), ("l", "out")))


def test_a_node_nobody_feeds_needs_a_shape_of_its_own() -> None:
    nodes = (Input("in", (2,)), SumPool2d("p", 2, 2), Output("out", (2,)), Output("o2", (2, 2, 2)))
    with pytest.raises(GraphError, match="input is not known"):
        Graph(nodes, (("in", "out"), ("p", "o2")))


def test_one_fault_hides_no_other() -> None:
    order = (Input("in", (2,)), Affine("a", np.ones((3, 4))), CubaLI("l", 1, 1, 1, np.zeros(5)), Output("out", (5,)))
    edges = (("in", "a"), ("a", "l"), ("l", "out"))
    assert [problem.node for problem in infer(order, edges, frozenset())[1]] == ["a", "l"]


def test_all_activations_together_are_limited(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "MAX_TOTAL", 11)
    with pytest.raises(GraphError, match="network is larger than any chip"):
        chain(Delay("a", 0.0), Delay("b", 0.0), shape=(3,), out=(3,))
