"""Fixed views: the same pixels for every stage, each a shift or mirror image of the original."""

from __future__ import annotations

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from neurokd.views import Views


def images(count: int, channels: int = 1, height: int = 6, width: int = 5) -> np.ndarray:
    return np.random.default_rng(1).integers(1, 256, (count, channels, height, width), dtype=np.uint8)


def moved(image: np.ndarray, down: int, right: int) -> np.ndarray:
    """The slow, obvious shift of one image, zeros coming in."""
    out = np.zeros_like(image)
    _, height, width = image.shape
    for y in range(height):
        for x in range(width):
            if 0 <= y - down < height and 0 <= x - right < width:
                out[:, y, x] = image[:, y - down, x - right]
    return out


@settings(max_examples=30, deadline=None)
@given(
    shift=st.integers(0, 3),
    flip=st.booleans(),
    channels=st.integers(1, 3),
    view=st.integers(1, 4),
    seed=st.integers(0, 9),
)
def test_each_image_is_one_of_the_possible_views(shift: int, flip: bool, channels: int, view: int, seed: int) -> None:
    original = images(12, channels)
    seen = Views(5, shift, flip, seed).make(original, view)
    span = range(-shift, shift + 1)
    for before, after in zip(original, seen, strict=True):
        shifts = [moved(before, down, right) for down in span for right in span]
        possible = shifts + [one[..., ::-1] for one in shifts] * flip
        assert any(np.array_equal(after, one) for one in possible)


def test_view_0_is_the_image_itself() -> None:
    original = images(4)
    assert Views(3, 2, True).make(original, 0) is original


def test_views_differ_from_each_other_and_repeat_themselves() -> None:
    original, views = images(50), Views(4, 2, True, seed=3)
    made = [views.make(original, view) for view in range(4)]
    for first in range(4):
        assert np.array_equal(made[first], views.make(original, first))
        for second in range(first):
            assert not np.array_equal(made[first], made[second])
    assert not np.array_equal(made[1], Views(4, 2, True, seed=4).make(original, 1))


def test_the_original_is_left_alone() -> None:
    original = images(20)
    before = original.copy()
    Views(3, 1, True).make(original, 2)
    assert np.array_equal(original, before)


def test_all_shifts_come_about_equally_often() -> None:
    original = np.zeros((2500, 1, 9, 9), np.uint8)
    original[:, :, 4, 4] = 1
    seen = Views(2, 2).make(original, 1)[:, 0]
    counts = seen.sum(axis=0)[2:7, 2:7]
    assert counts.sum() == 2500
    assert counts.min() > 60  # expected 100 each, standard deviation 10
    assert counts.max() < 140


def test_epochs_walk_through_the_views() -> None:
    assert [Views(3, 1).of_epoch(epoch) for epoch in range(7)] == [0, 1, 2, 0, 1, 2, 0]
