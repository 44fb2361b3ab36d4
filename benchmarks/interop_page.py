"""docs/interop.md from benchmarks/results/interop.json."""

from __future__ import annotations


def write_page() -> None:
    """Later."""
