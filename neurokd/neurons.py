"""LIF and CUBA-LIF neurons as modules: parameters on the chip's grid, in front of :mod:`neurokd.functional`."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor, nn

from deploy.errors import ConfigError
from neurokd.backward_scans import cuba_lif_backward, lif_backward
from neurokd.functional import cuba_lif, lif
from neurokd.grid import GRID, MIN_THRESHOLD, alpha_on_grid, on_grid, project
from neurokd.surrogates import SpikeFunction, Surrogate, as_surrogate, surrogate_names

__all__ = [
    "GRID",
    "LIF",
    "MIN_THRESHOLD",
    "CubaLIF",
    "CubaState",
    "LIFState",
    "SpikeFunction",
    "Surrogate",
    "alpha_on_grid",
    "as_surrogate",
    "cuba_lif",
    "cuba_lif_backward",
    "lif",
    "lif_backward",
    "on_grid",
    "surrogate_names",
]


class LIFState(NamedTuple):
    """Membranes [B, *shape] after a step and its reset."""

    v: Tensor


class CubaState(NamedTuple):
    """Synaptic currents and membranes [B, *shape] after a step and its reset."""

    i: Tensor
    v: Tensor


class _SpikingModule(nn.Module):
    """Parameters of a neuron layer: stored raw, read on the chip's grid."""

    raw_beta: Tensor
    raw_threshold: Tensor

    def __init__(
        self,
        beta: float | Tensor,
        threshold: float | Tensor,
        learn_beta: bool,
        learn_threshold: bool,
        surrogate: str | Surrogate | SpikeFunction,
        slope: float,
        detach_reset: bool,
    ) -> None:
        super().__init__()
        _check_threshold(threshold)
        self.learn_beta, self.learn_threshold, self.detach_reset = learn_beta, learn_threshold, detach_reset
        self.surrogate = as_surrogate(surrogate, slope)
        self._hold("raw_beta", on_grid(_tensor(beta)), learn_beta)
        self._hold("raw_threshold", _tensor(threshold), learn_threshold)

    def _hold(self, name: str, value: Tensor, learned: bool) -> None:
        if learned:
            self.register_parameter(name, nn.Parameter(value))
        else:
            self.register_buffer(name, value)

    @property
    def beta(self) -> Tensor:
        """Membrane decay as used: on the grid 1/4096 .. 1, where it is learned .. 4095/4096."""
        highest = 1.0 - 1.0 / GRID if self.learn_beta else 1.0
        return project(self.raw_beta, 1.0 / GRID, highest, GRID)

    @property
    def threshold(self) -> Tensor:
        """Threshold as used; a learned one is at least MIN_THRESHOLD."""
        if not self.learn_threshold:
            return self.raw_threshold
        return project(self.raw_threshold, MIN_THRESHOLD, float("inf"), 0)

    def extra_repr(self) -> str:
        """Parameters in reading order, a tensor by its shape."""
        parts = [
            f"{name}={_brief(getattr(self, name))}" for name in ("alpha", "beta", "threshold") if hasattr(self, name)
        ]
        return ", ".join([*parts, f"surrogate={self.surrogate}", f"detach_reset={self.detach_reset}"])


class LIF(_SpikingModule):
    """A layer of LIF neurons over all time steps; see :func:`lif`.

    Args:
        beta: membrane decay, a number or a tensor that broadcasts to the neurons' shape; rounded with :func:`on_grid`.
        threshold: likewise, > 0.
        learn_beta: train beta. The parameter ``raw_beta`` moves freely, ``beta`` is its projection on the grid within
            1/4096 .. 4095/4096, and the gradient goes straight through.
        learn_threshold: train the threshold (at least MIN_THRESHOLD).
        surrogate: a name, a :class:`Surrogate`, or a function such as ``snntorch.surrogate.atan()`` (plain loop).
        slope: of a surrogate given by name; 0 is its default.
        detach_reset: no gradient through the reset (snntorch: False).

    Raises:
        ConfigError: beta outside 0 .. 1, a threshold that is not positive, an unknown surrogate.
    """

    def __init__(
        self,
        beta: float | Tensor = 0.9,
        threshold: float | Tensor = 1.0,
        *,
        learn_beta: bool = False,
        learn_threshold: bool = False,
        surrogate: str | Surrogate | SpikeFunction = "fast_sigmoid",
        slope: float = 0.0,
        detach_reset: bool = False,
    ) -> None:
        super().__init__(beta, threshold, learn_beta, learn_threshold, surrogate, slope, detach_reset)

    def forward(
        self,
        current: Tensor,
        state: LIFState | None = None,
        steps: int | None = None,
        spikes: torch.dtype | None = None,
    ) -> tuple[Tensor, LIFState]:
        """Spikes [T, B, *shape] and the state after them; ``current``, ``steps``, ``spikes`` as in :func:`lif`."""
        fired, v = lif(
            current,
            beta=self.beta,
            threshold=self.threshold,
            v0=None if state is None else state.v,
            steps=steps,
            surrogate=self.surrogate,
            detach_reset=self.detach_reset,
            spikes=spikes,
        )
        return fired, LIFState(v)


