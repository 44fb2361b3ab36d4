"""Lava's processes of a Program: built here for the worker and for a user's own script alike, so they cannot differ.

One small builder function a kind of process turns an entry of :mod:`deploy.loihi.protocol` into a Lava process; Lava's
own ``LIFReset``, ``Dense``, ``Conv`` and ``Sparse`` do all arithmetic. Four processes of ours move data: ``Stream``
feeds recorded frames, ``Sink`` records, ``Delay`` holds spikes back where two paths differ in length, ``LIFVariant``
is Lava's LIF in the neuron modes that Lava's ``fixed_pt`` models lack.

Imports Lava, and nothing of ``deploy``: the worker loads this file by path. It is the only file of its folder, because
Lava executes every file beside the file of a process when it looks for models.
"""

from __future__ import annotations

import mmap
from collections import deque
from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np
from lava.magma.core.decorator import implements, requires, tag
from lava.magma.core.model.py.model import PyLoihiProcessModel
from lava.magma.core.model.py.ports import PyInPort, PyOutPort
from lava.magma.core.model.py.type import LavaPyType
from lava.magma.core.process.ports.ports import InPort, OutPort, ReshapePort
from lava.magma.core.process.process import AbstractProcess
from lava.magma.core.resources import CPU
from lava.magma.core.run_configs import Loihi2SimCfg
from lava.magma.core.sync.protocols.loihi_protocol import LoihiProtocol
from lava.proc.conv.process import Conv
from lava.proc.dense.process import Dense
from lava.proc.lif.models import PyLifResetModelBitAcc
from lava.proc.lif.process import LIFReset
from lava.proc.sparse.process import Sparse
from lava.utils.weightutils import SignMode
from scipy.sparse import coo_matrix

__all__ = ["BUILDERS", "RECORDS", "STREAMS", "ReshapePort", "SharedBlock", "build", "simulation", "source"]
Entry = dict[str, Any]
Arrays = dict[str, np.ndarray[Any, Any]]


class SharedBlock:
    """Anonymous memory shared with forked children; has the one attribute Lava's channels use of a SharedMemory."""

    def __init__(self, size: int) -> None:
        self.buf = memoryview(mmap.mmap(-1, max(size, 1)))


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

    def __init__(
        self, *, size: int, steps: int, start: int, period: int, silent: tuple[int, ...], name: str | None = None
    ) -> None:
        super().__init__(steps=steps, start=start, period=period, silent=silent, name=name)
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
    return Delay(**scalars, silent=tuple(entry["silent"]), name=entry["name"])


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
        name=entry["name"],
    )
    if entry["watch"]:
        for part in ("u", "v"):
            RECORDS[f"{entry['name']}.{part}"] = shared_array((entry["rows"], entry["size"]), np.int32)
        process.proc_params["watch"], process.proc_params["skip"] = entry["name"], entry["skip"]
    return process


def _synapse_options(entry: Entry) -> Entry:
    return {
        "name": entry["name"],
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
        name=entry["name"],
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
    port = source(wire, getattr(processes[wire["from"]], wire["from_port"]))
    target = getattr(processes[wire["to"]], wire["to_port"])
    if wire.get("from_image"):
        port = port.transpose([2, 1, 0]).reshape((int(np.prod(port.shape)),))
    port.connect(target)


def source(entry: Entry, port: OutPort) -> OutPort:
    """The port as the wire's target wants it: a flat ``(C, H, W)`` turned into Lava's ``(W, H, C)`` for a Conv."""
    if entry.get("to_image"):
        return port.reshape(tuple(entry["to_image"])).transpose([2, 1, 0])
    return port


def build(header: Entry, arrays: Arrays) -> dict[str, AbstractProcess]:
    """Every process of a header by its name, connected; wires that begin outside the header are left open."""
    processes = {entry["name"]: BUILDERS[entry["kind"]](entry, arrays) for entry in header["processes"]}
    for wire in header["wires"]:
        if wire["from"] in processes:
            connect(wire, processes)
    return processes


def simulation(*, watched: bool = False) -> Loihi2SimCfg:
    """Lava's configuration for its bit-accurate CPU models; with ``watched``, those that record u and v."""
    models = {LIFReset: WatchedLifReset, LIFVariant: WatchedLifVariant} if watched else None
    return Loihi2SimCfg(select_tag="fixed_pt", exception_proc_model_map=models)
