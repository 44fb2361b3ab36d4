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
        number: Its place on the chip, from 0.
        tile: The tile it belongs to; ``None`` when the chip's mesh is not published.
        part: The neurons that live on it.
        synapses: Nonzero connections that end on it (a shared weight counts once for each use).
        pairs: ``(resource, (used, max))`` for every name in ``RESOURCES``; ``max`` is ``None`` if unpublished.
    """

    number: int
    tile: int | None
    part: Slice
    synapses: int
    pairs: tuple[tuple[str, Pair], ...]

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
        axons: Source neurons there that have a synapse on the target core.
        share: The same as a share of the neurons of ``source`` on ``source_core`` (of all inputs, for the input).
    """

    source: str
    source_core: int | None
    target_core: int
    axons: int
    share: float


@dataclass(frozen=True)
class Placement:
    """A Program on the cores of one chip.

    Attributes:
        chip: Name of the chip.
        program: Digest of the program.
        cores: In order of the program's layers.
        cores_max: Cores of one chip.
        mesh: ``(columns, rows, cores_per_tile)``; ``None`` when not published.
        routes: Who sends to whom.
    """

    chip: str
    program: str
    cores: tuple[Core, ...]
    cores_max: int
    mesh: tuple[int, int, int] | None
    routes: tuple[Route, ...]

    @property
    def layers(self) -> tuple[str, ...]:
        """Names of the layers, in program order."""
        return tuple(dict.fromkeys(core.part.layer for core in self.cores))

    def of(self, layer: str) -> tuple[Core, ...]:
        """The cores of one layer."""
        return tuple(core for core in self.cores if core.part.layer == layer)

    @property
    def tiles(self) -> int | None:
        """Number of tiles in use; ``None`` when the mesh is not published."""
        return None if self.mesh is None else len({core.tile for core in self.cores})

    def hops(self, source: int, target: int) -> tuple[int, int]:
        """Tile borders a message crosses east-west and north-south, column first; ``(0, 0)`` inside a tile."""
        if self.mesh is None:
            return 0, 0
        columns, _, per_tile = self.mesh
        (row_a, column_a), (row_b, column_b) = (divmod(core // per_tile, columns) for core in (source, target))
        return abs(column_a - column_b), abs(row_a - row_b)

    def table(self, *, cores: bool = False) -> str:
        """Used and max of every resource as text: the fullest core of each layer, or every core."""
        head = ["core" if cores else "layer", "layer" if cores else "cores", *(r.replace("_", " ") for r in RESOURCES)]
        rows = [_core_row(core) for core in self.cores] if cores else [self._layer_row(name) for name in self.layers]
        title = f"{self.chip}: {len(self.cores)} of {self.cores_max} cores"
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
            "cores_used": [len(self.cores), self.cores_max],
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
            "neurons": sum(core.part.size for core in cores),
            "binding": {"resource": fullest.binding, "used_max": list(fullest.pair(fullest.binding))},
        }


_MESH = ("columns", "rows", "cores_per_tile")


def _share(pair: Pair) -> float:
    return pair[0] / pair[1] if pair[1] else 0.0


def _pair_text(pair: Pair) -> str:
    return f"{pair[0]:,}/{'?' if pair[1] is None else format(pair[1], ',')}"


def _core_row(core: Core) -> list[str]:
    pairs = [_pair_text(pair) for _, pair in core.pairs]
    return [str(core.number), core.part.layer, *pairs, core.binding.replace("_", " ")]


def _core_json(core: Core) -> dict[str, Any]:
    place = {"core": core.number, "tile": core.tile, **vars(core.part), "synapses": core.synapses}
    return {**place, "binding": core.binding, "resources": {name: list(pair) for name, pair in core.pairs}}


def aligned(rows: list[list[str]]) -> str:
    """Rows of cells as text in columns."""
    widths = [max(len(row[k]) for row in rows) for k in range(len(rows[0]))]
    return "\n".join(
        "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows
    )
