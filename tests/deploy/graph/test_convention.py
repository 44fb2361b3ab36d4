"""Time step and reset rule: stated, given, recognised and said, or asked for."""

from __future__ import annotations

import re

import numpy as np
import pytest

from deploy.errors import GraphError
from deploy.graph import IF, LI, LIF, Affine, Conv2d, CubaLIF, Delay, I, Input, Node, Output
from deploy.graph.convention import mend_outputs, narrow_inputs, settle_dt, settle_reset, stretch_outputs


def lif_by_snntorch(beta: float) -> LIF:
    """As snntorch 1.0.0 computes it, in float32."""
    dt, b = np.float32(1e-4), np.float32(beta)
    tau = dt / (1 - b)
    return LIF("lif", tau, tau / dt, 0.0, 1.0)


def cuba_by_snntorch(alpha: float, beta: float) -> CubaLIF:
    """As snntorch 1.0.0 computes it, in float32."""
    dt = np.float32(1e-4)
    syn, mem = dt / (1 - np.float32(alpha)), dt / (1 - np.float32(beta))
    return CubaLIF("cuba", syn, mem, mem / dt, 0.0, 1.0, w_in=syn / dt)


def cuba_by_lava(current: int, voltage: int) -> CubaLIF:
    """As ``lava_to_nir.py`` of the NIR repository computes it from the integer decays of a netx file."""
    syn, mem = 1e-4 / (current / 4096), 1e-4 / (voltage / 4096)
    return CubaLIF("cuba", syn, mem, mem / 1e-4, 0.0, 384 / 64, w_in=syn / 1e-4)


def test_what_is_stated_or_given_is_taken() -> None:
    lif = [lif_by_snntorch(0.9)]
    assert settle_dt(lif, 1e-3, None) == (1e-3, ())
    assert settle_dt(lif, None, 1e-3) == (1e-3, ())
    assert settle_dt(lif, 1e-3, 1e-3) == (1e-3, ())


def test_two_different_time_steps_are_refused() -> None:
    with pytest.raises(GraphError, match="time step given is not the one the file states"):
        settle_dt([], 1e-3, 1e-4)


def test_without_neurons_there_is_no_time_step() -> None:
    assert settle_dt([Affine("a", np.ones((2, 2)))], None, None) == (None, ())


@pytest.mark.parametrize(
    "nodes",
    [
        [lif_by_snntorch(0.9), cuba_by_snntorch(0.8, 0.95), lif_by_snntorch(0.0)],
        [IF("if", 1 / 1e-4, 1.0)],
        [cuba_by_lava(4095, 414), cuba_by_lava(1024, 1)],
        [IF("if", np.float32(10000), 1.0), LIF("l", 2e-4, 2.0, 0.0, 1.0), LI("li", 3e-4, 3.0, 0.0), I("i", 1e4)],
    ],
    ids=["snntorch", "spikingjelly IF", "lava-dl by script", "spikingjelly mixed"],
)
def test_the_common_time_step_is_recognised_and_said(nodes: list[Node]) -> None:
    dt, notes = settle_dt(nodes, None, None)
    assert dt == 1e-4
    assert "recognised" in notes[0].what
    assert notes[0].severity == "note"


def test_a_unit_time_step_is_recognised_where_nothing_has_a_time() -> None:
    dt, notes = settle_dt([IF("if", np.ones(4), 1.0)], None, None)
    assert dt == 1.0
    assert "sinabs" in notes[0].what


@pytest.mark.parametrize(
    ("nodes", "message"),
    [
        ([LIF("l", 0.0025, 1.0, 0.0, 0.1)], "no known convention fits$"),
        ([LIF("l", 1e-2, 10.0, 0.0, 0.1)], "would be 1 at dt = 0.001 s"),
        ([lif_by_snntorch(0.9), LIF("l", 1e-2, 10.0, 0.0, 0.1)], "no known convention fits$"),
        ([IF("if", 1.0, 1.0), Delay("d", 0.5)], "no known convention fits"),
        ([Delay("d", 0.5)], "no known convention fits$"),
        ([IF("if", [1.0, 2.0], 1.0)], "no known convention fits$"),
        ([IF("if", 0.0, 1.0)], "no known convention fits$"),
        ([CubaLIF("c", 1e-3, 1e-3, 10.0, 0.0, 1.0)], "no known convention fits$"),
    ],
)
def test_otherwise_the_time_step_is_asked_for(nodes: list[Node], message: str) -> None:
    with pytest.raises(GraphError) as caught:
        settle_dt(nodes, None, None)
    assert re.search(message, caught.value.what)
    assert "--dt" in caught.value.next_step


SPIKING = [LIF("l", 1.0, 1.0, 0.0, 1.0)]
MOVED = [LIF("l", 1.0, 1.0, 0.0, 1.0, -0.5)]


