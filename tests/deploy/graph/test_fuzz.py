"""Damaged files of every kind: findings, never a crash. ``benchmarks/fuzz_nir.py`` runs 10,000 of them."""

from __future__ import annotations

from pathlib import Path

from benchmarks.fuzz_nir import fuzz
from benchmarks.nir_damage import network
from deploy.check import check
from deploy.graph import read, write


def test_the_undamaged_network_can_go_to_the_chip(tmp_path: Path) -> None:
    write(network(), tmp_path / "a.nir")
    assert read(tmp_path / "a.nir") == network()
    assert [f for f in check(tmp_path / "a.nir", "loihi2") if f.severity == "error"] == []


def test_300_damaged_files(tmp_path: Path) -> None:
    result = fuzz(300, 7, tmp_path)
    assert result.crashes == []
    assert len(result.kinds) >= 13
    assert 0 < result.accepted < 150
