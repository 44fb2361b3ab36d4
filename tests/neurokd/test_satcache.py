"""The teacher's SAT cache: packing is exact, and a cache of something else is never used."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from deploy.errors import FileError, TrainingError
from neurokd import satcache
from neurokd.outputs import Outputs
from neurokd.satcache import Batch


def random_sats(views: int, samples: int, steps: int, classes: int, seed: int = 0) -> torch.Tensor:
    """Float 0/1 [V, T, N, C]."""
    generator = torch.Generator().manual_seed(seed)
    return (torch.rand(views, steps, samples, classes, generator=generator) > 0.6).float()


class Teacher:
    """Gives known SATs in batches of three and counts how often it is asked."""

    def __init__(self, sats: torch.Tensor) -> None:
        self.sats, self.views_run = sats, 0

    def __call__(self, view: int) -> Iterator[Batch]:
        self.views_run += 1
        for start in range(0, self.sats.shape[2], 3):
            rows = np.arange(start, min(start + 3, self.sats.shape[2]))
            yield rows, self.sats[view][:, rows]


@settings(max_examples=40, deadline=None)
@given(
    views=st.integers(1, 3),
    samples=st.integers(1, 11),
    steps=st.integers(1, 9),
    classes=st.integers(1, 11),
    seed=st.integers(0, 9),
)
def test_every_spike_comes_back(views: int, samples: int, steps: int, classes: int, seed: int) -> None:
    sats = random_sats(views, samples, steps, classes, seed)
    cache = satcache.compute(views, samples, "key", Teacher(sats))
    order = np.random.default_rng(seed).permutation(samples)
    for view in range(views):
        got = cache.take(order, view)
        assert got.dtype == torch.float32
        assert torch.equal(got, sats[view][:, order])
    assert torch.equal(cache[order], sats[0][:, order])
    assert cache.nbytes == views * samples * -(-steps * classes // 8)


def test_a_cache_is_read_back_and_its_teacher_not_run_again(tmp_path: Path) -> None:
    sats, path = random_sats(2, 7, 5, 10), tmp_path / "sat.npz"
    teacher = Teacher(sats)
    first = satcache.load_or_compute(path, 2, 7, "key", teacher)
    again = satcache.load_or_compute(path, 2, 7, "key", teacher)
    assert (first.reused, again.reused, teacher.views_run) == (False, True, 2)
    assert np.array_equal(first.packed, again.packed)
    assert (again.steps, again.classes, again.views, again.samples) == (5, 10, 2, 7)
    assert again.seconds == first.seconds > 0


@pytest.mark.parametrize("how", ["key", "samples", "views", "truncated", "bit", "text", "header", "shape", "folder"])
def test_anything_else_is_computed_again(tmp_path: Path, how: str) -> None:
    sats, path = random_sats(2, 7, 5, 10), tmp_path / "sat.npz"
    wrong = {"key": (2, 7, "other"), "samples": (2, 6, "key"), "views": (1, 7, "key")}.get(how, (2, 7, "key"))
    satcache.load_or_compute(path, *wrong, Teacher(random_sats(wrong[0], wrong[1], 5, 10, seed=5)))
    spoil(path, how)
    teacher = Teacher(sats)
    if how == "folder":
        with pytest.raises(FileError, match="cannot write"):
            satcache.load_or_compute(path, 2, 7, "key", teacher)
        return
    cache = satcache.load_or_compute(path, 2, 7, "key", teacher)
    assert (cache.reused, teacher.views_run) == (False, 2)
    assert torch.equal(cache.take(np.arange(7), 1), sats[1])
    assert satcache.load_or_compute(path, 2, 7, "key", teacher).reused


def spoil(path: Path, how: str) -> None:
    data = path.read_bytes()
    if how == "truncated":
        path.write_bytes(data[:100])
    elif how == "bit":
        place = data.index(b"\x93NUMPY") + 130  # inside the first array's bytes; the archive's checksum notices
        path.write_bytes(data[:place] + bytes([data[place] ^ 1]) + data[place + 1 :])
    elif how == "text":
        path.write_text("no archive")
    elif how == "header":
        np.savez(path, packed=np.zeros((2, 7, 7), np.uint8), header=np.array("{"))
    elif how == "shape":
        header = json.dumps({"key": "key", "steps": 5, "classes": 10, "seconds": 1.0})
        np.savez(path, packed=np.zeros((2, 7, 6), np.uint8), header=np.array(header))
    elif how == "folder":
        path.unlink()
        path.mkdir()


class Talker(Teacher):
    """Tells logits beside its SAT, or instead of it."""

    def __init__(self, sats: torch.Tensor, logits: torch.Tensor, spikes: bool = True) -> None:
        super().__init__(sats)
        self.logits, self.spikes = logits, spikes

    def __call__(self, view: int) -> Iterator[Batch]:
        for rows, sat in super().__call__(view):
            yield rows, Outputs(sat if self.spikes else None, self.logits[view, rows])


@pytest.mark.parametrize("spikes", [True, False])
def test_logits_are_kept_and_read_back(tmp_path: Path, spikes: bool) -> None:
    sats, logits, path = random_sats(2, 7, 5, 10), torch.randn(2, 7, 10), tmp_path / "sat.npz"
    first = satcache.load_or_compute(path, 2, 7, "key", Talker(sats, logits, spikes))
    again = satcache.load_or_compute(path, 2, 7, "key", Talker(sats, logits, spikes))
    assert again.reused
    for cache in (first, again):
        assert cache.holds == ({"sat", "logits"} if spikes else {"logits"})
        assert (cache.views, cache.samples, cache.classes) == (2, 7, 10)
        told = cache.told([6, 0], 1)
        assert torch.equal(told.logits, logits[1][[6, 0]])
        assert told.sat is None if not spikes else torch.equal(told.sat, sats[1][:, [6, 0]])
    assert again.nbytes == (2 * 7 * 7 if spikes else 0) + 4 * 2 * 7 * 10


def test_logits_of_another_shape_are_computed_again(tmp_path: Path) -> None:
    sats, logits, path = random_sats(2, 7, 5, 10), torch.randn(2, 7, 10), tmp_path / "sat.npz"
    cache = satcache.load_or_compute(path, 2, 7, "key", Talker(sats, logits))
    header = json.dumps({"key": "key", "steps": 5, "classes": 10, "seconds": 1.0})
    np.savez(path, packed=cache.packed, header=np.array(header), logits=np.zeros((2, 7, 9), np.float32))
    assert not satcache.load_or_compute(path, 2, 7, "key", Talker(sats, logits)).reused


def test_logits_that_are_no_numbers() -> None:
    logits = torch.full((1, 7, 10), float("nan"))
    with pytest.raises(TrainingError, match="logits are not numbers"):
        satcache.compute(1, 7, "key", Talker(random_sats(1, 7, 5, 10), logits))


def test_without_a_path_it_stays_in_memory(tmp_path: Path) -> None:
    cache = satcache.load_or_compute(None, 1, 7, "key", Teacher(random_sats(1, 7, 5, 10)))
    assert cache.samples == 7
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(("rows", "view"), [([7], 0), ([-1], 0), ([0], 2), ([0], -1)])
def test_images_it_does_not_hold(rows: list[int], view: int) -> None:
    cache = satcache.compute(2, 7, "key", Teacher(random_sats(2, 7, 5, 10)))
    with pytest.raises(TrainingError, match="does not hold these images"):
        cache.take(rows, view)


def test_no_images_and_no_indices() -> None:
    with pytest.raises(TrainingError, match="no images to run the teacher on"):
        satcache.compute(1, 0, "key", Teacher(random_sats(1, 0, 5, 10)))
    cache = satcache.compute(2, 7, "key", Teacher(random_sats(2, 7, 5, 10)))
    assert cache.take([]).shape == (5, 0, 10)


def test_a_teacher_that_does_not_spike() -> None:
    with pytest.raises(TrainingError, match="the teacher's output is not spikes") as caught:
        satcache.compute(1, 7, "key", Teacher(random_sats(1, 7, 5, 10) * 0.5))
    assert caught.value.got == "values 0.0 .. 0.5"


def test_the_key_changes_with_each_part() -> None:
    base = {"teacher": "a", "views": {"count": 1}}
    assert satcache.key_of(base) == satcache.key_of({"views": {"count": 1}, "teacher": "a"})
    assert satcache.key_of(base) != satcache.key_of({**base, "teacher": "b"})
    assert satcache.key_of(base) != satcache.key_of({**base, "views": {"count": 2}})
