"""The benchmark of training: its page is made from its rows, its check can fail, its ratios are those of the rounds."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("snntorch")

from benchmarks import training, training_page, training_worker  # noqa: E402


def test_the_page_is_that_of_the_rows() -> None:
    assert training_page.main(["--check"]) == 0, "run python -m benchmarks.training_page"


def test_another_page_is_found(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    page = tmp_path / "training.md"
    page.write_text(training_page.PAGE.read_text().replace("| network |", "| net |", 1))
    monkeypatch.setattr(training_page, "PAGE", page)
    assert training_page.main(["--check"]) == 1
    assert training_page.main([]) == 0
    assert training_page.main(["--check"]) == 0


def test_ratios_are_taken_within_rounds() -> None:
    middle, spread = training._ratio(
        "case", "faster", {"slow": [2.0, 6.0, 9.0], "fast": [1.0, 2.0, 1.0]}, "slow", "fast", ">= 3"
    )
    assert (middle.value, middle.met, spread.value) == (3.0, True, "2 to 9 in 3 rounds")


@pytest.mark.parametrize("spec", ["16-12-4", "8x8x1-4c3s2-4"])
def test_check_compares_gradients(spec: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(training_worker, "CLASSES", 4)
    monkeypatch.setattr(training_worker, "T", 4)
    good = training_worker.check(spec)
    assert good["differing"] == 0
    assert good["gradient"] < 1e-5
    real = training_worker.make

    def other(contender: str, spec: str) -> Any:
        module, sat = real(contender, spec)
        return module, (lambda x: sat(x * 0.5)) if contender == "ours" else sat

    monkeypatch.setattr(training_worker, "make", other)
    bad = training_worker.check(spec)
    assert bad["gradient"] > 1e-3
