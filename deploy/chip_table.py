"""Chips side by side: what each file holds, for a terminal or a page."""

from __future__ import annotations

from collections.abc import Sequence

from deploy.chip import Chip
from deploy.chip_schema import Quantity

#: What a comparison shows: title, section, key.
ROWS = (
    ("cores", "limits", "cores"),
    ("neurons a core", "limits", "neurons_per_core"),
    ("layers a core", "limits", "layers_per_core"),
    ("synaptic memory a core", "limits", "synaptic_memory_bits_per_core"),
    ("input axons a core", "limits", "input_axons_per_core"),
    ("output axons a core", "limits", "output_axons_per_core"),
    ("fan-in", "limits", "fan_in"),
    ("weight widths", "formats", "weight_bits_allowed"),
    ("state", "formats", "state_bits"),
    ("spike payload", "formats", "input_bits_max"),
    ("energy: synaptic operation", "energy", "synop"),
    ("energy: active neuron update", "energy", "neuron_active"),
    ("energy: idle neuron update", "energy", "neuron_inactive"),
    ("energy: spike message sent", "energy", "axon_out"),
    ("energy: hop east-west", "energy", "hop_east_west"),
    ("time: synaptic operation", "time", "synop"),
    ("time: active neuron update", "time", "neuron_active"),
    ("time: barrier", "time", "barrier"),
    ("static power", "power", "static"),
)


def comparison(chips: Sequence[Chip]) -> list[list[str]]:
    """A head and a row for each of :data:`ROWS`: value, unit and evidence grade, ``—`` where nothing is published."""
    rows = [["", *(chip.name for chip in chips)]]
    for title, section, key in ROWS:
        quantities = [next(part for part in chip.sections if part.title == section)[key] for chip in chips]
        rows.append([title, *(text(quantity) for quantity in quantities)])
    return rows


def text(quantity: Quantity) -> str:
    """``23.6 pJ (simulated)``, or a dash."""
    value = quantity.value
    if value is None:
        return "—"
    if quantity.unit == "ns by tiles":
        shown = " to ".join(f"{y:,g}" for y in dict.fromkeys((value[0][1], value[-1][1]))) + " ns"
    elif isinstance(value, tuple):
        shown = ", ".join(str(item) for item in value) + f" {quantity.unit}"
    else:
        shown = value if isinstance(value, str) else f"{value:,} {quantity.unit}"
    return f"{shown} ({quantity.grade})"


def explanation(chip: Chip) -> list[list[str]]:
    """Every value of one chip with its source, or what is known instead."""
    rows = [["key", "value", "where it stands", "remark"]]
    for section in chip.sections:
        for name, quantity in section:
            source = quantity.source if quantity.published else "not published"
            rows.append([f"{section.title}.{name}", text(quantity), source, quantity.note])
    return rows
