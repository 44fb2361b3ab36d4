"""Working memory of a run: arrays that are used again by the next chunk instead of being asked of the system anew.

Fresh pages cost more than the neurons that fill them: with new arrays for each chunk, 784-800-10 spent a third of its
time in page faults.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Hashable
from dataclasses import dataclass, field
from math import prod
from typing import Any, Final, TypeVar

import numpy as np
import numpy.typing as npt

from deploy.program import Program

Array = npt.NDArray[Any]
NOTHING: Final = np.empty((0, 0, 0), np.int32)
KEPT_PREPARED: Final = 8
Made = TypeVar("Made")
TALLIES: Final = 5  # spikes, active neurons, wraps, saturations, synops


class Workspace:
    """Arrays by name, made once and handed out again, and what was prepared on them; one a thread."""

    def __init__(self) -> None:
        self._arrays: dict[tuple[str, str], Array] = {}
        self._prepared: dict[Hashable, Any] = {}

    def prepared(self, key: Hashable, make: Callable[[], Made]) -> Made:
        """What ``make`` gave for this key; forgotten when an array has to grow, so that old memory goes."""
        if key not in self._prepared:
            made = make()
            if len(self._prepared) == KEPT_PREPARED:
                self._prepared.clear()
            self._prepared[key] = made
        found: Made = self._prepared[key]
        return found

    def clear(self) -> None:
        """Forget all of it. What was prepared refers to this workspace: without this, the collector of cycles would
        free it some runs later (a million neurons: 500 MB more at the peak, and a quarter slower)."""
        self._prepared.clear()
        self._arrays.clear()

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
            self._prepared.clear()
        return held[:size].reshape(shape)


@dataclass(eq=False)
class Buffers:
    """Arrays of some samples: ``[B, T, n]`` spikes by node, ``[B, n]`` state and ``[5, B, T]`` tallies by population.

    ``held`` (steps a neuron is still refractory) has no elements where the population has no refractory period.
    ``stop`` ends the work on them between two pieces of it; ``pieces`` is that work, once it has been bound to them.
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
    pieces: list[Callable[[], None]] = field(default_factory=list)

    def rest(self) -> None:
        """Bring all state to zero."""
        for states in (self.u, self.v, self.held):
            for array in states.values():
                array.fill(0)


def buffers_for(program: Program, work: Workspace, values: Array, steps: int) -> Buffers:
    """Buffers for ``values`` uint8 ``[B, T or 1, n]`` (kernel layout), with whatever was in them before."""
    samples = values.shape[0]
    sizes = {p.name: prod(p.shape) for p in program.populations}
    waiting = {p.name: prod(p.shape) if p.refractory else 0 for p in program.populations}
    spikes = {name: work.take("spikes", name, (samples, steps, size), np.uint8) for name, size in sizes.items()}
    return Buffers(
        workspace=work,
        spikes={program.input.name: values, **spikes},
        u={name: work.take("u", name, (samples, size), np.int32) for name, size in sizes.items()},
        v={name: work.take("v", name, (samples, size), np.int32) for name, size in sizes.items()},
        held={name: work.take("held", name, (samples, size), np.int32) for name, size in waiting.items()},
        tallies={name: work.take("tallies", name, (TALLIES, samples, steps), np.int64) for name in sizes},
    )


def at_rest(program: Program, workspace: Workspace, values: Array, steps: int) -> Buffers:
    """As :func:`buffers_for`, state zero."""
    buffers = buffers_for(program, workspace, values, steps)
    buffers.rest()
    return buffers
