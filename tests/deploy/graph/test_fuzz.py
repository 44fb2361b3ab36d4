"""Damaged files of every kind: findings, never a crash. ``benchmarks/fuzz_nir.py`` runs 10,000 of them."""

from __future__ import annotations

import runpy
from pathlib import Path
from typing import Any

import pytest

from deploy.check import check
from deploy.graph import read, write

SCRIPT = Path(__file__).resolve().parents[3] / "benchmarks" / "fuzz_nir.py"


@pytest.fixture(scope="module")
def script() -> dict[str, Any]:
    return runpy.run_path(str(SCRIPT))


def test_the_undamaged_network_can_go_to_the_chip(script: dict[str, Any], tmp_path: Path) -> None:
    write(script["network"](), tmp_path / "a.nir")
    assert read(tmp_path / "a.nir") == script["network"]()
    assert [f for f in check(tmp_path / "a.nir", "loihi2") if f.severity == "error"] == []


def test_300_damaged_files(script: dict[str, Any], tmp_path: Path) -> None:
    result = script["fuzz"](300, 7, tmp_path)
    assert result.crashes == []
    assert len(result.kinds) >= 13
    assert 0 < result.accepted < 150


@pytest.mark.slow
@pytest.mark.timeout(3600)
def test_10_000_damaged_files(script: dict[str, Any], tmp_path: Path) -> None:
    result = script["fuzz"](10_000, 8, tmp_path)
    assert result.crashes == []
    assert all(row["met"] for row in script["rows"](result, 8))
