"""Files are checked object by object before anything is read; nothing is followed, nothing absurd allocated."""

from __future__ import annotations

import os
import tracemalloc
import zlib
from collections.abc import Callable
from pathlib import Path

import h5py
import numpy as np
import pytest

from deploy.errors import FileError, GraphError
from deploy.graph.hdf5 import Limits, read_tree


def make(path: Path, fill: Callable[[h5py.File], object]) -> Path:
    with h5py.File(path, "w") as file:
        fill(file)
    return path


def test_every_kind_of_value_comes_back(tmp_path: Path) -> None:
    array = np.arange(6, dtype=np.float32).reshape(2, 3)

    def fill(file: h5py.File) -> None:
        file["text"] = "Grüße"
        file["fixed"] = np.bytes_(b"abc")
        file["rows"] = [("a", "bc"), ("d", "")]
        file["words"] = ["x", "y"]
        file["none"] = np.zeros((0, 2))
        file["flag"] = True
        file.create_dataset("gz", data=array, compression="gzip", shuffle=True, fletcher32=True)
        file.create_dataset("lzf", data=array, compression="lzf")
        file["group/inner"] = array
        file["group"].attrs["x"] = 1

    tree, left_out = read_tree(make(tmp_path / "a.nir", fill), Limits())
    inner = tree["group"]
    assert isinstance(inner, dict)
    assert (tree["text"], tree["fixed"], tree["words"]) == ("Grüße", "abc", ["x", "y"])
    assert tree["rows"] == [["a", "bc"], ["d", ""]]
    assert np.shape(tree["none"]) == (0, 2)
    assert tree["flag"]
    assert all(np.array_equal(value, array) for value in (tree["gz"], tree["lzf"], inner["inner"]))
    assert not inner["inner"].flags.writeable
    assert left_out == ["1 HDF5 attributes at /group"]


def hard_loop(file: h5py.File) -> None:
    file["a/b"] = 1
    file["a/up"] = file["a"]


def virtual(file: h5py.File) -> None:
    layout = h5py.VirtualLayout((3,), "f8")
    layout[:] = h5py.VirtualSource("/etc/passwd", "x", (3,))
    file.create_virtual_dataset("v", layout)


def external(file: h5py.File) -> None:
    file.create_dataset("e", shape=(3,), dtype="f8", external=[("/etc/passwd", 0, 24)])


def deep(file: h5py.File) -> None:
    file.create_group("/".join("g" * 60))


def bomb(file: h5py.File) -> None:
    data = file.create_dataset("z", shape=(40_000,), dtype="f8", chunks=(40_000,), compression="gzip")
    data.id.write_direct_chunk((0,), zlib.compress(bytes(300 * 2**20), 9))


def fat_chunk(file: h5py.File) -> None:
    data = file.create_dataset("z", shape=(2,), dtype="f8", chunks=(2,), compression="gzip")
    data.id.write_direct_chunk((0,), os.urandom(70_000))


def scale_offset(file: h5py.File) -> None:
    file.create_dataset("s", data=np.arange(9), scaleoffset=0, chunks=(9,))


def many(file: h5py.File) -> None:
    for index in range(60):
        file[f"d{index}"] = index


