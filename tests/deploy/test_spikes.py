"""Input spikes are brought to one form, or refused by name; files that hold none are refused too."""

from __future__ import annotations

import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from deploy.errors import SpikesError
from deploy.program import Dense, Input, Population, Program
from deploy.spikes import load_spikes, stimulus


def program(shape: tuple[int, ...] = (4,), bits: int = 1, **meta: int) -> Program:
    size = int(np.prod(shape))
    neurons = Population("n", (2,), 4095, 0, 1, np.zeros(2, int))
    return Program(Input("in", shape, bits), (neurons,), (Dense("w", "in", "n", np.full((2, size), 2)),), meta)


def test_spikes_with_a_time_axis_stay_as_they_are() -> None:
    values = np.arange(24).reshape(3, 2, 4) % 2
    given = stimulus(program(), values)
    np.testing.assert_array_equal(given.values, values)
    assert (given.steps, given.samples, given.constant, given.values.dtype) == (3, 2, False, np.uint8)
    np.testing.assert_array_equal(given.at(2), values[2])
    np.testing.assert_array_equal(given.part(1, 2).values, values[:, 1:])


def test_one_frame_is_presented_at_every_step() -> None:
    values = np.arange(24).reshape(2, 1, 3, 4)
    given = stimulus(program((1, 3, 4), bits=8), values, steps=5)
    assert (given.steps, given.samples, given.constant) == (5, 2, True)
    assert given.values.shape == (1, 2, 12)
    np.testing.assert_array_equal(given.dense(), np.broadcast_to(values.reshape(2, 12), (5, 2, 12)))
    np.testing.assert_array_equal(given.at(4), values.reshape(2, 12))


def test_the_steps_may_come_from_the_program() -> None:
    assert stimulus(program(steps=7), np.zeros((2, 4), int)).steps == 7
    assert stimulus(program(steps=7), np.zeros((2, 4), int), steps=3).steps == 3
    assert stimulus(program(steps=7), np.zeros((9, 2, 4), int)).steps == 9


@pytest.mark.parametrize("dtype", [bool, np.uint8, np.int64, np.uint16])
def test_any_integers_and_booleans_are_taken(dtype: type) -> None:
    assert stimulus(program(), np.ones((3, 2, 4), dtype)).values.sum() == 24


@pytest.mark.parametrize(
    ("values", "steps", "message"),
    [
        (np.zeros((3, 2, 5), int), None, "wrong shape"),
        (np.zeros(4, int), None, "wrong shape"),
        (np.zeros((1, 3, 2, 4), int), None, "wrong shape"),
        (np.zeros((0, 2, 4), int), None, "wrong shape"),
        (np.zeros((3, 2, 4)), None, "not integers"),
        (np.full((3, 2, 4), np.nan), None, "not integers"),
        (np.zeros((3, 2, 4), complex), None, "not integers"),
        (np.array([[["a"] * 4]]), None, "not integers"),
        (np.full((3, 2, 4), 2), None, "out of range"),
        (np.full((3, 2, 4), -1), None, "out of range"),
        (np.full((3, 2, 4), 256), None, "out of range"),
        (np.zeros((2, 4), int), None, "not known"),
        (np.zeros((2, 4), int), 0, "not positive"),
        (np.zeros((3, 2, 4), int), 4, "contradicts"),
    ],
)
def test_what_does_not_fit_is_refused(values: Any, steps: int | None, message: str) -> None:
    with pytest.raises(SpikesError, match=message) as caught:
        stimulus(program(), values, steps)
    assert caught.value.allowed


def test_graded_input_goes_to_its_largest_value_and_no_further() -> None:
    assert stimulus(program(bits=3), np.full((1, 1, 4), 7)).values.max() == 7
    with pytest.raises(SpikesError, match="out of range"):
        stimulus(program(bits=3), np.full((1, 1, 4), 8))


def test_files_give_their_parts(tmp_path: Path) -> None:
    np.save(tmp_path / "a.npy", np.ones((2, 3)))
    assert list(load_spikes(tmp_path / "a.npy")) == ["spikes"]
    np.savez(tmp_path / "b.npz", spikes=np.ones(3), labels=np.arange(3), steps=4)
    assert set(load_spikes(tmp_path / "b.npz")) == {"spikes", "labels", "steps"}


def damaged(folder: Path) -> dict[str, Path]:
    """A file for each way a spike file can be bad."""
    np.savez_compressed(folder / "whole.npz", spikes=np.random.default_rng(0).integers(0, 2, (50, 40)))
    whole = (folder / "whole.npz").read_bytes()
    contents = {
        "empty.npz": b"",
        "cut.npz": whole[: len(whole) // 2],
        "short.npz": whole[:10],
        "text.npy": b"no spikes",
    }
    contents["flipped.npz"] = whole[:80] + bytes(byte ^ 0xFF for byte in whole[80:200]) + whole[200:]
    for name, content in contents.items():
        (folder / name).write_bytes(content)
    np.save(folder / "cut.npy", np.ones((50, 40)))
    (folder / "cut.npy").write_bytes((folder / "cut.npy").read_bytes()[:300])
    np.save(folder / "pickle.npy", np.array([{"a": 1}], dtype=object), allow_pickle=True)
    with zipfile.ZipFile(folder / "noarray.npz", "w") as archive:
        archive.writestr("spikes.npy", b"not an array")
    (folder / "folder.npz").mkdir()
    names = [*contents, "cut.npy", "pickle.npy", "noarray.npz", "folder.npz", "missing.npz"]
    return {name: folder / name for name in names}


def test_damaged_files_are_refused(tmp_path: Path) -> None:
    for name, path in damaged(tmp_path).items():
        with pytest.raises(SpikesError, match="^the spike file cannot be read") as caught:
            load_spikes(path)
        assert caught.value.where == str(path), name
        assert caught.value.got


def test_a_file_without_spikes_is_refused(tmp_path: Path) -> None:
    np.savez(tmp_path / "a.npz", images=np.ones(3))
    with pytest.raises(SpikesError, match="has no spikes") as caught:
        load_spikes(tmp_path / "a.npz")
    assert "images" in caught.value.got
