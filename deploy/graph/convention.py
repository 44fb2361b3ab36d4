"""Time step and reset rule: stated by the file, given by the user, or recognised and said; never guessed silently.

What the tools write (read in their exporters):

- snntorch 1.0.0 ``export_nir.py``: dt = 1e-4, ``tau = dt / (1 - beta)``, ``r = tau / dt``, ``w_in = tau_syn / dt``;
  the reset rule is dropped (subtract, its default, looks like zero).
- SpikingJelly ``nir_exchange/to_nir.py``: dt = 1e-4, IF ``r = 1 / dt``, LIF ``r = tau / dt`` without
  ``decay_input``; versions before 2.0 write soft reset as ``v_reset = 0``.
- sinabs ``nir.py`` and the NIR paper's CNN: IF with ``r = 1`` and one unit of time per step; its default reset is
  subtract, which is not written.
- norse ``export_nir.py``: ``r = 1``, no dt. Time constants in seconds in the NIR paper's files; norse 1.1.0 writes
  ``dt / tau_mem_inv``, so its files are read with the square of its dt.
- lava-dl by ``lava_to_nir.py`` of the NIR repository: dt = 1e-4, ``tau = dt * 4096 / decay``, ``r = tau / dt``,
  ``w_in = tau_syn / dt``; weights and threshold divided by 64; it resets to zero, which is not written. A decay of 0
  becomes an infinite ``tau``, which is refused by name.
- nengo has no exporter.
- rockpool ``nir.py``: ``r = tau * exp(-dt / tau) / dt``; it resets by subtraction only.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from typing import get_args

import numpy as np

from deploy.errors import GraphError
from deploy.graph.coerce import FloatArray
from deploy.graph.finding import Finding
from deploy.graph.neurons import IF, LI, LIF, SPIKING, CubaLI, CubaLIF, Delay, I
from deploy.graph.nodes import Affine, Conv2d, Input, Node, Output
from deploy.graph.quantization import Reset

COMMON_DT = 1e-4
"""The time step snntorch and SpikingJelly write with, in seconds."""

_TOLERANCE = 1e-5  # float32 parameters leave the implied dt up to 4e-7 off; dt itself differs by factors
_RESETS: tuple[Reset, ...] = get_args(Reset)


def settle_dt(
    nodes: Sequence[Node], stated: float | None, given: float | None
) -> tuple[float | None, tuple[Finding, ...]]:
    """The time step in seconds, None where nothing depends on it.

    Args:
        nodes: All nodes of the graph.
        stated: What the file's own metadata says.
        given: What the user says.

    Raises:
        GraphError: file and user disagree, or nobody says and no convention is recognised.
    """
    if stated is not None and given is not None and not _near(stated, given):
        raise _conflict("time step", f"{stated:g} s in the file, {given:g} s given", "--dt")
    if stated is not None or given is not None:
        return (stated if stated is not None else given), ()
    if not any(isinstance(node, (LIF, CubaLIF, IF, LI, I, CubaLI, Delay)) for node in nodes):
        return None, ()
    return _recognised_dt(nodes)


def _recognised_dt(nodes: Sequence[Node]) -> tuple[float, tuple[Finding, ...]]:
    implied = [value for node in nodes for value in _implied(node)]
    low, high = (min(v.min() for v in implied), max(v.max() for v in implied)) if implied else (0.0, 0.0)
    if low > 0 and _near(low, COMMON_DT) and _near(high, COMMON_DT):
        what = "time step recognised: every neuron's input gain is 1 at dt = 1e-4 s, as snntorch and SpikingJelly write"
        return COMMON_DT, (Finding("note", "", what, next_step="give --dt if the network was trained with another"),)
    timed = [node for node in nodes if isinstance(node, (LIF, CubaLIF, LI, CubaLI, Delay))]
    if low == high == 1 and not timed:
        what = (
            "time step recognised: IF with r = 1 and no time constant, one step is one unit of time (sinabs, NIR paper)"
        )
        return 1.0, (Finding("note", "", what, next_step="give --dt if the network was trained with another"),)
    fits = low > 0 and _near(low, high) and low < 0.9 * _shortest(timed)
    hint = f"; the input gain of every neuron would be 1 at dt = {low:g} s" if fits else ""
    if rockpool := _rockpool_dt(timed):
        hint += f"; r would be rockpool's tau * exp(-dt / tau) / dt at dt = {rockpool:g} s"
    raise GraphError(
        "the file does not say its time step, and no known convention fits" + hint,
        where="dt",
        got=_times(timed) or "no time step",
        allowed="a time step in seconds",
        next_step="give the time step the network was trained with: --dt SECONDS (dt=... in Python)",
    )


def _implied(node: Node) -> Iterator[FloatArray]:
    """The time steps at which each gain of the node is 1; 0 where there is none."""
    if isinstance(node, (LIF, LI)):
        yield _ratio(node.tau, node.r)
    elif isinstance(node, (CubaLIF, CubaLI)):
        yield _ratio(node.tau_mem, node.r)
        yield _ratio(node.tau_syn, node.w_in)
    elif isinstance(node, (IF, I)):
        yield _ratio(np.ones(()), node.r)


def _ratio(numerator: FloatArray, denominator: FloatArray) -> FloatArray:
    positive = denominator > 0
    return np.where(positive, numerator / np.where(positive, denominator, 1.0), 0.0)


def _rockpool_dt(nodes: Sequence[Node]) -> float | None:
    """The one time step at which every neuron has the ``r`` that rockpool writes; None where they do not agree.

    With ``q = dt / tau``: ``r = exp(-q) / q``. Equal neurons always have one, so it must be a round number then; this
    is a hint and never taken.
    """
    with np.errstate(over="ignore"):  # absurd time constants of damaged files
        found = [_fixed_point(node.r) * node.tau for node in nodes if isinstance(node, (LIF, LI))]
        found += [_fixed_point(node.r) * node.tau_mem for node in nodes if isinstance(node, CubaLIF)]
    if not found or any((values <= 0).any() for values in found):
        return None
    low, high = min(float(v.min()) for v in found), max(float(v.max()) for v in found)
    several = len({float(value) for node in nodes if hasattr(node, "r") for value in node.r.flat}) > 1
    return high if _near(low, high) and (several or _round(high)) else None


def _round(value: float) -> bool:
    """Whether a number has one digit that counts, as time steps do."""
    return math.isfinite(value) and value > 0 and _near(float(f"{value:.0e}"), value)


def _fixed_point(r: FloatArray) -> FloatArray:
    """``q`` with ``q r = exp(-q)`` by Newton's method, which converges from 0 for every positive ``r``."""
    positive = np.where(r > 0, r, 1.0)
    q = np.zeros(np.shape(r))
    for _ in range(40):
        q = q - (q * positive - np.exp(-q)) / (positive + np.exp(-q))
    return np.where(r > 0, q, 0.0)


