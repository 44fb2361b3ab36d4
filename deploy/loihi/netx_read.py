"""A netx file of lava-dl as a Program; see :mod:`deploy.loihi.netx`. No object is followed, nothing is executed."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final, cast

import numpy as np
import numpy.typing as npt

from deploy.errors import GraphError, UnsupportedNode
from deploy.graph.coerce import integer
from deploy.graph.hdf5 import Limits, Tree, read_tree
from deploy.loihi.netx_weights import on_grid
from deploy.loihi.netx_write import BIAS_EXP, OURS, POPULATION
from deploy.program import Conv, Dense, Input, Population, Program, Shape, Synapse

Array = npt.NDArray[Any]
NEURONS: Final = ("LOIHI", "CUBA")
LAYERS: Final = ("input", "conv", "flatten", "dense", "dense_rec")
FIELDS: Final = {
    "type", "shape", "neuron", "weight", "bias", "delay", "weight_rec", "stride", "padding", "dilation", "groups",
    "kernelSize", "inChannels", "outChannels", "inFeatures", "outFeatures",
}  # fmt: skip
NEURON_FIELDS: Final = {
    "type", "iDecay", "vDecay", "vThMant", "refDelay", "gradedSpike", "wgtExp", "theta", "scaleRho", "tauRho",
}  # fmt: skip
LFS: Final = b"version https://git-lfs"
NETX: Final = "a netx file as lava-dl 0.6.0's export_hdf5 and deploy.loihi.netx.write make it"


def contents(path: Path) -> tuple[list[tuple[str, dict[str, Any]]], int | None]:
    """The file's layers in order, each with its name, and the output neurons a class, if a file of ours says so.

    Everything else in the file (``simulation``) is no network.

    Raises:
        FileError, GraphError: not readable, not HDF5, damaged, or no netx file.
    """
    _refuse_pointer(path)
    tree, _ = read_tree(path, Limits())
    found = tree.get("layer")
    if not isinstance(found, dict) or sorted(found, key=str) != sorted(map(str, range(len(found)))) or not found:
        raise GraphError("the file holds no netx layers", where=path, got=sorted(tree), allowed=NETX)
    layers = [(f"layer {index}", found[str(index)]) for index in range(len(found))]
    for where, layer in layers:
        if not isinstance(layer, dict) or "type" not in layer:
            raise GraphError("a layer has no type", where=where, got=type(layer).__name__, allowed=NETX)
    ours = tree.get(OURS)
    each = ours.get(POPULATION) if isinstance(ours, dict) else None
    found_each = None if each is None else integer(f"{OURS}/{POPULATION}", each, low=1)
    return cast("list[tuple[str, dict[str, Any]]]", layers), found_each


def _refuse_pointer(path: Path) -> None:
    try:
        with path.open("rb") as stream:
            start = stream.read(len(LFS))
    except OSError:
        return  # read_tree says why
    if start == LFS:
        raise GraphError(
            "the file is a Git LFS pointer; the network itself is not there",
            where=path,
            got=f"{path.stat().st_size} bytes of text",
            allowed=NETX,
            next_step="`git lfs pull` where the repository's large files are still served",
        )


@dataclass
class Reader:
    """A Program while its layers are read.

    Attributes:
        input_bias: Bias mantissas ``[C, H, W]`` or ``[n]`` of the input layer's neurons, which then belong to the
            Program; None: what that layer sends is the Program's input.
        input_shape: Where the file does not say it.
    """

    input_bits: int
    input_shape: Shape | None = None
    input_bias: Array | None = None
    source: Input | None = None
    populations: list[Population] = field(default_factory=list)
    synapses: list[Synapse] = field(default_factory=list)

    def program(self, layers: list[tuple[str, dict[str, Any]]], **stated: int | None) -> Program:
        """Read every layer; what is stated besides (``steps``, ``population``) goes into the Program's meta."""
        for where, layer in layers:
            kind = text(layer["type"], where)
            if kind not in LAYERS:
                raise refused(where, f"a layer of type {kind!r}", LAYERS)
            if unknown := sorted(set(layer) - FIELDS):
                raise refused(where, f"fields {', '.join(unknown)}", sorted(FIELDS))
            getattr(self, f"read_{kind}")(where, layer)
        if self.source is None or not self.populations:
            raise GraphError("the file holds no layer of neurons", where="layer", got=len(layers), allowed=NETX)
        meta = {"source": "netx", **{key: value for key, value in stated.items() if value is not None}}
        return Program(self.source, tuple(self.populations), tuple(self.synapses), meta)

    def read_input(self, where: str, layer: dict[str, Any]) -> None:
        """Without its neurons: where the input enters. With them: their spikes are the input, or they are driven."""
        if self.source is not None:
            raise refused(where, "a second input layer", "one, the first layer")
        shape = _shape(layer, where)
        if self.input_bias is None or "neuron" not in layer:
            self.source = Input("in", shape, self.input_bits)
            return
        bias = np.asarray(self.input_bias)
        if bias.shape != shape:
            raise GraphError(
                "the input layer's biases have the wrong shape", where=where, got=bias.shape, allowed=shape
            )
        self.source = Input("in", (1,), 1)
        name = self.add_population(where, shape, layer["neuron"], bias.ravel())
        silent = np.zeros((int(np.prod(shape)), 1), np.int16)
        self.synapses.append(Dense("no_input", "in", name, silent))

    def read_flatten(self, where: str, layer: dict[str, Any]) -> None:
        """Row-major ``(C, H, W)``, which is how a Program's images lie already."""

    def read_conv(self, where: str, layer: dict[str, Any]) -> None:
        """Kernels ``[O, I/groups, kh, kw]``, with a fifth axis of 1 in files of the older slayer."""
        if "delay" in layer and np.any(layer["delay"]):
            raise refused(where, "delays on a convolution", "none; netx reads none there")
        kernel = _numbers(layer, "weight", where)
        kernel = kernel.reshape(kernel.shape[:4]) if kernel.ndim == 5 and kernel.shape[4] == 1 else kernel
        before = self.before(None, where)
        pairs = {name: _pair(layer, name, where) for name in ("stride", "padding", "dilation")}
        format_ = _format(kernel, where)
        shape = _shape(layer, where)
        name = self.add_population(where, shape, layer.get("neuron"), layer.get("bias"))
        groups = int(_numbers(layer, "groups", where))
        weights, exponent, mode = format_
        self.synapses.append(
            Conv(f"{name}_weights", before.name, name, weights, exponent, 8, mode, 0, groups=groups, **pairs)
        )

    def read_dense(self, where: str, layer: dict[str, Any]) -> None:
        """Weights ``[n_out, n_in]``, one synapse block for each delay that occurs."""
        outputs = int(np.prod(_numbers(layer, "shape", where)))
        weights = _numbers(layer, "weight", where).reshape(outputs, -1)
        before = self.before((weights.shape[1],), where)
        recurrent = _numbers(layer, "weight_rec", where).reshape(outputs, -1) if "weight_rec" in layer else None
        name = self.add_population(where, (outputs,), layer.get("neuron"), layer.get("bias"))
        for delay, part in _by_delay(weights, layer.get("delay"), where):
            suffix = f"_delay{delay}" if "delay" in layer else ""
            self.add_dense(f"{name}_weights{suffix}", before.name, name, part, delay, where)
        if recurrent is not None:
            self.add_dense(f"{name}_loop", name, name, recurrent, 1, where)

    read_dense_rec = read_dense

    def add_dense(self, name: str, source: str, target: str, weights: Array, delay: int, where: str) -> None:
        """One block."""
        values, exponent, mode = _format(weights, where)
        self.synapses.append(Dense(name, source, target, values, exponent, 8, mode, delay))

    def before(self, flat: Shape | None, where: str) -> Input | Population:
        """The layer before; the input where there is none yet."""
        if self.populations:
            return self.populations[-1]
        if self.source is None:
            shape = self.input_shape or flat
            if shape is None:
                raise GraphError(
                    "the file does not say the shape of its input",
                    where=where,
                    allowed="an input layer",
                    next_step="give input_shape=(C, H, W)",
                )
            self.source = Input("in", shape, self.input_bits)
        return self.source

    def add_population(self, where: str, shape: Shape, neuron: object, bias: object) -> str:
        """Neurons as netx makes them of the layer's ``neuron``; the population's name."""
        scalars = _cells(neuron, where)
        name = where.replace(" ", "")
        mantissas = _biases(bias, shape, where)
        self.populations.append(Population(name, shape, *scalars, mantissas, BIAS_EXP))
        return name


