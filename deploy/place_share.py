"""Several small layers on one core, where the chip lets a core hold more than one."""

from __future__ import annotations

from collections.abc import Sequence

from deploy.chip import Chip
from deploy.errors import RuleError
from deploy.place_core import Need, Slice, need
from deploy.program import Program

Group = tuple[Slice, ...]


def groups(program: Program, chip: Chip, parts: Sequence[Slice], share: bool) -> list[Group]:
    """The slices by core: each alone, or packed first fit in program order.

    A shared core adds up what its slices need; an axon that serves two of them is counted for each, as nengo-loihi
    counts it.

    Raises:
        RuleError: sharing is asked for and the chip's file does not say how many layers a core may hold.
    """
    if not share:
        return [(part,) for part in parts]
    most = chip.limits["layers_per_core"].value
    if most is None:
        raise RuleError(
            "layers cannot share a core of this chip",
            where=chip.name,
            got=chip.limits["layers_per_core"].note or "limits.layers_per_core is not published",
            allowed="a chip file that gives limits.layers_per_core",
            next_step="map without sharing",
        )
    packed: list[Group] = []
    needs: list[Need] = []
    for part in parts:
        mine = need(program, chip, part)
        room = (k for k, group in enumerate(packed) if len(group) < most and _fits(needs[k] + mine, chip))
        k = next(room, None)
        if k is None:
            packed.append((part,))
            needs.append(mine)
        else:
            packed[k] += (part,)
            needs[k] = needs[k] + mine
    return packed


def _fits(wanted: Need, chip: Chip) -> bool:
    return not exceeded(wanted, chip)


def exceeded(wanted: Need, chip: Chip) -> dict[str, tuple[int, int]]:
    """The per-core limits that are broken: ``{resource: (used, max)}``."""
    pairs = {
        "neurons": (wanted.neurons, chip.limits["neurons_per_core"].value),
        "synaptic_memory_bits": (wanted.synaptic_memory_bits, chip.limits["synaptic_memory_bits_per_core"].value),
        "input_axons": (wanted.input_axons, chip.limits["input_axons_per_core"].value),
    }
    return {name: (used, most) for name, (used, most) in pairs.items() if most is not None and used > most}