class CubaLIF(_SpikingModule):
    """A layer of current-based LIF neurons over all time steps; see :func:`cuba_lif`.

    Args:
        alpha: decay of the synaptic current, rounded with :func:`alpha_on_grid`.
        beta: decay of the membrane, rounded with :func:`on_grid`.
        threshold: > 0.
        bias_shape: shape of a learned bias on the membrane (zeros at first), broadcasting to the neurons' shape; None
            for none. The synapse in front has no bias: the chip adds it to the membrane, after the filter.
        learn_alpha: train alpha, within 0 .. 4095/4096.
        learn_beta: as in :class:`LIF`.
        learn_threshold: as in :class:`LIF`.
        surrogate: as in :class:`LIF`.
        slope: as in :class:`LIF`.
        detach_reset: as in :class:`LIF`.

    Raises:
        ConfigError: a decay outside 0 .. 1, a threshold that is not positive, an unknown surrogate.
    """

    raw_alpha: Tensor
    bias: Tensor | None

    def __init__(
        self,
        alpha: float | Tensor = 0.5,
        beta: float | Tensor = 0.9,
        threshold: float | Tensor = 1.0,
        bias_shape: tuple[int, ...] | None = None,
        *,
        learn_alpha: bool = False,
        learn_beta: bool = False,
        learn_threshold: bool = False,
        surrogate: str | Surrogate | SpikeFunction = "fast_sigmoid",
        slope: float = 0.0,
        detach_reset: bool = False,
    ) -> None:
        super().__init__(beta, threshold, learn_beta, learn_threshold, surrogate, slope, detach_reset)
        self._hold("raw_alpha", alpha_on_grid(_tensor(alpha)), learn_alpha)
        self.register_parameter("bias", None if bias_shape is None else nn.Parameter(torch.zeros(bias_shape)))

    @property
    def alpha(self) -> Tensor:
        """Current decay as used: on the grid 0 .. 4095/4096."""
        return project(self.raw_alpha, 0.0, 1.0 - 1.0 / GRID, GRID)

    def forward(
        self,
        current: Tensor,
        state: CubaState | None = None,
        steps: int | None = None,
        spikes: torch.dtype | None = None,
    ) -> tuple[Tensor, CubaState]:
        """Spikes [T, B, *shape] and the state after them; ``current``, ``steps``, ``spikes`` as in :func:`cuba_lif`."""
        fired, i, v = cuba_lif(
            current,
            alpha=self.alpha,
            beta=self.beta,
            threshold=self.threshold,
            bias=self.bias,
            i0=None if state is None else state.i,
            v0=None if state is None else state.v,
            steps=steps,
            surrogate=self.surrogate,
            detach_reset=self.detach_reset,
            spikes=spikes,
        )
        return fired, CubaState(i, v)


def _tensor(value: float | Tensor) -> Tensor:
    return torch.as_tensor(value, dtype=torch.float32).detach().clone()


def _check_threshold(threshold: float | Tensor) -> None:
    values = _tensor(threshold)
    if not bool((torch.isfinite(values) & (values > 0)).all()):
        raise ConfigError("a threshold is positive", where="threshold", got=threshold, allowed="a finite number > 0")


def _brief(value: Tensor) -> str:
    return f"{value.item():.6g}" if value.numel() == 1 else str(list(value.shape))
