"""Thresholds, decays and scales of a layer that fine-tuning moves, always on the chip's own integers.

What is learned is a factor of the first value (threshold, scale) or the decay factor itself; what is used is rounded:
vth to a whole number, decays to 1/4096. Gradients go straight through the rounding, but not out of the range.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass, replace
from typing import Final

import torch
from torch import Tensor, nn

from deploy import fixed_point as fp
from neurokd.grid import GRID, project
from neurokd.layer_grid import MEMORYLESS, LayerGrid
from neurokd.methods import LEARNABLE, check_learn

__all__ = ["FARTHEST", "LEARNABLE", "LearnedGrid", "Moving"]

#: A learned threshold or scale stays within this factor of where it began.
FARTHEST: Final = 4.0


@dataclass(frozen=True, eq=False)
class Moving:
    """The values of a step that carry gradients; None where a value is fixed.

    Attributes:
        vth: Threshold mantissa, a whole number; beta, alpha: decay factors on the chip's grid.
        factor: What the layer's first scale is multiplied by, float64.
    """

    vth: Tensor | None = None
    beta: Tensor | None = None
    alpha: Tensor | None = None
    factor: Tensor | None = None


class LearnedGrid(nn.Module):
    """A layer's grid with parts that are parameters.

    Args:
        base: The grid at the start.
        learn: Of :data:`LEARNABLE`.
        cuba: Whether the neurons filter their current.
        chip_vth_bits: Width of the chip's threshold.
    """

    def __init__(self, base: LayerGrid, learn: Collection[str], cuba: bool, chip_vth_bits: int = fp.VTH_BITS) -> None:
        super().__init__()
        check_learn(frozenset(learn))
        self.base, self.learn = base, frozenset(learn)
        self.largest_vth = (1 << chip_vth_bits) - 1
        if "threshold" in learn:
            self.raw_threshold = nn.Parameter(torch.tensor(1.0))
        if "scale" in learn:
            self.raw_scale = nn.Parameter(torch.tensor(1.0))
        if "decays" in learn:
            self.raw_beta = nn.Parameter(torch.tensor(base.beta))
            if cuba and base.du != MEMORYLESS:
                self.raw_alpha = nn.Parameter(torch.tensor(base.alpha))

    def moving(self) -> Moving:
        """The values now, with gradients."""
        known = dict(self.named_parameters())
        vth = beta = alpha = factor = None
        if "raw_threshold" in known:
            low, high = max(1.0, self.base.vth / FARTHEST), min(self.base.vth * FARTHEST, float(self.largest_vth))
            vth = project(self.raw_threshold * self.base.vth, low, high, 1)
        if "raw_scale" in known:
            factor = project(self.raw_scale, 1.0 / FARTHEST, FARTHEST, 0).double()
        if "raw_beta" in known:
            beta = project(self.raw_beta, 1.0 / GRID, 1.0 - 1.0 / GRID, GRID)
        if "raw_alpha" in known:
            alpha = project(self.raw_alpha, 1.0 / GRID, 1.0 - 1.0 / GRID, GRID)
        return Moving(vth, beta, alpha, factor)

    def now(self, moving: Moving) -> LayerGrid:
        """The grid with the values of ``moving``."""
        changes: dict[str, int | float] = {}
        if moving.vth is not None:
            changes["vth"] = round(float(moving.vth.detach()))
        if moving.beta is not None:
            changes["dv"] = round(GRID * (1.0 - float(moving.beta.detach())))
        if moving.alpha is not None:
            changes["du"] = round(GRID * (1.0 - float(moving.alpha.detach()))) - fp.CURRENT_DECAY_OFFSET
        if moving.factor is not None:
            changes["scale"] = self.base.scale * float(moving.factor.detach())
        return replace(self.base, **changes) if changes else self.base  # type: ignore[arg-type]
