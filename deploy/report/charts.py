"""Small charts as SVG text in the page's own colours, so that they follow light and dark and print sharp."""

from __future__ import annotations

import html
import math
from collections.abc import Sequence
from dataclasses import dataclass

WIDTH, HEIGHT = 480, 270
LEFT, RIGHT, TOP, BOTTOM = 66, 16, 22, 46
NEAR = 9.0  # marks closer than this share one label
LETTER, LINE = 6.6, 14.0  # about the width of a letter and the height of a line

Place = tuple[float, float]
Box = tuple[float, float, float, float]  # left, top, right, bottom


@dataclass(frozen=True)
class Points:
    """One series: ``(x, y, label)``; joined by a line if asked for; ``colour`` is its number, by order if not given."""

    name: str
    points: tuple[tuple[float, float, str], ...]
    line: bool = False
    colour: int | None = None


def scatter(series: Sequence[Points], x: str, y: str, *, log: bool = False) -> str:
    """A chart of points and lines with axes and a title for every mark; empty without a finite point.

    Args:
        x, y: Names of the axes with their units.
        log: Logarithmic x.
    """
    shown = [(k, s, [p for p in s.points if _drawable(p, log)]) for k, s in enumerate(series)]
    every = [p for _, _, points in shown for p in points]
    if not every:
        return ""
    xs = [math.log10(p[0]) if log else p[0] for p in every]
    x_low, x_high = _span(xs)
    y_low, y_high = _span([p[1] for p in every])

    def at(point: tuple[float, float, str]) -> tuple[float, float]:
        value = math.log10(point[0]) if log else point[0]
        across = LEFT + (value - x_low) / (x_high - x_low) * (WIDTH - LEFT - RIGHT)
        down = HEIGHT - BOTTOM - (point[1] - y_low) / (y_high - y_low) * (HEIGHT - TOP - BOTTOM)
        return across, down

    parts = [_axes(x, y, (x_low, x_high), (y_low, y_high), log)]
    drawn = [(k, one, [(at(p), p[2]) for p in points]) for k, one, points in shown]
    parts += [_series((k if one.colour is None else one.colour) % 6, one, marks) for k, one, marks in drawn]
    named = [(place, one.name) for _, one, marks in drawn if not one.line for place, _ in marks]
    parts += _labels(named, _obstacles([(one.line, [place for place, _ in marks]) for _, one, marks in drawn]))
    return f'<svg class="chart" viewBox="0 0 {WIDTH} {HEIGHT}" role="img">{"".join(parts)}</svg>'


def _series(colour: int, one: Points, marks: Sequence[tuple[Place, str]]) -> str:
    """A series' line and its marks, each with its title."""
    parts = []
    if one.line and len(marks) > 1:
        path = " ".join(f"{a:.1f},{b:.1f}" for (a, b), _ in marks)
        parts.append(f'<polyline class="s{colour}" points="{path}"/>')
    for (a, b), label in marks:
        title = html.escape(f"{one.name}: {label}")
        parts.append(f'<circle class="s{colour}" cx="{a:.1f}" cy="{b:.1f}" r="4"><title>{title}</title></circle>')
    return "".join(parts)


def _obstacles(drawn: Sequence[tuple[bool, Sequence[Place]]]) -> list[Box]:
    """What a label should not cover: every mark, and the lines in short pieces."""
    boxes = [_square(place, 6.0) for _, places in drawn for place in places]
    for joined, places in drawn:
        for (a, b), (c, d) in zip(places, places[1:] if joined else [], strict=False):
            count = max(1, round(math.dist((a, b), (c, d)) / 6.0))
            boxes += [_square((a + (c - a) * k / count, b + (d - b) * k / count), 3.0) for k in range(1, count)]
    return boxes


def _square(place: Place, half: float) -> Box:
    return place[0] - half, place[1] - half, place[0] + half, place[1] + half


def _labels(named: Sequence[tuple[Place, str]], obstacles: Sequence[Box]) -> list[str]:
    """A name beside each mark, where it covers least; marks that lie on each other share a label."""
    groups: list[tuple[list[Place], list[str]]] = []
    for place, name in named:
        near = next((group for group in groups if math.dist(place, group[0][0]) < NEAR), None)
        if near is None:
            groups.append(([place], [name]))
        else:
            near[0].append(place)
            near[1].extend([name] if name not in near[1] else [])
    taken, texts = list(obstacles), []
    for places, names in groups:
        text = ", ".join(names)
        box = min(_around(places, LETTER * len(text)), key=lambda one: _covered(one, taken))
        taken.append(box)
        texts.append(f'<text class="label" x="{box[0]:.1f}" y="{box[3] - 3.5:.1f}">{html.escape(text)}</text>')
    return texts


