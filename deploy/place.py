"""Program and Chip to Placement: a deterministic greedy mapping, the fewest cores first, then the least traffic.

A layer that does not fit on one core is cut into the fewest pieces a greedy cut finds, evened out so that no core has
more work than it must; where a chip is full the cut goes on on the next. Each layer has cores of its own unless sharing
is asked for. Then cores change places on the mesh while that saves hops. The input's spikes come from outside and need
no core.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from deploy.chip import Chip, load_chip
from deploy.contacts import Counts, Mask, synapses_onto
from deploy.errors import RuleError
from deploy.place_core import RESOURCES, Order, Slice, cut, largest_fan_in, need
from deploy.place_order import arranged
from deploy.place_share import Group, exceeded, groups
from deploy.placement import Core, Placement, Route
from deploy.program import Conv, Population, Program


def place(program: Program, chip: Chip | str, *, chips: int = 1, share: bool = False) -> Placement:
    """Put every layer of a program on cores: the fewest cores first, then the least traffic between tiles.

    Only limits are checked here, not number formats: that is the design rules' part.

    Args:
        chips: Chips it may use; a layer may go on from one chip to the next.
        share: Let several small layers share a core, where the chip's file says how many a core may hold.

    Raises:
        RuleError: it does not fit; the message says which limit stops it and what would fit.
        ChipError: the chip does not publish how many cores it has or how many neurons a core holds.
    """
    chip = load_chip(chip) if isinstance(chip, str) else chip
    if chips < 1:
        raise RuleError("a program needs a chip", where="chips", got=chips, allowed="1 or more")
    _check_fans(program, chip)
    caps = {p.name: min(p.size, chip.limits.neurons_per_core) for p in program.populations}
    while True:
        parts = [part for p in program.populations for part in _cut_layer(program, chip, p, caps[p.name])]
        packed = groups(program, chip, parts, share)
        routes = _routes(program, packed)
        over = _output_axons_over(packed, routes, chip)
        if not over:
            break
        for layer, used in over.items():
            if caps[layer] == 1 and share:
                return place(program, chip, chips=chips)
            _require_smaller(layer, caps[layer], used, chip)
            caps[layer] = max(1, min(caps[layer] - 1, caps[layer] * chip.limits.output_axons_per_core // used))
    _check_cores(packed, chip, chips)
    return _placement(program, chip, packed, routes, chips)


def _population(program: Program, name: str) -> Population:
    node = program.node(name)
    assert isinstance(node, Population)
    return node


def _cut_layer(program: Program, chip: Chip, population: Population, cap: int) -> list[Slice]:
    """The better of the orders a layer can be cut in: fewer cores first, then fewer input axons."""
    convolved = any(isinstance(s, Conv) for s in program.incoming(population.name))
    by_pixel = _cut_in_order(program, chip, population, cap, "pixel-major") if convolved else []
    by_row = _cut_in_order(program, chip, population, cap, "row-major", len(by_pixel) or None)
    fitting = [parts for parts in (by_row, by_pixel) if parts]
    if not fitting:
        raise _does_not_fit(program, population, chip)
    fewest = min(len(parts) for parts in fitting)
    best = [parts for parts in fitting if len(parts) == fewest]
    return best[0] if len(best) == 1 else min(best, key=lambda parts: _input_axons(program, chip, parts))


def _input_axons(program: Program, chip: Chip, parts: list[Slice]) -> int:
    return sum(need(program, chip, part).input_axons for part in parts)


def _cut_in_order(
    program: Program, chip: Chip, population: Population, cap: int, order: Order, most: int | None = None
) -> list[Slice]:
    """The layer's slices in one order; none when a neuron does not fit even alone, or with more than ``most``."""

    def fits(start: int, stop: int) -> bool:
        return not exceeded(need(program, chip, Slice(population.name, order, start, stop)), chip)

    return [Slice(population.name, order, start, stop) for start, stop in cut(population.size, cap, fits, most)]


def _does_not_fit(program: Program, population: Population, chip: Chip) -> RuleError:
    alone = (need(program, chip, Slice(population.name, "row-major", n, n + 1)) for n in range(population.size))
    broken = next(over for over in (exceeded(wanted, chip) for wanted in alone) if over)
    got = ", ".join(f"{used:,} {name.replace('_', ' ')}" for name, (used, _) in broken.items())
    allowed = ", ".join(f"{most:,} {name.replace('_', ' ')}" for name, (_, most) in broken.items())
    return RuleError(
        "a single neuron of the layer does not fit on a core",
        where=f"layer {population.name} on {chip.name}",
        got=got,
        allowed=f"at most {allowed} a core",
        next_step="it would fit with fewer inputs to the layer, or fewer bits a weight",
    )


def _check_fans(program: Program, chip: Chip) -> None:
    for population in program.populations:
        _check_fan("fan_in", largest_fan_in(program, population.name), population.name, chip)
    for name in (program.input.name, *(p.name for p in program.populations)):
        _check_fan("fan_out", int(_fan_out(program, name).max(initial=0)), name, chip)


def _fan_out(program: Program, name: str) -> Counts:
    total = np.zeros(program.node(name).size, dtype=np.int64)
    for synapse in program.outgoing(name):
        every: Mask = np.ones(program.node(synapse.target).size, dtype=np.bool_)
        total += synapses_onto(program, synapse, every)
    return total


