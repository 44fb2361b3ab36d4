"""The examples run as they stand, and the README shows the first one as it stands."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

pytest.importorskip("torch")

ROOT = Path(__file__).resolve().parents[1]
EXAMPLES = ROOT / "examples"


def run(script: str, out: Path) -> str:
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        [sys.executable, str(EXAMPLES / script), str(out)],
        capture_output=True, text=True, timeout=280, check=False, env=environment, cwd=out.parent,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-2000:]
    return done.stdout


@pytest.mark.lava
@pytest.mark.train
@pytest.mark.slow
@pytest.mark.parametrize("script", ["ten_lines.py", "bring_your_own.py"])
def test_an_example_ends_verified_on_lava(script: str, tmp_path: Path) -> None:
    text = run(script, tmp_path / "out")
    assert "lava: 32 samples" in text
    assert text.count(": equal") == 2
    assert (tmp_path / "out" / "student.nir").is_file()
    accuracy = float(text.split("%")[-2].split()[-1])
    assert accuracy > 80


def test_their_network_knows_nothing_of_us() -> None:
    source = (EXAMPLES / "their_network.py").read_text()
    imports = [line for line in source.splitlines() if line.startswith(("import", "from"))]
    assert not any("neurokd" in line or "deploy" in line for line in imports)


def test_the_readme_shows_the_ten_lines_as_they_run() -> None:
    readme = (ROOT / "README.md").read_text()
    code = (EXAMPLES / "ten_lines.py").read_text().split("import neurokd\n", 1)[1]
    body = [line for line in code.splitlines() if line.strip() and not line.startswith(("out =", "print("))]
    missing = [line for line in body if line not in readme]
    assert not missing