def _shortest(nodes: Sequence[Node]) -> float:
    constants = [getattr(node, name).min() for node in nodes for name in getattr(node, "times", ())]
    return float(min(constants, default=np.inf))


def _times(nodes: Sequence[Node]) -> str:
    texts = (
        f"{node.name}.{name} from {np.min(getattr(node, name)):g} s"
        for node in nodes
        for name in ("tau", "tau_mem", "delay")
        if hasattr(node, name)
    )
    return ", ".join(list(texts)[:4])


def settle_reset(
    nodes: Sequence[Node], stated: str | None, given: str | None
) -> tuple[Reset | None, tuple[Finding, ...]]:
    """What a spike does to the membrane, None where no node spikes.

    Args:
        nodes: All nodes of the graph.
        stated: What the file's own metadata says.
        given: What the user says.

    Raises:
        GraphError: an unknown word, file and user disagree, ``v_reset`` contradicts the rule, or nobody says and
            every ``v_reset`` is zero (exporters write that for reset by subtraction too).
    """
    rules = {_rule(word, place) for word, place in ((stated, "metadata"), (given, "--reset")) if word is not None}
    spiking = [node for node in nodes if isinstance(node, SPIKING)]
    if len(rules) > 1:
        raise _conflict("reset rule", f"{stated} in the file, {given} given", "--reset")
    if not spiking:
        return None, ()
    moved = [node for node in spiking if getattr(node, "v_reset").any()]  # noqa: B009 - on each class of SPIKING
    if rules:
        return _consistent(rules.pop(), moved), ()
    if moved:
        what = "reset rule recognised: v_reset is not zero, so a spike sets v = v_reset as NIR defines"
        return "value", (Finding("note", moved[0].name, what),)
    raise GraphError(
        "the file does not say its reset rule: v_reset is 0, which snntorch, sinabs and older SpikingJelly also write "
        "for networks trained with reset by subtraction (snntorch's and sinabs' default)",
        where="reset",
        got="v_reset = 0 in every neuron, no reset rule",
        allowed=", ".join(_RESETS),
        next_step="say how the network was trained: --reset zero (v = 0, NIR's own text) or --reset subtract",
    )


