"""The user's files are written whole or not at all."""

from __future__ import annotations

import json
import os
from pathlib import Path

import numpy as np
import pytest

from deploy.errors import FileError
from deploy.files import atomic_path, read_json, write_json


def test_a_file_appears_whole_with_its_folders(tmp_path: Path) -> None:
    target = tmp_path / "a" / "b" / "file.txt"
    with atomic_path(target) as path:
        assert path.parent == target.parent
        assert path.suffix == ".txt"
        path.write_text("new")
        assert not target.exists()
    assert target.read_text() == "new"
    assert list(target.parent.iterdir()) == [target]


@pytest.mark.parametrize("error", [RuntimeError("ours"), KeyboardInterrupt()])
def test_a_failure_leaves_the_previous_file_and_nothing_else(tmp_path: Path, error: BaseException) -> None:
    target = tmp_path / "file.txt"
    target.write_text("old")

    def write() -> None:
        with atomic_path(target) as path:
            path.write_text("half")
            raise error

    with pytest.raises(type(error)):
        write()
    assert target.read_text() == "old"
    assert list(tmp_path.iterdir()) == [target]


def test_a_full_disk_is_a_file_error(tmp_path: Path) -> None:
    def write() -> None:
        with atomic_path(tmp_path / "file.txt"):
            raise OSError(28, "No space left on device")

    with pytest.raises(FileError, match="cannot write") as caught:
        write()
    assert caught.value.got == "No space left on device"
    assert "another --out" in caught.value.next_step
    assert list(tmp_path.iterdir()) == []


def test_a_folder_in_the_way_is_a_file_error(tmp_path: Path) -> None:
    (tmp_path / "taken").mkdir()
    with pytest.raises(FileError, match="cannot write"):
        write_json(tmp_path / "taken", 1)
    (tmp_path / "file").write_text("")
    with pytest.raises(FileError, match="cannot write"):
        write_json(tmp_path / "file" / "a.json", 1)


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
def test_a_folder_without_permission_is_a_file_error(tmp_path: Path) -> None:
    tmp_path.chmod(0o500)
    with pytest.raises(FileError, match="cannot write"):
        write_json(tmp_path / "a.json", 1)


def test_json_takes_numpy_and_paths_and_nothing_else(tmp_path: Path) -> None:
    value = {"a": np.float64(1.5), "b": np.int8([[1, 2]]), "c": tmp_path, "d": [True, None], "e": np.bool_(True)}
    write_json(tmp_path / "a.json", value)
    expected = {"a": 1.5, "b": [[1, 2]], "c": str(tmp_path), "d": [True, None], "e": True}
    assert read_json(tmp_path / "a.json") == expected
    assert (tmp_path / "a.json").read_text().endswith("}\n")
    with pytest.raises(TypeError, match="has no JSON form"):
        write_json(tmp_path / "b.json", {1, 2})
    with pytest.raises(ValueError, match="not JSON compliant"):
        write_json(tmp_path / "b.json", float("nan"))
    assert [path.name for path in tmp_path.iterdir()] == ["a.json"]


@pytest.mark.parametrize("content", [b"", b"{", b"\xff\xfe\x00"])
def test_what_is_not_json_is_a_file_error(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "a.json").write_bytes(content)
    with pytest.raises(FileError, match="not JSON") as caught:
        read_json(tmp_path / "a.json")
    assert caught.value.where == str(tmp_path / "a.json")


def test_a_missing_file_is_a_file_error(tmp_path: Path) -> None:
    for path in (tmp_path / "none.json", tmp_path):
        with pytest.raises(FileError, match="cannot read"):
            read_json(path)


def test_json_is_what_was_written(tmp_path: Path) -> None:
    write_json(tmp_path / "a.json", {"b": 1, "a": 2})
    assert list(json.loads((tmp_path / "a.json").read_text())) == ["b", "a"]
