"""Time to a confident answer: accuracy against steps, and what stopping early saves.

After each step the answer so far is the class with most output spikes (ties to the lowest, as everywhere), those of all
its neurons where it has several. A sample may stop once the leading class is ahead of the second by a margin of spikes;
the energy it has then used is that of the steps so far, every layer's.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from deploy.chip import Chip, load_chip
from deploy.errors import SimulatorError
from deploy.place import place
from deploy.placement import Placement
from deploy.profile_activity import Activity
from deploy.profile_model import ESSENTIAL, step_energy
from deploy.program import Program
from deploy.trace import Trace, by_class

MARGINS: Final = (1, 2, 3, 4, 6, 8)
MORE_MARGINS: Final = (12, 16, 24, 32)


@dataclass(frozen=True)
class Exit:
    """What a rule for stopping gives.

    Attributes:
        margin: Spikes the leading class must be ahead by; None: all steps are run.
        steps: Mean steps a sample.
        accuracy: Percent.
        energy: Mean dynamic energy a sample in J; None where the chip publishes none.
        stopped: Share of samples that stopped before the last step.
    """

    margin: int | None
    steps: float
    accuracy: float
    energy: float | None
    stopped: float


@dataclass(frozen=True)
class EarlyExit:
    """Accuracy and energy by steps, and by margin.

    Attributes:
        accuracy: Percent if every sample stopped after step 1, 2, … T.
        energy: Mean dynamic energy in J up to that step; empty where the chip publishes none.
        exits: The rules tried, without one first.
    """

    chip: str
    accuracy: tuple[float, ...]
    energy: tuple[float, ...]
    exits: tuple[Exit, ...]

    def to_json(self) -> dict[str, Any]:
        """Plain data."""
        return {
            "chip": self.chip,
            "accuracy": list(self.accuracy),
            "energy": list(self.energy),
            "exits": [asdict(rule) for rule in self.exits],
        }


def early_exit(
    program: Program,
    trace: Trace,
    labels: npt.NDArray[np.integer[Any]],
    chip: Chip | str = "loihi1",
    placement: Placement | None = None,
    *,
    margins: tuple[int, ...] | None = None,
) -> EarlyExit:
    """Accuracy against steps of a run that recorded its output, and the energy of stopping once the answer is clear.

    Args:
        margins: Spikes a class must be ahead by; by default up to 8, or up to 32 where a class has several neurons.

    Raises:
        SimulatorError: the output does not spike or was not recorded, there are no samples, or labels do not match.
    """
    chip = load_chip(chip) if isinstance(chip, str) else chip
    if not program.output.spiking or not trace.samples or np.shape(labels) != (trace.samples,):
        raise SimulatorError(
            "there are no answers by step",
            got=f"{trace.samples} samples, labels {np.shape(labels)}, spiking output: {program.output.spiking}",
            allowed="samples with a label each, and an output that spikes",
        )
    spikes = trace.sat.reshape(trace.steps, trace.samples, -1).astype(np.int64)
    counts = by_class(spikes, program.population).cumsum(axis=0)
    right = counts.argmax(axis=2) == labels
    priced = all(chip.energy[name].value is not None for name in ESSENTIAL)
    placement = place(program, chip) if placement is None else placement
    used = step_energy(Activity(program, trace, placement), chip).cumsum(axis=0) * 1e-12 if priced else None
    ordered = np.sort(counts, axis=2)
    lead = ordered[:, :, -1] - (ordered[:, :, -2] if ordered.shape[2] > 1 else 0)
    last = np.full(trace.samples, trace.steps - 1)
    exits = [_exit(None, last, right, used)]
    tried = MARGINS + (MORE_MARGINS if program.population > 1 else ()) if margins is None else margins
    for margin in tried:
        ahead = lead >= margin
        exits.append(_exit(margin, np.where(ahead.any(axis=0), ahead.argmax(axis=0), last), right, used))
    return EarlyExit(
        chip.name,
        tuple((100.0 * right.mean(axis=1)).tolist()),
        () if used is None else tuple(used.mean(axis=1).tolist()),
        tuple(exits),
    )


def _exit(
    margin: int | None,
    at: npt.NDArray[np.int64],
    right: npt.NDArray[np.bool_],
    used: npt.NDArray[np.float64] | None,
) -> Exit:
    samples = np.arange(len(at))
    return Exit(
        margin=margin,
        steps=float(at.mean() + 1),
        accuracy=100.0 * float(right[at, samples].mean()),
        energy=None if used is None else float(used[at, samples].mean()),
        stopped=float((at < len(right) - 1).mean()),
    )
