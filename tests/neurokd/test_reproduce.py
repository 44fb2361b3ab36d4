"""The grid on digits: cells, resuming, failing, and the page made of them."""

from __future__ import annotations

import shutil
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytest.importorskip("torch")

from deploy.errors import ConfigError, NeurokdError  # noqa: E402
from deploy.files import read_json, write_json  # noqa: E402
from neurokd import reproduce as grid  # noqa: E402
from neurokd import reproduce_page, reproduce_processes, reproduce_rows  # noqa: E402
from neurokd.cli_options import grid_config  # noqa: E402
from neurokd.config import Config  # noqa: E402

pytestmark = pytest.mark.train
ALL = [row.name for row in reproduce_rows.ROWS]


SMALL = {
    "networks.teacher": "64-40-10", "networks.assistant": "64-20-10", "networks.student": "64-12-10",
    "encoding.steps": 3, **{f"training.{role}.epochs": 1 for role in ("teacher", "assistant", "student")},
}  # fmt: skip
BROKEN = {"training.student.lr": 1e30}


def config(data: str, seed: int, **changes: Any) -> Config:
    return grid_config({**SMALL, **changes}, None, data, seed)


def run(folder: Path, **options: Any) -> tuple[list[Any], list[str]]:
    said: list[str] = []
    given = {"make_config": config, "work": folder / "work", "out": folder / "cells", "tell": said.append, **options}
    return grid.reproduce(data="digits", **given), said


