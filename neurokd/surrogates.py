"""Spike functions: a step forward, a smooth derivative backward, as torch operations and as codes of the kernels."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from torch import Tensor

from deploy.errors import ConfigError
from neurokd import kernels

#: Any function of ``v - threshold`` that returns 0 or 1 and has a gradient of its own.
SpikeFunction = Callable[[Tensor], Tensor]


class _Kind(NamedTuple):
    code: int
    slope: float
    derivative: Callable[[Tensor, float], Tensor]


def _sigmoid_derivative(x: Tensor, s: float) -> Tensor:
    e = torch.exp(-s * x.abs())
    return s * e / ((1 + e) * (1 + e))


_KINDS: dict[str, _Kind] = {
    "fast_sigmoid": _Kind(kernels.FAST_SIGMOID, 25.0, lambda x, s: 1 / (s * x.abs() + 1) ** 2),
    "atan": _Kind(kernels.ATAN, 2.0, lambda x, s: s / 2 / (1 + (math.pi / 2 * s * x) ** 2)),
    "sigmoid": _Kind(kernels.SIGMOID, 25.0, _sigmoid_derivative),
    "triangular": _Kind(kernels.TRIANGULAR, 1.0, lambda x, s: (1 - s * x.abs()).clamp(min=0)),
    "rectangular": _Kind(kernels.RECTANGULAR, 1.0, lambda x, s: s * (x.abs() < 0.5 / s).to(x.dtype)),
    "straight_through": _Kind(kernels.STRAIGHT_THROUGH, 1.0, lambda x, s: torch.ones_like(x)),
}


def surrogate_names() -> tuple[str, ...]:
    """Names :class:`Surrogate` knows."""
    return tuple(_KINDS)


@dataclass(frozen=True)
class Surrogate:
    """A spike function: ``s = x > 0`` forward, ``h'(x)`` backward, ``x = v - threshold``.

    ========================  ==============================  =======  =========================================
    name                      h'(x), k = slope                default  source
    ========================  ==============================  =======  =========================================
    ``fast_sigmoid``          1 / (k |x| + 1)**2              25       snntorch; Zenke & Ganguli 2018
    ``atan``                  k/2 / (1 + (pi/2 k x)**2)       2        snntorch (``alpha``); Fang et al. 2021
    ``sigmoid``               k e / (1 + e)**2, e = exp(-kx)  25       snntorch
    ``triangular``            max(0, 1 - k |x|)               1        Esser et al. 2016; Bellec et al. 2018
    ``rectangular``           k where |x| < 1 / (2 k)         1        STBP, Wu et al. 2018
    ``straight_through``      1                               -        snntorch
    ========================  ==============================  =======  =========================================

    ``snntorch.surrogate.triangular`` is another function in spite of its name: +1 below the threshold and -1 above.
    Pass it as a callable if that is wanted.

    Args:
        name: a name of the table.
        slope: k; 0 takes the default.

    Raises:
        ConfigError: for an unknown name or a negative slope.
    """

    name: str = "fast_sigmoid"
    slope: float = 0.0

    def __post_init__(self) -> None:
        if self.name not in _KINDS:
            raise ConfigError("unknown surrogate gradient", where="surrogate", got=self.name, allowed=", ".join(_KINDS))
        if not (self.slope >= 0 and math.isfinite(self.slope)):
            raise ConfigError(
                "the slope of a surrogate is positive",
                where=f"surrogate {self.name}",
                got=self.slope,
                allowed="a finite number > 0, or 0 for the default",
            )
        if self.slope == 0:
            object.__setattr__(self, "slope", _KINDS[self.name].slope)

    @property
    def code(self) -> int:
        """The number by which the kernels know this function."""
        return _KINDS[self.name].code

    def derivative(self, x: Tensor) -> Tensor:
        """``h'(x)``, element by element."""
        return _KINDS[self.name].derivative(x, self.slope)

    def __call__(self, x: Tensor) -> Tensor:
        """Spikes of ``x = v - threshold``, of x's dtype, with this gradient."""
        spikes: Tensor = _Spike.apply(x, self)  # type: ignore[no-untyped-call]
        return spikes


class _Spike(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, surrogate: Surrogate) -> Tensor:
        ctx.save_for_backward(x)
        ctx.surrogate = surrogate
        return (x > 0).to(x.dtype)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, None]:
        (x,) = ctx.saved_tensors
        return grads[0] * ctx.surrogate.derivative(x), None


def as_surrogate(surrogate: str | Surrogate | SpikeFunction, slope: float = 0.0) -> Surrogate | SpikeFunction:
    """A surrogate by name, as it is, or any function of ``v - threshold`` such as ``snntorch.surrogate.atan()``.

    Raises:
        ConfigError: for an unknown name, for something that cannot be called, or a slope beside a ready function.
    """
    if isinstance(surrogate, str):
        return Surrogate(surrogate, slope)
    if not callable(surrogate):
        raise ConfigError(
            "a surrogate is a name or a function of v - threshold",
            where="surrogate",
            got=type(surrogate).__name__,
            allowed=", ".join(_KINDS) + ", or a callable",
        )
    if slope:
        raise ConfigError(
            "a slope is given beside a ready surrogate function",
            where="surrogate",
            got=f"slope {slope}",
            allowed="a slope with a name only",
            next_step="put the slope into the function, or pass the surrogate's name",
        )
    return surrogate
