from __future__ import annotations

import doctest

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import neurokd.spec
from deploy.errors import ConfigError, SpecError
from neurokd.spec import Conv, Dense, NetworkSpec, Pool


@pytest.mark.parametrize(
    ("text", "shapes", "parameters"),
    [
        ("784-800-10", ((800,), (10,)), 784 * 800 + 800 + 800 * 10 + 10),
        (
            "28x28x1-16c5s2-32c3s2-10",
            ((16, 12, 12), (32, 5, 5), (10,)),
            16 * 26 + 32 * (16 * 9 + 1) + 10 * (32 * 25 + 1),
        ),
        (
            "32x32x3-64c3p1-p2-64c3p1g2-p2s1-10",
            ((64, 32, 32), (64, 16, 16), (64, 16, 16), (64, 15, 15), (10,)),
            64 * 28 + 64 * (32 * 9 + 1) + 10 * (64 * 225 + 1),
        ),
        ("9x7x2-4c3x1s2x1p1x0d2x1-5", ((4, 4, 7), (5,)), 4 * (2 * 3 + 1) + 5 * (4 * 28 + 1)),
        ("8x8x1-p2-10", ((1, 4, 4), (10,)), 170),
        ("2-2", ((2,),), 6),
    ],
)
def test_shapes_and_parameters(text: str, shapes: tuple[tuple[int, ...], ...], parameters: int) -> None:
    spec = NetworkSpec.parse(text)
    assert spec.shapes() == shapes
    assert spec.parameters() == parameters
    assert spec.classes == shapes[-1][0]
    assert str(spec) == text


def test_fields_are_read_into_the_right_places() -> None:
    spec = NetworkSpec.parse(" 20x16x6-12c3x5s2p1g3d1x2-p2s1p1-7-10\n")
    assert spec.input_shape == (6, 20, 16)
    assert spec.layers == (
        Conv(12, kernel=(3, 5), stride=(2, 2), padding=(1, 1), groups=3, dilation=(1, 2)),
        Pool(kernel=(2, 2), stride=(1, 1), padding=(1, 1)),
        Dense(7),
        Dense(10),
    )


def test_blocks_carry_their_pool_and_shapes() -> None:
    blocks = NetworkSpec.parse("8x8x1-4c3-p2-16-10").blocks()
    assert [block.name for block in blocks] == ["conv1", "dense2", "dense3"]
    assert blocks[1].pool == Pool((2, 2), (2, 2))
    assert (blocks[1].in_shape, blocks[1].synapse_shape, blocks[1].out_shape) == ((4, 6, 6), (4, 3, 3), (16,))
    assert blocks[0].pool is None
    assert blocks[2].pool is None


def test_options_in_any_order_and_the_canonical_text() -> None:
    assert str(NetworkSpec.parse("8x8x2-04c3x3g2p1s1d1-p2s2p0-10")) == "8x8x2-4c3p1g2-p2-10"


