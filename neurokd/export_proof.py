"""Proof that an exported graph is the user's module: every node on its own, then the output spikes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any, Final

import numpy as np
import numpy.typing as npt
import torch

from deploy import graph as nir
from deploy.errors import ModuleError
from deploy.float_model import run
from deploy.float_neurons import Cells
from deploy.float_nodes import apply
from deploy.graph.quantization import Reset
from deploy.reading import Reading
from neurokd.accept_origin import NORMS, Call

Float = npt.NDArray[np.float64]
#: Half the distance of neighbouring float32 numbers near 1: the largest relative error of one operation.
_UNIT: Final = 2.0**-24
_UNSEEN: Final = "forward does something that a trace does not show (states changed, values changed in place?)"
_TWICE: Final = (
    "snntorch 1.0.0 with reset_delay=False subtracts twice where a membrane is above twice the threshold; NIR cannot "
    "say that: use reset_mechanism='zero', reset_delay=False and fine-tune, or export(..., convert_reset=True)"
)


def prove(
    graph: nir.Graph,
    entering: Sequence[Call],
    calls: Mapping[str, list[Call]],
    output: str,
    rule: Reset,
    converted: bool,
) -> list[nir.Finding]:
    """Compare the graph with what was recorded, and say what other tools will not see.

    Raises:
        ModuleError: a node does not give what its module gave (beyond float32 rounding), so it is another network.
    """
    for path, made in calls.items():
        node = next((n for n in graph.nodes if n.name == (path or "module")), None)
        if isinstance(node, (nir.Affine, nir.Conv1d, nir.Conv2d, nir.AvgPool2d)):
            _check_synapse(node, made, _last_of(made, calls))
        elif isinstance(node, nir.Neuron) and not converted:
            _check_neuron(graph, node, made)
    x = np.stack([_floats(call.given) for call in entering])
    expected = np.stack([_floats(call.output) for call in calls[output]])
    return _notes(graph, x, expected.reshape(*expected.shape[:2], *graph.outputs[0].shape), output, rule, converted)


def _notes(graph: nir.Graph, x: Float, expected: Float, output: str, rule: Reset, converted: bool) -> list[nir.Finding]:
    name = output or "module"
    differing = _differing(graph, x, expected, name)
    found = [] if expected.any() else [_finding("warning", name, "the example caused no output spikes")]
    share = f"{differing} of {expected.size} output spikes differ on the example"
    if converted and differing:
        found.append(_finding("warning", name, f"the reset was switched to zero in the same step: {share}"))
    elif differing:
        found.append(_finding("note", name, f"float32 rounding of sums: {share}"))
    if rule.startswith("late") or rule == "subtract":
        other = _differing(replace(graph, reset="zero"), x, expected, name)
        what = f"NIR has no field for the reset rule {rule!r}; it is in the file's metadata, which neurokd reads"
        got = f"a tool that resets to zero gives {other} of {expected.size} other output spikes on the example"
        found.append(_finding("warning", "", what, got))
    return found


def _finding(severity: Any, node: str, what: str, got: str = "") -> nir.Finding:
    return nir.Finding(severity, node, what, got)


def _differing(graph: nir.Graph, x: Float, expected: Float, name: str) -> int:
    return int(np.count_nonzero(run(graph, x).outputs[name] != expected))


def _last_of(made: Sequence[Call], calls: Mapping[str, list[Call]]) -> Sequence[Call]:
    """The calls of the batch norm that follows, which was folded in; else the calls themselves."""
    following = (other for other in calls.values() if type(other[0].module) in NORMS)
    return next((other for other in following if other[0].source.call is made[0]), made)


def _check_synapse(node: nir.Node, made: Sequence[Call], last: Sequence[Call]) -> None:
    x = np.concatenate([_floats(call.given) for call in made])
    expected = np.concatenate([_floats(call.output) for call in last])
    magnitudes = apply(_positive(node), np.abs(x))
    terms = int(np.prod(getattr(node, "weight", np.ones((1, 64))).shape[1:])) + 32
    wrong = np.abs(apply(node, x) - expected) > 1.01 * terms * _UNIT * (magnitudes + np.abs(expected) + _folds(last))
    if wrong.any():
        raise _differs(made[0], f"{int(wrong.sum())} of {wrong.size} values differ beyond float32 rounding")


def _folds(last: Sequence[Call]) -> float:
    """Magnitude of what a batch norm takes off and adds, which cancels in the folded bias."""
    module: Any = last[0].module
    if type(module) not in NORMS:
        return 0.0
    scale = 1 / torch.sqrt(module.running_var + module.eps) * (module.weight if module.affine else 1)
    return float((module.running_mean * scale).abs().max() + (module.bias.abs().max() if module.affine else 0))


def _positive(node: nir.Node) -> nir.Node:
    if not isinstance(node, (nir.Affine, nir.Conv1d, nir.Conv2d)):
        return node
    return replace(node, weight=np.abs(node.weight), bias=None if node.bias is None else np.abs(node.bias))


def _check_neuron(graph: nir.Graph, node: nir.Neuron, made: Sequence[Call]) -> None:
    """The neuron alone on the currents it got: where a spike differs first, the membrane was at the threshold."""
    assert graph.dt is not None, "a graph with neurons has a time step"
    cells = Cells(node, graph.dt, graph.reset, Reading(), made[0].given.shape[0])
    threshold = cells.parameters.threshold
    assert threshold is not None, "exported neurons spike"
    feedback = [graph.node(name) for name in graph.sources(node.name) if (name, node.name) in graph.recurrent]
    before = np.zeros_like(cells.v)
    parted = np.zeros(before.shape, dtype=np.bool_)
    for call in made:
        drive = _floats(call.given) + sum(apply(other, before) for other in feedback)
        spikes, expected = cells.step(drive), _floats(call.output)
        differ = (spikes != expected) & ~parted
        margin = np.abs(cells.charged - threshold)
        size = np.abs(cells.charged) + np.abs(drive) + np.abs(threshold)
        if (differ & (margin > 4096 * _UNIT * size)).any():
            got = f"{int(differ.sum())} spikes differ at step {call.ordinal}"
            raise _differs(call, got, _TWICE if graph.reset == "subtract" else "")
        parted |= differ
        before = expected


def _floats(tensor: torch.Tensor | None) -> Float:
    assert tensor is not None, "every traced call has an output"
    found: Float = tensor.detach().to(torch.float64).cpu().numpy()
    return found


def _differs(call: Call, got: str, why: str = "") -> ModuleError:
    return ModuleError(
        "the graph that was read off does not reproduce this module",
        where=f"module {call}",
        got=got,
        allowed="equal spikes, and currents equal within float32 rounding",
        next_step=why or _UNSEEN,
    )
