"""Multi-step LIF and CUBA-LIF neurons as functions, time first, surrogate gradients: the training twin of the chip.

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

from typing import cast

import torch
from torch import Tensor

from deploy.errors import TrainingError
from neurokd.scans import Mode, Neuron, as_parameter, scan
from neurokd.surrogates import SpikeFunction, Surrogate, as_surrogate


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
        spikes: as in :func:`lif`.

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
