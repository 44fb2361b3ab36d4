"""``neurokd-deploy verify``: any run folder, file or program, quantized or foreign and float, proved or explained."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from deploy import graph as nir
from deploy import ptq
from deploy.program import Program
from deploy.reading import Reading, reading
from deploy.runfolder import NIR, STUDENT_SPIKES, Samples, find, load_layers, samples_of
from deploy.verify import Spikes
from deploy.verify_chain import ChainReport, chain
from deploy.verify_picture import parting
from deploy.verify_switch import Switches, switches


@dataclass(frozen=True, eq=False)
class FileReport:
    """The chain, and, where a float network is at hand, what makes the difference."""

    chain: ChainReport
    switches: Switches | None
    notes: tuple[str, ...]

    def to_json(self) -> dict[str, Any]:
        """The chain's plain data and ``switches``."""
        found = self.chain.to_json()
        plain = None if self.switches is None else self.switches.to_json()
        return {**found, "notes": [*self.notes, *found["notes"]], "switches": plain}

    def __str__(self) -> str:
        parts = [str(self.chain), *(f"note: {note}" for note in self.notes)]
        return "\n".join([*parts, *(["", str(self.switches)] if self.switches else [])])

    def picture(self, path: str | Path) -> str:
        """Draw where executions part: the first pair that must be equal and is not, else the first that differs.

        Returns:
            Which pair was drawn.

        Raises:
            FileError: the folder is not writable.
        """
        pairs = self.chain.pairs
        chosen = next(iter(self.chain.broken), None) or next((p for p in pairs if p.first is not None), pairs[-1])
        runs = {run.name: run for run in self.chain.executions}
        parting(runs[chosen.left], runs[chosen.right], chosen, path)
        return f"{chosen.left} and {chosen.right}"


def verify_file(
    source: str | Path,
    spikes: str | Path | None = None,
    *,
    against: Sequence[str] = ("reference", "simulator", "lava"),
    samples: int | None = None,
    steps: int | None = None,
    chip: str = "loihi2",
    float_file: str | Path | None = None,
    how: Reading | str = "euler",
    dt: float | None = None,
    reset: str | None = None,
    input_unit: float = 1.0,
    other_dt: float | None = None,
    population: int | None = None,
) -> FileReport:
    """Verify a file against every execution there is.

    Args:
        source: A run folder, a ``.nir`` file or a program ``.npz``. A float file is quantized first, calibrated on
            the very spikes it is verified with, and is the float network of the chain.
        spikes: Spike file; default: the run folder's.
        against: ``reference``, ``simulator``, ``lava``, ``netx``.
        samples: Use only the first of them.
        steps: T of spikes without a time axis.
        chip: Whose widths and rules apply.
        float_file: The float network a quantized ``source`` came from.
        how, dt, reset, input_unit, other_dt: Of the float network; see :mod:`deploy.verify_switch`.
        population: Output neurons a class, of a float file that does not say.

    Raises:
        NeurokdError: whatever reading, quantizing, lowering or running raises.
    """
    how = reading(how)
    path = find(source, NIR)
    held = Program.load(path) if path.suffix == ".npz" else _graph(path, dt, reset, float_file)
    shape = held.input.shape if isinstance(held, Program) else held.inputs[0].shape
    given = samples_of(source, spikes, steps).first(samples, len(shape))
    notes: list[str] = []
    network = None if float_file is None else nir.read(float_file, dt=dt, reset=reset)
    if isinstance(held, nir.Graph) and held.quantization is None:
        network, held = held, _quantized(held, given, chip, input_unit, population, notes)
    report = chain(
        held, given.spikes, against=against, float_source=network, labels=given.labels, steps=given.steps, chip=chip,
        trained=_trained(source, spikes, samples), how=how, input_unit=input_unit,
    )  # fmt: skip
    found = None
    if network is not None and isinstance(held, nir.Graph):
        found = switches(
            network, held, given.spikes, labels=given.labels, steps=given.steps, how=how, chip=chip,
            input_unit=input_unit, other_dt=other_dt,
        )  # fmt: skip
    return FileReport(report, found, tuple(notes))


def _graph(path: Path, dt: float | None, reset: str | None, float_file: object) -> nir.Graph:
    """The file; dt and reset are meant for the float network where one is named beside it."""
    return nir.read(path) if float_file is not None else nir.read(path, dt=dt, reset=reset)


def _quantized(
    network: nir.Graph, given: Samples, chip: str, unit: float, population: int | None, notes: list[str]
) -> nir.Graph:
    """The network on the chip's integers, under the chip's reset to zero in the same step."""
    made = ptq.quantize(
        _to_zero(network), np.asarray(given.spikes), chip=chip, steps=given.steps, input_unit=unit,
        population=population,
    )  # fmt: skip
    notes.append("the file is float: it was quantized after training, calibrated on the spikes it is verified with")
    if network.reset not in (None, "zero"):
        notes.append(
            f"its neurons reset by the rule {network.reset!r}; on the chip they reset to zero in the same step"
        )
    return made.graph


def _to_zero(network: nir.Graph) -> nir.Graph:
    nodes = tuple(
        replace(node, v_reset=np.zeros(node.shape)) if isinstance(node, (nir.LIF, nir.CubaLIF, nir.IF)) else node
        for node in network.nodes
    )
    return replace(network, nodes=nodes, reset=None if network.reset is None else "zero")


def _trained(source: str | Path, spikes: object, samples: int | None) -> Spikes | None:
    recorded = Path(source) / STUDENT_SPIKES
    if spikes is not None or not recorded.is_file():
        return None
    return {name: array[:, :samples] for name, array in load_layers(recorded).items()}
