"""Lines over a common x axis: the curves of a training."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from lmexp.reports.charts.scales import Point, Scale, covering, extent, number_text, padded, round_ticks
from lmexp.reports.charts.svg import (
    BOTTOM,
    HEIGHT,
    LEFT,
    LEGEND_LINE,
    RIGHT,
    TOP,
    WIDTH,
    legend,
    n_legend_lines,
    style,
    svg,
    words,
    x_axis,
    y_axis,
)
from lmexp.reports.visible import shown

MAX_POINTS = 300
"""Of a line that is drawn as it is; more than there are pixels to tell them apart in."""
MAX_DOTS = 40
SECOND_ROW = 15
"""Height of the second row of numbers below."""


@dataclass(frozen=True, slots=True)
class Line:
    """A named line."""

    label: str
    points: list[Point]
    """(x, y), x rising; a y that is not finite leaves a gap."""
    colour: int = 1
    """Number of its colour, from 1 on; a name keeps its colour from chart to chart."""
    intervals: list[tuple[float, float, float]] = field(default_factory=list)
    """(x, low, high) of the 95% interval of some of the points."""


@dataclass(frozen=True, slots=True)
class Stretch:
    """Several points that are drawn as one."""

    first: float
    last: float
    """x of the first and of the last point."""
    mean: float
    low: float
    high: float

    @property
    def middle(self) -> float:
        """Where it is drawn."""
        return (self.first + self.last) / 2


def line_chart(
    title: str,
    lines: Sequence[Line],
    *,
    x_label: str = "step",
    y_label: str = "",
    log: bool = False,
    second: tuple[str, Callable[[float], float]] | None = None,
    marks: Sequence[tuple[float, str]] = (),
    x_range: Point | None = None,
) -> str:
    """Lines over a common x axis, as an <svg> element. There must be at least one finite point.

    log: equal factors lie equally far apart; values of 0 or less leave a gap. second: what else x counts, and how many
    of that there are at an x. marks: places on the x axis, and what was there. x_range: None is that of the points.
    """
    lines = [_drawable(line, log=log) for line in lines]
    finite = [point for line in lines for point in line.points if math.isfinite(point[1])]
    if not finite:
        raise ValueError(f"the chart {title!r} has no finite point")
    entries = [(line.label, line.colour) for line in lines]
    more = LEGEND_LINE * max(0, n_legend_lines(entries) - 1)
    top, bottom = TOP + more, HEIGHT - BOTTOM + more
    ends = [value for line in lines for interval in line.intervals for value in interval[1:]]
    y, y_ticks = covering([*(value for _, value in finite), *ends], bottom, top, log=log)
    x_low, x_high = padded(*(x_range or extent(at for at, _ in finite)), pad_ends=False)
    x = Scale(x_low, x_high, LEFT, WIDTH - RIGHT)
    x_ticks = round_ticks(x_low, x_high)
    height = bottom + BOTTOM
    parts = [y_axis(y_ticks, y, y_label)]
    if second is None:
        parts.append(x_axis(x_ticks, x, bottom, x_label))
    else:
        counted, count = second
        parts.append(
            x_axis(x_ticks, x, bottom, f"{x_label}, and {counted} so far", below=[count(at) for at in x_ticks])
        )
        height += SECOND_ROW
    parts += [_mark(at, label, x, top, bottom) for at, label in marks if x_low <= at <= x_high]
    parts.append(legend(entries, top=top))
    parts += [drawn_line(line, x, y) for line in lines]
    last = "; ".join(f"{line.label} ends at {_last(line)}" for line in lines)
    scale = ", on a logarithmic scale" if log else ""
    return svg(title, f"{title} over {x_label}{scale}; {last}", height, parts)


def drawn_line(line: Line, x: Scale, y: Scale) -> str:
    """A line with dots to rest the pointer on; of many points the mean of each stretch, and the band that they fill."""
    parts = [
        f'<line class="whisker thin" x1="{x(at):.1f}" y1="{y(low):.1f}" x2="{x(at):.1f}" y2="{y(high):.1f}"/>'
        for at, low, high in line.intervals
    ]
    if len(line.points) <= MAX_POINTS:
        pieces = _pieces(line.points)
        ends = {at: (low, high) for at, low, high in line.intervals}
        told = [
            words(f"{line.label}, {number_text(at)}", value, *ends.get(at, (None, None)))
            for piece in pieces
            for at, value in piece
        ]
    else:
        stretches = [stretched(piece, len(line.points)) for piece in _pieces(line.points)]
        parts += [_band(piece, x, y) for piece in stretches]
        pieces = [[(one.middle, one.mean) for one in piece] for piece in stretches]
        told = [
            f"{words(f'{line.label}, {number_text(one.first)} to {number_text(one.last)}', one.mean)}, from "
            f"{number_text(one.low)} to {number_text(one.high)}"
            for piece in stretches
            for one in piece
        ]
    drawn = [point for piece in pieces for point in piece]
    path = " ".join(
        f"{'L' if i else 'M'}{x(at):.1f} {y(value):.1f}" for piece in pieces for i, (at, value) in enumerate(piece)
    )
    kind = "line dashed" if line.intervals else "line"  # what is estimated lies often on what is counted
    few = len(drawn) <= MAX_DOTS // 2
    every = max(1, math.ceil(len(drawn) / MAX_DOTS))
    dots = "".join(
        f'<circle class="{"dot" if few else "hit"}" cx="{x(at):.1f}" cy="{y(value):.1f}" r="{2.5 if few else 6}">'
        f"<title>{shown(text)}</title></circle>"
        for (at, value), text in list(zip(drawn, told, strict=True))[::every]
    )
    return f'<g class="{style(line.colour)}">{"".join(parts)}<path class="{kind}" d="{path}"/>{dots}</g>'


def stretched(points: Sequence[Point], n_points: int, limit: int = MAX_POINTS) -> list[Stretch]:
    """points in stretches of as many as it takes for n_points to be about limit stretches; the last may be shorter."""
    size = max(1, math.ceil(n_points / limit))
    found = []
    for start in range(0, len(points), size):
        part = points[start : start + size]
        values = [value for _, value in part]
        found.append(Stretch(part[0][0], part[-1][0], math.fsum(values) / len(values), min(values), max(values)))
    return found


def note_of(lines: Sequence[Line]) -> str:
    """What is to be known of lines that aren't drawn point by point; "" where all are."""
    notes = []
    for line in lines:
        if len(line.points) > MAX_POINTS:
            label = f"{line.label}: " if len(lines) > 1 else ""
            n = math.ceil(len(line.points) / MAX_POINTS)
            notes.append(f"{label}mean of {n:,} points each, in the band from the lowest to the highest")
    return "; ".join(notes)


