"""The tables of the poster as resumable jobs: the poster's experiment with our networks.

"Distilling Spikes" (Kushawaha, Kumar, Banerjee, Velmurugan) gives accuracies on three data sets, and no architecture,
encoding, step count or loss weights: those are our choices (:mod:`neurokd.recipes`). Each cell of its tables is
trained for each seed; a cell is one small JSON file that is not computed again, and a network a checkpoint below
``work``, so an interrupted grid goes on. A cell that fails leaves a ``.failed.json`` with the reason and is tried again
next time.
"""

from __future__ import annotations

import base64
import math
import warnings
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import MISSING, asdict, fields
from functools import cached_property
from pathlib import Path
from typing import Any, Final

import numpy as np
import torch

from deploy.errors import ConfigError, NeurokdError
from deploy.files import read_json, write_json
from neurokd import checkpoint, losses
from neurokd.config import Config
from neurokd.config_parts import EncodingConfig, NetworksConfig, StageConfig
from neurokd.data import Dataset, load
from neurokd.distill import distill_stage
from neurokd.encoding import Encoding
from neurokd.feed import Feed, run_layers
from neurokd.inherit import inherit
from neurokd.loop import FitResult, fit
from neurokd.network import SpikingNetwork, build, predict
from neurokd.progress import Progress, silent
from neurokd.recipes import OTHER_STUDENTS
from neurokd.reproduce_rows import PLAIN, ROWS, Job, Row, jobs, seeds_of
from neurokd.spec import NetworkSpec

RESULTS: Final = Path("benchmarks/results/reproduce")
Facts = dict[str, Any]


def cell_path(folder: Path, data: str, row: str, seed: int) -> Path:
    """Where a cell is kept."""
    return folder / f"{data}-{row}-s{seed}.json"


class OtherNetworkWarning(UserWarning):
    """A network that was trained again is not the one its cell describes."""


