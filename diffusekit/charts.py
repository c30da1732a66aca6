"""One SVG line chart for every page that draws curves: values in, markup out.

The markup needs no style sheet and no script. Text takes the color of the page around it, and the colors of the
lines are legible on light and on dark backgrounds.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from html import escape

MAX_POINTS = 400  # of a line
WIDTH, HEIGHT = 420, 220  # of a chart, in its own units
LEFT, RIGHT, TOP, BOTTOM = 50, 396, 12, 176  # of the area between the axes
COLORS = ("#2f7fd6", "#d2691e", "#2e9e6b")
_DASHES = ("6 4", "2 3")  # of the first and the second level of a line
_SIGNS = ("╌", "┈")

Points = Sequence[tuple[float, float]]


@dataclass(frozen=True)
class Line:
    """A measure over the steps, and the levels to compare it with: horizontal dashed lines with a name.

    `color` is any CSS color; by default a line takes the next one of `COLORS`.
    """

    name: str
    points: Points
    levels: Sequence[tuple[str, float]] = ()
    color: str = ""
    dashed: bool = False


@dataclass(frozen=True)
class _Axes:
    """The ticks of both axes, and where a point lies between them."""

    x: Sequence[float]
    y: Sequence[float]

    def point(self, x: float, y: float) -> tuple[float, float]:
        across = (x - self.x[0]) / (self.x[-1] - self.x[0])
        up = (y - self.y[0]) / (self.y[-1] - self.y[0])
        return LEFT + across * (RIGHT - LEFT), BOTTOM - up * (BOTTOM - TOP)


def line_chart(
    title: str,
    lines: Sequence[Line],
    *,
    subtitle: str = "",
    x_label: str = "step",
    x_max: float = -math.inf,
    marker: tuple[str, float] | None = None,
    cursor: bool = False,
) -> str:
    """Draw lines in a figure with axes, ticks and a legend; return "" when there is nothing to draw.

    Points that are not finite are left out. The x axis reaches to `x_max` at least. `marker` is a name and the
    position of a vertical line. `cursor` adds a vertical line of class "cursor" for a script to move: it carries
    the first and last position in `data-first` and `data-last`.
    """
    lines = [replace(line, points=_thin(line.points), color=line.color or color) for line, color in _colored(lines)]
    lines = [line for line in lines if line.points]
    if not lines:
        return ""
    axes = _axes(lines, x_max)
    parts = [_grid(axes, x_label)]
    legend: list[tuple[str, str, str, str]] = []  # color, sign, name, value
    if marker is not None and axes.x[0] <= marker[1] <= axes.x[-1]:
        parts.append(_vertical(axes, marker[1], 'class="marker" stroke-dasharray="2 3" opacity=".6"'))
        legend.append(("inherit", "┊", marker[0], f"{marker[1]:,g}"))
    for line in lines:
        parts.append(_line(axes, line))
        legend.append((line.color, "╍" if line.dashed else "━", line.name, f"{line.points[-1][1]:.3g}"))
        legend += [(line.color, _SIGNS[i % 2], name, f"{value:.3g}") for i, (name, value) in enumerate(line.levels)]
    if cursor:
        first, last = (axes.point(lines[0].points[i][0], 0)[0] for i in (0, -1))
        parts.append(_vertical(axes, lines[0].points[-1][0], f'class="cursor" data-first="{first}" data-last="{last}"'))
    ends = ", ".join(f"{line.name} ends at {line.points[-1][1]:.3g}" for line in lines)
    return (
        f'<figure class="chart"><figcaption>{escape(title)}{f" <small>{escape(subtitle)}</small>" if subtitle else ""}'
        f'</figcaption><svg viewBox="0 0 {WIDTH} {HEIGHT}" role="img" style="display:block;width:100%;height:auto">'
        f"<title>{escape(f'{title}: {ends}')}</title>{''.join(parts)}</svg>{_legend(legend)}</figure>"
    )


def ticks(low: float, high: float) -> list[float]:
    """Three to seven round numbers, of which the first is at most `low` and the last at least `high`."""
    if high - low < 1e-9 * max(abs(low), abs(high), 1e-9):
        low, high = low - (abs(low) or 1) / 2, high + (abs(high) or 1) / 2
    rough = (high - low) / 4
    power = 10.0 ** math.floor(math.log10(rough))
    unit = next(unit * power for unit in (1, 2, 2.5, 5, 10) if unit * power >= rough * 0.999)
    first, last = math.floor(low / unit + 1e-9), math.ceil(high / unit - 1e-9)
    return [float(f"{number * unit:.10g}") for number in range(first, max(last, first + 1) + 1)]


def _colored(lines: Sequence[Line]) -> list[tuple[Line, str]]:
    return [(line, COLORS[i % len(COLORS)]) for i, line in enumerate(lines)]


def _thin(points: Points) -> Points:
    """The finite points, at most `MAX_POINTS` of them, the last one included."""
    finite = [(x, y) for x, y in points if math.isfinite(x) and math.isfinite(y)]
    stride = max(1, math.ceil(len(finite) / MAX_POINTS))
    return finite[::-1][::stride][::-1]


def _axes(lines: Sequence[Line], x_max: float) -> _Axes:
    """Axes that enclose everything. The y axis begins at zero unless that would flatten the lines."""
    xs = [x for line in lines for x, _ in line.points]
    ys = [y for line in lines for y in (*(y for _, y in line.points), *(value for _, value in line.levels))]
    low, high = min(ys), max(ys)
    return _Axes(ticks(min(xs), max(*xs, x_max)), ticks(0.0 if 0 <= low < 0.5 * high else low, high))


def _grid(axes: _Axes, x_label: str) -> str:
    """Horizontal grid lines and the numbers at both axes."""
    rows, texts = [], []
    for value in axes.y:
        y = axes.point(axes.x[0], value)[1]
        rows.append(f'<line class="grid" x1="{LEFT}" x2="{RIGHT}" y1="{y:.1f}" y2="{y:.1f}"/>')
        texts.append(f'<text x="{LEFT - 6}" y="{y + 4:.1f}" text-anchor="end">{value:g}</text>')
    for value in axes.x:
        x = axes.point(value, axes.y[0])[0]
        texts.append(f'<text x="{x:.1f}" y="{BOTTOM + 18}" text-anchor="middle">{value:,g}</text>')
    texts.append(f'<text x="{RIGHT}" y="{HEIGHT - 6}" text-anchor="end">{escape(x_label)}</text>')
    return (
        f'<g stroke="currentColor" opacity=".18">{"".join(rows)}</g>'
        f'<g fill="currentColor" opacity=".75" font-size="13">{"".join(texts)}</g>'
    )


def _vertical(axes: _Axes, x: float, attributes: str) -> str:
    across = axes.point(x, axes.y[0])[0]
    return f'<line {attributes} stroke="currentColor" x1="{across:.1f}" x2="{across:.1f}" y1="{TOP}" y2="{BOTTOM}"/>'


def _line(axes: _Axes, line: Line) -> str:
    """A line, its last point as a dot, and its levels."""
    points = [axes.point(x, y) for x, y in line.points]
    if len(points) == 1:  # a line of length zero is not visible
        points.append((points[0][0] + 3, points[0][1]))
    path = " ".join(f"{x:.1f},{y:.1f}" for x, y in points)
    dash = ' stroke-dasharray="5 4"' if line.dashed else ""
    parts = [f'<polyline class="line" stroke-width="2" stroke-linejoin="round"{dash} points="{path}"/>']
    x, y = points[-1]
    parts.append(f'<circle cx="{x:.1f}" cy="{y:.1f}" r="3" fill="currentColor" stroke="none"/>')
    for i, (_, value) in enumerate(line.levels):
        y = axes.point(axes.x[0], value)[1]
        parts.append(
            f'<line class="level" stroke-width="1.5" stroke-dasharray="{_DASHES[i % 2]}"'
            f' x1="{LEFT}" x2="{RIGHT}" y1="{y:.1f}" y2="{y:.1f}"/>'
        )
    return f'<g style="color:{escape(line.color)}" fill="none" stroke="currentColor">{"".join(parts)}</g>'


def _legend(entries: Sequence[tuple[str, str, str, str]]) -> str:
    """What each line is, with its last value."""
    rows = "".join(
        f'<li style="margin:0"><span style="color:{escape(color)}" aria-hidden="true">{sign}</span> '
        f"{escape(name)}: <b>{escape(value)}</b></li>"
        for color, sign, name, value in entries
    )
    style = "display:flex;flex-wrap:wrap;gap:.1rem 1rem;margin:.3rem 0 0;padding:0;list-style:none;font-size:.85rem"
    return f'<ul class="legend" style="{style}">{rows}</ul>'
