"""Fine-tuning on the chip's own integers, with the distillation loss kept on."""

from __future__ import annotations

import dataclasses
import warnings
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

from torch import nn

from deploy.chip import Chip, load_chip
from deploy.errors import CheckpointError, ProgramError, TrainingError
from neurokd import checkpoint, losses
from neurokd.calibrate import check_levels, round_off
from neurokd.config import Config
from neurokd.config_parts import QuantizeConfig, StageConfig
from neurokd.data import Dataset
from neurokd.dead import DeadLayer, DeadLayerWarning, dead_layers
from neurokd.encoding import Encoding
from neurokd.feed import Feed
from neurokd.layer_grid import LayerGrid
from neurokd.loop import FitResult, fit
from neurokd.methods import UNTRAINED, loss_text
from neurokd.network import SpikingNetwork
from neurokd.progress import Progress
from neurokd.quantized import QuantizedNetwork
from neurokd.quantized_layer import Arithmetic
from neurokd.rounding import WeightBits, check_lowers, overlap_error, overlapping_pools, to_integers
from neurokd.scales import ScaleSearch
from neurokd.teachers import Telling, as_teacher, encoding_for


def fine_tune(
    student: SpikingNetwork,
    data: Dataset,
    encoding: Encoding,
    stage: StageConfig,
    *,
    teacher_sats: Telling | None = None,
    chip: Chip | str = "loihi2",
    weight_bits: WeightBits = None,
    search: ScaleSearch = "mse",
    power_of_two: bool = False,
    learn: Collection[str] = (),
    float_epochs: int = 0,
    fake_epochs: int = 0,
    checkpoint_dir: str | Path | None = None,
    seed: int = 0,
    progress: Progress | None = None,
) -> tuple[QuantizedNetwork, FitResult]:
    """Put a trained student on the chip's integers and train it there: :func:`to_integers`, then :func:`tune`.

    Args:
        student: A trained float student; it stays as it is.
        chip: Whose widths apply.
        weight_bits: For all layers, or by layer name; the chip's widest where not given.
        search, power_of_two: See :func:`neurokd.scales.choose_grid`.
        data, encoding, stage, teacher_sats, learn, float_epochs, fake_epochs: See :func:`tune`.
        checkpoint_dir, seed, progress: See :func:`tune`.

    Returns:
        The quantized student and the figures of its training.

    Raises:
        TrainingError: what the chip cannot represent, or as :func:`tune`.
        ConfigError: the chip lacks the width, or an unknown loss.
        ModuleError, UnsupportedNode, ProgramError, RuleError: as :func:`to_integers`.
    """
    network = to_integers(student, chip, weight_bits=weight_bits, search=search, power_of_two=power_of_two)
    result = tune(
        network, data, encoding, stage, teacher_sats=teacher_sats, chip=chip, learn=learn, float_epochs=float_epochs,
        fake_epochs=fake_epochs, checkpoint_dir=checkpoint_dir, seed=seed, progress=progress,
    )  # fmt: skip
    return network, result


