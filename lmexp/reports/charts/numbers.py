"""Plots of numbers against numbers: curves with their bands, reliability diagrams, risk-coverage curves."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from lmexp.evaluation.plot import Plot, Reference, Series
from lmexp.reports.charts.lines import Line, drawn_line
from lmexp.reports.charts.scales import Scale, covering, extent, number_text, padded, power_ticks, round_ticks
from lmexp.reports.charts.svg import (
    BOTTOM,
    CHARACTER,
    HEIGHT,
    LEFT,
    LEGEND_LINE,
    RIGHT,
    TOP,
    WIDTH,
    legend,
    n_legend_lines,
    short,
    style,
    svg,
    with_unit,
    words,
    x_axis,
    y_axis,
)
from lmexp.reports.visible import shown

COUNT_HEIGHT = 26
MOST_TOLD = 12


@dataclass(frozen=True, slots=True)
class _Frame:
    """Where the plot's values lie."""

    x: Scale
    y: Scale
    x_ticks: list[float]
    y_ticks: list[float]
    top: float
    bottom: float


def draw_numbers(plot: Plot) -> str:
    """A plot of NUMBER_KINDS as an <svg> element."""
    entries = [(series.label, colour) for colour, series in enumerate(plot.series, start=1)]
    marked = any(reference.axis == "x" for reference in plot.references)  # its label stands above
    frame = _frame(plot, n_legend_lines(entries) + marked)
    better = {True: "higher is better", False: "lower is better", None: ""}[plot.higher_is_better]
    y_label = ", ".join(filter(None, (with_unit(plot.y_label, plot.y_unit), better)))
    parts = [
        y_axis(frame.y_ticks, frame.y, y_label),
        x_axis(frame.x_ticks, frame.x, frame.bottom, with_unit(plot.x_label, plot.x_unit)),
        legend(entries, top=frame.top - LEGEND_LINE * marked),
    ]
    if plot.kind == "reliability":
        parts.append(_diagonal(frame))
        parts.append(_counts(plot.series, frame))
    parts += [_reference(reference, frame) for reference in plot.references]
    for colour, series in enumerate(plot.series, start=1):
        parts.append(_series(plot, series, colour, frame))
    return svg(plot.title, _in_words(plot), frame.bottom + BOTTOM, parts)


def _frame(plot: Plot, n_lines: int) -> _Frame:
    top = TOP + LEGEND_LINE * n_lines
    bottom = HEIGHT - BOTTOM + LEGEND_LINE * n_lines
    y_values = [
        float(value) for series in plot.series for value in (*series.y, *(series.low or ()), *(series.high or ()))
    ]
    y_values += [reference.value for reference in plot.references if reference.axis == "y"]
    y_values += {"reliability": [0.0, 1.0], "risk_coverage": [0.0]}.get(plot.kind, [])
    y, y_ticks = covering(y_values, bottom, top)
    if plot.kind in ("reliability", "risk_coverage"):
        return _Frame(Scale(0.0, 1.0, LEFT, WIDTH - RIGHT), y, round_ticks(0.0, 1.0), y_ticks, top, bottom)
    x_values = [x for series in plot.series for x in series.numbers]
    x_values += [reference.value for reference in plot.references if reference.axis == "x"]
    low, high = extent(x_values)
    if plot.log_x:
        low, high = (low, high) if high / low > 1.001 else (low / 2, high * 2)
        return _Frame(Scale(low, high, LEFT, WIDTH - RIGHT, log=True), y, power_ticks(low, high), y_ticks, top, bottom)
    low, high = padded(low, high, pad_ends=False)
    return _Frame(Scale(low, high, LEFT, WIDTH - RIGHT), y, round_ticks(low, high), y_ticks, top, bottom)


