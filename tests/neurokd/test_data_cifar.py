"""CIFAR-10 in both official layouts: small files made here, hostile pickles, and how copies are told apart."""

from __future__ import annotations

import io
import pickle
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from deploy.errors import DataError
from neurokd.data import load
from neurokd.data.cifar import looks_like_jpeg, read_python_batch

TRAIN = [f"data_batch_{n}" for n in range(1, 6)]
BATCHES = [*TRAIN, "test_batch"]


def rows(count: int, seed: int) -> tuple[np.ndarray, list[int]]:
    rng = np.random.default_rng(seed)
    return rng.integers(0, 256, (count, 3072), np.uint8), [int(n) for n in np.arange(count) % 10]


def as_binary(pixels: np.ndarray, labels: list[int]) -> bytes:
    return b"".join(bytes([label]) + row.tobytes() for label, row in zip(labels, pixels, strict=True))


def as_python(pixels: np.ndarray, labels: list[int], protocol: int = 2) -> bytes:
    return pickle.dumps({b"batch_label": b"x", b"labels": labels, b"data": pixels, b"filenames": [b"a.png"]}, protocol)


def python2_pickle(pixels: np.ndarray, labels: list[int]) -> bytes:
    """A batch as Python 2's cPickle wrote the official ones: 8-bit strings, names under numpy.core.multiarray."""

    def short(text: bytes) -> bytes:
        return b"U" + bytes([len(text)]) + text

    def string(text: bytes) -> bytes:
        return b"T" + len(text).to_bytes(4, "little") + text

    dtype = (
        b"cnumpy\ndtype\n("
        + short(b"u1")
        + b"K\0K\1tR(K\3"
        + short(b"|")
        + b"NNNJ\xff\xff\xff\xffJ\xff\xff\xff\xffK\0tb"
    )
    shape = b"(" + b"M" + len(pixels).to_bytes(2, "little") + b"M" + (3072).to_bytes(2, "little") + b"t"
    start = b"cnumpy.core.multiarray\n_reconstruct\n(cnumpy\nndarray\n(K\0t" + short(b"b") + b"tR"
    array = start + b"(K\1" + shape + dtype + b"\x89" + string(pixels.tobytes()) + b"tb"
    numbers = b"](" + b"".join(b"K" + bytes([n]) for n in labels) + b"e"
    return b"\x80\x02}(" + short(b"data") + array + short(b"labels") + numbers + b"u."


def write_set(folder: Path, make: Callable[[np.ndarray, list[int]], bytes], suffix: str) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for seed, name in enumerate(BATCHES):
        (folder / (name + suffix)).write_bytes(make(*rows(20, seed)))


LAYOUTS = [
    ("cifar-10-batches-bin", as_binary, ".bin"),
    ("cifar-10-batches-py", as_python, ""),
    ("cifar-10-batches-py", python2_pickle, ""),
]


@pytest.mark.parametrize("parent", ["", "cifar10"])
@pytest.mark.parametrize(("folder", "make", "suffix"), LAYOUTS)
def test_reads_every_layout(
    tmp_path: Path, parent: str, folder: str, make: Callable[[np.ndarray, list[int]], bytes], suffix: str
) -> None:
    write_set(tmp_path / parent / folder, make, suffix)
    data = load("cifar10", tmp_path, validation=0)
    train = np.concatenate([rows(20, seed)[0] for seed in range(5)])
    np.testing.assert_array_equal(data.train.images.reshape(100, 3072), train)
    np.testing.assert_array_equal(data.test.images.reshape(20, 3072), rows(20, 5)[0])
    np.testing.assert_array_equal(data.test.labels, np.arange(20) % 10)
    assert data.title == "CIFAR-10 (not the official files)"
    assert data.classes[0] == "airplane"
    assert data.test.images.flags.writeable


@pytest.mark.parametrize("protocol", range(6))
def test_reads_every_pickle_protocol(protocol: int) -> None:
    pixels, labels = rows(7, 1)
    images, read = read_python_batch(Path("x"), as_python(pixels, labels, protocol))
    np.testing.assert_array_equal(images.reshape(7, 3072), pixels)
    assert read.tolist() == labels


def test_reads_text_keys_and_fortran_order() -> None:
    pixels, labels = rows(7, 1)
    content = pickle.dumps({"data": np.asfortranarray(pixels), "labels": labels}, 2)
    images, _ = read_python_batch(Path("x"), content)
    np.testing.assert_array_equal(images.reshape(7, 3072), pixels)


class Hostile:
    def __init__(self, function: object, *arguments: object) -> None:
        self.call = function, arguments

    def __reduce__(self) -> tuple[object, tuple[object, ...]]:
        return self.call  # type: ignore[return-value]


