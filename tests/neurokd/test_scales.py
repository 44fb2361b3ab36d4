"""Choosing a grid: nothing leaves the accumulator, thresholds and biases fit, what fits nowhere is refused by name."""

from __future__ import annotations

import dataclasses
import math
from typing import Any

import pytest

torch = pytest.importorskip("torch", reason="the training side needs torch")
from hypothesis import given, settings  # noqa: E402
from hypothesis import strategies as st  # noqa: E402
from torch import Tensor  # noqa: E402

from deploy import fixed_point as fp  # noqa: E402
from deploy.chip import load_chip  # noqa: E402
from deploy.errors import ConfigError, ProgramError, TrainingError  # noqa: E402
from neurokd import scales  # noqa: E402
from neurokd.layer_grid import LARGEST_BIAS, MEMORYLESS, LayerGrid, check_sums, round_to_grid, worst_sum  # noqa: E402
from neurokd.scales import choose_grid  # noqa: E402

CHIP = load_chip("loihi2")
GRID = LayerGrid(0.5, 1.0, -2, 8, "mixed", 100, 2047, 410)


def normal(*shape: int, size: float = 0.3, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed)) * size


def choose(weight: Tensor | None = None, **options: Any) -> LayerGrid:
    weight = normal(20, 30) if weight is None else weight
    given_options = {
        "threshold": 1.0, "beta": 0.9, "alpha": None, "unit": 1.0, "chip": CHIP, "weight_bits": 8,
        "bias": torch.zeros(len(weight)), **options,
    }  # fmt: skip
    return choose_grid("dense1", weight, given_options.pop("bias"), **given_options)


# What a grid says -------------------------------------------------------------------------------------------------


def test_units_of_a_grid_are_those_of_the_design() -> None:
    grid = LayerGrid(0.5, 1 / 60, -2, 8, "mixed", 100, 2047, 410)
    assert grid.weight_unit == pytest.approx(0.5 * 0.25 * 60)
    assert grid.bias_unit == 0.5 / 64
    assert grid.threshold == 50.0
    assert (grid.beta, grid.alpha) == (1 - 410 / 4096, 0.5)
    assert dataclasses.replace(grid, du=MEMORYLESS).alpha == 0.0
    assert grid.largest_input == 60
    assert grid.largest_sum == 2**23 - 1
    assert LayerGrid(**grid.plain()) == grid


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("scale", 0.0), ("scale", math.nan), ("scale", 1), ("unit", -1.0), ("unit", math.inf), ("coarsened", 0.0),
        ("weight_exp", -9), ("weight_exp", 8), ("weight_bits", 0), ("weight_bits", 9), ("weight_bits", 8.0),
        ("weight_bits", True), ("vth", -1), ("vth", 1 << 17), ("du", 4096), ("dv", -1), ("dv", 4096),
        ("accumulator_bits", 25), ("sign_mode", "both"),
    ],
)  # fmt: skip
def test_values_outside_their_widths_are_refused(name: str, value: Any) -> None:
    with pytest.raises(ProgramError, match="out of range") as caught:
        dataclasses.replace(GRID, **{name: value})
    assert (caught.value.where, caught.value.got) == (name, repr(value))


@given(st.integers(2, 8), st.sampled_from(fp.SIGN_MODES), st.lists(st.floats(-400, 400), min_size=1, max_size=9))
def test_rounding_gives_the_nearest_weight_of_the_chip(bits: int, mode: fp.SignMode, values: list[float]) -> None:
    rounded = round_to_grid(torch.tensor([values], dtype=torch.float64), bits, mode)[0]
    low, high = fp.weight_limits(bits, mode)
    allowed = torch.arange(low, high + 1, fp.weight_step(bits, mode), dtype=torch.float64)
    for value, got in zip(values, rounded, strict=True):
        assert bool((allowed == got).any())
        assert float((got - value).abs()) == float((allowed - value).abs().min())


@given(st.lists(st.lists(st.integers(-256, 254), min_size=3, max_size=3), min_size=1, max_size=4), st.integers(1, 255))
def test_the_worst_sum_is_all_positive_or_all_negative_weights_at_the_largest_input(
    rows: list[list[int]], largest: int
) -> None:
    expected = max(max(sum(w for w in row if w > 0), -sum(w for w in row if w < 0)) for row in rows)
    assert worst_sum(torch.tensor(rows).float(), largest) == expected * largest


def test_sums_are_checked_after_a_shift_to_the_left_and_before_one_to_the_right() -> None:
    weights = torch.full((1, 1024), 254.0)
    for exponent, fits in ((0, True), (4, True), (5, True), (6, False), (-8, True)):
        grid = dataclasses.replace(GRID, weight_exp=exponent)
        assert (grid.worst_sum(weights) <= grid.largest_sum) == fits
        if fits:
            check_sums("dense1", grid, weights)
            continue
        with pytest.raises(TrainingError, match="could leave the accumulator"):
            check_sums("dense1", grid, weights)


