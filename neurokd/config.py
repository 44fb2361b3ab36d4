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

from deploy.errors import ConfigError, FileError, SpecError
from deploy.files import atomic_path
from neurokd.encoding import Encoding
from neurokd.methods import SCALE_SEARCHES, UNTRAINED, learned_from, loss_text, widths_from
from neurokd.spec import NetworkSpec, check_population
from neurokd.tables import between, moved, not_empty, one_of, positive, read_table, set_dotted

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

ENCODINGS = ("direct", "rate", "latency")
NEURONS = ("lif", "cuba")
SURROGATES = ("fast_sigmoid", "atan", "sigmoid", "triangular", "rectangular", "straight_through")
ROLES = ("teacher", "assistant", "student")
SHAPES = {"digits": (1, 8, 8), "mnist": (1, 28, 28), "fashion-mnist": (1, 28, 28), "cifar10": (3, 32, 32)}
CLASSES = 10
DATA_SETS = tuple(SHAPES)
TEACHERS = ("cached", "live")
PRECISIONS = ("float32", "bfloat16")
ROUTES = ("teacher-assistant-student", "teacher-student")


@dataclass(frozen=True)
class EncodingConfig:
    """How an image becomes input spikes.

    Args:
        kind: ``direct`` (graded integers, the same at every step), ``rate`` (seeded Bernoulli) or ``latency``.
        bits: Grey levels are 0 .. 2**bits - 1, 1..8 bits. Direct spikes carry them; rate and latency spikes are binary
            and made from them.
        steps: Time steps T a sample lasts.
    """

    kind: str = "direct"
    bits: int = 8
    steps: int = 8

    def __post_init__(self) -> None:
        one_of("kind", self.kind, ENCODINGS)
        between("bits", self.bits, 1, 8)
        between("steps", self.steps, 1, 1024)

    @property
    def input_bits(self) -> int:
        """Bits of one input spike: the ``input_bits`` to build networks with."""
        return self.bits if self.kind == "direct" else 1


@dataclass(frozen=True)
class NetworksConfig:
    """The three networks as spec strings (``784-512-10``) and what they have in common.

    Args:
        teacher, assistant, student: Specs, see :data:`neurokd.spec_layers.GRAMMAR`.
        neuron: ``lif`` or ``cuba``.
        beta: Membrane decay a step.
        alpha: Current decay a step (``cuba`` only).
        threshold: Firing threshold.
        norm: Whether a batch norm follows each synapse in training; it folds away at export.
        surrogate: Name of the surrogate gradient.
        population: Output neurons a class, a power of two: ten classes need specs that end in ``10 * population``.
        learn_beta: Whether each layer's beta is trained (on the chip's grid of 1/4096).
        learn_threshold: Whether each layer's threshold is trained.
    """

    teacher: str
    assistant: str
    student: str
    neuron: str = "lif"
    beta: float = 0.9
    alpha: float = 0.75
    threshold: float = 1.0
    norm: bool = True
    surrogate: str = "triangular"
    population: int = 1
    learn_beta: bool = False
    learn_threshold: bool = False

    def __post_init__(self) -> None:
        for role in ROLES:
            check_population(self.spec(role).classes, self.population)
        one_of("neuron", self.neuron, NEURONS)
        one_of("surrogate", self.surrogate, SURROGATES)
        between("beta", self.beta, 0.0, 1.0)
        between("alpha", self.alpha, 0.0, 1.0)
        positive("threshold", self.threshold)

    def spec(self, role: str) -> NetworkSpec:
        """The parsed spec of ``teacher``, ``assistant`` or ``student``.

        Raises:
            ConfigError: it cannot be read; ``where`` names the role and the field.
        """
        text = getattr(self, role)
        not_empty(role, text)
        try:
            return NetworkSpec.parse(text)
        except SpecError as error:
            raise moved(error, f"{role}: {error.where}" if error.where else role) from error

    def options(self) -> dict[str, Any]:
        """The keyword arguments for ``neurokd.build`` that all three networks share."""
        shared = (
            "neuron", "beta", "alpha", "threshold", "norm", "surrogate", "population", "learn_beta", "learn_threshold",
        )  # fmt: skip
        return {name: getattr(self, name) for name in shared}


@dataclass(frozen=True)
class StageConfig:
    """How one network is trained.

    Args:
        epochs: Passes over the training split, at most.
        batch: Images in a batch.
        lr: Peak learning rate of AdamW under the one-cycle schedule.
        weight_decay: Decoupled weight decay.
        patience: Epochs without a better validation accuracy after which training stops; 0 never stops early.
        loss: Loss text (a preset such as ``sat-ce``, or a weighted sum); a stage without a teacher uses ``ce``.
        shift: Augmentation: each view moves the image by up to this many pixels both ways.
        flip: Augmentation: each view may mirror the image left to right.
        views: Number of fixed views of an image. View 0 is the image itself; epoch e shows view e mod ``views``.
        mix: Augmentation: how strongly each view but view 0 blends the image and its label with another's, 0 (not) to
            1 (up to half and half); see :mod:`neurokd.mixing`.
        teacher: ``cached``: the teacher answers once for each view, and its answers are kept; ``live``: it is run on
            each batch. What cannot be kept (features, membranes) is asked live in any case.
        precision: ``float32``, or ``bfloat16``: synapses of layers that see spikes compute in half the width while they
            train; weights, membranes and evaluation stay float32. See :mod:`neurokd.precision`.
    """

    epochs: int = 20
    batch: int = 128
    lr: float = 2e-3
    weight_decay: float = 1e-4
    patience: int = 0
    loss: str = "ce"
    shift: int = 0
    flip: bool = False
    views: int = 1
    mix: float = 0.0
    teacher: str = "cached"
    precision: str = "float32"

    def __post_init__(self) -> None:
        one_of("teacher", self.teacher, TEACHERS)
        one_of("precision", self.precision, PRECISIONS)
        between("mix", self.mix, 0.0, 1.0)
        between("epochs", self.epochs, 1, 100_000)
        between("batch", self.batch, 2, 1_000_000)
        positive("lr", self.lr)
        between("weight_decay", self.weight_decay, 0.0, 1.0)
        between("patience", self.patience, 0, 100_000)
        not_empty("loss", self.loss)
        between("shift", self.shift, 0, 16)
        between("views", self.views, 1, 64)
        _views_fit(self)


