"""Hypothesis looks for a program, anywhere in the parameters' ranges, on which the simulator leaves the reference."""

from __future__ import annotations

from typing import Any

import numpy as np
from hypothesis import HealthCheck, given, reject, settings
from hypothesis import strategies as st

from deploy import fixed_point as fp
from deploy import reference, simulator
from deploy.errors import ProgramError
from deploy.program import Conv, Dense, Input, Population, Program, Synapse
from deploy.testing import differences

CORNERS = {"du": (0, 1, 4094, 4095), "dv": (0, 1, 410, 4095), "vth": (0, 1, 300, 131071)}


def numbers(shape: tuple[int, ...], low: int, high: int, step: int = 1) -> st.SearchStrategy[Any]:
    """An integer array, its corners as likely as its middle."""
    value = st.one_of(st.sampled_from([low, 0, high]), st.integers(low // step, high // step).map(lambda n: n * step))
    size = int(np.prod(shape))
    return st.lists(value, min_size=size, max_size=size).map(lambda values: np.array(values).reshape(shape))


@st.composite
def populations(draw: st.DrawFn, name: str, shape: tuple[int, ...]) -> Population:
    chosen = {key: draw(st.one_of(st.sampled_from(at), st.integers(0, at[-1]))) for key, at in CORNERS.items()}
    reset = draw(st.sampled_from(["zero", "subtract"]))
    bias = draw(numbers(shape, -4096, 4095))
    return Population(
        name, shape, **chosen, bias_mant=bias.reshape(-1), bias_exp=draw(st.integers(0, 7)), reset=reset,
        refractory=draw(st.sampled_from([0, 0, 1, 3])),
    )  # fmt: skip


@st.composite
def synapses(draw: st.DrawFn, name: str, source: Input | Population, target: str, kernel: bool) -> Synapse:
    bits, mode = draw(st.integers(2, 8)), draw(st.sampled_from(["mixed", "excitatory", "inhibitory"]))
    low, high = fp.weight_limits(bits, mode)
    common = {"weight_exp": draw(st.integers(-8, 3)), "weight_bits": bits, "sign_mode": mode}
    common["delay"] = draw(st.integers(0, 2))
    if kernel:
        weights = draw(numbers((2, source.shape[0], 2, 3), low, high, fp.weight_step(bits, mode)))
        stride, padding = (draw(st.tuples(st.integers(*r), st.integers(*r))) for r in ((1, 2), (0, 1)))
        return Conv(name, source.name, target, weights, stride=stride, padding=padding, **common)
    weights = draw(numbers((3, int(np.prod(source.shape))), low, high, fp.weight_step(bits, mode)))
    return Dense(name, source.name, target, weights, **common)


@st.composite
def programs(draw: st.DrawFn) -> Program:
    """A convolution into a dense layer, or two dense layers; graded or binary input."""
    kernel = draw(st.booleans())
    source = Input("in", (2, 3, 4) if kernel else (5,), draw(st.sampled_from([1, 1, 4, 8])))
    first = draw(synapses("a", source, "hidden", kernel))
    shape = first.output_shape(source.shape) if isinstance(first, Conv) else (3,)
    hidden = draw(populations("hidden", shape))
    second = draw(synapses("b", hidden, "out", False))
    return Program(source, (hidden, draw(populations("out", (3,)))), (first, second))


@settings(max_examples=150, deadline=None, suppress_health_check=list(HealthCheck))
@given(data=st.data())
def test_no_program_leaves_the_reference(data: st.DataObject) -> None:
    try:
        program = data.draw(programs())
    except ProgramError as refused:  # the one rule that cannot be drawn beforehand
        if "accumulator" not in str(refused):
            raise
        reject()
    spikes = data.draw(numbers((6, 2, *program.input.shape), 0, program.input.largest))
    trace = simulator.run(program, spikes, record="all", record_state="all")
    assert differences(reference.run(program, spikes), trace) == []
