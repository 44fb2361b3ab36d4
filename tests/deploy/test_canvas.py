"""Convolutions on the canvas: division by multiplication, and geometries the random programs seldom draw."""

from __future__ import annotations

import numpy as np
import pytest

from deploy import reference, simulator
from deploy.program import Conv, Input, Population, Program
from deploy.simulator.canvas import divider


@pytest.mark.parametrize(
    ("outer", "inner"), [(1, 1), (1, 2**31 - 1), (3, 10**6), (10**6, 3), (7, 300_000_007), (46_337, 46_337), (2**30, 1)]
)
def test_division_by_multiplication_is_exact_to_the_last_place(outer: int, inner: int) -> None:
    """Around every kind of edge of a quotient: its first and its last places."""
    multiplier, shift = divider(outer, inner)
    quotients = {0, 1, outer // 2, outer - 1}
    for place in (q * inner + k for q in quotients for k in (0, 1, inner // 2, inner - 1)):
        if place < outer * inner:
            assert place * multiplier < 2**64
            assert (place * multiplier) >> shift == place // inner


def conv_program(shape: tuple[int, int, int], weights: tuple[int, ...], bits: int = 1, **geometry: object) -> Program:
    rng = np.random.default_rng(len(str(geometry)))
    values = rng.integers(-128, 128, weights) * 2
    first = Conv("c", "in", "image", values, **geometry)  # type: ignore[arg-type]
    middle = first.output_shape(shape)
    second = Conv("d", "image", "out", rng.integers(-128, 128, (5, middle[0], 1, 1)) * 2)
    return Program(
        Input("in", shape, bits),
        (
            Population("image", middle, 4095, 410, 500, np.zeros(int(np.prod(middle)), int)),
            Population("out", (5, *middle[1:]), 4095, 410, 300, np.zeros(5 * middle[1] * middle[2], int)),
        ),
        (first, second),
    )


GEOMETRIES = [
    ((2, 9, 7), (16, 2, 3, 3), {}),
    ((2, 9, 7), (17, 2, 3, 3), {"stride": (2, 2)}),
    ((1, 11, 11), (16, 1, 5, 5), {"stride": (2, 2), "padding": (2, 2)}),
    ((1, 6, 6), (32, 1, 4, 6), {"stride": (1, 1), "padding": (0, 3)}),  # runs of 192
    ((1, 6, 6), (48, 1, 2, 2), {"stride": (3, 3)}),  # a stride larger than the kernel: pixels without a tap
    ((1, 9, 9), (33, 1, 2, 3), {"stride": (1, 2), "dilation": (3, 2)}),
    ((1, 9, 9), (16, 1, 3, 3), {"dilation": (2, 3), "padding": (1, 4)}),  # taps that land apart
    ((4, 6, 6), (8, 1, 3, 3), {"groups": 4}),
    ((4, 6, 6), (40, 2, 3, 3), {"groups": 2, "stride": (2, 1)}),
    ((2, 5, 5), (80, 2, 1, 1), {}),
    ((2, 5, 5), (64, 2, 2, 4), {}),  # runs of 256
    ((2, 5, 5), (80, 2, 2, 4), {}),  # runs of 320
    ((2, 5, 5), (96, 2, 1, 5), {"padding": (0, 2)}),  # runs of 480
]


@pytest.mark.parametrize("bits", [1, 3])
@pytest.mark.parametrize(("shape", "weights", "geometry"), GEOMETRIES)
def test_every_geometry_equals_the_reference(
    shape: tuple[int, int, int], weights: tuple[int, ...], geometry: dict[str, object], bits: int
) -> None:
    program = conv_program(shape, weights, bits, **geometry)
    spikes = np.random.default_rng(1).integers(0, 1 << bits, (3, 2, *shape))
    expected = reference.run(program, spikes)
    got = simulator.run(program, spikes, record="all", record_state="all")
    for name in expected.spikes:
        np.testing.assert_array_equal(got.u[name], expected.u[name], name)
        np.testing.assert_array_equal(got.spikes[name], expected.spikes[name], name)
        np.testing.assert_array_equal(got.counters[name].synops, expected.counters[name].synops, name)
    assert expected.counters["out"].synops.sum() > 0