def _cells(neuron: object, where: str) -> tuple[int, int, int]:
    """du, dv and vth."""
    if not isinstance(neuron, dict):
        raise refused(where, "a layer without neurons", "LOIHI or CUBA neurons")
    kind = text(neuron.get("type", ""), where)
    if kind not in NEURONS:
        raise refused(where, f"neurons of type {kind!r}", NEURONS)
    if unknown := sorted(set(neuron) - NEURON_FIELDS):
        raise refused(where, f"neuron fields {', '.join(unknown)}", sorted(NEURON_FIELDS))
    values = {name: int(_numbers(neuron, name, where)) for name in ("iDecay", "vDecay", "vThMant")}
    for name, usual in (("refDelay", (0, 1)), ("gradedSpike", (0,)), ("wgtExp", (0,))):
        if name in neuron and int(_numbers(neuron, name, where)) not in usual:
            raise refused(
                where, f"{name} {int(_numbers(neuron, name, where))}", f"{usual[-1]}; netx reads nothing else"
            )
    return values["iDecay"] - 1, values["vDecay"], values["vThMant"]


def _biases(bias: object, shape: Shape, where: str) -> Array:
    """``[n]``: one a layer, one a channel, or one a neuron in Lava's ``(W, H, C)`` order, as netx takes them."""
    size = int(np.prod(shape))
    if bias is None:
        return np.zeros(size, np.int16)
    values = _whole(np.asarray(bias), "bias", where)
    if values.size == 1:
        return np.full(size, int(values.ravel()[0]))
    if values.shape == (size,):
        return values
    if len(shape) == 3 and values.shape == (shape[0],):
        return np.repeat(values, shape[1] * shape[2])
    if len(shape) == 3 and values.shape == shape[::-1]:
        return np.ascontiguousarray(values.transpose(2, 1, 0)).reshape(size)
    raise GraphError("the biases have the wrong shape", where=where, got=values.shape, allowed=shape)


