"""One file over HTTP: several mirrors, a partial file that is taken up again, a check before it counts."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from http.client import HTTPException, HTTPResponse
from pathlib import Path
from typing import IO
from urllib.error import HTTPError, URLError
from urllib.request import Request, urlopen

from deploy.errors import DataError, FileError

Progress = Callable[[str, int, int], None]
PIECE = 1 << 18
NO_NETWORK = "unreachable"
WRONG = "wrong checksum"
BROKEN = "broken"


@dataclass(frozen=True)
class Transfer:
    """What to fetch.

    Attributes:
        urls: The same file at several mirrors, in order of preference.
        size: Its bytes, for the progress display; twice that is refused as something else.
        partial: The temporary file; kept when a transfer breaks, taken up again by the next.
        is_right: Whether the finished temporary file is the one wanted.
        progress: Called as ``progress(file, done bytes, total bytes)``, or None.
        timeout: Seconds without a byte before a mirror is given up.
    """

    urls: tuple[str, ...]
    size: int
    partial: Path
    is_right: Callable[[Path], bool]
    progress: Progress | None
    timeout: float


class _Failed(Exception):
    """A mirror did not give the file: which kind of trouble, and its words."""

    def __init__(self, kind: str, reason: str) -> None:
        super().__init__(reason)
        self.kind = kind


def fetch(transfer: Transfer) -> None:
    """Fetch until ``transfer.partial`` is whole and right.

    Raises:
        DataError: no mirror gave the right file.
        FileError: the temporary file cannot be written.
    """
    if _is_done(transfer):
        return
    troubles: list[tuple[str, _Failed]] = []
    for url in transfer.urls:
        try:
            _from_mirror(transfer, url)
        except _Failed as trouble:
            troubles.append((url, trouble))
        else:
            return
    raise _no_mirror(transfer, troubles)


def _is_done(transfer: Transfer) -> bool:
    return _size(transfer.partial) > 0 and transfer.is_right(transfer.partial)


def _from_mirror(transfer: Transfer, url: str) -> None:
    """Go on with a partial file, and once more from the start if what that gives is not right."""
    resumed = _size(transfer.partial) > 0
    try:
        _transfer(transfer, url)
        if _is_done(transfer):
            return
        raise _Failed(WRONG, WRONG)
    except _Failed as trouble:
        if trouble.kind == WRONG:
            transfer.partial.unlink(missing_ok=True)
        if not resumed or trouble.kind != WRONG:
            raise
    _from_mirror(transfer, url)


def _transfer(transfer: Transfer, url: str) -> None:
    start = _size(transfer.partial)
    with _answer(url, start, transfer.timeout) as answer:
        if answer.status != 206 or not answer.headers.get("Content-Range", "").startswith(f"bytes {start}-"):
            start = 0
        length = answer.headers.get("Content-Length", "")
        end = start + int(length) if length.isdigit() else None
        with _writing(transfer.partial), transfer.partial.open("ab" if start else "wb") as stream:
            done = _copy(transfer, answer, stream, start)
    if end is not None and done < end:
        raise _Failed(BROKEN, f"the connection ended at {done} of {end} bytes")


@contextmanager
def _answer(url: str, start: int, timeout: float) -> Iterator[HTTPResponse]:
    headers = {"User-Agent": "neurokd"} | ({"Range": f"bytes={start}-"} if start else {})
    try:
        answer = urlopen(Request(url, headers=headers), timeout=timeout)
    except HTTPError as error:
        kind = WRONG if error.code == 416 else BROKEN  # 416: our partial file is longer than the mirror's
        raise _Failed(kind, f"HTTP {error.code} {error.reason}") from error
    except URLError as error:
        raise _Failed(NO_NETWORK, str(error.reason)) from error
    except (OSError, HTTPException) as error:
        raise _Failed(BROKEN, str(error) or type(error).__name__) from error
    with answer:
        yield answer


def _copy(transfer: Transfer, answer: HTTPResponse, stream: IO[bytes], done: int) -> int:
    while piece := _piece(answer):
        stream.write(piece)
        done += len(piece)
        if done > 2 * transfer.size:
            raise _Failed(WRONG, f"more than {2 * transfer.size} bytes for a file of {transfer.size}")
        if transfer.progress is not None:
            transfer.progress(_name(transfer), done, transfer.size)
    return done


def _piece(answer: HTTPResponse) -> bytes:
    try:
        return answer.read(PIECE)
    except (OSError, HTTPException) as error:
        raise _Failed(BROKEN, str(error) or type(error).__name__) from error


@contextmanager
def _writing(path: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise cannot_write(path, error) from error


def cannot_write(path: Path, error: OSError) -> FileError:
    """The error for a folder or disk that takes no more."""
    return FileError(
        "cannot write the downloaded file",
        where=path,
        got=error.strerror or str(error),
        allowed="a writable folder with free space",
        next_step="choose another --data-root, or free some space",
    )


def _size(path: Path) -> int:
    with _writing(path):
        return path.stat().st_size if path.exists() else 0


def _name(transfer: Transfer) -> str:
    return transfer.urls[0].rsplit("/", 1)[-1]


def _no_mirror(transfer: Transfer, troubles: list[tuple[str, _Failed]]) -> DataError:
    kinds = {trouble.kind for _, trouble in troubles}
    if kinds == {NO_NETWORK}:
        what = "no network: none of the mirrors can be reached"
    elif WRONG in kinds:
        what = "the downloaded file has a wrong checksum"
    else:
        what = "no mirror gave the whole file"
    folder = transfer.partial.parent
    return DataError(
        what,
        where=f"{_name(transfer)} for {folder}",
        got="; ".join(f"{url}: {trouble}" for url, trouble in troubles),
        allowed="the official file from one of its mirrors",
        next_step=f"run the command again with a network, or copy the file into {folder} by hand",
    )
