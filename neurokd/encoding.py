"""From pixels to what the chip receives: direct (graded), rate and latency codes, all in integers.

Raw pixels are uint8 ``0 .. raw_levels`` (255, or 16 for the 8x8 digits). Nothing here rounds in floating point, so
training, the simulator and the chip are given the same numbers on every machine.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal, get_args

import numpy as np
from numpy.typing import ArrayLike, NDArray

from deploy.errors import ConfigError, DataError
from neurokd.data.draws import FOR_SPIKES, checked_seed, whole_number, words

if TYPE_CHECKING:
    import torch

Kind = Literal["direct", "rate", "latency"]
Images = NDArray[np.uint8]

STATE_LIMIT = 2**23 - 1  # the largest value of the chip's signed 24-bit state
LARGEST_WEIGHT = 256  # magnitude of an 8-bit synaptic weight: even values in -256 .. 254, or 0 .. 255
MOST_STEPS = 2**15
LANES, LANE_VALUES = 4, 2**16  # random 16-bit values in a 64-bit word
ALWAYS = LANE_VALUES - 1  # the limit of the brightest pixel; the next lower raw value has at most 65,279


@dataclass(frozen=True)
class Encoding:
    """How images are given to the network.

    Attributes:
        kind: ``direct`` (a graded spike, the same at every step), ``rate`` (seeded Bernoulli spikes) or ``latency``
            (one spike a pixel, brighter earlier).
        bits: The pixels are first brought to ``2**bits`` grey levels (:func:`quantize_images`), 1 .. 8. A direct
            spike carries that integer; rate and latency spikes are binary and made from it.
        steps: Time steps T, 1 .. 32768.
        seed: Of the rate code, 0 .. 2**64 - 1.
        raw_levels: The largest raw pixel value of the data set (``Dataset.levels``), 1 .. 255.

    Raises:
        ConfigError: an unknown kind, or a value out of range.
    """

    kind: Kind = "direct"
    bits: int = 8
    steps: int = 16
    seed: int = 0
    raw_levels: int = 255

    def __post_init__(self) -> None:
        if self.kind not in get_args(Kind):
            raise ConfigError(
                "unknown encoding",
                where="encoding",
                got=repr(self.kind),
                allowed=", ".join(get_args(Kind)),
                next_step="choose one of these",
            )
        _bits(self.bits)
        _steps(self.steps)
        _raw_levels(self.raw_levels)
        checked_seed(self.seed)

    @property
    def levels(self) -> int:
        """The largest integer a spike carries: ``2**bits - 1`` for direct, else 1; the network sees integer/levels."""
        return int(2**self.bits - 1) if self.kind == "direct" else 1

    def encode(self, images: Images, indices: ArrayLike) -> Images:
        """Encode a batch.

        Args:
            images: Raw pixels, uint8 ``[B, *shape]``.
            indices: The samples' numbers in their split, ``[B]``: they key the rate code, so a sample gets the
                same spikes in any batch.

        Returns:
            uint8 integers 0 .. ``levels``: ``[B, *shape]`` for direct (the same at each of the T steps), else
            ``[T, B, *shape]``.

        Raises:
            DataError: wrong type, pixels above ``raw_levels``, or not one index an image.
        """
        _pixels(images, self.raw_levels)
        _samples(images, indices)
        grey = direct(images, self.raw_levels, self.bits)
        if self.kind == "direct":
            return grey
        if self.kind == "rate":
            return rate(grey, self.steps, self.seed, levels=2**self.bits - 1, indices=indices)
        return latency(grey, self.steps, levels=2**self.bits - 1)

    def encode_steps(self, images: Images, indices: ArrayLike) -> Images:
        """As :meth:`encode`, always ``[T, B, *shape]``; direct is a read-only view that repeats without copying."""
        encoded = self.encode(images, indices)
        return np.broadcast_to(encoded, (self.steps, *encoded.shape)) if self.kind == "direct" else encoded

    def tensor(self, images: Images, indices: ArrayLike) -> torch.Tensor:
        """What float training sees: :meth:`encode` / ``levels`` as float32, same shape, values 0 .. 1."""
        import torch

        return torch.from_numpy(self.encode(images, indices)).to(torch.float32) / self.levels


def quantize_images(images: Images, levels: int, bits: int) -> Images:
    """Requantize raw pixels to ``bits`` bits, rounding half up, in integers only.

    ``q = floor((2 * x * M + L) / (2 * L))`` with ``M = 2**bits - 1`` and ``L = levels``: the nearest integer to
    ``x * M / L``, the upper one of two equally near. 0 stays 0, ``L`` becomes ``M``.

    Args:
        images: uint8, any shape, 0 .. ``levels``.
        levels: L, the largest raw value, 1 .. 255.
        bits: 1 .. 8.

    Returns:
        uint8, same shape, 0 .. M.

    Raises:
        ConfigError: ``levels`` or ``bits`` out of range.
        DataError: not uint8, or a pixel above ``levels``.
    """
    bits, levels = _bits(bits), _raw_levels(levels)
    _pixels(images, levels)
    return _nearest(2**bits - 1, levels).astype(np.uint8).take(images)


def direct(images: Images, levels: int, bits: int) -> Images:
    """Graded input: :func:`quantize_images`, ``[B, *shape]``, presented unchanged at every step."""
    return quantize_images(images, levels, bits)


def rate(
    images: Images, steps: int, seed: int, *, levels: int = 255, indices: ArrayLike | None = None
) -> NDArray[np.uint8]:
    """Seeded Bernoulli spikes: pixel x fires at each step with probability x / levels, independently.

    A pixel fires where its 16-bit random value is below ``floor((2 * x * 65536 + L) / (2 * L))``: the probability
    is within 2**-17 of x / L, and exact for 0 (never) and L (always). The values are lane n mod 4 of word
    ``t * ceil(N / 4) + n // 4`` of the sample's own Philox stream (seed, index), N pixels a sample. So a sample's
    spikes depend on (seed, index) only, not on the batch, and fewer steps give the first of the same spikes.

    Args:
        images: uint8 ``[B, *shape]``, 0 .. ``levels``.
        steps: T.
        seed: 0 .. 2**64 - 1.
        levels: L, the largest raw value, 1 .. 255.
        indices: ``[B]`` sample numbers, not negative; default 0 .. B-1.

    Returns:
        uint8 ``[T, B, *shape]``, 0 or 1.

    Raises:
        ConfigError: ``steps``, ``seed`` or ``levels`` out of range.
        DataError: not uint8, a pixel above ``levels``, not one index an image, a negative index.
    """
    steps, seed, levels = _steps(steps), checked_seed(seed), _raw_levels(levels)
    _pixels(images, levels)
    samples = _samples(images, np.arange(len(images)) if indices is None else indices)
    limits = np.minimum(_nearest(LANE_VALUES, levels), ALWAYS).astype(np.uint16)
    limits = limits.take(images.reshape(len(images), -1))
    size = limits.shape[1]
    spikes = np.empty((steps, len(images), size), np.uint8)
    for row, sample in enumerate(samples):
        lanes = _lanes(steps, size, seed, int(sample))
        np.less(lanes[:, :size], limits[row], out=spikes[:, row].view(np.bool_))
    return spikes.reshape(steps, *images.shape)


def _lanes(steps: int, size: int, seed: int, sample: int) -> NDArray[np.uint16]:
    """16-bit random values ``[T, >= size]`` of one sample; little-endian lanes on every machine.

    The topmost value is folded into the one below, which only the limit ``ALWAYS`` is above: so 16-bit comparisons
    still let the brightest pixel fire at every step (256 x 784 pixels, 16 steps: 9 ms, with 32-bit ones 23 ms).
    """
    width = -(-size // LANES)
    drawn = words(steps * width, seed, sample, FOR_SPIKES).astype("<u8", copy=False)
    lanes: NDArray[np.uint16] = drawn.view("<u2").reshape(steps, width * LANES)
    np.minimum(lanes, np.uint16(ALWAYS - 1), out=lanes)
    return lanes


def latency(images: Images, steps: int, *, levels: int = 255) -> NDArray[np.uint8]:
    """One spike for each pixel that is not 0, brighter earlier.

    Spike step ``t = floor((2 * (T - 1) * (L - x) + L) / (2 * L))``: the nearest step to ``(T - 1) * (1 - x / L)``,
    half up. The brightest pixel fires at step 0, the dimmest last; 0 never fires. This is the linear, normalized
    time-to-first-spike code of snntorch (``spikegen.latency(linear=True, normalize=True)``) in integers.

    Args:
        images: uint8 ``[B, *shape]``, 0 .. ``levels``.
        steps: T.
        levels: L, the largest raw value, 1 .. 255.

    Returns:
        uint8 ``[T, B, *shape]``, 0 or 1.

    Raises:
        ConfigError: ``steps`` or ``levels`` out of range.
        DataError: not uint8, or a pixel above ``levels``.
    """
    steps, levels = _steps(steps), _raw_levels(levels)
    _pixels(images, levels)
    times = _nearest(steps - 1, levels)[::-1].copy()
    times[0] = steps  # beyond the last step: never
    times_of = times.astype(np.uint16).take(images)
    spikes = np.empty((steps, *images.shape), np.uint8)
    for step in range(steps):
        np.equal(times_of, np.uint16(step), out=spikes[step].view(np.bool_))
    return spikes


def auto_input_bits(fan_in: int, max_bits: int = 8) -> int:
    """The widest graded input whose sum can never leave the chip's 24-bit state.

    The largest b <= ``max_bits`` with ``fan_in * (2**b - 1) * 256 <= 2**23 - 1``: 256 is the largest magnitude of
    an 8-bit weight, 2**23 - 1 the largest state.

    Args:
        fan_in: Inputs of one neuron of the first layer (for a convolution: kernel size x channels), at least 1.
        max_bits: 1 .. 8.

    Raises:
        ConfigError: an argument out of range, or not even one bit fits (fan-in above 32,767).
    """
    fan_in, max_bits = whole_number(fan_in, "fan-in", 1, 2**31 - 1), _bits(max_bits)
    fitting = [b for b in range(1, max_bits + 1) if fan_in * (2**b - 1) * LARGEST_WEIGHT <= STATE_LIMIT]
    if fitting:
        return fitting[-1]
    raise ConfigError(
        "the first layer has too many inputs for the chip's 24-bit sum",
        where="fan-in of the first layer",
        got=fan_in,
        allowed=f"at most {STATE_LIMIT // LARGEST_WEIGHT}",
        next_step="begin with a convolution or a pooling layer",
    )


def _nearest(top: int, levels: int) -> NDArray[np.int64]:
    """``floor((2 * x * top + levels) / (2 * levels))`` for x = 0 .. levels."""
    raw = np.arange(levels + 1, dtype=np.int64)
    return (2 * raw * top + levels) // (2 * levels)


def _bits(value: object) -> int:
    return whole_number(value, "input bits", 1, 8)


def _steps(value: object) -> int:
    return whole_number(value, "steps", 1, MOST_STEPS)


def _raw_levels(value: object) -> int:
    return whole_number(value, "levels", 1, 255)


def _pixels(images: Images, levels: int) -> None:
    if not isinstance(images, np.ndarray) or images.dtype != np.uint8 or images.ndim < 1:
        got = f"{images.dtype} {list(images.shape)}" if isinstance(images, np.ndarray) else type(images).__name__
        raise DataError(
            "the images are not raw pixels",
            where="encoding",
            got=got,
            allowed="a numpy array of uint8, [B, ...]",
            next_step="give the images as the data set holds them",
        )
    largest = int(images.max(initial=0))
    if largest > levels:
        raise DataError(
            "a pixel is above the largest raw value",
            where="encoding",
            got=largest,
            allowed=f"0 .. {levels}",
            next_step="give the encoding the data set's own levels (Dataset.levels)",
        )


def _samples(images: Images, indices: ArrayLike) -> NDArray[np.int64]:
    samples = np.asarray(indices)
    if samples.shape == (len(images),) and samples.dtype.kind in "iu" and not (samples < 0).any():
        return samples.astype(np.int64)
    raise DataError(
        "the sample indices do not fit the images",
        where="encoding",
        got=f"{samples.dtype} {list(samples.shape)} for {len(images)} images",
        allowed="one whole number an image, not negative",
        next_step="give the samples' positions in their split",
    )
