"""The stages of a run, each resumable, over one run folder: from images to a quantized, exported student.

    config.toml            everything needed to repeat the run
    stages/NAME.json       what a finished stage gave; a stage with one is not run again
    checkpoints/NAME.safetensors
    training/NAME/         state of a stage that is being trained; a killed run goes on from it

The chip side of a run (check, lower, simulate, verify, profile, report) is :mod:`neurokd.chip_stages`.
"""

from __future__ import annotations

import dataclasses
import shutil
import time
from collections.abc import Callable
from functools import cached_property
from pathlib import Path
from typing import Any, Final

from deploy.errors import CheckpointError, ConfigError
from deploy.files import read_json, write_json
from neurokd import checkpoint, losses
from neurokd.budget import budget_of, under_budget
from neurokd.calibrate import round_off
from neurokd.config import Config
from neurokd.config_parts import QuantizeConfig, StageConfig
from neurokd.data import Dataset, load
from neurokd.distill import distill_stage, teaching
from neurokd.encoding import Encoding
from neurokd.feed import Feed, accuracy
from neurokd.inherit import inherit
from neurokd.loop import FitResult, fit
from neurokd.methods import UNTRAINED, learned_from, loss_text, widths_from
from neurokd.network import SpikingNetwork, build
from neurokd.progress import Progress, silent
from neurokd.quantize import fine_tune
from neurokd.quantize import load as load_quantized
from neurokd.quantize import save as save_quantized
from neurokd.quantized import QuantizedNetwork

Facts = dict[str, Any]
AFTERWARDS: Final = ("export", "lower", "simulate", "verify")  # stages that a new quantized student makes void
TRAINING: Final = ("student_plain", "teacher", "assistant", "student", "quantized")


class Run:
    """A run folder and its configuration.

    Args:
        config: The experiment; ``config.out`` is the folder.
        progress: Called with :class:`ProgressEvent`.

    Raises:
        ConfigError: the folder holds a run of another configuration; the difference is named.
        FileError: the folder cannot be written.
    """

    def __init__(self, config: Config, progress: Progress | None = None) -> None:
        config.check()
        self.config, self.progress = config, progress or silent
        self.folder = Path(config.out)
        kept = self.folder / "config.toml"
        if kept.exists():
            _require_same(Config.load(kept), config, kept)
        else:
            config.save(kept)

    @classmethod
    def open(cls, folder: str | Path, progress: Progress | None = None) -> Run:
        """The run that a folder holds.

        Raises:
            FileError, ConfigError: no ``config.toml`` there, or a damaged one.
        """
        config = Config.load(Path(folder) / "config.toml")
        return cls(dataclasses.replace(config, out=str(folder)), progress)

    @cached_property
    def data(self) -> Dataset:
        """The data set, read once."""
        config = self.config
        return load(config.data, config.data_root or None, validation=config.validation, seed=config.seed)

    @cached_property
    def encoding(self) -> Encoding:
        """How images become spikes."""
        return self.config.make_encoding(self.data.levels)

    def done(self, name: str) -> bool:
        """Whether a stage has finished."""
        return self._record(name).is_file()

    def facts(self, name: str) -> Facts:
        """What a finished stage gave.

        Raises:
            CheckpointError: it has not been run.
        """
        if not self.done(name):
            raise CheckpointError(
                f"the stage {name!r} has not been run",
                where=self.folder,
                got=", ".join(sorted(p.stem for p in (self.folder / "stages").glob("*.json"))) or "no finished stage",
                allowed=f"a run folder with the stage {name!r}",
                next_step=f"run `neurokd demo --out {self.folder}`, which goes on where the run stopped",
            )
        facts: Facts = read_json(self._record(name))
        return facts

    def stage(self, name: str, work: Callable[[], Facts]) -> Facts:
        """Run a stage unless it has finished; its facts are written last, so a killed stage is run again."""
        if not self.done(name):
            start = time.perf_counter()
            facts = work()
            facts.setdefault("seconds", time.perf_counter() - start)
            write_json(self._record(name), facts)
            shutil.rmtree(self.folder / "training" / name, ignore_errors=True)
        return self.facts(name)

    def forget(self, name: str) -> None:
        """Let a finished stage run again."""
        self._record(name).unlink(missing_ok=True)

    def _record(self, name: str) -> Path:
        return self.folder / "stages" / f"{name}.json"

    def checkpoint(self, name: str) -> Path:
        """Where a stage keeps its network."""
        return self.folder / "checkpoints" / f"{name}.safetensors"

    def work_folder(self, name: str) -> Path:
        """Where a stage keeps its state while it is being trained."""
        return self.folder / "training" / name

    def network(self, name: str) -> SpikingNetwork:
        """The float network of a finished stage."""
        self.facts(name)
        return checkpoint.load(self.checkpoint(name))

    def quantized(self) -> QuantizedNetwork:
        """The quantized student."""
        self.facts("quantized")
        return load_quantized(self.checkpoint("quantized"))

    def fresh(self, role: str) -> SpikingNetwork:
        """An untrained network of a role, the same for the same seed."""
        return build(self.config.networks.spec(role), **self.config.network_options())

    def save(self, name: str, network: SpikingNetwork, result: FitResult) -> Facts:
        """Write a stage's network and give its facts."""
        facts = {
            "accuracy": result.accuracy,
            "validation": result.validation,
            "best_epoch": result.best_epoch,
            "epochs": len(result.history),
            "seconds": result.seconds,
            "spec": network.spec_text,
            "parameters": network.spec.parameters(),
        }
        checkpoint.save(self.checkpoint(name), network, facts)
        return facts


