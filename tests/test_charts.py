"""One SVG line chart: well-formed, escaped, and its lines go where the numbers go."""

import math
import re

import numpy as np
import pytest

from diffusekit import charts
from diffusekit.charts import Line, line_chart
from tests.helpers.markup import EVIL, nodes


def points(chart: str) -> list[list[tuple[float, float]]]:
    found = re.findall(r'<polyline[^>]* points="([^"]*)"', chart)
    return [[tuple(map(float, pair.split(","))) for pair in each.split()] for each in found]


def test_a_line_holds_its_finite_points_and_its_levels():
    chart = line_chart("a <b>", [Line("one", [(0, 1.0), (50, 0.5), (60, math.nan)], [("level", 0.7)])], x_max=100)
    (line,) = points(chart)
    assert line[0][0] == charts.LEFT and line[-1][0] == charts.LEFT + (charts.RIGHT - charts.LEFT) / 2
    assert line[0][1] < line[1][1]  # falling: y points down
    assert chart.count('class="level"') == 1 and "nan" not in chart and "a &lt;b&gt;" in chart
    assert 'role="img"' in chart and "<title>a &lt;b&gt;: one ends at 0.5</title>" in chart


def test_without_a_finite_point_there_is_no_chart():
    assert line_chart("", []) == "" == line_chart("", [Line("none", []), Line("nan", [(1, math.nan)])])


def test_one_point_is_visible():
    ((first, second),) = points(line_chart("", [Line("one", [(5, 0.3)])]))
    assert first != second


def test_names_are_escaped():
    line = Line(EVIL, [(0, 1), (1, 2)], [(EVIL, 1.5)], color=EVIL)
    found, handlers = nodes(line_chart(EVIL, [line], subtitle=EVIL, x_label=EVIL, marker=(EVIL, 1)))
    assert not {"script", "img"} & set(found) and not handlers


def test_a_marker_and_a_cursor():
    chart = line_chart("", [Line("one", [(0, 1), (10, 2)])], marker=("best", 5), cursor=True)
    assert "best: <b>5</b>" in chart and f'data-first="{charts.LEFT}.0"' in chart
    assert "marker" not in line_chart("", [Line("one", [(0, 1), (10, 2)])], marker=("best", 50))


def test_long_lines_are_thinned_and_end_where_they_end():
    (line,) = points(line_chart("", [Line("one", [(i, i) for i in range(20_001)])]))
    assert len(line) <= charts.MAX_POINTS and line[-1] == (charts.RIGHT, charts.TOP)


@pytest.mark.parametrize(
    "low, high", [(0, 1000), (0.25, 0.353), (0.61, 0.61), (0, 0), (1, 3), (-2.5, 7), (1e-7, 3e-7), (99_000, 1e5)]
)
def test_ticks_are_few_round_and_enclose(low, high):
    ticks = charts.ticks(low, high)
    assert 2 <= len(ticks) <= 7 and ticks[0] <= low and ticks[-1] >= high
    steps = np.diff(ticks)
    assert np.allclose(steps, steps[0]) and steps[0] > 0
    assert all(len(f"{tick:g}") <= 7 for tick in ticks)
    assert (high == low) or (ticks[-1] - ticks[0]) <= 2.1 * (high - low)
