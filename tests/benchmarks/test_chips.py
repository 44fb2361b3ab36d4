"""Networks on every chip: what is measured, which rows take the place of which, and how the page shows it."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from benchmarks import chips, chips_page, grid_networks
from benchmarks.chips import measure
from benchmarks.grid_networks import GridNetwork
from benchmarks.page_parts import by_case, every_chip
from benchmarks.replace_rows import replace_cases
from benchmarks.rows import Row, as_table
from deploy.files import read_json
from deploy.program import Dense, Input, Population, Program
from neurokd import checkpoint
from neurokd.config import Config
from neurokd.network import build


def program(hidden: int, inputs: int = 16) -> Program:
    """Two layers that fire; four output neurons of two classes."""
    rng = np.random.default_rng(hidden)
    layers = (
        Population("hidden", (hidden,), 4095, 410, 60, np.zeros(hidden, int)),
        Population("out", (4,), 4095, 410, 60, np.zeros(4, int)),
    )
    blocks = (
        Dense("a", "in", "hidden", 2 * rng.integers(-20, 60, (hidden, inputs))),
        Dense("b", "hidden", "out", 2 * rng.integers(-20, 60, (4, hidden))),
    )
    return Program(Input("in", (inputs,)), layers, blocks, {"population": 2})


def network(role: str, hidden: int, inputs: int = 16) -> GridNetwork:
    spikes = (np.random.default_rng(1).random((30, inputs)) < 0.3).astype(np.uint8)
    spec = f"{inputs}-{hidden}-4"
    return GridNetwork(
        "Toys, small", role, "row", spec, 90.0, 100, program(hidden, inputs), spikes, np.arange(30) % 2, 4
    )


@pytest.fixture(scope="module")
def rows() -> list[Row]:
    return [*measure(network("student", 8)), *measure(network("teacher", 300))]


def test_each_chip_has_its_cores_or_its_reason(rows: list[Row]) -> None:
    found = by_case([as_table(row) for row in rows])
    for name in every_chip():
        metrics = set(found[f"Toys, small, student 16-8-4 on {name}"])
        assert metrics in ({"does not fit"}, {"cores", "energy", "latency", "formats that differ"}), name
    student = found["Toys, small, student 16-8-4"]
    assert student["accuracy in integers"]["versions"]["images"] == 30
    assert student["accuracy in float"]["value"] == 90.0
    assert student["synops a sample"]["value"] > student["spikes a sample"]["value"] > 0
    assert found["Toys, small, student 16-8-4 on loihi2"]["energy"]["value"] is None
    refused = found["Toys, small, teacher 16-300-4 on truenorth"]["does not fit"]
    assert "at most 256 nonzero weights" in refused["value"]


def test_the_page_has_a_line_for_each_chip_that_carries_them_and_one_for_each_reason(rows: list[Row]) -> None:
    cases = by_case([as_table(row) for row in rows])
    names = every_chip()
    lines = [line for line in chips_page.costs(cases, names).splitlines() if line.startswith("| Toys")]
    carried = [n for n in names if any("cores" in cases[f"{case} on {n}"] for case in chips_page._networks(cases))]
    assert [line.split(" | ")[1].rstrip("\\*") for line in lines] == carried
    loihi1 = next(line for line in lines if "| loihi1 |" in line).split(" | ")
    energies = [cases[f"Toys, small, {n} on loihi1"]["energy"]["value"] for n in ("student 16-8-4", "teacher 16-300-4")]
    assert loihi1[6] == f"{energies[1] / energies[0]:.1f}"
    assert loihi1[5].count("µs") == 2
    refused = chips_page.refusals(cases, names)
    assert "**akida1000**, all: no published value for limits.neurons_per_core" in refused
    assert "**xylo_audio2**, Toys, small, teacher: " in refused
    assert "stands as on loihi1" in chips_page.costs(cases, names)


def test_rows_of_a_part_take_the_place_of_its_earlier_ones(tmp_path: Path) -> None:
    replace_cases("t", [Row("a: old", "m", 1), Row("a: kept", "m", 1), Row("b: other", "m", 1)], "a: ", tmp_path)
    path = replace_cases("t", [Row("a: kept", "m", 2)], "a: ", tmp_path)
    assert [(row["case"], row["value"]) for row in read_json(path)] == [("b: other", 1), ("a: kept", 2)]


def test_the_grids_networks_come_in_integers_with_the_whole_test_set(tmp_path: Path) -> None:
    config = Config.default("digits")
    for role, row in grid_networks.ROLES.items():
        made = build(config.networks.spec(role), **config.network_options())
        checkpoint.save(tmp_path / "digits" / "s0" / f"{row}.safetensors", made, {"accuracy": 1.0})
    found = list(grid_networks.grid_networks("digits", None, work=tmp_path, cells=tmp_path))
    assert [(one.role, one.spec) for one in found] == [("student", "64-48-10"), ("teacher", "64-512-10")]
    for one in found:
        assert one.spikes.shape == (450, 64)
        assert (len(one.labels), one.steps, one.accuracy) == (450, 8, None)
        assert one.program.populations[-1].size == 10


def test_a_grid_is_measured_and_its_earlier_rows_go(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    written = []
    monkeypatch.setattr(chips, "grid_networks", lambda *_, **__: iter([network("student", 8)]))
    monkeypatch.setattr(chips, "replace_cases", lambda topic, rows, start: written.append((topic, len(rows), start)))
    assert chips.main(["--grid", "digits", "--work", str(tmp_path)]) == 0
    assert written == [("chips", len(measure(network("student", 8))), "Toys, small, ")]
