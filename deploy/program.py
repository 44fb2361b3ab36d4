"""The integer Program: what every backend takes. Frozen, checked on construction, saved as one ``.npz`` file.

A Program is a directed graph of populations (neurons) and synapses (weights). Time is *undelayed*: within step ``t`` a
population sees its sources' spikes of step ``t - delay``. A pipelined run (Lava, the chip) gives the same spikes, each
layer one step later than the one before; see ``depth``.
"""

from __future__ import annotations

import hashlib
import json
import math
from dataclasses import asdict, dataclass, field, fields
from functools import cached_property
from pathlib import Path
from typing import Any, Final, Literal, cast

import numpy as np
import numpy.typing as npt

from deploy import fixed_point as fp
from deploy.errors import FileError, ProgramError
from deploy.files import atomic_path, read_arrays

SCHEMA: Final = 2
READABLE: Final = (1, 2)  # 1 had neither readouts nor refractory periods; their defaults mean the same network
ResetRule = Literal["zero", "subtract"]
Shape = tuple[int, ...]
IntArray = npt.NDArray[np.int32]


def _require(ok: bool, what: str, where: str, got: object, allowed: object, next_step: str = "") -> None:
    if not ok:
        raise ProgramError(what, where=where, got=got, allowed=allowed, next_step=next_step)


def _is_whole(value: object) -> bool:
    return isinstance(value, (int, np.integer)) and not isinstance(value, bool) and int(value) >= 1


def _require_range(value: int, low: int, high: int, what: str, where: str) -> None:
    is_int = isinstance(value, (int, np.integer)) and not isinstance(value, bool)
    _require(is_int and low <= value <= high, f"{what} is out of range", where, value, f"{low}..{high}")


def _freeze(array: npt.ArrayLike, dtype: type[np.generic], where: str) -> npt.NDArray[Any]:
    given = np.asarray(array)
    _require(
        np.issubdtype(given.dtype, np.integer),
        "an integer array is needed",
        where,
        given.dtype,
        "integers (a float array with NaN or fractions has no place on the chip)",
        "quantize the network first",
    )
    frozen = np.ascontiguousarray(given.astype(dtype))
    _require(
        np.array_equal(frozen, given),
        "values do not fit the stored width",
        where,
        given.dtype,
        dtype.__name__,
    )
    frozen.flags.writeable = False
    return frozen


@dataclass(frozen=True)
class Input:
    """Where spikes enter.

    Attributes:
        shape: Shape of one step of one sample, ``(n,)`` or ``(C, H, W)``.
        bits: 1 for plain spikes (0/1); 2..8 for graded input, unsigned ``0 .. 2^bits - 1``.
    """

    name: str
    shape: Shape
    bits: int = 1

    def __post_init__(self) -> None:
        _require_range(self.bits, 1, 8, "input bits", self.name)
        _require_shape(self.shape, self.name)

    @property
    def size(self) -> int:
        """Number of input axons."""
        return int(np.prod(self.shape))

    @property
    def largest(self) -> int:
        """Largest value one input can send in a step."""
        return (1 << self.bits) - 1


def _require_shape(shape: Shape, where: str) -> None:
    ok = len(shape) in (1, 3) and all(isinstance(n, (int, np.integer)) and n > 0 for n in shape)
    _require(ok, "the shape is not understood", where, shape, "(n,) or (C, H, W), all positive")


