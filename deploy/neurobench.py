"""NeuroBench's metrics of a run, by its definitions (Yik et al. 2025, neurobench 2.3), from our exact counts.

NeuroBench itself computes the same numbers on the same networks: ``make validate`` compares them.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any, Final

import numpy as np

from deploy.contacts import synapses_at
from deploy.errors import SimulatorError
from deploy.program import Program
from deploy.trace import Trace

WEIGHT_BYTES: Final = 4  # NeuroBench counts the parameters of a torch network: float32
BIAS_BYTES: Final = 4  # int32 a neuron


@dataclass(frozen=True)
class Metrics:
    """NeuroBench's metrics, a sample where they depend on data.

    Attributes:
        footprint: Bytes of weights (float32, as torch holds them) and biases (int32).
        connection_sparsity: Share of stored weights that are zero, rounded to 4 digits as NeuroBench does.
        activation_sparsity: Share of neuron steps without a spike.
        effective_acs: Accumulates: synaptic operations whose input is a plain spike.
        effective_macs: Multiply-accumulates: those whose input is graded.
        dense: Operations if every input were active and no weight zero.
        membrane_updates: Times a membrane changed; the first step counts for every neuron.
    """

    footprint: int
    connection_sparsity: float
    activation_sparsity: float
    effective_acs: float
    effective_macs: float
    dense: float
    membrane_updates: float

    def to_json(self) -> dict[str, Any]:
        """The metrics as plain data."""
        return asdict(self)


def metrics(program: Program, trace: Trace) -> Metrics:
    """Compute the metrics of a run.

    Args:
        trace: A run with ``record="all"`` and ``record_state="all"``.

    Raises:
        SimulatorError: spikes or membranes of a population were not recorded.
    """
    missing = [p.name for p in program.populations if p.name not in trace.spikes or p.name not in trace.v]
    if missing or not trace.samples:
        raise SimulatorError(
            "the run lacks what NeuroBench's metrics are computed from",
            where=f"{trace.backend} run",
            got=f"{trace.samples} samples, not recorded: {', '.join(missing) or 'nothing'}",
            allowed="spikes and membranes of every population",
            next_step='run with record="all", record_state="all"',
        )
    stored = sum(synapse.weights.size for synapse in program.synapses)
    zeros = sum(int(np.count_nonzero(synapse.weights == 0)) for synapse in program.synapses)
    spikes = sum(int(trace.counters[p.name].spikes.sum()) for p in program.populations)
    steps = program.neurons * trace.steps * trace.samples
    graded = {s.target for s in program.synapses if s.source == program.input.name and program.input.bits > 1}
    ops = {p.name: int(trace.counters[p.name].synops.sum()) for p in program.populations}
    macs = sum(n for name, n in ops.items() if name in graded)
    return Metrics(
        footprint=WEIGHT_BYTES * stored + BIAS_BYTES * program.neurons,
        connection_sparsity=round(zeros / stored, 4),
        activation_sparsity=(steps - spikes) / steps,
        effective_acs=(sum(ops.values()) - macs) / trace.samples,
        effective_macs=macs / trace.samples,
        dense=float(connections(program) * trace.steps),
        membrane_updates=_updates(program, trace) / trace.samples,
    )


def connections(program: Program) -> int:
    """Connections with every stored weight counted, zero or not."""
    total = 0
    for synapse in program.synapses:
        whole = type(synapse)(**{**vars(synapse), "weights": np.full_like(synapse.weights, _some(synapse))})
        total += int(synapses_at(program, whole).sum())
    return total


def _some(synapse: Any) -> int:
    """A weight that is on the block's grid and not zero."""
    flat = synapse.weights[synapse.weights != 0]
    return int(flat[0]) if flat.size else 2


def _updates(program: Program, trace: Trace) -> int:
    found = 0
    for population in program.populations:
        membrane = trace.v[population.name]
        found += int(np.count_nonzero(np.diff(membrane, axis=0))) + membrane[0].size
    return found
