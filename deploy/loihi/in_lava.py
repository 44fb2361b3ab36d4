"""A Program as connected Lava processes, for a Lava script of one's own.

Everything else here runs Lava in a process of its own; this runs in the caller's, which therefore needs Lava, and
should not import torch (a torch call inside one of Lava's processes hangs). The processes are made by the builders the
worker uses, so a script gets the spikes :func:`deploy.loihi.client.run_lava` gives.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from deploy.errors import LavaMissing, ProgramError
from deploy.loihi.process import INSTALL_COMMAND
from deploy.loihi.protocol import Entry, lags, network
from deploy.program import Program


@dataclass(frozen=True, eq=False)
class LavaNetwork:
    """Lava processes of one Program, connected with each other.

    Attributes:
        processes: By name: a ``LIF`` process (Lava's LIFReset) for each population, flat ``(n,)``; a ``Dense``,
            ``Conv`` or ``Sparse`` for each synapse block; a delay line ``delay:<synapse>`` where one is needed.
        output: Name of the output population.
        lag: Steps by which each population runs behind the input: its spikes of step t of sample b are those of Lava
            step ``1 + lag + b * steps + t``.
    """

    processes: Mapping[str, Any]
    output: str
    lag: Mapping[str, int]
    _inputs: tuple[Entry, ...]

    @property
    def s_out(self) -> Any:
        """The output population's OutPort, flat ``(n,)``; :func:`deploy.trace.by_class` makes classes of its spikes."""
        return self.processes[self.output].s_out

    def connect_input(self, port: Any) -> None:
        """Connect an OutPort that sends the input, flat ``(n,)`` in row-major ``(C, H, W)`` order, to every reader."""
        from deploy.loihi import processes as kinds

        for wire in self._inputs:
            kinds.source(wire, port).connect(getattr(self.processes[wire["to"]], wire["to_port"]))

    def run_config(self) -> Any:
        """Lava's run configuration for its bit-accurate CPU models."""
        from deploy.loihi import processes as kinds

        return kinds.simulation()


def admit_lava() -> None:
    """Make lava-nc 0.10.0 importable on Python 3.11 and later, in this process; call before importing it.

    :func:`to_lava` does so too. On Python 3.10 it does nothing.

    Raises:
        LavaMissing: Lava cannot be imported.
    """
    from deploy.loihi import repair

    repair.apply()
    try:
        from deploy.loihi import processes as kinds
    except ImportError as error:
        raise LavaMissing(
            "Lava cannot be imported in this interpreter",
            got=f"{type(error).__name__}: {error}",
            allowed="lava-nc 0.10.0",
            next_step=f"run `{INSTALL_COMMAND}`",
        ) from error
    repair.mend_reshape(kinds.ReshapePort)


def to_lava(program: Program, steps: int | None = None) -> LavaNetwork:
    """Build a Program's Lava processes in this interpreter.

    Args:
        steps: Steps a sample lasts: every population is cleared between samples, each when the sample reaches it.
            None: one sample that never ends.

    Raises:
        LavaMissing: Lava cannot be imported here.
        ProgramError: ``steps`` is no whole number above 0, or a recurrent loop is too short for Lava's pipeline.
    """
    whole = isinstance(steps, (int, np.integer)) and not isinstance(steps, bool) and steps >= 1
    if steps is not None and not whole:
        raise ProgramError("steps is out of range", where="steps", got=steps, allowed="a whole number above 0, or None")
    made = network(program, steps)
    admit_lava()
    from deploy.loihi import processes as kinds

    open_wires = tuple(wire for wire in made.wires if wire["from"] == program.input.name)
    built = kinds.build(made.header(), made.arrays)
    return LavaNetwork(built, program.output.name, lags(program), open_wires)