@dataclass(frozen=True, eq=False)
class Population:
    """Neurons with common decays and threshold.

    Attributes:
        shape: ``(n,)`` or ``(C, H, W)``.
        du, dv: Decays of current and membrane, 0..4095 (``du = 4095``: memoryless current, plain LIF).
        vth: Threshold mantissa, 0..131071; a neuron spikes when ``v > vth << 6``.
        bias_mant: int16 ``[n]``, signed 13 bit; added to v each step as ``bias_mant << bias_exp``.
        bias_exp: 0..7, one for the population.
        reset: ``zero`` (the chip's), or ``subtract``, which only CPU simulators run.
        refractory: Steps after a spike in which v is held and no spike leaves while u goes on; 0 on the chip, more
            only on CPU simulators.
        spiking: False for a readout: no threshold and no reset, v is the answer, nothing leaves.
        scale: Float value of one unit of synaptic sum (64 units of v), for reading membranes; 0 if unknown.
    """

    name: str
    shape: Shape
    du: int
    dv: int
    vth: int
    bias_mant: npt.NDArray[Any]
    bias_exp: int = 0
    reset: ResetRule = "zero"
    refractory: int = 0
    spiking: bool = True
    scale: float = 0.0

    def __post_init__(self) -> None:
        _require_shape(self.shape, self.name)
        _require_range(self.du, 0, (1 << fp.DECAY_BITS) - 1, "du", self.name)
        _require_range(self.dv, 0, (1 << fp.DECAY_BITS) - 1, "dv", self.name)
        _require_range(self.vth, 0, fp.MAX_VTH, "vth", self.name)
        _require_range(self.bias_exp, 0, fp.BIAS_EXPONENT_MAX, "bias_exp", self.name)
        _require(self.reset in ("zero", "subtract"), "unknown reset rule", self.name, self.reset, "zero, subtract")
        _require_range(self.refractory, 0, fp.REFRACTORY_MAX, "refractory period", self.name)
        plain = (self.vth, self.reset, self.refractory) == (0, "zero", 0)
        _require(
            self.spiking or plain,
            "a population that does not spike has no threshold, reset or refractory period",
            self.name,
            f"vth {self.vth}, reset {self.reset}, refractory {self.refractory}",
            "vth 0, reset zero, refractory 0",
        )
        known = isinstance(self.scale, (int, float)) and math.isfinite(self.scale) and self.scale >= 0
        _require(known, "scale is out of range", self.name, self.scale, "a finite number, 0 where it is unknown")
        object.__setattr__(self, "bias_mant", _freeze(self.bias_mant, np.int16, f"{self.name}.bias_mant"))
        _require(
            self.bias_mant.shape == (self.size,),
            "bias has the wrong shape",
            self.name,
            self.bias_mant.shape,
            (self.size,),
        )
        limit = 1 << (fp.BIAS_MANTISSA_BITS - 1)
        inside = bool(np.all((self.bias_mant >= -limit) & (self.bias_mant < limit)))
        _require(inside, "bias_mant is out of range", self.name, _span(self.bias_mant), f"{-limit}..{limit - 1}")

    @property
    def size(self) -> int:
        """Number of neurons."""
        return int(np.prod(self.shape))

    @cached_property
    def bias(self) -> IntArray:
        """Effective bias ``bias_mant << bias_exp``, int32 ``[n]``, in units of v."""
        return self.bias_mant.astype(np.int32) << self.bias_exp


def _span(array: npt.NDArray[Any]) -> str:
    return f"{int(array.min())}..{int(array.max())}" if array.size else "empty"


@dataclass(frozen=True, eq=False)
class _Synapse:
    """What Dense and Conv share. ``weights`` are effective values: multiples of the grid's step, before ``weight_exp``.

    Attributes:
        source, target: Names of an input or population, and of a population.
        weight_exp: The sum is shifted by it (left if positive, else right, toward minus infinity), -8..7.
        weight_bits: 1..8; with ``sign_mode`` it fixes the grid (8 mixed: even values in [-256, 254]).
        delay: Steps a spike waits on its way; at least 1 where source does not come before target.
    """

    name: str
    source: str
    target: str
    weights: npt.NDArray[Any]
    weight_exp: int = 0
    weight_bits: int = 8
    sign_mode: fp.SignMode = "mixed"
    delay: int = 0

    def __post_init__(self) -> None:
        _require_range(self.weight_exp, fp.WEIGHT_EXP_MIN, fp.WEIGHT_EXP_MAX, "weight_exp", self.name)
        _require_range(self.weight_bits, 1, fp.WEIGHT_BITS, "weight_bits", self.name)
        _require_range(self.delay, 0, 62, "delay", self.name)
        _require(
            self.sign_mode in fp.SIGN_MODES,
            "unknown sign mode",
            self.name,
            self.sign_mode,
            ", ".join(fp.SIGN_MODES),
        )
        object.__setattr__(self, "weights", _freeze(self.weights, np.int16, f"{self.name}.weights"))
        low, high = fp.weight_limits(self.weight_bits, self.sign_mode)
        step = fp.weight_step(self.weight_bits, self.sign_mode)
        inside = bool(np.all((self.weights >= low) & (self.weights <= high) & (self.weights % step == 0)))
        allowed = f"multiples of {step} in {low}..{high} ({self.weight_bits} bits, {self.sign_mode})"
        _require(inside, "weights are off the chip's grid", self.name, _span(self.weights), allowed)