def _by_delay(weights: Array, delay: object, where: str) -> Iterator[tuple[int, Array]]:
    """Each delay that occurs, with the weights that have it."""
    if delay is None:
        yield 0, weights
        return
    given = np.clip(_whole(np.asarray(delay), "delay", where), 0, 62)
    if given.ndim == 1 and given.shape[0] == weights.shape[0]:
        given = given[:, None]
    elif given.ndim == 1 and given.shape[0] == weights.shape[1]:
        given = given[None, :]
    try:
        each = np.broadcast_to(given, weights.shape)
    except ValueError as error:
        raise GraphError(
            "the delays have the wrong shape", where=where, got=given.shape, allowed=weights.shape
        ) from error
    for value in np.unique(each):
        yield int(value), np.where(each == value, weights, 0)


def _format(weights: Array, where: str) -> tuple[Array, int, Any]:
    found = on_grid(weights)
    if found is None:
        span = f"{int(weights.min())}..{int(weights.max())}"
        raise refused(where, f"weights {span} off the 8-bit grid, which netx would clip", "-256..254, even beyond ±127")
    return found


def text(value: object, where: str) -> str:
    """A text of the file, whichever way HDF5 kept it."""
    one = np.asarray(value, dtype=object).ravel()
    if one.size != 1 or not isinstance(one[0], (str, bytes)):
        raise GraphError("a type is no text", where=where, got=repr(value)[:80], allowed=NETX)
    return one[0].decode("ascii", "replace") if isinstance(one[0], bytes) else one[0]


def _numbers(layer: Tree | dict[str, Any], name: str, where: str) -> Array:
    if name not in layer or isinstance(layer[name], dict):
        raise GraphError(f"the layer has no {name}", where=where, got=sorted(layer), allowed=NETX)
    values = _whole(np.asarray(layer[name]), name, where)
    return values.reshape(()) if values.size == 1 and name not in ("weight", "weight_rec", "shape") else values


def _whole(values: Array, name: str, where: str) -> Array:
    numeric = values.dtype.kind in "biuf" and bool(np.all(np.isfinite(values)))
    if not numeric or values.size == 0 or np.any(np.abs(values) > 2**31) or np.any(values != np.floor(values)):
        raise GraphError(f"{name} is not in whole numbers", where=where, got=str(values.dtype), allowed="whole numbers")
    return values.astype(np.int64)


def _pair(layer: dict[str, Any], name: str, where: str) -> tuple[int, int]:
    values = _numbers(layer, name, where).ravel()
    if values.size not in (1, 2):
        raise GraphError(f"{name} is no pair", where=where, got=values.shape, allowed="one number, or (y, x)")
    return int(values[0]), int(values[-1])


def _shape(layer: dict[str, Any], where: str) -> Shape:
    """``(n,)``, or ``(C, H, W)``."""
    shape = tuple(int(n) for n in _numbers(layer, "shape", where).ravel())
    if len(shape) not in (1, 3) or min(shape) < 1:
        raise GraphError("the shape is not understood", where=where, got=shape, allowed="(n,) or (C, H, W)")
    return shape


def refused(where: str, got: str, allowed: object) -> UnsupportedNode:
    """The error for what has no counterpart in a Program."""
    return UnsupportedNode("the netx network cannot be taken", where=where, got=got, allowed=allowed)
