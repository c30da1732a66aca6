"""Curves as drawings in the page: measures over steps, with levels to read them against. Draws nothing else."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from html import escape

_WIDTH, _HEIGHT = 420, 190
_LEFT, _RIGHT, _TOP, _BOTTOM = 44, 410, 12, 160
_POINTS = 300

Points = Sequence[tuple[float, float]]


@dataclass(frozen=True)
class Curve:
    """A measure over steps."""

    name: str
    points: Points


def chart(title: str, curves: Sequence[Curve], levels: Sequence[tuple[str, float]] = (), *, steps: int = 0) -> str:
    """A figure with some curves and dashed levels, to at least `steps`; "" without any points."""
    drawn = [Curve(c.name, _finite(c.points)) for c in curves]
    drawn = [curve for curve in drawn if curve.points]
    if not drawn:
        return ""
    values = [y for curve in drawn for _, y in curve.points] + [y for _, y in levels]
    last = max([x for curve in drawn for x, _ in curve.points] + [steps, 1])
    low, high = _room(min(values), max(values))

    def place(x: float, y: float) -> str:
        across = _LEFT + (_RIGHT - _LEFT) * x / last
        return f"{across:.1f},{_BOTTOM - (_BOTTOM - _TOP) * (y - low) / (high - low):.1f}"

    parts = [_axes(low, high, last)]
    for number, (_, y) in enumerate(levels):
        left, right = place(0, y), place(last, y)
        parts.append(f'<path class="level l{number}" d="M{left} L{right}"/>')
    for number, curve in enumerate(drawn):
        line = " ".join(place(x, y) for x, y in _thinned(curve.points))
        parts.append(f'<polyline class="curve c{number}" points="{line}"/>')
        at = place(*curve.points[-1]).split(",")
        parts.append(f'<circle class="c{number}" cx="{at[0]}" cy="{at[1]}" r="3"/>')
    keys = "".join(
        f'<li class="c{i}">{escape(c.name)} <b>{c.points[-1][1]:.3g}</b></li>' for i, c in enumerate(drawn)
    ) + "".join(f'<li class="l{i}">{escape(n)} <b>{y:.3g}</b></li>' for i, (n, y) in enumerate(levels))
    told = "; ".join(f"{c.name}: {c.points[-1][1]:.3g} at step {c.points[-1][0]:.0f}" for c in drawn)
    return (
        f'<figure class="chart"><figcaption>{escape(title)}</figcaption>'
        f'<svg viewBox="0 0 {_WIDTH} {_HEIGHT}" role="img" aria-label="{escape(told)}">'
        f'{"".join(parts)}</svg><ul class="keys">{keys}</ul></figure>'
    )


def _axes(low: float, high: float, last: float) -> str:
    lines = []
    for share in (0.0, 0.5, 1.0):
        y = _BOTTOM - (_BOTTOM - _TOP) * share
        lines.append(
            f'<path class="grid" d="M{_LEFT},{y} L{_RIGHT},{y}"/>'
            f'<text x="{_LEFT - 6}" y="{y + 4}" text-anchor="end">{low + (high - low) * share:.3g}</text>'
        )
    for share in (0.0, 0.5, 1.0):
        x = _LEFT + (_RIGHT - _LEFT) * share
        anchor = "end" if share == 1 else "middle"
        lines.append(f'<text x="{x}" y="{_BOTTOM + 18}" text-anchor="{anchor}">{last * share:.0f}</text>')
    return "".join(lines)


def _finite(points: Points) -> Points:
    return [(x, y) for x, y in points if math.isfinite(x) and math.isfinite(y)]


def _room(low: float, high: float) -> tuple[float, float]:
    """A little more than the values need."""
    more = 0.08 * (high - low) or 0.1 * abs(high) or 1.0
    return (0.0 if 0 <= low < 0.5 * high else low - more), high + more


def _thinned(points: Points) -> Points:
    every = max(1, len(points) // _POINTS)
    return [*points[::every], points[-1]]