def _rule(word: str, place: str) -> Reset:
    for rule in _RESETS:
        if rule == word:
            return rule
    raise GraphError(
        "the reset rule is not known",
        where=place,
        got=repr(word),
        allowed=", ".join(_RESETS),
        next_step="use one of them",
    )


def _consistent(rule: Reset, moved: Sequence[Node]) -> Reset:
    if moved and rule != "value":
        raise GraphError(
            f"reset rule {rule!r} contradicts v_reset",
            where=f"node {moved[0].name!r}, field 'v_reset'",
            got="values other than 0",
            allowed="v_reset = 0, or reset rule 'value'",
            next_step="give --reset value, or correct v_reset in the file",
        )
    return rule


def _near(left: float, right: float) -> bool:
    return abs(left - right) <= _TOLERANCE * abs(right)


def _conflict(what: str, got: str, option: str) -> GraphError:
    return GraphError(
        f"the {what} given is not the one the file states",
        where=option,
        got=got,
        allowed="the file's own, or none",
        next_step=f"leave {option} out",
    )


def stretch_outputs(nodes: Sequence[Node], arriving: dict[str, tuple[int, ...]]) -> tuple[list[Node], list[Finding]]:
    """Output nodes whose declared shape has leading axes of 1 (batch and time, as rockpool writes) without them."""
    result: list[Node] = []
    notes: list[Finding] = []
    for node in nodes:
        shape = arriving.get(node.name)
        if isinstance(node, Output) and shape and len(node.shape) > len(shape):
            extra = len(node.shape) - len(shape)
            if node.shape == (1,) * extra + shape:
                notes.append(Finding("note", node.name, "leading axes of 1 left out (batch and time)", f"{node.shape}"))
                node = Output(node.name, shape, metadata=node.metadata)
        result.append(node)
    return result, notes


def narrow_inputs(nodes: Sequence[Node], edges: Sequence[tuple[str, str]]) -> tuple[list[Node], list[Finding]]:
    """Input nodes with leading axes of 1 (batch, as rockpool writes) before weight matrices only, without them."""
    by_name = {node.name: node for node in nodes}
    result: list[Node] = []
    notes: list[Finding] = []
    for node in nodes:
        fed = [by_name.get(target) for source, target in edges if source == node.name]
        if isinstance(node, Input) and len(node.shape) > 1 and set(node.shape[:-1]) == {1} and fed:
            width = node.shape[-1]
            if all(isinstance(target, Affine) and target.weight.shape[1] == width for target in fed):
                notes.append(Finding("note", node.name, "leading axes of 1 left out (batch)", f"{node.shape}"))
                node = Input(node.name, (width,), metadata=node.metadata)
        result.append(node)
    return result, notes


def mend_outputs(
    nodes: Sequence[Node], edges: Sequence[tuple[str, str]], arriving: dict[str, tuple[int, ...]]
) -> tuple[list[Node], list[Finding]]:
    """Output nodes after a convolution with a non-square kernel, declared with the width that nir 1.0.8 infers.

    It takes the kernel's height for both axes (``nir/ir/utils.py``), and exporters write what it infers.
    """
    by_name = {node.name: node for node in nodes}
    result: list[Node] = []
    notes: list[Finding] = []
    for node in nodes:
        before = [by_name.get(source) for source, target in edges if target == node.name]
        shape = arriving.get(node.name)
        if isinstance(node, Output) and shape and len(before) == 1 and isinstance(before[0], Conv2d):
            conv = before[0]
            slack = conv.dilation[1] * (conv.weight.shape[3] - conv.weight.shape[2])
            seen = (shape[-1] - 1) * conv.stride[1]
            likely = {(seen + rest + slack) // conv.stride[1] + 1 for rest in range(conv.stride[1])}
            if node.shape != shape and node.shape[:-1] == shape[:-1] and node.shape[-1] in likely:
                what = "the declared width is the one nir 1.0.8 infers wrongly for a non-square kernel; left out"
                notes.append(Finding("warning", node.name, what, f"{node.shape}", f"{shape}"))
                node = Output(node.name, shape, metadata=node.metadata)
        result.append(node)
    return result, notes