@pytest.fixture(scope="module")
def done(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("grid")
    failed, said = run(folder, seeds=2)
    assert failed == []
    assert len(said) == 2 * len(ALL)
    return folder


def test_every_cell_is_there_with_its_facts(done: Path) -> None:
    for name in ALL:
        for seed in (0, 1):
            facts = read_json(grid.cell_path(done / "cells", "digits", name, seed))
            assert {"table", "data", "row", "seed", "accuracy", "parameters", "spikes_per_sample"} <= facts.keys()
            assert 5 < facts["accuracy"] <= 100
            assert facts["spikes_per_sample"] > 0
            right = grid.right_of(facts, 450)
            assert 100 * right.mean() == pytest.approx(facts["accuracy"])
    student = read_json(grid.cell_path(done / "cells", "digits", "full-l2", 1))
    plain = read_json(grid.cell_path(done / "cells", "digits", "student", 1))
    assert student["plain_accuracy"] == plain["accuracy"]
    teacher = read_json(grid.cell_path(done / "cells", "digits", "teacher", 1))
    assert student["master_accuracy"] == pytest.approx(teacher["accuracy"])
    assert plain["master_accuracy"] is None


def test_a_finished_grid_is_not_run_again_and_a_lost_cell_is(done: Path) -> None:
    assert run(done, seeds=2) == ([], [])
    lost = grid.cell_path(done / "cells", "digits", "full-kl", 1)
    before = read_json(lost)
    lost.unlink()
    _, said = run(done, seeds=2)
    assert [line.split(":")[0] for line in said] == ["digits full-kl seed 1"]
    assert read_json(lost)["right"] == before["right"]


def test_a_master_whose_cell_came_without_its_checkpoint_is_trained_again(done: Path, tmp_path: Path) -> None:
    """As in a clone, which has the cells and not the networks."""
    shutil.copytree(done / "cells", tmp_path / "cells")
    lost = grid.cell_path(tmp_path / "cells", "digits", "t-ta-s", 1)
    before = read_json(lost)
    lost.unlink()
    _, said = run(tmp_path, seeds=2)
    assert [line.split(":")[0] for line in said] == ["digits t-ta-s seed 1"]
    assert read_json(lost)["right"] == before["right"]


def test_a_master_trained_again_into_another_network_is_told(done: Path, tmp_path: Path) -> None:
    """Another kind of processor sums in another order; here the cell is made to differ."""
    shutil.copytree(done / "cells", tmp_path / "cells")
    grid.cell_path(tmp_path / "cells", "digits", "full-l2", 0).unlink()
    teacher = grid.cell_path(tmp_path / "cells", "digits", "teacher", 0)
    reached = read_json(teacher)["accuracy"]
    write_json(teacher, {**read_json(teacher), "accuracy": 99.5})
    with pytest.warns(grid.OtherNetworkWarning, match=rf"reaches {reached:.2f} %, not 99.50 %"):
        run(tmp_path, seeds=1)
    assert read_json(grid.cell_path(tmp_path / "cells", "digits", "full-l2", 0))["master_accuracy"] == pytest.approx(
        reached
    )
    told = "Taught by another training of their master than its own row tells of: full-l1 s0, full-l2 s0, full-kl s0"
    assert told in reproduce_page.page(tmp_path / "cells", ["digits"], 1)
    assert "another training" not in reproduce_page.page(done / "cells", ["digits"], 2)


def test_rows_that_cannot_be_are_left_out_with_the_reason(tmp_path: Path) -> None:
    """A student that starts as part of its assistant has to be of its kind."""

    def other(data: str, seed: int) -> Config:
        return config(data, seed, **{"networks.assistant": "8x8x1-4c3-10"})

    rows = [row for row in reproduce_rows.ROWS if row.name in ("teacher", "student", "t-ta") or row.start]
    wanted = [(grid.Grid(other("digits", 0), tmp_path / "work", tmp_path), grid.Job("digits", row, 0)) for row in rows]
    said: list[str] = []
    assert grid.compute_missing(wanted, said.append) == []
    assert [line.split(" seed")[0] for line in said if "left out: 64-12-10 is no narrower form" in line] == [
        "digits start-t-ta-s", "digits start-labels-t-ta-s",
    ]  # fmt: skip
    assert len(list(tmp_path.glob("digits-*.json"))) == 3


def test_processes_give_the_cells_that_one_gives(done: Path, tmp_path: Path) -> None:
    said: list[str] = []
    cells = reproduce_processes.Cells("1", tmp_path / "work", tmp_path / "cells", partial(grid_config, SMALL, None))
    assert reproduce_processes.reproduce_in_processes(cells, "digits", 2, 2, said.append) == []
    assert len(said) == 2 * 3
    for name in ("teacher", "ta", "student"):
        for seed in (0, 1):
            one, other = (grid.cell_path(folder / "cells", "digits", name, seed) for folder in (done, tmp_path))
            assert read_json(one)["right"] == read_json(other)["right"]


def test_a_cell_that_fails_in_a_process_comes_back_with_its_reason(tmp_path: Path) -> None:
    cells = reproduce_processes.Cells(
        "1", tmp_path / "work", tmp_path / "cells", partial(grid_config, SMALL | BROKEN, None)
    )
    failed = reproduce_processes.reproduce_in_processes(cells, "digits", 1, 2, lambda line: None)
    assert [job.row.name for job, _ in failed] == ["student"]
    assert "not a number" in failed[0][1].what
    with pytest.raises(ConfigError, match="needs processes"):
        reproduce_processes.reproduce_in_processes(cells, "digits", 1, 0)


def test_the_page_shows_every_row_and_what_is_missing(done: Path, tmp_path: Path) -> None:
    written = reproduce_page.write(done / "cells", ["digits"], 3, tmp_path)
    text = written.read_text()
    assert all(f"| {reproduce_page.NAMES[name]} |" in text for name in ALL)
    assert "Table III" in text
    assert "Not run yet: all of s2." in text
    lost = grid.cell_path(done / "cells", "digits", "full-l1", 1)
    kept = lost.read_bytes()
    lost.unlink()
    assert "Not run yet: full-l1 s1; all of s2." in reproduce_page.page(done / "cells", ["digits"], 3)
    lost.write_bytes(kept)
    assert (tmp_path / "results.png").read_bytes().startswith(b"\x89PNG")


def test_a_cell_made_before_an_option_had_a_name_is_kept(done: Path, tmp_path: Path) -> None:
    shutil.copytree(done, tmp_path / "grid")
    path = grid.cell_path(tmp_path / "grid" / "cells", "digits", "full-l2", 0)
    facts = read_json(path)
    del facts["stage"]["mix"], facts["networks"]["population"]
    write_json(path, facts)
    assert run(tmp_path / "grid", seeds=1) == ([], [])
    facts["stage"]["epochs"] = 7
    write_json(path, facts)
    with pytest.raises(ConfigError, match="another configuration"):
        run(tmp_path / "grid", seeds=1)


def test_a_cell_of_another_configuration_is_refused(done: Path) -> None:
    with pytest.raises(ConfigError, match="another configuration") as caught:
        run(done, seeds=1, make_config=lambda data, seed: config(data, seed, **{"encoding.steps": 4}))
    assert "encoding" in caught.value.got


def test_a_failing_cell_is_kept_told_and_tried_again(tmp_path: Path) -> None:
    failed, said = run(tmp_path, seeds=1, table="1", make_config=partial(config, **BROKEN))
    assert [job.row.name for job, _ in failed] == ["student"]
    assert any("failed" in line for line in said)
    note = tmp_path / "cells" / "digits-student-s0.failed.json"
    assert read_json(note)["error"]
    assert "Failed: digits-student-s0" in reproduce_page.page(tmp_path / "cells", ["digits"], 1)
    write_json(note, read_json(note))
    failed, _ = run(tmp_path, seeds=1, table="1")
    assert failed == []
    assert not note.exists()


def test_rows_come_after_their_masters_and_bring_them() -> None:
    assert [row.name for row in reproduce_rows.rows_of("2")][:2] == ["teacher", "student"]
    names = [row.name for row in reproduce_rows.rows_of("3")]
    assert names.index("t-ta") < names.index("t-ta-s")
    for row in reproduce_rows.ROWS:
        assert not row.master or ALL.index(row.master) < ALL.index(row.name)


@pytest.mark.parametrize(
    ("options", "message"),
    [({"table": "4"}, "no such table"), ({"data": "stl"}, "no such data set"), ({"seeds": 0}, "needs seeds")],
)
def test_what_is_not_there_is_refused(options: dict[str, Any], message: str) -> None:
    with pytest.raises(NeurokdError, match=message):
        list(reproduce_rows.jobs(**{"table": "all", "data": "digits", "seeds": 1, **options}))


def test_without_a_number_a_set_has_as_many_seeds_as_its_goals_ask_for() -> None:
    found = list(reproduce_rows.jobs("1", "all", None))
    seeds = {data: {job.seed for job in found if job.data == data} for data in reproduce_rows.SETS}
    assert seeds == {"mnist": set(range(5)), "fashion-mnist": set(range(5)), "cifar10": set(range(3))}
    assert [job.seed for job in found] == sorted(job.seed for job in found)


def test_mcnemar_of_known_counts() -> None:
    ours, plain = np.array([1] * 15 + [0] * 5 + [1] * 80, bool), np.array([0] * 15 + [1] * 5 + [1] * 80, bool)
    assert reproduce_page.mcnemar([(ours, plain)]) == pytest.approx(0.04139, abs=1e-4)  # binomial, 15 of 20
    assert reproduce_page.mcnemar([(plain, plain)]) is None
