"""Distillation: a frozen teacher, a student, and the way between them (teacher -> assistant -> student).

The teacher runs once over every fixed view of the training images; its spikes are cached as packed bits
(:mod:`neurokd.satcache`). After that an epoch of distillation costs what a plain epoch costs. Losses on features or
membranes pay for the teacher's forward pass on each batch instead (:mod:`neurokd.teachers`).
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from torch import nn

from deploy.errors import TrainingError
from neurokd import losses, satcache
from neurokd.config import Config
from neurokd.config_parts import StageConfig
from neurokd.data import Dataset
from neurokd.encoding import Encoding
from neurokd.feed import Feed, Network, all_told, split_digest, training_feed
from neurokd.inherit import check_narrower, inherit
from neurokd.loop import FitResult, fit
from neurokd.network import SpikingNetwork
from neurokd.progress import Progress, ProgressEvent, silent
from neurokd.satcache import SatCache
from neurokd.teachers import LiveTeacher, ModuleTeacher, Telling, as_teacher, check_teacher, encoding_for, key_parts
from neurokd.train import default_stage, encoding_of, with_options

SAT_FILE = "teacher_sat.npz"
KEPT = frozenset({"sat", "logits"})  # what a cache holds; features and membranes are asked live


def distill(
    student: SpikingNetwork,
    teacher: Network | nn.Module,
    data: Dataset,
    *,
    loss: str = "sat-ce",
    stage: StageConfig | None = None,
    encoding: Encoding | None = None,
    out: str | Path | None = None,
    seed: int = 0,
    progress: Progress | None = None,
    **options: Any,
) -> SpikingNetwork:
    """Train a student on a teacher: on its SAT, its logits, its membranes or its features, as the loss says.

    Args:
        student: Trained in place.
        teacher: Frozen; its class count must be the student's. A network of :func:`neurokd.build` or
            :func:`neurokd.accept` sees its own encoding: its number of steps and input bits may differ, and SATs are
            compared at the smaller T. Any other torch module sees the images as they are (:mod:`neurokd.teachers`):
            an ANN, or a snntorch module with its own loop over time.
        data: A data set from :func:`neurokd.data.load`.
        loss: Loss text: a preset (``sat-ce``, ``sat-combined``) or a weighted sum. A teacher that is an ANN has no
            SAT; ``ce+logit-kl`` is a good start with one.
        stage: How; the data set's tuned ``student`` stage when absent. Its own loss text gives way to ``loss``.
        encoding: For both networks; by default each network's own direct encoding. A torch module always sees images.
        out: Folder for the teacher's SAT cache and resumable state.
        seed: Seed of everything random.
        progress: Called with :class:`ProgressEvent`.
        **options: Single values of the stage to change: ``epochs=3``.

    Returns:
        The student. :func:`distill_stage` gives the figures too.

    Raises:
        ConfigError: an unknown option, loss or a value out of range.
        TrainingError, CheckpointError, FileError: as :func:`neurokd.loop.fit`.
    """
    chosen = with_options(stage or default_stage(data, "student", loss), {**options, "loss": loss})
    own, teacher = encoding or encoding_of(student, data), as_teacher(teacher, data)
    plain = None if isinstance(teacher, ModuleTeacher) else encoding
    theirs = plain or encoding_of(teacher, data)
    distill_stage(
        student, teacher, data, own, chosen, teacher_encoding=theirs, folder=out, seed=seed, progress=progress
    )
    return student


def distill_stage(
    student: Network,
    teacher: Network | nn.Module,
    data: Dataset,
    encoding: Encoding,
    stage: StageConfig,
    *,
    teacher_encoding: Encoding | None = None,
    folder: str | Path | None = None,
    answers: str | Path | None = None,
    seed: int = 0,
    progress: Progress | None = None,
    name: str = "student",
) -> FitResult:
    """One stage of distillation with ``stage.loss``: ask the teacher, then :func:`neurokd.loop.fit`.

    Args:
        student: Trained in place.
        teacher: Frozen; as :func:`distill`.
        data: The data set.
        encoding: The student's.
        stage: Epochs, batch, learning rate, loss text, augmentation.
        teacher_encoding: The teacher's; the student's when absent (a torch module sees images).
        folder: For the cache and the state; None keeps both in memory.
        answers: For the cache alone, where stages of one teacher share it; ``folder`` when absent.
        seed: Seed of everything random.
        progress: Called with :class:`ProgressEvent`.
        name: The stage's name.

    Returns:
        The figures of the stage.

    Raises:
        TrainingError: different class counts, or as :func:`neurokd.loop.fit`.
        ConfigError, CheckpointError, FileError: as :func:`neurokd.loop.fit`.
    """
    terms, master = losses.parse_loss(stage.loss), as_teacher(teacher, data)
    _check_classes(student, master, name)
    sats: Telling | None = None
    if "teacher" in losses.needs(terms):
        seen = teacher_encoding or encoding_for(master, encoding, data)
        shorter = encoding.steps if isinstance(master, ModuleTeacher) else min(encoding.steps, seen.steps)
        losses.check_windows(terms, shorter, name)
        kept = folder if answers is None else answers
        sats = teaching(master, data, seen, stage, folder=kept, seed=seed, progress=progress, name=name)
    return fit(
        student,
        data,
        encoding,
        stage,
        loss_terms=terms,
        teacher_sats=sats,
        checkpoint_dir=folder,
        seed=seed,
        progress=progress,
        name=name,
    )


def teaching(
    teacher: Network,
    data: Dataset,
    encoding: Encoding,
    stage: StageConfig,
    *,
    folder: str | Path | None = None,
    seed: int = 0,
    progress: Progress | None = None,
    name: str = "teacher",
) -> Telling:
    """What a stage asks its teacher through: a cache of its answers, or the teacher itself.

    Live where the stage says so, and where the loss needs what is not kept: features or membranes.

    Args:
        teacher, data, encoding, stage, folder, seed, progress, name: As :func:`teacher_sats`.

    Raises:
        TrainingError: the teacher cannot tell what the loss needs.
        FileError: the folder cannot be written.
    """
    wanted = losses.of_teacher(losses.parse_loss(stage.loss))
    check_teacher(teacher, wanted, f"{name}: loss {stage.loss}")
    if stage.teacher == "cached" and wanted <= KEPT:
        return teacher_sats(teacher, data, encoding, stage, folder=folder, seed=seed, progress=progress, name=name)
    feed = training_feed(data.train, encoding, stage, teacher.classes, seed)
    return LiveTeacher(teacher, feed, wanted - {"sat"}, f"live {_key(teacher, data, feed, wanted - {'sat'})}")


def teacher_sats(
    teacher: Network,
    data: Dataset,
    encoding: Encoding,
    stage: StageConfig,
    *,
    folder: str | Path | None = None,
    seed: int = 0,
    progress: Progress | None = None,
    name: str = "teacher",
) -> SatCache:
    """What the teacher says about every view of the training images: its SATs, and logits where the loss needs them.

    They come from the folder's cache when it is of the same teacher, images and views, and holds the same.

    Args:
        teacher: Run in evaluation mode, without gradients.
        data: Its training split is used.
        encoding: What the teacher sees.
        stage: Gives the views (``views``, ``shift``, ``flip``, ``mix``), and by its loss what is kept.
        folder: Holds ``teacher_sat.npz``; None keeps the cache in memory.
        seed: Seed of the views.
        progress: Called with ``teacher sat`` events.
        name: The stage's name in them.

    Raises:
        TrainingError: the teacher's output is not spikes, or the loss needs what is not kept.
        FileError: the folder cannot be written.
    """
    feed, tell = training_feed(data.train, encoding, stage, teacher.classes, seed), progress or silent
    want = losses.of_teacher(losses.parse_loss(stage.loss)) - {"sat"}
    if not want <= KEPT:
        raise TrainingError(
            "the teacher's answers to this loss are not kept",
            where=f"{name}: loss {stage.loss}",
            got=", ".join(sorted(want - KEPT)),
            allowed=", ".join(sorted(KEPT)),
            next_step="ask the teacher live: distill_stage and teaching do where they must",
        )

    def run(view: int) -> Iterator[satcache.Batch]:
        def tick(done: int, total: int) -> None:
            tell(ProgressEvent(name, "teacher sat", done, total, view + 1, stage.views))

        return ((batch.indices, told) for batch, told in all_told(teacher, feed, want, view, tick))

    path = Path(folder) / SAT_FILE if folder is not None else None
    key, population = _key(teacher, data, feed, want), getattr(teacher, "population", 1)
    return satcache.load_or_compute(path, stage.views, len(feed), key, run, population)


def _key(teacher: Network, data: Dataset, feed: Feed, want: frozenset[str]) -> str:
    """Digest of all a teacher's answers depend on."""
    parts = {
        **key_parts(teacher),
        "images": split_digest(data.train),
        "encoding": asdict(feed.encoding),
        "views": asdict(feed.views),
    }
    if feed.mixing.strength:
        parts["mixing"] = asdict(feed.mixing)
    return satcache.key_of({**parts, "beside the SAT": sorted(want)} if want else parts)


