"""Measurements with goals; run from the repository's root: ``python -m benchmarks.run``."""
