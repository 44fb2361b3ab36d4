"""What a network says about a batch beside its SAT: logits, output currents, membranes, the layers' spikes."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field

import torch
from torch import Tensor

from deploy.errors import TrainingError

#: What can be asked for beside the SAT.
EXTRAS = ("logits", "currents", "membranes", "layers")


@dataclass(frozen=True)
class Outputs:
    """What a network said about a batch; what was not asked for is None.

    The logits of a spiking network are the mean over time of its output neurons' input current, after the norm: what
    the literature reads from a last layer without neurons. In a CUBA-LIF layer that is the current before the synaptic
    filter plus the bias that goes to the membrane; the filter would scale the first part by ``1 / (1 - alpha)`` and
    delay it, and changes no ranking of steady currents without bias.

    Args:
        sat: Output spikes ``[T, B, C]``; None where the network does not spike.
        logits: ``[B, C]``, at least float32.
        currents: The output layer's currents with their bias at every step, ``[T, B, C]``; ``logits`` is their mean.
        membranes: The output layer's membranes before threshold and reset, in units of the threshold, ``[T, B, C]``.
        layers: Every layer's spikes ``[T, B, *shape]`` by name, in order (activations ``[B, *shape]`` of an ANN).
    """

    sat: Tensor | None = None
    logits: Tensor | None = None
    currents: Tensor | None = None
    membranes: Tensor | None = None
    layers: Mapping[str, Tensor] | None = field(default=None)

    @property
    def has(self) -> frozenset[str]:
        """The names of what is there."""
        return frozenset(name for name in ("sat", *EXTRAS) if getattr(self, name) is not None)

    def detached(self) -> Outputs:
        """The same without gradients."""
        layers = None if self.layers is None else {name: value.detach() for name, value in self.layers.items()}
        sat, logits, currents, membranes = map(_detached, (self.sat, self.logits, self.currents, self.membranes))
        return Outputs(sat, logits, currents, membranes, layers)


def as_outputs(told: Tensor | Outputs | None) -> Outputs:
    """A SAT alone as :class:`Outputs`."""
    return told if isinstance(told, Outputs) else Outputs(told)


def readout(current: Tensor, bias: Tensor | None, steps: int | None) -> tuple[Tensor, Tensor]:
    """Logits ``[B, C]`` and currents ``[T, B, C]`` of an output layer, at least float32.

    Args:
        current: ``[T, B, C]``, or ``[B, C]`` held for ``steps`` steps.
        bias: On the membrane, ``[C]``; None where there is none.
        steps: T of a held current.
    """
    whole = current.float() if current.dtype in (torch.bfloat16, torch.float16) else current
    whole = whole if bias is None else whole + bias
    return (whole.mean(0), whole) if steps is None else (whole, whole.expand(steps, *whole.shape))


def check_wanted(want: Collection[str]) -> None:
    """Refuse what no network can be asked for.

    Raises:
        TrainingError: an unknown name.
    """
    unknown = sorted(set(want) - {"sat", *EXTRAS})
    if unknown:
        raise TrainingError(
            "a network cannot be asked for this", where="outputs", got=", ".join(unknown), allowed=", ".join(EXTRAS)
        )


def _detached(value: Tensor | None) -> Tensor | None:
    return None if value is None else value.detach()
