"""PNG plots from plain data. Transparent, with mid-grey ink, so they read on a light page and on a dark one."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Final

import numpy as np
import numpy.typing as npt
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from deploy.files import atomic_path
from deploy.profile_types import amount
from deploy.trace import by_class

INK: Final = "#7a828e"
GRID: Final = "#7a828e38"
COLOURS: Final = ("#2f7fb5", "#3aa17e", "#d9902f", "#a3609a", "#c2574f", "#6f7fd1")
WIDTH: Final = 6.0
DPI: Final = 180
#: Names of stages for people, in the order of the pipeline.
STAGES: Final = {
    "student_plain": "student alone",
    "teacher": "teacher",
    "assistant": "assistant",
    "student": "distilled student",
    "quantized": "quantized student",
    "chip": "chip",
}
_MARKS: Final = (0.5, 4.0)  # thinnest and thickest a spike's mark, in points
_NAMED: Final = 12  # a layer of at most so many neurons has a tick for each: classes are told apart


def accuracy_by_stage(accuracy: Mapping[str, float | None], path: str | Path) -> None:
    """Accuracy in percent at each stage as one dot a row; stages without a value are left out.

    Raises:
        FileError: the folder is not writable or the disk is full.
    """
    named = {STAGES.get(stage, stage): accuracy[stage] for stage in _in_order(accuracy)}
    rows = [(name, value) for name, value in named.items() if value is not None]
    figure = Figure(figsize=(WIDTH, 0.9 + 0.42 * max(1, len(rows))))
    axes = _axes(figure, figure.add_subplot())
    for row, (name, value) in enumerate(rows):
        colour = COLOURS[1] if name == "chip" else COLOURS[0]
        axes.plot([value], [row], "o", markersize=9, color=colour)
        axes.annotate(f"{value:.2f} %", (value, row), (10, 0), textcoords="offset points", va="center", color=INK)
    values = [value for _, value in rows] or [0.0]
    margin = max(0.5, 0.25 * (max(values) - min(values)))
    axes.set_xlim(min(values) - margin, max(values) + 1.6 * margin)
    axes.set_yticks(range(len(rows)), [name for name, _ in rows])
    axes.set_ylim(max(1, len(rows)) - 0.4, -0.6)
    axes.set_xlabel("test accuracy (%); the axis does not start at zero")
    axes.grid(axis="x", color=GRID)
    save_figure(figure, path)


def _in_order(accuracy: Mapping[str, float | None]) -> list[str]:
    return [*(stage for stage in STAGES if stage in accuracy), *(stage for stage in accuracy if stage not in STAGES)]


def spike_raster(
    image: npt.NDArray[Any] | None,
    layers: Mapping[str, npt.NDArray[Any]],
    path: str | Path,
    *,
    label: int | None = None,
    prediction: int | None = None,
    population: int = 1,
) -> None:
    """Every spike of one sample, layer by layer, beside the input image.

    Args:
        image: ``[H, W]``, ``[1, H, W]`` or colour ``[3, H, W]``; None leaves it out.
        layers: Spikes of each layer in order, ``[T, *shape]``, nonzero where a neuron spiked.
        label, prediction: Right class and answer, for the caption.
        population: Neurons a class in the last layer: its classes are drawn apart, each with its number and spikes.

    Raises:
        FileError: the folder is not writable or the disk is full.
    """
    flat = {name: np.asarray(spikes).reshape(len(spikes), -1) for name, spikes in layers.items()}
    heights = [1.3 + 0.4 * np.log10(max(1, spikes.shape[1])) for spikes in flat.values()] or [1.0]
    figure = Figure(figsize=(WIDTH, max(2.6, 1.05 * sum(heights))))
    columns = [1.0] if image is None else [1.0, 2.8]
    grid = figure.add_gridspec(len(heights), len(columns), width_ratios=columns, height_ratios=heights)
    if image is not None:
        _image(figure.add_subplot(grid[:, 0]), image, _caption(label, prediction))
    for row, (name, spikes) in enumerate(flat.items()):
        axes = _axes(figure, figure.add_subplot(grid[row, -1]))
        _raster(axes, name, spikes, COLOURS[row % len(COLOURS)])
        if row == len(flat) - 1:
            axes.set_xlabel("time step")
            if population > 1:
                _classes(axes, by_class(spikes.astype(np.int64).sum(axis=0), population), population)
        else:
            axes.tick_params(labelbottom=False)
    save_figure(figure, path)


def _caption(label: int | None, prediction: int | None) -> str:
    said = [] if prediction is None else [f"answer {prediction}"]
    return ", ".join([*said, *([] if label is None else [f"label {label}"])])


def _image(axes: Axes, image: npt.NDArray[Any], caption: str) -> None:
    picture = np.asarray(image)
    if picture.ndim == 3:
        picture = picture[0] if picture.shape[0] == 1 else np.moveaxis(picture, 0, -1)
    scale = float(picture.max()) or 1.0
    axes.imshow(picture / scale, cmap="gray", vmin=0.0, vmax=1.0, interpolation="nearest")
    axes.set_xticks([])
    axes.set_yticks([])
    axes.set_title("input", color=INK, fontsize=10)
    axes.set_xlabel(caption, color=INK)
    for spine in axes.spines.values():
        spine.set_color(GRID)


def _raster(axes: Axes, name: str, spikes: npt.NDArray[Any], colour: str) -> None:
    steps, neurons = spikes.shape
    when, who = np.nonzero(spikes)
    thick = float(np.clip(70.0 / neurons, *_MARKS))
    axes.hlines(who, when + 0.6, when + 1.4, linewidth=thick, color=colour)
    axes.set_xlim(0.4, steps + 0.6)
    axes.set_ylim(neurons - 0.5, -0.5)
    axes.set_title(f"{name}: {len(when):,} spikes, {neurons:,} neurons", color=INK, fontsize=10, loc="left")
    axes.yaxis.set_major_locator(MaxNLocator(10 if neurons <= _NAMED else 4, integer=True))
    axes.xaxis.set_major_locator(MaxNLocator(8, integer=True))


def _classes(axes: Axes, scores: npt.NDArray[np.int64], population: int) -> None:
    """A line between classes, and beside the neurons of each its number and spikes."""
    step = -(-len(scores) // _NAMED)  # of so many classes, every one up to 12, else fewer
    shown = range(0, len(scores), step)
    axes.set_yticks([(k + 0.5) * population - 0.5 for k in shown], [f"class {k}: {scores[k]}" for k in shown])
    for k in range(1, len(scores)):
        axes.axhline(k * population - 0.5, color=GRID, linewidth=0.8)


def activity_by_layer(layers: Mapping[str, tuple[float, float]], path: str | Path) -> None:
    """Mean spikes and synaptic operations a sample of each layer, ``{name: (spikes, synops)}``, side by side.

    Raises:
        FileError: the folder is not writable or the disk is full.
    """
    figure = Figure(figsize=(WIDTH, 1.1 + 0.42 * max(1, len(layers))))
    titles = ("spikes a sample", "synaptic operations a sample")
    for column, title in enumerate(titles):
        axes = _axes(figure, figure.add_subplot(1, 2, column + 1))
        _bars(axes, {name: pair[column] for name, pair in layers.items()}, COLOURS[column], _count)
        axes.set_title(title, color=INK, fontsize=10, loc="left")
        if column:
            axes.tick_params(labelleft=False)
    save_figure(figure, path)


def energy_by_event(energy: Mapping[str, float | None], path: str | Path, *, chip: str = "") -> None:
    """Modelled energy a sample in J of each kind of event; kinds without a published constant are left out.

    Raises:
        FileError: the folder is not writable or the disk is full.
    """
    known = {name: value for name, value in energy.items() if value is not None and value > 0}
    figure = Figure(figsize=(WIDTH, 1.0 + 0.42 * max(1, len(known))))
    axes = _axes(figure, figure.add_subplot())
    _bars(axes, known, COLOURS[2], lambda value: amount(value, "J"))
    axes.set_title(f"modelled energy a sample{', ' + chip if chip else ''}", color=INK, fontsize=10, loc="left")
    if not known:
        reason = "no energy: no spike and no update, or no constant published"
        axes.text(0.5, 0.5, reason, transform=axes.transAxes, ha="center", va="center", color=INK)
    save_figure(figure, path)


def _count(value: float) -> str:
    for factor, unit in ((1e9, "G"), (1e6, "M")):
        if value >= factor:
            return f"{value / factor:.3g} {unit}"
    return amount(value, "")


def _bars(axes: Axes, values: Mapping[str, float], colour: str, label: Callable[[float], str]) -> None:
    axes.barh(range(len(values)), list(values.values()), height=0.6, color=colour)
    largest = max(values.values(), default=0.0) or 1.0
    for row, value in enumerate(values.values()):
        axes.annotate(label(value), (value, row), (6, 0), textcoords="offset points", va="center", color=INK)
    axes.set_xlim(0, 1.3 * largest)
    axes.set_yticks(range(len(values)), list(values))
    axes.set_ylim(max(1, len(values)) - 0.4, -0.6)
    axes.set_xticks([])


def _axes(figure: Figure, axes: Axes) -> Axes:
    """Quiet axes: no frame above and to the right, mid-grey ink."""
    figure.set_layout_engine("constrained")
    for side, spine in axes.spines.items():
        spine.set_visible(side in ("left", "bottom"))
        spine.set_color(GRID)
    axes.tick_params(colors=INK, labelsize=9, length=0)
    axes.xaxis.label.set_color(INK)
    axes.patch.set_alpha(0.0)
    return axes


def save_figure(figure: Figure, path: str | Path) -> None:
    with atomic_path(path) as temporary:
        FigureCanvasAgg(figure)
        figure.savefig(temporary, format="png", dpi=DPI, transparent=True)
