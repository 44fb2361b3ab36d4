"""A picture of where two executions part: a neuron's two membranes around the step, and how differences spread."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from deploy.execution_pairs import Pair, Place
from deploy.executions import Execution
from deploy.report.plots import COLOURS, GRID, INK, save_figure

BEFORE, AFTER = 8, 6
WIDTH: Final = 6.8


def parting(left: Execution, right: Execution, pair: Pair, path: str | Path) -> None:
    """Draw a PNG; two equal executions get the picture of their equality.

    Raises:
        FileError: the folder is not writable or the disk is full.
    """
    figure = Figure(figsize=(WIDTH, 5.2), layout="constrained")
    upper, lower = figure.subplots(2, 1)
    for axes in (upper, lower):
        _plain(axes)
    if pair.first is None:
        upper.text(0.5, 0.5, "no spike differs", ha="center", va="center", color=INK, transform=upper.transAxes)
        upper.set_axis_off()
    else:
        _membranes(upper, (left, right), pair.first)
    _spread(lower, left, right, pair)
    figure.suptitle(f"{left.name} and {right.name}", color=INK)
    save_figure(figure, path)


def _plain(axes: Axes) -> None:
    axes.patch.set_alpha(0.0)
    axes.tick_params(colors=INK)
    axes.grid(color=GRID)
    for spine in axes.spines.values():
        spine.set_color(GRID)


def _membranes(axes: Axes, runs: Sequence[Execution], first: Place) -> None:
    """Membranes (before the reset where recorded) of the one neuron, its threshold, its spikes."""
    steps = runs[0].layers[first.layer].shape[0]
    window = np.arange(max(0, first.step - BEFORE), min(steps, first.step + AFTER + 1))
    for run, colour, marker in zip(runs, COLOURS, "ox", strict=False):
        values = np.array([_or_nan(run.membrane(first.layer, int(t), first.sample, first.neuron)) for t in window])
        after = "" if first.layer in run.charged else ", after the reset"
        label = run.name + (after if np.isfinite(values).any() else ": no membrane recorded")
        axes.plot(window, values, marker + "-", markersize=4, color=colour, label=label)
        spikes = run.layers[first.layer][window, first.sample].reshape(len(window), -1)[:, first.neuron] != 0
        if first.layer in run.threshold:
            height = first.threshold or 0.0
            axes.plot(window[spikes], np.full(int(spikes.sum()), height), "|", markersize=14, color=colour)
    if first.threshold is not None:
        axes.axhline(first.threshold, color=INK, linewidth=0.8, linestyle="--")
    axes.axvline(first.step, color=COLOURS[2], linewidth=0.8)
    axes.set_title(
        f"{first.layer}, sample {first.sample}, neuron {first.neuron}: step {first.step}", color=INK, fontsize=9
    )
    axes.set_ylabel("membrane", color=INK)
    axes.legend(fontsize=7, labelcolor=INK, framealpha=0.0)


def _or_nan(value: float | None) -> float:
    return float("nan") if value is None else value


def _spread(axes: Axes, left: Execution, right: Execution, pair: Pair) -> None:
    """Share of differing spikes in percent, by layer and step."""
    layers = list(pair.total)
    shares = np.array([_shares(left, right, layer, pair.samples) for layer in layers]).reshape(len(layers), -1)
    image: Any = axes.imshow(
        shares, aspect="auto", cmap="magma_r", vmin=0.0, vmax=max(1e-9, float(shares.max(initial=0.0)))
    )
    axes.set_yticks(range(len(layers)), layers)
    axes.set_xlabel("time step", color=INK)
    axes.grid(visible=False)
    bar = axes.figure.colorbar(image, ax=axes)
    bar.set_label("differing spikes (%)", color=INK)
    bar.ax.tick_params(colors=INK)


def _shares(left: Execution, right: Execution, layer: str, samples: int) -> Any:
    wrong = left.layers[layer][:, :samples] != right.layers[layer][:, :samples]
    return 100.0 * wrong.reshape(len(wrong), -1).mean(axis=1)
