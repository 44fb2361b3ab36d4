"""Mixed images: the blend and its labels, repeatable, the same for teacher and student."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
import torch

from deploy.errors import ConfigError
from neurokd import losses
from neurokd.config import Config
from neurokd.config_parts import StageConfig, stage_text
from neurokd.data import Dataset, Split
from neurokd.distill import teacher_sats
from neurokd.encoding import Encoding
from neurokd.feed import Feed, training_feed
from neurokd.loop import fit
from neurokd.mixing import Mixing
from neurokd.network import build

ENCODING = Encoding("direct", 4, 4, raw_levels=16)
STAGE = StageConfig(epochs=2, batch=64, lr=5e-3, views=3, mix=0.8)


def split(count: int = 400) -> Split:
    generator = np.random.default_rng(0)
    images = generator.integers(0, 256, (count, 1, 4, 4)).astype(np.uint8)
    return Split(images, generator.integers(0, 5, count).astype(np.int64))


def test_images_and_labels_are_blended_alike() -> None:
    whole = split()
    mixed = Mixing(0.6, 5, seed=3).make(whole, 2)
    targets = mixed.targets(np.arange(400), whole.labels).numpy()
    np.testing.assert_allclose(targets.sum(1), 1.0, atol=1e-6)
    shares = mixed.shares
    assert 0 <= shares.min() < 0.02
    assert 0.28 < shares.max() <= 0.3
    other = np.array([np.flatnonzero(_is_blend(whole, mixed, n))[0] for n in range(20)])
    for n, partner in enumerate(other):
        expected = np.zeros(5)
        expected[whole.labels[n]] += 1 - shares[n]
        expected[whole.labels[partner]] += shares[n]
        np.testing.assert_allclose(targets[n], expected, atol=1e-6)


def _is_blend(whole: Split, mixed: object, n: int) -> np.ndarray:
    """For each image whether the mixed image n could be image n blended with it."""
    share = float(mixed.shares[n])  # type: ignore[attr-defined]
    blends = (1 - share) * whole.images[n].astype(float) + share * whole.images.astype(float)
    close = np.abs(blends - mixed.split.images[n]).max((1, 2, 3)) <= 0.5 + 1e-6  # type: ignore[attr-defined]
    return close & (whole.labels == mixed.others[n])  # type: ignore[attr-defined]


def test_view_0_and_strength_0_change_nothing() -> None:
    whole = split()
    for mixed in (Mixing(0.6, 5).make(whole, 0), Mixing(0.0, 5).make(whole, 2), Mixing().make(whole, 1)):
        assert mixed.split is whole
        assert torch.equal(
            mixed.targets(np.array([3, 1]), whole.labels[[3, 1]]), torch.from_numpy(whole.labels[[3, 1]])
        )


def test_views_and_seeds_differ_and_repeat() -> None:
    whole, mixing = split(), Mixing(1.0, 5, seed=1)
    again = [mixing.make(whole, 1).split.images for _ in range(2)]
    assert np.array_equal(*again)
    assert not np.array_equal(again[0], mixing.make(whole, 2).split.images)
    assert not np.array_equal(again[0], Mixing(1.0, 5, seed=2).make(whole, 1).split.images)


def test_mixing_with_oneself_is_nothing() -> None:
    one = Split(np.full((1, 1, 2, 2), 201, np.uint8), np.array([4]))
    mixed = Mixing(1.0, 5).make(one, 1)
    assert np.array_equal(mixed.split.images, one.images)
    assert mixed.targets(np.array([0]), one.labels).tolist() == [[0, 0, 0, 0, 1]]


def test_teacher_and_student_see_the_same_pictures(digits: Dataset) -> None:
    teacher = build("64-24-10", steps=4, input_bits=4, seed=1).eval()
    cache = teacher_sats(teacher, digits, ENCODING, dataclasses.replace(STAGE, loss="sat-ce"), seed=5)
    feed = training_feed(digits.train, ENCODING, STAGE, 10, 5)
    for epoch in range(3):
        batch = next(feed.train_batches(64, 5, epoch))
        assert batch.labels.is_floating_point() == (epoch > 0)
        with torch.no_grad():
            assert torch.equal(cache.take(batch.indices, epoch), teacher.sat(batch.inputs))


def test_the_cache_of_other_pictures_is_not_used(digits: Dataset) -> None:
    teacher = build("64-24-10", steps=4, input_bits=4)
    small = dataclasses.replace(digits, train=digits.train.take(np.arange(100)))
    keys = {teacher_sats(teacher, small, ENCODING, dataclasses.replace(STAGE, mix=mix)).key for mix in (0.8, 0.4)}
    shifted = dataclasses.replace(STAGE, mix=0.0, shift=1)
    assert len(keys | {teacher_sats(teacher, small, ENCODING, shifted).key}) == 3


@pytest.mark.parametrize("loss", ["ce", "temporal-ce", "logit-ce"])
def test_networks_train_on_mixed_images(digits: Dataset, loss: str) -> None:
    network = build("64-32-10", steps=4, input_bits=4)
    result = fit(network, digits, ENCODING, dataclasses.replace(STAGE, epochs=6), loss_terms=losses.parse_loss(loss))
    assert result.accuracy > 70


def test_rows_are_those_of_the_batches(digits: Dataset) -> None:
    feed = training_feed(digits.train, ENCODING, STAGE, 10, 0)
    batch = next(feed.train_batches(32, 0, 1))
    again = feed.rows(batch.indices, 1)
    assert torch.equal(batch.inputs, again.inputs)
    assert torch.equal(batch.labels, again.labels)
    plain = Feed(digits.train, ENCODING)
    assert torch.equal(plain.rows(np.array([3, 9])).labels, torch.from_numpy(digits.train.labels[[3, 9]]))


# Configuration


def test_earlier_configurations_read_as_ever_and_name_the_same_runs() -> None:
    text = Config.default("digits").to_toml()
    assert "mix = 0.0" in text
    earlier = "\n".join(line for line in text.splitlines() if not line.startswith(("mix", 'teacher = "cached"')))
    assert Config.from_toml(earlier) == Config.default("digits")
    assert stage_text(StageConfig(epochs=3, loss="sat-ce")) == (
        "StageConfig(epochs=3, batch=128, lr=0.002, weight_decay=0.0001, patience=0, loss='sat-ce', shift=0, "
        "flip=False, views=1)"
    )
    assert "mix=0.8" in stage_text(STAGE)
    assert "teacher='live'" in stage_text(StageConfig(teacher="live"))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"mix": 1.5, "views": 2}, "out of range"),
        ({"mix": -0.1, "views": 2}, "out of range"),
        ({"mix": 0.5}, "do not fit together"),
        ({"views": 2}, "do not fit together"),
        ({"teacher": "dead"}, "unknown choice"),
    ],
)
def test_stages_that_make_no_sense(options: dict[str, object], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        StageConfig(**options)  # type: ignore[arg-type]
