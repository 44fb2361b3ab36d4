"""Time constants to one step and back."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from deploy.errors import GraphError
from deploy.graph import IF, LI, LIF, CubaLI, CubaLIF, I, LifParameters, Neuron, discretize, neuron_from_steps

DT = 1e-4


def test_lif_and_li() -> None:
    for node in (LIF("n", [1e-3, 2e-3], [2.0, 10.0], 0.5, 1.0, 0.25), LI("n", [1e-3, 2e-3], [2.0, 10.0], 0.5)):
        got = discretize(node, DT)
        assert np.allclose(got.beta, [0.9, 0.95], rtol=1e-15)
        assert np.allclose(got.gain, [0.2, 0.5], rtol=1e-15)
        assert np.allclose(got.leak_bias, [0.05, 0.025], rtol=1e-15)
        assert got.alpha is None
    assert got.threshold is None
    assert got.v_reset is None


def test_cuba() -> None:
    common = {"tau_syn": [5e-4, 2e-4], "tau_mem": [1e-3, 1e-3], "r": [4.0, 5.0], "v_leak": [0.0, 2.0]}
    for node in (CubaLIF("n", **common, v_threshold=1.0, w_in=[3.0, 2.0]), CubaLI("n", **common, w_in=[3.0, 2.0])):
        got = discretize(node, DT)
        assert got.alpha is not None
        assert np.allclose(got.alpha, [0.8, 0.5], rtol=1e-15)
        assert np.allclose(got.beta, [0.9, 0.9], rtol=1e-15)
        assert np.allclose(got.gain, [3 * 0.2 * 4 * 0.1, 2 * 0.5 * 5 * 0.1], rtol=1e-15)
        assert np.allclose(got.leak_bias, [0.0, 0.2], rtol=1e-15)


def test_if_and_i() -> None:
    for node in (IF("n", [1e4, 2e4], 1.0), I("n", [1e4, 2e4])):
        got = discretize(node, DT)
        assert got.beta.tolist() == [1, 1]
        assert got.gain.tolist() == [1, 2]
        assert got.leak_bias.tolist() == [0, 0]


def test_a_gain_of_one_in_float32_is_one() -> None:
    beta = np.linspace(0.01, 0.999, 500, dtype=np.float32)
    tau = np.float32(DT) / (np.float32(1) - beta)
    got = discretize(LIF("n", tau, tau / np.float32(DT), np.zeros(500), np.ones(500)), DT)
    assert (got.gain == 1).all()


def test_a_step_longer_than_the_time_constant_is_refused() -> None:
    with pytest.raises(GraphError, match="longer than the time constant 'tau_syn'") as caught:
        discretize(CubaLIF("n", [1e-5], [1e-3], 1, 0, 1), DT)
    assert "--dt" in caught.value.next_step
    assert discretize(LIF("n", DT, 1, 0, 1), DT).beta == 0


def test_nodes_without_steps_are_a_fault_of_the_caller() -> None:
    with pytest.raises(TypeError, match="steps in time"):
        discretize(Neuron("n"), DT)


GRID = st.integers(0, 4096)


@given(
    st.lists(st.tuples(GRID, GRID, st.integers(-(2**18), 2**18)), min_size=1, max_size=4),
    st.booleans(),
    st.floats(1e-6, 1e-1),
    st.floats(1e-6, 1e3),
)
def test_integers_survive_the_way_to_time_constants_and_back(
    rows: list[tuple[int, int, int]], cuba: bool, dt: float, scale: float
) -> None:
    dv, du, bias = (np.array(column) for column in zip(*rows, strict=True))
    ones = np.ones(len(rows))
    given_ = LifParameters(1 - dv / 4096, 1 - du / 4096 if cuba else None, ones, bias / 64 * scale, ones * scale, None)
    node = neuron_from_steps("n", given_, dt)
    got = discretize(node, dt)
    assert (got.gain == 1).all()
    assert np.array_equal(np.rint((1 - got.beta) * 4096), dv)
    assert np.array_equal(np.rint(got.leak_bias / scale * 64), bias)
    assert np.allclose(got.leak_bias / scale * 64, bias, rtol=1e-12, atol=0)
    if cuba:
        assert got.alpha is not None
        assert np.array_equal(np.rint((1 - got.alpha) * 4096), du)


@pytest.mark.parametrize(
    ("parameters", "message"),
    [
        (LifParameters(np.array(1.5), None, np.ones(1), np.zeros(1), np.ones(1), None), "'beta' is outside 0 to 1"),
        (LifParameters(np.ones(1), np.array(-0.1), np.ones(1), np.zeros(1), np.ones(1), None), "'alpha' is outside"),
        (LifParameters(np.ones(1), None, np.array([2.0]), np.zeros(1), np.ones(1), None), "gain of 1"),
        (LifParameters(np.ones(1), None, np.ones(1), np.zeros(1), None, None), "with a threshold"),
    ],
)
def test_steps_that_no_node_has_are_refused(parameters: LifParameters, message: str) -> None:
    with pytest.raises(GraphError, match=message):
        neuron_from_steps("n", parameters, DT)