@dataclass(frozen=True, eq=False)
class Dense(_Synapse):
    """All-to-all synapses: ``weights`` int16 ``[n_target, n_source]``, both flattened row-major."""

    def __post_init__(self) -> None:
        super().__post_init__()
        _require(
            self.weights.ndim == 2,
            "weights have the wrong rank",
            self.name,
            self.weights.shape,
            "[n_out, n_in]",
        )


@dataclass(frozen=True, eq=False)
class Conv(_Synapse):
    """Cross-correlation as torch's Conv2d: ``weights`` int16 ``[O, I/groups, kh, kw]`` on a ``(C, H, W)`` source."""

    stride: tuple[int, int] = (1, 1)
    padding: tuple[int, int] = (0, 0)
    dilation: tuple[int, int] = (1, 1)
    groups: int = 1

    def __post_init__(self) -> None:
        super().__post_init__()
        _require(
            self.weights.ndim == 4,
            "weights have the wrong rank",
            self.name,
            self.weights.shape,
            "[O, I/groups, kh, kw]",
        )
        for what, pair, low in (
            ("stride", self.stride, 1),
            ("padding", self.padding, 0),
            ("dilation", self.dilation, 1),
        ):
            ok = len(pair) == 2 and all(isinstance(n, (int, np.integer)) and n >= low for n in pair)
            _require(ok, f"{what} is out of range", self.name, pair, f"two integers of at least {low}")
        _require_range(self.groups, 1, int(self.weights.shape[0]), "groups", self.name)

    def output_shape(self, source: Shape) -> Shape:
        """Shape ``(O, H', W')`` for a source of shape ``(C, H, W)``.

        Raises:
            ProgramError: the source is no image, its channels do not match, or the kernel is larger than it.
        """
        out_channels, per_group, *kernel = self.weights.shape
        fits = len(source) == 3 and source[0] == per_group * self.groups and out_channels % self.groups == 0
        _require(fits, "channels do not match", self.name, source, f"({per_group * self.groups}, H, W)")
        sides = [
            (side + 2 * pad - dilation * (k - 1) - 1) // stride + 1
            for side, pad, dilation, k, stride in zip(
                source[1:], self.padding, self.dilation, kernel, self.stride, strict=True
            )
        ]
        _require(
            min(sides) >= 1,
            "the kernel is larger than the image",
            self.name,
            source,
            f"kernel {tuple(kernel)}",
        )
        return (int(out_channels), int(sides[0]), int(sides[1]))


Synapse = Dense | Conv
_KINDS: Final[dict[str, type[Dense] | type[Conv]]] = {"dense": Dense, "conv": Conv}