#: Fields a stage has had from the first; later ones appear in :func:`stage_text` only where they are not the default.
_FIRST = ("epochs", "batch", "lr", "weight_decay", "patience", "loss", "shift", "flip", "views")


def stage_text(stage: StageConfig) -> str:
    """The stage as text, the same for the same training in every version: what a run's identity is made of."""
    shown = [f for f in dataclasses.fields(stage) if f.name in _FIRST or getattr(stage, f.name) != f.default]
    return f"StageConfig({', '.join(f'{f.name}={getattr(stage, f.name)!r}' for f in shown)})"


@dataclass(frozen=True)
class TrainingConfig:
    """One :class:`StageConfig` a network; the plain student trains as the student does, with ``ce`` as its loss."""

    teacher: StageConfig = field(default_factory=StageConfig)
    assistant: StageConfig = field(default_factory=lambda: StageConfig(loss="sat-ce"))
    student: StageConfig = field(default_factory=lambda: StageConfig(loss="sat-ce"))

    @property
    def plain(self) -> StageConfig:
        """The baseline's stage: the student's own, without a teacher."""
        return dataclasses.replace(self.student, loss="ce")


@dataclass(frozen=True)
class DistillConfig:
    """The way from teacher to student: through the assistant, or straight."""

    route: str = "teacher-assistant-student"

    def __post_init__(self) -> None:
        one_of("route", self.route, ROUTES)


@dataclass(frozen=True)
class QuantizeConfig:
    """Fine-tuning on the chip's integers.

    Args:
        epochs: Passes over the training split.
        batch: Images in a batch.
        lr: Peak learning rate.
        loss: Loss text, the SAT loss kept on; or one word: ``none`` (only round), ``ce``, ``sat``, ``sat-ce``.
        weight_bits: Bits of a synapse on the chip, 2..8.
        layer_bits: Other widths for some layers: ``dense1=8,dense2=4``.
        search: How a layer's scale is chosen: ``mse``, ``max`` or ``percentile``.
        power_of_two: Whether scales are powers of two.
        learn: What is learned beside weights and biases: of ``threshold,decays,scale``.
        float_epochs, fake_epochs: Epochs in floats and on the grid with float membranes before the exact ones.
        synops_budget, energy_budget: Share of the synops or modelled energy of the student without pruning that may be
            used; 0 asks for nothing.
    """

    epochs: int = 3
    batch: int = 128
    lr: float = 2e-4
    loss: str = "sat-ce"
    weight_bits: int = 8
    layer_bits: str = ""
    search: str = "mse"
    power_of_two: bool = False
    learn: str = ""
    float_epochs: int = 0
    fake_epochs: int = 0
    synops_budget: float = 0.0
    energy_budget: float = 0.0

    def __post_init__(self) -> None:
        widths_from(self.layer_bits)
        learned_from(self.learn)
        one_of("search", self.search, SCALE_SEARCHES)
        for name in ("float_epochs", "fake_epochs"):
            between(name, getattr(self, name), 0, 100_000)
        for name in ("synops_budget", "energy_budget"):
            between(name, getattr(self, name), 0.0, 1.0)
        if self.loss == UNTRAINED and (self.synops_budget or self.energy_budget):
            raise ConfigError(
                "a budget needs fine-tuning", where="loss", got=self.loss, allowed="a loss, such as sat-ce",
                next_step="pruned weights are missed until the others are trained; drop the budget, or choose a loss",
            )  # fmt: skip
        between("epochs", self.epochs, 1, 100_000)
        between("batch", self.batch, 2, 1_000_000)
        positive("lr", self.lr)
        not_empty("loss", self.loss)
        between("weight_bits", self.weight_bits, 2, 8)


@dataclass(frozen=True)
class LavaConfig:
    """How many test samples are replayed through Lava."""

    samples: int = 32

    def __post_init__(self) -> None:
        between("samples", self.samples, 1, 1_000_000)


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


def _views_fit(stage: StageConfig) -> None:
    if (stage.views > 1) != (stage.shift > 0 or stage.flip or stage.mix > 0):
        raise ConfigError(
            "views and augmentation do not fit together",
            where="views",
            got=f"views = {stage.views}, shift = {stage.shift}, flip = {stage.flip}, mix = {stage.mix}",
            allowed="views = 1 with none of them, or views > 1 with shift > 0, flip or mix > 0",
        )


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
