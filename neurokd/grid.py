"""The chip's grid of decays, and parameters that are learned on it."""

from __future__ import annotations

from typing import Any, overload

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from deploy.errors import ConfigError

#: Steps of the chip's decay: beta = 1 - dv / 4096, dv 0..4095 (12 bits).
GRID = 4096
#: A learned threshold never falls below this.
MIN_THRESHOLD = 1.0 / 64.0


@overload
def on_grid(beta: float) -> float: ...
@overload
def on_grid(beta: Tensor) -> Tensor: ...
def on_grid(beta: float | Tensor) -> float | Tensor:
    """The nearest membrane decay the chip has: ``1 - dv / 4096`` with dv 0..4095, so 1/4096 to 1.

    Every point of the grid is exact in float32. No gradient passes through a tensor given here.

    Raises:
        ConfigError: if beta is not within 0 to 1.
    """
    return _to_grid(beta, "beta", 1, GRID)


@overload
def alpha_on_grid(alpha: float) -> float: ...
@overload
def alpha_on_grid(alpha: Tensor) -> Tensor: ...
def alpha_on_grid(alpha: float | Tensor) -> float | Tensor:
    """The nearest current decay the chip has: ``1 - (du + 1) / 4096`` with du 0..4095, so 0 to 4095/4096.

    Raises:
        ConfigError: if alpha is not within 0 to 1.
    """
    return _to_grid(alpha, "alpha", 0, GRID - 1)


def _to_grid(decay: float | Tensor, name: str, lowest: int, highest: int) -> float | Tensor:
    values = torch.as_tensor(decay, dtype=torch.float64).detach()
    if not bool(((values >= 0) & (values <= 1)).all()):
        raise ConfigError(f"{name} is a decay factor", where=name, got=decay, allowed="0 to 1")
    points = torch.round(values * GRID).clamp(lowest, highest) / GRID
    if isinstance(decay, Tensor):
        return points.to(decay.dtype) if decay.is_floating_point() else points.float()
    return float(points)


def project(raw: Tensor, lowest: float, highest: float, grid: int) -> Tensor:
    """``raw`` clamped to [lowest, highest] and, with a grid, rounded to multiples of ``1 / grid``; gradient straight
    through, but cut where a step along it would lead further out of the range."""
    value: Tensor = _Project.apply(raw, lowest, highest, grid)  # type: ignore[no-untyped-call]
    return value


class _Project(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, raw: Tensor, lowest: float, highest: float, grid: int) -> Tensor:
        ctx.save_for_backward(raw)
        ctx.lowest, ctx.highest = lowest, highest
        value = raw.clamp(lowest, highest)
        return torch.round(value * grid) / grid if grid else value

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, None, None, None]:
        (raw,), grad = ctx.saved_tensors, grads[0]
        outward = ((raw <= ctx.lowest) & (grad > 0)) | ((raw >= ctx.highest) & (grad < 0))
        return grad.masked_fill(outward, 0.0), None, None, None