# What is chosen ---------------------------------------------------------------------------------------------------


@settings(max_examples=60, deadline=None)
@given(
    seed=st.integers(0, 1 << 20), fan_in=st.sampled_from([1, 9, 60, 784]), size=st.floats(-3, 3),
    threshold=st.sampled_from([0.05, 1.0, 30.0]), bias=st.sampled_from([0.0, 0.1, 50.0]),
    bits=st.sampled_from([8, 6, 4, 3, 2]), levels=st.sampled_from([1, 15, 255]),
    search=st.sampled_from(scales.SEARCHES),
)  # fmt: skip
def test_whatever_is_chosen_fits(
    seed: int, fan_in: int, size: float, threshold: float, bias: float, bits: int, levels: int, search: Any
) -> None:
    """Sums leave room in the accumulator, vth is whole, the threshold is kept, the bias fits; or it is refused."""
    weight, biases = normal(5, fan_in, size=10.0**size, seed=seed), normal(5, size=bias * threshold, seed=seed + 1)
    try:
        grid = choose(
            weight, bias=biases, threshold=threshold, weight_bits=bits, unit=1 / levels, search=search
        )  # fmt: skip
    except TrainingError:
        ratio = float(weight.abs().max()) / threshold
        assert ratio > 20 or ratio < 0.01 or bias > 1 or levels * fan_in > 10_000
        return
    rounded = round_to_grid(weight.double() / grid.weight_unit, bits, "mixed")
    assert bool(rounded.any())
    assert grid.worst_sum(rounded) <= grid.largest_sum
    assert grid.vth >= 1
    assert grid.threshold == pytest.approx(threshold, rel=1e-12)
    assert float(biases.abs().max()) <= LARGEST_BIAS * grid.bias_unit


def test_max_clips_nothing_percentile_a_thousandth_and_mse_rounds_best() -> None:
    weight = torch.cat([normal(50, 400), normal(1, 400, size=3.0)])
    errors, outside = {}, {}
    for search in scales.SEARCHES:
        grid = choose(weight, weight_bits=4, search=search)
        rounded = round_to_grid(weight / grid.weight_unit, 4, "mixed")
        errors[search] = float(((rounded * grid.weight_unit - weight) ** 2).sum())
        outside[search] = float((weight.abs() > 256 * grid.weight_unit * (1 + 1e-6)).float().mean())
    assert outside["max"] == 0
    assert 0 < outside["percentile"] <= 0.001
    assert errors["mse"] == min(errors.values()) < 0.9 * errors["max"]


def test_percentile_of_mostly_zero_weights_falls_back_on_the_largest() -> None:
    weight = torch.zeros(20, 100)
    weight[0, 0] = 0.5
    assert choose(weight, search="percentile") == choose(weight, search="max")


def test_two_bits_find_a_scale_far_below_an_outlier() -> None:
    weight = normal(40, 200)
    weight[0, 0] = 6.0  # 20 deviations
    grid = choose(weight, weight_bits=2)
    rounded = round_to_grid(weight / grid.weight_unit, 2, "mixed")
    assert 0.3 < float((rounded != 0).float().mean()) < 0.9


def test_graded_input_gets_a_negative_exponent_and_plain_spikes_none() -> None:
    assert choose(unit=1 / 255).weight_exp < 0
    assert choose().weight_exp == 0
    assert choose(unit=1 / 255).vth <= scales.LARGEST_VTH


def test_weights_of_many_thresholds_get_a_positive_exponent_as_far_as_sums_leave_room() -> None:
    loud = choose(normal(20, 30, size=100.0))
    assert loud.weight_exp > 0
    assert loud.vth >= scales.LEAST_VTH // 2
    wide = choose(normal(3, 8000, size=100.0))
    assert wide.weight_exp < loud.weight_exp
    assert wide.worst_sum(round_to_grid(normal(3, 8000, size=100.0) / wide.weight_unit, 8, "mixed")) <= wide.largest_sum


def test_a_large_bias_lowers_the_exponent_until_it_fits() -> None:
    plain, biased = choose(), choose(bias=torch.full((20,), 40.0))
    assert biased.weight_exp < plain.weight_exp == 0
    assert LARGEST_BIAS * biased.bias_unit >= 2 * 40.0  # room to double


def test_wide_graded_layers_get_a_coarser_grid_not_a_refusal() -> None:
    fine, coarse = choose(normal(10, 784), unit=1 / 255), choose(normal(10, 3072), unit=1 / 255)
    assert fine.coarsened == 1.0
    assert 1.0 < coarse.coarsened < 4.0
    rounded = round_to_grid(normal(10, 3072) / coarse.weight_unit, 8, "mixed")
    assert 0.5 * coarse.largest_sum < coarse.worst_sum(rounded) <= 0.8 * coarse.largest_sum