@pytest.mark.parametrize("function", [exec, eval, print, open, subprocess.run, np.load, np.frombuffer, getattr])
def test_a_pickle_that_calls_anything_is_refused_without_calling_it(tmp_path: Path, function: object) -> None:
    marker = tmp_path / "called"
    pixels, labels = rows(2, 0)
    call = Hostile(function, f"open({str(marker)!r}, 'w')")
    content = pickle.dumps({"data": pixels, "labels": labels, "more": call})
    with pytest.raises(DataError, match="python batch cannot be read") as caught:
        read_python_batch(tmp_path / "data_batch_1", content)
    assert "which no CIFAR-10 file needs" in caught.value.got
    assert not marker.exists()


def test_a_known_name_of_another_module_is_refused() -> None:
    with pytest.raises(DataError) as caught:
        read_python_batch(Path("x"), b"cos\ndtype\n.")
    assert "it asks for os.dtype" in caught.value.got


def test_an_object_array_is_refused() -> None:
    content = pickle.dumps({"data": np.array([[{}]], object), "labels": [0]})
    with pytest.raises(DataError) as caught:
        read_python_batch(Path("x"), content)
    assert caught.value.got == "data is not an array of unsigned bytes"


def test_an_unknown_text_encoding_is_refused() -> None:
    content = b"c_codecs\nencode\n(Vx\nVrot13\ntR."
    with pytest.raises(DataError) as caught:
        read_python_batch(Path("x"), content)
    assert caught.value.got == "encoding 'rot13'"


def deep_type_code() -> bytes:
    """An array whose type code is a list nested 100,000 deep: printing it would exhaust the stack."""
    deep = b"]" * 100_000 + b"a" * 99_999
    dtype = b"cnumpy\ndtype\n(" + deep + b"K\0K\1tR"
    array = b"cnumpy.core.multiarray\n_reconstruct\n(cnumpy\nndarray\n(K\0tU\1btR(K\1(K\1K\1t" + dtype + b"\x89U\1xtb"
    return b"\x80\x02}(U\4data" + array + b"U\6labels](K\0eu."


PIXELS, LABEL_LIST = rows(2, 0)


@pytest.mark.parametrize(
    ("content", "what", "got"),
    [
        (b"no pickle", "cannot be read", ""),
        (as_python(PIXELS, LABEL_LIST)[:-100], "cannot be read", ""),
        (pickle.dumps([1, 2]), "cannot be read", "items"),
        (pickle.dumps({"data": PIXELS}), "cannot be read", "no entry 'labels'"),
        (pickle.dumps({"data": PIXELS.astype(np.float32), "labels": [0, 1]}), "cannot be read", "unsigned bytes"),
        (pickle.dumps({"data": "text", "labels": [0, 1]}), "cannot be read", "unsigned bytes"),
        (pickle.dumps({"data": PIXELS, "labels": ["0", "1"]}), "cannot be read", "small whole numbers"),
        (pickle.dumps({"data": PIXELS, "labels": [0, 2**70]}), "cannot be read", "small whole numbers"),
        (pickle.dumps({"data": PIXELS, "labels": [0, 10]}), "a label is out of range", "label 10"),
        (pickle.dumps({"data": PIXELS, "labels": [0]}), "differ in number", "2 images, 1 labels"),
        (pickle.dumps({"data": PIXELS[:, :3071], "labels": [0, 1]}), "another size", "(2, 3071)"),
        (pickle.dumps({"data": PIXELS[:0], "labels": []}), "holds no images", "0 images"),
        (python2_pickle(PIXELS, LABEL_LIST).replace(b"M\x02\x00M", b"M\x03\x00M"), "cannot be read", "9216 bytes"),
        (
            python2_pickle(PIXELS, LABEL_LIST).replace(b"(M\x02\x00M\x00\x0ct", b"U\x01xq\0q\0q\0q\0"),
            "cannot be read",
            "",
        ),
        (deep_type_code(), "cannot be read", ""),
    ],
)
def test_damaged_python_batches_are_refused(content: bytes, what: str, got: str) -> None:
    with pytest.raises(DataError, match=what) as caught:
        read_python_batch(Path("data_batch_1"), content)
    assert got in caught.value.got
    assert len(caught.value.render()) < 1000


