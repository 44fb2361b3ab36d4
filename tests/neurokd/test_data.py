"""Loading by name, splits, minibatches, and what is found where."""

from __future__ import annotations

import dataclasses
import sys
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from deploy.errors import ConfigError, DataError
from neurokd.data import NAMES, Split, batches, load, status
from neurokd.data import digits as digits_module
from neurokd.data.official import md5_of


def small_split(count: int = 103) -> Split:
    """Samples that carry their own row number in the first pixels."""
    images = np.zeros((count, 1, 2, 2), np.uint8)
    images[:, 0, 0, 0], images[:, 0, 0, 1] = np.arange(count) % 256, np.arange(count) // 256
    return Split(images, np.arange(count, dtype=np.int64) % 10)


def test_digits_need_no_files_and_have_one_fixed_test_part() -> None:
    data = load("digits")
    assert data.official
    assert data.title == "Digits 8x8 (scikit-learn)"
    assert (data.shape, data.levels, data.classes) == ((1, 8, 8), 16, tuple("0123456789"))
    assert (len(data.train) + len(data.validation), len(data.test)) == (1347, 450)
    assert (data.train.images.max(), data.train.images.dtype) == (16, np.dtype(np.uint8))
    # frozen: a change of the split would change every published digits figure
    labels = np.concatenate([data.train.labels, data.validation.labels, data.test.labels])
    assert np.bincount(labels).tolist() == [178, 182, 177, 183, 181, 182, 181, 179, 174, 180]
    assert np.bincount(data.test.labels).tolist() == [45, 46, 44, 46, 45, 46, 45, 45, 43, 45]
    assert md5_of(data.test.images.tobytes()) == "46668a219b98057b4200df4aa77c9efe"
    assert md5_of(data.validation.images.tobytes()) == "16315a1926762f6092cf3034c78e4b29"


def test_the_digits_parts_share_no_image() -> None:
    data = load("digits", validation=0.2, seed=5)
    seen = [{image.tobytes() for image in part.images} for part in (data.train, data.validation, data.test)]
    assert sum(len(part) for part in seen) == len(set().union(*seen)) == 1797


def test_the_validation_part_is_seeded_stratified_and_never_from_test() -> None:
    one, same, other = (load("digits", validation=0.2, seed=seed) for seed in (1, 1, 2))
    np.testing.assert_array_equal(one.validation.images, same.validation.images)
    assert not np.array_equal(one.validation.images, other.validation.images)
    np.testing.assert_array_equal(one.test.images, other.test.images)
    whole = np.bincount(load("digits", validation=0).train.labels)
    np.testing.assert_array_equal(np.bincount(one.validation.labels), np.floor(0.2 * whole + 0.5))
    np.testing.assert_array_equal(np.bincount(one.train.labels), whole - np.bincount(one.validation.labels))


def test_no_validation_is_an_empty_part() -> None:
    assert len(load("digits", validation=0).validation) == 0


def test_facts_are_plain_values() -> None:
    facts = load("digits").facts()
    assert facts["official"] is True
    assert facts["md5"] == {"sklearn.datasets.load_digits()": "7696c07daa6d85010f8268703ab8b067"}
    assert (facts["train"], facts["validation"], facts["test"]) == (1211, 136, 450)


def test_altered_digits_are_not_called_official(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(digits_module, "DIGITS_MD5", "0" * 32)
    assert load("digits").title == "Digits 8x8 (scikit-learn) (not the official files)"


def test_digits_without_scikit_learn_say_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "sklearn.datasets", None)
    with pytest.raises(DataError, match="scikit-learn, which is not installed") as caught:
        load("digits")
    assert caught.value.next_step == 'pip install "neurokd[train]"'


def test_an_unknown_name_lists_the_known_ones() -> None:
    with pytest.raises(DataError, match="unknown data set") as caught:
        load("imagenet")
    assert caught.value.allowed == "digits, mnist, fashion-mnist, cifar10"
    assert caught.value.got == "'imagenet'"


@pytest.mark.parametrize("share", [-0.1, 1, 1.5, float("nan"), "0.1", True])
def test_a_share_out_of_range_is_refused(share: object) -> None:
    with pytest.raises(ConfigError, match="validation share is out of range"):
        load("digits", validation=share)  # type: ignore[arg-type]


def test_a_share_that_takes_every_image_is_refused() -> None:
    with pytest.raises(ConfigError, match="leaves nothing to train on"):
        load("digits", validation=0.9999)


