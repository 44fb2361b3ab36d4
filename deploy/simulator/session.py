"""Step-by-step runs for closed loops: spikes in, spikes out, state kept between calls."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from deploy.errors import SpikesError
from deploy.program import Program
from deploy.simulator.advance import bound
from deploy.simulator.buffers import Workspace, at_rest
from deploy.simulator.layout import to_outer
from deploy.simulator.plan import plan
from deploy.spikes import stimulus

Array = npt.NDArray[Any]


class Session:
    """A program that is being run step by step; see :func:`open`."""

    def __init__(self, program: Program, batch: int = 1) -> None:
        self.program = program
        self._plan = plan(program)
        self._history = self._plan.longest_lag + 1
        self._batch = batch
        self.reset()

    def reset(self) -> None:
        """Back to rest: u, v and every spike on its way are zero."""
        values = np.zeros((self._batch, self._history, self.program.input.size), np.uint8)
        self._buffers = at_rest(self.program, Workspace(), values, self._history)
        for spikes in self._buffers.spikes.values():
            spikes.fill(0)
        stages, last = self._plan.stages, self._history - 1
        self._pieces = [piece for stage in stages for piece in bound(stage, self._buffers, last, 1)]

    def step(self, spikes_in: npt.ArrayLike) -> Array:
        """Advance one step.

        Args:
            spikes_in: Integers of the input's shape, or ``[B, *shape]``.

        Returns:
            The output's spikes uint8, ``shape`` or ``[B, *shape]`` like the input.

        Raises:
            SpikesError: the spikes do not fit the program's input.
        """
        array = np.asarray(spikes_in)
        single = array.ndim == len(self.program.input.shape)
        values = self._checked(array[None] if single else array)
        if self._history > 1:
            for held in self._buffers.spikes.values():
                held[:, :-1] = held[:, 1:]
        self._buffers.spikes[self.program.input.name][:, -1] = values
        for piece in self._pieces:
            piece()
        out = self._last(self.program.output.name)
        answer: Array = out[0] if single else out
        return answer

    def _checked(self, array: Array) -> Array:
        """Spikes uint8 ``[B, n]``; what is uint8 and in range already takes no detour (a third of a step's time)."""
        source = self.program.input
        if array.dtype == np.uint8 and array.shape == (self._batch, *source.shape) and array.max() <= source.largest:
            return array.reshape(self._batch, -1)
        given = stimulus(self.program, array, steps=1)
        if given.samples != self._batch:
            raise SpikesError(
                "the spikes are of another number of samples",
                where=source.name,
                got=given.samples,
                allowed=self._batch,
                next_step="open the session with batch=...",
            )
        values: Array = given.values[0]
        return values

    def _last(self, name: str) -> Array:
        last: Array = to_outer(self._buffers.spikes[name][:, -1], self.program.node(name).shape).copy()
        return last

    def spikes(self, name: str) -> Array:
        """A population's spikes of the last step, uint8 ``[B, *shape]``."""
        return self._last(name)

    def membrane(self, name: str) -> Array:
        """A population's v after the last step, int32 ``[B, *shape]``."""
        membrane: Array = to_outer(self._buffers.v[name], self.program.node(name).shape).copy()
        return membrane


def open(program: Program, batch: int = 1) -> Session:  # noqa: A001 - reads as simulator.open(program)
    """Start a session of ``batch`` independent samples: ``out = session.step(spikes_in)``."""
    return Session(program, batch)
