"""The integers of one layer that fine-tuning does not change, and what they say about weights and sums."""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass, field
from typing import Any, Final

from torch import Tensor

from deploy import fixed_point as fp
from deploy.errors import ProgramError, TrainingError
from neurokd.grid import project

#: ``du`` of a current without memory: a plain LIF.
MEMORYLESS: Final = (1 << fp.DECAY_BITS) - fp.CURRENT_DECAY_OFFSET
#: Largest magnitude of a bias, in 1/64 units of a sum.
LARGEST_BIAS: Final = ((1 << (fp.BIAS_MANTISSA_BITS - 1)) - 1) << fp.BIAS_EXPONENT_MAX


@dataclass(frozen=True)
class LayerGrid:
    """The integers of one layer that fine-tuning does not change.

    Attributes:
        scale: S, the float value of one unit of synaptic sum.
        unit: Float value of one unit of what arrives (1 for spikes, ``1 / levels`` for graded input), times the
            pooling factor; its inverse is the largest integer that can arrive.
        weight_exp, weight_bits, sign_mode: As on the chip.
        vth: Threshold mantissa, 0..131071; ``threshold = vth * scale``.
        du, dv: Decays, 0..4095.
        accumulator_bits: Width of the chip's synaptic sums, at most 24.
        coarsened: How many times coarser the weights are than the search wanted, for the accumulator's sake.

    Raises:
        ProgramError: a value outside its width.
    """

    scale: float
    unit: float
    weight_exp: int
    weight_bits: int
    sign_mode: fp.SignMode
    vth: int
    du: int
    dv: int
    accumulator_bits: int = fp.STATE_BITS
    coarsened: float = field(default=1.0, compare=False)

    def __post_init__(self) -> None:
        decays = (1 << fp.DECAY_BITS) - 1
        for name, low, high in (
            ("weight_exp", fp.WEIGHT_EXP_MIN, fp.WEIGHT_EXP_MAX), ("weight_bits", 1, fp.WEIGHT_BITS),
            ("vth", 0, fp.MAX_VTH), ("du", 0, decays), ("dv", 0, decays), ("accumulator_bits", 2, fp.STATE_BITS),
        ):  # fmt: skip
            value = getattr(self, name)
            _require(type(value) is int and low <= value <= high, name, value, f"a whole number, {low}..{high}")
        for name in ("scale", "unit", "coarsened"):
            value = getattr(self, name)
            good = isinstance(value, float) and math.isfinite(value) and value > 0
            _require(good, name, value, "a finite number above 0")
        _require(self.sign_mode in fp.SIGN_MODES, "sign_mode", self.sign_mode, ", ".join(fp.SIGN_MODES))

    @property
    def weight_unit(self) -> float:
        """Float weight of one integer unit."""
        return self.scale * 2.0**self.weight_exp / self.unit

    @property
    def bias_unit(self) -> float:
        """Float bias of one unit of v, 1/64 of a synaptic sum."""
        return self.scale / (1 << fp.ACTIVATION_SHIFT)

    @property
    def threshold(self) -> float:
        """The threshold as a float."""
        return self.vth * self.scale

    @property
    def beta(self) -> float:
        """Factor of the membrane a step."""
        return 1.0 - self.dv / (1 << fp.DECAY_BITS)

    @property
    def alpha(self) -> float:
        """Factor of the current a step; 0 in a plain LIF."""
        return 1.0 - (self.du + fp.CURRENT_DECAY_OFFSET) / (1 << fp.DECAY_BITS)

    @property
    def largest_input(self) -> int:
        """Largest integer that can arrive: the input's levels (1 for spikes) times the pixels of a pooling window."""
        return round(1.0 / self.unit)

    @property
    def largest_sum(self) -> int:
        """Largest synaptic sum the accumulator holds."""
        return int((1 << (self.accumulator_bits - 1)) - 1)

    def worst_sum(self, weights: Tensor) -> int:
        """Largest magnitude that a sum of whole-number ``weights [out, ...]`` can reach, over all inputs."""
        return worst_sum(weights, self.largest_input) << max(self.weight_exp, 0)

    def plain(self) -> dict[str, Any]:
        """The fields as a plain dict."""
        return asdict(self)


def _require(good: bool, field: str, got: object, allowed: str) -> None:
    if not good:
        raise ProgramError("the grid of a layer is out of range", where=field, got=repr(got), allowed=allowed)


def worst_sum(weights: Tensor, largest_input: int) -> int:
    """Largest magnitude of a row's sum before ``weight_exp``: all its positive weights, or all its negative ones."""
    rows = weights.flatten(1)
    return int((rows.abs().sum(1) + rows.sum(1).abs()).max()) // 2 * largest_input


def round_to_grid(units: Tensor, bits: int, sign_mode: fp.SignMode) -> Tensor:
    """The nearest weights the chip can hold, in its integer units; halves go to the even multiple of the step.

    The gradient goes straight through, but cut where it would lead further out of the grid.
    """
    low, high = fp.weight_limits(bits, sign_mode)
    step = fp.weight_step(bits, sign_mode)
    return project(units / step, low / step, high / step, 1) * step


def check_sums(layer: str, grid: LayerGrid, weights: Tensor) -> None:
    """Refuse whole-number weights with which a sum could leave the accumulator, whatever arrives.

    Below 2^23 float32 holds every partial sum exactly, in whatever order they are added.

    Raises:
        TrainingError: with the bound and the way out.
    """
    low, high = fp.weight_limits(grid.weight_bits, grid.sign_mode)
    bound = weights[0].numel() * max(-low, high) * grid.largest_input << max(grid.weight_exp, 0)
    if bound <= grid.largest_sum:
        return  # no weights on this grid could
    worst = grid.worst_sum(weights)
    if worst > grid.largest_sum:
        raise TrainingError(
            "the layer's synaptic sums could leave the accumulator",
            where=f"layer {layer}",
            got=f"up to {worst}",
            allowed=f"{grid.largest_sum} ({grid.accumulator_bits} bits)",
            next_step="if the weights grew in training, lower the learning rate or add weight decay; "
            "else use fewer input bits or a smaller fan-in",
        )
