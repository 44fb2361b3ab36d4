"""TensorBoard: what is written, and what is said where it is missing."""

from __future__ import annotations

import builtins
import sys
import types
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from deploy.errors import ConfigError
from deploy.runfolder import STUDENT_SPIKES, save_layers
from neurokd.live import TensorBoard, rasters_of
from neurokd.progress import ProgressEvent


class Writer:
    """Stands for TensorBoard's writer: keeps what it is given."""

    def __init__(self, folder: str) -> None:
        self.folder, self.scalars, self.images, self.closed = folder, [], [], False

    def add_scalar(self, name: str, value: float, at: int) -> None:
        self.scalars.append((name, value, at))

    def add_image(self, name: str, image: np.ndarray, at: int, dataformats: str) -> None:
        assert dataformats == "HW"
        self.images.append((name, image, at))

    def flush(self) -> None:
        pass

    def close(self) -> None:
        self.closed = True


@pytest.fixture
def board(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> TensorBoard:
    module = types.ModuleType("torch.utils.tensorboard")
    module.SummaryWriter = Writer  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "torch.utils.tensorboard", module)
    return TensorBoard(tmp_path, every=2)


def test_loss_and_accuracy_are_scalars_of_their_stage(board: TensorBoard) -> None:
    told: list[ProgressEvent] = []
    board.also = told.append
    with board:
        for done in (1, 2, 3):
            board(ProgressEvent("teacher", "train", done, 3, 2, 5, loss=1.0 / done))
        board(ProgressEvent("teacher", "epoch", 3, 3, 2, 5, validation=93.5))
    assert board.writer.scalars == [
        ("teacher/loss", 0.5, 5),
        ("teacher/loss", 1.0 / 3, 6),
        ("teacher/epoch accuracy", 93.5, 2),
    ]
    assert len(told) == 4
    assert board.writer.closed


def test_rasters_are_images_of_neurons_by_steps(board: TensorBoard, tmp_path: Path) -> None:
    spikes = np.zeros((3, 2, 5), np.uint8)
    spikes[1, 0, 4] = 1
    save_layers(tmp_path / STUDENT_SPIKES, {"hidden": spikes})
    rasters_of(board, tmp_path)
    ((name, image, _),) = board.writer.images
    assert name.endswith("/hidden")
    assert image.shape == (20, 12)
    assert np.argwhere(image == 0).tolist() == [[r, c] for r in range(16, 20) for c in range(4, 8)]
    board.raster("large", {"wide": torch.zeros(2, 3000)})
    assert board.writer.images[-1][1].shape == (3000, 8)


def test_a_missing_tensorboard_is_named(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    real = builtins.__import__

    def without(name: str, *rest: Any, **options: Any) -> Any:
        if "tensorboard" in name:
            raise ImportError("no module named tensorboard")
        return real(name, *rest, **options)

    monkeypatch.setattr(builtins, "__import__", without)
    with pytest.raises(ConfigError, match="TensorBoard is not installed") as caught:
        TensorBoard(tmp_path)
    assert caught.value.next_step == "pip install tensorboard"
    with pytest.raises(ConfigError, match="points need a distance"):
        TensorBoard(tmp_path, every=0)
