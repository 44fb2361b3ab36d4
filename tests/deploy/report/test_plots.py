"""Plots: real PNG files from plain data, also from data with nothing in them."""

from __future__ import annotations

from pathlib import Path

import matplotlib.image
import numpy as np
import pytest

from deploy.errors import FileError
from deploy.report import accuracy_by_stage, activity_by_layer, energy_by_event, plots, spike_raster


def pixels(path: Path) -> np.ndarray:
    """The picture ``[H, W, 4]``; fails on what is no PNG."""
    assert path.read_bytes().startswith(b"\x89PNG")
    picture = matplotlib.image.imread(path)
    assert picture.shape[0] > 100
    assert picture.shape[1] > 600
    return picture


def inked(path: Path, colour: str) -> int:
    """Number of opaque pixels of a colour."""
    picture = pixels(path)
    wanted = [int(colour[k : k + 2], 16) / 255 for k in (1, 3, 5)]
    return int(np.all(np.isclose(picture[..., :3], wanted, atol=0.01), axis=-1).sum())


def test_accuracy_marks_every_stage_and_the_chip_apart(tmp_path: Path) -> None:
    both, alone = tmp_path / "both.png", tmp_path / "alone.png"
    accuracy_by_stage({"teacher": 98.0, "student": 97.0, "chip": 97.0, "assistant": None}, both)
    accuracy_by_stage({"teacher": 98.0}, alone)
    assert inked(both, "#3aa17e") > 100
    assert inked(both, "#2f7fb5") > 1.5 * inked(alone, "#2f7fb5")
    assert inked(alone, "#3aa17e") == 0
    assert pixels(both).shape[0] > pixels(alone).shape[0]


def test_unknown_stages_keep_their_name(tmp_path: Path) -> None:
    accuracy_by_stage({"pruned": 90.0}, tmp_path / "a.png")
    assert inked(tmp_path / "a.png", "#2f7fb5") > 100


def test_a_raster_draws_each_spike(tmp_path: Path) -> None:
    spikes = np.zeros((8, 20), np.uint8)
    few, many = tmp_path / "few.png", tmp_path / "many.png"
    spikes[2, 3] = 1
    spike_raster(np.eye(8), {"hidden": spikes}, few, label=3, prediction=3)
    spikes[:, 5] = 1
    spike_raster(np.eye(8), {"hidden": spikes}, many, label=3)
    assert 0 < inked(few, "#2f7fb5") < inked(many, "#2f7fb5") / 4


def test_a_raster_names_classes_and_their_spikes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    drawn = []
    monkeypatch.setattr(plots, "save_figure", lambda figure, path: drawn.append(figure))
    out = np.zeros((5, 40), np.uint8)
    out[:, 8:10] = 1
    spike_raster(None, {"hidden": np.ones((5, 40)), "out": out}, tmp_path / "r.png", population=8)
    spike_raster(None, {"out": out}, tmp_path / "r.png", population=2)
    labels = [[tick.get_text() for tick in axes.get_yticklabels()] for figure in drawn for axes in figure.axes]
    assert "class" not in "".join(labels[0])
    assert labels[1] == ["class 0: 0", "class 1: 10", "class 2: 0", "class 3: 0", "class 4: 0"]
    assert len(labels[2]) == 10
    assert "class 4: 10" in labels[2]


@pytest.mark.parametrize("shape", [(8, 8), (1, 8, 8), (3, 8, 8)])
def test_a_raster_takes_grey_and_colour_images(tmp_path: Path, shape: tuple[int, ...]) -> None:
    image = np.random.default_rng(0).integers(0, 16, shape)
    spike_raster(image, {"conv": np.ones((4, 2, 3, 3)), "out": np.zeros((4, 10))}, tmp_path / "r.png", prediction=1)
    pixels(tmp_path / "r.png")


def test_a_raster_does_without_an_image_or_spikes(tmp_path: Path) -> None:
    spike_raster(None, {"out": np.zeros((4, 10))}, tmp_path / "r.png")
    spike_raster(np.zeros((4, 4)), {}, tmp_path / "e.png")
    assert inked(tmp_path / "r.png", "#2f7fb5") == 0
    pixels(tmp_path / "e.png")


def test_activity_bars_grow_with_the_values(tmp_path: Path) -> None:
    activity_by_layer({"in": (10, 0), "out": (5, 3.2e9)}, tmp_path / "a.png")
    activity_by_layer({"in": (10, 0), "out": (0, 4.5e6)}, tmp_path / "b.png")
    assert inked(tmp_path / "a.png", "#2f7fb5") > 1.3 * inked(tmp_path / "b.png", "#2f7fb5")


def test_energy_without_constants_is_said(tmp_path: Path) -> None:
    energy_by_event({"synaptic operations": 3e-6, "hops": None, "idle": 2e-9}, tmp_path / "e.png", chip="Toy")
    energy_by_event({"synaptic operations": None}, tmp_path / "n.png")
    assert inked(tmp_path / "e.png", "#d9902f") > 1000
    assert inked(tmp_path / "n.png", "#d9902f") == 0
    assert (pixels(tmp_path / "n.png")[..., 3] > 0).sum() > 300


def test_a_folder_that_cannot_be_written_is_refused(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(FileError):
        energy_by_event({}, tmp_path / "file" / "e.png")
