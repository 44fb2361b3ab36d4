"""Training without a teacher, evaluation, and the defaults that the ten-line interface fills in."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

from deploy.errors import ConfigError
from neurokd import losses
from neurokd.config import Config
from neurokd.config_parts import StageConfig
from neurokd.data import Dataset, Split
from neurokd.encoding import Encoding
from neurokd.feed import Feed, Network, accuracy
from neurokd.loop import FitResult, fit
from neurokd.network import SpikingNetwork
from neurokd.progress import Progress, ProgressEvent
from neurokd.resume import EpochRecord
from neurokd.tables import unknown_key

__all__ = [
    "EpochRecord",
    "FitResult",
    "Progress",
    "ProgressEvent",
    "default_stage",
    "encoding_of",
    "evaluate",
    "fit",
    "train",
    "with_options",
]


def train(
    network: SpikingNetwork,
    data: Dataset,
    stage: StageConfig | None = None,
    *,
    encoding: Encoding | None = None,
    out: str | Path | None = None,
    seed: int = 0,
    progress: Progress | None = None,
    **options: Any,
) -> FitResult:
    """Train a network without a teacher.

    Args:
        network: The network, trained in place.
        data: A data set from :func:`neurokd.data.load`.
        stage: How; the data set's tuned ``teacher`` stage when absent.
        encoding: By default the network's own: direct, ``network.input_bits`` bits, ``network.steps`` steps.
        out: Folder for resumable state.
        seed: Seed of everything random.
        progress: Called with :class:`ProgressEvent`.
        **options: Single values of the stage to change: ``epochs=3, lr=1e-3``.

    Returns:
        The figures; ``accuracy`` is in percent on the test set.

    Raises:
        ConfigError: an unknown option, or a value out of range.
        TrainingError, CheckpointError, FileError: as :func:`fit`.
    """
    stage = with_options(stage or default_stage(data, "teacher", loss="ce"), options)
    terms = losses.parse_loss(stage.loss)
    return fit(
        network,
        data,
        encoding or encoding_of(network, data),
        stage,
        loss_terms=terms,
        checkpoint_dir=out,
        seed=seed,
        progress=progress,
    )


def evaluate(network: Network, split: Split, encoding: Encoding) -> float:
    """Accuracy in percent on a split."""
    return accuracy(network, Feed(split, encoding))


def encoding_of(network: Network, data: Dataset) -> Encoding:
    """The direct encoding a network was built for."""
    return Encoding("direct", network.input_bits, network.steps, raw_levels=data.levels)


def default_stage(data: Dataset, role: str, loss: str) -> StageConfig:
    """The tuned stage for a known data set, otherwise the plain defaults."""
    try:
        stage: StageConfig = getattr(Config.default(data.name).training, role)
    except ConfigError:
        stage = StageConfig()
    return dataclasses.replace(stage, loss=loss)


def with_options(stage: StageConfig, options: dict[str, Any]) -> StageConfig:
    """The stage with some values replaced.

    Raises:
        ConfigError: an unknown option, or a value out of range.
    """
    known = [field.name for field in dataclasses.fields(StageConfig)]
    for key in options:
        if key not in known:
            raise unknown_key("train", key, known)
    return dataclasses.replace(stage, **options)
