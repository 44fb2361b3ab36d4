"""Nodes check and convert every field when they are made."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest

from deploy.errors import GraphError, UnsupportedNode
from deploy.graph import (
    IF,
    LIF,
    Affine,
    AvgPool2d,
    Conv1d,
    Conv2d,
    CubaLIF,
    Delay,
    Flatten,
    Input,
    NeuronGrid,
    Output,
    RunSettings,
    SynapseGrid,
    coerce,
)


def test_arrays_become_read_only_float64_copies() -> None:
    given = np.ones((2, 3), dtype=np.float32)
    node = Affine("fc", given)
    given[:] = 7
    assert node.weight.dtype == np.float64
    assert (node.weight == 1).all()
    with pytest.raises(ValueError, match="read-only"):
        node.weight[0, 0] = 3


def test_same_padding_becomes_the_numbers_it_stands_for() -> None:
    assert Conv2d("c", np.ones((1, 1, 3, 5)), padding="same", dilation=2).padding == (2, 4)
    assert Conv2d("c", np.ones((1, 1, 3, 5)), padding=np.array("valid", dtype=object)).padding == (0, 0)
    assert Conv1d("c", np.ones((1, 1, 5)), padding=b"same").padding == 2


def test_numbers_come_in_every_form_that_files_have() -> None:
    node = Conv2d("c", np.ones((4, 1, 3, 3)), stride=np.int64(2), dilation=np.array([1, 2]), groups=np.array([2.0]))
    assert (node.stride, node.dilation, node.groups) == ((2, 2), (1, 2), 2)
    assert AvgPool2d("p", np.array(2), np.array([3]), 0).stride == (3, 3)


def test_a_zero_bias_of_a_convolution_is_no_bias() -> None:
    assert Conv2d("c", np.ones((2, 1, 3, 3)), np.zeros(2)) == Conv2d("c", np.ones((2, 1, 3, 3)))
    assert Affine("a", np.ones((2, 3)), np.zeros(2)) != Affine("a", np.ones((2, 3)))


def test_equality_looks_at_every_field() -> None:
    base = LIF("l", 1.0, 1.0, 0.0, 1.0)
    assert base == LIF("l", 1.0, 1.0, 0.0, 1.0)
    assert base != LIF("l", 1.0, 1.0, 0.0, 1.0, 0.5)
    assert base != LIF("l", 1.0, 1.0, 0.0, 1.0, quantization=NeuronGrid(0.5))
    assert base != LIF("l", 1.0, 1.0, 0.0, 1.0, metadata={"x": 1})
    assert LIF("l", 1.0, 1.0, 0.0, 1.0, metadata={"x": {"y": np.arange(3)}}) == LIF(
        "l", 1.0, 1.0, 0.0, 1.0, metadata={"x": {"y": np.arange(3)}}
    )
    assert base != IF("l", 1.0, 1.0)
    assert hash(base) == hash(LIF("l", 2.0, 1.0, 0.0, 1.0))


def test_the_shape_of_a_population_is_the_largest_of_its_parameters() -> None:
    assert LIF("l", 1.0, [1.0], 0.0, np.ones((2, 3))).shape == (2, 3)
    assert LIF("l", 1.0, [1.0], 0.0, 1.0).shape == (1,)


BAD: list[tuple[str, Callable[[], object], str]] = [
    ("text for numbers", lambda: Affine("a", "weights"), "array of real numbers"),
    ("ragged", lambda: Affine("a", [[1], [1, 2]]), "array of real numbers"),
    ("complex", lambda: Affine("a", np.ones((2, 2), dtype=complex)), "array of real numbers"),
    ("nan", lambda: Affine("a", [[np.nan, 1]]), "1 of 2 are NaN or infinite"),
    ("infinite", lambda: LIF("l", np.inf, 1, 0, 1), "NaN or infinite"),
    ("int beyond float64", lambda: Affine("a", np.array([[2**62 + 1]])), "float64 cannot hold"),
    ("two strides", lambda: Conv1d("c", np.ones((1, 1, 3)), stride=[1, 2]), "one whole number"),
    ("stride 0", lambda: Conv2d("c", np.ones((1, 1, 3, 3)), stride=0), "from 1 to"),
    ("half a stride", lambda: Conv2d("c", np.ones((1, 1, 3, 3)), stride=1.5), "whole number"),
    ("three strides", lambda: Conv2d("c", np.ones((1, 1, 3, 3)), stride=[1, 2, 3]), "2 whole numbers"),
    ("shape of rows", lambda: Input("i", np.ones((2, 2))), "a row of whole numbers"),
    ("negative shape", lambda: Output("o", (-1,)), "from 1 to"),
    ("padding word", lambda: Conv2d("c", np.ones((1, 1, 3, 3)), padding="full"), "'same', 'valid'"),
    ("groups", lambda: Conv2d("c", np.ones((3, 1, 3, 3)), groups=2), "divisor of the 3"),
    ("bias", lambda: Affine("a", np.ones((2, 3)), np.ones(3)), r"shape \(2,\)"),
    ("time constant", lambda: LIF("l", 0.0, 1, 0, 1), "time constant must be positive"),
    ("time constant of the current", lambda: CubaLIF("l", [1, -1], 1, 1, 0, 1), "time constant must be positive"),
    ("delay", lambda: Delay("d", [-1.0]), "0 seconds or more"),
    ("parameter shapes", lambda: LIF("l", np.ones(3), np.ones(4), 0, 1), "different shapes"),
    ("flatten", lambda: Flatten("f", "x"), "array of real numbers"),
    ("scale", lambda: NeuronGrid(0.0), "finite number above 0"),
    ("weight_exp", lambda: SynapseGrid(40, 8, "mixed"), "-31 to 31"),
    ("weight_bits", lambda: SynapseGrid(0, 9, "mixed"), "1 to 8"),
    ("sign_mode", lambda: SynapseGrid(0, 8, "both"), "excitatory"),  # type: ignore[arg-type]
    ("steps", lambda: RunSettings(steps=0), "1 or more"),
    ("encoding", lambda: RunSettings(encoding="x"), "latency"),  # type: ignore[arg-type]
    ("input_bits", lambda: RunSettings(input_bits=0), "1 to 24"),
    ("chip", lambda: RunSettings(chip=""), "chip's name"),
    ("text", lambda: coerce.text("type", 3), "text"),
    ("text not utf-8", lambda: coerce.text("type", b"\xff"), "UTF-8"),
]


@pytest.mark.parametrize(("make", "message"), [case[1:] for case in BAD], ids=[case[0] for case in BAD])
def test_values_that_cannot_be_used_are_refused(make: Callable[[], object], message: str) -> None:
    with pytest.raises(GraphError, match=message) as caught:
        make()
    assert caught.value.got
    assert caught.value.allowed
    assert caught.value.next_step


UNSUPPORTED: list[tuple[str, Callable[[], object], str]] = [
    ("weights of 3 axes", lambda: Affine("a", np.ones((2, 2, 2))), r"\[out, in\]"),
    ("no weights", lambda: Affine("a", np.ones((2, 0))), "without elements"),
    ("kernel of 3 axes", lambda: Conv2d("c", np.ones((1, 1, 3))), "kernel width"),
    ("kernel of 4 axes", lambda: Conv1d("c", np.ones((1, 1, 3, 3))), "kernel"),
    ("same and even", lambda: Conv2d("c", np.ones((1, 1, 2, 3)), padding="same"), "even kernel"),
    ("same and stride", lambda: Conv2d("c", np.ones((1, 1, 3, 3)), padding="same", stride=2), "not defined"),
]


@pytest.mark.parametrize(("make", "message"), [case[1:] for case in UNSUPPORTED], ids=[c[0] for c in UNSUPPORTED])
def test_values_without_a_counterpart_are_unsupported(make: Callable[[], object], message: str) -> None:
    with pytest.raises(UnsupportedNode, match=message):
        make()


def test_what_cannot_become_an_array_is_refused() -> None:
    class Stubborn:
        def __array__(self, *_: object, **__: object) -> np.ndarray:
            raise RuntimeError("requires grad")

    with pytest.raises(GraphError, match="requires grad"):
        Affine("a", Stubborn())  # type: ignore[arg-type]
