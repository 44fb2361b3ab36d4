"""Multi-step LIF and CUBA-LIF neurons, time first, with surrogate gradients: the training twin of the chip.

    LIF       v = beta * v + I               s = v > threshold (strict)      v = 0 where s
    CUBA-LIF  i = alpha * i + I              v = beta * v + i + bias         s and v as above

Step by step this is ``snntorch.Leaky`` / ``snntorch.Synaptic`` with ``reset_mechanism="zero",
reset_delay=False``, in the forward pass and in every gradient. snntorch 1.0.0 (``_neurons/leaky.py``) resets with
``mem - spk * mem`` and does *not* detach ``spk`` there, so the gradient flows through the reset as well:

    dL/dx = (dL/ds - dL/dv * x) * h'(x - threshold) + dL/dv * (1 - s),     x = v before the reset

``detach_reset=True`` drops the ``dL/dv * x`` part, as much of the literature does.

CPU float32 currents take the fused scans of :mod:`neurokd.kernels`; other devices and dtypes, surrogates given as
functions, and ``fused=False`` take a plain torch loop. The spikes of the two are equal bit for bit. bfloat16 and
float16 currents are integrated in float32.

One difference to snntorch: a first state ``v0`` above the threshold is integrated as it is, as on the chip, where
snntorch would reset it first. States returned from here are never above the threshold.
"""

from __future__ import annotations

from typing import NamedTuple, cast

import torch
from torch import Tensor, nn

from deploy.errors import ConfigError, TrainingError
from neurokd.grid import GRID, MIN_THRESHOLD, alpha_on_grid, on_grid, project
from neurokd.scans import Mode, Neuron, as_parameter, cuba_lif_backward, lif_backward, scan
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


def _geometry(current: Tensor, steps: int | None, what: str) -> tuple[int, torch.Size]:
    """(T, [B, *shape]) of a current, or a typed error."""
    if not current.is_floating_point():
        raise TrainingError(
            "the input current is not floating point", where=what, got=current.dtype, allowed="float32 (or float64)"
        )
    if steps is None and current.dim() < 2:
        raise TrainingError(
            "the input current has no time or batch axis",
            where=what,
            got=list(current.shape),
            allowed="[T, B, *shape], or [B, *shape] with steps=T",
        )
    count, batch = (current.shape[0], current.shape[1:]) if steps is None else (steps, current.shape)
    if count < 1 or len(batch) < 1:
        raise TrainingError(
            "a scan needs at least one time step and a batch axis",
            where=what,
            got=f"shape {list(current.shape)}, steps {steps}",
            allowed="T >= 1 and [B, *shape]",
        )
    return count, batch


def _wide(current: Tensor) -> Tensor:
    """An empty tensor of the type that currents like this one are integrated in."""
    narrow = current.dtype in (torch.bfloat16, torch.float16)
    return current.new_empty(0, dtype=torch.float32 if narrow else current.dtype)


def _state(value: Tensor | None, batch: torch.Size, like: Tensor, name: str) -> Tensor:
    if value is None:
        return _wide(like).new_zeros(batch)
    if value.shape != batch:
        raise TrainingError(
            "a neuron state does not fit the current", where=name, got=list(value.shape), allowed=list(batch)
        )
    return value.to(_wide(like).dtype)


def lif(
    current: Tensor,
    *,
    beta: float | Tensor = 0.9,
    threshold: float | Tensor = 1.0,
    v0: Tensor | None = None,
    steps: int | None = None,
    surrogate: str | Surrogate | SpikeFunction = "fast_sigmoid",
    detach_reset: bool = False,
    fused: bool = True,
    spikes: torch.dtype | None = None,
) -> tuple[Tensor, Tensor]:
    """Leaky integrate-and-fire over all steps: ``v = beta * v + I; s = v > threshold; v = 0 where s``.

    Args:
        current: I, [T, B, *shape]; or, with ``steps=T``, [B, *shape] held for T steps (direct encoding: its
            gradient comes back summed over T, and no [T, B, *shape] of it is made).
        beta: decay, one number or a tensor that broadcasts to ``shape``. Used as it is; see :func:`on_grid`.
        threshold: likewise.
        v0: membranes before the first step [B, *shape]; zeros if absent.
        steps: T for a held current.
        surrogate: a name, a :class:`Surrogate`, or a function of ``v - threshold``.
        detach_reset: no gradient through the reset. snntorch lets it through, so False is its equal.
        fused: False takes the plain torch loop.
        spikes: type of the spikes, the current's if absent.

    Returns:
        spikes [T, B, *shape], 0 or 1; v after the last step and its reset [B, *shape], float32
        where the current is narrower. Gradients reach current, v0, beta and threshold, also from v.

    Raises:
        TrainingError: shapes or dtypes that do not fit.
        ConfigError: an unknown surrogate.
    """
    count, batch = _geometry(current, steps, "lif")
    wide = _wide(current)
    neuron = Neuron(
        alpha=None,
        beta=as_parameter(beta, batch, wide, "beta"),
        threshold=as_parameter(threshold, batch, wide, "threshold"),
        bias=None,
        i0=None,
        v0=_state(v0, batch, current, "v0"),
    )
    mode = Mode(count, steps is not None, as_surrogate(surrogate), detach_reset, fused, spikes)
    fired, _, v = scan(current, neuron, mode)
    return fired, v


def cuba_lif(
    current: Tensor,
    *,
    alpha: float | Tensor,
    beta: float | Tensor = 0.9,
    threshold: float | Tensor = 1.0,
    bias: Tensor | None = None,
    i0: Tensor | None = None,
    v0: Tensor | None = None,
    steps: int | None = None,
    surrogate: str | Surrogate | SpikeFunction = "fast_sigmoid",
    detach_reset: bool = False,
    fused: bool = True,
    spikes: torch.dtype | None = None,
) -> tuple[Tensor, Tensor, Tensor]:
    """Current-based LIF: ``i = alpha * i + I; v = beta * v + i + bias; s = v > threshold; v = 0 where s``.

    Args:
        current: as in :func:`lif`.
        alpha: decay of the synaptic current, one number or a tensor that broadcasts to ``shape``.
        beta: decay of the membrane.
        threshold: of the membrane.
        bias: added to the membrane at every step (never filtered by alpha), broadcasts to ``shape``.
        i0: synaptic currents before the first step [B, *shape]; zeros if absent.
        v0: membranes before the first step [B, *shape]; zeros if absent.
        steps: T for a held current.
        surrogate: as in :func:`lif`.
        detach_reset: as in :func:`lif`.
        fused: False takes the plain torch loop.

    Returns:
        spikes [T, B, *shape], i and v after the last step [B, *shape].

    Raises:
        TrainingError: shapes or dtypes that do not fit.
        ConfigError: an unknown surrogate.
    """
    count, batch = _geometry(current, steps, "cuba_lif")
    wide = _wide(current)
    neuron = Neuron(
        alpha=as_parameter(alpha, batch, wide, "alpha"),
        beta=as_parameter(beta, batch, wide, "beta"),
        threshold=as_parameter(threshold, batch, wide, "threshold"),
        bias=as_parameter(bias, batch, wide, "bias"),
        i0=_state(i0, batch, current, "i0"),
        v0=_state(v0, batch, current, "v0"),
    )
    mode = Mode(count, steps is not None, as_surrogate(surrogate), detach_reset, fused, spikes)
    fired, i, v = scan(current, neuron, mode)
    return fired, cast(Tensor, i), v


# Modules ----------------------------------------------------------------------------------------------------------


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