@dataclass(frozen=True, eq=False)
class Program:
    """One network in the chip's integers.

    Attributes:
        input: The one place where spikes enter.
        populations: In an order in which every undelayed synapse goes forward.
        synapses: Each from the input or a population to a population. All names of a program differ.
        meta: Plain facts that travel along (``steps``, ``encoding``, ``population``, ``chip``, ``source`` digest ...).
        answer: Name of the output population; empty: the last one.
    """

    input: Input
    populations: tuple[Population, ...]
    synapses: tuple[Synapse, ...]
    meta: dict[str, Any] = field(default_factory=dict)
    answer: str = ""

    def __post_init__(self) -> None:
        _require(len(self.populations) > 0, "a program needs a population", "program", 0, "at least 1")
        names = [self.input.name, *(node.name for node in (*self.populations, *self.synapses))]
        _require(all(isinstance(name, str) and name for name in names), "a name is no text", "program", names, "text")
        repeated = sorted({name for name in names if names.count(name) > 1})
        _require(not repeated, "names repeat", "program", repeated, "a name of its own for each node and synapse block")
        steps = self.meta.get("steps")
        _require(steps is None or _is_whole(steps), "steps is out of range", "meta", steps, "a whole number above 0")
        known = ["", *(p.name for p in self.populations)]
        _require(self.answer in known, "the output is no population", "program", self.answer, known[1:])
        self._check_classes()
        for synapse in self.synapses:
            self._check_ends(synapse)
        for population in self.populations:
            self._check_accumulator(population)

    def _check_classes(self) -> None:
        each, size = self.meta.get("population"), self.output.size
        whole = each is None or _is_whole(each)
        _require(whole, "population is out of range", "meta", repr(each), "a whole number above 0")
        _require(
            each is None or size % int(each) == 0,
            "the output's neurons cannot be shared out: meta's population does not divide their number",
            self.output.name,
            f"{size} neurons, population {each}",
            f"a divisor of {size}",
        )

    def _check_ends(self, synapse: Synapse) -> None:
        order = {self.input.name: -1, **{p.name: i for i, p in enumerate(self.populations)}}
        _require(synapse.source in order, "unknown source", synapse.name, synapse.source, sorted(order))
        _require(order.get(synapse.target, -1) >= 0, "unknown target", synapse.name, synapse.target, sorted(order))
        backward = order[synapse.source] >= order[synapse.target]
        _require(
            synapse.delay >= 1 or not backward,
            "a cycle without delay",
            synapse.name,
            f"{synapse.source} -> {synapse.target}, delay 0",
            "delay of at least 1 on synapses that go back or stay",
        )
        source, target = self.node(synapse.source), self.node(synapse.target)
        silent = isinstance(source, Population) and not source.spiking
        _require(not silent, "nothing leaves a population that does not spike", synapse.name, source.name, "spiking")
        if isinstance(synapse, Conv):
            made: Shape = synapse.output_shape(source.shape)
            _require(
                made == target.shape,
                "shapes do not meet",
                synapse.name,
                made,
                f"{target.shape} of {target.name}",
            )
        else:
            expected = (target.size, source.size)
            _require(
                synapse.weights.shape == expected,
                "shapes do not meet",
                synapse.name,
                synapse.weights.shape,
                expected,
            )

    def _check_accumulator(self, population: Population) -> None:
        incoming = self.incoming(population.name)
        _require(len(incoming) > 0, "nothing reaches the population", population.name, 0, "at least 1 synapse")
        worst = sum(self.worst_sum(synapse) for synapse in incoming)
        _require(
            worst <= fp.MAX_STATE,
            "a synaptic sum could leave the 24-bit accumulator",
            population.name,
            worst,
            f"at most {fp.MAX_STATE}",
            "use fewer input bits, a smaller fan-in or smaller weights",
        )

    def worst_sum(self, synapse: Synapse) -> int:
        """Largest magnitude the sum of one synapse block can reach, before or after ``weight_exp``, over all inputs."""
        weights = synapse.weights.reshape(synapse.weights.shape[0], -1).astype(np.int64)
        positive = np.where(weights > 0, weights, 0).sum(axis=1).max(initial=0)
        negative = np.where(weights < 0, -weights, 0).sum(axis=1).max(initial=0)
        source = self.node(synapse.source)
        largest = source.largest if isinstance(source, Input) else 1
        return int(max(positive, negative)) * largest << max(synapse.weight_exp, 0)

    def node(self, name: str) -> Input | Population:
        """The input or population of that name."""
        return self._nodes[name]

    @cached_property
    def _nodes(self) -> dict[str, Input | Population]:
        return {self.input.name: self.input, **{p.name: p for p in self.populations}}

    def incoming(self, name: str) -> tuple[Synapse, ...]:
        """The synapse blocks that end at a population, in program order."""
        return tuple(s for s in self.synapses if s.target == name)

    def outgoing(self, name: str) -> tuple[Synapse, ...]:
        """The synapse blocks that start at an input or population."""
        return tuple(s for s in self.synapses if s.source == name)

    @cached_property
    def output(self) -> Population:
        """The population whose spikes, or membranes where it does not spike, are the answer."""
        return next((p for p in self.populations if p.name == self.answer), self.populations[-1])

    @property
    def steps(self) -> int | None:
        """Time steps a sample lasts, where the program says so."""
        steps = self.meta.get("steps")
        return None if steps is None else int(steps)

    @property
    def population(self) -> int:
        """Output neurons a class: output neuron ``n`` (row-major) belongs to class ``n // population``."""
        return int(self.meta.get("population") or 1)

    @property
    def classes(self) -> int:
        """Number of classes the output tells apart."""
        return self.output.size // self.population

    @cached_property
    def depth(self) -> dict[str, int]:
        """Steps by which each node lags the input in a pipelined run: the longest undelayed path to it."""
        depth = {self.input.name: 0}
        for population in self.populations:
            sources = [s.source for s in self.incoming(population.name) if s.source in depth]
            depth[population.name] = 1 + max((depth[name] for name in sources), default=0)
        return depth

    @property
    def neurons(self) -> int:
        """Number of neurons."""
        return sum(p.size for p in self.populations)

    @cached_property
    def digest(self) -> str:
        """SHA-256 over every integer of the program: two programs with one digest give the same spikes."""
        header, arrays = _pack(self, with_meta=False)
        sha = hashlib.sha256(json.dumps(header, sort_keys=True).encode())
        for key in sorted(arrays):
            sha.update(key.encode() + arrays[key].tobytes())
        return sha.hexdigest()

    def save(self, path: str | Path) -> None:
        """Write ``path`` (``.npz``, no pickle), atomically.

        Raises:
            FileError: the folder is not writable or the disk is full.
        """
        header, arrays = _pack(self, with_meta=True)
        arrays["header"] = np.frombuffer(json.dumps(header).encode(), dtype=np.uint8)
        with atomic_path(path) as temporary, temporary.open("wb") as stream:
            np.savez_compressed(stream, **cast("dict[str, Any]", arrays))

    @classmethod
    def load(cls, path: str | Path) -> Program:
        """Read a file written by :meth:`save`.

        Raises:
            ProgramError: missing, truncated, of another schema, or holding values outside their widths.
        """
        where = str(path)
        try:
            arrays = read_arrays(path)
            header = json.loads(bytes(arrays.pop("header")))
        except (FileError, ValueError, KeyError, RecursionError) as error:
            raise ProgramError(
                "the program file cannot be read",
                where=where,
                got=error.got if isinstance(error, FileError) else f"{type(error).__name__}: {error}",
                allowed="a program.npz as `neurokd-deploy run` and `Program.save` write it",
                next_step="lower the .nir file again",
            ) from error
        _require(isinstance(header, dict), "the header is damaged", where, type(header).__name__, "a table")
        found, again = header.get("schema"), "lower the .nir file again with this version"
        _require(found in READABLE, "the program is of another schema", where, found, READABLE, again)
        return _unpack(header, arrays, where)


