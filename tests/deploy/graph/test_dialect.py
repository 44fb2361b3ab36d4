"""Graphs rewritten for a tool: the tool's reading of the new one is NIR's reading of the old one."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from deploy import graph as nir
from deploy.errors import ConfigError, UnsupportedNode
from deploy.float_model import run

DT = 1e-3


def graph(*nodes: nir.Node, edges: tuple[tuple[str, str], ...] = (), reset: Any = "zero") -> nir.Graph:
    names = [node.name for node in nodes[: len(nodes) - len(edges) // 2]]
    return nir.Graph(nodes, (*zip(names[:-1], names[1:], strict=True), *edges), DT, reset)


def draws(*shape: int) -> Any:
    return np.random.default_rng(2).normal(0.2, 0.6, shape)


def lif(shape: tuple[int, ...], **changes: Any) -> nir.LIF:
    fields = {"tau": 8 * DT, "r": np.full(shape, 6.0), "v_leak": np.zeros(shape), "v_threshold": np.ones(shape)}
    return nir.LIF("cell", **{**fields, **changes})


def recurrent() -> nir.Graph:
    back = nir.Affine("back", draws(5, 5), draws(5))
    nodes = (nir.Input("in", (6,)), nir.Affine("w", draws(5, 6), draws(5)), lif((5,), r=np.linspace(2, 9, 5)))
    return graph(*nodes, nir.Output("out", (5,)), back, edges=(("cell", "back"), ("back", "cell")))


def image() -> nir.Graph:
    conv = nir.Conv2d("w", draws(3, 2, 3, 3), draws(3), padding=(1, 1))
    count = nir.IF("cell", np.full((3, 5, 5), 0.7 / DT), np.ones((3, 5, 5)))
    flat = nir.Flatten("flat", 0, -1)
    return graph(nir.Input("in", (2, 5, 5)), conv, count, flat, nir.Affine("w2", draws(4, 75)), nir.Output("out", (4,)))


@pytest.mark.parametrize("make", [recurrent, image])
def test_norse_reads_the_rewritten_graph_as_nir_reads_the_first(make: Any) -> None:
    first = make()
    second = nir.for_tool(first, "norse")
    x = (np.random.default_rng(3).random((12, 4, *first.inputs[0].shape)) < 0.5).astype(float)
    ours, theirs = run(first, x), run(second, x, how="norse")
    if make is recurrent:  # norse feeds nothing back at the first step
        theirs = run(second, x, how=nir_norse())
    assert np.array_equal(ours.outputs["cell"], theirs.outputs["cell"])
    assert ours.outputs["cell"].any()
    assert not np.array_equal(run(first, x, how="norse").outputs["cell"], ours.outputs["cell"])


def nir_norse() -> Any:
    from dataclasses import replace

    from deploy.reading import READINGS

    return replace(READINGS["norse"], loops="first step")


@pytest.mark.parametrize("tool", ["norse", "snntorch"])
def test_flattens_are_counted_from_the_end(tool: str) -> None:
    node = nir.for_tool(image(), tool).node("flat")
    assert isinstance(node, nir.Flatten)
    assert (node.start_dim, node.end_dim) == (-3, -1)


REFUSED: dict[str, tuple[Any, str, str]] = {
    "a node": (lambda: graph(nir.Input("in", (2,)), nir.Scale("s", np.ones(2)), nir.Output("out", (2,)), reset=None),
               "norse", "leaves this node out"),
    "v_reset": (lambda: one(lif((5,), v_reset=np.full(5, -0.5)), "value"), "norse", "does not read v_reset"),
    "subtraction": (lambda: one(lif((5,)), "subtract"), "norse", "resets LIF and IF to zero"),
    "v_leak": (lambda: one(lif((5,), v_leak=np.ones(5)), "zero"), "norse", "starts membranes at v_leak"),
    "late": (lambda: one(lif((5,)), "late-zero"), "snntorch", "importer resets to zero"),
    "v_leak of a current": (lambda: one(cuba(), "zero"), "norse", "uses v_leak twice"),
    "no weights": (lambda: graph(nir.Input("in", (5,)), lif((5,)), nir.Output("out", (5,))), "norse", "no weights"),
    "a gain within a channel": (lambda: gains(), "norse", "differs within a channel"),
}  # fmt: skip


def one(cell: nir.Neuron, reset: str) -> nir.Graph:
    return graph(nir.Input("in", (6,)), nir.Affine("w", draws(5, 6)), cell, nir.Output("out", (5,)), reset=reset)


def cuba() -> nir.CubaLIF:
    ones = np.ones(5)
    return nir.CubaLIF("cell", 2 * DT * ones, 4 * DT * ones, 4 * ones, 0.1 * ones, ones, w_in=2 * ones)


def gains() -> nir.Graph:
    cell = lif((3, 2, 2), r=np.arange(1.0, 13.0).reshape(3, 2, 2))
    conv = nir.Conv2d("w", draws(3, 1, 1, 1))
    return graph(nir.Input("in", (1, 2, 2)), conv, cell, nir.Output("out", (3, 2, 2)))


@pytest.mark.parametrize("case", REFUSED)
def test_what_a_tool_cannot_run_alike_is_refused(case: str) -> None:
    make, tool, message = REFUSED[case]
    with pytest.raises(UnsupportedNode, match=message):
        nir.for_tool(make(), tool)


def test_other_tools_have_no_rewriting() -> None:
    with pytest.raises(ConfigError, match="no rewriting for this tool"):
        nir.for_tool(recurrent(), "brian")