def tune(
    network: QuantizedNetwork,
    data: Dataset,
    encoding: Encoding,
    stage: StageConfig,
    *,
    teacher_sats: Telling | None = None,
    chip: Chip | str = "loihi2",
    learn: Collection[str] = (),
    float_epochs: int = 0,
    fake_epochs: int = 0,
    checkpoint_dir: str | Path | None = None,
    seed: int = 0,
    progress: Progress | None = None,
) -> FitResult:
    """Train a student that is on the chip's integers, in place.

    Every forward pass of the ``stage.epochs`` is the chip's arithmetic, so the accuracy that training reports is the
    chip's. Before them, ``float_epochs`` train the folded floats and ``fake_epochs`` weights and biases on the grid
    with float membranes; their best epoch, too, is chosen by the chip's accuracy. A layer that never spikes on the
    validation images is a :class:`DeadLayerWarning`, and where it is still dead at the end a note of the network.

    Args:
        network: From :func:`to_integers`; its pruned weights stay 0.
        data: Train, validation and test splits.
        encoding: How images become spikes; its levels are the student's.
        stage: Epochs, batch, learning rate; its ``loss`` text names the losses, SAT losses included.
        teacher_sats: The teacher's SAT for the training split, where the loss needs one.
        chip: Whose rules apply.
        learn: What is learned beside weights and biases: of ``threshold``, ``decays``, ``scale``. They are fixed
            integers afterwards.
        float_epochs, fake_epochs: The gradual way to the integers.
        checkpoint_dir: Folder for resumable state.
        seed: Seed of everything random.
        progress: Called with :class:`ProgressEvent`.

    Returns:
        The figures of the exact epochs.

    Raises:
        TrainingError: weights that grew until a sum could leave the accumulator, or training trouble.
        ConfigError: an unknown loss, or something that cannot be learned.
        ProgramError, RuleError: the trained network breaks a rule of the chip.
    """
    _check_trainable(network, encoding)
    terms, seen = losses.parse_loss(stage.loss), Feed(data.validation, encoding)
    _warn(dead_layers(network, seen), "before fine-tuning")
    network.learn(learn)
    ways: tuple[tuple[Arithmetic, int], ...] = (("float", float_epochs), ("fake", fake_epochs), ("exact", stage.epochs))
    result: FitResult | None = None
    for arithmetic, epochs in ways:
        if epochs < 1:
            continue
        network.compute(arithmetic)
        folder = (
            checkpoint_dir if arithmetic == "exact" or checkpoint_dir is None else Path(checkpoint_dir) / arithmetic
        )
        result = fit(
            network, data, encoding, dataclasses.replace(stage, epochs=epochs), loss_terms=terms,
            teacher_sats=teacher_sats, checkpoint_dir=folder, seed=seed, progress=progress, name="quantize",
        )  # fmt: skip
    assert result is not None, "a stage has at least one epoch"
    network.freeze()
    check_lowers(network, chip if isinstance(chip, Chip) else load_chip(chip))
    dead = dead_layers(network, seen)
    _warn(dead, "after fine-tuning")
    network.options["notes"] = [*network.notes, *map(str, dead)]
    return result


def _warn(dead: list[DeadLayer], when: str) -> None:
    for layer in dead:
        warnings.warn(f"{when}: {layer}", DeadLayerWarning, stacklevel=4)


def _check_trainable(network: QuantizedNetwork, encoding: Encoding) -> None:
    check_levels(network, encoding)
    for layer in overlapping_pools(network):
        raise overlap_error(
            layer, "weights that will change", "windows side by side; or quantizing without fine-tuning"
        )