def _check_fan(limit: str, used: int, layer: str, chip: Chip) -> None:
    most = chip.limits[limit].value
    if most is not None and used > most:
        raise RuleError(
            f"the {limit.replace('_', '-')} of a neuron is too large, and cutting the layer does not change it",
            where=f"layer {layer} on {chip.name}",
            got=f"{used:,} synapses",
            allowed=f"at most {most:,}",
            next_step=f"it would fit with at most {most:,} nonzero weights a neuron: a smaller layer, or pruning",
        )


def _routes(program: Program, packed: list[Group]) -> tuple[Route, ...]:
    """Every way spikes take, with the axons it needs; cores are numbered as they are packed."""
    parts = [(core, part, part.mask(_population(program, part.layer))) for core, g in enumerate(packed) for part in g]
    routes = []
    for target_core, target, mask in parts:
        for synapse in program.incoming(target.layer):
            sending = synapses_onto(program, synapse, mask) > 0
            if synapse.source == program.input.name:
                every = np.ones_like(sending)
                routes.append(_route(synapse.source, None, target_core, target.layer, sending, every))
                continue
            routes += [
                _route(synapse.source, core, target_core, target.layer, sending, here)
                for core, part, here in parts
                if part.layer == synapse.source
            ]
    return tuple(route for route in routes if route.axons)


def _route(source: str, source_core: int | None, target_core: int, target: str, sending: Mask, here: Mask) -> Route:
    axons = int(np.count_nonzero(sending & here))
    return Route(source, source_core, target_core, axons, axons / int(np.count_nonzero(here)), target)


def _output_axons(core: int, routes: tuple[Route, ...]) -> int:
    return sum(route.axons for route in routes if route.source_core == core)


def _output_axons_over(packed: list[Group], routes: tuple[Route, ...], chip: Chip) -> dict[str, int]:
    """Layers with a core that sends on more axons than it has, with the most it would need."""
    most = chip.limits["output_axons_per_core"].value
    over: dict[str, int] = {}
    for core, group in enumerate(packed):
        used = _output_axons(core, routes)
        if most is not None and used > most:
            for part in group:
                over[part.layer] = max(used, over.get(part.layer, 0))
    return over


def _require_smaller(layer: str, cap: int, used: int, chip: Chip) -> None:
    if cap > 1:
        return
    raise RuleError(
        "a single neuron of the layer sends to more cores than a core has output axons",
        where=f"layer {layer} on {chip.name}",
        got=f"{used:,} output axons",
        allowed=f"at most {chip.limits.output_axons_per_core:,}",
        next_step="it would fit if the layers it feeds took fewer cores",
    )


def _check_cores(packed: list[Group], chip: Chip, chips: int) -> None:
    if len(packed) <= chip.limits.cores * chips:
        return
    names = [part.layer for group in packed for part in group]
    counts = {layer: names.count(layer) for layer in dict.fromkeys(names)}
    largest = max(counts, key=lambda layer: counts[layer])
    needed = -(-len(packed) // chip.limits.cores)
    raise RuleError(
        f"the program does not fit on {'one' if chips == 1 else chips} {chip.title}",
        where=f"{len(counts)} layers on {chip.name}",
        got=f"{len(packed):,} cores: " + ", ".join(f"{layer} {count}" for layer, count in counts.items()),
        allowed=f"{chip.limits.cores:,} cores a chip",
        next_step=f"it would fit on {needed} such chips (chips={needed}, --chips {needed}), "
        f"or with fewer neurons in {largest}",
    )


def _placement(program: Program, chip: Chip, packed: list[Group], routes: tuple[Route, ...], chips: int) -> Placement:
    raw = tuple(chip.limits[key].value for key in ("mesh_columns", "mesh_rows", "cores_per_tile"))
    mesh = None if None in raw else (int(raw[0]), int(raw[1]), int(raw[2]))
    numbers = arranged(len(packed), routes, chip.limits.cores, mesh)
    cores = tuple(_core(program, chip, int(numbers[k]), k, group, routes, mesh) for k, group in enumerate(packed))
    moved = tuple(
        replace(
            route,
            source_core=None if route.source_core is None else int(numbers[route.source_core]),
            target_core=int(numbers[route.target_core]),
        )
        for route in routes
    )
    return Placement(chip.name, program.digest, cores, chip.limits.cores, mesh, moved, chips)


def _core(
    program: Program,
    chip: Chip,
    number: int,
    packed_as: int,
    group: Group,
    routes: tuple[Route, ...],
    mesh: tuple[int, int, int] | None,
) -> Core:
    needs = [need(program, chip, part) for part in group]
    masks = [part.mask(_population(program, part.layer)) for part in group]
    fans = [int(_fan_out(program, p.layer)[mask].max(initial=0)) for p, mask in zip(group, masks, strict=True)]
    used = {
        "neurons": sum(wanted.neurons for wanted in needs),
        "synaptic_memory_bits": sum(wanted.synaptic_memory_bits for wanted in needs),
        "input_axons": sum(wanted.input_axons for wanted in needs),
        "output_axons": _output_axons(packed_as, routes),
        "fan_in": max(largest_fan_in(program, part.layer) for part in group),
        "fan_out": max(fans),
    }
    pairs = tuple((name, (used[name], chip.limits[_LIMIT[name]].value)) for name in RESOURCES)
    where, local = divmod(number, chip.limits.cores)
    tile = None if mesh is None else where * mesh[0] * mesh[1] + local // mesh[2]
    return Core(number, tile, group, tuple(wanted.synapses for wanted in needs), pairs, where)


_LIMIT = {name: name if name.startswith("fan") else f"{name}_per_core" for name in RESOURCES}
