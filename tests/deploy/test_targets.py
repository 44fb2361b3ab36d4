"""The same hand-computed cases on every execution (``--target``): what a person can check with pencil and paper."""

from __future__ import annotations

import numpy as np
import pytest

import deploy
from deploy.program import Conv, Dense, Input, Population, Program, Synapse

STILL = {"du": 4095, "dv": 0, "vth": 150}  # memoryless current, membrane without leak


def neuron(name: str = "n", shape: tuple[int, ...] = (1,), **changes: object) -> Population:
    fields = {**STILL, "bias_mant": np.zeros(int(np.prod(shape)), int), **changes}
    return Population(name, shape, **fields)  # type: ignore[arg-type]


def one(population: Population, weight: int = 100, bits: int = 1, **changes: object) -> Program:
    """One input, one synapse, one neuron."""
    dense = Dense("w", "in", population.name, np.array([[weight]]), **changes)  # type: ignore[arg-type]
    return Program(Input("in", (1,), bits), (population,), (dense,))


def spikes_of(program: Program, values: list[int], target: str, **options: object) -> list[int]:
    given = np.array(values).reshape(-1, 1, 1)
    return deploy.run(program, given, target=target, **options).sat.reshape(-1).tolist()  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("program", "values", "expected"),
    [
        # v = 100, 200 > 150: a spike every second step
        (one(neuron()), [1, 1, 1, 1], [0, 1, 0, 1]),
        # strict: v = 150 is not above 150
        (one(neuron(vth=150), weight=150), [1, 1, 0, 0], [0, 1, 0, 0]),
        # the membrane halves: 100, 150, 175 > 150
        (one(neuron(dv=2048)), [1, 1, 1, 1], [0, 0, 1, 0]),
        # the current halves (du + 1 = 2048): u = 100, 50, 25: v = 100, 150, 175 > 150 without further input
        (one(neuron(du=2047)), [1, 0, 0, 0], [0, 0, 1, 0]),
        # a bias of 50 units (50 * 64 = 100 << 5) alone: 50, 100, 150, 200
        (one(neuron(bias_mant=np.array([100]), bias_exp=5)), [0, 0, 0, 0], [0, 0, 0, 1]),
        # graded: 3 * 60 = 180 at once
        (one(neuron(), weight=60, bits=2), [3, 0, 2, 1], [1, 0, 0, 1]),
        # 100 >> 1 = 50 a step
        (one(neuron(), weight_exp=-1), [1, 1, 1, 1], [0, 0, 0, 1]),
        # -2 >> 2 is -1, not 0: the membrane only sinks
        (one(neuron(), weight=-2, weight_exp=-2), [1, 1, 1, 1], [0, 0, 0, 0]),
        # a delay of two steps
        (one(neuron(), weight=200, delay=2), [1, 0, 0, 0], [0, 0, 1, 0]),
    ],
    ids=["integrate", "strict", "leak", "current", "bias", "graded", "shift", "floor", "delay"],
)
def test_one_neuron(program: Program, values: list[int], expected: list[int], target: str) -> None:
    assert spikes_of(program, values, target) == expected


def test_samples_start_at_rest(target: str) -> None:
    """100 at the last step of a sample does not help the next one."""
    values = np.array([[0, 1], [1, 0]]).reshape(2, 2, 1)  # [T, B]: second sample begins where the first ended
    assert deploy.run(one(neuron()), values, target=target).sat.sum() == 0


def test_two_layers_and_a_skip(target: str) -> None:
    """The output needs both the hidden spike (100) and the input's skip (100) in one step."""
    blocks: tuple[Synapse, ...] = (
        Dense("a", "in", "hidden", np.array([[200]])),
        Dense("b", "hidden", "out", np.array([[100]])),
        Dense("skip", "in", "out", np.array([[100]])),
    )
    program = Program(Input("in", (1,)), (neuron("hidden"), neuron("out", dv=4095)), blocks)
    assert spikes_of(program, [1, 0, 1, 0], target) == [1, 0, 1, 0]


def test_a_loop_comes_one_step_later(target: str) -> None:
    """A spike of the neuron re-excites it: once started it goes on by itself."""
    loop = Dense("loop", "n", "n", np.array([[200]]), delay=1)
    program = Program(Input("in", (1,)), (neuron(),), (Dense("w", "in", "n", np.array([[200]])), loop))
    assert spikes_of(program, [0, 1, 0, 0, 0], target) == [0, 1, 1, 1, 1]


def test_a_convolution_sees_its_window(target: str) -> None:
    """A vertical pair of pixels fires only where the 2 x 1 kernel covers both."""
    conv = Conv("c", "in", "map", np.full((1, 1, 2, 1), 100))
    program = Program(Input("in", (1, 3, 3)), (neuron("map", (1, 2, 3), dv=4095),), (conv,))
    image = np.array([[0, 1, 0], [0, 1, 0], [1, 0, 0]]).reshape(1, 1, 1, 3, 3)
    fired = deploy.run(program, image, target=target).sat.reshape(2, 3)
    assert fired.tolist() == [[0, 1, 0], [0, 0, 0]]


def test_constant_input_is_presented_at_every_step(target: str) -> None:
    trace = deploy.run(one(neuron()), np.array([[1]]), target=target, steps=4)
    assert trace.sat.reshape(-1).tolist() == [0, 1, 0, 1]
