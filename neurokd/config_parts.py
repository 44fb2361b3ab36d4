"""The parts of a configuration: frozen dataclasses that check themselves.

:class:`neurokd.config.Config` puts them together. This module does not import torch.
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass, field
from typing import Any

from deploy.errors import ConfigError, SpecError
from neurokd.methods import SCALE_SEARCHES, UNTRAINED, learned_from, widths_from
from neurokd.spec import NetworkSpec, check_population
from neurokd.tables import between, moved, not_empty, one_of, positive

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
STARTS = ("fresh", "assistant")


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
    """The way from teacher to student.

    Args:
        route: Through the assistant, or straight.
        start: What the student's weights start as: ``fresh``, or the most useful part of the ``assistant``
            (:mod:`neurokd.inherit`), which then is of the student's kind, only wider.
    """

    route: str = "teacher-assistant-student"
    start: str = "fresh"

    def __post_init__(self) -> None:
        one_of("route", self.route, ROUTES)
        one_of("start", self.start, STARTS)
        if self.start == "assistant" and self.route == "teacher-student":
            raise ConfigError(
                "there is no assistant to start from", where="start", got=f"{self.start} on the route {self.route}",
                allowed="fresh", next_step=f"or take the route {ROUTES[0]}",
            )  # fmt: skip


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
                next_step="drop the budget (set it to 0), or choose a loss: the weights that stay must learn",
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


def _views_fit(stage: StageConfig) -> None:
    if (stage.views > 1) != (stage.shift > 0 or stage.flip or stage.mix > 0):
        raise ConfigError(
            "views and augmentation do not fit together",
            where="views",
            got=f"views = {stage.views}, shift = {stage.shift}, flip = {stage.flip}, mix = {stage.mix}",
            allowed="views = 1 with none of them, or views > 1 with shift > 0, flip or mix > 0",
        )
