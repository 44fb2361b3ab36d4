"""Rows of a part that is measured again take the place of all its earlier ones, also of cases that are no more."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from benchmarks.rows import RESULTS, Row, write
from deploy.files import read_json, write_json


def replace_cases(topic: str, rows: Sequence[Row], start: str, folder: Path = RESULTS) -> Path:
    """Write rows into ``<folder>/<topic>.json`` after the stored rows whose case begins with ``start`` are dropped.

    Raises:
        FileError: the stored file is damaged, or the folder cannot be written.
    """
    path = folder / f"{topic}.json"
    if path.exists():
        write_json(path, [row for row in read_json(path) if not str(row["case"]).startswith(start)])
    return write(topic, rows, folder)
