"""The rows of the fine-tuning grid: p-values of known cases, the front, tables and rows that follow from the cells."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytest.importorskip("torch", reason="the training side needs torch")

from benchmarks import finetune_cells, finetune_tables, pareto  # noqa: E402
from benchmarks.finetune import CELLS, Bench, cell_path, cells  # noqa: E402
from benchmarks.finetune_measures import packed, unpacked  # noqa: E402
from benchmarks.finetune_sets import BUDGETS, METHODS, SETS, WIDTHS  # noqa: E402
from deploy.errors import ConfigError  # noqa: E402
from deploy.files import write_json  # noqa: E402
from neurokd.methods import METHODS as WORDS  # noqa: E402
from neurokd.spec import NetworkSpec  # noqa: E402


def cell(name: str, right: Any, data: str = "mnist", seed: int = 0, **facts: Any) -> dict[str, Any]:
    right = np.asarray(right, bool)
    common = {"synops": 100.0, "energy_J": 1e-6, "weights": 10, "differing_spikes": 0, "profiled": 1000, "title": "T"}
    return {
        **common, "data": data, "seed": seed, "cell": name, "accuracy": 100 * float(right.mean()),
        "correct": packed(right), **facts,
    }  # fmt: skip


def right(count: int, shift: int = 0) -> np.ndarray:
    return np.roll(np.arange(finetune_cells.TESTED) < count, shift)


def test_answers_survive_as_text() -> None:
    given = np.random.default_rng(0).random(finetune_cells.TESTED) < 0.9
    np.testing.assert_array_equal(unpacked(packed(given), finetune_cells.TESTED), given)


@pytest.mark.parametrize(
    ("least", "count", "p"), [(0, 0, 1.0), (0, 1, 1.0), (0, 10, 2 / 1024), (3, 10, 0.34375), (5, 10, 1.0)]
)
def test_p_values_of_fair_coins(least: int, count: int, p: float) -> None:
    assert finetune_cells.binomial(least, count) == pytest.approx(p)


def test_mcnemar_counts_what_only_one_gets_right_over_all_seeds() -> None:
    pairs = [(cell("a", right(9000)), cell("b", right(8990))), (cell("a", right(10, 0)), cell("b", right(10, 2)))]
    assert finetune_cells.mcnemar(pairs)[:2] == (12, 2)
    assert finetune_cells.mcnemar(pairs)[2] == pytest.approx(finetune_cells.binomial(2, 14))


def test_the_front_holds_what_nothing_beats() -> None:
    points: dict[str, Any] = {
        "dear": (9.0, 99.0, []),
        "cheap": (1.0, 90.0, []),
        "bad": (9.5, 95.0, []),
        "mid": (4.0, 95.0, []),
    }
    assert finetune_cells.front(points) == {"dear", "cheap", "mid"}


def made_up() -> finetune_cells.Grid:
    found = []
    for seed in (0, 1):
        found += [cell(role, right(9700), seed=seed) for role in ("teacher", "assistant", "student")]
        for bits in WIDTHS:
            for number, method in enumerate(METHODS):
                found.append(cell(f"b{bits}-{method}", right(9600 + 20 * number), seed=seed))
            layers = [{"agreement": 99.5}, {"agreement": 98.5}]
            found.append(cell(f"b{bits}-nir", right(9650), seed=seed, layers=layers))
            found += [cell(f"b{bits}-{m}-few", right(n), seed=seed) for m, n in (("ce", 9500), ("sat-ce", 9580))]
        for bits, share in BUDGETS:
            tried = [{"how": "weights", "validation": 96.0, "fits": True, "epochs": 5}]
            name = f"b{bits}-synops{round(100 * share)}"
            found.append(cell(name, right(9660), seed=seed, synops=100 * share, tried=tried, won="weights"))
    return finetune_cells.Grid(found)


def test_rows_follow_from_the_cells() -> None:
    rows = {row.metric: row for row in pareto.rows(made_up())}
    assert rows["float student minus chip at 8 bits, SAT + CE"].value == pytest.approx(0.4)
    assert rows["float student minus chip at 8 bits, SAT + CE"].met is False
    assert rows["float student minus its NIR file quantized to 4 bits"].value == pytest.approx(0.5)
    assert rows["spikes that agree with the float graph at 4 bits, worst layer, calibration"].value == 98.5
    assert rows["3 bits: SAT + CE minus CE alone"].value == pytest.approx(0.4)
    assert rows["3 bits: SAT + CE minus CE alone, p (McNemar, pooled images)"].met is True
    assert rows["3 bits: SAT + CE, 1 image in 10 minus CE alone"].value == pytest.approx(0.8)
    assert rows["points lost at 0.5 of the synops, 8 bits, against float student"].met is True
    assert rows["synops used of 0.5, 8 bits, counted on test images"].met is True
    assert rows["differing spikes, torch forward against the simulator"].met is True


def test_tables_and_plot_follow_from_the_cells(tmp_path: Path) -> None:
    text = "\n".join(f"<!-- table finetune-{name} -->\nold\n<!-- end -->" for name in finetune_tables.TABLES)
    page = finetune_tables.filled(text, made_up())
    assert "old" not in page
    assert "| 3 bits, SAT + CE, 1 image in 10 | 95.80 : 95.00 | +0.80 | 2 of 2 |" in page
    assert "| 8 bits, SAT + CE | 96.60 ± 0.00 |" in page
    assert finetune_tables.filled(page, made_up()) == page
    pareto.plot(made_up(), tmp_path / "plot.png")
    assert (tmp_path / "plot.png").stat().st_size > 10_000


def test_the_page_is_that_of_the_cells() -> None:
    if not CELLS.is_dir():
        pytest.skip("no cell of the grid is stored here")
    assert pareto.report_stale(pareto.PAGE.read_text(encoding="utf-8"), finetune_cells.Grid(cells(CELLS))) == 0
    assert not re.search(r"\bnan\b", pareto.PAGE.read_text(encoding="utf-8"))


def test_a_stored_cell_is_not_computed_again(tmp_path: Path) -> None:
    bench = Bench("mnist", 0, (), tmp_path, tmp_path)
    path = cell_path("mnist", 0, "b8-none", tmp_path)
    path.write_text("{}")
    bench._cell("b8-none", lambda: pytest.fail("computed again"))
    assert path.read_text() == "{}"


def test_a_cell_of_another_setup_is_refused(tmp_path: Path) -> None:
    bench, path = Bench("mnist", 0, (), tmp_path, tmp_path), cell_path("mnist", 0, "b4-ce", tmp_path)
    made = bench.setup.of_cell("b4-ce")
    write_json(path, {"setup": {key: value for key, value in made.items() if key != "precision"}})
    bench._cell("b4-ce", lambda: pytest.fail("computed again"))  # an option of today at its default
    write_json(path, {"setup": {**made, "epochs": made["epochs"] + 1}})
    with pytest.raises(ConfigError, match="another setup"):
        bench._cell("b4-ce", lambda: pytest.fail("computed again"))


def test_stored_cells_are_of_todays_setups() -> None:
    for one in cells():
        assert one["setup"] == SETS[one["data"]].of_cell(one["cell"]), (one["data"], one["seed"], one["cell"])


def test_every_student_is_four_times_smaller_than_its_teacher() -> None:
    for setup in SETS.values():
        sizes = {role: NetworkSpec.parse(spec).parameters() for role, spec in setup.networks.items()}
        assert 4 * sizes["student"] <= sizes["teacher"]
        assert sizes["student"] < sizes["assistant"] < sizes["teacher"]
    assert list(METHODS) == list(WORDS)
