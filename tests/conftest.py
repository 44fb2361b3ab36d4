"""Shared fixtures. Nothing here imports torch, so the chip side can be tested without it."""

from __future__ import annotations

from pathlib import Path

import pytest

SHARED_DATASETS = Path(__file__).resolve().parents[2] / "shared" / "datasets"


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """The folder with the full data sets; skips where it is absent."""
    if not SHARED_DATASETS.is_dir():
        pytest.skip("the full data sets are not on this machine (looked beside the checkout)")
    return SHARED_DATASETS
