"""Small charts as SVG text in the page's own colours, so that they follow light and dark and print sharp."""

from __future__ import annotations

import html
import math
from collections.abc import Sequence
from dataclasses import dataclass

WIDTH, HEIGHT = 640, 280
LEFT, RIGHT, TOP, BOTTOM = 62, 18, 14, 46


@dataclass(frozen=True)
class Points:
    """One series: ``(x, y, label)``; joined by a line if asked for."""

    name: str
    points: tuple[tuple[float, float, str], ...]
    line: bool = False


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
    labels: list[tuple[float, float]] = []
    for k, one, points in shown:
        places = [at(p) for p in points]
        if one.line and len(places) > 1:
            path = " ".join(f"{a:.1f},{b:.1f}" for a, b in places)
            parts.append(f'<polyline class="s{k % 6}" points="{path}"/>')
        for (a, b), (_, _, label) in zip(places, points, strict=True):
            title = html.escape(f"{one.name}: {label}")
            parts.append(f'<circle class="s{k % 6}" cx="{a:.1f}" cy="{b:.1f}" r="4"><title>{title}</title></circle>')
            if not one.line:
                parts.append(_label(one.name, a, b, labels))
    return f'<svg class="chart" viewBox="0 0 {WIDTH} {HEIGHT}" role="img">{"".join(parts)}</svg>'


def _label(name: str, across: float, down: float, taken: list[tuple[float, float]]) -> str:
    """A name beside its mark, moved down until it covers no earlier one."""
    left = across > WIDTH * 0.7
    down += 4
    while any(abs(down - other) < 14 and abs(across - beside) < 150 for beside, other in taken):
        down += 14
    taken.append((across, down))
    anchor = "end" if left else "start"
    place = f'x="{across + (-9 if left else 9):.1f}" y="{down:.1f}" text-anchor="{anchor}"'
    return f'<text class="label" {place}>{html.escape(name)}</text>'


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
