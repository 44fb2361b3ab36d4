"""The integer Program: what every backend takes. Frozen, checked on construction, saved as one ``.npz`` file.

A Program is a directed graph of populations (neurons) and synapses (weights). Time is *undelayed*: within step ``t`` a
population sees its sources' spikes of step ``t - delay``. A pipelined run (Lava, the chip) gives the same spikes, each
layer one step later than the one before; see ``depth``.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import asdict, dataclass, field, fields
from functools import cached_property
from pathlib import Path
from typing import Any, Final, cast

import numpy as np
import numpy.typing as npt

from deploy import fixed_point as fp
from deploy.errors import FileError, ProgramError
from deploy.files import atomic_path, read_arrays
from deploy.program_nodes import Conv, Dense, Input, Population, ResetRule, Shape, Synapse, is_whole, require

__all__ = ["SCHEMA", "Conv", "Dense", "Input", "Population", "Program", "ResetRule", "Shape", "Synapse"]

SCHEMA: Final = 2
READABLE: Final = (1, 2)  # 1 had neither readouts nor refractory periods; their defaults mean the same network
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
        require(len(self.populations) > 0, "a program needs a population", "program", 0, "at least 1")
        names = [self.input.name, *(node.name for node in (*self.populations, *self.synapses))]
        require(all(isinstance(name, str) and name for name in names), "a name is no text", "program", names, "text")
        repeated = sorted({name for name in names if names.count(name) > 1})
        require(not repeated, "names repeat", "program", repeated, "a name of its own for each node and synapse block")
        steps = self.meta.get("steps")
        require(steps is None or is_whole(steps), "steps is out of range", "meta", steps, "a whole number above 0")
        known = ["", *(p.name for p in self.populations)]
        require(self.answer in known, "the output is no population", "program", self.answer, known[1:])
        self._check_classes()
        for synapse in self.synapses:
            self._check_ends(synapse)
        for population in self.populations:
            self._check_accumulator(population)

    def _check_classes(self) -> None:
        each, size = self.meta.get("population"), self.output.size
        whole = each is None or is_whole(each)
        require(whole, "population is out of range", "meta", repr(each), "a whole number above 0")
        require(
            each is None or size % int(each) == 0,
            "the output's neurons cannot be shared out: meta's population does not divide their number",
            self.output.name,
            f"{size} neurons, population {each}",
            f"a divisor of {size}",
        )

    def _check_ends(self, synapse: Synapse) -> None:
        order = {self.input.name: -1, **{p.name: i for i, p in enumerate(self.populations)}}
        require(synapse.source in order, "unknown source", synapse.name, synapse.source, sorted(order))
        require(order.get(synapse.target, -1) >= 0, "unknown target", synapse.name, synapse.target, sorted(order))
        backward = order[synapse.source] >= order[synapse.target]
        require(
            synapse.delay >= 1 or not backward,
            "a cycle without delay",
            synapse.name,
            f"{synapse.source} -> {synapse.target}, delay 0",
            "delay of at least 1 on synapses that go back or stay",
        )
        source, target = self.node(synapse.source), self.node(synapse.target)
        silent = isinstance(source, Population) and not source.spiking
        require(not silent, "nothing leaves a population that does not spike", synapse.name, source.name, "spiking")
        if isinstance(synapse, Conv):
            made: Shape = synapse.output_shape(source.shape)
            require(
                made == target.shape,
                "shapes do not meet",
                synapse.name,
                made,
                f"{target.shape} of {target.name}",
            )
        else:
            expected = (target.size, source.size)
            require(
                synapse.weights.shape == expected,
                "shapes do not meet",
                synapse.name,
                synapse.weights.shape,
                expected,
            )

    def _check_accumulator(self, population: Population) -> None:
        incoming = self.incoming(population.name)
        require(len(incoming) > 0, "nothing reaches the population", population.name, 0, "at least 1 synapse")
        worst = sum(self.worst_sum(synapse) for synapse in incoming)
        require(
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
        require(isinstance(header, dict), "the header is damaged", where, type(header).__name__, "a table")
        found, again = header.get("schema"), "lower the .nir file again with this version"
        require(found in READABLE, "the program is of another schema", where, found, READABLE, again)
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
