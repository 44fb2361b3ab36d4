"""The integer rules against their definitions, at random and at every edge; the 32-bit kernel against the rules."""

from __future__ import annotations

import doctest
import math

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from deploy import fixed_point as fp
from deploy.simulator import neurons

EDGE = 1 << 23
edges = st.sampled_from([0, 1, -1, EDGE, EDGE - 1, EDGE + 1, -EDGE, 1 - EDGE, -EDGE - 1])
states = st.one_of(edges, st.integers(-EDGE + 1, EDGE - 1))
registers = st.one_of(edges, st.integers(-(2**31) + 1, 2**31 - 1))
sums = st.one_of(st.sampled_from([0, 1 << 17, -(1 << 17), EDGE - 1, 1 - EDGE]), st.integers(1 - EDGE, EDGE - 1))
decays = st.one_of(st.sampled_from([0, 1, 410, 4095]), st.integers(0, 4095))


def test_the_docstrings_examples_hold() -> None:
    assert doctest.testmod(fp).failed == 0


@given(registers, st.one_of(st.sampled_from([0, 4096]), decays))
def test_decay_is_a_product_rounded_toward_zero(x: int, d: int) -> None:
    """decay(x, d) = trunc(x * (4096 - d) / 4096), in exact arithmetic."""
    product = x * (4096 - d)
    assert fp.decay(x, d) == int(math.copysign(abs(product) // 4096, product))


@given(st.integers(-(2**40), 2**40), st.sampled_from([24, 32]))
def test_wrap_is_congruent_and_in_range(x: int, bits: int) -> None:
    wrapped = fp.wrap(x, bits)
    assert (wrapped - x) % (1 << bits) == 0
    assert -(1 << (bits - 1)) <= wrapped < 1 << (bits - 1)


@given(registers)
def test_the_current_wraps_one_turn_as_lava_does(u: int) -> None:
    turned = u - (1 << 24) if u > EDGE else u + (1 << 24) if u <= -EDGE else u
    assert fp.wrap_current(u, 24) == turned


@given(registers)
def test_saturation_is_symmetric(v: int) -> None:
    assert fp.saturate(-v, 24) == -fp.saturate(v, 24)
    assert abs(fp.saturate(v, 24)) <= fp.MAX_STATE


@settings(deadline=None)  # the first example waits for the compiler
@example(u=EDGE, v=fp.MAX_STATE, a=EDGE - 1, bias=524_160, du=0, dv=0, vth=fp.MAX_VTH)
@example(u=-EDGE + 1, v=-fp.MAX_STATE, a=1 - EDGE, bias=-524_288, du=0, dv=0, vth=0)
@given(
    u=registers, v=states, a=sums, bias=st.integers(-(4096 << 7), 4095 << 7), du=decays, dv=decays,
    vth=st.integers(0, fp.MAX_VTH),
)  # fmt: skip
def test_the_compiled_step_equals_the_rules(u: int, v: int, a: int, bias: int, du: int, dv: int, vth: int) -> None:
    """24-bit state times a 12-bit decay needs 37 bits; the kernel splits it so that 32 are enough."""
    v = fp.saturate(v, 24)
    current, membrane, raw_u, raw_v = neurons.integrate.py_func(u, v, a, bias, 4096 - (du + 1), 4096 - dv)
    assert int(raw_u) == fp.raw_current(u, a, du)
    assert int(current) == fp.wrap_current(fp.raw_current(u, a, du), 24)
    assert int(raw_v) == fp.raw_membrane(v, int(current), bias, dv)
    assert int(membrane) == fp.saturate(int(raw_v), 24)
    next_u, next_v, spike = fp.lif_step(u, v, a, du, dv, bias, vth)
    assert next_u == int(current)
    assert spike == (int(membrane) > vth << 6)
    assert next_v == (0 if spike else int(membrane))


@pytest.mark.parametrize("mode", fp.SIGN_MODES)
@pytest.mark.parametrize("bits", range(1, 9))
def test_weight_limits_lie_on_the_grid(bits: int, mode: str) -> None:
    low, high = fp.weight_limits(bits, mode)
    step = fp.weight_step(bits, mode)
    assert low % step == 0
    assert high % step == 0
    levels = (high - low) // step + 1
    assert levels == 2**bits


@given(st.integers(0, 4096 << 7))
def test_bias_exponent_is_the_smallest_that_fits(largest: int) -> None:
    exponent = fp.bias_exponent(largest)
    rounded = (largest + (1 << exponent >> 1)) >> exponent
    assert rounded <= 4095
    if exponent:
        assert (largest + (1 << (exponent - 1) >> 1)) >> (exponent - 1) > 4095


@given(st.floats(0.0, 1.0))
def test_a_decay_from_a_factor_is_the_nearest(factor: float) -> None:
    d = fp.decay_from_factor(factor)
    assert 0 <= d <= 4096
    assert abs((1 - d / 4096) - factor) <= 0.5 / 4096 + 1e-12