@pytest.mark.parametrize("seed", [-1, 2**64, 1.0, "1", None])
def test_a_bad_seed_is_refused(seed: object) -> None:
    with pytest.raises(ConfigError, match="seed is not a whole number"):
        load("digits", seed=seed)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("images", "labels", "what"),
    [
        (np.zeros((2, 1, 2, 2), np.float32), np.zeros(2, np.int64), "the images have the wrong type"),
        (np.zeros((2, 2, 2), np.uint8), np.zeros(2, np.int64), "the images have the wrong type"),
        (np.zeros((2, 1, 2, 2), np.uint8), np.zeros(2, np.uint8), "the labels have the wrong type"),
        (np.zeros((2, 1, 2, 2), np.uint8), [0, 1], "the labels have the wrong type"),
        (np.zeros((2, 1, 2, 2), np.uint8), np.zeros(3, np.int64), "images and labels differ in number"),
    ],
)
def test_a_split_of_other_arrays_is_refused(images: np.ndarray, labels: np.ndarray, what: str) -> None:
    with pytest.raises(DataError, match=what):
        Split(images, labels)


def test_data_are_frozen() -> None:
    data = load("digits")
    with pytest.raises(dataclasses.FrozenInstanceError):
        data.title = "MNIST"  # type: ignore[misc]


def test_take_keeps_the_order_asked_for() -> None:
    assert small_split().take([5, 3, 5]).images[:, 0, 0, 0].tolist() == [5, 3, 5]


@settings(deadline=None, max_examples=50)
@given(count=st.integers(1, 600), size=st.integers(1, 700), seed=st.integers(0, 2**64 - 1), epoch=st.integers(0, 9))
def test_an_epoch_visits_every_sample_once(count: int, size: int, seed: int, epoch: int) -> None:
    split = small_split(count)
    walked = list(batches(split, size, seed=seed, epoch=epoch))
    rows = np.concatenate([indices for indices, _, _ in walked])
    assert sorted(rows.tolist()) == list(range(count))
    assert [len(indices) for indices, _, _ in walked[:-1]] == [size] * (len(walked) - 1)
    for indices, images, labels in walked:
        np.testing.assert_array_equal(images[:, 0, 0, 0] + 256 * images[:, 0, 0, 1].astype(int), indices)
        np.testing.assert_array_equal(labels, split.labels[indices])


def order(**options: int | bool) -> list[int]:
    return [int(i) for indices, _, _ in batches(small_split(), 10, **options) for i in indices]  # type: ignore[arg-type]


def test_the_order_depends_on_seed_and_epoch_only() -> None:
    assert order(seed=1, epoch=2) == order(seed=1, epoch=2)
    assert order(seed=1, epoch=2) != order(seed=1, epoch=3)
    assert order(seed=1, epoch=2) != order(seed=2, epoch=2)
    assert order(seed=7, epoch=1)[:6] == [60, 77, 41, 75, 85, 0]  # frozen: the same on every numpy


def test_file_order_and_full_batches_on_request() -> None:
    assert order(shuffle=False) == list(range(103))
    assert order(shuffle=False, drop_last=True) == list(range(100))


@pytest.mark.parametrize(
    ("options", "what"),
    [({"size": 0}, "batch size"), ({"size": 2.0}, "batch size"), ({"epoch": -1}, "epoch"), ({"seed": -1}, "seed")],
)
def test_bad_batch_options_are_refused_at_the_call(options: dict[str, object], what: str) -> None:
    with pytest.raises(ConfigError, match=f"{what} is not a whole number"):
        batches(small_split(), **({"size": 10} | options))  # type: ignore[arg-type]


def test_status_of_an_empty_folder(tmp_path: Path) -> None:
    found = {entry.name: entry for entry in status(tmp_path)}
    assert tuple(found) == NAMES
    assert (found["digits"].found, found["digits"].official, found["digits"].test) == (True, True, 450)
    mnist = found["mnist"]
    assert (mnist.found, mnist.official, mnist.size, mnist.train) == (False, None, 0, 0)
    assert mnist.problem.startswith("the files of mnist are not there")
    assert mnist.looked_in == (str(tmp_path / "mnist"), str(tmp_path / "MNIST/raw"))


def test_status_of_the_real_sets(shared_data: Path) -> None:
    found = {entry.name: entry for entry in status(shared_data)}
    mnist = found["mnist"]
    assert (mnist.found, mnist.official, mnist.train, mnist.test) == (True, True, 60_000, 10_000)
    assert mnist.size == sum(path.stat().st_size for path in (shared_data / "mnist").iterdir())
