"""docs/loihi.md holds what the results say, and every table of it has rows."""

from __future__ import annotations

from pathlib import Path

import pytest

from benchmarks import loihi_page


def test_the_page_is_up_to_date(capsys: pytest.CaptureFixture[str]) -> None:
    assert loihi_page.main(["--check"]) == 0, "run python -m benchmarks.loihi_page"
    assert "up to date" in capsys.readouterr().out


def test_an_old_page_is_seen_and_written_anew(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(loihi_page, "PAGE", tmp_path / "loihi.md")
    assert loihi_page.main(["--check"]) == 1
    assert loihi_page.main([]) == 0
    assert loihi_page.main(["--check"]) == 0


def test_every_table_has_rows() -> None:
    blocks = loihi_page.PAGE.read_text(encoding="utf-8").split("| case | figure |")[1:]
    assert len(blocks) == 5
    for block in blocks:
        assert len([line for line in block.splitlines() if line.startswith("| ")]) >= 2
