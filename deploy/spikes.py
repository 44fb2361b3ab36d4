"""Input spikes: one checked form for every backend."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from deploy.errors import FileError, SpikesError
from deploy.files import read_arrays
from deploy.program import Program


@dataclass(frozen=True, eq=False)
class Stimulus:
    """What enters a program.

    Attributes:
        values: uint8 ``[T, B, n]``, or ``[1, B, n]`` when the same values are presented at every step; never written
            to, for it may be the caller's own memory.
        steps: Time steps T.
    """

    values: npt.NDArray[np.uint8]
    steps: int

    @property
    def constant(self) -> bool:
        """True when every step presents the same values (direct encoding)."""
        return len(self.values) == 1

    @property
    def samples(self) -> int:
        """Number of samples B."""
        return int(self.values.shape[1])

    def at(self, step: int) -> npt.NDArray[np.uint8]:
        """Values of one step, ``[B, n]``."""
        frame: npt.NDArray[np.uint8] = self.values[0 if self.constant else step]
        return frame

    def dense(self) -> npt.NDArray[np.uint8]:
        """All steps written out, ``[T, B, n]``."""
        return np.broadcast_to(self.values, (self.steps, *self.values.shape[1:]))

    def part(self, start: int, stop: int) -> Stimulus:
        """The samples ``start`` to ``stop``."""
        return Stimulus(self.values[:, start:stop], self.steps)


def stimulus(program: Program, spikes: npt.ArrayLike, steps: int | None = None) -> Stimulus:
    """Check spikes against a program's input and bring them to one form.

    Args:
        spikes: Integers ``[T, B, *shape]``; or ``[B, *shape]``, presented at every one of ``steps`` steps.
        steps: Needed for the second form; defaults to the program's own.

    Raises:
        SpikesError: wrong shape, type or range, no samples, or steps missing, not positive or contradictory.
    """
    array = np.asarray(spikes)
    shape = program.input.shape
    timed, constant = array.ndim == len(shape) + 2, array.ndim == len(shape) + 1
    if not (timed or constant) or array.shape[-len(shape) :] != shape or 0 in array.shape:
        raise SpikesError(
            "the spikes have the wrong shape",
            where=program.input.name,
            got=array.shape,
            allowed=f"[T, B, {_text(shape)}], or [B, {_text(shape)}] presented at every step; no empty axis",
        )
    steps = _steps(program, array.shape[0] if timed else None, steps)
    flat = _values(array, program).reshape(*(array.shape[:2] if timed else (1, array.shape[0])), program.input.size)
    return Stimulus(np.ascontiguousarray(flat), steps)


def _text(shape: tuple[int, ...]) -> str:
    return ", ".join(str(n) for n in shape)


def _steps(program: Program, in_array: int | None, asked: int | None) -> int:
    if in_array is not None and asked is not None and asked != in_array:
        raise SpikesError("the number of steps contradicts the spikes", got=asked, allowed=in_array)
    steps = in_array or asked or (program.steps if asked is None else asked)
    if steps is None or steps < 1:
        raise SpikesError(
            "the number of time steps is not known" if steps is None else "the number of time steps is not positive",
            where="steps",
            got=steps,
            allowed="a whole number of at least 1",
            next_step="give steps=T (--steps T)",
        )
    return int(steps)


def _values(array: npt.NDArray[np.generic], program: Program) -> npt.NDArray[np.uint8]:
    largest = program.input.largest
    integral = array.dtype == np.bool_ or np.issubdtype(array.dtype, np.integer)
    if not integral:
        raise SpikesError(
            "the spikes are not integers",
            where=program.input.name,
            got=array.dtype,
            allowed=f"bool or integers 0..{largest}",
            next_step="encode the images first (neurokd.Encoding), or cast what is already 0 and 1",
        )
    unsigned = array.dtype.kind in "bu"  # one look at the values less: a test set has hundreds of megabytes
    low, high = 0 if unsigned else int(array.min()), int(array.max())
    if low < 0 or high > largest:
        raise SpikesError(
            "the spikes are out of range",
            where=program.input.name,
            got=f"{low}..{high}",
            allowed=f"0..{largest}",
        )
    return array.astype(np.uint8, copy=False)


def load_spikes(path: str | Path) -> dict[str, npt.NDArray[Any]]:
    """Read a spike file: ``.npy`` (the spikes) or ``.npz`` with ``spikes`` and, optionally, ``labels`` and ``steps``.

    Raises:
        SpikesError: missing, damaged, pickled, or without ``spikes``.
    """
    try:
        found = read_arrays(path)
    except FileError as error:
        raise SpikesError(
            "the spike file cannot be read",
            where=path,
            got=error.got,
            allowed=".npy, or .npz with `spikes` and optionally `labels`, `steps`",
        ) from error
    parts = {name or "spikes": array for name, array in found.items()}
    if "spikes" not in parts:
        raise SpikesError("the spike file has no spikes", where=path, got=sorted(parts), allowed="an array `spikes`")
    return parts