def _series(plot: Plot, series: Series, colour: int, frame: _Frame) -> str:
    """Its band or whiskers, its line and its dots."""
    numbers = series.numbers
    order = sorted(range(len(numbers)), key=numbers.__getitem__)
    at = [numbers[index] for index in order]
    value = [float(series.y[index]) for index in order]
    parts = []
    if plot.kind == "risk_coverage" and len(plot.series) == 1:
        parts.append(_area(zip(at, value, strict=True), [(x, 0.0) for x in at], frame))
    if series.low is not None and series.high is not None:
        low, high = ([float(ends[index]) for index in order] for ends in (series.low, series.high))
        if plot.kind == "reliability" or len(at) == 1:
            parts += [_whisker(x, *ends, frame) for x, ends in zip(at, zip(low, high, strict=True), strict=True)]
        else:
            parts.append(_area(zip(at, high, strict=True), list(zip(at, low, strict=True)), frame))
    line = drawn_line(Line(series.label, list(zip(at, value, strict=True)), colour), frame.x, frame.y)
    return f'<g class="{style(colour)}">{"".join(parts)}</g>{line}'


def _area(there: Iterable[tuple[float, float]], back: list[tuple[float, float]], frame: _Frame) -> str:
    """What lies between two lines."""
    corners = " ".join(f"{frame.x(x):.1f},{frame.y(y):.1f}" for x, y in (*there, *reversed(back)))
    return f'<polygon class="band" points="{corners}"/>'


def _whisker(at: float, low: float, high: float, frame: _Frame) -> str:
    x = f"{frame.x(at):.1f}"
    return f'<line class="whisker" x1="{x}" y1="{frame.y(low):.1f}" x2="{x}" y2="{frame.y(high):.1f}"/>'


def _counts(several: Iterable[Series], frame: _Frame) -> str:
    """How many samples each bin has, as bars that stand on the axis."""
    parts = []
    for colour, series in enumerate(several, start=1):
        most = max(series.n or [0])
        for x, n in zip(series.numbers, series.n or (), strict=False):
            height = COUNT_HEIGHT * n / most if most else 0.0
            left = min(max(frame.x(x) - 5, LEFT), WIDTH - RIGHT - 10)
            parts.append(
                f'<g class="{style(colour)}"><rect class="count" x="{left:.1f}" y="{frame.bottom - height:.1f}" '
                f'width="10" height="{height:.1f}"><title>{number_text(x)}: n {n:,}</title></rect></g>'
            )
    return "".join(parts)


def _diagonal(frame: _Frame) -> str:
    x, y = frame.x, frame.y
    return (
        f'<line class="reference" x1="{x(0):.1f}" y1="{y(0):.1f}" x2="{x(1):.1f}" y2="{y(1):.1f}">'
        "<title>perfect calibration</title></line>"
    )


def _reference(reference: Reference, frame: _Frame) -> str:
    label = shown(short(reference.label, 30))
    told = f"<title>{shown(words(reference.label, reference.value))}</title>"
    if reference.axis == "y":
        at = frame.y(reference.value)
        return (
            f'<line class="reference" x1="{LEFT}" y1="{at:.1f}" x2="{WIDTH - RIGHT}" y2="{at:.1f}">{told}</line>'
            f'<text class="label end" x="{WIDTH - RIGHT}" y="{at - 5:.1f}">{label}</text>'
        )
    at = frame.x(reference.value)
    half = CHARACTER * min(len(reference.label), 30) / 2
    side, x = (" end", WIDTH - 4) if at + half > WIDTH - 4 else (" middle", max(at, 4 + half))
    return (
        f'<line class="reference" x1="{at:.1f}" y1="{frame.top}" x2="{at:.1f}" y2="{frame.bottom}">{told}</line>'
        f'<text class="label{side}" x="{x:.1f}" y="{frame.top - 6}">{label}</text>'
    )


def _in_words(plot: Plot) -> str:
    told = "; ".join(f"{series.label}: {_points_in_words(series)}" for series in plot.series)
    references = "".join(f"; {reference.label} at {number_text(reference.value)}" for reference in plot.references)
    axes = f"{with_unit(plot.y_label, plot.y_unit)} over {with_unit(plot.x_label, plot.x_unit)}"
    return f"{plot.title}. {axes}. {told}{references}"


def _points_in_words(series: Series) -> str:
    """All of a few points; of many the first, the lowest, the highest and the last."""
    points = list(zip(series.numbers, series.y, strict=True))
    if len(points) > MOST_TOLD:
        lowest, highest = (choose(points, key=lambda point: point[1]) for choose in (min, max))
        points = list(dict.fromkeys((points[0], lowest, highest, points[-1])))
    return ", ".join(f"{number_text(y)} at {number_text(x)}" for x, y in points) or "nothing"
