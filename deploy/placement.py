"""Placement: which neurons live on which core, how full every core is, and who sends to whom."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from deploy.place_core import RESOURCES, Slice

Pair = tuple[int, int | None]


@dataclass(frozen=True)
class Core:
    """One core in use.

    Attributes:
        number: Its place, from 0; the next chip's cores follow those of the one before.
        tile: The tile it belongs to; ``None`` when the chip's mesh is not published.
        parts: The neurons that live on it: a slice of one layer, or of several that share the core.
        synapses: Nonzero connections that end on each part (a shared weight counts once for each use).
        pairs: ``(resource, (used, max))`` for every name in ``RESOURCES``; ``max`` is ``None`` if unpublished.
        chip: Which chip it is on, from 0.
    """

    number: int
    tile: int | None
    parts: tuple[Slice, ...]
    synapses: tuple[int, ...]
    pairs: tuple[tuple[str, Pair], ...]
    chip: int = 0

    @property
    def part(self) -> Slice:
        """The first, and mostly the only, slice that lives here."""
        return self.parts[0]

    @property
    def layers(self) -> tuple[str, ...]:
        """Names of the layers that live here."""
        return tuple(dict.fromkeys(part.layer for part in self.parts))

    def pair(self, resource: str) -> Pair:
        """``(used, max)`` of one resource."""
        return dict(self.pairs)[resource]

    @property
    def binding(self) -> str:
        """The resource nearest to its limit."""
        return max((name for name, pair in self.pairs if pair[1]), key=lambda name: _share(self.pair(name)))


@dataclass(frozen=True)
class Route:
    """Spikes that go from one place to one core.

    Attributes:
        source: Layer or input they come from.
        source_core: Core they leave; ``None`` for the input.
        target_core: Core they reach.
        target: Layer they reach there.
        axons: Source neurons there that have a synapse on the target core.
        share: The same as a share of the neurons of ``source`` on ``source_core`` (of all inputs, for the input).
    """

    source: str
    source_core: int | None
    target_core: int
    axons: int
    share: float
    target: str = ""


@dataclass(frozen=True)
class Placement:
    """A Program on the cores of one chip.

    Attributes:
        chip: Name of the chip.
        program: Digest of the program.
        cores: In order of the program's layers.
        cores_max: Cores of one chip.
        chips: Chips the program may use; the cores of the second follow those of the first.
        mesh: ``(columns, rows, cores_per_tile)``; ``None`` when not published.
        routes: Who sends to whom.
    """

    chip: str
    program: str
    cores: tuple[Core, ...]
    cores_max: int
    mesh: tuple[int, int, int] | None
    routes: tuple[Route, ...]
    chips: int = 1

    @property
    def layers(self) -> tuple[str, ...]:
        """Names of the layers, in program order."""
        return tuple(dict.fromkeys(layer for core in self.cores for layer in core.layers))

    def of(self, layer: str) -> tuple[Core, ...]:
        """The cores of one layer."""
        return tuple(core for core in self.cores if layer in core.layers)

    @property
    def chips_used(self) -> int:
        """Number of chips with a core in use."""
        return len({core.chip for core in self.cores})

    @property
    def traffic(self) -> int:
        """Tile borders crossed if every neuron spiked once: axons times hops, over all routes between cores."""
        between = (r for r in self.routes if r.source_core is not None)
        return sum(r.axons * sum(self.hops(r.source_core or 0, r.target_core)) for r in between)

    @property
    def tiles(self) -> int | None:
        """Number of tiles in use; ``None`` when the mesh is not published."""
        return None if self.mesh is None else len({core.tile for core in self.cores})

    def hops(self, source: int, target: int) -> tuple[int, int]:
        """Tile borders a message crosses east-west and north-south, column first; ``(0, 0)`` inside a tile.

        Chips stand side by side, the next one east of the one before; what a link between chips costs is not known.
        """
        if self.mesh is None:
            return 0, 0
        (column_a, row_a), (column_b, row_b) = (where(core, self.cores_max, self.mesh) for core in (source, target))
        return abs(column_a - column_b), abs(row_a - row_b)

    def table(self, *, cores: bool = False) -> str:
        """Used and max of every resource as text: the fullest core of each layer, or every core."""
        head = ["core" if cores else "layer", "layer" if cores else "cores", *(r.replace("_", " ") for r in RESOURCES)]
        rows = [_core_row(core) for core in self.cores] if cores else [self._layer_row(name) for name in self.layers]
        title = f"{self.chip}: {len(self.cores)} of {self.cores_max * self.chips} cores"
        title += f" on {self.chips_used} of {self.chips} chips" if self.chips > 1 else ""
        return title + "\n" + aligned([[*head, "binding"], *rows])

    def _layer_row(self, layer: str) -> list[str]:
        cores = self.of(layer)
        fullest = max(cores, key=lambda core: _share(core.pair(core.binding)))
        pairs = (max((core.pair(name) for core in cores), key=lambda pair: pair[0]) for name in RESOURCES)
        return [layer, str(len(cores)), *(_pair_text(pair) for pair in pairs), fullest.binding.replace("_", " ")]

    def to_json(self) -> dict[str, Any]:
        """Plain data: ``cores_used`` as (used, max), then layers, cores and routes."""
        return {
            "chip": self.chip,
            "program": self.program,
            "cores_used": [len(self.cores), self.cores_max * self.chips],
            "chips_used": [self.chips_used, self.chips],
            "traffic": self.traffic,
            "mesh": None if self.mesh is None else dict(zip(_MESH, self.mesh, strict=True)),
            "layers": [self._layer_json(name) for name in self.layers],
            "cores": [_core_json(core) for core in self.cores],
            "routes": [vars(route) for route in self.routes],
        }

    def _layer_json(self, layer: str) -> dict[str, Any]:
        cores = self.of(layer)
        fullest = max(cores, key=lambda core: _share(core.pair(core.binding)))
        return {
            "name": layer,
            "cores": [core.number for core in cores],
            "neurons": sum(part.size for core in cores for part in core.parts if part.layer == layer),
            "binding": {"resource": fullest.binding, "used_max": list(fullest.pair(fullest.binding))},
        }


_MESH = ("columns", "rows", "cores_per_tile")


def where(core: int, cores_max: int, mesh: tuple[int, int, int]) -> tuple[int, int]:
    """Column and row of a core's tile; chips side by side."""
    columns, _, per_tile = mesh
    chip, local = divmod(core, cores_max)
    row, column = divmod(local // per_tile, columns)
    return chip * columns + column, row


def _share(pair: Pair) -> float:
    return pair[0] / pair[1] if pair[1] else 0.0


def _pair_text(pair: Pair) -> str:
    return f"{pair[0]:,}/{'?' if pair[1] is None else format(pair[1], ',')}"


def _core_row(core: Core) -> list[str]:
    pairs = [_pair_text(pair) for _, pair in core.pairs]
    return [str(core.number), " + ".join(core.layers), *pairs, core.binding.replace("_", " ")]


def _core_json(core: Core) -> dict[str, Any]:
    place = {"core": core.number, "chip": core.chip, "tile": core.tile, **vars(core.part)}
    parts = [{**vars(part), "synapses": n} for part, n in zip(core.parts, core.synapses, strict=True)]
    place |= {"parts": parts, "synapses": sum(core.synapses)}
    return {**place, "binding": core.binding, "resources": {name: list(pair) for name, pair in core.pairs}}


def aligned(rows: list[list[str]]) -> str:
    """Rows of cells as text in columns."""
    widths = [max(len(row[k]) for row in rows) for k in range(len(rows[0]))]
    return "\n".join(
        "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows
    )
