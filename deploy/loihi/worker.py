"""The only file that imports Lava. Runs as ``python -I worker.py in.npz out.npz``; see :mod:`deploy.loihi.protocol`.

It is given plain arrays and a JSON header, and imports nothing of ``deploy`` (``repair.py`` is loaded by path). One
small builder function a kind of process turns the header into Lava processes; Lava's own ``LIFReset``,
``Dense``, ``Conv`` and ``Sparse`` do all arithmetic. Four processes of ours move data: ``Stream`` feeds recorded
frames, ``Sink`` records, ``Delay`` holds spikes back where two paths differ in length, ``LIFVariant`` is Lava's LIF
in the neuron modes that Lava's ``fixed_pt`` models lack.

What is shared between Lava's operating-system processes (their channels, our recordings) is anonymous memory inherited
by ``fork``: no name in ``/dev/shm`` that a kill could leave behind, and no ``Var.get`` at 15 µs an element.
"""

from __future__ import annotations

import ctypes
import json
import mmap
import multiprocessing as mp
import os
import platform
import runpy
import signal
import sys
import threading
import time
import traceback
import warnings
from collections import deque
from collections.abc import Callable
from functools import partial
from importlib import metadata
from importlib.util import find_spec
from pathlib import Path
from typing import Any

EXIT_NO_LAVA = 67
EXIT_BAD_REQUEST = 68
EXIT_PROCESS_FAILED = 69
_HERE = Path(__file__).resolve().parent

_repair = runpy.run_path(str(_HERE / "repair.py"))
_repair["apply"]()
try:
    import lava.magma.runtime.message_infrastructure.multiprocessing as transport
    import numpy as np
    from lava.magma.core.decorator import implements, requires, tag
    from lava.magma.core.model.py.model import PyLoihiProcessModel
    from lava.magma.core.model.py.ports import PyInPort, PyOutPort
    from lava.magma.core.model.py.type import LavaPyType
    from lava.magma.core.process.ports.ports import InPort, OutPort, ReshapePort
    from lava.magma.core.process.process import AbstractProcess
    from lava.magma.core.resources import CPU
    from lava.magma.core.run_conditions import RunSteps
    from lava.magma.core.run_configs import Loihi2SimCfg
    from lava.magma.core.sync.protocols.loihi_protocol import LoihiProtocol
    from lava.proc.conv.process import Conv
    from lava.proc.dense.process import Dense
    from lava.proc.lif.models import PyLifResetModelBitAcc
    from lava.proc.lif.process import LIFReset
    from lava.proc.sparse.process import Sparse
    from lava.utils.weightutils import SignMode
    from scipy.sparse import coo_matrix
except ImportError as missing:
    print(f"{type(missing).__name__}: {missing}", file=sys.stderr)
    sys.exit(EXIT_NO_LAVA)
_repair["mend_reshape"](ReshapePort)

Entry = dict[str, Any]
Arrays = dict[str, np.ndarray[Any, Any]]


class SharedBlock:
    """Anonymous memory shared with forked children; has the one attribute Lava's channels use of a SharedMemory."""

    def __init__(self, size: int) -> None:
        self.buf = memoryview(mmap.mmap(-1, max(size, 1)))


class AnonymousMemory:
    """Stands in for Lava's SharedMemoryManager, which needs one more server process and names in ``/dev/shm``."""

    def start(self) -> None:
        """Nothing to start."""

    def shutdown(self) -> None:
        """Nothing to end: the memory goes with the last process that maps it."""

    def create_shared_memory(self, size: int) -> SharedBlock:
        """A new block of ``size`` bytes."""
        return SharedBlock(size)


class LoudProcess(transport.SystemProcess):
    """Lava's process, but an exception in it ends the run at once with its traceback; Lava would wait for ever."""

    def run(self) -> None:
        """Run Lava's loop; on an exception print it and end this worker."""
        try:
            mp.Process.run(self)
        except Exception:  # noqa: BLE001 - whatever it was, it must be shown and must not hang the run
            traceback.print_exc()
            sys.stderr.flush()
            os.kill(os.getppid(), signal.SIGUSR1)


