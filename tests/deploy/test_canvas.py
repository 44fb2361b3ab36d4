"""Convolutions on the canvas: division by multiplication, and geometries the random programs seldom draw."""

from __future__ import annotations

import numpy as np
import pytest

from deploy import reference, simulator
from deploy.program import Conv, Input, Population, Program
from deploy.simulator import canvas
from deploy.simulator.canvas import divider
from deploy.simulator.patterns import patterns


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


PATTERNED = [
    ((1, 11, 11), (16, 1, 5, 5), {"stride": (2, 2), "padding": (2, 2)}, True),
    ((1, 9, 40), (20, 1, 3, 8), {"padding": (1, 12), "stride": (1, 3)}, True),  # 64 bits a row, 256 patterns
    ((1, 9, 40), (20, 1, 3, 8), {"padding": (1, 13)}, True),  # 66 bits: two words, pieces of 4 bits
    ((1, 9, 70), (20, 1, 3, 9), {"padding": (1, 13)}, True),
    ((1, 70, 3), (48, 1, 5, 2), {"dilation": (2, 1), "padding": (3, 0)}, True),
    ((2, 9, 21), (33, 2, 3, 4), {"padding": (1, 2), "stride": (1, 2)}, True),
    ((16, 12, 12), (32, 16, 3, 3), {"stride": (2, 2)}, True),
    ((16, 5, 5), (33, 16, 3, 3), {"padding": (1, 1)}, True),
    ((16, 5, 5), (16, 16, 5, 3), {"padding": (4, 4), "dilation": (2, 1)}, True),
    ((8, 6, 20), (64, 8, 3, 8), {"padding": (0, 2), "stride": (2, 3)}, True),  # 64 bits, from whole bytes on
    ((3, 6, 25), (17, 3, 5, 19), {"padding": (2, 7)}, True),  # 57 bits, from anywhere on
    ((2, 6, 30), (17, 2, 5, 29), {}, False),  # 58 bits, from anywhere on
    ((1, 8, 8), (64, 1, 3, 3), {}, True),
    ((1, 8, 8), (65, 1, 3, 3), {}, False),
    ((1, 7, 9), (4, 1, 3, 3), {}, False),  # an image of fewer than 64 places
    ((1, 9, 9), (4, 1, 4, 3), {}, False),
    ((1, 9, 9), (16, 1, 3, 3), {"dilation": (1, 2)}, False),
    ((1, 30, 64), (33, 1, 5, 1), {"stride": (3, 2)}, True),
]


@pytest.mark.parametrize(("shape", "weights", "geometry", "open_"), PATTERNED)
def test_patterns_equal_the_reference_and_are_used_where_they_fit(
    shape: tuple[int, int, int], weights: tuple[int, ...], geometry: dict[str, object], open_: bool,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    monkeypatch.setattr(canvas, "A_LOOKUP", 0)
    rng = np.random.default_rng(len(str(geometry)))
    spread = Conv("s", "in", "image", np.where(rng.random((shape[0], 1, 1, 1)) < 0.8, 254, -256))
    conv = Conv("c", "image", "out", rng.integers(-60, 60, weights) * 2, **geometry)  # type: ignore[arg-type]
    out = conv.output_shape(shape)
    image = Population("image", shape, 4095, 4095, 200, np.zeros(int(np.prod(shape)), int))
    last = Population("out", out, 4095, 410, 500, np.zeros(int(np.prod(out)), int))
    program = Program(Input("in", (1, *shape[1:])), (image, last), (spread, conv))
    assert (len(patterns(conv.weights // 2, shape, conv).table) > 0) == open_
    for activity in (0.03, 0.5, 1.0):
        spikes = (rng.random((4, 2, 1, *shape[1:])) < activity).astype(np.uint8)
        expected = reference.run(program, spikes)
        got = simulator.run(program, spikes, record="all", record_state="all")
        np.testing.assert_array_equal(got.u["out"], expected.u["out"])
        np.testing.assert_array_equal(got.counters["out"].synops, expected.counters["out"].synops)
        assert expected.spikes["image"].any()


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