def _require_same(kept: Config, given: Config, path: Path) -> None:
    """Same experiment; where the folder and the data lie may change."""
    old, new = kept.to_dict(), given.to_dict()
    keys = old.keys() - {"out", "data_root"}
    changed = [f"{key}: {old[key]!r} there, {new[key]!r} now" for key in sorted(keys) if old[key] != new[key]]
    if changed:
        raise ConfigError(
            "the folder holds a run of another configuration",
            where=path,
            got="; ".join(changed)[:600],
            allowed="the configuration the run was started with",
            next_step="choose another --out, or delete the folder to start again",
        )


def train_plain(run: Run) -> Facts:
    """The student's network trained on labels alone: the baseline."""
    return run.stage("student_plain", lambda: _train(run, "student_plain", "student", run.config.training.plain))


def train_teacher(run: Run) -> Facts:
    """The teacher, trained on labels."""
    return run.stage("teacher", lambda: _train(run, "teacher", "teacher", run.config.training.teacher))


def _train(run: Run, name: str, role: str, stage: StageConfig) -> Facts:
    network = run.fresh(role)
    result = fit(
        network, run.data, run.encoding, stage, loss_terms=losses.parse_loss(stage.loss),
        checkpoint_dir=run.work_folder(name), seed=run.config.seed, progress=run.progress, name=name,
    )  # fmt: skip
    return run.save(name, network, result)


def distil_assistant(run: Run) -> Facts:
    """The assistant (TA), distilled from the teacher."""
    return run.stage("assistant", lambda: _distil(run, "assistant", "teacher"))


def distil_student(run: Run) -> Facts:
    """The student, distilled from the assistant, or from the teacher where the route is straight."""
    return run.stage("student", lambda: _distil(run, "student", master_of(run)))


def master_of(run: Run) -> str:
    """Whose SAT the student learns from."""
    return "teacher" if run.config.distill.route == "teacher-student" else "assistant"


def _distil(run: Run, name: str, master: str) -> Facts:
    network = run.fresh(name)
    if name == "student" and run.config.distill.start == "assistant":
        inherit(network, run.network("assistant"), run.data, encoding=run.encoding)
    result = distill_stage(
        network, run.network(master), run.data, run.encoding, getattr(run.config.training, name),
        folder=run.work_folder(name), seed=run.config.seed, progress=run.progress, name=name,
    )  # fmt: skip
    return run.save(name, network, result)


