"""What a run folder holds, and how a command finds its network and its spikes: by folder, or by file.

student.nir          the exported student                     program.npz    its integers
test_spikes.npz      encoded test images, labels, steps       student_spikes.npz   what the trained student sent
verify.json, placement.json, profile.json, summary.json, report.html, *.png
"""

from __future__ import annotations

import json
import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from deploy.chip import Chip
from deploy.errors import FileError, SpikesError
from deploy.files import atomic_path, read_arrays
from deploy.lower import lower
from deploy.program import Program
from deploy.spikes import load_spikes
from deploy.trace import Trace

NIR: Final = "student.nir"
PROGRAM: Final = "program.npz"
TEST_SPIKES: Final = "test_spikes.npz"
STUDENT_SPIKES: Final = "student_spikes.npz"

Array = npt.NDArray[Any]


@dataclass(frozen=True, eq=False)
class Samples:
    """Encoded input.

    Attributes:
        spikes: Integers ``[T, B, *shape]`` or ``[B, *shape]``.
        labels: int64 ``[B]`` or None.
        steps: T of constant input, None where the spikes carry it.
    """

    spikes: Array
    labels: Array | None = None
    steps: int | None = None

    def first(self, count: int | None, rank: int) -> Samples:
        """The first ``count`` samples; ``rank`` is the number of axes of the input's shape."""
        timed = self.spikes.ndim == rank + 2
        spikes = self.spikes[:, :count] if timed else self.spikes[:count]
        return Samples(spikes, None if self.labels is None else self.labels[:count], self.steps)


def find(source: str | Path, name: str) -> Path:
    """A file given directly, or of that name in a run folder.

    Raises:
        FileError: there is no such file.
    """
    path = Path(source)
    found = path / name if path.is_dir() else path
    if not found.is_file():
        raise FileError(
            "there is no such file",
            where=found,
            allowed="a run folder (made by `neurokd demo`), a .nir file, or a program .npz",
            next_step=f"`neurokd demo --out FOLDER` writes {name}",
        )
    return found


def program_of(source: str | Path, chip: Chip | str = "loihi2") -> Program:
    """The Program of a run folder (its ``student.nir``, lowered), a ``.nir`` file or a program ``.npz``."""
    path = find(source, NIR)
    return Program.load(path) if path.suffix == ".npz" else lower(path, chip)


def samples_of(source: str | Path, spikes: str | Path | None, steps: int | None = None) -> Samples:
    """The spikes of a file, or of the run folder when no file is named.

    Raises:
        SpikesError: no file named and the source is no run folder, or the file cannot be read.
    """
    if spikes is None and not Path(source).is_dir():
        raise SpikesError(
            "no input spikes were given",
            where=source,
            allowed="--spikes FILE (.npy, or .npz with `spikes` and optionally `labels`, `steps`), or a run folder",
            next_step="encode some images first: neurokd.Encoding, or let `neurokd demo` write a run folder",
        )
    parts = load_spikes(find(source, TEST_SPIKES) if spikes is None else spikes)
    return Samples(parts["spikes"], _labels(parts), steps or _steps(parts))


def _labels(parts: dict[str, Array]) -> Array | None:
    labels = parts.get("labels")
    if labels is not None and not (labels.ndim == 1 and np.issubdtype(labels.dtype, np.integer)):
        raise SpikesError(
            "the spike file's labels are no classes",
            where="labels",
            got=f"{labels.dtype} {labels.shape}",
            allowed="one integer a sample",
        )
    return labels


def _steps(parts: dict[str, Array]) -> int | None:
    steps = parts.get("steps")
    if steps is None:
        return None
    if steps.ndim or not np.issubdtype(steps.dtype, np.integer) or steps < 1:
        raise SpikesError(
            "the spike file's steps are no number of steps",
            where="steps",
            got=f"{steps.dtype} {steps.tolist()}",
            allowed="one whole number of at least 1",
        )
    return int(steps)


def save_samples(path: str | Path, samples: Samples) -> None:
    """Write spikes, labels and steps as ``.npz``, atomically."""
    parts = {"spikes": samples.spikes, "labels": samples.labels, "steps": samples.steps}
    _save_npz(path, {key: np.asarray(value) for key, value in parts.items() if value is not None})


def save_layers(path: str | Path, spikes: dict[str, Array]) -> None:
    """Write recorded spikes ``{layer: [T, B, *shape]}`` of 0 and 1 as packed bits."""
    header = {name: list(array.shape) for name, array in spikes.items()}
    packed = {f"bits.{name}": np.packbits(array.astype(np.uint8).reshape(-1)) for name, array in spikes.items()}
    _save_npz(path, {"header": np.frombuffer(json.dumps(header).encode(), np.uint8), **packed})


def load_layers(path: str | Path) -> dict[str, Array]:
    """Read what :func:`save_layers` wrote.

    Raises:
        FileError: missing or damaged.
    """
    try:
        arrays = read_arrays(path)
        header = json.loads(bytes(arrays.pop("header")))
        return {name: _unpacked(arrays[f"bits.{name}"], shape) for name, shape in header.items()}
    except (FileError, ValueError, TypeError, KeyError, AttributeError) as error:
        raise FileError(
            "the recorded spikes cannot be read",
            where=path,
            got=error.got if isinstance(error, FileError) else f"{type(error).__name__}: {error}",
            allowed="a file that `neurokd export` wrote",
            next_step="export the student again",
        ) from error


def _unpacked(bits: Array, shape: list[int]) -> Array:
    size = math.prod(shape)
    if min(shape, default=1) < 0 or bits.shape != (-(-size // 8),):
        raise ValueError(f"{bits.size} bytes for {shape}")
    return np.unpackbits(bits, count=size).reshape(shape)


def save_trace(path: str | Path, trace: Trace) -> None:
    """Write a run's answers, counters and recorded spikes as ``.npz``; ``scores`` are ``counts`` by class."""
    parts: dict[str, Array] = {"counts": trace.counts, "scores": trace.scores, "predictions": trace.predictions()}
    parts |= {} if trace.population == 1 else {"population": np.array(trace.population)}
    parts["input_events"] = trace.input_events
    parts |= {} if trace.membranes is None else {"membranes": trace.membranes}
    for name, counter in trace.counters.items():
        for what in ("spikes", "synops", "active", "wraps", "saturations"):
            parts[f"counter.{name}.{what}"] = getattr(counter, what)
    for kind in ("spikes", "u", "v"):
        parts |= {f"{kind}.{name}": array for name, array in getattr(trace, kind).items()}
    _save_npz(path, parts)


def _save_npz(path: str | Path, parts: dict[str, Any]) -> None:
    with atomic_path(path) as temporary, temporary.open("wb") as stream:
        np.savez_compressed(stream, **parts)
