"""Readings: what each tool makes of the same equations, against formulas written out by hand."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from deploy import graph as nir
from deploy.errors import ConfigError, GraphError
from deploy.float_neurons import Cells
from deploy.reading import READINGS, Reading, parameters, reading

DT, TAU, SYN = 1e-3, 4e-3, 2e-3
ONE = np.ones(1)
LIF = nir.LIF("n", TAU * ONE, 3.0 * ONE, 0.2 * ONE, ONE)
CUBA = nir.CubaLIF("n", SYN * ONE, TAU * ONE, 3.0 * ONE, 0.2 * ONE, ONE, w_in=2.0 * ONE)
IF = nir.IF("n", 500.0 * ONE, ONE)
LI = nir.LI("n", TAU * ONE, 3.0 * ONE, 0.2 * ONE)
E4, E2 = np.exp(-0.25), np.exp(-0.5)


@pytest.mark.parametrize(
    ("node", "how", "beta", "alpha", "gain", "leak"),
    [
        (LIF, "euler", 0.75, None, 0.75, 0.05),
        (CUBA, "euler", 0.75, 0.5, 0.75, 0.05),
        (IF, "euler", 1.0, None, 0.5, 0.0),
        (LIF, "exact", E4, None, 3 * (1 - E4), 0.2 * (1 - E4)),
        (CUBA, "exact", E4, E2, 2 * (1 - E2) * 3 * (1 - E4), 0.2 * (1 - E4)),
        (IF, "exact", 1.0, None, 0.5, 0.0),
        (LI, "exact", E4, None, 3 * (1 - E4), 0.2 * (1 - E4)),
        (LIF, "norse", 0.75, None, 0.25, 0.05),
        (IF, "norse", 1.0, None, 1.0, 0.0),
        (CUBA, "norse", 0.75, 0.5, 0.75, 0.05),
        (LIF, "sinabs", E4, None, 1.0, 0.2 * (1 - E4)),
        (LIF, "rockpool", E4, None, 1.0, 0.2 * (1 - E4)),
        (CUBA, "rockpool", E4, E2, E2, 0.2 * (1 - E4)),
        (LI, "rockpool", E4, None, E4, 0.2 * (1 - E4)),
        (LIF, "nengo", E4, None, 3 * (1 - E4), 0.2 * (1 - E4)),
        (CUBA, "nengo", E4, E2, 2 * (1 - E2) * 3 * (1 - E4), 0.2 * (1 - E4)),
        (CUBA, "lava-dl", 0.75, 0.5, 0.75, 0.05),
    ],
)
def test_one_step(node: nir.Neuron, how: str, beta: float, alpha: Any, gain: float, leak: float) -> None:
    found = parameters(node, DT, reading(how))
    np.testing.assert_allclose(found.beta, beta)
    np.testing.assert_allclose(found.gain, gain)
    np.testing.assert_allclose(found.leak_bias, leak)
    assert (found.alpha is None) == (alpha is None)
    if found.alpha is not None:
        np.testing.assert_allclose(found.alpha, alpha)


def spikes(how: Reading, drives: list[float], reset: Any = "subtract", node: nir.Neuron = IF) -> list[float]:
    cells = Cells(node, 1 / 500, reset, how, 1)
    return [float(cells.step(np.full((1, 1), drive))[0, 0]) for drive in drives]


def test_a_membrane_at_its_threshold() -> None:
    assert spikes(Reading(), [1.0, 0.5]) == [0, 1]
    assert spikes(Reading(fires="at"), [1.0, 0.5]) == [1, 0]


def test_several_spikes_a_step_and_a_floor() -> None:
    assert spikes(Reading(spikes="many", fires="at"), [3.5, 0.5]) == [3, 1]
    assert spikes(Reading(spikes="many", fires="at"), [-5.0, 4.0]) == [0, 0]
    assert spikes(Reading(spikes="many", fires="at", floor=True), [-5.0, 4.0]) == [0, 3]


def test_where_membranes_start() -> None:
    node = nir.IF("n", 500.0 * ONE, ONE, v_reset=-1.0 * ONE)
    assert spikes(Reading(), [1.5], "value", node) == [1]
    assert spikes(Reading(start="v_reset"), [1.5], "value", node) == [0]
    at_rest = Cells(LIF, DT, "zero", READINGS["norse"], 2)
    assert at_rest.v.tolist() == [[0.2], [0.2]]


def test_resets_one_step_late() -> None:
    assert spikes(Reading(), [2.5, 0.25, 0.5], "late-subtract") == [1, 1, 1]
    assert spikes(Reading(), [2.5, 0.25, 0.5], "late-zero") == [1, 0, 0]
    assert spikes(Reading(), [1.5, 0.75, 0.5], "late-subtract") == [1, 1, 0]
    assert spikes(Reading(), [1.5, 0.75, 0.5], "zero") == [1, 0, 1]


def test_what_a_reading_says_of_itself() -> None:
    assert str(READINGS["sinabs"]) == (
        "exponential decay, spikes when v >= threshold, input gain one, several spikes a step, "
        "IF membranes floored at -threshold"
    )
    assert "membranes start at v_reset, recurrent biases from the second step" in str(READINGS["spikingjelly"])


def test_refusals() -> None:
    with pytest.raises(ConfigError, match="no such way to read a graph"):
        reading("brian")
    with pytest.raises(ConfigError, match="no such way to read a graph"):
        Reading(decay="linear")  # type: ignore[arg-type]
    with pytest.raises(GraphError, match="longer than the time constant"):
        parameters(LIF, 1.0, Reading())
    assert parameters(LIF, 1.0, Reading(decay="exponential")).beta < 1e-100, "the exact decay takes any time step"