def shared_array(shape: tuple[int, ...], dtype: type[np.generic]) -> np.ndarray[Any, Any]:
    """An array that forked children write and this process reads."""
    size = int(np.prod(shape)) * np.dtype(dtype).itemsize
    return np.frombuffer(SharedBlock(size).buf, dtype=dtype, count=int(np.prod(shape))).reshape(shape)


# Frames to send and recordings, by process name; forked children inherit them, so nothing is copied into channels.
STREAMS: Arrays = {}
RECORDS: Arrays = {}


class Stream(AbstractProcess):
    """Sends ``STREAMS[key]`` frame by frame, each ``repeat`` steps long, then zeros."""

    def __init__(self, *, key: str, size: int, repeat: int) -> None:
        super().__init__(key=key, repeat=repeat)
        self.s_out = OutPort(shape=(size,))


@implements(proc=Stream, protocol=LoihiProtocol)
@requires(CPU)
@tag("fixed_pt")
class PyStream(PyLoihiProcessModel):
    """CPU model of :class:`Stream`."""

    s_out: PyOutPort = LavaPyType(PyOutPort.VEC_DENSE, np.int32)

    def __init__(self, proc_params: Any) -> None:
        super().__init__(proc_params)
        self._frames = STREAMS[proc_params["key"]]
        self._repeat = proc_params["repeat"]

    def run_spk(self) -> None:
        """Send the frame of this step."""
        index = (self.time_step - 1) // self._repeat
        frame = self._frames[index] if index < len(self._frames) else np.zeros_like(self._frames[0])
        self.s_out.send(frame.astype(np.int32))


class Sink(AbstractProcess):
    """Records what it receives from step ``skip`` on into ``RECORDS[key]``, one row a step."""

    def __init__(self, *, key: str, size: int, skip: int) -> None:
        super().__init__(key=key, skip=skip)
        self.a_in = InPort(shape=(size,))


@implements(proc=Sink, protocol=LoihiProtocol)
@requires(CPU)
@tag("fixed_pt")
class PySink(PyLoihiProcessModel):
    """CPU model of :class:`Sink`."""

    a_in: PyInPort = LavaPyType(PyInPort.VEC_DENSE, np.int32)

    def __init__(self, proc_params: Any) -> None:
        super().__init__(proc_params)
        self._rows = RECORDS[proc_params["key"]]
        self._skip = proc_params["skip"]

    def run_spk(self) -> None:
        """Record this step."""
        received = self.a_in.recv()
        row = self.time_step - 1 - self._skip
        if 0 <= row < len(self._rows):
            self._rows[row] = received


class Delay(AbstractProcess):
    """Passes spikes on ``steps`` steps later (0: at once); nothing leaves before step ``start`` (counted from 0).

    Nothing leaves either at the phases (step modulo ``period``) named by ``silent``: these are spikes that were still
    on their way when the sample they belong to ended.
    """

    def __init__(self, *, size: int, steps: int, start: int, period: int, silent: tuple[int, ...]) -> None:
        super().__init__(steps=steps, start=start, period=period, silent=silent)
        self.s_in = InPort(shape=(size,))
        self.s_out = OutPort(shape=(size,))


@implements(proc=Delay, protocol=LoihiProtocol)
@requires(CPU)
@tag("fixed_pt")
class PyDelay(PyLoihiProcessModel):
    """CPU model of :class:`Delay`."""

    s_in: PyInPort = LavaPyType(PyInPort.VEC_DENSE, np.int32)
    s_out: PyOutPort = LavaPyType(PyOutPort.VEC_DENSE, np.int32)

    def __init__(self, proc_params: Any) -> None:
        super().__init__(proc_params)
        self._steps, self._start, self._period = (proc_params[key] for key in ("steps", "start", "period"))
        self._silent = frozenset(proc_params["silent"])
        self._line: deque[Any] = deque()

    def run_spk(self) -> None:
        """Take this step's spikes in, let those of ``steps`` steps ago out."""
        self._line.append(self.s_in.recv())
        step = self.time_step - 1
        due = self._line.popleft() if step >= self._steps else np.zeros_like(self._line[0])
        passes = step >= self._start and step % self._period not in self._silent
        self.s_out.send(due if passes else np.zeros_like(due))


