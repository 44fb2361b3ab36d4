"""Names that a killed worker leaves in ``/dev/shm``, removed once nothing has them open.

Lava's semaphores are anonymous except while they are being made: glibc's ``sem_open`` first writes a file ``sem.`` and
six characters, links it to the name it was asked for, and Python unlinks that name at once. SIGKILL in between leaves
one of the two. The second carries our prefix (``SEMAPHORES``, which worker.py sets); the first carries nothing, so it
is taken for ours only if it was made while the worker ran and is still there ``SETTLE_SECONDS`` later (a maker that
lives needs microseconds). Neither is touched while a process has it open or mapped.
"""

from __future__ import annotations

import os
import re
import stat
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Final

SHARED: Final = Path("/dev/shm")
PROCESSES: Final = Path("/proc")
SEMAPHORES: Final = "neurokd"  # as in worker.py, which can import nothing from here
SETTLE_SECONDS: Final = 0.1
_NAMED: Final = re.compile(rf"sem\.{SEMAPHORES}-(\d+)-\w+")
_UNNAMED: Final = re.compile(r"sem\.[A-Za-z0-9]{6}")
_SIZE: Final = 32  # bytes of glibc's sem_t on 64-bit machines


def clear(since: float | None = None, *, shared: Path = SHARED) -> list[Path]:
    """Remove what dead workers left; those that were removed.

    Args:
        since: When the worker that has died started, seconds since 1970; None looks only for names of our own.
        shared: Where the system keeps named semaphores; absent on systems other than Linux, which is no error.
    """
    found = list(_candidates(shared, since))  # before looking who has what open: makers hold theirs from the start
    if not found:
        return []
    if since is not None:
        time.sleep(SETTLE_SECONDS)
    held, removed = _open_files(shared), []
    for path in found:
        if str(path) not in held:
            with suppress(OSError):  # gone meanwhile, or not ours to remove
                path.unlink()
                removed.append(path)
    return removed


def _candidates(shared: Path, since: float | None) -> Iterator[Path]:
    with suppress(OSError):
        for path in shared.iterdir():
            named = _maker_is_dead(path.name)
            if (named or (since is not None and _UNNAMED.fullmatch(path.name))) and _is_semaphore(path):
                with suppress(OSError):
                    if named or (since is not None and path.stat().st_mtime >= since):
                        yield path


def _maker_is_dead(name: str) -> bool:
    """Whether a name of our own holds the number of a process that is no more.

    A living one may be between making its name and taking it away; the file is then mapped under glibc's name for it.
    """
    found = _NAMED.fullmatch(name)
    if found is None:
        return False
    try:
        os.kill(int(found[1]), 0)
    except (ProcessLookupError, OverflowError):
        return True
    except PermissionError:
        pass
    return False


def _is_semaphore(path: Path) -> bool:
    """A plain file of this user, of a semaphore's size, that only this user may open."""
    with suppress(OSError):
        found = path.lstat()
        mine = found.st_uid == os.getuid() and stat.S_ISREG(found.st_mode)
        return mine and found.st_size in (0, _SIZE) and stat.S_IMODE(found.st_mode) & 0o077 == 0
    return False


def _open_files(shared: Path) -> set[str]:
    """Files below ``shared`` that a process of this user has open or mapped, where it may be looked at."""
    held: set[str] = set()
    for process in _own_processes():
        with suppress(OSError):  # it ended meanwhile, or is closed to us
            maps = (process / "maps").read_text(errors="replace")
            held.update(line[line.index(f"{shared}/") :] for line in maps.splitlines() if f" {shared}/" in line)
        with suppress(OSError):
            held.update(_target(link) for link in (process / "fd").iterdir())
    return held


def _own_processes() -> Iterator[Path]:
    with suppress(OSError):
        for process in PROCESSES.iterdir():
            with suppress(OSError):
                if process.name.isdigit() and process.stat().st_uid == os.getuid():
                    yield process


def _target(link: Path) -> str:
    with suppress(OSError):
        return os.readlink(link)
    return ""
