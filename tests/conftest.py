"""Shared fixtures and the ``--target`` option. Nothing here imports torch: the chip side is tested without it."""

from __future__ import annotations

from pathlib import Path

import pytest

SHARED_DATASETS = Path(__file__).resolve().parents[2] / "shared" / "datasets"
TARGETS = ("reference", "simulator", "lava")


def pytest_addoption(parser: pytest.Parser) -> None:
    """``--target simulator --target lava``: which executions the target tests run on; all of them by default."""
    parser.addoption("--target", action="append", choices=TARGETS, help="execution to test (repeatable; default: all)")


def pytest_report_header(config: pytest.Config) -> str:
    """Say the targets at the top."""
    return f"targets: {', '.join(config.getoption('--target') or TARGETS)}"


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """A test that takes ``target`` runs once on each."""
    if "target" in metafunc.fixturenames:
        chosen = metafunc.config.getoption("--target") or TARGETS
        marks = {"lava": [pytest.mark.lava]}
        metafunc.parametrize("target", [pytest.param(name, marks=marks.get(name, [])) for name in chosen])


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """The folder with the full data sets; skips where it is absent."""
    if not SHARED_DATASETS.is_dir():
        pytest.skip("the full data sets are not on this machine (looked beside the checkout)")
    return SHARED_DATASETS
