"""Charts as SVG text."""

from __future__ import annotations

import re
from xml.etree import ElementTree

import pytest

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
    assert min(across) >= 62
    assert max(across) <= 640


def test_what_cannot_be_drawn_is_left_out() -> None:
    assert scatter([Points("a", ((0.0, 1.0, "zero"),))], "x", "y", log=True) == ""
    assert scatter([Points("a", ((float("nan"), 1.0, "?"),))], "x", "y") == ""
    assert scatter([], "x", "y") == ""
    assert "circle" in scatter([Points("a", ((5.0, 5.0, "alone"),))], "x", "y")
