"""Each plot is read back from its SVG: a scale from the ticks, and from that the value of everything drawn."""

from __future__ import annotations

import math
import random
from collections.abc import Callable
from xml.etree import ElementTree

import pytest

from lmexp.evaluation.plot import KINDS, NAME_KINDS, Plot, Reference, Series
from lmexp.reports.charts.plots import draw, figure_of, page_of
from tests.evaluation.test_plot import example

HOSTILE = "</svg><script>alert(1)</script>\u202e\x1b[2J\"'&"


class Drawn:
    """A drawn plot."""

    def __init__(self, plot: Plot) -> None:
        self.svg = ElementTree.fromstring(draw(plot))
        _, _, self.width, self.height = (float(v) for v in self.svg.attrib["viewBox"].split())
        ticks = [t for t in self.svg.iter("text") if "tick" in t.attrib["class"].split()]
        self.x = self._scale([t for t in ticks if "middle" in t.attrib["class"]], "x", log=plot.log_x)
        if plot.kind not in NAME_KINDS:
            self.y = self._scale([t for t in ticks if "end" in t.attrib["class"]], "y", offset=-4)

    def _scale(
        self, ticks: list[ElementTree.Element], axis: str, *, offset: float = 0, log: bool = False
    ) -> Callable[[float], float]:
        """From pixels to values, of two ticks."""
        read = [(float(t.attrib[axis]) + offset, float((t.text or "").replace(",", ""))) for t in ticks]
        (at_0, value_0), (at_1, value_1) = read[0], read[-1]
        if log:
            value_0, value_1 = math.log(value_0), math.log(value_1)
        linear = lambda at: value_0 + (at - at_0) / (at_1 - at_0) * (value_1 - value_0)  # noqa: E731
        return (lambda at: math.exp(linear(at))) if log else linear

    def circles(self, colour: int = 1) -> list[ElementTree.Element]:
        groups = [g for g in self.svg.iter("g") if g.get("class") == f"series-{colour}"]
        return list(dict.fromkeys(c for g in groups for c in g.iter("circle")))

    def lines(self, kind: str) -> list[ElementTree.Element]:
        return [line for line in self.svg.iter("line") if line.get("class") == kind]


def close(found: list[float], wanted: list[float], spread: float) -> bool:
    """Equal to a pixel's tenth."""
    return len(found) == len(wanted) and all(abs(a - b) <= spread * 1e-3 for a, b in zip(found, wanted, strict=True))


@pytest.mark.parametrize("kind", ["forest", "bars"])
def test_estimates_and_intervals_stand_at_their_values(kind: str) -> None:
    y, low, high = [0.62, 0.41, 0.7], [0.55, 0.3, 0.66], [0.69, 0.52, 0.74]
    series = Series(label="accuracy", x=["news", "code", "talk"], y=y, low=low, high=high)
    drawn = Drawn(example(kind, series=[series], references=[Reference(label="chance", value=0.25)]))
    assert close([drawn.x(float(c.attrib["cx"])) for c in drawn.circles()], y, 1)
    whiskers = drawn.lines("whisker")
    assert close([drawn.x(float(w.attrib["x1"])) for w in whiskers], low, 1)
    assert close([drawn.x(float(w.attrib["x2"])) for w in whiskers], high, 1)
    (reference,) = drawn.lines("reference")
    assert drawn.x(float(reference.attrib["x1"])) == pytest.approx(0.25, abs=1e-3)
    assert all(abs(drawn.x(float(stem.attrib["x1"]))) < 1e-3 for stem in drawn.lines("stem"))
    assert len(drawn.lines("stem")) == (3 if kind == "bars" else 0)


@pytest.mark.parametrize("log_x", [False, True])
def test_points_of_a_curve_stand_at_their_values(log_x: bool) -> None:
    x, y = [16.0, 64.0, 256.0, 1024.0], [3.9, 3.2, 3.0, 4.1]
    band = {"low": [v - 0.2 for v in y], "high": [v + 0.3 for v in y]}
    trained = Reference(label="trained length", value=512, axis="x")
    drawn = Drawn(example(series=[Series(label="a", x=x, y=y, **band)], log_x=log_x, references=[trained]))
    circles = drawn.circles()
    assert close([drawn.y(float(c.attrib["cy"])) for c in circles], y, 2)
    assert [drawn.x(float(c.attrib["cx"])) for c in circles] == pytest.approx(x, rel=5e-3, abs=2)
    (polygon,) = drawn.svg.iter("polygon")
    corners = [float(pair.split(",")[1]) for pair in polygon.attrib["points"].split()]
    assert close([drawn.y(at) for at in corners], [*band["high"], *reversed(band["low"])], 2)
    (reference,) = drawn.lines("reference")
    assert drawn.x(float(reference.attrib["x1"])) == pytest.approx(512, rel=5e-3, abs=2)


def test_points_may_come_in_any_order() -> None:
    random.seed(0)
    points = [(i / 10, i**2 / 10) for i in range(10)]
    shuffled = random.sample(points, 10)
    one, other = (
        draw(example(series=[Series(label="a", x=[p[0] for p in order], y=[p[1] for p in order])], references=[]))
        for order in (points, shuffled)
    )
    paths = [ElementTree.fromstring(svg).find(".//path").attrib["d"] for svg in (one, other)]  # type: ignore[union-attr]
    assert paths[0] == paths[1]


