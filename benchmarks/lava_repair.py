"""Is the repair of Lava sound? Runs the unit tests lava-nc ships, on 3.10 without it and on this Python with it.

    python -m benchmarks.lava_repair [--plain /path/to/python3.10]

The 3.10 side is a fresh environment with lava-nc as its own metadata wants it (numpy below 2); the other side is the
running interpreter, whose Lava ``neurokd-deploy lava install`` put there, with ``deploy/loihi/repair.py`` applied. Both
run the same files of the wheel, and the outcomes are compared test by test.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import subprocess
import sys
import tempfile
import xml.etree.ElementTree as ElementTree
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from benchmarks.rows import Row, write
from deploy.errors import DataError
from deploy.loihi import repair

COMMAND = "python -m benchmarks.lava_repair"
GROUPS = {
    "lif": ["tests/lava/proc/lif"],
    "dense": ["tests/lava/proc/dense"],
    "conv": ["tests/lava/proc/conv"],
    "sparse": ["tests/lava/proc/sparse"],
    "reshaping ports": ["tests/lava/magma/core/process/ports/test_virtual_ports_in_process.py", "-k", "outport"],
}
LAVA = "lava-nc==0.10.0"
RUN = """
import runpy, sys
repair = runpy.run_path(sys.argv[1]) if sys.argv[1] else None
if repair:
    repair["apply"]()
    from lava.magma.core.process.ports.ports import ReshapePort
    repair["mend_reshape"](ReshapePort)
import pytest
sys.exit(pytest.main(sys.argv[2:]))
"""
WHERE = "import json, sysconfig; print(json.dumps(sysconfig.get_path('purelib')))"
VERSIONS = """
import json, platform, numpy, scipy
print(json.dumps({"python": platform.python_version(), "numpy": numpy.__version__, "scipy": scipy.__version__}))
"""
Outcomes = dict[str, str]


def ask(python: str, code: str) -> Any:
    """What ``code`` prints as JSON in another interpreter."""
    return json.loads(subprocess.run([python, "-I", "-c", code], check=True, capture_output=True, text=True).stdout)


def python_310() -> Iterator[str]:
    """Interpreters of Python 3.10 worth trying: on the path, then pyenv's."""
    if found := shutil.which("python3.10"):
        yield found
    root = Path(os.environ.get("PYENV_ROOT", Path.home() / ".pyenv"))
    yield from (str(path) for path in sorted(root.glob("versions/3.10*/bin/python")))


def starts(python: str) -> bool:
    """True if the interpreter runs at all (pyenv's shims may exist and fail)."""
    return subprocess.run([python, "-c", "import ssl"], capture_output=True, check=False).returncode == 0


def plain_environment(folder: Path, python: str) -> str:
    """An environment with lava-nc and everything its metadata pins; returns its interpreter."""
    subprocess.run([python, "-m", "venv", str(folder)], check=True)
    made = str(folder / "bin" / "python")
    subprocess.run([made, "-m", "pip", "install", "--quiet", "--quiet", LAVA, "pytest"], check=True)
    return made


def run_group(python: str, selection: list[str], repaired: bool, folder: Path) -> Outcomes:
    """Outcome of each test of a group, by name."""
    report = folder / "report.xml"
    report.unlink(missing_ok=True)
    path, *options = selection
    tests = str(Path(ask(python, WHERE)) / path)
    script = repair.__file__ if repaired else ""
    quiet = ["-q", "-p", "no:cacheprovider", "--rootdir", str(folder), "-o", "junit_family=xunit1"]
    command = [python, "-I", "-c", RUN, script, tests, *options, *quiet, f"--junitxml={report}"]
    subprocess.run(command, cwd=folder, check=False, capture_output=True, timeout=900, stdin=subprocess.DEVNULL)
    cases = ElementTree.parse(report).getroot().iter("testcase")
    return {test_name(case): outcome(case) for case in cases}


def test_name(case: ElementTree.Element) -> str:
    """``file.Class.test``; the folder before it differs between the environments."""
    group = case.get("classname", "").rpartition(".")[2]
    return ".".join([Path(case.get("file", "")).stem, group, case.get("name", "")])


def outcome(case: ElementTree.Element) -> str:
    """passed, failed, error or skipped."""
    kinds = {"failure": "failed", "error": "error", "skipped": "skipped"}
    return next((kinds[child.tag] for child in case if child.tag in kinds), "passed")


def rows_of(group: str, plain: Outcomes, mended: Outcomes, versions: Mapping[str, Any]) -> list[Row]:
    """Three rows a group: passed on each side, and tests whose outcome differs."""
    if not plain:
        raise DataError("no test of lava-nc was found", where=group, allowed="the tests its wheel ships")
    differing = sum(plain.get(name) != mended.get(name) for name in {*plain, *mended})
    passed = [sum(what == "passed" for what in outcomes.values()) for outcomes in (plain, mended)]
    case, every, rest = f"lava-nc's {group} tests", f"== {len(plain)}", {"command": COMMAND, "versions": versions}
    return [
        Row(case, "passed on 3.10 as shipped", passed[0], "tests", every, **rest),
        Row(case, "passed repaired", passed[1], "tests", every, **rest),
        Row(case, "outcomes unlike 3.10", differing, "tests", "== 0", **rest),
    ]


def measure(plain: str, mended: str, folder: Path) -> list[Row]:
    """All rows."""
    versions = {"lava-nc": "0.10.0", "plain": ask(plain, VERSIONS), "repaired": ask(mended, VERSIONS)}
    rows: list[Row] = []
    for group, selection in GROUPS.items():
        outcomes = [run_group(plain, selection, False, folder), run_group(mended, selection, True, folder)]
        rows += rows_of(group, *outcomes, versions)
        print(*(f"{row.case}: {row.metric} {row.value} (goal {row.goal})" for row in rows[-3:]), sep="\n")
    return rows


def main() -> int:
    """Measure, write, and fail if a goal is missed."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--plain", help="a Python 3.10 (default: python3.10, or pyenv's)")
    options = parser.parse_args()
    base = options.plain or next(filter(starts, python_310()), None)
    if base is None:
        parser.error("no Python 3.10 found; give one with --plain")
    with tempfile.TemporaryDirectory(prefix="lava-repair-") as folder:
        plain = plain_environment(Path(folder) / "plain", base)
        rows = measure(plain, sys.executable, Path(folder))
    write("lava-repair", rows)
    return 0 if all(row.met for row in rows) else 1


if __name__ == "__main__":
    sys.exit(main())
