"""The grid's cells as figures: means, gains, chances and goals from known cells."""

from __future__ import annotations

import base64
from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytest.importorskip("torch")

from benchmarks import distillation  # noqa: E402
from deploy.files import write_json  # noqa: E402

IMAGES = 10_000


def cell(folder: Path, row: str, seed: int, wrong: int, first: int = 0, validation: float | None = None) -> None:
    """A network that is wrong on ``wrong`` images from ``first`` on."""
    right = np.ones(IMAGES, bool)
    right[first : first + wrong] = False
    facts: dict[str, Any] = {
        "row": row, "seed": seed, "accuracy": 100 * float(right.mean()), "parameters": 7, "spikes_per_sample": 3.0,
        "validation": 100 * float(right.mean()) if validation is None else validation,
        "right": base64.b85encode(np.packbits(right).tobytes()).decode(),
    }  # fmt: skip
    write_json(folder / f"mnist-{row}-s{seed}.json", facts)


def test_figures_of_known_cells(tmp_path: Path) -> None:
    for seed in range(3):
        cell(tmp_path, "teacher", seed, 60)
        cell(tmp_path, "student", seed, 200 + seed)
        cell(tmp_path, "proposed", seed, 180)
        cell(tmp_path, "t-ta-s", seed, 190)
        cell(tmp_path, "start-t-ta-s", seed, 175)
        cell(tmp_path, "labels-t-s", seed, 150)
    found = {row.metric: row for row in distillation.figures(tmp_path, "mnist", tmp_path / "assistants")}
    assert found["accuracy, teacher"].value == pytest.approx(99.4)
    assert found["accuracy, teacher"].met
    assert found["best distilled student"].value == "labels-t-s"
    assert found["best distilled student minus plain"].value == pytest.approx(0.51)
    assert found["best distilled student, p over seeds"].met
    assert found["best distilled student, p over images (McNemar)"].value < 0.05
    assert found["t-ta-s minus proposed"].value == pytest.approx(-0.1)
    assert not found["t-ta-s minus proposed"].met
    assert found["start-t-ta-s minus proposed"].value == pytest.approx(0.05)
    assert found["start-t-ta-s minus proposed"].met
    assert "start-labels-t-ta-s minus labels-t-s" not in found
    assert found["accuracy, proposed"].versions["seeds"] == 3


def test_another_assistant_is_compared_with_students_of_the_same_teacher(tmp_path: Path) -> None:
    assistants = tmp_path / "assistants"
    for seed in range(2):
        cell(tmp_path, "labels-t-s", seed, 150)
        cell(assistants, "labels-t-ta-s", seed, 140)
    cell(assistants, "labels-t-s", 1, 160)  # its teacher is not the grid's
    found = {row.metric: row for row in distillation.figures(tmp_path, "mnist", assistants)}
    gain = found["labels-t-ta-s minus labels-t-s, convolutional TA"]
    assert gain.value == pytest.approx((0.1 + 0.2) / 2)
    assert "networks.assistant=28x28x1" in gain.command
    assert "labels-t-ta-s minus labels-t-s" not in found


def test_a_student_that_is_worse_falls_short(tmp_path: Path) -> None:
    for seed in range(3):
        cell(tmp_path, "student", seed, 150 + seed)
        cell(tmp_path, "full-l1", seed, 500)
    found = {row.metric: row for row in distillation.figures(tmp_path, "mnist", tmp_path / "assistants")}
    assert found["best distilled student minus plain"].met is False
    assert found["accuracy, full-l1"].met is False


def test_the_table_has_a_column_a_set_and_the_goals(tmp_path: Path) -> None:
    cell(tmp_path, "teacher", 0, 60)
    rows = [
        {"case": r.case, "metric": r.metric, "value": r.value, "goal": r.goal, "versions": dict(r.versions)}
        for r in distillation.figures(tmp_path, "mnist", tmp_path / "assistants")
    ]
    text = distillation.table(rows)
    assert "| | MNIST, 1 seed |" in text
    assert "| accuracy, teacher | 99.40 (≥ 98.8) |" in text


def test_no_cells_no_figures(tmp_path: Path) -> None:
    assert distillation.figures(tmp_path, "mnist", tmp_path / "assistants") == []


def test_the_best_row_is_chosen_by_validation_images(tmp_path: Path) -> None:
    for name, wrong, validation in (("student", 200, 98.0), ("full-l2", 100, 97.0), ("full-kl", 150, 98.5)):
        cell(tmp_path, name, 0, wrong, validation=validation)
    found = {row.metric: row.value for row in distillation.figures(tmp_path, "mnist", tmp_path / "assistants")}
    assert found["best distilled student"] == "full-kl"


def test_the_best_row_is_one_of_those_with_every_seed(tmp_path: Path) -> None:
    """A mean over fewer seeds is not comparable: the first seed's images may be the easier ones."""
    for seed in range(2):
        cell(tmp_path, "student", seed, 200)
        cell(tmp_path, "full-l2", seed, 150)
    cell(tmp_path, "full-kl", 0, 100)
    found = {row.metric: row for row in distillation.figures(tmp_path, "mnist", tmp_path / "assistants")}
    assert found["best distilled student"].value == "full-l2"
    assert found["best distilled student"].versions["seeds"] == 2


def test_the_table_says_where_rows_have_other_numbers_of_seeds(tmp_path: Path) -> None:
    for name, seed in (("teacher", 0), ("teacher", 1), ("student", 0)):
        cell(tmp_path, name, seed, 60)
    rows = [
        {**vars(row), "versions": dict(row.versions)}
        for row in distillation.figures(tmp_path, "mnist", tmp_path / "assistants")
    ]
    assert "| | MNIST, 1 to 2 seeds |" in distillation.table(rows)