class LIFVariant(LIFReset):
    """Lava's LIFReset with what no ``fixed_pt`` model of Lava has: subtract reset, a refractory period, no spikes."""

    def __init__(self, *, subtract: bool, refractory: int, spiking: bool, **options: Any) -> None:
        super().__init__(**options)
        self.proc_params["subtract"] = subtract
        self.proc_params["refractory"] = refractory
        self.proc_params["spiking"] = spiking


class PyLifVariant(PyLifResetModelBitAcc):
    """CPU model of :class:`LIFVariant`: Lava's own step, around which v is held, spikes kept back, the reset changed.

    The refractory period is that of Lava's ``LIFRefractory`` (floating point only): u goes on, v of the neurons that
    spiked waits for ``refractory`` steps.
    """

    implements_process = LIFVariant  # Lava's decorator refuses to be used on the child of a decorated model

    def __init__(self, proc_params: Any) -> None:
        super().__init__(proc_params)
        names = ("subtract", "refractory", "spiking")
        self._subtract, self._refractory, self._spiking = (proc_params[name] for name in names)
        self._held_until: Any = 0

    def subthr_dynamics(self, activation_in: Any) -> None:
        """Lava's own, but v of refractory neurons stays as it was."""
        if self.time_step % self.reset_interval == self.reset_offset:
            self._held_until = np.zeros(self.v.shape, np.int64)
        held, before = self._held(), self.v.copy()
        super().subthr_dynamics(activation_in)
        self.v[held] = before[held]

    def _held(self) -> Any:
        return np.broadcast_to(self._held_until >= self.time_step, self.v.shape)

    def spiking_activation(self) -> Any:
        """Lava's own, but neither refractory neurons nor a readout spike."""
        return super().spiking_activation() & ~self._held() & self._spiking

    def reset_voltage(self, spike_vector: Any) -> None:
        """Set v of the neurons that spiked to 0, or take ``vth << 6`` off it; their refractory period begins."""
        self.v[spike_vector] = (self.v - self.effective_vth)[spike_vector] if self._subtract else 0
        if self._refractory:
            self._held_until = np.where(spike_vector, self.time_step + self._refractory, self._held_until)


class RecordsState:
    """Mixed into Lava's LIF models: copies u and v to ``RECORDS`` after each step, where asked to."""

    def run_spk(self) -> None:
        """Lava's own step, then the copy."""
        super().run_spk()  # type: ignore[misc]
        params: Any = self.proc_params  # type: ignore[attr-defined]
        key, row = params.get("watch"), self.time_step - 1 - params.get("skip", 0)  # type: ignore[attr-defined]
        if key and 0 <= row < len(RECORDS[f"{key}.u"]):
            RECORDS[f"{key}.u"][row] = self.u  # type: ignore[attr-defined]
            RECORDS[f"{key}.v"][row] = self.v  # type: ignore[attr-defined]


class WatchedLifReset(RecordsState, PyLifResetModelBitAcc):
    """Lava's LIFReset model, recorded."""


class WatchedLifVariant(RecordsState, PyLifVariant):
    """Our LIFVariant model, recorded."""


def build_stream(entry: Entry, arrays: Arrays) -> AbstractProcess:
    """``frames`` uint8 [N, n], each sent ``repeat`` steps long."""
    STREAMS[entry["name"]] = arrays[f"{entry['name']}.frames"]
    return Stream(key=entry["name"], size=entry["size"], repeat=entry["repeat"])


def build_sink(entry: Entry, arrays: Arrays) -> AbstractProcess:
    """Records ``rows`` steps from step ``skip`` on."""
    RECORDS[entry["name"]] = shared_array((entry["rows"], entry["size"]), np.uint8)
    return Sink(key=entry["name"], size=entry["size"], skip=entry["skip"])


def build_delay(entry: Entry, arrays: Arrays) -> AbstractProcess:
    """A delay line of ``steps`` steps."""
    scalars = {key: entry[key] for key in ("size", "steps", "start", "period")}
    return Delay(**scalars, silent=tuple(entry["silent"]))