def test_the_chips_own_widths_hold() -> None:
    toy = load_chip("toy")
    grid = choose(normal(5, 6), chip=toy, weight_bits=4, unit=1.0)
    assert grid.accumulator_bits == 12
    assert grid.vth < 1 << 10
    assert grid.weight_exp >= toy.formats.weight_exp_min


@pytest.mark.parametrize(
    ("beta", "alpha", "dv", "du"),
    [
        (0.0, None, 4095, 4095), (1.0, None, 0, 4095), (0.9, 0.0, 410, 4095), (0.9, 1.0, 410, 0),
        (0.5, 0.5, 2048, 2047), (1 / 4096, 4095 / 4096, 4095, 0),
    ],
)  # fmt: skip
def test_decays_go_to_the_nearest_the_chip_has(beta: float, alpha: float | None, dv: int, du: int) -> None:
    grid = choose(beta=beta, alpha=alpha)
    assert (grid.dv, grid.du) == (dv, du)


# Refusals ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("weight", "got"), [(0.0, "all zero"), (math.nan, "not finite"), (math.inf, "not finite")])
def test_weights_without_a_scale_are_refused(weight: float, got: str) -> None:
    with pytest.raises(TrainingError, match="cannot be put on a grid") as caught:
        choose(torch.full((2, 3), weight))
    assert got in caught.value.got
    assert caught.value.where == "layer dense1"


def test_a_bias_that_is_not_finite_is_refused() -> None:
    with pytest.raises(TrainingError, match="cannot be put on a grid"):
        choose(bias=torch.full((20,), math.nan))


@pytest.mark.parametrize("bits", [1, 9, 0, 8.0, True, "8"])
def test_widths_the_chip_lacks_are_refused(bits: Any) -> None:
    with pytest.raises(ConfigError, match="Loihi 2 has no synapses of this width") as caught:
        choose(weight_bits=bits)
    assert (caught.value.got, caught.value.allowed) == (repr(bits), "2, 3, 4, 5, 6, 7, 8")
    with pytest.raises(ConfigError, match="no synapses") as caught:
        choose(weight_bits=7, chip=load_chip("loihi1"))
    assert caught.value.allowed == "2, 3, 4, 5, 6, 8"


def test_an_unknown_search_is_refused() -> None:
    with pytest.raises(ConfigError, match="unknown scale search") as caught:
        choose(search="golden")
    assert caught.value.allowed == "mse, max, percentile"


def test_a_bias_too_large_for_any_exponent_is_refused() -> None:
    with pytest.raises(TrainingError, match="no mantissa and exponent") as caught:
        choose(bias=torch.full((20,), 1e6))
    assert "1e+06 thresholds" in caught.value.got
    assert "up to 8190 at weight_exp -7" in caught.value.allowed


def test_a_threshold_too_large_for_its_register_is_refused() -> None:
    with pytest.raises(TrainingError, match="threshold is too large") as caught:
        choose(normal(5, 6, size=1e-5), unit=1 / 255)
    assert caught.value.allowed == "vth 1..131071"
    assert "weight_exp -8" in caught.value.got
    assert "larger weights" in caught.value.next_step


def test_a_threshold_too_small_for_its_weights_is_refused() -> None:
    with pytest.raises(TrainingError, match="threshold is too small") as caught:
        choose(normal(5, 6, size=1e6))
    assert "vth 0" in caught.value.got
    assert "higher threshold" in caught.value.next_step


def test_sums_that_no_grid_holds_are_refused() -> None:
    with pytest.raises(TrainingError, match="do not fit the accumulator") as caught:
        choose(torch.ones(1, 40_000), unit=1 / 255)
    assert "40000 inputs of up to 255" in caught.value.got
    assert "fewer input bits" in caught.value.next_step


@pytest.mark.parametrize("bits", [8, 4, 3, 2])
@pytest.mark.parametrize("sign", [1.0, -1.0])
def test_max_clips_no_weight_at_any_width(bits: int, sign: float) -> None:
    """At 2 bits the grid is -256, -128, 0, 128: the largest weight must fit the positive side."""
    weight = sign * torch.tensor([[1.0, -0.2, 0.4]])
    grid = choose_grid(
        "dense1", weight, torch.zeros(1), threshold=1.0, beta=0.9, alpha=None, unit=1.0, chip=load_chip("loihi2"),
        weight_bits=bits, search="max",
    )  # fmt: skip
    rounded = round_to_grid(weight / grid.weight_unit, bits, "mixed") * grid.weight_unit
    assert float(rounded[0, 0]) == pytest.approx(sign, rel=0.02)
