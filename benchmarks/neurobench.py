"""NeuroBench's metrics by NeuroBench (a process of its own) and by us, on the same integer network."""

from __future__ import annotations

import json
import os
import subprocess
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from deploy import simulator
from deploy.errors import DataError
from deploy.neurobench import metrics
from deploy.program import Conv, Program

PYTHON = "NEUROKD_NEUROBENCH_PYTHON"
WORKER = Path(__file__).with_name("neurobench_worker.py")
Pairs = dict[str, tuple[float, float]]


def interpreter() -> str:
    """NeuroBench's Python.

    Raises:
        DataError: it is not set.
    """
    found = os.environ.get(PYTHON, "")
    if not found or not Path(found).is_file():
        raise DataError(
            "NeuroBench's Python is not known",
            got=found or "nothing",
            allowed="the interpreter of an environment with NeuroBench",
            next_step=f"python3 -m venv ENV; ENV/bin/pip install neurobench snntorch; export {PYTHON}=ENV/bin/python",
        )
    return found


def compare(program: Program, spikes: npt.NDArray[np.uint8], steps: int) -> Pairs:
    """Each metric by NeuroBench and by us; the answers' spike counts are compared first.

    Args:
        spikes: Constant input ``[B, *shape]`` or plain spikes ``[T, B, *shape]``.

    Raises:
        DataError: NeuroBench failed, or its run of the network gave other spikes.
    """
    trace = simulator.run(program, spikes, steps=steps, record="all", record_state="all")
    theirs = _neurobench(program, spikes, steps)
    if not np.array_equal(np.array(theirs["counts"]).reshape(trace.counts.shape), trace.counts):
        raise DataError("NeuroBench's run of the network gave other spikes", got="other spike counts at the output")
    ours = metrics(program, trace).to_json()
    operations = theirs.pop("synaptic_operations")
    theirs |= {
        "effective_acs": operations["Effective_ACs"],
        "effective_macs": operations["Effective_MACs"],
        "dense": operations["Dense"],
    }
    return {name: (theirs[name], value) for name, value in ours.items()}


def _neurobench(program: Program, spikes: npt.NDArray[np.uint8], steps: int) -> dict[str, Any]:
    with tempfile.TemporaryDirectory(prefix="neurokd-neurobench-") as folder:
        files = [Path(folder) / name for name in ("network.npz", "out.json")]
        np.savez(files[0], **_network(program, spikes, steps))
        done = subprocess.run(
            [interpreter(), "-I", str(WORKER), *map(str, files)], capture_output=True, text=True, timeout=900
        )
        if done.returncode or not files[1].exists():
            tail = "\n".join((done.stderr or done.stdout).splitlines()[-12:])
            raise DataError("NeuroBench failed", where=WORKER.name, got=tail or f"exit code {done.returncode}")
        found: dict[str, Any] = json.loads(files[1].read_text(encoding="utf-8"))
        return found


def _network(program: Program, spikes: npt.NDArray[np.uint8], steps: int) -> dict[str, npt.NDArray[Any]]:
    """A chain of layers as arrays; input ``[B, T, ...]``, as NeuroBench wants it."""
    timed = spikes.ndim == len(program.input.shape) + 2
    values = spikes if timed else np.broadcast_to(spikes, (steps, *spikes.shape))
    arrays: dict[str, npt.NDArray[Any]] = {"spikes": np.ascontiguousarray(values.swapaxes(0, 1))}
    layers = []
    for population in program.populations:
        (synapse,) = program.incoming(population.name)
        arrays[f"weights.{population.name}"] = synapse.weights * 2.0**synapse.weight_exp
        arrays[f"bias.{population.name}"] = population.bias
        layer: dict[str, Any] = {"name": population.name, "kind": "dense", "shape": list(population.shape)}
        layer |= {"dv": population.dv, "vth": population.vth}
        if isinstance(synapse, Conv):
            geometry = {key: getattr(synapse, key) for key in ("stride", "padding", "dilation", "groups")}
            layer |= {"kind": "conv", **geometry}
        layers.append(layer)
    arrays["facts"] = np.frombuffer(json.dumps({"layers": layers}).encode(), np.uint8)
    return arrays
