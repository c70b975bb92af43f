from __future__ import annotations

import math
import re
from xml.etree import ElementTree

import pytest

from lmexp.reports.charts.lines import MAX_POINTS, Line, line_chart, note_of, stretched
from lmexp.reports.charts.svg import LEFT, RIGHT, WIDTH


def test_chart_is_well_formed_with_a_title_and_a_description() -> None:
    series = [Line("train", [(1.0, 3.0), (2.0, 2.0)]), Line("<b>&", [(1.0, 3.5), (2.0, 2.5)], 2)]
    svg = ElementTree.fromstring(line_chart("Loss & <more>", series))
    assert svg.findtext("title") == "Loss & <more>"
    assert svg.get("role") == "img"
    assert "train ends at 2; <b>& ends at 2.5" in (svg.findtext("desc") or "")
    assert len(svg.findall(".//path")) == 2


def test_values_that_are_not_finite_leave_a_gap() -> None:
    points = [(0.0, 1.0), (1.0, 2.0), (2.0, math.nan), (3.0, math.inf), (4.0, 1.0), (5.0, 0.5)]
    path = re.search(r'd="([^"]*)"', line_chart("x", [Line("a", points)]))
    assert path is not None
    assert re.sub(r"[\d. ]", "", path[1]) == "MLML"
    assert "nan" not in path[1]


@pytest.mark.parametrize("points", [[(5.0, 0.0)], [(1.0, 2.0), (2.0, 2.0)], [(0.0, 1e300), (1.0, -1e300)]])
def test_single_points_and_flat_lines_can_be_drawn(points: list[tuple[float, float]]) -> None:
    svg = line_chart("x", [Line("a", points)])
    ElementTree.fromstring(svg)
    assert "nan" not in svg


def test_a_chart_of_nothing_is_refused() -> None:
    with pytest.raises(ValueError, match="no finite point"):
        line_chart("x", [Line("a", [(1.0, math.nan)])])


def test_many_points_are_drawn_as_mean_and_band_in_which_no_spike_is_lost() -> None:
    points = [(float(i), math.sin(i / 1000)) for i in range(50_000)]
    points[31_337] = (31_337.0, 99.0)
    (stretches,) = [stretched(points, len(points))]
    assert len(stretches) <= MAX_POINTS
    assert max(one.high for one in stretches) == 99.0
    assert [(one.first, one.last) for one in stretches[:2]] == [(0.0, 166.0), (167.0, 333.0)]
    assert (stretches[0].first, stretches[-1].last) == (0.0, 49_999.0)
    assert stretches[1].mean == pytest.approx(sum(y for _, y in points[167:334]) / 167)
    line = Line("train", points)
    svg = ElementTree.fromstring(line_chart("x", [line]))
    assert len(svg.findall(".//polygon")) == 1
    assert note_of([line]) == "mean of 167 points each, in the band from the lowest to the highest"
    assert note_of([Line("few", points[:MAX_POINTS])]) == ""
    assert len(svg.findall(".//circle")) <= 50


def test_a_gap_parts_the_band_too() -> None:
    points = [(float(i), math.nan if i == 500 else 1.0 + i % 7) for i in range(1000)]
    svg = ElementTree.fromstring(line_chart("x", [Line("a", points)]))
    assert len(svg.findall(".//polygon")) == 2


def test_on_a_logarithmic_scale_equal_factors_lie_equally_far_apart() -> None:
    svg = ElementTree.fromstring(
        line_chart("x", [Line("a", [(0.0, 8.0), (1.0, 4.0), (2.0, 2.0), (3.0, 0.0)])], log=True)
    )
    heights = [float(circle.attrib["cy"]) for circle in svg.iter("circle")]
    assert len(heights) == 3, "0 has no place there"
    assert heights[1] - heights[0] == pytest.approx(heights[2] - heights[1], abs=0.2)
    assert "on a logarithmic scale" in (svg.findtext("desc") or "")


def test_intervals_are_drawn_and_told() -> None:
    line = Line("test", [(0.0, 2.0), (10.0, 1.0)], intervals=[(10.0, 0.5, 1.75)])
    svg = ElementTree.fromstring(line_chart("x", [line]))
    (whisker,) = [one for one in svg.iter("line") if one.get("class") == "whisker thin"]
    circles = list(svg.iter("circle"))
    assert whisker.attrib["x1"] == circles[1].attrib["cx"]
    assert float(whisker.attrib["y2"]) < float(circles[1].attrib["cy"]) < float(whisker.attrib["y1"])
    assert circles[1].findtext("title") == "test, 10: 1 (0.5 to 1.75)"


def test_a_second_row_counts_something_else_and_no_number_leaves_the_picture() -> None:
    second = ("tokens", lambda step: step * 123456.0)
    svg = ElementTree.fromstring(line_chart("x", [Line("a", [(0.0, 1.0), (1000.0, 2.0)])], second=second))
    texts = [text for text in svg.iter("text") if "tick" in (text.get("class") or "") and float(text.attrib["y"]) > 215]
    numbers = [text.text for text in texts]
    assert numbers[:6] == ["0", "200", "400", "600", "800", "1,000"]
    assert numbers[6:] == ["0", "24.69M", "49.38M", "74.07M", "98.76M", "123.5M"]
    assert (texts[-1].get("class"), texts[-1].get("x")) == ("tick end", f"{WIDTH}")


def test_marks_stand_where_they_belong() -> None:
    chart = line_chart("x", [Line("a", [(0.0, 1.0), (10.0, 2.0)])], marks=[(5.0, "went <on>"), (99.0, "beyond")])
    svg = ElementTree.fromstring(chart)
    (mark,) = [one for one in svg.iter("line") if one.get("class") == "reference"]
    assert float(mark.attrib["x1"]) == pytest.approx((LEFT + WIDTH - RIGHT) / 2)
    assert mark.findtext("title") == "went <on>"
