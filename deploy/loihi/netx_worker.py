"""Loads a netx file with lava-dl and runs it on Lava: ``python -I netx_worker.py in.npz out.npz``.

``in.npz``: ``header``, a JSON table as bytes with ``file``, ``arguments`` (of ``netx.hdf5.Network``) and ``rows`` (Lava
steps a run lasts); ``frames`` ``[runs, steps, *shape]``, an image in ``(C, H, W)`` order. The answer holds
``<layer index>``, uint8 ``[runs, rows, n]``: what each layer sent, flat, images in ``(C, H, W)`` order.

netx takes one function of lava-dl's slayer, for neurons a Program never has (resonate and fire), and with it would
import torch, OpenCV and all of slayer; stand-ins for that function and for netx's torch wrapper keep them out.
Imports nothing of ``deploy``.
"""

from __future__ import annotations

import importlib.util
import json
import sys
import warnings
from pathlib import Path
from types import ModuleType
from typing import Any

_HERE = Path(__file__).resolve().parent


def _base() -> Any:
    """``worker.py``: the repair, and processes of Lava that end with this one and leave no shared memory."""
    spec = importlib.util.spec_from_file_location("neurokd_worker", _HERE / "worker.py")
    assert spec is not None
    assert spec.loader is not None
    module = sys.modules[spec.name] = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def no_resonators(config: object) -> dict[str, Any]:
    """In place of ``slayer.neuron.rf.neuron_params``."""
    raise NotImplementedError("resonate-and-fire neurons")


def stand_in_for_slayer() -> None:
    """Modules by the names netx imports, with nothing but that function."""
    for name in ("slayer", "slayer.neuron", "slayer.neuron.rf", "netx.sequential_modules"):
        module = sys.modules[f"lava.lib.dl.{name}"] = ModuleType(f"lava.lib.dl.{name}")
        module.__file__ = str(_HERE / "no-models" / "none.py")  # where Lava looks for process models
    sys.modules["lava.lib.dl.slayer.neuron.rf"].neuron_params = no_resonators  # type: ignore[attr-defined]


worker = _base()
try:
    import numpy as np

    stand_in_for_slayer()
    from lava.lib.dl.netx.hdf5 import Network
    from lava.magma.core.run_conditions import RunSteps
    from lava.magma.core.run_configs import Loihi2SimCfg
    from lava.proc.io.sink import RingBuffer as Sink
    from lava.proc.io.source import RingBuffer as Source
except ImportError as missing:
    print(f"{type(missing).__name__}: {missing}", file=sys.stderr)
    sys.exit(worker.EXIT_NO_LAVA)


def flat(image: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    """``(n, T)`` or Lava's ``(W, H, C, T)`` as ``[T, n]`` in ``(C, H, W)`` order."""
    rows = image if image.ndim == 2 else image.transpose(2, 1, 0, 3)
    turned: np.ndarray[Any, Any] = rows.reshape(-1, image.shape[-1]).T
    return turned


def run(header: dict[str, Any], frames: np.ndarray[Any, Any]) -> list[np.ndarray[Any, Any]]:
    """One run: what each layer sent, ``[rows, n]``."""
    net = Network(header["file"], **header["arguments"])
    rows = header["rows"]
    given = np.zeros((rows, *frames.shape[1:]), np.int32)
    given[: len(frames)] = frames
    given = given.transpose(3, 2, 1, 0) if len(net.inp.shape) == 3 else given.reshape(rows, -1).T
    source = Source(data=given)
    source.s_out.connect(net.inp)
    sinks = [Sink(shape=layer.out.shape, buffer=rows) for layer in net.layers]
    for layer, sink in zip(net.layers, sinks, strict=True):
        layer.out.connect(sink.a_in)
    net.run(condition=RunSteps(num_steps=rows), run_cfg=Loihi2SimCfg(select_tag="fixed_pt"))
    seen = [flat(sink.data.get()).astype(np.uint8) for sink in sinks]
    net.stop()
    return seen


def main(given: str, result: str) -> int:
    """Run every run of the file, write what the layers sent."""
    warnings.simplefilter("ignore")
    worker.name_semaphores()
    worker.end_with_parent()
    worker.end_with_children()
    worker.transport.SharedMemoryManager = worker.AnonymousMemory
    worker.transport.SystemProcess = worker.LoudProcess
    # Lava looks for process models in every file beside the file of the process; there are none beside this one.
    sys.modules["__main__"].__file__ = str(Path(given).resolve().parent / "no-models" / "worker.py")
    with np.load(given, allow_pickle=False) as archive:
        header, frames = json.loads(bytes(archive["header"])), archive["frames"]
    runs = [run(header, part) for part in frames]
    layers = {str(index): np.stack([seen[index] for seen in runs]) for index in range(len(runs[0]))}
    with open(result, "wb") as stream:
        np.savez(stream, allow_pickle=False, **layers)
    return 0


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