def _pack(program: Program, *, with_meta: bool) -> tuple[dict[str, Any], dict[str, npt.NDArray[Any]]]:
    """Split a program into a JSON header and its arrays, named ``<node>.<field>``."""
    arrays: dict[str, npt.NDArray[Any]] = {}
    header: dict[str, Any] = {"schema": SCHEMA, "input": asdict(program.input), "answer": program.output.name}
    header["populations"] = [_pack_node(p, "bias_mant", arrays) for p in program.populations]
    header["synapses"] = [
        {"kind": type(s).__name__.lower(), **_pack_node(s, "weights", arrays)} for s in program.synapses
    ]
    if with_meta:
        stated = {"population": program.population} if program.population > 1 else {}
        header["meta"] = {**{key: value for key, value in program.meta.items() if key != "population"}, **stated}
    return header, arrays


def _pack_node(node: Population | Synapse, array_field: str, arrays: dict[str, npt.NDArray[Any]]) -> dict[str, Any]:
    arrays[f"{node.name}.{array_field}"] = getattr(node, array_field)
    return {f.name: _plain(getattr(node, f.name)) for f in fields(node) if f.name != array_field}


def _plain(value: Any) -> Any:
    return [int(n) for n in value] if isinstance(value, tuple) else value


def _unpack(header: dict[str, Any], arrays: dict[str, npt.NDArray[Any]], where: str) -> Program:
    try:
        source = Input(**_tuples(header["input"]))
        populations = tuple(
            Population(**_tuples(p), bias_mant=arrays[f"{p['name']}.bias_mant"]) for p in header["populations"]
        )
        synapses = tuple(_unpack_synapse(dict(s), arrays) for s in header["synapses"])
        return Program(source, populations, synapses, dict(header.get("meta", {})), str(header.get("answer", "")))
    except (KeyError, TypeError, ValueError, AttributeError, OverflowError) as error:
        raise ProgramError(
            "the program file is damaged",
            where=where,
            got=f"{type(error).__name__}: {error}",
            allowed=f"the fields of schema {SCHEMA}, and no others",
            next_step="lower the .nir file again",
        ) from error


def _unpack_synapse(entry: dict[str, Any], arrays: dict[str, npt.NDArray[Any]]) -> Synapse:
    kind = _KINDS[entry.pop("kind")]
    return kind(**_tuples(entry), weights=arrays[f"{entry['name']}.weights"])


def _tuples(entry: dict[str, Any]) -> dict[str, Any]:
    return {key: tuple(value) if isinstance(value, list) else value for key, value in entry.items()}
