"""Chips side by side."""

from __future__ import annotations

from deploy.chip import chips, load_chip
from deploy.chip_table import ROWS, comparison, explanation


def test_chips_are_compared_with_unit_and_grade() -> None:
    rows = comparison([load_chip(name) for name in ("loihi1", "loihi2", "truenorth")])
    assert rows[0] == ["", "loihi1", "loihi2", "truenorth"]
    assert len(rows) == len(ROWS) + 1
    found = {row[0]: row[1:] for row in rows}
    assert found["energy: synaptic operation"] == ["23.6 pJ (simulated)", "—", "26.0 pJ (measured)"]
    assert found["time: barrier"][::2] == ["113 to 465 ns (simulated)", "1e+06 ns (vendor)"]
    assert found["weight widths"][2] == "1 bit (vendor)"


def test_every_value_of_every_chip_is_explained() -> None:
    for name in chips():
        chip = load_chip(name)
        rows = explanation(chip)[1:]
        assert len(rows) == sum(len(section.entries) for section in chip.sections)
        assert all(source != "not published" or remark for _, _, source, remark in rows), name


def test_no_file_gives_an_energy_without_saying_how_it_is_known() -> None:
    for name in chips():
        for key, quantity in load_chip(name).energy:
            assert quantity.value is None or (quantity.source and quantity.grade), (name, key)
