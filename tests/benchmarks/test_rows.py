"""Rows: goals are computed, files merge, the scoreboard shows what falls short first."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from benchmarks import rows, scoreboard
from benchmarks.rows import Row
from deploy.errors import ConfigError, DataError, FileError


@pytest.mark.parametrize(
    ("value", "goal", "expected"),
    [
        (300, ">= 300", True), (299.9, ">= 300", False), (2.0, "<= 2", True), (2.1, "<= 2", False),
        (3001, ">= 3,000", True), (2, "> 2", False), (1, "< 2", True), (0, "== 0", True), (1, "0", False),
        (21, "21", True), (1e-9, "<= 1e-6", True), ("n/a", ">= 1", False), (None, ">= 1", False), (5, "", None),
    ],
)  # fmt: skip
def test_whether_a_goal_is_met_follows_from_its_text(value: rows.Value, goal: str, expected: bool | None) -> None:
    assert Row("case", "metric", value, goal=goal).met is expected


@pytest.mark.parametrize("goal", ["fast", ">= many", "=> 3", ">= 3 x"])
def test_a_goal_that_cannot_be_computed_is_refused(goal: str) -> None:
    with pytest.raises(ConfigError, match="goal is not understood"):
        Row("case", "metric", 1, goal=goal)


def test_a_figure_that_is_not_finite_is_refused() -> None:
    with pytest.raises(DataError, match="not finite"):
        Row("case", "metric", float("nan"))


def test_rows_merge_by_case_and_metric(tmp_path: Path) -> None:
    rows.write("speed", [Row("a", "x", 1, goal=">= 2"), Row("a", "y", 1)], tmp_path)
    rows.write("speed", [Row("a", "x", 3, goal=">= 2"), Row("b", "x", 5)], tmp_path)
    stored = json.loads((tmp_path / "speed.json").read_text())
    assert [(row["case"], row["metric"], row["value"], row["met"]) for row in stored] == [
        ("a", "x", 3, True), ("a", "y", 1, None), ("b", "x", 5, None),
    ]  # fmt: skip


def test_met_is_never_believed_from_the_file(tmp_path: Path) -> None:
    path = rows.write("speed", [Row("a", "x", 1, goal=">= 2")], tmp_path)
    path.write_text(path.read_text().replace('"met": false', '"met": true'))
    assert [row["met"] for row in rows.read(tmp_path)["speed"]] == [False]


def test_damaged_files_are_named(tmp_path: Path) -> None:
    (tmp_path / "speed.json").write_text('{"case": 1}')
    with pytest.raises(DataError, match="no rows"):
        rows.read(tmp_path)
    (tmp_path / "speed.json").write_text("[")
    with pytest.raises(FileError, match="not JSON"):
        rows.write("speed", [], tmp_path)


def test_the_scoreboard_shows_what_falls_short_first(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    rows.write("one", [Row("met", "x", 3.14159, "s", "<= 4"), Row("told", "x", "text")], tmp_path)
    rows.write("two", [Row("short", "x", 123456.7, goal=">= 1e6")], tmp_path)
    assert scoreboard.main(["--results", str(tmp_path)]) == 0
    printed = capsys.readouterr().out.splitlines()
    assert [line.split("\t")[2] for line in printed[1:4]] == ["short", "met", "told"]
    assert [line.split("\t")[4] for line in printed[1:4]] == ["123,457", "3.142", "text"]
    assert printed[-1] == "1 of 2 goals met, 3 figures"
    scoreboard.main(["--results", str(tmp_path), "--short"])
    assert len(capsys.readouterr().out.splitlines()) == 3


def test_the_committed_results_are_readable() -> None:
    assert rows.read()
