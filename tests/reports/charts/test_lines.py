from __future__ import annotations

import math
import re
from xml.etree import ElementTree

import pytest

from lmexp.reports.charts.lines import Line, line_chart, thin


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


def test_thinning_keeps_spikes_and_ends() -> None:
    points = [(float(i), math.sin(i / 1000)) for i in range(50_000)]
    points[31_337] = (31_337.0, 99.0)
    kept = thin(points, 600)
    assert len(kept) <= 602
    assert (31_337.0, 99.0) in kept
    assert (kept[0], kept[-1]) == (points[0], points[-1])
    assert kept == sorted(kept)
