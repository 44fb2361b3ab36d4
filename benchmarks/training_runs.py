"""Whole epochs for ``benchmarks.training``: what a cached teacher costs, and whether bfloat16 learns as well."""

from __future__ import annotations

import statistics
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Final

import numpy as np

from neurokd import data
from neurokd.config_parts import StageConfig
from neurokd.data import Dataset, Split
from neurokd.distill import teacher_sats
from neurokd.encoding import Encoding
from neurokd.loop import fit
from neurokd.losses import parse_loss
from neurokd.network import build

DATA: Final = Path(__file__).resolve().parents[2] / "shared" / "datasets"
LOSS: Final = "sat-ce"
SEEDS: Final = (0, 1, 2)
IMAGES, ROUNDS = 2560, 5
#: (case, metric, value, unit, goal)
Figure = tuple[str, str, float | str | None, str, str]


def random_images(count: int = IMAGES, seed: int = 0) -> Dataset:
    """A data set of noise, 28x28: what a step costs does not depend on what is seen."""
    generator = np.random.default_rng(seed)

    def split(size: int) -> Split:
        images = generator.integers(0, 256, (size, 1, 28, 28), dtype=np.uint8)
        return Split(images, generator.integers(0, 10, size))

    small = split(128)
    return replace(data.load("digits"), train=split(count), validation=small, test=small, levels=255)


def epochs() -> Iterator[Figure]:
    """An epoch of a distilled student (teacher cached) over one of a plain one, in turns."""
    noise = random_images()
    for spec, steps in (("784-800-10", 25), ("28x28x1-16c5s2-32c3s2-10", 8)):
        encoding = Encoding("direct", 8, steps)
        plain, distilled = StageConfig(epochs=1, batch=128), StageConfig(epochs=1, batch=128, loss=LOSS)
        sats = teacher_sats(build("784-64-10", steps=steps), noise, encoding, distilled)
        ratios = []
        for round_ in range(ROUNDS + 1):
            seconds = []
            for stage, teacher in ((plain, None), (distilled, sats)):
                network = build(spec, steps=steps, seed=round_)
                terms = parse_loss(stage.loss)
                result = fit(network, noise, encoding, stage, loss_terms=terms, teacher_sats=teacher)
                seconds.append(result.seconds)
            ratios.append(seconds[1] / seconds[0])
        case, ratios = f"{spec}, T = {steps}, batch 128, loss {LOSS}", ratios[1:]
        metric = "a distilled student's epoch over a plain one's"
        yield case, metric, statistics.median(ratios), "x", "<= 1.15"
        yield case, f"{metric}, rounds", f"{min(ratios):.3g} to {max(ratios):.3g} in {len(ratios)} rounds", "x", ""


def accuracies() -> Iterator[Figure]:
    """MNIST, 10,000 images, 3 epochs: float32 beside bfloat16 synapses."""
    spec, steps = "28x28x1-16c5s2-32c3s2-10", 6
    case = f"MNIST, {spec}, T = {steps}, 10,000 images, 3 epochs"
    if not DATA.is_dir():
        yield case, "accuracy lost by bfloat16 synapses", "not measured: no data", "points", "<= 0.3"
        return
    whole = data.load("mnist", DATA)
    few = replace(whole, train=Split(whole.train.images[:10_000], whole.train.labels[:10_000]),
                  validation=Split(whole.validation.images[:500], whole.validation.labels[:500]))  # fmt: skip
    encoding, reached = Encoding("direct", 8, steps), {}
    for precision in ("float32", "bfloat16"):
        stage = StageConfig(epochs=3, batch=128, lr=5e-3, precision=precision)
        reached[precision] = [
            fit(
                build(spec, steps=steps, seed=seed), few, encoding, stage, loss_terms=parse_loss("ce"), seed=seed
            ).accuracy
            for seed in SEEDS
        ]
        mean, each = statistics.mean(reached[precision]), ", ".join(f"{a:.2f}" for a in reached[precision])
        yield case, f"{precision}: test accuracy, mean of {len(SEEDS)} seeds", mean, "%", ""
        yield case, f"{precision}: test accuracy, each seed", each, "%", ""
    lost = statistics.mean(reached["float32"]) - statistics.mean(reached["bfloat16"])
    yield case, "accuracy lost by bfloat16 synapses", lost, "points", "<= 0.3"
