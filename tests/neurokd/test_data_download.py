"""Downloads against a server on 127.0.0.1: checksums, mirrors in turn, transfers taken up again, no network."""

from __future__ import annotations

import dataclasses
import gzip
import hashlib
import io
import socket
import tarfile
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from deploy.errors import ConfigError, DataError, FileError
from neurokd.data import REMOTES, Remote, RemoteFile, download, load

CONTENT = bytes(range(256)) * 40
ZIPPED = gzip.compress(CONTENT, mtime=0)


def md5(content: bytes) -> str:
    return hashlib.md5(content, usedforsecurity=False).hexdigest()


class Site(BaseHTTPRequestHandler):
    """Serves ``server.files``; the rest of the attributes make it misbehave."""

    def do_GET(self) -> None:
        server: Server = self.server  # type: ignore[assignment]
        content = server.files.get(self.path)
        start = int((self.headers.get("Range") or "bytes=0-")[6:-1])
        server.asked.append((self.path, start))
        if content is None:
            return self.send_error(404)
        if start and start >= len(content):
            return self.send_error(416)
        if not server.ranges:
            start = 0
        self.send_response(206 if start else 200)
        self.send_header("Content-Length", str(len(content) - start))
        if start:
            self.send_header("Content-Range", f"bytes {start}-{len(content) - 1}/{len(content)}")
        self.end_headers()
        self.wfile.write(content[start : server.stop_after])
        return None

    def log_message(self, *_: object) -> None:
        pass


class Server(ThreadingHTTPServer):
    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Site)
        self.files: dict[str, bytes] = {}
        self.asked: list[tuple[str, int]] = []
        self.ranges = True
        self.stop_after: int | None = None

    @property
    def address(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}/"


@pytest.fixture
def server() -> Iterator[Server]:
    with Server() as site:
        thread = threading.Thread(target=site.serve_forever, args=(0.01,), daemon=True)
        thread.start()
        yield site
        site.shutdown()
        thread.join()


