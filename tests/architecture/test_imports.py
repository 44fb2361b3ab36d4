"""Who may import whom: the contracts of pyproject.toml, and that the chip side starts without torch or Lava."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
HEAVY = ("torch", "snntorch", "neurokd", "lava")

AFTER_IMPORT = """
import importlib, pathlib, sys
import deploy
room = pathlib.Path(deploy.__file__).parent
for path in sorted(room.rglob("*.py")):
    name = ".".join(["deploy", *path.relative_to(room).with_suffix("").parts]).removesuffix(".__init__")
    if name not in ("deploy.loihi.worker", "deploy.loihi.netx_worker", "deploy.loihi.processes"):
        importlib.import_module(name)
print(sorted({name.partition(".")[0] for name in sys.modules} & set(sys.argv[1:])))
"""

AFTER_HELP = """
import sys
from deploy.cli import main
names, sys.argv = sys.argv[1:], ["neurokd-deploy", "--help"]
try:
    main()
except SystemExit as end:
    print("code", end.code or 0)
print(sorted({name.partition(".")[0] for name in sys.modules} & set(names)))
"""


def run(code: str, *arguments: str) -> list[str]:
    done = subprocess.run(
        [sys.executable, "-c", code, *arguments], cwd=ROOT, capture_output=True, text=True, check=False, timeout=120
    )
    assert done.returncode == 0, done.stderr[-2000:]
    return done.stdout.splitlines()


def test_import_contracts_hold() -> None:
    command = [str(Path(sys.executable).with_name("lint-imports")), "--no-cache"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False, timeout=120)
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-1000:]


def test_importing_every_module_of_deploy_loads_no_torch_and_no_lava() -> None:
    assert run(AFTER_IMPORT, *HEAVY)[-1] == "[]"


def test_help_of_the_command_line_loads_no_torch_and_no_lava() -> None:
    lines = run(AFTER_HELP, *HEAVY)
    assert "Usage" in "".join(lines)
    assert lines[-1] == "[]"


@pytest.mark.parametrize("package", ["deploy", "hardware_configs"])
def test_only_the_worker_names_lava_in_an_import(package: str) -> None:
    """A static look: the import contracts cannot see it where Lava is not installed."""
    room = ROOT / "deploy" / "loihi"
    allowed = {room / name for name in ("worker.py", "netx_worker.py", "hardware.py", "processes/__init__.py")}
    files = [path for path in (ROOT / package).rglob("*.py") if path not in allowed]
    guilty = [
        f"{path.relative_to(ROOT)}:{number}"
        for path in files
        for number, line in enumerate(path.read_text().splitlines(), 1)
        if line.lstrip().startswith(("import lava", "from lava"))
    ]
    assert guilty == []