def _around(places: Sequence[Place], width: float) -> list[Box]:
    """Where a label of a width can stand: right, left, above, below, then further up and down."""
    left, right = min(a for a, _ in places), max(a for a, _ in places)
    a, b = (left + right) / 2, places[0][1]
    middle = min(max(a - width / 2, LEFT), WIDTH - width)
    corners = [(right + 8, b - LINE / 2), (left - 8 - width, b - LINE / 2)]
    for away in (0.0, LINE, 2 * LINE, 3 * LINE):
        for across in (middle, min(max(a, LEFT), WIDTH - width), max(a - width, LEFT)):
            corners += [(across, b - 8 - LINE - away), (across, b + 8 + away)]
    return [(x, top, x + width, top + LINE) for x, top in corners]


def _covered(box: Box, taken: Sequence[Box]) -> float:
    """How much of what is there a label would cover; leaving the chart is worse."""
    left, top, right, bottom = box
    outside = [LEFT - left, right - WIDTH, -top, bottom - (HEIGHT - BOTTOM)]
    return 1000.0 * sum(max(0.0, far) for far in outside) + sum(
        max(0.0, min(right, other[2]) - max(left, other[0])) * max(0.0, min(bottom, other[3]) - max(top, other[1]))
        for other in taken
    )


def _drawable(point: tuple[float, float, str], log: bool) -> bool:
    return math.isfinite(point[0]) and math.isfinite(point[1]) and (not log or point[0] > 0)


def _span(values: Sequence[float]) -> tuple[float, float]:
    low, high = min(values), max(values)
    margin = 0.08 * (high - low) or max(abs(high) * 0.1, 0.5)
    return low - margin, high + margin


def _ticks(low: float, high: float, log: bool) -> list[tuple[float, str]]:
    if log:
        found = [
            (math.log10(m * 10.0**d), m * 10.0**d)
            for d in range(math.floor(low), math.ceil(high) + 1)
            for m in ((1, 2, 5) if high - low < 2.5 else (1,))
        ]
        return [(p, _si(v)) for p, v in found if low <= p <= high]
    rough = (high - low) / 5
    step = 10.0 ** math.floor(math.log10(rough))
    step *= next(m for m in (1, 2, 5, 10) if m * step >= rough)
    first = math.ceil(low / step)
    return [(k * step, _si(k * step)) for k in range(first, int(high / step) + 1)]


def _si(value: float) -> str:
    """``20,000`` would run into the axis' name: ``20 k``."""
    for factor, unit, least in ((1e6, "M", 1e6), (1e3, "k", 1e4)):
        if abs(value) >= least:
            return f"{value / factor:.6g} {unit}"
    return f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.6g}"


def _axes(x: str, y: str, xs: tuple[float, float], ys: tuple[float, float], log: bool) -> str:
    parts = []
    for value, text in _ticks(*xs, log):
        across = LEFT + (value - xs[0]) / (xs[1] - xs[0]) * (WIDTH - LEFT - RIGHT)
        parts.append(f'<line class="grid" x1="{across:.1f}" x2="{across:.1f}" y1="{TOP}" y2="{HEIGHT - BOTTOM}"/>')
        parts.append(f'<text x="{across:.1f}" y="{HEIGHT - BOTTOM + 16}" text-anchor="middle">{text}</text>')
    for value, text in _ticks(*ys, False):
        down = HEIGHT - BOTTOM - (value - ys[0]) / (ys[1] - ys[0]) * (HEIGHT - TOP - BOTTOM)
        parts.append(f'<line class="grid" x1="{LEFT}" x2="{WIDTH - RIGHT}" y1="{down:.1f}" y2="{down:.1f}"/>')
        parts.append(f'<text x="{LEFT - 8}" y="{down + 4:.1f}" text-anchor="end">{text}</text>')
    middle = LEFT + (WIDTH - LEFT - RIGHT) / 2
    parts.append(f'<text x="{middle:.0f}" y="{HEIGHT - 8}" text-anchor="middle">{html.escape(x)}</text>')
    up = TOP + (HEIGHT - TOP - BOTTOM) / 2
    turned = f'transform="rotate(-90 14 {up:.0f})"'
    parts.append(f'<text x="14" y="{up:.0f}" {turned} text-anchor="middle">{html.escape(y)}</text>')
    return "".join(parts)
