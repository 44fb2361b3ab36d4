"""Put Lava into an environment: lava-nc 0.10.0 and lava-dl 0.6.0, without the pins that keep them on Python 3.10.

lava-nc declares Python 3.10 and numpy below 2; lava-dl also torch below 2.4, OpenCV, torchvision and an old pytest.
What the parts used here import is numpy, scipy, networkx and asteval (the modules loaded after a run of ``worker.py``).
So pip is told not to look at what the two wheels ask for, and their real needs are installed beside them.

``python -m deploy.loihi.install`` does the same as ``neurokd-deploy lava install``.
"""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Final

from deploy.errors import LavaMissing, NeurokdError
from deploy.loihi.client import worker_info
from deploy.loihi.process import interpreter

WHEELS: Final = {"lava-nc": "0.10.0", "lava-dl": "0.6.0"}
NEEDS: Final = {
    "numpy": "numpy>=1.24.4,<3",
    "scipy": "scipy>=1.10.1",
    "networkx": "networkx>=2.8,<4",
    "asteval": "asteval>=0.9.31,<0.10",
}
PYTHONS: Final = ((3, 10), (3, 13))
PROBE: Final = """
import importlib.metadata as m, json, sys
def version(name):
    try: return m.version(name)
    except m.PackageNotFoundError: return ""
print(json.dumps({"python": list(sys.version_info[:3]), "found": {n: version(n) for n in sys.argv[1:]}}))
"""


@dataclass(frozen=True)
class Report:
    """What an installation found and did.

    Attributes:
        python: The interpreter installed into.
        installed: What pip was asked for; empty when everything was there.
        versions: Python, Lava and numpy as the worker reports them after importing Lava.
    """

    python: str
    installed: tuple[str, ...]
    versions: dict[str, str]

    def to_json(self) -> dict[str, Any]:
        """The ``--json`` form."""
        return asdict(self)

    def __str__(self) -> str:
        """One line on what was done, one on what is there."""
        done = f"installed {', '.join(self.installed)}" if self.installed else "nothing to do: Lava is there"
        there = ", ".join(f"{name} {version}" for name, version in self.versions.items() if version)
        return f"{done}\n{there} in {self.python}"


def install(python: str | Path | None = None) -> Report:
    """Install Lava where it is missing, then prove that the worker can import it. A second call changes nothing.

    Args:
        python: The interpreter to install into; default as :func:`deploy.loihi.client.interpreter`.

    Raises:
        LavaMissing: the interpreter does not start, is no Python 3.10 to 3.13, pip fails, or Lava does not import.
    """
    target = interpreter(python)
    state = _probe(target)
    _check_python(target, tuple(state["python"]))
    found: dict[str, str] = state["found"]
    needs = [NEEDS[name] for name in NEEDS if not found[name]]
    wheels = [f"{name}=={version}" for name, version in WHEELS.items() if found[name] != version]
    if needs:
        _pip(target, needs)
    if wheels:
        _pip(target, ["--no-deps", "--ignore-requires-python", *wheels])
    return Report(target, (*needs, *wheels), worker_info(target).versions())


def _probe(python: str) -> dict[str, Any]:
    done = _run([python, "-I", "-c", PROBE, *NEEDS, *WHEELS])
    try:
        state: dict[str, Any] = json.loads(done.stdout)
        return state
    except ValueError as error:
        raise LavaMissing(
            "the interpreter does not answer like a Python",
            where=python,
            got=(done.stderr or done.stdout).strip()[-300:] or "nothing",
            allowed="a Python 3.10 to 3.13",
        ) from error


def _run(command: Sequence[str]) -> subprocess.CompletedProcess[str]:
    try:
        return subprocess.run(command, capture_output=True, text=True, stdin=subprocess.DEVNULL, check=False)
    except OSError as error:
        raise LavaMissing(
            "the interpreter to install Lava into cannot be started",
            where=command[0],
            got=error.strerror or str(error),
            allowed="a Python 3.10 to 3.13",
        ) from error


def _check_python(python: str, version: tuple[int, ...]) -> None:
    low, high = PYTHONS
    if not low <= version[:2] <= high:
        raise LavaMissing(
            "Lava does not run on this Python",
            where=python,
            got=".".join(map(str, version)),
            allowed=f"{low[0]}.{low[1]} to {high[0]}.{high[1]}",
            next_step="make an environment with such a Python and set NEUROKD_LAVA_PYTHON to its interpreter",
        )


def _pip(python: str, arguments: Sequence[str]) -> None:
    command = [python, "-m", "pip", "install", "--quiet", "--disable-pip-version-check", "--no-input", *arguments]
    done = _run(command)
    if done.returncode != 0:
        lines = [line.strip() for line in done.stderr.splitlines() if line.strip()]
        raise LavaMissing(
            "pip could not install what Lava needs",
            where=" ".join(command),
            got=" | ".join(lines[-6:])[-900:] or f"exit code {done.returncode}",
            allowed="pip and a package registry or a folder of wheels (pip's --find-links)",
            next_step="run the command by hand; without pip in that Python, `python -m ensurepip` first",
        )


def main() -> int:
    """Command line of this module; prints the report or the error."""
    try:
        print(install())
    except NeurokdError as error:
        print(error.render(), file=sys.stderr)
        return error.exit_code
    return 0


if __name__ == "__main__":
    sys.exit(main())
