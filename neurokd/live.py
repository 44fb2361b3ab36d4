"""A live view of long runs: TensorBoard scalars of every stage, and rasters while and after it trains.

TensorBoard is an option (``pip install tensorboard``): ``neurokd demo --tensorboard DIR``, or in Python
``neurokd.train(..., progress=TensorBoard(DIR))``.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch

from deploy.errors import ConfigError
from neurokd.progress import Progress, ProgressEvent, silent

__all__ = ["TensorBoard"]


class TensorBoard:
    """A progress callback that writes an event file; hands every event on to another callback.

    Args:
        folder: Where the event files go; give it to ``tensorboard --logdir``.
        also: Another callback, told the same.
        every: Batches between two points of the loss within an epoch.

    Raises:
        ConfigError: TensorBoard is not installed, or ``every`` is not positive.
    """

    def __init__(self, folder: str | Path, also: Progress = silent, *, every: int = 20) -> None:
        if every < 1:
            raise ConfigError("points need a distance", where="every", got=every, allowed="1 or more")
        try:
            from torch.utils.tensorboard import SummaryWriter
        except ImportError as error:
            raise ConfigError(
                "TensorBoard is not installed",
                got=error,
                allowed="the package tensorboard beside torch",
                next_step="pip install tensorboard",
            ) from error
        self.writer: Any = SummaryWriter(str(folder))
        self.also, self.every = also, every

    def __call__(self, event: ProgressEvent) -> None:
        """Write a point where the event has a figure."""
        at = max(0, event.epoch - 1) * event.total + event.done
        if event.loss is not None and (event.done == event.total or event.done % self.every == 0):
            self.writer.add_scalar(f"{event.stage}/loss", event.loss, at)
        if event.validation is not None:
            self.writer.add_scalar(f"{event.stage}/{event.what} accuracy", event.validation, event.epoch or at)
            self.writer.flush()
        self.also(event)

    def raster(self, name: str, layers: dict[str, torch.Tensor], at: int = 0) -> None:
        """Write one sample's spikes, ``{layer: [T, *shape]}``, as an image a layer: a row a neuron, a column a step.

        Neurons and steps are drawn 4 pixels wide where that keeps the image below 1,000.
        """
        for layer, spikes in layers.items():
            table = spikes.detach().reshape(len(spikes), -1).T.to(torch.float32).numpy()
            zoom = [max(1, min(4, 1000 // side)) for side in table.shape]
            image = np.kron(table, np.ones(zoom, np.float32))
            self.writer.add_image(f"{name}/{layer}", 1.0 - image, at, dataformats="HW")
        self.writer.flush()

    def close(self) -> None:
        """End the event file."""
        self.writer.close()

    def __enter__(self) -> TensorBoard:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def rasters_of(board: TensorBoard, run: Any) -> None:
    """Write the recorded spikes of a finished run's first test image, layer by layer."""
    from deploy.runfolder import STUDENT_SPIKES, load_layers

    recorded = load_layers(Path(run) / STUDENT_SPIKES)
    board.raster("student on the chip's integers", {name: torch.from_numpy(s[:, 0]) for name, s in recorded.items()})
