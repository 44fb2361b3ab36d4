"""Every finding about a network at once, each at its node: unsupported, lossy, out of range, does not fit."""

from __future__ import annotations

import re
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

from deploy import rules
from deploy.chip import Chip, load_chip
from deploy.errors import ChipError, NeurokdError
from deploy.graph import (
    SPIKING,
    Affine,
    Conv2d,
    Delay,
    Finding,
    Flatten,
    Graph,
    Input,
    Neuron,
    Node,
    Output,
    Pool2d,
    discretize,
)
from deploy.graph.analysis import Analysis
from deploy.graph.hdf5 import Limits
from deploy.graph.probe import Probe
from deploy.graph.read import analyse_file, analyse_nir
from deploy.lower import lower
from deploy.lower_cells import Cell, cell, population
from deploy.lower_synapses import bias, blocks
from deploy.place import place
from deploy.program import Program

__all__ = ["Finding", "check"]

MAX_PATHS = 4096
"""Ways from population to population; lowering takes them one by one."""

MAX_BETWEEN = 64
"""Nodes on one such way."""

_LOWERED: tuple[type[Node], ...] = (Input, Output, Affine, Conv2d, Pool2d, Flatten, Delay, *SPIKING)
_STOPS: tuple[type[Node], ...] = (Input, Neuron)
SEVERITIES: Final = ("error", "warning", "note")
"""Of a finding, the worst first."""


def check(
    source: str | Path | Graph | Any,
    chip: Chip | str | Path | None = None,
    *,
    dt: float | None = None,
    reset: str | None = None,
    max_bytes: int = Limits.max_bytes,
    probe: Probe | None = None,
) -> list[Finding]:
    """Everything that can be said about a network, errors first. No file makes it raise.

    Args:
        source: A ``.nir`` file, a :class:`Graph`, a ``nir.NIRGraph``, or a saved program (``.npz``).
        chip: Also lower the network for this chip and try its rules and its cores.
        dt: Time step in seconds, where the file does not state it.
        reset: ``zero``, ``value`` or ``subtract``, where the file does not state it.
        max_bytes: Refuse files that hold more than this, counted as float64.
        probe: A running helper process to try files out, for many files in a row.

    Raises:
        ChipError: the chip itself cannot be read.
    """
    target = load_chip(chip) if isinstance(chip, (str, Path)) else chip
    if isinstance(source, (str, Path)) and Path(source).suffix == ".npz":
        return sorted(_saved(Path(source), target, max_bytes), key=lambda finding: SEVERITIES.index(finding.severity))
    try:
        analysis = _analysis(source, dt=dt, reset=reset, max_bytes=max_bytes, probe=probe)
    except NeurokdError as error:
        return [_from_error(error)]
    findings = [problem.finding() for problem in analysis.problems] + analysis.notes
    if analysis.graph is not None and target is not None:
        findings += on_chip(analysis.graph, target)
    return sorted(findings, key=lambda finding: SEVERITIES.index(finding.severity))


def _analysis(source: Any, *, max_bytes: int, probe: Probe | None, **given: Any) -> Analysis:
    if isinstance(source, Graph):
        return Analysis(source, notes=list(source.notes))
    if isinstance(source, (str, Path)):
        return analyse_file(source, max_bytes=max_bytes, probe=probe, **given)
    return analyse_nir(source, **given)


def on_chip(graph: Graph, chip: Chip) -> list[Finding]:
    """What stands between a graph and a chip: nodes first; then, if all are taken, integers, rules and cores."""
    found = [finding for look in (_unsupported, _unquantized, _unreachable, _ends, _ways) for finding in look(graph)]
    if found:
        return found + list(_reset(graph, chip))
    try:
        program = lower(graph, chip, strict=False)
    except NeurokdError as error:
        return list(dict.fromkeys(_each(graph))) or [_from_error(error)]
    return _integers(program, chip)


def _saved(path: Path, chip: Chip | None, max_bytes: int) -> list[Finding]:
    """What stands between a saved program and a chip; its arrays are counted before any is loaded."""
    try:
        with zipfile.ZipFile(path) as archive:
            size = sum(member.file_size for member in archive.infolist())
        if size > max_bytes:
            got, allowed = f"{size >> 20} MiB", f"{max_bytes >> 20} MiB (max_bytes)"
            return [Finding("error", "", "the file declares more data than is taken", got, allowed)]
        program = Program.load(path)
    except NeurokdError as error:
        return [_from_error(error)]
    except (OSError, zipfile.BadZipFile, NotImplementedError, MemoryError, RecursionError) as error:
        got = f"{type(error).__name__}: {error}"
        return [Finding("error", "", "the program file cannot be read", got, "a program.npz as Program.save writes it")]
    return [] if chip is None else _integers(program, chip)


def _integers(program: Program, chip: Chip) -> list[Finding]:
    """Rules first, then cores if the rules are kept."""
    broken = rules.check(program, chip)
    return broken if any(finding.severity == "error" for finding in broken) else broken + _cores(program, chip)


def _each(graph: Graph) -> Iterator[Finding]:
    """The first error of each population and of the synapses into it, where lowering stops at the first of all."""
    taken = {node.name for node in graph.nodes if isinstance(node, _STOPS)}
    for node in (node for node in graph.nodes if isinstance(node, Neuron)):
        for part in (_population, blocks):
            try:
                part(graph, cell(graph, node), taken)
            except NeurokdError as error:
                yield _from_error(error)