@pytest.mark.parametrize(
    ("text", "what", "field", "character"),
    [
        ("", "empty", None, None),
        ("   ", "empty", None, None),
        ("784--10", "empty", 2, 5),
        ("-784-10", "empty", 1, 1),
        ("784-10-", "empty", 3, 8),
        ("28x28-10", "not an input size", 1, 1),
        ("16c5-10", "not an input size", 1, 1),
        ("0-10", "input size is out of range", 1, 1),
        ("784-0", "units is out of range", 2, 5),
        ("784-99999999-10", "units is out of range", 2, 5),
        ("784-" + "9" * 5000, "number is too large", 2, 5),
        ("784", "no output layer", 1, 1),
        ("28x28x1-16c5", "no output layer", 2, 9),
        ("28x28x1-16c5-p2", "no output layer", 3, 14),
        ("28x28x1-16q5-10", "unknown letter 'q'", 2, 9),
        ("28x28x1-16c5z2-10", "unknown letter 'z'", 2, 9),
        ("28x28x1-p2g2-10", "unknown letter 'g'", 2, 9),
        ("28X28x1-10", "not an input size", 1, 1),
        ("28x28x1-16c-10", "not a layer", 2, 9),
        ("28x28x1-c5-10", "not a layer", 2, 9),
        ("28x28x1-16c5s2s3-10", "given twice", 2, 9),
        ("28x28x2-16c5g2x2-10", "given twice or as a pair", 2, 9),
        ("28x28x1-16c5s0-10", "stride is out of range", 2, 9),
        ("28x28x1-16c29-10", "kernel is larger", 2, 9),
        ("8x8x1-4c3d4-10", "kernel is larger", 2, 7),
        ("8x8x1-4c3-p7-10", "kernel is larger", 3, 11),
        ("8x8x1-p2p2-10", "more than half", 2, 7),
        ("28x28x3-16c5g2-10", "do not divide", 2, 9),
        ("28x28x2-15c5g2-10", "do not divide", 2, 9),
        ("784-16c5-10", "convolution after a flat", 2, 5),
        ("28x28x1-100-16c3-10", "convolution after a flat", 3, 13),
        ("784-p2-10", "pool after a flat", 2, 5),
        ("28x28x1-p2-p2-10", "two pools", 3, 12),
        ("784-10.5-10", "unknown letter '.'", 2, 5),
        ("784-١٢-10", "unknown letter", 2, 5),
    ],
)
def test_malformed_is_refused_with_its_place(text: str, what: str, field: int | None, character: int | None) -> None:
    with pytest.raises(SpecError) as caught:
        NetworkSpec.parse(text)
    assert what in caught.value.what
    assert "fields joined by '-'" in caught.value.allowed
    assert caught.value.got
    if field is not None:
        assert caught.value.where.startswith(f"field {field} (")
        assert f"character {character} of" in caught.value.where
    assert isinstance(caught.value, ConfigError)


def test_a_spec_built_by_hand_is_checked_too() -> None:
    with pytest.raises(SpecError, match="neither flat nor an image"):
        NetworkSpec((28, 28), (Dense(10),))
    with pytest.raises(SpecError, match="kernel is larger"):
        NetworkSpec((1, 4, 4), (Conv(2, (5, 5)), Dense(10)))
    with pytest.raises(SpecError, match="channels is out of range"):
        Conv(-1, (5, 5))
    assert NetworkSpec((1, 4, 4), (Pool((2, 2), (2, 2)), Dense(10))) == NetworkSpec.parse("4x4x1-p2-10")


_pairs = st.tuples(st.integers(1, 3), st.integers(1, 3))
_paddings = st.tuples(st.integers(0, 1), st.integers(0, 1))


@st.composite
def specs(draw: st.DrawFn) -> NetworkSpec:
    """Flat networks and image networks of up to two convolutions, pools between, on a 40 x 40 input."""
    dense = [Dense(draw(st.integers(1, 50))) for _ in range(draw(st.integers(1, 3)))]
    if draw(st.booleans()):
        return NetworkSpec((draw(st.integers(1, 2000)),), tuple(dense))
    layers: list[Conv | Pool] = []
    for _ in range(draw(st.integers(0, 2))):
        channels, groups = 4 * draw(st.integers(1, 4)), draw(st.sampled_from([1, 2, 4]))
        layers.append(Conv(channels, draw(_pairs), draw(_pairs), draw(_paddings), groups, draw(_pairs)))
        if draw(st.booleans()):
            layers.append(Pool((2, 2), draw(_pairs), draw(_paddings)))
    return NetworkSpec((4, 40, 40), (*layers, *dense))


@settings(deadline=None, derandomize=True)
@given(specs())
def test_text_round_trips(spec: NetworkSpec) -> None:
    """parse(str(spec)) == spec, and the text is its own canonical form."""
    assert NetworkSpec.parse(str(spec)) == spec
    assert str(NetworkSpec.parse(str(spec))) == str(spec)


@settings(deadline=None, derandomize=True)
@given(st.text(alphabet="0123456789xcpsgd-q ", max_size=14))
def test_any_text_is_read_or_refused_by_type(text: str) -> None:
    """No text of the alphabet raises anything but SpecError, and what is read round trips."""
    try:
        spec = NetworkSpec.parse(text)
    except SpecError:
        return
    assert NetworkSpec.parse(str(spec)) == spec


def test_the_docstring_examples_run() -> None:
    assert doctest.testmod(neurokd.spec).failed == 0