@dataclass(frozen=True)
class RouteResult:
    """The figures of a route.

    Args:
        assistant: None where the route has none.
        student: The student's.
    """

    assistant: FitResult | None
    student: FitResult


def distill_route(
    teacher: Network,
    assistant: SpikingNetwork,
    student: SpikingNetwork,
    data: Dataset,
    config: Config,
    *,
    out: str | Path | None = None,
    progress: Progress | None = None,
) -> RouteResult:
    """Teacher -> assistant -> student, or teacher -> student, as ``config.distill.route`` says; in place.

    With ``config.distill.start`` the student starts as part of the trained assistant.

    Args:
        teacher: Trained; frozen here.
        assistant: Trained in place on the teacher; left alone on the straight route.
        student: Trained in place on the assistant, or on the teacher.
        data: The data set.
        config: Stages, encoding, seed and route.
        out: Folder; the stages keep their state in ``assistant`` and ``student`` below it.
        progress: Called with :class:`ProgressEvent`.

    Returns:
        Both stages' figures.

    Raises:
        TrainingError, ConfigError, CheckpointError, FileError: as :func:`distill_stage`.
    """
    encoding = config.make_encoding(data.levels)

    def stage(name: str, pupil: SpikingNetwork, master: Network) -> FitResult:
        folder = Path(out) / name if out is not None else None
        how: StageConfig = getattr(config.training, name)
        return distill_stage(
            pupil, master, data, encoding, how, folder=folder, seed=config.seed, progress=progress, name=name
        )

    if config.distill.route == "teacher-student":
        return RouteResult(None, stage("student", student, teacher))
    started = config.distill.start == "assistant"
    if started:
        check_narrower(student, assistant)  # before the assistant is trained
    first = stage("assistant", assistant, teacher)
    if started:
        inherit(student, assistant, data, encoding=encoding)
    return RouteResult(first, stage("student", student, assistant))


def _check_classes(student: Network, teacher: Network, name: str) -> None:
    if student.classes != teacher.classes:
        raise TrainingError(
            "teacher and student have different numbers of classes",
            where=name,
            got=f"teacher {teacher.classes}, student {student.classes}",
            allowed="the same number of output neurons",
            next_step="give both specs the same last number",
        )
