"""Recorded spikes in little memory: one bit a neuron and step, or one entry a spike."""

from __future__ import annotations

from dataclasses import dataclass
from math import prod
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[Any]
Form = Literal["arrays", "bits", "events"]
FORMS: tuple[Form, ...] = ("arrays", "bits", "events")


@dataclass(frozen=True, eq=False)
class Bits:
    """Spikes of one population as bits: an eighth of the array's memory, whatever the activity.

    Attributes:
        shape: Of the population.
        packed: uint8 ``[T, B, ceil(n / 8)]``, the first neuron in the highest bit (``numpy.packbits``).
    """

    shape: tuple[int, ...]
    packed: npt.NDArray[np.uint8]

    @classmethod
    def of(cls, spikes: Array, shape: tuple[int, ...]) -> Bits:
        """From uint8 ``[T, B, n]``, 0 and 1."""
        return cls(shape, np.packbits(spikes, axis=-1))

    @property
    def nbytes(self) -> int:
        """Bytes held."""
        return self.packed.nbytes

    @property
    def count(self) -> int:
        """Spikes in all."""
        return int(np.unpackbits(self.packed).sum(dtype=np.int64))

    def dense(self, samples: slice = slice(None)) -> npt.NDArray[np.uint8]:
        """Spikes of some samples, uint8 ``[T, B, *shape]``."""
        some = self.packed[:, samples]
        return np.unpackbits(some, axis=-1, count=prod(self.shape)).reshape(*some.shape[:2], *self.shape)


@dataclass(frozen=True, eq=False)
class Events:
    """Spikes of one population as a list ordered by sample, then step, then neuron: 12 bytes a spike.

    Attributes:
        shape: Of the population.
        steps, samples: T and B of the run.
        sample, step, neuron: uint32 ``[spikes]``; ``neuron`` counts through ``shape`` in row-major order.
    """

    shape: tuple[int, ...]
    steps: int
    samples: int
    sample: npt.NDArray[np.uint32]
    step: npt.NDArray[np.uint32]
    neuron: npt.NDArray[np.uint32]

    @classmethod
    def of(cls, spikes: Array, shape: tuple[int, ...]) -> Events:
        """From uint8 ``[T, B, n]``, 0 and 1."""
        sample, step, neuron = (found.astype(np.uint32) for found in np.nonzero(spikes.swapaxes(0, 1)))
        return cls(shape, spikes.shape[0], spikes.shape[1], sample, step, neuron)

    @property
    def nbytes(self) -> int:
        """Bytes held."""
        return self.sample.nbytes + self.step.nbytes + self.neuron.nbytes

    @property
    def count(self) -> int:
        """Spikes in all."""
        return len(self.neuron)

    def dense(self, samples: slice = slice(None)) -> npt.NDArray[np.uint8]:
        """Spikes of some samples, uint8 ``[T, B, *shape]``."""
        chosen = np.arange(self.samples)[samples]
        made = np.zeros((self.steps, len(chosen), prod(self.shape)), np.uint8)
        for at, sample in enumerate(chosen):
            first, last = np.searchsorted(self.sample, [sample, sample + 1])
            made[self.step[first:last], at, self.neuron[first:last]] = 1
        return made.reshape(self.steps, len(chosen), *self.shape)


Record = Bits | Events


def packed(spikes: Array, shape: tuple[int, ...], form: Form) -> Record:
    """Spikes uint8 ``[T, B, n]`` as bits or events."""
    return Bits.of(spikes, shape) if form == "bits" else Events.of(spikes, shape)


def joined(parts: list[Record]) -> Record:
    """Records of one population over different samples, in order."""
    bits, events = [p for p in parts if isinstance(p, Bits)], [p for p in parts if isinstance(p, Events)]
    if bits:
        return Bits(bits[0].shape, np.concatenate([p.packed for p in bits], axis=1))
    starts = np.cumsum([0, *(p.samples for p in events)])
    return Events(
        events[0].shape,
        events[0].steps,
        int(starts[-1]),
        np.concatenate([p.sample + np.uint32(start) for p, start in zip(events, starts, strict=False)]),
        np.concatenate([p.step for p in events]),
        np.concatenate([p.neuron for p in events]),
    )
