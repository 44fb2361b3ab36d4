"""The configuration of one experiment: frozen, validated dataclasses, TOML in and TOML out.

A :class:`Config` holds everything needed to repeat a run. It is written as ``config.toml`` into the run folder and
reads back equal. Unknown keys and values of another type are refused by name, with the nearest known key.
This module does not import torch.
"""

from __future__ import annotations

import dataclasses
import math
import sys
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import tomli_w

from deploy.errors import ConfigError, FileError
from deploy.files import atomic_path
from neurokd.config_parts import (
    CLASSES,
    DATA_SETS,
    ROLES,
    SHAPES,
    DistillConfig,
    EncodingConfig,
    LavaConfig,
    NetworksConfig,
    QuantizeConfig,
    TrainingConfig,
)
from neurokd.encoding import Encoding
from neurokd.methods import loss_text
from neurokd.tables import between, moved, not_empty, one_of, read_table, set_dotted

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib


@dataclass(frozen=True)
class Config:
    """A whole experiment; see the parts for their options.

    Args:
        data: One of ``digits``, ``mnist``, ``fashion-mnist``, ``cifar10``.
        data_root: Folder with the data files; empty for the embedded digits.
        validation: Share of the training images held out for validation, above 0 and below 1.
        seed: Seed of everything random, 0 .. 2**32 - 1.
        out: Run folder.
        chip: Name of a chip file in ``hardware_configs``, or a path to one.
    """

    data: str
    networks: NetworksConfig
    data_root: str = ""
    validation: float = 0.1
    seed: int = 0
    out: str = "runs/run"
    chip: str = "loihi2"
    encoding: EncodingConfig = field(default_factory=EncodingConfig)
    training: TrainingConfig = field(default_factory=TrainingConfig)
    distill: DistillConfig = field(default_factory=DistillConfig)
    quantize: QuantizeConfig = field(default_factory=QuantizeConfig)
    lava: LavaConfig = field(default_factory=LavaConfig)

    def __post_init__(self) -> None:
        one_of("data", self.data, DATA_SETS)
        between("validation", self.validation, 0.001, 0.9)
        between("seed", self.seed, 0, 2**32 - 1)
        not_empty("out", self.out)
        not_empty("chip", self.chip)
        for role in ROLES:
            _fits_data(self.networks, role, self.data)
        if self.distill.start == "assistant":
            _can_start_as_assistant(self.networks)

    @classmethod
    def default(cls, data: str = "digits") -> Config:
        """The tuned configuration for one data set.

        Raises:
            ConfigError: no such data set.
        """
        from neurokd.recipes import RECIPES

        one_of("data", data, DATA_SETS)
        return cls.from_dict({"data": data, "out": f"runs/{data}", **RECIPES[data]})

    @classmethod
    def from_dict(cls, table: Mapping[str, Any]) -> Config:
        """Build from nested tables; every key must be known and of the declared type.

        Raises:
            ConfigError: unknown or missing key, value of another type or out of range.
        """
        return read_table(cls, table)

    @classmethod
    def from_toml(cls, text: str, where: str = "") -> Config:
        """Build from TOML text.

        Raises:
            ConfigError: not TOML, or as :meth:`from_dict`.
        """
        try:
            table = tomllib.loads(text)
        except tomllib.TOMLDecodeError as error:
            raise ConfigError("the configuration is not TOML", where=where, got=error, allowed="TOML 1.0") from error
        try:
            return cls.from_dict(table)
        except ConfigError as error:
            raise moved(error, f"{where}: {error.where}" if where else error.where) from error

    @classmethod
    def load(cls, path: str | Path) -> Config:
        """Read ``config.toml``.

        Raises:
            FileError: missing or unreadable.
            ConfigError: as :meth:`from_toml`.
        """
        try:
            text = Path(path).read_text(encoding="utf-8")
        except OSError as error:
            raise FileError(
                "cannot read the configuration", where=path, got=error.strerror or error, allowed="a readable TOML file"
            ) from error
        except UnicodeDecodeError as error:
            raise ConfigError("the configuration is not TOML", where=path, got=error, allowed="UTF-8 text") from error
        return cls.from_toml(text, str(path))

    def to_dict(self) -> dict[str, Any]:
        """Nested plain tables; :meth:`from_dict` gives an equal Config back."""
        return dataclasses.asdict(self)

    def to_toml(self) -> str:
        """TOML text; :meth:`from_toml` gives an equal Config back."""
        return tomli_w.dumps(self.to_dict())

    def save(self, path: str | Path) -> None:
        """Write the TOML text atomically.

        Raises:
            FileError: the folder cannot be written.
        """
        with atomic_path(path) as temporary:
            temporary.write_text(self.to_toml(), encoding="utf-8")

    def make_encoding(self, raw_levels: int) -> Encoding:
        """The encoder for images of raw values ``0 .. raw_levels`` (``Dataset.levels``), with this seed."""
        kind: Any = self.encoding.kind
        return Encoding(kind, self.encoding.bits, self.encoding.steps, self.seed, raw_levels)

    def network_options(self, seed: int | None = None) -> dict[str, Any]:
        """The keyword arguments for ``neurokd.build``: neuron, steps, input bits and seed."""
        encoding = {"steps": self.encoding.steps, "input_bits": self.encoding.input_bits}
        return {**self.networks.options(), **encoding, "seed": self.seed if seed is None else seed}

    def check(self) -> None:
        """Read what only later stages read (loss texts, the chip file), so that trouble shows before training.

        Raises:
            ConfigError: a loss text that cannot be read, a stage without a teacher whose loss needs one, or a weight
                that starts after the stage's last epoch.
            TrainingError: a window longer than the encoding's steps.
            ChipError, FileError: the chip file.
        """
        from deploy.chip import load_chip
        from neurokd.losses import check_schedules, check_windows, needs, parse_loss

        stages = {f"training.{role}.loss": getattr(self.training, role).loss for role in ROLES}
        for where, text in {**stages, "quantize.loss": loss_text(self.quantize.loss) or "ce"}.items():
            try:
                terms = parse_loss(text)
            except ConfigError as error:
                raise moved(error, f"{where}: {error.where}") from error
            if where == "training.teacher.loss" and "teacher" in needs(terms):
                raise ConfigError(
                    "the teacher's own loss needs a teacher", where=where, got=text, allowed="a loss on labels, as ce"
                )
            check_windows(terms, self.encoding.steps, where)
            if where in stages:
                check_schedules(terms, getattr(self.training, where.split(".")[1]).epochs, where)
        load_chip(self.chip)

    def override(self, changes: Mapping[str, Any]) -> Config:
        """A copy with dotted keys set: ``{"training.student.epochs": 5, "seed": 1}``.

        Raises:
            ConfigError: as :meth:`from_dict`.
        """
        table = self.to_dict()
        for key, value in changes.items():
            set_dotted(table, key, value)
        return self.from_dict(table)


def _can_start_as_assistant(networks: NetworksConfig) -> None:
    student, assistant = networks.spec("student"), networks.spec("assistant")
    if not student.narrows(assistant):
        raise ConfigError(
            "the student is not a narrower form of the assistant it should start from", where="distill.start",
            got=f"student {student}, assistant {assistant}",
            allowed="the same layers without groups, at most as many neurons or channels in each",
            next_step="choose such an assistant, or distill.start = fresh",
        )  # fmt: skip


def _fits_data(networks: NetworksConfig, role: str, data: str) -> None:
    spec, shape, classes = networks.spec(role), SHAPES[data], CLASSES * networks.population
    if spec.input_shape not in (shape, (math.prod(shape),)) or spec.classes != classes:
        channels, height, width = shape
        raise ConfigError(
            f"the {role} does not fit the data",
            where=f"networks.{role}",
            got=str(spec),
            allowed=f"{math.prod(shape)}-...-{classes} or {height}x{width}x{channels}-...-{classes} for {data}",
        )