class Grid:
    """The networks and cells of one data set and seed.

    Args:
        config: Networks, stages, encoding; its seed is the cell's.
        work: Where checkpoints and training state are kept.
        cells: Where cells are kept.
        progress: Called with :class:`ProgressEvent`.
    """

    def __init__(self, config: Config, work: Path, cells: Path, progress: Progress | None = None) -> None:
        config.check()
        self.config, self.cells, self.progress = config, cells, progress or silent
        self.work = work / config.data / f"s{config.seed}"

    @cached_property
    def data(self) -> Dataset:
        """Read once."""
        config = self.config
        return load(config.data, config.data_root or None, validation=config.validation, seed=config.seed)

    @cached_property
    def encoding(self) -> Encoding:
        """How images become spikes."""
        return self.config.make_encoding(self.data.levels)

    def cell(self, row: Row) -> Path:
        """Where a row's cell is kept."""
        return cell_path(self.cells, self.config.data, row.name, self.config.seed)

    def finished(self, row: Row) -> bool:
        """Whether the cell is there and of this configuration.

        Raises:
            ConfigError: it is there, of another one.
        """
        if not self.cell(row).is_file():
            return False
        kept, wanted = _completed(read_json(self.cell(row))), self._setup(row)
        changed = [f"{key}: {kept.get(key)!r} there, {value!r} now" for key, value in wanted.items()
                   if kept.get(key) != value]  # fmt: skip
        if changed:
            raise ConfigError(
                "a cell of another configuration is in the way", where=self.cell(row), got="; ".join(changed)[:600],
                allowed="cells of the configuration that runs",
                next_step="choose another --out and --work, or delete the cell",
            )  # fmt: skip
        return True

    def left_out(self, row: Row) -> str:
        """Why a row makes no sense with these networks; empty where it does."""
        networks = self.config.networks
        if row.start and not networks.spec("student").narrows(networks.spec("assistant")):
            return f"{networks.student} is no narrower form of {networks.assistant}, and cannot start as a part of it"
        return ""

    def compute(self, row: Row) -> Facts:
        """Train the row's network, and write its cell.

        Raises:
            NeurokdError: whatever went wrong; the reason is kept beside the cell's place.
        """
        failed = self.cell(row).with_suffix(".failed.json")
        try:
            network, result = self._train(row)
            facts = self._facts(row, network, result)
        except NeurokdError as error:
            write_json(failed, {**self._setup(row), "error": error.fields()})
            raise
        write_json(self.cell(row), facts)
        failed.unlink(missing_ok=True)
        return facts

    def _checkpoint(self, name: str) -> Path:
        return self.work / f"{name}.safetensors"

    def _spec(self, row: Row) -> NetworkSpec:
        return NetworkSpec.parse(OTHER_STUDENTS[self.config.data]) if row.other else self.config.networks.spec(row.role)

    def _stage(self, row: Row) -> StageConfig:
        stage: StageConfig = getattr(self.config.training, row.role)
        return StageConfig(**{**asdict(stage), "loss": row.loss})

    def _setup(self, row: Row) -> Facts:
        """What a cell's figures depend on, but for its master's own setup."""
        return {
            "data": self.config.data, "row": row.name, "seed": self.config.seed, "loss": row.loss,
            "master": row.master, "spec": str(self._spec(row)),
            "networks": self.config.networks.options(), "encoding": asdict(self.config.encoding),
            "stage": asdict(self._stage(row)), **({"start": row.master} if row.start else {}),
        }  # fmt: skip

    def _train(self, row: Row) -> tuple[SpikingNetwork, FitResult]:
        network = build(self._spec(row), **self.config.network_options())
        folder, stage, name = self.work / row.name, self._stage(row), f"{self.config.data} {row.name}"
        if row.start:
            inherit(network, self.network(row.master), self.data, encoding=self.encoding)
        common: Facts = {"seed": self.config.seed, "progress": self.progress, "name": name}
        if row.master:
            result = distill_stage(
                network, self.network(row.master), self.data, self.encoding, stage, folder=folder,
                answers=self.answers(row.master), **common,
            )  # fmt: skip
        else:
            terms = losses.parse_loss(stage.loss)
            result = fit(network, self.data, self.encoding, stage, loss_terms=terms, checkpoint_dir=folder, **common)
        checkpoint.save(self._checkpoint(row.name), network, {"accuracy": result.accuracy})
        return network, result

    def network(self, name: str) -> SpikingNetwork:
        """The trained network of a row whose cell is there; trained again where that came without its checkpoint, as
        in a clone. Another kind of processor sums in another order and trains another network: a warning says so.

        Raises:
            CheckpointError: neither cell nor checkpoint is there.
        """
        row = next(row for row in ROWS if row.name == name)
        if self.cell(row).is_file() and not self._checkpoint(name).is_file():
            kept, again = read_json(self.cell(row))["accuracy"], self._train(row)[1].accuracy
            if not math.isclose(again, kept):  # the same answers, counted in another order
                told = f"{self.cell(row)}: trained again, the network reaches {again:.2f} %, not {kept:.2f} %"
                warnings.warn(told, OtherNetworkWarning, stacklevel=2)
        return checkpoint.load(self._checkpoint(name))

    def _reached(self, name: str) -> float | None:
        """Test accuracy of the network that taught, which may be another training than that of its cell."""
        extra: Facts = checkpoint.read_info(self._checkpoint(name))["extra"]
        return extra.get("accuracy")

    def answers(self, name: str) -> Path:
        """Where the answers of a row's network to the training images are kept, the same for all its pupils."""
        return self.work / f"answers of {name}"

    def _facts(self, row: Row, network: SpikingNetwork, result: FitResult) -> Facts:
        right, spikes = judged(network, Feed(self.data.test, self.encoding))
        plain = cell_path(self.cells, self.config.data, row.plain or PLAIN, self.config.seed)
        return {
            **self._setup(row),
            "table": list(row.tables),
            "accuracy": 100.0 * float(right.mean()),
            "plain_accuracy": read_json(plain)["accuracy"] if plain.is_file() else None,
            "master_accuracy": self._reached(row.master) if row.master else None,
            "parameters": network.spec.parameters(),
            "spikes_per_sample": spikes,
            "validation": result.validation,
            "best_epoch": result.best_epoch,
            "seconds": result.seconds,
            "right": base64.b85encode(np.packbits(right).tobytes()).decode(),
        }


#: What an option was before there was a name for it: cells of earlier versions lack the newer names.
_DEFAULTS: Final[dict[str, Facts]] = {
    "stage": asdict(StageConfig()),
    "encoding": asdict(EncodingConfig()),
    "networks": {one.name: one.default for one in fields(NetworksConfig) if one.default is not MISSING},
}


