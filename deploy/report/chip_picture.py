"""The chip with the layers on it, as PNG: tiles, cores, a colour a layer, as strong as the core is full."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from matplotlib.collections import PatchCollection
from matplotlib.figure import Figure
from matplotlib.patches import Patch, Rectangle

from deploy.report.plots import COLOURS, INK, WIDTH, save_figure

FREE = "#7a828e30"
_FEW = 64  # without a mesh the cores stand in rows of eight, or of 64 where they are many


def chip_picture(placement: Mapping[str, Any], path: str | Path) -> None:
    """Draw a placement's plain data (``Placement.to_json()``).

    Raises:
        FileError: the folder is not writable or the disk is full.
    """
    used = {core["core"]: core for core in placement["cores"]}
    mesh = placement["mesh"]
    count = placement["cores_used"][1] if mesh or placement["cores_used"][1] <= 4 * _FEW else max(used) + 1
    colours = {layer["name"]: COLOURS[k % len(COLOURS)] for k, layer in enumerate(placement["layers"])}
    per_tile = mesh["cores_per_tile"] if mesh else 1
    columns = mesh["columns"] if mesh else (8 if count <= _FEW else 64)
    a_chip = count // placement["chips_used"][1]
    inner = 2 if per_tile % 2 == 0 else 1
    wide = columns * placement["chips_used"][1]
    rows = -(-a_chip // (per_tile * columns))
    size = (WIDTH, 0.9 + WIDTH * rows * max(1, per_tile // inner) / (wide * inner))
    figure = Figure(figsize=size, layout="constrained")
    axes = figure.add_subplot()
    patches = []
    for core in range(count):
        chip, local = divmod(core, a_chip)
        tile, within = divmod(local, per_tile)
        row, column = divmod(tile, columns)
        x = (chip * columns + column) * (inner + 0.3) + within % inner + 0.6 * chip
        y = row * (per_tile // inner + 0.3) + within // inner
        patches.append(_core(used.get(core), colours, x, y))
    axes.add_collection(PatchCollection(patches, match_original=True))
    axes.autoscale_view()
    axes.set_aspect("equal")
    axes.invert_yaxis()
    axes.set_axis_off()
    taken, there = placement["cores_used"]
    axes.set_title(f"{placement['chip']}: {taken} of {there:,} cores", color=INK, fontsize=10, loc="left")
    legend = [Patch(color=colour, label=name) for name, colour in colours.items()]
    figure.legend(handles=legend, loc="outside lower left", ncols=4, frameon=False, labelcolor=INK, fontsize=9)
    save_figure(figure, path)


def _core(core: Mapping[str, Any] | None, colours: Mapping[str, str], x: float, y: float) -> Rectangle:
    if core is None:
        return Rectangle((x, y), 0.88, 0.88, facecolor=FREE)
    used, most = core["resources"][core["binding"]]
    strength = 0.35 + 0.65 * (used / most if most else 0.0)
    return Rectangle((x, y), 0.88, 0.88, facecolor=colours[core["layer"]], alpha=strength)
