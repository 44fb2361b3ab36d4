"""Neurons in floats, one step of time after the other: the event order of every float execution here.

In each step: decay, add the input, compare with the threshold, reset. Everything in float64.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from deploy.graph import LifParameters, Neuron
from deploy.graph.coerce import FloatArray
from deploy.graph.quantization import Reset
from deploy.reading import Reading, parameters

Float = npt.NDArray[np.float64]


class Cells:
    """A population that is stepped.

    Args:
        node: The neuron node.
        dt: Time step in seconds.
        reset: What a spike does; None where no node spikes.
        how: The reading.
        samples: Batch B.

    Attributes:
        charged: Membrane ``[B, *shape]`` before the last step's reset.
        v: Membrane after it.
        parameters: One step of the population.
    """

    def __init__(self, node: Neuron, dt: float, reset: Reset | None, how: Reading, samples: int) -> None:
        self.parameters: LifParameters = parameters(node, dt, how)
        self.spiking = self.parameters.threshold is not None
        self._rule, self._how = reset, how
        self._floored = how.floor and node.kind == "IF"
        shape = (samples, *node.shape)
        self.v, self.charged = np.zeros(shape), np.zeros(shape)
        if how.start != "zero" and hasattr(node, how.start):
            self.v = np.broadcast_to(getattr(node, how.start), shape)
        self._current, self._spikes = np.zeros(shape), np.zeros(shape)

    def step(self, drive: FloatArray) -> Float:
        """One step for an input ``[B, *shape]``; spikes (or the membrane of neurons that do not spike)."""
        p = self.parameters
        current = p.gain * drive
        if p.alpha is not None:
            self._current = current = p.alpha * self._current + current
        v = p.beta * self.v + current + p.leak_bias
        if self._rule == "late-subtract" and p.threshold is not None:
            v = v - self._spikes * p.threshold
        elif self._rule == "late-zero":
            v = np.where(self._spikes > 0, 0.0, v)
        self.charged = v
        if not self.spiking:
            self.v = v
            return v
        self._spikes = self._fired(v)
        self.v = self._reset(v, self._spikes)
        return self._spikes

    def _fired(self, v: Float) -> Float:
        threshold = self.parameters.threshold
        assert threshold is not None, "only spiking neurons fire"
        if self._how.spikes == "many":
            positive = np.where(threshold > 0, threshold, np.inf)
            return np.where(v > 0, np.trunc(v / positive), 0.0)
        return (v > threshold if self._how.fires == "above" else v >= threshold).astype(np.float64)

    def _reset(self, v: Float, spikes: Float) -> Float:
        p = self.parameters
        assert p.threshold is not None, "only spiking neurons reset"
        if self._rule == "subtract":
            v = v - spikes * p.threshold
        elif self._rule in ("zero", "value"):
            v = np.where(spikes > 0, 0.0 if self._rule == "zero" or p.v_reset is None else p.v_reset, v)
        return np.maximum(v, -p.threshold) if self._floored else v