def _completed(kept: Facts) -> Facts:
    """A cell's facts with options it does not name at their defaults."""
    return {key: {**_DEFAULTS[key], **value} if key in _DEFAULTS else value for key, value in kept.items()}


def judged(network: SpikingNetwork, feed: Feed) -> tuple[np.ndarray[Any, np.dtype[np.bool_]], float]:
    """Which images of a split are predicted as labelled, bool ``[N]``, and all layers' spikes a sample."""
    right, spikes = [], 0.0
    network.eval()
    with torch.no_grad():
        for batch in feed.in_order():
            sat, layers = run_layers(network, batch, feed.encoding)
            right.append((predict(sat) == batch.labels).numpy())
            spikes += sum(float(layer.sum()) for layer in layers)
    return np.concatenate(right), spikes / len(feed)


def reproduce(
    table: str = "all",
    data: str = "all",
    seeds: int | None = None,
    *,
    make_config: Callable[[str, int], Config],
    work: str | Path = "runs/reproduce",
    out: str | Path = RESULTS,
    progress: Progress | None = None,
    tell: Callable[[str], None] = print,
) -> list[tuple[Job, NeurokdError]]:
    """Compute every missing cell of a grid.

    Args:
        table: ``1``, ``2``, ``3`` or ``all`` (with the rows of ours that see labels).
        data: A data set, or ``all``.
        seeds: Seeds 0 to ``seeds - 1``; without, :data:`neurokd.reproduce_rows.SEEDS`.
        make_config: Gives the configuration of a data set and seed.
        work: Folder for checkpoints and training state.
        out: Folder for the cells.
        progress: Called with :class:`ProgressEvent`.
        tell: Called with a line for each cell.

    Returns:
        The cells that failed, with the reason; a row whose master failed fails with it.

    Raises:
        ConfigError: an unknown table, set or number of seeds, or cells of another configuration.
    """
    return compute_missing(_on_grids(jobs(table, data, seeds), make_config, Path(work), Path(out), progress), tell)


def _on_grids(
    wanted: Iterable[Job], make_config: Callable[[str, int], Config], work: Path, out: Path, progress: Progress | None
) -> Iterator[tuple[Grid, Job]]:
    """Each job with its grid; one data set in memory at a time."""
    grids: dict[tuple[str, int], Grid] = {}
    for job in wanted:
        key = (job.data, job.seed)
        if key not in grids:
            grids = {key: Grid(make_config(*key), work, out, progress)}
        yield grids[key], job


def compute_missing(wanted: Iterable[tuple[Grid, Job]], tell: Callable[[str], None]) -> list[tuple[Job, NeurokdError]]:
    """Compute the cells that are not there, masters before their pupils.

    Returns:
        Those that failed, with the reason; a row whose master failed fails with it.

    Raises:
        ConfigError: cells of another configuration.
    """
    failed: list[tuple[Job, NeurokdError]] = []
    for grid, job in wanted:
        if grid.finished(job.row):
            continue
        if reason := grid.left_out(job.row):
            tell(f"{job.data} {job.row.name} seed {job.seed}: left out: {reason}")
            continue
        try:
            facts = grid.compute(job.row)
        except NeurokdError as error:
            failed.append((job, error))
            tell(f"{job.data} {job.row.name} seed {job.seed}: failed: {error.what}")
        else:
            tell(f"{job.data} {job.row.name} seed {job.seed}: {facts['accuracy']:.2f} %, {facts['seconds']:.0f} s")
    return failed


def read_cells(folder: Path, data: str, row: str) -> dict[int, Facts]:
    """The finished cells of a row, by seed."""
    found = (read_json(path) for path in sorted(folder.glob(f"{data}-{row}-s*.json")) if ".failed" not in path.name)
    return {facts["seed"]: facts for facts in found if facts["row"] == row}


def right_of(facts: Facts, images: int) -> np.ndarray[Any, np.dtype[np.bool_]]:
    """Which test images a cell's network was right on, bool ``[images]``."""
    packed = np.frombuffer(base64.b85decode(facts["right"]), np.uint8)
    return np.unpackbits(packed, count=images).astype(bool)


def missing(rows: Sequence[Row], cells: Path, data: str, seeds: int | None) -> list[str]:
    """Names of the cells that are not there yet."""
    wanted = ((row.name, seed) for row in rows for seed in seeds_of(data, seeds))
    return [f"{name} s{seed}" for name, seed in wanted if not cell_path(cells, data, name, seed).is_file()]
