"""The training loop: any network, any loss terms, with or without a teacher's cached SAT.

Deterministic by seed: batch order and views depend on (seed, epoch), torch's generator is set from (seed, epoch) at
the start of each epoch, and the learning rate on the step alone. So a run killed after any epoch and started again ends
with the same weights, bit for bit, on the same machine with the same number of threads.
"""

from __future__ import annotations

import dataclasses
import math
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from neurokd import checkpoint, losses, parallel, resume
from neurokd.config_parts import StageConfig, stage_text
from neurokd.data import Dataset
from neurokd.device import on_device
from neurokd.encoding import Encoding
from neurokd.feed import Batch, Feed, Network, accuracy, data_digest, run_outputs, training_feed
from neurokd.loop_checks import check_encoding, check_loss, check_teacher, check_weights
from neurokd.memory import keep_pages
from neurokd.precision import precision_of
from neurokd.progress import Progress, ProgressEvent, silent
from neurokd.resume import EpochRecord, State
from neurokd.schedule import learning_rate, make_optimizer
from neurokd.shares import moved, placed, share_of, whole
from neurokd.teachers import Telling
from neurokd.threads import suited_threads


@dataclass(frozen=True)
class FitResult:
    """What a stage gave.

    Args:
        accuracy: Test accuracy in percent, read once, with the best epoch's weights.
        validation: Validation accuracy of that epoch in percent.
        best_epoch: From 1.
        history: One record an epoch.
        seconds: Wall time of all epochs, also those before a kill.
        stopped_early: Whether ``patience`` ended it.
    """

    accuracy: float
    validation: float
    best_epoch: int
    history: tuple[EpochRecord, ...]
    seconds: float
    stopped_early: bool


def fit(
    network: Network,
    data: Dataset,
    encoding: Encoding,
    stage: StageConfig,
    *,
    loss_terms: Sequence[losses.LossTerm],
    teacher_sats: Telling | None = None,
    checkpoint_dir: str | Path | None = None,
    seed: int = 0,
    progress: Progress | None = None,
    name: str = "train",
) -> FitResult:
    """Train a network in place; it ends with the best epoch's weights, in evaluation mode.

    Args:
        network: The network; its weights now are the starting point.
        data: Train, validation and test splits. Validation chooses the epoch; test is read once, at the end.
        encoding: How images become spikes.
        stage: Epochs, batch, learning rate, augmentation. Its ``loss`` text is not read here.
        loss_terms: What is minimized.
        teacher_sats: What the teacher is asked through (:func:`neurokd.distill.teaching`): a cache of its answers for
            the training split with at least the stage's views, or the teacher itself.
        checkpoint_dir: Folder for the run's state, written after each epoch; a state of the same run there is
            taken up. None keeps nothing.
        seed: Seed of batch order, views and whatever the network draws.
        progress: Called with :class:`ProgressEvent`.
        name: The stage's name in events and errors.

    Returns:
        The figures of the stage.

    Raises:
        TrainingError: a loss or weight that is not a number (the state of the last whole epoch stays), or networks,
            data and teacher that do not fit each other.
        CheckpointError: the folder holds the state of another run, or a damaged one.
        FileError: the folder cannot be written.
    """
    return _Run(
        network, data, encoding, stage, tuple(loss_terms), teacher_sats, checkpoint_dir, seed, progress or silent, name
    ).go()