def quantize(
    student: SpikingNetwork,
    teacher: SpikingNetwork | nn.Module | None = None,
    data: Dataset | None = None,
    *,
    chip: Chip | str = "loihi2",
    weight_bits: WeightBits = None,
    search: ScaleSearch = "mse",
    power_of_two: bool = False,
    learn: Collection[str] = (),
    float_epochs: int = 0,
    fake_epochs: int = 0,
    synops_budget: float | None = None,
    energy_budget: float | None = None,
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
        teacher: Frozen teacher; without one the loss is cross-entropy. An ANN needs a loss on logits or features.
        data: Without data the weights are rounded and nothing is trained (post-training quantization); with data and
            ``loss="none"`` the mean error is taken out of the biases too.
        chip: Whose widths apply.
        weight_bits: For all layers, or by layer name; the chip's widest where not given.
        search, power_of_two: See :func:`neurokd.scales.choose_grid`.
        learn, float_epochs, fake_epochs: See :func:`tune`.
        synops_budget, energy_budget: Share of the synops or of the modelled energy that the student without pruning
            takes; the best accuracy found under it is returned (:mod:`neurokd.budget`).
        encoding: The student's own direct encoding when absent.
        stage: The data set's tuned stage when absent.
        out: Folder for resumable state.
        seed: Seed of everything random.
        progress: Called with :class:`ProgressEvent`.
        **options: Single values of the stage: ``epochs=3, lr=2e-4, loss="sat-ce"``; ``loss="none"`` trains nothing,
            ``loss="sat"`` keeps the SAT losses alone.

    Raises:
        ConfigError, TrainingError, ModuleError, UnsupportedNode, ProgramError, RuleError: see :func:`fine_tune`.
    """
    from neurokd.budget import budget_of, under_budget
    from neurokd.distill import teaching
    from neurokd.train import encoding_of, with_options

    grids: dict[str, Any] = {
        "chip": chip, "weight_bits": weight_bits, "search": search, "power_of_two": power_of_two,
    }  # fmt: skip
    if data is None:
        return to_integers(student, **grids)
    if options.get("loss") == UNTRAINED:
        return round_off(student, data, encoding or encoding_of(student, data), **grids)
    base = stage or stage_of(_defaults(data), "sat-ce" if teacher is not None else "ce")
    chosen = with_options(base, options)
    chosen = dataclasses.replace(chosen, loss=loss_text(chosen.loss))
    encoding = encoding or encoding_of(student, data)
    sats = None
    if teacher is not None and "teacher" in losses.needs(losses.parse_loss(chosen.loss)):
        master = as_teacher(teacher, data)
        seen = encoding_for(master, encoding, data)
        sats = teaching(master, data, seen, chosen, seed=seed, progress=progress)
    how: dict[str, Any] = {
        "teacher_sats": sats, "learn": learn, "float_epochs": float_epochs, "fake_epochs": fake_epochs,
        "checkpoint_dir": out, "seed": seed, "progress": progress,
    }  # fmt: skip
    budget = budget_of(synops_budget, energy_budget)
    if budget is not None:
        return under_budget(student, data, encoding, chosen, budget, grids=grids, **how).network
    return fine_tune(student, data, encoding, chosen, **grids, **how)[0]


def _defaults(data: Dataset) -> QuantizeConfig:
    return Config.default(data.name).quantize


def stage_of(config: QuantizeConfig, loss: str | None = None) -> StageConfig:
    """The training stage of a quantization configuration."""
    return StageConfig(
        epochs=config.epochs, batch=config.batch, lr=config.lr, weight_decay=0.0, loss=loss or loss_text(config.loss)
    )


def save(path: str | Path, network: QuantizedNetwork, extra: Mapping[str, Any] | None = None) -> None:
    """Write a quantized student: latent weights, spec, options and every layer's grid, atomically.

    What is being learned of the grids is written as the integers it is now.

    Raises:
        FileError: the folder cannot be written or the disk is full.
    """
    grids = {name: grid.plain() for name, grid in network.grids.items()}
    info = {"spec": network.spec_text, "options": network.options, "chip": network.chip, "grids": grids}
    weights = {name: value for name, value in network.state_dict().items() if ".learned." not in name}
    contents = checkpoint.Contents(weights, {**info, "extra": dict(extra or {})})
    checkpoint.write(path, contents, checkpoint.QUANTIZED)


def load(path: str | Path) -> QuantizedNetwork:
    """Read what :func:`save` wrote; the network comes back in evaluation mode.

    Raises:
        CheckpointError: missing, damaged, or of another kind.
    """
    contents = checkpoint.read(path, checkpoint.QUANTIZED)
    float_network = checkpoint.rebuild(contents.info, path)
    try:
        grids = {str(name): LayerGrid(**grid) for name, grid in contents.info["grids"].items()}
        network = QuantizedNetwork(float_network, grids, str(contents.info["chip"]))
    except (AttributeError, TypeError, ProgramError, TrainingError) as error:
        raise CheckpointError(
            "the checkpoint's grids are not those of its network",
            where=path,
            got=error,
            allowed="a file that `neurokd quantize` wrote",
            next_step="run `neurokd quantize` again",
        ) from error
    checkpoint.put_weights(network, contents.tensors, path)  # type: ignore[arg-type]
    return network.eval()
