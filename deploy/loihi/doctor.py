"""What is installed, what is missing, and the command that mends it. Imports nothing heavy: versions are metadata."""

from __future__ import annotations

import platform
import sys
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from importlib import metadata
from pathlib import Path
from typing import Final

from deploy.errors import NeurokdError
from deploy.loihi.client import WorkerInfo, worker_info
from deploy.loihi.install import PYTHONS, WHEELS
from deploy.loihi.process import INSTALL_COMMAND, INTERPRETER_VARIABLE

CHIP_SIDE: Final = ("numpy", "scipy", "numba", "nir", "h5py", "pydantic", "typer", "rich", "matplotlib", "jinja2")
TRAINING: Final = ("torch", "snntorch", "scikit-learn", "safetensors")
EVERYTHING: Final = "everything"


@dataclass(frozen=True)
class Check:
    """One thing looked at.

    Attributes:
        name: What was looked at.
        ok: True if it is there and usable.
        found: A version, or what is wrong.
        needed_for: What does not work without it; ``everything`` where nothing does.
        mend: The command (or, where there is none, the way) that mends it; empty if ok.
    """

    name: str
    ok: bool
    found: str
    needed_for: str
    mend: str = ""

    def to_json(self) -> dict[str, str | bool]:
        """The ``--json`` form."""
        return asdict(self)


def doctor(python: str | Path | None = None) -> list[Check]:
    """Look at this interpreter and at the worker's; starts the worker once (about 2 s).

    Args:
        python: The worker's interpreter; default as :func:`deploy.loihi.client.interpreter`.
    """
    return [
        _python(),
        *(_package(name, EVERYTHING, "pip install -e .") for name in CHIP_SIDE),
        *(_package(name, "training", 'pip install -e ".[train]"') for name in TRAINING),
        *_lava(python),
    ]


def healthy(checks: Iterable[Check]) -> bool:
    """True if nothing is missing that everything needs."""
    return all(check.ok for check in checks if check.needed_for == EVERYTHING)


def render(checks: Iterable[Check]) -> str:
    """Aligned lines of plain text, the command that mends below what is missing."""
    rows = list(checks)
    width = max((len(check.name) for check in rows), default=0)
    lines = []
    for check in rows:
        lines.append(f"{'ok' if check.ok else 'missing':<8}{check.name:<{width}}  {check.found}")
        if not check.ok:
            lines.append(f"{'':<8}{'':<{width}}  needed for {check.needed_for}: {check.mend}")
    return "\n".join(lines)


def _python() -> Check:
    low, high = PYTHONS
    ok = low <= sys.version_info[:2] <= high
    mend = "" if ok else f"make an environment with Python {low[0]}.{low[1]} to {high[0]}.{high[1]}"
    return Check("python", ok, f"{platform.python_version()} in {sys.executable}", EVERYTHING, mend)


def _package(name: str, needed_for: str, mend: str) -> Check:
    try:
        return Check(name, True, metadata.version(name), needed_for)
    except metadata.PackageNotFoundError:
        return Check(name, False, "not installed", needed_for, mend)


def _lava(python: str | Path | None) -> list[Check]:
    needed_for = "running on Lava"
    try:
        info = worker_info(python)
    except NeurokdError as error:
        found = ": ".join(part for part in (error.what, error.where, error.got) if part)
        return [Check("lava-nc", False, found, needed_for, error.next_step or INSTALL_COMMAND)]
    right = info.lava_nc == WHEELS["lava-nc"]
    found = f"{info.lava_nc} on Python {info.python}, numpy {info.numpy}, in {info.interpreter}"
    note = "needed on this Python; the worker applies it in memory" if info.repaired else "not needed on this Python"
    return [
        Check("lava-nc", right, found, needed_for, "" if right else INSTALL_COMMAND),
        Check("lava repair", True, note, needed_for),
        _lava_dl(info),
        _netx(info),
        _board(info),
    ]


def _lava_dl(info: WorkerInfo) -> Check:
    ok = info.lava_dl == WHEELS["lava-dl"]
    return Check("lava-dl", ok, info.lava_dl or "not installed", "reading netx files", "" if ok else INSTALL_COMMAND)


def _netx(info: WorkerInfo) -> Check:
    missing = [*([] if info.lava_dl else ["lava-dl"]), *info.netx_missing]
    mend = f"{info.interpreter} -m pip install {' '.join(missing)}" if info.lava_dl else INSTALL_COMMAND
    found = f"{', '.join(missing)} not installed" if missing else "all it imports is there"
    return Check("lava-dl netx", not missing, found, "reading netx files", mend if missing else "")


def _board(info: WorkerInfo) -> Check:
    found = "; ".join(info.board_missing) or "Intel's extension is there and a board is named; not proved until a run"
    way = (
        "Intel gives its Lava extension for Loihi to members of INRC; install it on the Loihi host, "
        f"set {INTERPRETER_VARIABLE} to its Python, and name the board (docs/loihi.md)"
    )
    return Check(
        "Loihi board", not info.board_missing, found, "running on a Loihi 2 board", way if info.board_missing else ""
    )
