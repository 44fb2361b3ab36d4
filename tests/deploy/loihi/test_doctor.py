"""The doctor says what is there, what is missing, and how to mend it."""

from __future__ import annotations

import subprocess
from collections.abc import Callable
from dataclasses import replace

import pytest

from deploy.errors import LavaMissing
from deploy.loihi import doctor as module
from deploy.loihi import process
from deploy.loihi.client import WorkerInfo
from deploy.loihi.doctor import Check, doctor, healthy, render

INFO = WorkerInfo("/the/python", "3.12.1", "2.4.6", "0.10.0", "0.6.0", True, (), ("no compiler",))


@pytest.fixture
def worker(monkeypatch: pytest.MonkeyPatch) -> Callable[[WorkerInfo | LavaMissing], dict[str, Check]]:
    """Examine with a made-up worker; gives the checks by name."""

    def examine(answer: WorkerInfo | LavaMissing) -> dict[str, Check]:
        def info(python: object) -> WorkerInfo:
            if isinstance(answer, LavaMissing):
                raise answer
            return answer

        monkeypatch.setattr(module, "worker_info", info)
        return {check.name: check for check in doctor()}

    return examine


def test_everything_but_a_board(worker: Callable[[WorkerInfo | LavaMissing], dict[str, Check]]) -> None:
    checks = worker(INFO)
    assert {name for name in ("python", "numpy", "numba", "nir", "h5py", "lava-nc", "lava-dl") if checks[name].ok} == {
        "python", "numpy", "numba", "nir", "h5py", "lava-nc", "lava-dl"
    }  # fmt: skip
    assert "applies it in memory" in checks["lava repair"].found
    assert not checks["Loihi board"].ok
    assert checks["Loihi board"].found == "no compiler"
    assert "INRC" in checks["Loihi board"].mend
    assert healthy(checks.values())


def test_no_lava(worker: Callable[[WorkerInfo | LavaMissing], dict[str, Check]]) -> None:
    checks = worker(LavaMissing("Lava cannot be imported", where="/p", got="no lava", next_step="run `it`"))
    assert checks["lava-nc"].found == "Lava cannot be imported: /p: no lava"
    assert checks["lava-nc"].mend == "run `it`"
    assert "lava-dl" not in checks
    assert healthy(checks.values())


def test_other_lava_and_what_netx_lacks(worker: Callable[[WorkerInfo | LavaMissing], dict[str, Check]]) -> None:
    checks = worker(replace(INFO, lava_nc="0.9.0", netx_missing=("h5py",), repaired=False, board_missing=()))
    assert not checks["lava-nc"].ok
    assert checks["lava-nc"].mend == "neurokd-deploy lava install"
    assert checks["lava-dl netx"].mend == "/the/python -m pip install h5py"
    assert checks["lava repair"].found == "not needed on this Python"
    assert checks["Loihi board"].ok
    assert checks["Loihi board"].mend == ""


def test_no_lava_dl(worker: Callable[[WorkerInfo | LavaMissing], dict[str, Check]]) -> None:
    checks = worker(replace(INFO, lava_dl=""))
    assert checks["lava-dl"].found == "not installed"
    assert checks["lava-dl netx"].mend == "neurokd-deploy lava install"


def test_missing_package(
    worker: Callable[[WorkerInfo | LavaMissing], dict[str, Check]], monkeypatch: pytest.MonkeyPatch
) -> None:
    def version(name: str) -> str:
        if name in ("nir", "torch"):
            raise module.metadata.PackageNotFoundError(name)
        return "1"

    monkeypatch.setattr(module.metadata, "version", version)
    checks = worker(INFO)
    assert checks["nir"].mend == "pip install -e ."
    assert checks["torch"].mend == 'pip install -e ".[train]"'
    assert checks["torch"].needed_for == "training"
    assert not healthy(checks.values())


def test_other_python(
    worker: Callable[[WorkerInfo | LavaMissing], dict[str, Check]], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "PYTHONS", ((3, 7), (3, 8)))
    check = worker(INFO)["python"]
    assert not check.ok
    assert check.mend == "make an environment with Python 3.7 to 3.8"


def test_render_gives_the_command_under_what_is_missing() -> None:
    text = render([Check("a", True, "1.0", "everything"), Check("longer", False, "gone", "training", "do this")])
    assert text.splitlines() == [
        "ok      a       1.0",
        "missing longer  gone",
        "                needed for training: do this",
    ]
    assert render([]) == ""


def test_json_form() -> None:
    made = Check("a", False, "gone", "training", "do this").to_json()
    assert made == {"name": "a", "ok": False, "found": "gone", "needed_for": "training", "mend": "do this"}


@pytest.mark.lava
def test_real_worker(lava: WorkerInfo) -> None:
    checks = {check.name: check for check in doctor()}
    assert checks["lava-nc"].ok
    assert lava.python in checks["lava-nc"].found


def test_netx_needs_neither_torch_nor_matplotlib(lava: WorkerInfo) -> None:
    """Our worker reads netx files with both kept from being imported, so the doctor must not ask for them."""
    worker = process.WORKER.with_name("netx_worker.py")
    script = f"""
import runpy, sys
class Absent:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in ("torch", "torchvision", "matplotlib", "cv2"):
            raise ImportError(name)
sys.meta_path.insert(0, Absent())
ran = runpy.run_path({str(worker)!r})
print(*ran["worker"].NETX_IMPORTS)
"""
    if not lava.lava_dl:
        pytest.skip("no lava-dl in the worker's interpreter; run `neurokd-deploy lava install`")
    done = subprocess.run([lava.interpreter, "-c", script], capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout.split() == ["h5py"]
