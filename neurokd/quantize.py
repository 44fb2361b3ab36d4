"""Fine-tuning on the chip's own integers, with the distillation loss kept on."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from deploy.chip import Chip
from deploy.errors import CheckpointError
from neurokd import checkpoint, losses
from neurokd.config import Config, QuantizeConfig, StageConfig
from neurokd.data import Dataset
from neurokd.encoding import Encoding
from neurokd.feed import Feed
from neurokd.loop import FitResult, fit
from neurokd.network import SpikingNetwork, build
from neurokd.progress import Progress
from neurokd.quantized import QuantizedNetwork, to_integers
from neurokd.satcache import SatCache
from neurokd.scales import LayerGrid, ScaleSearch


def fine_tune(
    student: SpikingNetwork,
    data: Dataset,
    encoding: Encoding,
    stage: StageConfig,
    *,
    teacher_sats: SatCache | None = None,
    chip: Chip | str = "loihi2",
    weight_bits: int | Mapping[str, int] = 8,
    search: ScaleSearch = "mse",
    checkpoint_dir: str | Path | None = None,
    seed: int = 0,
    progress: Progress | None = None,
) -> tuple[QuantizedNetwork, FitResult]:
    """Put a trained student on the chip's integers and train it there.

    Every forward pass is the chip's arithmetic, so the accuracy that training reports is the chip's.

    Args:
        student: A trained float student; it stays as it is.
        stage: Epochs, batch, learning rate; its ``loss`` text names the losses, SAT losses included.
        teacher_sats: The teacher's SAT for the training split, where the loss needs one.
        chip: Whose widths apply.
        weight_bits: For all layers, or by layer name.
        checkpoint_dir: Folder for resumable state.

    Returns:
        The quantized student and the figures of its training.

    Raises:
        TrainingError: what the chip cannot represent, a dead layer, or training trouble.
        ConfigError: the chip lacks the width, or an unknown loss.
    """
    network = to_integers(student, chip, weight_bits=weight_bits, search=search)
    terms = losses.parse_loss(stage.loss)
    result = fit(
        network, data, encoding, stage, loss_terms=terms, teacher_sats=teacher_sats, checkpoint_dir=checkpoint_dir,
        seed=seed, progress=progress, name="quantize",
    )  # fmt: skip
    return network, result


def quantize(
    student: SpikingNetwork,
    teacher: SpikingNetwork | None = None,
    data: Dataset | None = None,
    *,
    chip: Chip | str = "loihi2",
    weight_bits: int | Mapping[str, int] = 8,
    search: ScaleSearch = "mse",
    encoding: Encoding | None = None,
    stage: StageConfig | None = None,
    out: str | Path | None = None,
    seed: int = 0,
    progress: Progress | None = None,
    **options: Any,
) -> QuantizedNetwork:
    """Quantize a student; with data, fine-tune it on the chip's integers, and with a teacher keep the SAT loss on.

    Args:
        student: A trained float student.
        teacher: Frozen teacher; without one the loss is cross-entropy.
        data: Without data the weights are rounded and nothing is trained (post-training quantization).
        **options: Single values of the stage: ``epochs=3, lr=2e-4, loss="sat-ce"``.

    Raises:
        ConfigError, TrainingError, ModuleError: see :func:`fine_tune`.
    """
    from neurokd.distill import teacher_sats
    from neurokd.train import encoding_of, with_options

    if data is None:
        return to_integers(student, chip, weight_bits=weight_bits, search=search)
    base = stage or stage_of(_defaults(data), "sat-ce" if teacher is not None else "ce")
    chosen = with_options(base, options)
    encoding = encoding or encoding_of(student, data)
    sats = None if teacher is None else teacher_sats(teacher, data, encoding, chosen, seed=seed, progress=progress)
    network, _ = fine_tune(
        student, data, encoding, chosen, teacher_sats=sats, chip=chip, weight_bits=weight_bits, search=search,
        checkpoint_dir=out, seed=seed, progress=progress,
    )  # fmt: skip
    return network


def _defaults(data: Dataset) -> QuantizeConfig:
    return Config.default(data.name).quantize


def stage_of(config: QuantizeConfig, loss: str | None = None) -> StageConfig:
    """The training stage of a quantization configuration."""
    return StageConfig(
        epochs=config.epochs, batch=config.batch, lr=config.lr, weight_decay=0.0, loss=loss or config.loss
    )


def dead_layers(network: QuantizedNetwork, feed: Feed) -> list[str]:
    """Names of layers none of whose neurons spikes on any image of a feed."""
    alive: set[str] = set()
    was_training = network.training
    network.eval()
    with torch.no_grad():
        for batch in feed.in_order():
            steps = feed.encoding.steps if feed.encoding.kind == "direct" else None
            out = network(batch.inputs, steps, record=True)
            assert isinstance(out, tuple)
            alive |= {name for name, spikes in out[1].items() if bool(spikes.any())}
    network.train(was_training)
    return [layer.name for layer in network.quantized_layers() if layer.name not in alive]


def save(path: str | Path, network: QuantizedNetwork, extra: Mapping[str, Any] | None = None) -> None:
    """Write a quantized student: latent weights, spec, options and every layer's grid, atomically."""
    grids = {name: grid.plain() for name, grid in network.grids.items()}
    info = {"spec": network.spec_text, "options": network.options, "chip": network.chip, "grids": grids}
    contents = checkpoint.Contents(dict(network.state_dict()), {**info, "extra": dict(extra or {})})
    checkpoint.write(path, contents, checkpoint.QUANTIZED)


def load(path: str | Path) -> QuantizedNetwork:
    """Read what :func:`save` wrote.

    Raises:
        CheckpointError: missing, damaged, or of another kind.
    """
    contents = checkpoint.read(path, checkpoint.QUANTIZED)
    try:
        grids = {name: LayerGrid(**grid) for name, grid in contents.info["grids"].items()}
        float_network = build(contents.info["spec"], **contents.info["options"])
        network = QuantizedNetwork(float_network, grids, contents.info["chip"])
        network.load_state_dict(contents.tensors)
    except (KeyError, TypeError, RuntimeError) as error:
        raise CheckpointError(
            "the checkpoint does not fit the network it describes",
            where=path,
            got=f"{type(error).__name__}: {error}",
            allowed="a file that `neurokd quantize` wrote",
            next_step="run `neurokd quantize` again",
        ) from error
    return network.eval()