def test_a_reliability_diagram_has_its_diagonal_and_its_counts() -> None:
    series = Series(label="a", x=[0.1, 0.5, 0.9], y=[0.2, 0.5, 0.7], n=[100, 50, 0])
    drawn = Drawn(example("reliability", series=[series], references=[]))
    (diagonal,) = drawn.lines("reference")
    for end in ("1", "2"):
        x, y = drawn.x(float(diagonal.attrib[f"x{end}"])), drawn.y(float(diagonal.attrib[f"y{end}"]))
        assert x == pytest.approx(y, abs=1e-3)
    heights = [float(bar.attrib["height"]) for bar in drawn.svg.iter("rect")]
    assert heights == [heights[0], heights[0] / 2, 0]


def test_a_risk_coverage_curve_begins_at_no_risk() -> None:
    drawn = Drawn(example("risk_coverage", series=[Series(label="a", x=[0.5, 1.0], y=[0.2, 0.3])], references=[]))
    bottom = max(float(line.attrib["y1"]) for line in drawn.lines("grid"))
    assert drawn.y(bottom) == pytest.approx(0, abs=1e-9)


@pytest.mark.parametrize("kind", ["dots", "strip"])
def test_every_value_of_a_factor_has_a_dot_in_its_row(kind: str) -> None:
    x, y = ["prompt", "seed", "prompt", "prompt"], [0.5, 0.6, 0.7, 0.3]
    drawn = Drawn(example(kind, series=[Series(label="a", x=x, y=y)], references=[]))
    found = [(drawn.x(float(c.attrib["cx"])), float(c.attrib["cy"])) for c in drawn.circles()]
    assert close([value for value, _ in found], [0.5, 0.7, 0.3, 0.6], 1)
    assert max(at for _, at in found[:3]) < found[3][1]
    centres = [drawn.x(float(line.attrib["x1"])) for line in drawn.lines("centre")]
    assert close(centres, [0.5, 0.6], 1)


@pytest.mark.parametrize("kind", KINDS)
def test_a_plot_says_in_words_what_it_shows(kind: str) -> None:
    plot = example(kind, higher_is_better=False)
    svg = ElementTree.fromstring(draw(plot))
    description = svg.findtext("desc") or ""
    assert svg.attrib["role"] == "img"
    assert svg.attrib["aria-label"] == description
    assert svg.findtext("title") == "ü"
    assert "2.5" in description
    assert "chance at 0.5" in description
    assert "lower is better" in "".join(svg.itertext())


@pytest.mark.parametrize("kind", KINDS)
def test_hostile_text_stays_text(kind: str) -> None:
    plot = example(kind, title=HOSTILE, y_label=HOSTILE, x_label=HOSTILE, y_unit=HOSTILE)
    plot.series[0].label = HOSTILE
    plot.references[0].label = HOSTILE
    if kind in NAME_KINDS:
        plot.series[0].x = [HOSTILE, "b"]
    drawn = figure_of(plot)
    assert {element.tag for element in ElementTree.fromstring(drawn).iter()} <= {
        *("figure", "figcaption", "svg", "title", "desc", "line", "text", "g", "path", "circle", "rect", "polygon"),
    }
    assert "\u202e" not in drawn and "\x1b" not in drawn
    assert "[U+202E][U+001B][2J" in drawn


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("n_series", [1, 3, 8])
def test_nothing_is_drawn_outside(kind: str, n_series: int) -> None:
    base = example(kind).series[0]
    several = [Series(label=f"a long name of series {i}", x=base.x, y=[v + i for v in base.y]) for i in range(n_series)]
    if kind in NAME_KINDS:
        for series in several:
            series.x = [f"{name}, a slice with a long name" for name in series.x]
    drawn = Drawn(example(kind, series=several, references=[Reference(label="a" * 60, value=0.4)]))
    for element in drawn.svg.iter():
        for name in ("x", "x1", "x2", "cx"):
            assert -1 <= float(element.get(name, 0)) <= drawn.width + 1, element.attrib
        for name in ("y", "y1", "y2", "cy"):
            assert -1 <= float(element.get(name, 0)) <= drawn.height + 1, element.attrib


@pytest.mark.parametrize("values", [[0.0, 0.0], [5e-324, 0.0], [1e300, 1.0], [1e-12, 2e-12], [-5.0, -5.0]])
@pytest.mark.parametrize("kind", KINDS)
def test_flat_tiny_and_huge_values_can_be_drawn(kind: str, values: list[float]) -> None:
    svg = draw(example(kind, series=[Series(label="a", x=example(kind).series[0].x, y=values)], references=[]))
    assert "nan" not in svg and "inf" not in svg


@pytest.mark.parametrize("kind", KINDS)
def test_values_too_far_apart_are_said_to_be(kind: str) -> None:
    series = Series(label="a", x=example(kind).series[0].x, y=[-1.7e308, 1.7e308])
    assert "its numbers are too large" in figure_of(example(kind, series=[series]))


def test_a_plot_alone_is_a_page_without_scripts() -> None:
    page = page_of(example(title=HOSTILE))
    assert page.startswith("<!doctype html>")
    assert "<script" not in page
    assert "default-src 'none'" in page
