"""Typed, frozen nodes with one value per element: neurons, and the element-wise Scale, Threshold and Delay."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import ClassVar

import numpy as np

from deploy.errors import GraphError
from deploy.graph import coerce
from deploy.graph.coerce import FloatArray, Shape
from deploy.graph.nodes import Node
from deploy.graph.quantization import NeuronGrid


@dataclass(frozen=True, eq=False)
class Elementwise(Node):
    """A node with one set of parameters for each element.

    Attributes:
        parameters: Names of the fields that hold one value per element.
        times: Those of them that are time constants in seconds, above 0.
    """

    parameters: ClassVar[tuple[str, ...]] = ()
    times: ClassVar[tuple[str, ...]] = ()

    def __post_init__(self) -> None:
        self._floats(*self.parameters)
        for name in self.times:
            _require_positive(name, getattr(self, name))
        self._set_shape()

    def _set_shape(self) -> None:
        shapes = {getattr(self, name).shape for name in self.parameters if getattr(self, name).size != 1}
        if len(shapes) > 1:
            got = ", ".join(f"{name} {getattr(self, name).shape}" for name in self.parameters)
            raise GraphError(
                "the parameters of one population have different shapes",
                where=f"fields {', '.join(self.parameters)}",
                got=got,
                allowed="one shape for all, or one element that stands for all neurons",
                next_step="write the file again with parameters of one shape",
            )

    @property
    def shape(self) -> Shape:
        """Shape of the parameters; ``()`` or ``(1,)``-like where one element stands for all neurons."""
        shapes = (getattr(self, name).shape for name in self.parameters)
        return max(shapes, key=lambda shape: (int(np.prod(shape)), len(shape)))


@dataclass(frozen=True, eq=False)
class Neuron(Elementwise):
    """A node with a state in each neuron.

    Attributes:
        quantization: The integer grid of the membrane, where the file states it.
    """

    quantization: NeuronGrid | None = field(default=None, kw_only=True)


@dataclass(frozen=True, eq=False)
class LIF(Neuron):
    """``tau dv/dt = (v_leak - v) + r I``; spike when ``v > v_threshold`` (strict), then ``v = v_reset``.

    Attributes:
        tau: Membrane time constant in seconds.
        r: Resistance: gain of the input.
        v_leak: Where the membrane rests.
        v_threshold: Firing threshold.
        v_reset: Value after a spike.
    """

    tau: FloatArray
    r: FloatArray
    v_leak: FloatArray
    v_threshold: FloatArray
    v_reset: FloatArray = field(default_factory=lambda: np.zeros(()))
    parameters: ClassVar[tuple[str, ...]] = ("tau", "r", "v_leak", "v_threshold", "v_reset")
    times: ClassVar[tuple[str, ...]] = ("tau",)


@dataclass(frozen=True, eq=False)
class CubaLIF(Neuron):
    """``tau_syn di/dt = -i + w_in S``; ``tau_mem dv/dt = (v_leak - v) + r i``; spikes and reset as LIF.

    Attributes:
        tau_syn: Time constant of the current in seconds.
        tau_mem: Membrane time constant in seconds.
        r: Resistance.
        v_leak: Where the membrane rests.
        v_threshold: Firing threshold.
        v_reset: Value after a spike.
        w_in: Gain of the input, before the current filter.
    """

    tau_syn: FloatArray
    tau_mem: FloatArray
    r: FloatArray
    v_leak: FloatArray
    v_threshold: FloatArray
    v_reset: FloatArray = field(default_factory=lambda: np.zeros(()))
    w_in: FloatArray = field(default_factory=lambda: np.ones(()))
    parameters: ClassVar[tuple[str, ...]] = (
        "tau_syn",
        "tau_mem",
        "r",
        "v_leak",
        "v_threshold",
        "v_reset",
        "w_in",
    )
    times: ClassVar[tuple[str, ...]] = ("tau_syn", "tau_mem")


@dataclass(frozen=True, eq=False)
class IF(Neuron):
    """``dv/dt = r I``; spikes and reset as LIF."""

    r: FloatArray
    v_threshold: FloatArray
    v_reset: FloatArray = field(default_factory=lambda: np.zeros(()))
    parameters: ClassVar[tuple[str, ...]] = ("r", "v_threshold", "v_reset")


@dataclass(frozen=True, eq=False)
class LI(Neuron):
    """``tau dv/dt = (v_leak - v) + r I``, graded output, no spikes."""

    tau: FloatArray
    r: FloatArray
    v_leak: FloatArray
    parameters: ClassVar[tuple[str, ...]] = ("tau", "r", "v_leak")
    times: ClassVar[tuple[str, ...]] = ("tau",)


@dataclass(frozen=True, eq=False)
class I(Neuron):  # noqa: E742 - NIR's own name
    """``dv/dt = r I``, graded output, no spikes."""

    r: FloatArray
    parameters: ClassVar[tuple[str, ...]] = ("r",)


@dataclass(frozen=True, eq=False)
class CubaLI(Neuron):
    """``tau_syn di/dt = -i + w_in S``; ``tau_mem dv/dt = (v_leak - v) + r i``, graded output, no spikes."""

    tau_syn: FloatArray
    tau_mem: FloatArray
    r: FloatArray
    v_leak: FloatArray
    w_in: FloatArray = field(default_factory=lambda: np.ones(()))
    parameters: ClassVar[tuple[str, ...]] = ("tau_syn", "tau_mem", "r", "v_leak", "w_in")
    times: ClassVar[tuple[str, ...]] = ("tau_syn", "tau_mem")


@dataclass(frozen=True, eq=False)
class Scale(Elementwise):
    """``y = scale * x``, element by element."""

    scale: FloatArray
    parameters: ClassVar[tuple[str, ...]] = ("scale",)


@dataclass(frozen=True, eq=False)
class Threshold(Elementwise):
    """``z = 1 where x > threshold else 0`` (strict)."""

    threshold: FloatArray
    parameters: ClassVar[tuple[str, ...]] = ("threshold",)


@dataclass(frozen=True, eq=False)
class Delay(Elementwise):
    """``y(t) = x(t - delay)``, delay in seconds, one per element, 0 or more."""

    delay: FloatArray
    parameters: ClassVar[tuple[str, ...]] = ("delay",)

    def __post_init__(self) -> None:
        super().__post_init__()
        if (self.delay < 0).any():
            raise coerce.bad("delay", float(self.delay.min()), "0 seconds or more")


SPIKING: tuple[type[Neuron], ...] = (LIF, CubaLIF, IF)
"""Neuron nodes with a threshold and a reset."""


def _require_positive(name: str, values: FloatArray) -> None:
    if (values <= 0).any():
        raise coerce.bad(name, float(values.min()), "seconds above 0", "a time constant must be positive")