def _population(graph: Graph, made: Cell, _: set[str]) -> None:
    population(graph, made, bias(graph, made))


def _cores(program: Program, chip: Chip) -> list[Finding]:
    try:
        place(program, chip)
    except ChipError as error:
        return [Finding("note", "", "whether it fits is not known: " + error.what, error.got, error.allowed)]
    except NeurokdError as error:
        return [_from_error(error)]
    return []


def _unsupported(graph: Graph) -> Iterator[Finding]:
    for node in graph.nodes:
        readout = isinstance(node, Neuron) and all(isinstance(graph.node(t), Output) for t in graph.targets(node.name))
        if not readout and not isinstance(node, _LOWERED):
            yield Finding(
                "error",
                node.name,
                f"{node.kind} nodes have no counterpart on the chip",
                node.kind,
                ", ".join(kind.__name__ for kind in _LOWERED),
                _WAY_OUT.get(node.kind, "rebuild this part of the network from the nodes that are taken"),
            )


_WAY_OUT = {
    "Scale": "multiply the scale into the weights before it",
    "Threshold": "use an IF node with the same threshold and reset",
    "LI": "let it feed the Output only, as a readout, or give it a threshold",
    "CubaLI": "let it feed the Output only, as a readout, or give it a threshold",
    "I": "let it feed the Output only, as a readout, or give it a threshold",
    "Conv1d": "write it as a Conv2d over (1, length)",
}


def _unquantized(graph: Graph) -> Iterator[Finding]:
    for node in graph.nodes:
        if isinstance(node, (Affine, Conv2d, Neuron)) and node.quantization is None:
            yield Finding(
                "error",
                node.name,
                "the node is not quantized: the file states no integer grid for it",
                "float parameters only",
                "the neurokd metadata block on each synapse and neuron",
                "quantize it first: `neurokd-deploy quantize`, or fine-tune it: `neurokd quantize`",
            )


def _unreachable(graph: Graph) -> Iterator[Finding]:
    """Neurons that their input cannot move: lowering divides by the gain."""
    for node in graph.nodes:
        if isinstance(node, Neuron) and graph.dt is not None and (discretize(node, graph.dt).gain == 0).any():
            yield Finding(
                "error",
                node.name,
                "the input of some neurons is multiplied by 0",
                "an input gain of 0 (r, or w_in)",
                "a gain other than 0",
                "correct r and w_in, or remove the neurons",
            )


def _ends(graph: Graph) -> Iterator[Finding]:
    for node in graph.inputs[1:]:
        yield _way(node.name, "a program has one input", f"also {graph.inputs[0].name!r}", "one Input node")
    feeding = [name for out in graph.outputs for name in graph.sources(out.name)]
    if len(feeding) != 1 or not isinstance(graph.node(feeding[0]), Neuron):
        got = ", ".join(f"{name} ({graph.node(name).kind})" for name in feeding[:8])
        allowed = "one LIF, CubaLIF or IF node, or one LI, CubaLI or I node as readout"
        yield _way(graph.outputs[0].name, "the output must be one spiking population or a readout", got, allowed)


def _ways(graph: Graph) -> Iterator[Finding]:
    """Loops without a neuron, and branchings that lowering would follow without end."""
    ways: dict[str, tuple[int, int]] = {}
    for node in graph.nodes:
        back = [name for name in graph.sources(node.name) if (name, node.name) in graph.recurrent]
        if not isinstance(node, _STOPS) and any(not isinstance(graph.node(name), _STOPS) for name in back):
            yield _way(node.name, "a loop of nodes without a neuron in it", f"an edge from {back[0]!r}", "a neuron")
        forward = [name for name in graph.sources(node.name) if name not in back]
        ways[node.name] = _count([ways[name] for name in forward], isinstance(node, _STOPS))
        if ways[node.name][0] > MAX_PATHS or ways[node.name][1] > MAX_BETWEEN:
            got = f"{ways[node.name][0]} ways, the longest with {ways[node.name][1]} nodes"
            yield _way(node.name, "too many nodes between populations", got, f"{MAX_PATHS} ways of {MAX_BETWEEN} nodes")
            return


def _count(before: list[tuple[int, int]], stops: bool) -> tuple[int, int]:
    """(ways that end here, nodes on the longest) from those of the sources; a population starts anew."""
    return (1, 0) if stops else (sum(w for w, _ in before), 1 + max((n for _, n in before), default=0))


def _reset(graph: Graph, chip: Chip) -> Iterator[Finding]:
    """The reset rule, where lowering does not come far enough to say it of each population."""
    if graph.reset is not None and graph.reset not in chip.formats.reset_modes:
        yield Finding(
            "error",
            "",
            "not on the chip: reset rule",
            graph.reset,
            ", ".join(chip.formats.reset_modes),
            "fine-tune the network with reset to zero (neurokd quantize does)",
        )


def _way(node: str, what: str, got: str, allowed: str) -> Finding:
    return Finding("error", node, what, got, allowed, "put a spiking population in between, or merge the nodes")


def _from_error(error: NeurokdError) -> Finding:
    """The error at its node or layer, if it names one."""
    match = re.search(r"node '([^']*)'", error.where) or re.match(r"layer (.+) on ", error.where)
    place = f" ({error.where})" if error.where and not match else ""
    node = match.group(1) if match else ""
    return Finding("error", node, error.what + place, error.got, error.allowed, error.next_step)
