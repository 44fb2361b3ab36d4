"""One self-contained HTML page that loads nothing, light and dark, for a desk, a telephone and paper."""

from __future__ import annotations

import base64
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from importlib import resources
from pathlib import Path
from typing import Any, Final

import jinja2

from deploy.errors import FileError, NeurokdError
from deploy.files import atomic_path, read_json, write_json
from deploy.report import views, views_answers, views_chip, views_networks
from deploy.report.explore import CHIP, explore
from deploy.runfolder import PROGRAM, TEST_SPIKES

#: Figures of a run folder, with their captions.
FIGURES: Final = {
    "accuracy.png": "Test accuracy at each stage.",
    "raster.png": "One image through every layer: each mark is a spike, each row a neuron.",
    "activity.png": "Spikes and synaptic operations of each layer, mean over the samples.",
    "energy.png": "Modelled energy by kind of event.",
}
#: Parts of a run folder, and the command that makes each.
PARTS: Final = {
    "summary.json": "neurokd demo",
    "verify.json": "neurokd-deploy verify RUN --json > RUN/verify.json",
    "profile.json": "neurokd-deploy profile RUN --json > RUN/profile.json",
    "placement.json": "neurokd-deploy map RUN --json > RUN/placement.json",
    "config.toml": "neurokd demo",
    "program.npz": "neurokd demo",
    "test_spikes.npz": "neurokd demo",
}
MAKES_FIGURES: Final = "neurokd demo"
#: What the page's explorer, confusion matrix and time to an answer are computed from.
TEST_SET: Final = (PROGRAM, TEST_SPIKES)
#: Optional: the teacher and the others beside the student (neurokd writes it).
NETWORKS: Final = "networks.json"
_PNG: Final = b"\x89PNG\r\n\x1a\n"


@dataclass
class _Run:
    """What was found of a run, and what was not."""

    title: str
    data: dict[str, Any] = field(default_factory=dict)
    config: str = ""
    images: dict[str, str] = field(default_factory=dict)
    missing: list[dict[str, str]] = field(default_factory=list)
    explored: dict[str, Any] | None = None

    def miss(self, name: str, why: str) -> None:
        command = PARTS.get(name, MAKES_FIGURES if name in FIGURES else "")
        self.missing.append({"name": name, "why": why, "command": command})


def render(run_folder: str | Path, out: str | Path | None = None) -> Path:
    """Write the report of a run folder.

    Reads ``summary.json``, ``verify.json``, ``profile.json``, ``placement.json``, ``networks.json``, ``config.toml``
    and ``*.png``, and runs ``test_spikes.npz`` through ``program.npz``. A part that is missing or damaged is named in
    the report, and the rest is shown.

    Args:
        out: Where to write; by default ``report.html`` in the folder.

    Returns:
        The path of the report.

    Raises:
        FileError: the folder does not exist, holds nothing of a run, or the report cannot be written.
    """
    folder = Path(run_folder)
    _require_folder(folder)
    run = _read(folder)
    if not (run.data or run.config or run.images):
        raise FileError(
            "the folder holds nothing of a run",
            where=folder,
            got=f"none of {', '.join(PARTS)}, and no .png",
            allowed="a folder that `neurokd demo --out` made",
            next_step="run the demo, or give the folder it wrote",
        )
    target = folder / "report.html" if out is None else Path(out)
    text = _html(run)
    with atomic_path(target) as temporary:
        temporary.write_text(text, encoding="utf-8")
    return target


def _require_folder(folder: Path) -> None:
    if not folder.is_dir():
        raise FileError(
            "there is no run folder",
            where=folder,
            got="a file" if folder.exists() else "nothing",
            allowed="a folder that `neurokd demo --out` made",
            next_step="run `neurokd demo --out FOLDER`, or give the folder it wrote",
        )


def page(*, title: str, profile: Mapping[str, Any] | None = None, placement: Mapping[str, Any] | None = None) -> str:
    """The same page from plain data alone: a profile, a placement or both."""
    given = {"profile.json": profile, "placement.json": placement}
    return _html(_Run(title, {name: value for name, value in given.items() if value is not None}))


def _read(folder: Path) -> _Run:
    run = _Run(f"neurokd: {folder.resolve().name}")
    for name in PARTS:
        if name.endswith(".json"):
            _read_part(run, folder / name)
    config = folder / "config.toml"
    try:
        run.config = config.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        run.miss(config.name, _why(error))
    found = {path.name for path in folder.glob("*.png")}
    for name in (*FIGURES, *sorted(found - set(FIGURES))):
        _read_image(run, folder / name)
    if (folder / NETWORKS).is_file():
        _read_part(run, folder / NETWORKS)
    _explore(run, folder)
    return run


def _explore(run: _Run, folder: Path) -> None:
    absent = [name for name in TEST_SET if not (folder / name).is_file()]
    for name in absent:
        run.miss(name, "is not there: no confusion matrix, no spikes to explore, no time to an answer")
    if absent:
        return
    priced = run.data.get("profile.json", {})
    try:
        run.explored = explore(folder, str(priced.get("chip", CHIP)), priced.get("placed_on"))
    except NeurokdError as error:
        run.miss(" and ".join(TEST_SET), f"do not run: {error.what}")


def _read_part(run: _Run, path: Path) -> None:
    try:
        value = read_json(path)
    except FileError as error:
        run.miss(path.name, "is not there" if not path.exists() else f"is damaged: {error.got}")
        return
    if isinstance(value, dict):
        run.data[path.name] = value
    else:
        run.miss(path.name, f"is damaged: a table is expected, not {type(value).__name__}")


