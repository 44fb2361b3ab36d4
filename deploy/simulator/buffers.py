"""Working memory of a run: arrays that are used again by the next chunk instead of being asked of the system anew.

Fresh pages cost more than the neurons that fill them: with new arrays for each chunk, 784-800-10 spent a third of its
time in page faults.
"""

from __future__ import annotations

import threading
from dataclasses import dataclass, field
from math import prod
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from deploy.program import Program

Array = npt.NDArray[Any]
NOTHING: Final = np.empty((0, 0, 0), np.int32)
TALLIES: Final = 5  # spikes, active neurons, wraps, saturations, synops


class Workspace:
    """Arrays by name, made once and handed out again; one a thread."""

    def __init__(self) -> None:
        self._arrays: dict[tuple[str, str], Array] = {}

    @property
    def bytes(self) -> int:
        """Bytes held."""
        return sum(array.nbytes for array in self._arrays.values())

    def take(self, role: str, name: str, shape: tuple[int, ...], dtype: type[np.generic]) -> Array:
        """An array with whatever was in it before; the same memory at the next call for this role and name."""
        size = prod(shape)
        held = self._arrays.get((role, name))
        if held is None or held.size < size:
            held = self._arrays[role, name] = np.empty(size, dtype)
        return held[:size].reshape(shape)

    def zeros(self, role: str, name: str, shape: tuple[int, ...], dtype: type[np.generic]) -> Array:
        """As :meth:`take`, cleared."""
        array = self.take(role, name, shape, dtype)
        array.fill(0)
        return array


@dataclass(eq=False)
class Buffers:
    """Arrays of some samples: ``[B, T, n]`` spikes by node, ``[B, n]`` state and ``[5, B, T]`` tallies by population.

    ``held`` (steps a neuron is still refractory) has no elements where the population has no refractory period.
    ``stop`` ends the work on them between two pieces of it.
    """

    workspace: Workspace
    spikes: dict[str, Array]
    u: dict[str, Array]
    v: dict[str, Array]
    held: dict[str, Array]
    tallies: dict[str, Array]
    u_record: dict[str, Array] = field(default_factory=dict)
    v_record: dict[str, Array] = field(default_factory=dict)
    stop: threading.Event = field(default_factory=threading.Event)


def at_rest(program: Program, workspace: Workspace, values: Array, steps: int) -> Buffers:
    """Buffers for ``values`` uint8 ``[B, T or 1, n]`` (kernel layout): state zero, all else to be written."""
    samples, work = values.shape[0], workspace
    sizes = {p.name: prod(p.shape) for p in program.populations}
    waiting = {p.name: prod(p.shape) if p.refractory else 0 for p in program.populations}
    spikes = {name: work.take("spikes", name, (samples, steps, size), np.uint8) for name, size in sizes.items()}
    return Buffers(
        workspace=work,
        spikes={program.input.name: values, **spikes},
        u={name: work.zeros("u", name, (samples, size), np.int32) for name, size in sizes.items()},
        v={name: work.zeros("v", name, (samples, size), np.int32) for name, size in sizes.items()},
        held={name: work.zeros("held", name, (samples, size), np.int32) for name, size in waiting.items()},
        tallies={name: work.take("tallies", name, (TALLIES, samples, steps), np.int64) for name in sizes},
    )
