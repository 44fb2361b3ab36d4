"""Encoders: ranges, exact rounding, independence of the batch, and the statistics of the rate code."""

from __future__ import annotations

import math
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from deploy.errors import ConfigError, DataError
from neurokd.data.draws import FOR_SPIKES, words
from neurokd.encoding import Encoding, auto_input_bits, direct, latency, quantize_images, rate

KINDS = ("direct", "rate", "latency")


def pixels(count: int, levels: int = 255, seed: int = 0, shape: tuple[int, ...] = (1, 3, 5)) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, levels + 1, (count, *shape)).astype(np.uint8)


@pytest.mark.parametrize("bits", range(1, 9))
@pytest.mark.parametrize("levels", [1, 3, 16, 100, 255])
def test_quantizing_rounds_half_up_exactly(levels: int, bits: int) -> None:
    raw = np.arange(levels + 1, dtype=np.uint8)
    top = 2**bits - 1
    expected = [math.floor(Fraction(x * top, levels) + Fraction(1, 2)) for x in range(levels + 1)]
    quantized = quantize_images(raw, levels, bits)
    assert quantized.tolist() == expected
    assert quantized.dtype == np.uint8
    assert (quantized[0], quantized[-1]) == (0, top)


def test_a_tie_goes_up() -> None:
    assert quantize_images(np.array([1, 2, 3], np.uint8), 4, 1).tolist() == [0, 1, 1]


def test_eight_bits_of_255_levels_change_nothing() -> None:
    images = pixels(7)
    np.testing.assert_array_equal(direct(images, 255, 8), images)


encodings = st.builds(
    Encoding,
    kind=st.sampled_from(KINDS),
    bits=st.integers(1, 8),
    steps=st.integers(1, 20),
    seed=st.integers(0, 2**64 - 1),
    raw_levels=st.integers(1, 255),
)


@settings(deadline=None, max_examples=80)
@given(encoding=encodings, count=st.integers(1, 6), side=st.integers(1, 6), seed=st.integers(0, 1000))
def test_values_shape_determinism_and_independence_of_the_batch(
    encoding: Encoding, count: int, side: int, seed: int
) -> None:
    images = pixels(count, encoding.raw_levels, seed, (1, side, side))
    indices = np.random.default_rng(seed).permutation(10_000)[:count]
    spikes = encoding.encode(images, indices)
    assert spikes.dtype == np.uint8
    assert spikes.max(initial=0) <= encoding.levels
    steps = () if encoding.kind == "direct" else (encoding.steps,)
    assert spikes.shape == (*steps, count, 1, side, side)
    np.testing.assert_array_equal(spikes, encoding.encode(images, indices))
    axis = len(steps)
    one_by_one = [encoding.encode(images[i : i + 1], indices[i : i + 1]) for i in range(count)]
    np.testing.assert_array_equal(spikes, np.concatenate(one_by_one, axis=axis))
    full = encoding.encode_steps(images, indices)
    assert full.shape == (encoding.steps, *images.shape)
    np.testing.assert_array_equal(full[-1], spikes if encoding.kind == "direct" else spikes[-1])


@pytest.mark.parametrize("kind", KINDS)
def test_black_is_silent_and_white_is_loudest(kind: str) -> None:
    images = np.stack([np.zeros((1, 8, 8), np.uint8), np.full((1, 8, 8), 16, np.uint8)])
    spikes = Encoding(kind, 4, 50, raw_levels=16).encode_steps(images, [0, 1])
    assert not spikes[:, 0].any()
    expected = {"direct": 15, "rate": 1, "latency": 1}[kind]
    rows = spikes[:1, 1] if kind == "latency" else spikes[:, 1]
    assert (rows == expected).all()


@settings(deadline=None, max_examples=25)
@given(level=st.integers(1, 254), seed=st.integers(0, 2**32))
def test_the_mean_rate_is_the_intensity(level: int, seed: int) -> None:
    """Hoeffding: n independent draws leave p by more than e with probability <= 2 exp(-2 n e^2).

    e = 0.02 with n = 40,000 gives 3e-14 an example; the 16-bit limit adds at most 2**-17 to p.
    """
    images = np.full((50, 20), level, np.uint8)
    spikes = rate(images, 40, seed)
    assert abs(spikes.mean() - level / 255) <= 0.02 + 2**-17


