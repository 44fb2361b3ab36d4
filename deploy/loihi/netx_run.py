"""A Program through lava-dl's own loader: written as a netx file, loaded by ``netx.hdf5.Network``, run on Lava."""

from __future__ import annotations

import json
import zipfile
from pathlib import Path
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from deploy.errors import WorkerError
from deploy.loihi.netx import arguments, write
from deploy.loihi.process import failure, interpreter, last_lines, run_once, temporary_folder
from deploy.program import Program
from deploy.spikes import stimulus
from deploy.trace import Trace

Array = npt.NDArray[Any]
WORKER: Final = Path(__file__).with_name("netx_worker.py")


def run_netx(
    program: Program,
    spikes: npt.ArrayLike,
    *,
    steps: int | None = None,
    timeout: float = 600.0,
    python: str | Path | None = None,
) -> Trace:
    """Run a program as lava-dl loads it from a netx file, on Lava's bit-accurate CPU models; each sample from rest.

    Args:
        spikes: Integers ``[T, B, *shape]``, or ``[B, *shape]`` presented at every one of ``steps`` steps.
        timeout: Seconds after which the worker and everything it started is killed.
        python: The worker's interpreter, which needs lava-dl; see
            :func:`deploy.loihi.process.interpreter`.

    Returns:
        A Trace with every layer's spikes; Lava does not count events, so no counters.

    Raises:
        UnsupportedNode: netx cannot hold the program; SpikesError: the spikes do not fit it.
        LavaMissing: the interpreter does not start, or has no Lava or lava-dl.
        WorkerTimeout, WorkerError: no result in time, or none at all; FileError: no temporary folder.
    """
    given = stimulus(program, spikes, steps)
    frames = given.dense().swapaxes(0, 1).reshape(given.samples, given.steps, *program.input.shape)
    if not any(synapse.delay for synapse in program.synapses):
        frames = frames.reshape(1, given.samples * given.steps, *program.input.shape)
    rows = frames.shape[1] + len(program.populations)
    target = interpreter(python)
    with temporary_folder() as folder:
        header = {
            "file": str(write(program, folder / "network.net")),
            "arguments": arguments(program, given.steps),
            "rows": rows,
        }
        asked, result, log = folder / "in.npz", folder / "out.npz", folder / "worker.log"
        with asked.open("wb") as stream:
            np.savez(stream, header=np.frombuffer(json.dumps(header).encode(), np.uint8), frames=frames)
        code = run_once([target, "-I", str(WORKER), str(asked), str(result)], folder, log, timeout)
        if code != 0:
            raise failure(code, target, last_lines(log))
        layers = _layers(result, program, (len(frames), rows), target)
    return _trace(program, given.dense(), layers)


def _layers(result: Path, program: Program, expected: tuple[int, int], python: str) -> dict[str, Array]:
    """By population: uint8 ``[runs, rows, n]``."""
    try:
        with np.load(result, allow_pickle=False) as archive:
            seen = {p.name: archive[str(index)] for index, p in enumerate(program.populations)}
    except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile) as error:
        raise WorkerError("the netx worker ended without a readable result", where=python, got=error) from error
    shapes = {p.name: (*expected, p.size) for p in program.populations}
    found = {name: array.shape for name, array in seen.items()}
    if found != shapes:
        raise WorkerError("the netx worker's result has the wrong shape", where=python, got=found, allowed=shapes)
    return seen


def _trace(program: Program, given: npt.NDArray[np.uint8], layers: dict[str, Array]) -> Trace:
    """Layer k runs k + 1 steps behind the input."""
    steps, samples = given.shape[:2]
    spikes = {}
    for index, population in enumerate(program.populations):
        seen = layers[population.name][:, index + 1 :]
        seen = seen[:, : steps * samples // len(seen)].reshape(samples, steps, *population.shape)
        spikes[population.name] = np.ascontiguousarray(seen.swapaxes(0, 1))
    counts = spikes[program.output.name].reshape(steps, samples, -1).sum(axis=0, dtype=np.int64)
    return Trace(
        backend="netx",
        program=program.digest,
        output=program.output.name,
        counts=counts,
        input_events=np.count_nonzero(given, axis=2).astype(np.int64),
        spikes=spikes,
        population=program.population,
    )