@dataclass
class _Run:
    """One call of :func:`fit`."""

    network: Network
    data: Dataset
    encoding: Encoding
    stage: StageConfig
    terms: tuple[losses.LossTerm, ...]
    teacher: Telling | None
    folder: str | Path | None
    seed: int
    progress: Progress
    name: str

    def __post_init__(self) -> None:
        self.feed = training_feed(self.data.train, self.encoding, self.stage, self.network.classes, self.seed)
        self.validation = Feed(self.data.validation, self.encoding)
        self.optimizer = make_optimizer(self.network, self.stage)
        losses.check_schedules(self.terms, self.stage.epochs, self.name)
        check_encoding(self.network, self.encoding, self.name)
        check_teacher(self.teacher, self.feed, self.network.classes, self.terms, self.name)
        self.alignments = self._make_alignments()
        self.identity = self._identity()

    def go(self) -> FitResult:
        keep_pages()
        with (
            suited_threads(self.network.spec, self.stage.batch, self.encoding.steps),
            on_device(self.network) as self.device,
            precision_of(self.network, self.stage.precision),
        ):
            if self.alignments is not None:
                self.alignments.to(self.device)
            return self._go()

    def _go(self) -> FitResult:
        state = self._start()
        while len(state.history) < self.stage.epochs and not self._patience_is_over(state):
            state = self._epoch(state)
            self._save(state)
        self.optimizer.zero_grad(set_to_none=True)
        self.network.load_state_dict(state.best)
        self.network.eval()
        parallel.check_equal(checkpoint.digest(resume.copy_weights(self.network)), "weights")
        if state.test is None:
            state = dataclasses.replace(state, test=self._test())
            self._save(state)
        return self._result(state)

    def _start(self) -> State:
        found = resume.load(self.folder, self.identity) if self.folder is not None else None
        if found is None:
            return State(resume.copy_weights(self.network), {}, resume.copy_weights(self.network))
        self.network.load_state_dict(found.weights)
        if self.alignments is not None:
            self.alignments.load_state_dict(found.alignments)
        resume.put_moments(self.optimizer, found.moments)
        return found

    def _epoch(self, state: State) -> State:
        start, epoch = time.perf_counter(), len(state.history)
        loss, parts = self._train_epoch(epoch)
        check_weights(self.network, f"{self.name}, epoch {epoch + 1}", self._kept(epoch))
        validation = accuracy(self.network, self.validation)
        record = EpochRecord(epoch + 1, loss, parts, validation, time.perf_counter() - start)
        self._tell("epoch", epoch + 1, self.stage.epochs, epoch, loss, validation)
        weights = resume.copy_weights(self.network)
        history = (*state.history, record)
        beside = {} if self.alignments is None else resume.copy_weights(self.alignments)
        after = State(weights, resume.moments_of(self.optimizer), weights, history, alignments=beside)
        return after if after.best_record is record else dataclasses.replace(after, best=state.best)

    def _train_epoch(self, epoch: int) -> tuple[float, dict[str, float]]:
        self.network.train()
        sums: dict[str, float] = {}
        count = self.feed.batch_count(self.stage.batch)
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(_mixed(self.seed, epoch))
            for done, batch in enumerate(self.feed.train_batches(self.stage.batch, self.seed, epoch)):
                self._set_rate(epoch * count + done, self.stage.epochs * count)
                for key, value in self._step(batch, epoch, done, count).items():
                    sums[key] = sums.get(key, 0.0) + value
                self._tell("train", done + 1, count, epoch, sums[""] / (done + 1), None)
        means = {key: value / count for key, value in sums.items()}
        return means.pop(""), means

    def _step(self, batch: Batch, epoch: int, number: int, count: int) -> dict[str, float]:
        """One optimizer step; the loss under the empty name, its terms under theirs."""
        teacher = None
        if self.teacher is not None:
            teacher = self.teacher.told(batch.indices, self.feed.views.of_epoch(epoch))
        batch, teacher = placed(batch, self.device), moved(teacher, self.device)
        share = share_of(batch, self.encoding)
        student = whole(
            run_outputs(self.network, share, self.encoding, losses.of_student(self.terms)), len(batch.indices)
        )
        moment = losses.Moment(epoch + number / count, self.stage.epochs)
        total, parts = losses.evaluate(
            self.terms, student, teacher, batch.labels, moment=moment, alignments=self.alignments
        )
        values = {"": float(total.detach()), **{key: float(value) for key, value in parts.items()}}
        check_loss(values, f"{self.name}, epoch {epoch + 1}, batch {number + 1}", lambda: self._kept(epoch))
        self.optimizer.zero_grad(set_to_none=True)
        total.backward()  # type: ignore[no-untyped-call]
        parallel.sum_gradients(list(self.network.parameters()))
        self.optimizer.step()
        return values

    def _make_alignments(self) -> losses.Alignments | None:
        """What losses between layers learn beside the network; the optimizer trains it too."""
        if self.teacher is None or "layers" not in losses.of_teacher(self.terms):
            return None
        own = {block.name: block.out_shape for block in self.network.spec.blocks()}
        made = losses.alignments_for(self.terms, own, self.teacher.shapes, self.seed)
        if made is not None:
            group = {"params": list(made.parameters()), "weight_decay": self.stage.weight_decay}
            self.optimizer.add_param_group(group)
        return made

    def _kept(self, epoch: int) -> str:
        if self.folder is None or epoch == 0:
            return "no checkpoint was written yet"
        return f"the state after epoch {epoch} is kept in {Path(self.folder) / resume.FILE}"

    def _patience_is_over(self, state: State) -> bool:
        reached = [record.epoch for record in state.history if record.validation == state.best_record.validation]
        return 0 < self.stage.patience <= len(state.history) - min(reached, default=0)

    def _test(self) -> float:
        tested = accuracy(self.network, Feed(self.data.test, self.encoding))
        self._tell("test", 1, 1, -1, None, tested)
        return tested

    def _save(self, state: State) -> None:
        if self.folder is not None and parallel.rank() == 0:
            resume.save(self.folder, state, self.network, self.identity)

    def _result(self, state: State) -> FitResult:
        best, seconds = state.best_record, sum(record.seconds for record in state.history)
        early = len(state.history) < self.stage.epochs
        tested = state.test if state.test is not None else math.nan
        return FitResult(tested, best.validation, best.epoch, state.history, seconds, early)

    def _set_rate(self, step: int, steps: int) -> None:
        rate = learning_rate(step, steps, self.stage.lr)
        for group in self.optimizer.param_groups:
            group["lr"] = rate

    def _identity(self) -> dict[str, Any]:
        """What must be equal for a state to be taken up."""
        return {
            "network": self.network.spec_text,
            "start": checkpoint.digest(self.network.state_dict()),
            "data": data_digest(self.data),
            "encoding": str(self.encoding),
            "stage": stage_text(self.stage),
            "loss": losses.format_loss(self.terms),
            "teacher": self.teacher.key if self.teacher is not None else "",
            "seed": self.seed,
        }

    def _tell(self, what: str, done: int, total: int, epoch: int, loss: float | None, reached: float | None) -> None:
        self.progress(ProgressEvent(self.name, what, done, total, epoch + 1, self.stage.epochs, loss, reached))


def _mixed(seed: int, epoch: int) -> int:
    """One generator seed from two; distinct for every epoch below 2**20."""
    return ((seed << 20) + epoch) % 2**63