def build_lif(entry: Entry, arrays: Arrays) -> AbstractProcess:
    """LIFReset or LIFVariant, cleared at step ``offset`` and every ``period`` steps; recorded where asked to."""
    mode = {"subtract": entry["reset"] == "subtract", "refractory": entry["refractory"], "spiking": entry["spiking"]}
    plain = mode == {"subtract": False, "refractory": 0, "spiking": True}
    kind = LIFReset if plain else partial(LIFVariant, **mode)
    process = kind(
        shape=(entry["size"],),
        du=entry["du"],
        dv=entry["dv"],
        vth=entry["vth"],
        bias_mant=arrays[f"{entry['name']}.bias_mant"].astype(np.int32),
        bias_exp=entry["bias_exp"],
        reset_interval=entry["period"],
        reset_offset=entry["offset"],
    )
    if entry["watch"]:
        for part in ("u", "v"):
            RECORDS[f"{entry['name']}.{part}"] = shared_array((entry["rows"], entry["size"]), np.int32)
        process.proc_params["watch"], process.proc_params["skip"] = entry["name"], entry["skip"]
    return process


def _synapse_options(entry: Entry) -> Entry:
    return {
        "weight_exp": entry["weight_exp"],
        "num_weight_bits": entry["weight_bits"],
        "sign_mode": SignMode[entry["sign_mode"].upper()],
        "num_message_bits": entry["message_bits"],
    }


def build_dense(entry: Entry, arrays: Arrays) -> AbstractProcess:
    """``weights`` [n_out, n_in]."""
    weights = arrays[f"{entry['name']}.weights"].astype(np.int32)
    return Dense(weights=weights, **_synapse_options(entry))


def build_sparse(entry: Entry, arrays: Arrays) -> AbstractProcess:
    """``weights`` of the connections ``rows`` (targets), ``columns`` (sources)."""
    name = entry["name"]
    places = (arrays[f"{name}.rows"], arrays[f"{name}.columns"])
    values = arrays[f"{name}.weights"].astype(np.int32)
    matrix = coo_matrix((values, places), shape=tuple(entry["shape"])).tocsr()
    return Sparse(weights=matrix, **_synapse_options(entry))


def build_conv(entry: Entry, arrays: Arrays) -> AbstractProcess:
    """``weights`` [O, I/groups, kh, kw] as torch has them; Lava's own order is (W, H, C), kernels flipped, O first.

    Lava's Conv ignores ``weight_exp``, so the exponent (never negative here) is applied to the weights.
    """
    kernel = arrays[f"{entry['name']}.weights"].astype(np.int32) << entry["weight_exp"]
    channels, height, width = entry["input_shape"]
    return Conv(
        weight=np.ascontiguousarray(kernel[:, :, ::-1, ::-1].transpose(0, 3, 2, 1)),
        input_shape=(width, height, channels),
        stride=tuple(entry["stride"][::-1]),
        padding=tuple(entry["padding"][::-1]),
        dilation=tuple(entry["dilation"][::-1]),
        groups=entry["groups"],
        num_message_bits=entry["message_bits"],
    )


BUILDERS: dict[str, Callable[[Entry, Arrays], AbstractProcess]] = {
    "stream": build_stream,
    "sink": build_sink,
    "delay": build_delay,
    "lif": build_lif,
    "dense": build_dense,
    "sparse": build_sparse,
    "conv": build_conv,
}


def connect(wire: Entry, processes: dict[str, AbstractProcess]) -> None:
    """Join two ports; flat ``(C, H, W)`` order on one side and Lava's ``(W, H, C)`` on the other are turned."""
    source = getattr(processes[wire["from"]], wire["from_port"])
    target = getattr(processes[wire["to"]], wire["to_port"])
    if wire.get("to_image"):
        source = source.reshape(tuple(wire["to_image"])).transpose([2, 1, 0])
    if wire.get("from_image"):
        source = source.transpose([2, 1, 0]).reshape((int(np.prod(source.shape)),))
    source.connect(target)


