"""Charts as SVG text."""

from __future__ import annotations

import re
from xml.etree import ElementTree

import pytest

from deploy.report import charts
from deploy.report.charts import Points, scatter


def test_every_point_is_drawn_with_its_title() -> None:
    svg = scatter([Points("a <b>", ((1.0, 2.0, "one"), (3.0, 5.0, "two")), line=True)], "x (µJ)", "y")
    root = ElementTree.fromstring(svg)
    titles = [e.text for e in root.iter("title")]
    assert titles == ["a <b>: one", "a <b>: two"]
    assert len(list(root.iter("polyline"))) == 1
    assert "x (µJ)" in svg


@pytest.mark.parametrize("log", [False, True])
def test_points_lie_inside_and_in_order(log: bool) -> None:
    points = tuple((10.0**k, float(k), str(k)) for k in range(4))
    svg = scatter([Points("a", points)], "x", "y", log=log)
    across = [float(x) for x in re.findall(r'cx="([\d.]+)"', svg)]
    down = [float(y) for y in re.findall(r'cy="([\d.]+)"', svg)]
    assert across == sorted(across)
    assert down == sorted(down, reverse=True)
    assert min(across) >= charts.LEFT
    assert max(across) <= charts.WIDTH


def test_what_cannot_be_drawn_is_left_out() -> None:
    assert scatter([Points("a", ((0.0, 1.0, "zero"),))], "x", "y", log=True) == ""
    assert scatter([Points("a", ((float("nan"), 1.0, "?"),))], "x", "y") == ""
    assert scatter([], "x", "y") == ""
    assert "circle" in scatter([Points("a", ((5.0, 5.0, "alone"),))], "x", "y")


def test_marks_on_each_other_share_a_label_and_labels_cover_no_mark() -> None:
    places = {"teacher": (90.0, 96.0), "assistant": (60.0, 95.0), "plain": (10.0, 90.0), "quantized": (10.1, 90.0)}
    svg = scatter([Points(name, ((x, y, ""),)) for name, (x, y) in places.items()], "x", "y")
    root = ElementTree.fromstring(svg)
    labels = [(e.text or "", float(e.attrib["x"]), float(e.attrib["y"])) for e in root if e.get("class") == "label"]
    assert [text for text, _, _ in labels] == ["teacher", "assistant", "plain, quantized"]
    marks = [(float(e.attrib["cx"]), float(e.attrib["cy"])) for e in root if e.tag == "circle"]
    for text, left, base in labels:
        right = left + charts.LETTER * len(text)
        assert left >= charts.LEFT
        assert right <= charts.WIDTH
        assert not any(left < a < right and base - charts.LINE < b < base for a, b in marks)


def test_a_label_stays_off_a_line() -> None:
    line = Points("early", ((1.0, 50.0, ""), (2.0, 90.0, ""), (3.0, 80.0, ""), (4.0, 90.0, "")), line=True)
    svg = scatter([line, Points("student alone, and so on", ((4.0, 90.0, ""),))], "x", "y")
    root = ElementTree.fromstring(svg)
    label = next(e for e in root if e.get("class") == "label")
    left, base = float(label.attrib["x"]), float(label.attrib["y"])
    right = left + charts.LETTER * len(label.text or "")
    corners = [tuple(map(float, pair.split(","))) for pair in root.find("polyline").attrib["points"].split()]  # type: ignore[union-attr]
    for (a, b), (c, d) in zip(corners, corners[1:], strict=False):
        along = [(a + (c - a) * k / 50, b + (d - b) * k / 50) for k in range(51)]
        assert not any(left < x < right and base - 10 < y < base for x, y in along)


def test_a_series_keeps_the_colour_it_is_given() -> None:
    assert 'class="s4"' in scatter([Points("a", ((1.0, 2.0, ""),), colour=4)], "x", "y")


@pytest.mark.parametrize(("value", "text"), [(100_000, "100 k"), (5e6, "5 M"), (2500, "2,500"), (0.05, "0.05")])
def test_ticks_are_short(value: float, text: str) -> None:
    assert charts._si(value) == text
