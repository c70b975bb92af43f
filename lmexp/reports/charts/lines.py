"""Lines over a common x axis: the curves of a training."""

from __future__ import annotations

import math
from dataclasses import dataclass

from lmexp.reports.charts.scales import Point, Scale, number_text, padded, round_ticks
from lmexp.reports.charts.svg import BOTTOM, HEIGHT, LEFT, RIGHT, TOP, WIDTH, legend, style, svg, words, x_axis, y_axis
from lmexp.reports.visible import shown

MAX_POINTS = 600
MAX_DOTS = 40


@dataclass(frozen=True, slots=True)
class Line:
    """A named line."""

    label: str
    points: list[Point]
    """(x, y); a y that is not finite leaves a gap."""
    colour: int = 1
    """Number of its colour, from 1 on; a name keeps its colour from chart to chart."""


def line_chart(title: str, lines: list[Line], *, x_label: str = "step", y_label: str = "") -> str:
    """Lines over a common x axis, as an <svg> element. There must be at least one finite point."""
    finite = [point for line in lines for point in line.points if math.isfinite(point[1])]
    if not finite:
        raise ValueError(f"the chart {title!r} has no finite point")
    x_low, x_high = padded(min(x for x, _ in finite), max(x for x, _ in finite), pad_ends=False)
    y_ticks = round_ticks(*padded(min(y for _, y in finite), max(y for _, y in finite)), cover=True)
    x = Scale(x_low, x_high, LEFT, WIDTH - RIGHT)
    y = Scale(y_ticks[0], y_ticks[-1], HEIGHT - BOTTOM, TOP)
    parts = [y_axis(y_ticks, y, y_label), x_axis(round_ticks(x_low, x_high), x, HEIGHT - BOTTOM, x_label)]
    parts.append(legend([(line.label, line.colour) for line in lines]))
    parts += [drawn_line(line, x, y) for line in lines]
    last = "; ".join(f"{line.label} ends at {_last(line)}" for line in lines)
    return svg(title, f"{title} over {x_label}; {last}", HEIGHT, parts)


def drawn_line(line: Line, x: Scale, y: Scale) -> str:
    """A line with dots to rest the pointer on."""
    points = thin(line.points)
    path, pen_down = [], False
    for at, value in points:
        if math.isfinite(value):
            path.append(f"{'L' if pen_down else 'M'}{x(at):.1f} {y(value):.1f}")
        pen_down = math.isfinite(value)
    finite = [point for point in points if math.isfinite(point[1])]
    every = max(1, math.ceil(len(finite) / MAX_DOTS))
    kind = "dot" if len(finite) <= MAX_DOTS // 2 else "hit"
    dots = "".join(
        f'<circle class="{kind}" cx="{x(at):.1f}" cy="{y(value):.1f}" r="{2.5 if kind == "dot" else 6}">'
        f"<title>{shown(words(f'{line.label}, {number_text(at)}', value))}</title></circle>"
        for at, value in finite[::every]
    )
    return f'<g class="{style(line.colour)}"><path class="line" d="{" ".join(path)}"/>{dots}</g>'


def thin(points: list[Point], limit: int = MAX_POINTS) -> list[Point]:
    """At most about limit points: the lowest and the highest of each stretch, so that no spike is lost."""
    if len(points) <= limit:
        return points
    n_stretches = limit // 2
    kept: list[Point] = [points[0]]
    for index in range(n_stretches):
        stretch = points[index * len(points) // n_stretches : (index + 1) * len(points) // n_stretches]
        finite = [point for point in stretch if math.isfinite(point[1])]
        if len(finite) < len(stretch):
            kept.append(next(point for point in stretch if not math.isfinite(point[1])))
        if finite:
            kept += [min(finite, key=lambda point: point[1]), max(finite, key=lambda point: point[1])]
    return sorted(dict.fromkeys([*kept, points[-1]]), key=lambda point: point[0])


def _last(line: Line) -> str:
    return next((number_text(y) for _, y in reversed(line.points) if math.isfinite(y)), "no value")
