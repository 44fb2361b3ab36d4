"""The float interpreter: what a NIR file says, against small cases worked out by hand, and its refusals."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from deploy import float_model as model
from deploy import graph as nir
from deploy.errors import ConfigError, GraphError, SimulatorError, SpikesError
from deploy.float_model import run

DT = 1e-3


def counter(size: int = 2, **changes: Any) -> nir.IF:
    return nir.IF("count", np.full(size, 1 / DT), np.full(size, 1.5), **changes)


def graph(*nodes: nir.Node, edges: tuple[tuple[str, str], ...] = (), reset: Any = "zero") -> nir.Graph:
    names = [node.name for node in nodes]
    return nir.Graph(nodes, (*zip(names[:-1], names[1:], strict=True), *edges), DT, reset)


def simple() -> nir.Graph:
    return graph(nir.Input("in", (2,)), counter(), nir.Output("out", (2,)))


def test_spikes_membranes_and_answers() -> None:
    x = np.array([[[1, 0]], [[1, 1]], [[0, 1]]], dtype=np.uint8)
    trace = run(simple(), x)
    assert trace.outputs["count"][:, 0].tolist() == [[0, 0], [1, 0], [0, 1]]
    assert trace.charged["count"][:, 0].tolist() == [[1, 0], [2, 1], [0, 2]]
    assert trace.v["count"][:, 0].tolist() == [[1, 0], [0, 1], [0, 0]]
    assert (trace.steps, trace.samples, trace.output, trace.spiking) == (3, 1, "count", ("count",))
    assert trace.predictions().tolist() == [0], "a tie goes to the lowest index"
    assert trace.accuracy(np.array([0])) == 100.0


def test_constant_input_and_a_readout() -> None:
    readout = graph(nir.Input("in", (2,)), nir.I("sum", np.full(2, 1 / DT)), nir.Output("out", (2,)), reset=None)
    trace = run(readout, np.array([[1, 2]]), steps=4)
    assert trace.outputs["sum"][:, 0, 1].tolist() == [2, 4, 6, 8]
    assert trace.predictions().tolist() == [1], "the last membrane answers"
    assert trace.spiking == ()


def test_two_inputs_by_name_and_from_a_file(tmp_path: Path) -> None:
    nodes = (nir.Input("a", (2,)), nir.Input("b", (2,)), counter(), nir.Output("out", (2,)))
    both = nir.Graph(nodes, (("a", "count"), ("b", "count"), ("count", "out")), DT, "zero")
    nir.write(both, tmp_path / "both.nir")
    ones = np.ones((1, 1, 2))
    assert run(tmp_path / "both.nir", {"a": ones, "b": ones}).outputs["count"].tolist() == [[[1, 1]]]
    with pytest.raises(SpikesError, match="each Input needs its spikes"):
        run(both, ones)
    with pytest.raises(SpikesError, match="differ in steps or samples"):
        run(both, {"a": ones, "b": np.ones((2, 1, 2))})


def test_a_delay_hands_on_zeros_first_and_each_element_in_its_time() -> None:
    late = graph(nir.Input("in", (3,)), nir.Delay("d", DT * np.array([0, 1, 3])), nir.Output("out", (3,)), reset=None)
    x = np.arange(1, 6).reshape(5, 1, 1) * np.ones((5, 1, 3))
    assert run(late, x).outputs["d"][:, 0].T.tolist() == [[1, 2, 3, 4, 5], [0, 1, 2, 3, 4], [0, 0, 0, 1, 2]]


def test_a_loop_takes_one_step_and_its_bias_acts_first_or_second() -> None:
    back = nir.Affine("back", np.array([[0.0, 1.0], [1.0, 0.0]]), np.array([2.0, 0.0]))
    nodes = (nir.Input("in", (2,)), counter(), nir.Output("out", (2,)), back)
    loop = nir.Graph(nodes, (("in", "count"), ("count", "out"), ("count", "back"), ("back", "count")), DT, "zero")
    zeros = np.zeros((3, 1, 2))
    assert run(loop, zeros).charged["count"][:, 0].tolist() == [[2, 0], [2, 1], [2, 2]]
    assert run(loop, zeros, how="norse").charged["count"][:, 0].tolist() == [[0, 0], [2, 0], [2, 1]]


def test_refusals(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(SpikesError, match="do not fit the graph's input"):
        run(simple(), np.ones((3, 1, 5)))
    with pytest.raises(SpikesError, match="do not fit the graph's input"):
        run(simple(), np.full((3, 1, 2), "x"))
    with pytest.raises(SpikesError, match="number of time steps is not known"):
        run(simple(), np.ones((1, 2)))
    with pytest.raises(ConfigError, match="no such way"):
        run(simple(), np.ones((3, 1, 2)), how="brian")
    with pytest.raises(SimulatorError, match="labels do not match"):
        run(simple(), np.ones((3, 1, 2))).accuracy(np.array([0, 1]))
    scales = (nir.Scale("a", np.full(2, 0.5)), nir.Scale("b", np.full(2, 0.5)))
    ring = graph(nir.Input("in", (2,)), *scales, nir.Output("out", (2,)), edges=(("b", "a"),), reset=None)
    with pytest.raises(GraphError, match="never settles"):
        run(ring, np.ones((3, 1, 2)))
    half = graph(nir.Input("in", (2,)), nir.Delay("d", np.full(2, 0.5 * DT)), nir.Output("out", (2,)), reset=None)
    with pytest.raises(GraphError, match="no whole number of time steps"):
        run(half, np.ones((3, 1, 2)))
    monkeypatch.setattr(model, "MAX_ELEMENTS", 10)
    with pytest.raises(SimulatorError, match="too large"):
        run(simple(), np.ones((3, 1, 2)))