def run(header: Entry, arrays: Arrays) -> Arrays:
    """Build the network, run it, and give back what was recorded."""
    started = time.perf_counter()
    STREAMS.clear()
    RECORDS.clear()
    processes = {entry["name"]: BUILDERS[entry["kind"]](entry, arrays) for entry in header["processes"]}
    for wire in header["wires"]:
        connect(wire, processes)
    watched = {LIFReset: WatchedLifReset, LIFVariant: WatchedLifVariant}
    config = Loihi2SimCfg(select_tag="fixed_pt", exception_proc_model_map=watched if header["state"] else None)
    first = processes[header["processes"][0]["name"]]
    runtime_started = time.perf_counter()
    first.run(condition=RunSteps(num_steps=header["steps"]), run_cfg=config)
    first.stop()
    ended = time.perf_counter()
    return {**RECORDS, "seconds": np.array([runtime_started - started, ended - runtime_started])}


def end_with_parent() -> None:
    """End the whole process group when the parent goes: its end of our stdin closes, whatever ended it.

    Children of this process ask Linux for SIGKILL when this process goes.
    """

    def watch() -> None:
        while os.read(0, 4096):
            pass
        os.killpg(0, signal.SIGKILL)

    threading.Thread(target=watch, daemon=True).start()
    if sys.platform == "linux":
        libc = ctypes.CDLL(None)
        os.register_at_fork(after_in_child=lambda: libc.prctl(1, signal.SIGKILL))  # 1: PR_SET_PDEATHSIG


def end_with_children() -> None:
    """End this process when one of Lava's fails or is killed (out of memory); Lava itself would wait for ever."""

    def died(*_: object) -> None:
        try:
            child = os.waitid(os.P_ALL, 0, os.WEXITED | os.WNOHANG | os.WNOWAIT)
        except ChildProcessError:
            return
        if child is not None and child.si_code in (os.CLD_KILLED, os.CLD_DUMPED):
            print(f"one of Lava's processes was ended by signal {child.si_status}", file=sys.stderr, flush=True)
            os._exit(EXIT_PROCESS_FAILED)

    signal.signal(signal.SIGUSR1, lambda *_: os._exit(EXIT_PROCESS_FAILED))
    if hasattr(os, "waitid"):
        signal.signal(signal.SIGCHLD, died)


def info() -> Entry:
    """What this interpreter has; the field names are those of the client's ``WorkerInfo``."""

    def version(name: str) -> str:
        try:
            return metadata.version(name)
        except metadata.PackageNotFoundError:
            return ""

    return {
        "python": platform.python_version(),
        "numpy": np.__version__,
        "lava_nc": version("lava-nc"),
        "lava_dl": version("lava-dl"),
        "repaired": _repair["needed"](),
        "netx_missing": [name for name in ("h5py", "matplotlib", "torch") if find_spec(name) is None],
        "board": find_spec("nxcore") is not None,
    }


def main(given: str, result: str) -> int:
    """Read the requests, run each, write the recordings; or, asked for ``--info``, write what is here."""
    end_with_parent()
    if given == "--info":
        Path(result).write_text(json.dumps(info()))
        return 0
    warnings.simplefilter("ignore")
    end_with_children()
    transport.SharedMemoryManager, transport.SystemProcess = AnonymousMemory, LoudProcess
    # Lava looks for process models in every file beside the file of the process; there are none beside this one.
    sys.modules["__main__"].__file__ = os.path.join(os.path.dirname(os.path.abspath(given)), "no-models", "worker.py")
    try:
        with np.load(given, allow_pickle=False) as archive:
            arrays = {name: archive[name] for name in archive.files}
        headers = json.loads(bytes(arrays.pop("headers")))
    except (OSError, ValueError, KeyError) as error:
        print(f"the requests cannot be read: {type(error).__name__}: {error}", file=sys.stderr)
        return EXIT_BAD_REQUEST
    recorded = {}
    for index, header in enumerate(headers):
        mine = {name.partition("/")[2]: array for name, array in arrays.items() if name.startswith(f"{index}/")}
        recorded.update({f"{index}/{name}": array for name, array in run(header, mine).items()})
    with open(result, "wb") as stream:
        np.savez(stream, allow_pickle=False, **recorded)
    return 0


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