@settings(deadline=None, max_examples=300)
@given(position=st.integers(0, 200), value=st.binary(min_size=1, max_size=3))
def test_any_damage_to_a_pickle_gives_a_typed_error_or_a_batch(position: int, value: bytes) -> None:
    content = bytearray(python2_pickle(PIXELS[:1], LABEL_LIST[:1]))
    position %= len(content)
    content[position : position + len(value)] = value
    try:
        images, labels = read_python_batch(Path("x"), bytes(content))
    except DataError:
        return  # anything else fails the test
    assert images.shape == (len(labels), 3, 32, 32)


def load_with(tmp_path: Path, name: str, content: bytes) -> DataError:
    write_set(tmp_path / "cifar-10-batches-bin", as_binary, ".bin")
    path = tmp_path / "cifar-10-batches-bin" / name
    path.write_bytes(content)
    with pytest.raises(DataError) as caught:
        load("cifar10", tmp_path)
    assert caught.value.where == str(path)
    return caught.value


@pytest.mark.parametrize(
    ("content", "what", "got"),
    [
        (b"", "the data file is empty", "0 bytes"),
        (bytes(3073 * 2 - 1), "truncated or of another format", "6145 bytes"),
        (bytes([10]) + bytes(3072), "a label is out of range", "label 10"),
    ],
)
def test_damaged_binary_batches_are_refused(tmp_path: Path, content: bytes, what: str, got: str) -> None:
    error = load_with(tmp_path, "data_batch_3.bin", content)
    assert what in error.what
    assert error.got == got


def test_a_batch_that_cannot_be_opened_is_refused(tmp_path: Path) -> None:
    write_set(tmp_path / "cifar-10-batches-bin", as_binary, ".bin")
    path = tmp_path / "cifar-10-batches-bin/test_batch.bin"
    path.unlink()
    path.mkdir()
    with pytest.raises(DataError, match="cannot be read"):
        load("cifar10", tmp_path)


def test_a_missing_batch_is_named(tmp_path: Path) -> None:
    write_set(tmp_path / "cifar10/cifar-10-batches-py", as_python, "")
    (tmp_path / "cifar10/cifar-10-batches-py/data_batch_4").unlink()
    with pytest.raises(DataError, match="some files of cifar10 are missing") as caught:
        load("cifar10", tmp_path)
    assert caught.value.got == "5 of 6; missing: data_batch_4"


def smooth_images(count: int) -> np.ndarray:
    """Random images without a block grid: noise averaged over 3x3 neighbours."""
    noise = np.random.default_rng(0).integers(0, 256, (count, 3, 34, 34)).astype(np.float64)
    mean = sum(noise[:, :, i : i + 32, j : j + 32] for i in range(3) for j in range(3)) / 9
    return mean.astype(np.uint8)


def test_block_edges_are_told_from_none() -> None:
    plain = smooth_images(1000)
    blocks = plain.reshape(1000, 3, 4, 8, 4, 8).astype(np.float64)
    means = blocks.mean((3, 5), keepdims=True)
    blocky = ((blocks - means) * 0.5 + means).astype(np.uint8).reshape(plain.shape)
    assert not looks_like_jpeg(plain)
    assert looks_like_jpeg(blocky)
    assert not looks_like_jpeg(blocky[:999])  # too few to tell
    assert not looks_like_jpeg(np.zeros_like(plain))


def test_original_images_have_no_block_edges(shared_data: Path) -> None:
    file = shared_data / "cifar10-jpeg/cifar10_lossless4k.npz"
    if not file.is_file():
        pytest.skip("no original CIFAR-10 images on this machine")
    images = np.load(file)["x"].transpose(0, 3, 1, 2)
    assert not any(looks_like_jpeg(images[start : start + 1000]) for start in range(0, 4000, 1000))


@pytest.mark.slow
def test_the_jpeg_copy_keeps_its_honest_name(shared_data: Path, tmp_path: Path) -> None:
    pytest.importorskip("PIL")
    script = shared_data / "expand_cifar10.py"
    subprocess.run([sys.executable, str(script), str(tmp_path)], check=True, stdout=subprocess.DEVNULL, timeout=120)
    data = load("cifar10", tmp_path)
    assert data.title == "CIFAR-10 (JPEG copy)"
    assert not data.official
    assert (len(data.train), len(data.validation), len(data.test)) == (45_000, 5_000, 10_000)
    assert np.bincount(data.test.labels).tolist() == [1000] * 10


def test_python2_sample_is_a_pickle_that_numpy_agrees_with() -> None:
    """The hand-written sample above is what numpy itself would read, so it stands for the official files."""
    entry = pickle.load(io.BytesIO(python2_pickle(PIXELS, LABEL_LIST)), encoding="bytes")
    np.testing.assert_array_equal(entry[b"data"], PIXELS)
    assert entry[b"labels"] == LABEL_LIST