def _drawable(line: Line, *, log: bool) -> Line:
    """The same, on a logarithmic scale without what has no place there."""
    if not log:
        return line
    points = [(at, value if value > 0 else math.nan) for at, value in line.points]
    return Line(line.label, points, line.colour, [one for one in line.intervals if one[1] > 0])


def _pieces(points: Sequence[Point]) -> list[list[Point]]:
    """What lies between the gaps."""
    pieces: list[list[Point]] = [[]]
    for point in points:
        if math.isfinite(point[1]):
            pieces[-1].append(point)
        elif pieces[-1]:
            pieces.append([])
    return [piece for piece in pieces if piece]


def _band(stretches: Sequence[Stretch], x: Scale, y: Scale) -> str:
    there = [f"{x(one.middle):.1f},{y(one.high):.1f}" for one in stretches]
    back = [f"{x(one.middle):.1f},{y(one.low):.1f}" for one in reversed(stretches)]
    return f'<polygon class="band" points="{" ".join(there + back)}"/>'


def _mark(at: float, label: str, x: Scale, top: float, bottom: float) -> str:
    return (
        f'<line class="reference" x1="{x(at):.1f}" y1="{top}" x2="{x(at):.1f}" y2="{bottom}">'
        f"<title>{shown(label)}</title></line>"
    )


def _last(line: Line) -> str:
    return next((number_text(y) for _, y in reversed(line.points) if math.isfinite(y)), "no value")
