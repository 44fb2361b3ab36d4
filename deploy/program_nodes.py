"""What a Program consists of: the input, populations of neurons, dense and convolutional synapses, all in integers.

Frozen, and checked on construction: a value that the chip's registers cannot hold is refused with its place.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cached_property
from typing import Any, ClassVar, Literal

import numpy as np
import numpy.typing as npt

from deploy import fixed_point as fp
from deploy.errors import ProgramError

ResetRule = Literal["zero", "subtract"]
Shape = tuple[int, ...]
IntArray = npt.NDArray[np.int32]


def require(ok: bool, what: str, where: str, got: object, allowed: object, next_step: str = "") -> None:
    if not ok:
        raise ProgramError(what, where=where, got=got, allowed=allowed, next_step=next_step)


def is_whole(value: object) -> bool:
    return isinstance(value, (int, np.integer)) and not isinstance(value, bool) and int(value) >= 1


def _require_range(value: int, low: int, high: int, what: str, where: str) -> None:
    is_int = isinstance(value, (int, np.integer)) and not isinstance(value, bool)
    require(is_int and low <= value <= high, f"{what} is out of range", where, value, f"{low}..{high}")


def _freeze(array: npt.ArrayLike, dtype: type[np.generic], where: str) -> npt.NDArray[Any]:
    given = np.asarray(array)
    require(
        np.issubdtype(given.dtype, np.integer),
        "an integer array is needed",
        where,
        given.dtype,
        "integers (a float array with NaN or fractions has no place on the chip)",
        "quantize the network first",
    )
    frozen = np.ascontiguousarray(given.astype(dtype))
    require(
        np.array_equal(frozen, given),
        "values do not fit the stored width",
        where,
        given.dtype,
        dtype.__name__,
    )
    frozen.flags.writeable = False
    return frozen


@dataclass(frozen=True)
class Input:
    """Where spikes enter.

    Attributes:
        shape: Shape of one step of one sample, ``(n,)`` or ``(C, H, W)``.
        bits: 1 for plain spikes (0/1); 2..8 for graded input, unsigned ``0 .. 2^bits - 1``.
    """

    name: str
    shape: Shape
    bits: int = 1

    def __post_init__(self) -> None:
        _require_range(self.bits, 1, 8, "input bits", self.name)
        _require_shape(self.shape, self.name)

    @property
    def size(self) -> int:
        """Number of input axons."""
        return int(np.prod(self.shape))

    @property
    def largest(self) -> int:
        """Largest value one input can send in a step."""
        return (1 << self.bits) - 1


def _require_shape(shape: Shape, where: str) -> None:
    ok = len(shape) in (1, 3) and all(isinstance(n, (int, np.integer)) and n > 0 for n in shape)
    require(ok, "the shape is not understood", where, shape, "(n,) or (C, H, W), all positive")


@dataclass(frozen=True, eq=False)
class Population:
    """Neurons with common decays and threshold.

    Attributes:
        shape: ``(n,)`` or ``(C, H, W)``.
        du, dv: Decays of current and membrane, 0..4095 (``du = 4095``: memoryless current, plain LIF).
        vth: Threshold mantissa, 0..131071; a neuron spikes when ``v > vth << 6``.
        bias_mant: int16 ``[n]``, signed 13 bit; added to v each step as ``bias_mant << bias_exp``.
        bias_exp: 0..7, one for the population.
        reset: ``zero`` (the chip's), or ``subtract``, which only CPU simulators run.
        refractory: Steps after a spike in which v is held and no spike leaves while u goes on; 0 on the chip, more
            only on CPU simulators.
        spiking: False for a readout: no threshold and no reset, v is the answer, nothing leaves.
        scale: Float value of one unit of synaptic sum (64 units of v), for reading membranes; 0 if unknown.
    """

    name: str
    shape: Shape
    du: int
    dv: int
    vth: int
    bias_mant: npt.NDArray[Any]
    bias_exp: int = 0
    reset: ResetRule = "zero"
    refractory: int = 0
    spiking: bool = True
    scale: float = 0.0

    def __post_init__(self) -> None:
        _require_shape(self.shape, self.name)
        _require_range(self.du, 0, (1 << fp.DECAY_BITS) - 1, "du", self.name)
        _require_range(self.dv, 0, (1 << fp.DECAY_BITS) - 1, "dv", self.name)
        _require_range(self.vth, 0, fp.MAX_VTH, "vth", self.name)
        _require_range(self.bias_exp, 0, fp.BIAS_EXPONENT_MAX, "bias_exp", self.name)
        require(self.reset in ("zero", "subtract"), "unknown reset rule", self.name, self.reset, "zero, subtract")
        _require_range(self.refractory, 0, fp.REFRACTORY_MAX, "refractory period", self.name)
        plain = (self.vth, self.reset, self.refractory) == (0, "zero", 0)
        require(
            self.spiking or plain,
            "a population that does not spike has no threshold, reset or refractory period",
            self.name,
            f"vth {self.vth}, reset {self.reset}, refractory {self.refractory}",
            "vth 0, reset zero, refractory 0",
        )
        known = isinstance(self.scale, (int, float)) and math.isfinite(self.scale) and self.scale >= 0
        require(known, "scale is out of range", self.name, self.scale, "a finite number, 0 where it is unknown")
        object.__setattr__(self, "bias_mant", _freeze(self.bias_mant, np.int16, f"{self.name}.bias_mant"))
        require(
            self.bias_mant.shape == (self.size,),
            "bias has the wrong shape",
            self.name,
            self.bias_mant.shape,
            (self.size,),
        )
        limit = 1 << (fp.BIAS_MANTISSA_BITS - 1)
        inside = bool(np.all((self.bias_mant >= -limit) & (self.bias_mant < limit)))
        require(inside, "bias_mant is out of range", self.name, _span(self.bias_mant), f"{-limit}..{limit - 1}")

    @property
    def size(self) -> int:
        """Number of neurons."""
        return int(np.prod(self.shape))

    @cached_property
    def bias(self) -> IntArray:
        """Effective bias ``bias_mant << bias_exp``, int32 ``[n]``, in units of v."""
        return self.bias_mant.astype(np.int32) << self.bias_exp


def _span(array: npt.NDArray[Any]) -> str:
    return f"{int(array.min())}..{int(array.max())}" if array.size else "empty"


@dataclass(frozen=True, eq=False)
class _Synapse:
    """What Dense and Conv share. ``weights`` are effective values: multiples of the grid's step, before ``weight_exp``.

    Attributes:
        source, target: Names of an input or population, and of a population.
        weight_exp: The sum is shifted by it (left if positive, else right, toward minus infinity), -8..7.
        weight_bits: 1..8; with ``sign_mode`` it fixes the grid (8 mixed: even values in [-256, 254]).
        delay: Steps a spike waits on its way; at least 1 where source does not come before target.
    """

    AXES: ClassVar[tuple[str, ...]] = ()  # of the weights

    name: str
    source: str
    target: str
    weights: npt.NDArray[Any]
    weight_exp: int = 0
    weight_bits: int = 8
    sign_mode: fp.SignMode = "mixed"
    delay: int = 0

    def __post_init__(self) -> None:
        _require_range(self.weight_exp, fp.WEIGHT_EXP_MIN, fp.WEIGHT_EXP_MAX, "weight_exp", self.name)
        _require_range(self.weight_bits, 1, fp.WEIGHT_BITS, "weight_bits", self.name)
        _require_range(self.delay, 0, 62, "delay", self.name)
        require(
            self.sign_mode in fp.SIGN_MODES,
            "unknown sign mode",
            self.name,
            self.sign_mode,
            ", ".join(fp.SIGN_MODES),
        )
        object.__setattr__(self, "weights", _freeze(self.weights, np.int16, f"{self.name}.weights"))
        low, high = fp.weight_limits(self.weight_bits, self.sign_mode)
        step = fp.weight_step(self.weight_bits, self.sign_mode)
        inside = bool(np.all((self.weights >= low) & (self.weights <= high) & (self.weights % step == 0)))
        allowed = f"multiples of {step} in {low}..{high} ({self.weight_bits} bits, {self.sign_mode})"
        require(inside, "weights are off the chip's grid", self.name, _span(self.weights), allowed)
        ranked = self.weights.ndim == len(self.AXES)
        require(ranked, "weights have the wrong rank", self.name, self.weights.shape, f"[{', '.join(self.AXES)}]")


@dataclass(frozen=True, eq=False)
class Dense(_Synapse):
    """All-to-all synapses: ``weights`` int16 ``[n_target, n_source]``, both flattened row-major."""

    AXES: ClassVar[tuple[str, ...]] = ("n_out", "n_in")


@dataclass(frozen=True, eq=False)
class Conv(_Synapse):
    """Cross-correlation as torch's Conv2d: ``weights`` int16 ``[O, I/groups, kh, kw]`` on a ``(C, H, W)`` source."""

    AXES: ClassVar[tuple[str, ...]] = ("O", "I/groups", "kh", "kw")

    stride: tuple[int, int] = (1, 1)
    padding: tuple[int, int] = (0, 0)
    dilation: tuple[int, int] = (1, 1)
    groups: int = 1

    def __post_init__(self) -> None:
        super().__post_init__()
        for what, pair, low in (
            ("stride", self.stride, 1),
            ("padding", self.padding, 0),
            ("dilation", self.dilation, 1),
        ):
            ok = len(pair) == 2 and all(isinstance(n, (int, np.integer)) and n >= low for n in pair)
            require(ok, f"{what} is out of range", self.name, pair, f"two integers of at least {low}")
        _require_range(self.groups, 1, int(self.weights.shape[0]), "groups", self.name)

    def output_shape(self, source: Shape) -> Shape:
        """Shape ``(O, H', W')`` for a source of shape ``(C, H, W)``.

        Raises:
            ProgramError: the source is no image, its channels do not match, or the kernel is larger than it.
        """
        out_channels, per_group, *kernel = self.weights.shape
        fits = len(source) == 3 and source[0] == per_group * self.groups and out_channels % self.groups == 0
        require(fits, "channels do not match", self.name, source, f"({per_group * self.groups}, H, W)")
        sides = [
            (side + 2 * pad - dilation * (k - 1) - 1) // stride + 1
            for side, pad, dilation, k, stride in zip(
                source[1:], self.padding, self.dilation, kernel, self.stride, strict=True
            )
        ]
        require(
            min(sides) >= 1,
            "the kernel is larger than the image",
            self.name,
            source,
            f"kernel {tuple(kernel)}",
        )
        return (int(out_channels), int(sides[0]), int(sides[1]))


Synapse = Dense | Conv
