"""The chip: a map of its cores, what each layer uses of them, what the busiest do."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from deploy.profile_types import amount
from deploy.report.plots import COLOURS
from deploy.report.views import Data, number


def chip_map(placement: Data) -> dict[str, Any]:
    """The chip as tiles of cores, each core coloured by its layer and as strong as it is full."""
    colours = {layer["name"]: COLOURS[k % len(COLOURS)] for k, layer in enumerate(placement["layers"])}
    used = {core["core"]: _core_view(core, colours) for core in placement["cores"]}
    count, mesh = placement["cores_used"][1], placement["mesh"]
    per_tile = mesh["cores_per_tile"] if mesh else 1
    cells = [used.get(core, {"title": f"core {core}: free"}) for core in range(count)]
    return {
        "used": placement["cores_used"][0],
        "count": count,
        "name": placement["chip"],
        "tiles": [cells[k : k + per_tile] for k in range(0, count, per_tile)],
        "columns": mesh["columns"] if mesh else 16,
        "inner": 2 if per_tile % 2 == 0 else 1,
        "legend": [{"name": name, "colour": colour} for name, colour in colours.items()],
    }


def _core_view(core: Data, colours: Mapping[str, str]) -> dict[str, Any]:
    pairs = ", ".join(f"{name.replace('_', ' ')} {_pair(pair)}" for name, pair in core["resources"].items())
    return {
        "title": f"core {core['core']}: {' + '.join(_on_core(core))}; {pairs}",
        "colour": colours[core["layer"]],
        "strength": 35 + round(65 * _share(core["resources"][core["binding"]])),
    }


def _on_core(core: Data) -> list[str]:
    return list(dict.fromkeys(part["layer"] for part in core.get("parts", [core])))


def _pair(pair: Sequence[Any]) -> str:
    return f"{number(pair[0])} of {'unpublished' if pair[1] is None else number(pair[1])}"


def _share(pair: Sequence[Any]) -> float:
    return pair[0] / pair[1] if pair[1] else 0.0


def resource_rows(placement: Data) -> list[dict[str, Any]]:
    """Each layer's largest use of each resource of a core."""
    rows = []
    for layer in placement["layers"]:
        cores = [core for core in placement["cores"] if layer["name"] in _on_core(core)]
        names = list(cores[0]["resources"])
        most = {name: max((core["resources"][name] for core in cores), key=lambda pair: pair[0]) for name in names}
        rows.append(
            {
                "name": layer["name"],
                "cores": len(cores),
                "binding": layer["binding"]["resource"].replace("_", " "),
                "pairs": [
                    {
                        "name": name.replace("_", " "),
                        "used": number(pair[0]),
                        "most": "unpublished" if pair[1] is None else f"of {number(pair[1])}",
                        "share": 100.0 * _share(pair),
                    }
                    for name, pair in most.items()
                ],
            }
        )
    return rows


def core_rows(profile: Data) -> list[dict[str, Any]]:
    """The busiest cores, with what each does."""
    cores = sorted(profile.get("cores", []), key=lambda core: -core["busy"])[:16]
    top = max((core["busy"] for core in cores), default=0.0)
    return [
        {
            "core": core["number"],
            "layers": " + ".join(core["layers"]),
            "neurons": number(core["neurons"]),
            **{key: amount(core[key], "") for key in ("spikes", "synops", "active", "sent", "received")},
            "busy": amount(core["busy"] * 1e-9, "s"),
            "share": 100.0 * core["busy"] / top if top else 0.0,
            "kind": "counted" if core["exact"] else "modelled",
        }
        for core in cores
    ]