def quantize_student(run: Run) -> Facts:
    """The student on the chip's integers, fine-tuned there with the SAT loss kept on."""
    return run.stage("quantized", lambda: _quantize(run))


def _quantize(run: Run) -> Facts:
    own, student = run.config.quantize, run.network("student")
    widths = {layer.name: own.weight_bits for layer in student.spiking_layers()} | widths_from(own.layer_bits)
    grids: dict[str, Any] = {
        "chip": run.config.chip, "weight_bits": widths, "search": own.search, "power_of_two": own.power_of_two,
    }  # fmt: skip
    network, facts = _rounded(run, student, grids) if own.loss == UNTRAINED else _tuned(run, student, grids)
    save_quantized(run.checkpoint("quantized"), network)
    return {
        **facts,
        "weight_bits": own.weight_bits,
        "grids": {name: grid.plain() for name, grid in network.grids.items()},
    }


def _rounded(run: Run, student: SpikingNetwork, grids: dict[str, Any]) -> tuple[QuantizedNetwork, Facts]:
    """Post-training quantization."""
    start = time.perf_counter()
    network = round_off(student, run.data, run.encoding, **grids)
    reached = {
        name: accuracy(network, Feed(split, run.encoding))
        for name, split in (("accuracy", run.data.test), ("validation", run.data.validation))
    }
    return network, {**reached, "epochs": 0, "seconds": time.perf_counter() - start}


def _tuned(run: Run, student: SpikingNetwork, grids: dict[str, Any]) -> tuple[QuantizedNetwork, Facts]:
    config, own, stage = run.config, run.config.quantize, quantize_stage(run.config)
    folder, sats = run.work_folder("quantized"), None
    if "teacher" in losses.needs(losses.parse_loss(stage.loss)):
        sats = teaching(
            run.network(master_of(run)), run.data, run.encoding, stage, folder=folder, seed=config.seed,
            progress=run.progress, name="quantized",
        )  # fmt: skip
    how: dict[str, Any] = {
        "teacher_sats": sats, "learn": learned_from(own.learn), "float_epochs": own.float_epochs,
        "fake_epochs": own.fake_epochs, "checkpoint_dir": folder, "seed": config.seed, "progress": run.progress,
    }  # fmt: skip
    budget = budget_of(own.synops_budget or None, own.energy_budget or None)
    if budget is None:
        network, result = fine_tune(student, run.data, run.encoding, stage, **grids, **how)
        return network, {
            "accuracy": result.accuracy, "validation": result.validation, "epochs": len(result.history),
            "seconds": result.seconds,
        }  # fmt: skip
    found = under_budget(student, run.data, run.encoding, stage, budget, grids=grids, **how)
    return found.network, {
        "accuracy": found.accuracy, "validation": found.validation, "epochs": stage.epochs, "budget": budget.what,
        "share": budget.share, "start": found.start, "limit": found.limit, "won": found.how,
        "tried": [dataclasses.asdict(one) for one in found.tried], "spec": found.network.spec_text,
        "parameters": found.network.spec.parameters(),
    }  # fmt: skip


def requantize(run: Run, own: QuantizeConfig) -> Run:
    """The run with another quantization: its trained networks stay, what came after them is done again."""
    if own == run.config.quantize:
        return run
    for name in ("quantized", *AFTERWARDS):
        run.forget(name)
    shutil.rmtree(run.work_folder("quantized"), ignore_errors=True)
    config = dataclasses.replace(run.config, quantize=own)
    config.save(run.folder / "config.toml")
    return Run(config, run.progress)


def quantize_stage(config: Config) -> StageConfig:
    """Fine-tuning sees the same views of the images as the student's training did."""
    own = config.quantize
    return dataclasses.replace(
        config.training.student, epochs=own.epochs, batch=own.batch, lr=own.lr, loss=loss_text(own.loss),
        weight_decay=0.0, patience=0,
    )  # fmt: skip
