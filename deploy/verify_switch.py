"""How much of a difference is quantization, reset rule or time step: each switched alone, everything else as it was."""

from __future__ import annotations

from dataclasses import asdict, dataclass, replace
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from deploy import graph as nir
from deploy.chip import Chip
from deploy.execution_pairs import Pair, paired
from deploy.executions import Execution, execution, floats
from deploy.lower import lower
from deploy.reading import Reading, reading
from deploy.spikes import stimulus
from deploy.verify import RUNNERS

BASE: Final = "float, as read"


@dataclass(frozen=True)
class Switch:
    """The float network with one thing switched, beside the float network as read.

    Attributes:
        name: ``quantization``, ``reset rule``, ``time step``, ``spike rule``, or ``all of it: the chip``.
        what: From what to what.
        pair: The comparison, layer by layer.
        accuracy: In percent, of the switched network; None without labels.
    """

    name: str
    what: str
    pair: Pair
    accuracy: float | None

    def to_json(self) -> dict[str, Any]:
        """Plain data, the agreement of each layer in percent included."""
        return {**asdict(self), "agreement": {layer: self.pair.agreement(layer) for layer in self.pair.total}}


@dataclass(frozen=True)
class Switches:
    """Every switch, and the accuracy of the float network as read (None without labels)."""

    switches: tuple[Switch, ...]
    accuracy: float | None

    def to_json(self) -> dict[str, Any]:
        """Plain data."""
        return {"accuracy": self.accuracy, "switches": [switch.to_json() for switch in self.switches]}

    def __str__(self) -> str:
        head = "what makes the difference, each switched alone"
        head += "" if self.accuracy is None else f" (float as read: {self.accuracy:.2f} %)"
        return "\n".join([head + ":", *(f"  {_line(switch)}" for switch in self.switches)])


def _line(switch: Switch) -> str:
    found = switch.pair
    differing, total = sum(found.differing.values()), sum(found.total.values())
    layers = ", ".join(f"{layer} {found.agreement(layer):.3f} %" for layer in found.total)
    accuracy = "" if switch.accuracy is None else f"; accuracy {switch.accuracy:.2f} %"
    same = f"{found.same_answers} of {found.samples} answers the same"
    return f"{switch.name} ({switch.what}): {differing} of {total} spikes differ; {layers} agree; {same}{accuracy}"


def switches(
    source: nir.Graph,
    quantized: nir.Graph,
    spikes: npt.ArrayLike,
    *,
    labels: npt.NDArray[np.integer] | None = None,
    steps: int | None = None,
    how: Reading | str = "euler",
    chip: Chip | str = "loihi2",
    input_unit: float = 1.0,
    other_dt: float | None = None,
) -> Switches:
    """Switch each thing alone and compare with the float network as read.

    - quantization: the integers, under the float network's own reset rule;
    - reset rule: the chip's reset to zero in the same step, in floats;
    - time step: the exact decay in place of Euler's (or Euler's in place of the exact one), and ``other_dt`` if given;
    - spike rule: ``v > threshold``, one spike a step, where the network was read otherwise;
    - all of it: the chip's program.

    Args:
        source: The float network.
        quantized: The same on the chip's grid (:func:`deploy.ptq.quantize` makes it).
        spikes, labels, steps, input_unit: As of :func:`deploy.verify_chain.chain`.
        how: How the float network is read.
        chip: For lowering.
        other_dt: Also read the float network at this time step.

    Raises:
        GraphError, ProgramError, SpikesError, RuleError: from what runs.
        VerifyError: the two networks have other populations.
    """
    own = reading(how)
    program = lower(quantized, chip)
    given = stimulus(program, spikes, steps)

    def in_floats(graph: nir.Graph, made: Reading) -> Execution:
        return floats("switched", graph, program, given, made, input_unit)

    def on_integers(graph: nir.Graph) -> Execution:
        return execution(lower(graph, chip, strict=False), given, "switched", RUNNERS["simulator"])

    def judged(name: str, what: str, run: Execution) -> Switch:
        return Switch(name, what, paired(base, replace(run, name=name)), _accuracy(run, labels))

    base = floats(BASE, source, program, given, own, input_unit)
    found = [_quantization(source, quantized, on_integers, in_floats, judged)]
    if source.reset not in (None, "zero"):
        found.append(judged("reset rule", f"{source.reset} -> zero", in_floats(replace(source, reset="zero"), own)))
    other: Any = "exponential" if own.decay == "euler" else "euler"
    found.append(judged("time step", f"{own.decay} -> {other} decay", in_floats(source, replace(own, decay=other))))
    if other_dt is not None and source.dt is not None:
        run = in_floats(replace(source, dt=other_dt), own)
        found.append(judged("time step", f"dt {source.dt:g} s -> {other_dt:g} s", run))
    plain = Reading(decay=own.decay)
    if own != plain:
        found.append(judged("spike rule", f"{own} -> {plain}", in_floats(source, plain)))
    found.append(judged("all of it: the chip", f"{program.digest[:12]}, reset to zero", on_integers(quantized)))
    return Switches(tuple(found), _accuracy(base, labels))


def _quantization(source: nir.Graph, quantized: nir.Graph, on_integers: Any, in_floats: Any, judged: Any) -> Switch:
    same = replace(quantized, reset=source.reset)
    what = f"floats -> integers, reset {source.reset or 'none'}"
    if source.reset in (None, "zero", "subtract"):
        found: Switch = judged("quantization", what, on_integers(same))
    else:
        found = judged("quantization", "floats -> the grid's floats, reset " + source.reset, in_floats(same, Reading()))
    return found


def _accuracy(run: Execution, labels: Any) -> float | None:
    if labels is None:
        return None
    return 100.0 * int(np.count_nonzero(run.predictions == labels[: run.samples])) / run.samples
