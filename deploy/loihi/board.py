"""Which Programs a Loihi 2 board can take as they are, and what of a run a board cannot give."""

from __future__ import annotations

from collections.abc import Collection

from deploy.errors import RuleError
from deploy.loihi.protocol import lags
from deploy.program import Population, Program, Synapse


def reasons(program: Program, state: Collection[str] = ()) -> list[str]:
    """Why this Program, with u and v of ``state`` recorded, cannot run on a board; empty where it can be tried.

    These are the processes that only have a model for the host's CPU: our delay line and neuron modes, and the copies
    of u and v. Limits of the chip (cores, fan-in, widths) are the business of :mod:`deploy.rules` and
    :mod:`deploy.place`.
    """
    lag = lags(program)
    found = [reason for population in program.populations for reason in _modes(population)]
    found += [reason for synapse in program.synapses for reason in _waits(synapse, lag)]
    recorded = sorted(name for name in state if program.output.spiking or name != program.output.name)
    return found + [f"{name}: u and v are not read from a chip" for name in recorded]


def _modes(population: Population) -> list[str]:
    found = []
    if population.reset != "zero":
        found.append(f"{population.name}: reset {population.reset} (the chip's LIF resets to zero)")
    if population.refractory:
        found.append(f"{population.name}: a refractory period of {population.refractory} steps")
    if not population.spiking:
        found.append(f"{population.name}: a readout without threshold (its membrane would have to be read each step)")
    return found


def _waits(synapse: Synapse, lag: dict[str, int]) -> list[str]:
    wait = synapse.delay + lag[synapse.target] - lag[synapse.source] - 1
    if synapse.delay == 0 and wait == 0:
        return []
    return [f"{synapse.name}: spikes wait {max(wait, 0)} steps in a delay line, a process of the host's CPU"]


def require(program: Program, state: Collection[str] = ()) -> None:
    """Refuse what :func:`reasons` names.

    Raises:
        RuleError: with every reason.
        ProgramError: a recurrent loop too short for Lava's pipeline.
    """
    found = reasons(program, state)
    if found:
        raise RuleError(
            "the program cannot run on a Loihi 2 board as it is",
            where="; ".join(found),
            allowed="LIF and CUBA-LIF that reset to zero, each layer one step behind the one before, spikes recorded",
            next_step="run it with --target lava, or change the network; `neurokd-deploy check` names the nodes",
        )