@pytest.fixture(autouse=True)
def no_proxy(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("no_proxy", "127.0.0.1")


def nowhere() -> str:
    """An address on this machine where nobody listens."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return f"http://127.0.0.1:{free.getsockname()[1]}/"


def one_file(*mirrors: str, content: bytes = CONTENT) -> Remote:
    return Remote(mirrors, (RemoteFile("file.gz", len(ZIPPED), md5(content)),), "set")


def partial(root: Path) -> Path:
    return root / "set/.file.gz.partial"


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def test_a_file_is_fetched_checked_and_reported(server: Server, tmp_path: Path) -> None:
    server.files["/file.gz"] = ZIPPED
    seen: list[tuple[str, int, int]] = []
    folder = download("x", tmp_path, remote=one_file(server.address), progress=lambda *step: seen.append(step))
    assert folder == tmp_path / "set"
    assert names(folder) == ["file.gz"]
    assert (folder / "file.gz").read_bytes() == ZIPPED
    assert seen[-1] == ("file.gz", len(ZIPPED), len(ZIPPED))


def test_a_right_file_is_kept_without_asking(server: Server, tmp_path: Path) -> None:
    server.files["/file.gz"] = ZIPPED
    for _ in range(2):
        download("x", tmp_path, remote=one_file(server.address))
    (tmp_path / "set/file.gz").unlink()
    (tmp_path / "set/file").write_bytes(CONTENT)  # unpacked by hand: as good
    download("x", tmp_path, remote=one_file(server.address))
    assert len(server.asked) == 1


def test_another_gzip_header_is_as_good(server: Server, tmp_path: Path) -> None:
    server.files["/file.gz"] = gzip.compress(CONTENT, 1, mtime=77)
    assert names(download("x", tmp_path, remote=one_file(server.address))) == ["file.gz"]


def test_another_file_in_its_place_is_never_overwritten(server: Server, tmp_path: Path) -> None:
    server.files["/file.gz"] = ZIPPED
    (tmp_path / "set").mkdir()
    (tmp_path / "set/file.gz").write_bytes(b"the user's own")
    with pytest.raises(DataError, match="another file is in the place") as caught:
        download("x", tmp_path, remote=one_file(server.address))
    assert (tmp_path / "set/file.gz").read_bytes() == b"the user's own"
    assert caught.value.where == str(tmp_path / "set/file.gz")
    assert not server.asked


def test_the_next_mirror_is_tried(server: Server, tmp_path: Path) -> None:
    server.files["/good/file.gz"] = ZIPPED
    server.files["/wrong/file.gz"] = gzip.compress(b"something else", mtime=0)
    mirrors = (nowhere(), server.address + "missing/", server.address + "wrong/", server.address + "good/")
    assert names(download("x", tmp_path, remote=one_file(*mirrors))) == ["file.gz"]
    assert [path for path, _ in server.asked] == ["/missing/file.gz", "/wrong/file.gz", "/good/file.gz"]


def test_a_broken_transfer_goes_on_where_it_stopped(server: Server, tmp_path: Path) -> None:
    server.files["/file.gz"] = ZIPPED
    server.stop_after = 100
    with pytest.raises(DataError, match="no mirror gave the whole file") as caught:
        download("x", tmp_path, remote=one_file(server.address))
    assert f"the connection ended at 100 of {len(ZIPPED)} bytes" in caught.value.got
    assert names(tmp_path / "set") == [".file.gz.partial"]
    server.stop_after = None
    download("x", tmp_path, remote=one_file(server.address))
    assert names(tmp_path / "set") == ["file.gz"]
    assert [start for _, start in server.asked] == [0, 100]


def test_a_mirror_without_ranges_starts_again(server: Server, tmp_path: Path) -> None:
    server.files["/file.gz"], server.ranges = ZIPPED, False
    (tmp_path / "set").mkdir()
    partial(tmp_path).write_bytes(ZIPPED[:50])
    download("x", tmp_path, remote=one_file(server.address))
    assert (tmp_path / "set/file.gz").read_bytes() == ZIPPED


@pytest.mark.parametrize("left", [b"x" * 50, b"x" * 10_000])
def test_a_partial_file_that_does_not_fit_is_fetched_anew(server: Server, tmp_path: Path, left: bytes) -> None:
    server.files["/file.gz"] = ZIPPED
    (tmp_path / "set").mkdir()
    partial(tmp_path).write_bytes(left)
    download("x", tmp_path, remote=one_file(server.address))
    assert names(tmp_path / "set") == ["file.gz"]
    assert [start for _, start in server.asked] == [len(left), 0]


def test_a_finished_partial_file_only_gets_its_name(server: Server, tmp_path: Path) -> None:
    (tmp_path / "set").mkdir()
    partial(tmp_path).write_bytes(ZIPPED)
    download("x", tmp_path, remote=one_file(server.address))
    assert names(tmp_path / "set") == ["file.gz"]
    assert not server.asked


@pytest.mark.parametrize("content", [gzip.compress(b"other", mtime=0), ZIPPED[:-1], b"<html>login</html>", b""])
def test_a_wrong_checksum_leaves_nothing_behind(server: Server, tmp_path: Path, content: bytes) -> None:
    server.files["/file.gz"] = content
    with pytest.raises(DataError, match="the downloaded file has a wrong checksum") as caught:
        download("x", tmp_path, remote=one_file(server.address))
    assert f"{server.address}file.gz: wrong checksum" in caught.value.got
    assert names(tmp_path / "set") == []


def test_a_stream_that_is_much_too_long_is_cut_off(server: Server, tmp_path: Path) -> None:
    server.files["/file.gz"] = bytes(10_000_000)
    with pytest.raises(DataError, match="wrong checksum") as caught:
        download("x", tmp_path, remote=one_file(server.address))
    assert f"more than {2 * len(ZIPPED)} bytes" in caught.value.got
    assert names(tmp_path / "set") == []


def test_no_network_is_one_error_that_says_so(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="no network: none of the mirrors can be reached") as caught:
        download("x", tmp_path, remote=one_file(nowhere(), "http://no-such-host.invalid/"))
    assert caught.value.exit_code == 3
    assert str(tmp_path / "set") in caught.value.next_step
    assert caught.value.got.count("http://") == 2


def test_a_silent_mirror_is_given_up(tmp_path: Path) -> None:
    with socket.socket() as deaf:
        deaf.bind(("127.0.0.1", 0))
        deaf.listen()
        address = f"http://127.0.0.1:{deaf.getsockname()[1]}/"
        with pytest.raises(DataError, match="no mirror gave the whole file") as caught:
            download("x", tmp_path, remote=one_file(address), timeout=0.2)
    assert "timed out" in caught.value.got


def test_a_mirror_that_speaks_no_http_is_given_up(tmp_path: Path) -> None:
    with socket.socket() as odd:
        odd.bind(("127.0.0.1", 0))
        odd.listen()

        def answer() -> None:
            connection, _ = odd.accept()
            with connection:
                connection.recv(4096)
                connection.sendall(b"nonsense\r\n\r\n")

        thread = threading.Thread(target=answer, daemon=True)
        thread.start()
        with pytest.raises(DataError, match="no mirror gave the whole file"):
            download("x", tmp_path, remote=one_file(f"http://127.0.0.1:{odd.getsockname()[1]}/"), timeout=5)
        thread.join()


def test_a_folder_that_cannot_be_made_is_a_file_error(tmp_path: Path) -> None:
    (tmp_path / "set").write_text("a file")
    with pytest.raises(FileError, match="cannot write the downloaded file"):
        download("x", tmp_path, remote=one_file(nowhere()))


def test_a_partial_file_that_cannot_be_written_is_a_file_error(server: Server, tmp_path: Path) -> None:
    server.files["/file.gz"] = ZIPPED
    (tmp_path / "set").mkdir()
    partial(tmp_path).symlink_to(tmp_path / "no/such/folder")
    with pytest.raises(FileError, match="cannot write the downloaded file") as caught:
        download("x", tmp_path, remote=one_file(server.address))
    assert caught.value.where == str(partial(tmp_path))


def test_a_folder_in_the_place_of_a_file_cannot_be_read(tmp_path: Path) -> None:
    (tmp_path / "set/file.gz").mkdir(parents=True)
    with pytest.raises(DataError, match="cannot be read"):
        download("x", tmp_path, remote=one_file(nowhere()))


def test_a_refused_rename_is_a_file_error(server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> None:
        raise OSError(28, "No space left on device")

    server.files["/file.gz"] = ZIPPED
    monkeypatch.setattr("neurokd.data.mirrors.os.replace", refuse)
    with pytest.raises(FileError) as caught:
        download("x", tmp_path, remote=one_file(server.address))
    assert caught.value.got == "No space left on device"


@pytest.mark.parametrize(("name", "what"), [("digits", "needs no download"), ("imagenet", "unknown data set")])
def test_names_without_a_mirror_are_refused(name: str, what: str) -> None:
    with pytest.raises(DataError, match=what) as caught:
        download(name)
    assert caught.value.allowed == "mnist, fashion-mnist, cifar10"


@pytest.mark.parametrize("mirror", ["file:///etc/", "ftp://host/", "https://host/no-slash"])
def test_mirrors_are_web_addresses(mirror: str) -> None:
    with pytest.raises(ConfigError, match="not a web address"):
        one_file(mirror)


MEMBERS = {"data_batch_1.bin": b"one" * 500, "test_batch.bin": b"two" * 500}


def archive(members: dict[str, bytes], folder: str = "cifar-10-batches-bin") -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w:gz") as tar:
        for name, content in members.items():
            info = tarfile.TarInfo(f"{folder}/{name}")
            info.size = len(content)
            tar.addfile(info, io.BytesIO(content))
    return buffer.getvalue()


def archive_remote(server: Server, content: bytes) -> Remote:
    server.files["/a.tar.gz"] = content
    members = tuple((name, md5(inside)) for name, inside in MEMBERS.items())
    return Remote((server.address,), (RemoteFile("a.tar.gz", len(content), md5(content)),), "set", members)


def test_an_archive_gives_only_the_files_wanted(server: Server, tmp_path: Path) -> None:
    extra = {"../../evil": b"x", "readme.html": b"y"}
    remote = archive_remote(server, archive(extra | MEMBERS))
    folder = download("x", tmp_path, remote=remote)
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == MEMBERS
    assert names(tmp_path) == ["set"]
    download("x", tmp_path, remote=remote)
    assert len(server.asked) == 1


@pytest.mark.parametrize(
    ("content", "what"),
    [
        (archive({"test_batch.bin": MEMBERS["test_batch.bin"]}), "lacks files"),
        (archive(MEMBERS | {"test_batch.bin": b"else"}), "the unpacked file has a wrong checksum"),
        (archive(MEMBERS)[:-30], "the downloaded archive is damaged"),
        (b"no archive at all", "the downloaded archive is damaged"),
    ],
)
def test_a_bad_archive_is_refused(server: Server, tmp_path: Path, content: bytes, what: str) -> None:
    with pytest.raises(DataError, match=what):
        download("x", tmp_path, remote=archive_remote(server, content))
    assert not (tmp_path / "set/test_batch.bin").exists() or what == "lacks files"


def test_every_official_file_has_a_safe_address_size_and_checksum() -> None:
    for name, remote in REMOTES.items():
        assert all(mirror.startswith("https://") for mirror in remote.mirrors), name
        assert all(file.size > 1000 and len(file.md5) == 32 for file in remote.files), name


def test_the_real_files_pass_from_a_mirror_to_a_data_set(server: Server, shared_data: Path, tmp_path: Path) -> None:
    for path in (shared_data / "fashion-mnist").iterdir():
        server.files[f"/{path.name}"] = path.read_bytes()
    remote = dataclasses.replace(REMOTES["fashion-mnist"], mirrors=(server.address,))
    assert download("fashion-mnist", tmp_path, remote=remote) == tmp_path / "fashion-mnist"
    assert load("fashion-mnist", tmp_path).official