def test_rate_limits_are_the_documented_ones() -> None:
    """Every spike recomputed from the documented formula: lane n mod 4 of word t * ceil(N / 4) + n // 4."""
    images, steps, seed = pixels(3, 200, shape=(7,)), 5, 2**63 + 1
    spikes = rate(images, steps, seed, levels=200, indices=[4, 0, 2**40])
    for row, sample in enumerate([4, 0, 2**40]):
        drawn = words(steps * 2, seed, sample, FOR_SPIKES)
        for t in range(steps):
            for n in range(7):
                lane = int(drawn[t * 2 + n // 4]) >> (16 * (n % 4)) & 0xFFFF
                limit = (2 * int(images[row, n]) * 65536 + 200) // 400
                assert spikes[t, row, n] == (lane < limit)


def test_fewer_steps_give_the_first_of_the_same_spikes() -> None:
    images = pixels(4)
    np.testing.assert_array_equal(rate(images, 20, 3)[:7], rate(images, 7, 3))


def test_seeds_and_samples_have_spikes_of_their_own() -> None:
    images = np.full((2, 400), 128, np.uint8)
    first, other = rate(images, 10, 1), rate(images, 10, 2)
    assert (first != other).mean() > 0.4
    assert (first[:, 0] != first[:, 1]).mean() > 0.4
    assert (first[0] != first[1]).mean() > 0.4


def test_the_stream_is_philox_4x64_10() -> None:
    """Known answer of the algorithm's authors (Random123, kat_vectors): key and counter all zero.

    numpy counts up before it draws, so the counter starts at 2**256 - 1.
    """
    generator = np.random.Philox(key=np.zeros(2, np.uint64), counter=np.full(4, 2**64 - 1, np.uint64))
    known = [0x16554D9ECA36314C, 0xDB20FE9D672D0FDC, 0xD7E772CEE186176B, 0x7E68B68AEC7BA23B]
    assert generator.random_raw(4).tolist() == known
    assert words(2, 5, 7, 1).tolist() == [504828371762998090, 16478217385954949891]


@settings(deadline=None, max_examples=60)
@given(steps=st.integers(1, 40), levels=st.integers(1, 255))
def test_latency_is_one_spike_brighter_earlier(steps: int, levels: int) -> None:
    raw = np.arange(levels + 1, dtype=np.uint8)[None]
    spikes = latency(raw, steps, levels=levels)[:, 0]
    assert spikes.sum(axis=0).tolist() == [0] + [1] * levels
    times = spikes[:, 1:].argmax(axis=0)
    assert times[-1] == 0
    assert (np.diff(times) <= 0).all()
    half = Fraction(1, 2)
    expected = [math.floor((steps - 1) * (1 - Fraction(x, levels)) + half) for x in range(1, levels + 1)]
    assert times.tolist() == expected


def test_latency_is_snntorchs_linear_code() -> None:
    """Equal wherever its float times are not within rounding of a half (it rounds those to even)."""
    torch, spikegen = pytest.importorskip("torch"), pytest.importorskip("snntorch.spikegen")
    raw, steps = np.arange(1, 256, dtype=np.uint8), 16
    theirs = spikegen.latency(torch.from_numpy(raw) / 255, num_steps=steps, threshold=1e-9, normalize=True, linear=True)
    ours = latency(raw[None], steps)[:, 0]
    exact = (steps - 1) * (1 - raw / 255)
    clear = np.abs(exact % 1 - 0.5) > 1e-4
    assert clear.sum() > 200
    np.testing.assert_array_equal(ours[:, clear], theirs.numpy()[:, clear])


@pytest.mark.parametrize("kind", KINDS)
def test_the_float_view_is_the_integers_over_levels(kind: str) -> None:
    torch = pytest.importorskip("torch")
    encoding, images = Encoding(kind, 5, 4), pixels(3)
    seen = encoding.tensor(images, [0, 1, 2])
    assert seen.dtype == torch.float32
    np.testing.assert_array_equal(
        seen.numpy(), encoding.encode(images, [0, 1, 2]).astype(np.float32) / np.float32(encoding.levels)
    )


@pytest.mark.parametrize(("fan_in", "bits"), [(1, 8), (64, 8), (128, 8), (129, 7), (784, 5), (3072, 3), (32767, 1)])
def test_auto_input_bits_is_the_largest_that_fits(fan_in: int, bits: int) -> None:
    assert auto_input_bits(fan_in) == bits
    assert fan_in * (2**bits - 1) * 256 <= 2**23 - 1
    assert bits == 8 or fan_in * (2 ** (bits + 1) - 1) * 256 > 2**23 - 1


def test_auto_input_bits_keeps_the_limit_it_is_given() -> None:
    assert auto_input_bits(10, max_bits=4) == 4


@pytest.mark.parametrize(
    ("fields", "what", "allowed"),
    [
        ({"kind": "phase"}, "unknown encoding", "direct, rate, latency"),
        ({"bits": 9}, "input bits", "1 .. 8"),
        ({"bits": 0}, "input bits", "1 .. 8"),
        ({"bits": True}, "input bits", "1 .. 8"),
        ({"steps": 0}, "steps", "1 .. 32768"),
        ({"steps": 2.5}, "steps", "1 .. 32768"),
        ({"seed": -1}, "seed", f"0 .. {2**64 - 1}"),
        ({"raw_levels": 256}, "levels", "1 .. 255"),
    ],
)
def test_an_encoding_out_of_range_is_refused(fields: dict[str, object], what: str, allowed: str) -> None:
    with pytest.raises(ConfigError, match=what) as caught:
        Encoding(**fields)  # type: ignore[arg-type]
    assert caught.value.allowed == allowed
    assert caught.value.got == repr(next(iter(fields.values())))


@pytest.mark.parametrize(
    ("fan_in", "max_bits", "what"),
    [(32768, 8, "too many inputs"), (0, 8, "fan-in is not"), ("784", 8, "fan-in is not"), (784, 9, "input bits")],
)
def test_auto_input_bits_refuses(fan_in: object, max_bits: int, what: str) -> None:
    with pytest.raises(ConfigError, match=what):
        auto_input_bits(fan_in, max_bits)  # type: ignore[arg-type]


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(
    ("images", "indices", "what", "got"),
    [
        (np.zeros((2, 4), np.float32), [0, 1], "not raw pixels", "float32 [2, 4]"),
        ([[0, 1]], [0], "not raw pixels", "list"),
        (np.full((2, 4), 17, np.uint8), [0, 1], "above the largest raw value", "17"),
        (np.zeros((2, 4), np.uint8), [0], "indices do not fit", "int64 [1] for 2 images"),
        (np.zeros((2, 4), np.uint8), [0.0, 1.0], "indices do not fit", "float64 [2] for 2 images"),
        (np.zeros((2, 4), np.uint8), [0, -1], "indices do not fit", "int64 [2] for 2 images"),
    ],
)
def test_bad_images_and_indices_are_refused(kind: str, images: object, indices: object, what: str, got: str) -> None:
    with pytest.raises(DataError, match=what) as caught:
        Encoding(kind, 4, 3, raw_levels=16).encode(images, indices)  # type: ignore[arg-type]
    assert caught.value.got == got