REFUSED: list[tuple[str, Callable[[h5py.File], object], str]] = [
    ("soft link", lambda f: f.__setitem__("l", h5py.SoftLink("/x")), "a link to elsewhere is not followed"),
    ("external link", lambda f: f.__setitem__("l", h5py.ExternalLink("x.h5", "/")), "a link to elsewhere"),
    ("hard loop", hard_loop, "under two names"),
    ("named type", lambda f: f.__setitem__("t", np.dtype("f8")), "neither group nor data set"),
    ("reference", lambda f: f.create_dataset("r", data=f.ref), "type that is not read"),
    ("references", lambda f: f.create_dataset("r", data=[f.ref], dtype=h5py.ref_dtype), "type that is not read"),
    ("complex", lambda f: f.__setitem__("c", 1j), "type that is not read"),
    ("record", lambda f: f.__setitem__("c", np.zeros(2, [("a", "i4")])), "type that is not read"),
    ("ragged", lambda f: f.create_dataset("v", (2,), dtype=h5py.vlen_dtype("f8")), "type that is not read"),
    ("empty", lambda f: f.__setitem__("e", h5py.Empty("f8")), "without a value"),
    ("virtual", virtual, "another file is not followed"),
    ("external data", external, "another file is not followed"),
    ("deep", deep, "nested too deep"),
    ("filter", scale_offset, "compression that is not read"),
    ("bomb", bomb, "decompresses to more than it says"),
    ("fat chunk", fat_chunk, "stored larger than it says"),
    ("huge", lambda f: f.create_dataset("h", (2**40,), "f4"), "more data than is taken"),
    ("huge chunks", lambda f: f.create_dataset("h", (2**62,), "f4", chunks=(64,)), "more data than is taken"),
    ("large chunk", lambda f: f.create_dataset("h", (4,), "f8", chunks=(2**26 + 1,), maxshape=(None,)), "a chunk is"),
    ("not stored", lambda f: f.create_dataset("h", (1000,), "f4"), "less data is stored"),
    ("chunks not stored", lambda f: f.create_dataset("h", (1000,), "f4", chunks=(10,)), "less data is stored"),
    ("axes", lambda f: f.__setitem__("a", np.zeros((1,) * 9)), "too many axes"),
    ("objects", many, "too many objects"),
    ("long text", lambda f: f.__setitem__("t", "x" * 2**19), "text is too long"),
    ("wide text", lambda f: f.create_dataset("t", (1,), "S300000"), "too much text"),
    ("many texts", lambda f: f.create_dataset("t", (2**19,), h5py.string_dtype()), "too much text"),
    ("text in 3 axes", lambda f: f.__setitem__("t", np.full((1, 1, 1), "x", object)), "too much text"),
    ("bytes", lambda f: f.__setitem__("t", b"\xff\xfe"), "not UTF-8"),
    ("name", lambda f: f.create_group("a\nb"), "name that cannot be printed"),
    ("name bytes", lambda f: f.create_group(b"\xff"), "name that cannot be printed"),
]


@pytest.mark.parametrize(("fill", "message"), [case[1:] for case in REFUSED], ids=[case[0] for case in REFUSED])
def test_what_is_refused(tmp_path: Path, fill: Callable[[h5py.File], object], message: str) -> None:
    path = make(tmp_path / "a.nir", fill)
    tracemalloc.start()
    with pytest.raises(GraphError, match=message) as caught:
        read_tree(path, Limits(max_objects=50))
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 8 * 2**20
    assert caught.value.where
    assert caught.value.next_step


def test_texts_pointing_at_one_huge_text_are_not_all_held(tmp_path: Path) -> None:
    path = make(tmp_path / "a.nir", lambda f: f.__setitem__("t", ["x" * 2**17] * 64))
    with pytest.raises(GraphError, match="text is too long"):
        read_tree(path, Limits(max_bytes=2**20))


def test_the_limit_is_the_sum_of_all(tmp_path: Path) -> None:
    def fill(file: h5py.File) -> None:
        for index in range(4):
            file[f"d{index}"] = np.ones(100, dtype=np.int8)

    path = make(tmp_path / "a.nir", fill)
    read_tree(path, Limits(max_bytes=3200))
    with pytest.raises(GraphError, match="more data than is taken") as caught:
        read_tree(path, Limits(max_bytes=3199))
    assert "max_bytes" in caught.value.allowed


@pytest.mark.parametrize(("content", "got"), [(b"", "it is empty"), (b"PK\x03\x04" + bytes(99), "it starts with")])
def test_what_is_not_hdf5(tmp_path: Path, content: bytes, got: str) -> None:
    path = tmp_path / "a.nir"
    path.write_bytes(content)
    with pytest.raises(GraphError, match="not HDF5") as caught:
        read_tree(path, Limits())
    assert got in caught.value.got


def test_a_signature_alone_is_a_damaged_file(tmp_path: Path) -> None:
    path = tmp_path / "a.nir"
    path.write_bytes(b"\x89HDF\r\n\x1a\n" + bytes(200))
    with pytest.raises(GraphError, match="HDF5 structure cannot be read"):
        read_tree(path, Limits())


def test_a_truncated_file_is_damaged(tmp_path: Path) -> None:
    path = make(tmp_path / "a.nir", lambda f: f.__setitem__("x", np.arange(1000)))
    path.write_bytes(path.read_bytes()[:-500])
    with pytest.raises(GraphError, match="HDF5 structure cannot be read"):
        read_tree(path, Limits())


def test_what_is_no_file_or_not_there(tmp_path: Path) -> None:
    with pytest.raises(FileError, match="cannot read the file"):
        read_tree(tmp_path / "none.nir", Limits())
    with pytest.raises(FileError, match="cannot read the file"):
        read_tree(Path("a\0b"), Limits())
    with pytest.raises(FileError, match="not a plain file"):
        read_tree(tmp_path, Limits())
    os.mkfifo(tmp_path / "fifo")
    with pytest.raises(FileError, match="not a plain file"):
        read_tree(tmp_path / "fifo", Limits())
