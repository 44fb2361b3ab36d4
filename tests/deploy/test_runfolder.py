"""A run folder's files are found, read and written; what is damaged or missing is said."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from deploy import graph as nir
from deploy import reference, runfolder
from deploy.errors import FileError, SpikesError
from deploy.runfolder import Samples
from deploy.testing import random_case

_SPEC = importlib.util.spec_from_file_location("folder_graphs", Path(__file__).with_name("graphs.py"))
assert _SPEC is not None
assert _SPEC.loader is not None
g = importlib.util.module_from_spec(_SPEC)
_SPEC.loader.exec_module(g)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A run folder with a network and its spikes."""
    network = g.graph((2,), [g.affine("fc", [[2, 4], [6, 8]]), g.lif("n")])
    nir.write(network, tmp_path / runfolder.NIR)
    samples = Samples(np.ones((5, 2), np.uint8), np.array([0, 1, 0, 1, 0]), 6)
    runfolder.save_samples(tmp_path / runfolder.TEST_SPIKES, samples)
    return tmp_path


def test_a_folder_a_nir_file_and_a_program_give_the_same_program(folder: Path) -> None:
    program = runfolder.program_of(folder)
    program.save(folder / "other.npz")
    assert program.digest == runfolder.program_of(folder / runfolder.NIR).digest
    assert program.digest == runfolder.program_of(folder / "other.npz").digest


@pytest.mark.parametrize("name", ["", "none.nir", "folder"])
def test_what_is_not_there_is_said(tmp_path: Path, name: str) -> None:
    (tmp_path / "folder").mkdir()
    with pytest.raises(FileError, match="there is no such file") as caught:
        runfolder.program_of(tmp_path / name)
    assert "neurokd demo" in caught.value.next_step


def test_samples_come_from_the_folder_or_the_file_named(folder: Path) -> None:
    own = runfolder.samples_of(folder, None)
    assert (own.spikes.shape, own.steps) == ((5, 2), 6)
    assert own.labels is not None
    assert own.labels.tolist() == [0, 1, 0, 1, 0]
    assert runfolder.samples_of(folder, None, steps=3).steps == 3
    np.save(folder / "mine.npy", np.ones((4, 3, 2), np.uint8))
    named = runfolder.samples_of(folder, folder / "mine.npy")
    assert (named.spikes.shape, named.labels, named.steps) == ((4, 3, 2), None, None)


def test_a_file_alone_needs_spikes(folder: Path) -> None:
    with pytest.raises(SpikesError, match="no input spikes were given"):
        runfolder.samples_of(folder / runfolder.NIR, None)


@pytest.mark.parametrize(("shape", "rank"), [((6, 5, 2), 1), ((5, 2), 1), ((6, 5, 1, 2, 2), 3), ((5, 1, 2, 2), 3)])
def test_the_first_samples_keep_their_labels(shape: tuple[int, ...], rank: int) -> None:
    samples = Samples(np.arange(np.prod(shape)).reshape(shape), np.arange(5), 6)
    first = samples.first(2, rank)
    axis = 1 if len(shape) == rank + 2 else 0
    np.testing.assert_array_equal(first.spikes, np.take(samples.spikes, [0, 1], axis=axis))
    assert first.labels is not None
    assert first.labels.tolist() == [0, 1]
    assert samples.first(None, rank).spikes.shape == shape


@pytest.mark.parametrize(
    "parts",
    [
        {"steps": np.array([3, 4])}, {"steps": np.array(2.5)}, {"steps": np.array("x")}, {"steps": np.array(0)},
        {"labels": np.array([[1, 2]])}, {"labels": np.array([0.5, 1.5])}, {"labels": np.array(["a", "b"])},
    ],
)  # fmt: skip
def test_labels_and_steps_that_are_none_are_refused(folder: Path, parts: dict[str, Any]) -> None:
    np.savez(folder / "bad.npz", spikes=np.ones((2, 2), int), **parts)
    with pytest.raises(SpikesError, match=f"^the spike file's {next(iter(parts))}") as caught:
        runfolder.samples_of(folder, folder / "bad.npz")
    assert caught.value.allowed


def test_layers_survive_as_bits(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    layers = {"a/b.c": rng.integers(0, 2, (3, 5, 7)), "image": rng.integers(0, 2, (3, 5, 2, 3, 1))}
    runfolder.save_layers(tmp_path / "layers.npz", layers)
    read = runfolder.load_layers(tmp_path / "layers.npz")
    assert set(read) == set(layers)
    for name, array in layers.items():
        np.testing.assert_array_equal(read[name], array)


def test_damaged_layers_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "layers.npz"
    runfolder.save_layers(path, {"a": np.ones((3, 5, 7), int)})
    whole = path.read_bytes()
    for content in (b"", whole[: len(whole) // 2], b"text"):
        path.write_bytes(content)
        with pytest.raises(FileError, match="the recorded spikes cannot be read"):
            runfolder.load_layers(path)
    bits = np.zeros(1, np.uint8)
    for header in (b"{", b"[1]", b'{"a": [100]}', b'{"a": 3}', b'{"b": [1]}', b'{"a": ["x"]}', b'{"a": [-1]}'):
        np.savez(path, header=np.frombuffer(header, np.uint8), **{"bits.a": bits})
        with pytest.raises(FileError, match="the recorded spikes cannot be read"):
            runfolder.load_layers(path)
    with pytest.raises(FileError, match="the recorded spikes cannot be read"):
        runfolder.load_layers(tmp_path / "missing.npz")


def test_a_trace_is_saved_with_everything_in_it(tmp_path: Path) -> None:
    for seed in range(12):
        case = random_case(seed, constant=False)
        trace = reference.run(case.program, case.spikes)
        runfolder.save_trace(tmp_path / "trace.npz", trace)
        with np.load(tmp_path / "trace.npz") as saved:
            np.testing.assert_array_equal(saved["counts"], trace.counts)
            np.testing.assert_array_equal(saved["predictions"], trace.predictions())
            assert ("membranes" in saved) == (trace.membranes is not None)
            for name in trace.spikes:
                for what in ("spikes", "u", "v"):
                    np.testing.assert_array_equal(saved[f"{what}.{name}"], getattr(trace, what)[name])
                np.testing.assert_array_equal(saved[f"counter.{name}.synops"], trace.counters[name].synops)