def _read_image(run: _Run, path: Path) -> None:
    try:
        content = path.read_bytes()
    except OSError as error:
        run.miss(path.name, _why(error))
        return
    if content.startswith(_PNG):
        run.images[path.name] = "data:image/png;base64," + base64.b64encode(content).decode("ascii")
    else:
        run.miss(path.name, "is not a PNG image")


def _why(error: OSError | UnicodeDecodeError) -> str:
    if isinstance(error, FileNotFoundError):
        return "is not there"
    return f"cannot be read: {getattr(error, 'strerror', None) or error}"


def _html(run: _Run) -> str:
    shown = _sections(run)
    folder = resources.files("deploy.report")
    environment = jinja2.Environment(
        autoescape=True, undefined=jinja2.StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    template = environment.from_string(folder.joinpath("report.html").read_text(encoding="utf-8"))
    style = folder.joinpath("report.css").read_text(encoding="utf-8")
    script = folder.joinpath("explore.js").read_text(encoding="utf-8")
    others = {name: image for name, image in run.images.items() if name not in FIGURES}
    return template.render(run=run, style=style, script=script, captions=FIGURES, others=others, **shown)


def _sections(run: _Run) -> dict[str, Any]:
    """Every section's values; a section whose data lack something is empty, and its file is named as damaged."""
    summary, profile = run.data.get("summary.json", {}), run.data.get("profile.json")
    placement, verify = run.data.get("placement.json"), run.data.get("verify.json")
    make: dict[str, tuple[str, Callable[[], Any]]] = {
        "tiles": ("summary.json", lambda: views.tiles(summary)),
        "stages": ("summary.json", lambda: views.stages(summary)),
        "seconds": ("summary.json", lambda: views.second_rows(summary)),
        "versions": ("summary.json", lambda: dict(summary.get("versions", {}))),
        "slowest": ("profile.json", lambda: dict(profile["slowest"]) if profile else {}),
        "ignored": ("profile.json", lambda: list(profile["ignored"]) if profile else []),
        "proof": ("verify.json" if verify else "summary.json", lambda: views.proof(summary, verify)),
        "layers": ("profile.json", lambda: views.layer_rows(profile) if profile else []),
        "events": ("profile.json", lambda: views.event_rows(profile) if profile else []),
        "totals": ("profile.json", lambda: views.total_rows(profile) if profile else []),
        "about": ("profile.json", lambda: views.about(profile) if profile else None),
        "chip": ("placement.json", lambda: views_chip.chip_map(placement) if placement else None),
        "resources": ("placement.json", lambda: views_chip.resource_rows(placement) if placement else []),
    }
    networks, explored = run.data.get(NETWORKS), run.explored or {}
    tested = " and ".join(TEST_SET)
    make |= {
        "networks": (NETWORKS, lambda: views_networks.network_rows(networks) if networks else []),
        "pareto": (NETWORKS, lambda: views_networks.pareto(networks, explored, profile)),
        "cores": ("profile.json", lambda: views_chip.core_rows(profile) if profile else []),
        "timeline": ("profile.json", lambda: views.timeline(profile) if profile else ""),
        "confusion": (tested, lambda: views_answers.confusion(explored)),
        "exits": (tested, lambda: views_answers.exit_rows(explored)),
        "answer_chart": (tested, lambda: views_answers.answer_chart(explored)),
        "samples": (tested, lambda: views_answers.embedded(explored.get("samples"))),
    }
    shown = {name: _section(run, source, build) for name, (source, build) in make.items()}
    shown["tested"] = {key: explored.get(key, 0) for key in ("count", "silent", "population")}
    return {**shown, "summary": summary}


def _section(run: _Run, source: str, build: Callable[[], Any]) -> Any:
    try:
        return build()
    except (KeyError, TypeError, ValueError, IndexError, AttributeError, NeurokdError) as error:
        why = f"is damaged: {type(error).__name__} {error}"
        if source not in (part["name"] for part in run.missing):
            run.miss(source, why)
        return []


def compare(folders: Sequence[str | Path], out: str | Path) -> Path:
    """Write one page that puts several runs side by side.

    Raises:
        FileError: fewer than two folders, one of them without ``summary.json``, or the page cannot be written.
    """
    if len(folders) < 2:
        raise FileError("a comparison needs at least two runs", got=len(folders), allowed="two run folders or more")
    runs = [_summary_of(Path(folder)) for folder in folders]
    environment = jinja2.Environment(autoescape=True, undefined=jinja2.StrictUndefined, trim_blocks=True)
    resource = resources.files("deploy.report")
    template = environment.from_string(resource.joinpath("compare.html").read_text(encoding="utf-8"))
    style = resource.joinpath("report.css").read_text(encoding="utf-8")
    head, rows = views_networks.comparison(runs)
    text = template.render(style=style, head=head, rows=rows, pareto=views_networks.compared(runs))
    target = Path(out)
    with atomic_path(target) as temporary:
        temporary.write_text(text, encoding="utf-8")
    return target


def _summary_of(folder: Path) -> tuple[str, dict[str, Any]]:
    summary = read_json(folder / "summary.json")
    if not isinstance(summary, dict):
        raise FileError("the summary is no table", where=folder / "summary.json", got=type(summary).__name__)
    return folder.resolve().name, summary


def export(run_folder: str | Path, out: str | Path) -> Path:
    """Write everything a report is made from as one JSON file: the parts found, what is missing, answers by class.

    Raises:
        FileError: the folder does not exist, or the file cannot be written.
    """
    folder = Path(run_folder)
    _require_folder(folder)
    run = _read(folder)
    explored = {key: value for key, value in (run.explored or {}).items() if key != "samples"}
    write_json(out, {**run.data, "config.toml": run.config, "test_set": explored, "missing": run.missing})
    return Path(out)