def test_a_stated_or_given_reset_rule_is_taken() -> None:
    assert settle_reset(SPIKING, "zero", None) == ("zero", ())
    assert settle_reset(SPIKING, None, "subtract") == ("subtract", ())
    assert settle_reset(SPIKING, "value", "value") == ("value", ())
    assert settle_reset(MOVED, "value", None) == ("value", ())
    assert settle_reset([Affine("a", np.ones((2, 2)))], "zero", None) == (None, ())


def test_a_reset_value_other_than_zero_is_recognised_and_said() -> None:
    rule, notes = settle_reset(MOVED, None, None)
    assert rule == "value"
    assert notes[0].node == "l"


def test_zero_reset_is_asked_for_since_exporters_drop_the_rule() -> None:
    with pytest.raises(GraphError, match="does not say its reset rule") as caught:
        settle_reset(SPIKING, None, None)
    assert "--reset zero" in caught.value.next_step
    assert "--reset subtract" in caught.value.next_step


@pytest.mark.parametrize(
    ("stated", "given", "message"),
    [
        ("hard", None, "reset rule is not known"),
        (None, "soft", "reset rule is not known"),
        ("zero", "subtract", "reset rule given is not the one the file states"),
    ],
)
def test_reset_rules_that_contradict_or_are_unknown(stated: str | None, given: str | None, message: str) -> None:
    with pytest.raises(GraphError, match=message):
        settle_reset(SPIKING, stated, given)


@pytest.mark.parametrize("rule", ["zero", "subtract"])
def test_a_rule_that_contradicts_v_reset_is_refused(rule: str) -> None:
    with pytest.raises(GraphError, match="contradicts v_reset"):
        settle_reset(MOVED, None, rule)


def test_leading_axes_of_one_in_an_output_are_left_out() -> None:
    nodes: list[Node] = [Input("in", (3,)), Output("a", (1, 1, 3)), Output("b", (2, 3)), Output("c", (1, 4))]
    made, notes = stretch_outputs(nodes, {"a": (3,), "b": (3,), "c": (3,)})
    assert [node.shape for node in made if isinstance(node, Output)] == [(3,), (2, 3), (1, 4)]
    assert [note.node for note in notes] == ["a"]


def by_rockpool(tau: float, dt: float = 1e-3) -> LIF:
    """As rockpool 3.1.0 computes it, in float32."""
    t, d = np.float32(tau), np.float32(dt)
    return LIF("lif", t, t * np.exp(-d / t) / d, 0.0, 1.0)


def test_rockpools_gain_is_a_hint_and_never_taken() -> None:
    with pytest.raises(GraphError, match=r"rockpool's tau \* exp\(-dt / tau\) / dt at dt = 0.001 s"):
        settle_dt([by_rockpool(0.02), by_rockpool(0.005)], None, None)
    with pytest.raises(GraphError) as other:
        settle_dt([by_rockpool(0.02), by_rockpool(0.005, 2e-3)], None, None)
    assert "rockpool" not in str(other.value)
    negative = LIF("lif", 0.02, -1.0, 0.0, 1.0)
    with pytest.raises(GraphError) as other:
        settle_dt([negative], None, None)
    assert "rockpool" not in str(other.value)


def test_a_reset_one_step_late_is_a_rule_of_its_own() -> None:
    assert settle_reset([lif_by_snntorch(0.9)], "late-subtract", None) == ("late-subtract", ())
    assert settle_reset([lif_by_snntorch(0.9)], None, "late-zero") == ("late-zero", ())


def test_inputs_lose_a_batch_axis_only_before_weight_matrices_that_fit() -> None:
    nodes = [Input("a", (1, 6)), Input("b", (2, 6)), Input("c", (1, 5)), Input("d", (6,)), Affine("w", np.ones((3, 6)))]
    edges = [(name, "w") for name in "abcd"]
    made, notes = narrow_inputs(nodes, edges)
    assert [node.shape for node in made if isinstance(node, Input)] == [(6,), (2, 6), (1, 5), (6,)]
    assert [note.node for note in notes] == ["a"]
    assert narrow_inputs(nodes[:1], []) == (nodes[:1], []), "an Input that nothing reads stays"


def test_a_width_that_nir_infers_wrongly_is_mended_and_said() -> None:
    conv = Conv2d("conv", np.ones((6, 4, 3, 2)), stride=(2, 1), padding=(1, 0), dilation=(1, 2))
    nodes = [conv, Output("wrong", (6, 5, 4)), Output("other", (6, 5, 3)), Output("right", (6, 5, 6))]
    edges = [("conv", node.name) for node in nodes[1:]]
    made, notes = mend_outputs(nodes, edges, {node.name: (6, 5, 6) for node in nodes[1:]})
    assert [node.shape for node in made if isinstance(node, Output)] == [(6, 5, 6), (6, 5, 3), (6, 5, 6)]
    assert [(note.node, note.severity) for note in notes] == [("wrong", "warning")]
