"""MNIST and Fashion-MNIST: the IDX reader on small files made here, and on the real sets where they are."""

from __future__ import annotations

import gzip
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from deploy.errors import DataError
from neurokd.data import load, status
from neurokd.data.idx import read_idx
from neurokd.data.official import IDX_MD5, md5_of

IMAGES, LABELS = "train-images-idx3-ubyte", "train-labels-idx1-ubyte"


def idx_bytes(array: np.ndarray) -> bytes:
    """The IDX file of an array, written from the format's description."""
    header = bytes([0, 0, 8, array.ndim]) + b"".join(int(n).to_bytes(4, "big") for n in array.shape)
    return header + array.astype(np.uint8).tobytes()


def write_set(folder: Path, *, count: int = 40, zipped: bool = False, seed: int = 0) -> dict[str, np.ndarray]:
    """A small set of the four files; the arrays written, by file name."""
    rng = np.random.default_rng(seed)
    arrays = {}
    folder.mkdir(parents=True, exist_ok=True)
    for part, size in (("train", count), ("t10k", count // 2)):
        arrays[f"{part}-images-idx3-ubyte"] = rng.integers(0, 256, (size, 28, 28), np.uint8)
        arrays[f"{part}-labels-idx1-ubyte"] = (np.arange(size) % 10).astype(np.uint8)
    for name, array in arrays.items():
        content = idx_bytes(array)
        (folder / (name + ".gz" if zipped else name)).write_bytes(
            gzip.compress(content, mtime=0) if zipped else content
        )
    return arrays


@pytest.mark.parametrize(
    ("name", "folder"),
    [
        ("mnist", "mnist"),
        ("mnist", "MNIST/raw"),
        ("fashion-mnist", "fashion-mnist"),
        ("fashion-mnist", "FashionMNIST/raw"),
    ],
)
@pytest.mark.parametrize("zipped", [False, True])
def test_reads_every_layout(tmp_path: Path, name: str, folder: str, zipped: bool) -> None:
    arrays = write_set(tmp_path / folder, zipped=zipped)
    data = load(name, tmp_path, validation=0)
    np.testing.assert_array_equal(data.train.images[:, 0], arrays[IMAGES])
    np.testing.assert_array_equal(data.train.labels, arrays[LABELS])
    np.testing.assert_array_equal(data.test.images[:, 0], arrays["t10k-images-idx3-ubyte"])
    np.testing.assert_array_equal(data.test.labels, arrays["t10k-labels-idx1-ubyte"])
    assert data.train.images.dtype == np.uint8
    assert data.train.labels.dtype == np.int64
    assert (data.shape, data.levels, len(data.classes)) == ((1, 28, 28), 255, 10)
    assert data.test.images.flags.writeable


def test_reads_the_dotted_names_some_tools_unpack_to(tmp_path: Path) -> None:
    write_set(tmp_path / "mnist")
    for path in (tmp_path / "mnist").iterdir():
        path.rename(path.with_name(path.name.replace("-idx", ".idx")))
    assert len(load("mnist", tmp_path).test) == 20


def test_files_with_other_checksums_are_not_called_mnist(tmp_path: Path) -> None:
    write_set(tmp_path / "mnist")
    data = load("mnist", tmp_path)
    assert not data.official
    assert data.title == "MNIST (not the official files)"
    assert {Path(file.path).name for file in data.source} >= {IMAGES, LABELS}


def test_the_first_complete_folder_wins_over_an_incomplete_one(tmp_path: Path) -> None:
    write_set(tmp_path / "MNIST/raw")
    write_set(tmp_path / "mnist")
    (tmp_path / "mnist" / LABELS).unlink()
    assert "MNIST" in Path(load("mnist", tmp_path).source[0].path).parts


def damage(tmp_path: Path, file: str, content: bytes) -> DataError:
    """Write a good set with one file replaced, and return the error that loading it gives."""
    write_set(tmp_path / "mnist")
    (tmp_path / "mnist" / file).write_bytes(content)
    with pytest.raises(DataError) as caught:
        load("mnist", tmp_path)
    assert caught.value.where == str(tmp_path / "mnist" / file)
    assert "neurokd data --download" in caught.value.next_step
    assert status(tmp_path)[1].problem.startswith(caught.value.what)
    return caught.value


GOOD = idx_bytes(np.zeros((40, 28, 28)))


@pytest.mark.parametrize(
    ("content", "what", "got"),
    [
        (b"", "the data file is empty", "0 bytes"),
        (GOOD[:-1], "the IDX file is truncated", f"{40 * 784 - 1} bytes after the header"),
        (GOOD[:16], "the IDX file is truncated", "0 bytes after the header"),
        (GOOD[:9], "the IDX file is truncated", "9 bytes"),
        (GOOD[:3], "the IDX file is truncated", "3 bytes"),
        (GOOD + b"x", "the IDX file is longer than its header says", "more than"),
        (idx_bytes(np.zeros(40)), "the file has a wrong magic number", "0x00000801"),
        (bytes([0, 0, 13]) + GOOD[3:], "the file has a wrong magic number", "0x00000d03"),
        (b"<html>not here</html>", "the file has a wrong magic number", "0x3c68746d"),
        (idx_bytes(np.zeros((40, 28, 27))), "the images have another size", "(28, 27)"),
        (idx_bytes(np.zeros((0, 28, 28))), "the IDX header gives an impossible shape", "(0, 28, 28)"),
        (GOOD[:4] + b"\xff" * 12, "the IDX header gives an impossible shape", "4294967295"),
        (gzip.compress(GOOD, mtime=0)[:-9], "the gzip file is damaged", "end-of-stream"),
        (gzip.compress(GOOD, mtime=0)[:-8] + b"\0" * 8, "the gzip file is damaged", "CRC check failed"),
        (b"\x1f\x8b" + b"x" * 40, "the gzip file is damaged", "method"),
        (gzip.compress(GOOD, mtime=0)[:12] + b"\xff" * 60, "the gzip file is damaged", ""),
        (gzip.compress(b"", mtime=0), "the IDX file is truncated", "0 bytes"),
    ],
)
def test_damaged_images_are_refused(tmp_path: Path, content: bytes, what: str, got: str) -> None:
    error = damage(tmp_path, IMAGES, content)
    assert error.what == what
    assert got in error.got


def test_a_label_out_of_range_is_refused(tmp_path: Path) -> None:
    error = damage(tmp_path, LABELS, idx_bytes(np.full(40, 10)))
    assert (error.what, error.got, error.allowed) == ("a label is out of range", "label 10", "0 .. 9")


def test_another_number_of_labels_is_refused(tmp_path: Path) -> None:
    error = damage(tmp_path, LABELS, idx_bytes(np.zeros(39)))
    assert error.what == "images and labels differ in number"
    assert error.got == f"39 labels, 40 images in {IMAGES}"


def test_a_folder_in_place_of_a_file_is_refused(tmp_path: Path) -> None:
    write_set(tmp_path / "mnist")
    (tmp_path / "mnist" / LABELS).unlink()
    (tmp_path / "mnist" / LABELS).mkdir()
    with pytest.raises(DataError, match="cannot be read") as caught:
        load("mnist", tmp_path)
    assert "directory" in caught.value.got.lower()


def test_missing_files_are_named_with_the_folders_looked_in(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="are not there") as caught:
        load("fashion-mnist", tmp_path)
    assert str(tmp_path / "fashion-mnist") in caught.value.got
    assert str(tmp_path / "FashionMNIST/raw") in caught.value.got
    assert f"neurokd data --download fashion-mnist --data-root {tmp_path}" in caught.value.next_step


def test_a_missing_root_is_said_to_be_missing(tmp_path: Path) -> None:
    with pytest.raises(DataError) as caught:
        load("mnist", tmp_path / "nowhere")
    assert caught.value.got == "the folder does not exist"


def test_an_incomplete_set_names_what_is_missing(tmp_path: Path) -> None:
    write_set(tmp_path / "mnist")
    (tmp_path / "mnist" / LABELS).unlink()
    with pytest.raises(DataError, match="some files of mnist are missing") as caught:
        load("mnist", tmp_path)
    assert caught.value.got == f"3 of 4; missing: {LABELS}"


@settings(deadline=None, max_examples=60)
@given(
    array=hnp.arrays(np.uint8, hnp.array_shapes(min_dims=1, max_dims=3, max_side=5)),
    zipped=st.booleans(),
)
def test_what_is_written_is_read_back(
    tmp_path_factory: pytest.TempPathFactory, array: np.ndarray, zipped: bool
) -> None:
    path = tmp_path_factory.mktemp("idx") / "file"
    path.write_bytes(gzip.compress(idx_bytes(array), mtime=0) if zipped else idx_bytes(array))
    read, _ = read_idx(path, axes=array.ndim)
    np.testing.assert_array_equal(read, array)


@settings(deadline=None, max_examples=200)
@given(position=st.integers(0, 59), value=st.integers(0, 255), cut=st.integers(0, 60), zipped=st.booleans())
def test_any_damage_gives_a_typed_error_or_an_array(
    tmp_path_factory: pytest.TempPathFactory, position: int, value: int, cut: int, zipped: bool
) -> None:
    whole = idx_bytes(np.arange(44).reshape(1, 4, 11))
    content = bytearray(gzip.compress(whole, mtime=0) if zipped else whole)
    content[position] = value
    path = tmp_path_factory.mktemp("idx") / "file"
    path.write_bytes(content[: len(content) - cut])
    try:
        array, _ = read_idx(path, axes=3)
    except DataError:
        return  # anything else fails the test
    assert array.size > 0


@pytest.mark.parametrize(("name", "title"), [("mnist", "MNIST"), ("fashion-mnist", "Fashion-MNIST")])
def test_the_real_sets_are_official(shared_data: Path, name: str, title: str) -> None:
    data = load(name, shared_data, validation=0.1, seed=3)
    assert data.official
    assert data.title == title
    assert (len(data.train), len(data.validation), len(data.test)) == (54_000, 6_000, 10_000)
    assert data.train.images.max() == 255


def test_files_of_the_other_set_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    arrays = write_set(tmp_path / "mnist")
    monkeypatch.setitem(IDX_MD5["fashion-mnist"], "train-labels", md5_of(idx_bytes(arrays[LABELS])))
    with pytest.raises(DataError, match="belongs to fashion-mnist, not to mnist") as caught:
        load("mnist", tmp_path)
    assert caught.value.allowed == "the files of mnist"


def test_a_folder_that_may_not_be_searched_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(self: Path) -> bool:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(Path, "exists", refuse)
    with pytest.raises(DataError, match="the data file cannot be read") as caught:
        load("mnist", tmp_path)
    assert caught.value.got == "Permission denied"


def test_a_root_with_an_impossible_name_is_a_typed_error(tmp_path: Path) -> None:
    with pytest.raises(DataError):
        load("mnist", tmp_path / ("x" * 300))
