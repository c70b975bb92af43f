"""Small charts as inline SVG, without scripts.

Colours come from CSS variables, so they follow light and dark: report.css styles the classes used here.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from html import escape

WIDTH, HEIGHT = 440, 250
LEFT, RIGHT, TOP, BOTTOM = 56, 20, 28, 40
MAX_POINTS = 600
MAX_DOTS = 40
N_COLOURS = 4

Point = tuple[float, float]


@dataclass(frozen=True, slots=True)
class Series:
    """A named line."""

    label: str
    points: list[Point]
    """(x, y); a y that is not finite leaves a gap."""
    colour: int = 1
    """Number of its colour, from 1 on; a name keeps its colour from chart to chart."""

    @property
    def style(self) -> str:
        """Its class."""
        return f"series-{(self.colour - 1) % N_COLOURS + 1}"


@dataclass(frozen=True, slots=True)
class Bar:
    """An estimate with its interval."""

    label: str
    estimate: float
    low: float | None
    high: float | None


@dataclass(frozen=True, slots=True)
class _Scale:
    """Maps values between low and high to pixels between start and stop."""

    low: float
    high: float
    start: float
    stop: float

    def __call__(self, value: float) -> float:
        return self.start + (value - self.low) / (self.high - self.low) * (self.stop - self.start)


def line_chart(title: str, series: list[Series], *, x_label: str = "step", y_label: str = "") -> str:
    """Lines over a common x axis, as an <svg> element. There must be at least one finite point."""
    finite = [point for one in series for point in one.points if math.isfinite(point[1])]
    if not finite:
        raise ValueError(f"the chart {title!r} has no finite point")
    x_low, x_high = _padded(min(x for x, _ in finite), max(x for x, _ in finite), pad_ends=False)
    y_ticks = round_ticks(*_padded(min(y for _, y in finite), max(y for _, y in finite)), cover=True)
    x = _Scale(x_low, x_high, LEFT, WIDTH - RIGHT)
    y = _Scale(y_ticks[0], y_ticks[-1], HEIGHT - BOTTOM, TOP)
    parts = [_grid(y_ticks, y), _x_axis(round_ticks(x_low, x_high), x, HEIGHT - BOTTOM, x_label)]
    if y_label:
        parts.append(f'<text class="label" x="4" y="{TOP - 14}">{escape(y_label)}</text>')
    parts.append(_legend(series))
    parts += [_line(one, x, y) for one in series]
    last = "; ".join(f"{one.label} ends at {_last(one)}" for one in series)
    return _svg(title, f"{title} over {x_label}; {last}", WIDTH, HEIGHT, parts)


def interval_chart(title: str, bars: list[Bar], *, x_label: str) -> str:
    """Dots with their intervals, one below the other, as an <svg> element. The first one stands out."""
    row, left, right = 30, 120, 64
    height = TOP + row * len(bars) + BOTTOM - 14
    ends = [value for bar in bars for value in (bar.estimate, bar.low, bar.high) if value is not None]
    ticks = round_ticks(*_padded(min(0.0, *ends), max(0.0, *ends)), cover=True)
    x = _Scale(ticks[0], ticks[-1], left, WIDTH - right)
    parts = [_x_axis(ticks, x, height - BOTTOM, x_label, grid_from=TOP - 14)]
    for number, bar in enumerate(bars):
        middle = TOP + row * number
        series = "series-1" if number == 0 else "series-rest"
        low, high = (bar.low, bar.high) if bar.low is not None and bar.high is not None else (bar.estimate,) * 2
        words = f"{bar.label}: {number_text(bar.estimate)} ({number_text(low)} to {number_text(high)})"
        parts.append(
            f'<g class="{series}"><title>{escape(words)}</title>'
            f'<text class="name end" x="{left - 10}" y="{middle + 4}">{escape(bar.label)}</text>'
            f'<line class="stem" x1="{x(0):.1f}" y1="{middle}" x2="{x(bar.estimate):.1f}" y2="{middle}"/>'
            f'<line class="whisker" x1="{x(low):.1f}" y1="{middle}" x2="{x(high):.1f}" y2="{middle}"/>'
            f'<circle class="dot" cx="{x(bar.estimate):.1f}" cy="{middle}" r="4.5"/>'
            f'<text class="value" x="{x(high) + 10:.1f}" y="{middle + 4}">{number_text(bar.estimate)}</text>'
            "</g>"
        )
    summary = "; ".join(f"{bar.label} {number_text(bar.estimate)}" for bar in bars)
    return _svg(title, f"{title}: {summary}", WIDTH, height, parts)


def histogram(title: str, series: list[tuple[str, list[float]]], starts: list[float], *, x_label: str) -> str:
    """Shares side by side for each class, as an <svg> element. series: label and share of each class; the classes go
    from one start to before the next."""
    highest = max((share for _, shares in series for share in shares), default=0.0)
    ticks = round_ticks(0.0, highest or 1.0, n=4, cover=True)
    y = _Scale(0.0, ticks[-1], HEIGHT - BOTTOM, TOP)
    lines = [Series(label, [], colour) for colour, (label, _) in enumerate(series, start=1)]
    width = (WIDTH - RIGHT - LEFT) / len(starts)
    every = math.ceil(len(starts) / 11)
    parts = [_grid(ticks, y), _legend(lines)]
    parts.append(f'<text class="label" x="4" y="{TOP - 14}">share</text>')
    for number, start in enumerate(starts):
        at = LEFT + width * number
        if number % every == 0:
            parts.append(
                f'<text class="tick middle" x="{at + width / 2:.1f}" y="{HEIGHT - BOTTOM + 16}">'
                f"{number_text(start)}</text>"
            )
        end = f" to {number_text(starts[number + 1] - 1)}" if number + 1 < len(starts) else " or more"
        bar = width * 0.86 / len(series)
        for place, ((label, shares), line) in enumerate(zip(series, lines, strict=True)):
            left, top = at + width * 0.07 + bar * place, y(shares[number])
            parts.append(
                f'<g class="{line.style}"><rect class="bar" x="{left:.1f}" y="{top:.1f}" width="{bar:.1f}" '
                f'height="{HEIGHT - BOTTOM - top:.1f}"><title>{escape(label)}, {number_text(start)}{end}: '
                f"{shares[number]:.2%}</title></rect></g>"
            )
    axis = HEIGHT - BOTTOM
    parts.append(f'<line class="axis" x1="{LEFT}" y1="{axis}" x2="{WIDTH - RIGHT}" y2="{axis}"/>')
    parts.append(f'<text class="label" x="{WIDTH - RIGHT}" y="{axis + 33}" text-anchor="end">{escape(x_label)}</text>')
    largest = "; ".join(
        f"{label} most often from {number_text(starts[max(range(len(starts)), key=shares.__getitem__)])}"
        for label, shares in series
    )
    return _svg(title, f"{title} over {x_label}; {largest}", WIDTH, HEIGHT, parts)


def round_ticks(low: float, high: float, *, n: int = 5, cover: bool = False) -> list[float]:
    """About n round numbers (1, 2 or 5 times a power of ten apart) from low to high.

    cover: the first lies at low or below and the last at high or above; otherwise all lie inside.

    >>> round_ticks(0, 2000), round_ticks(1.43, 5.6, cover=True)
    ([0.0, 500.0, 1000.0, 1500.0, 2000.0], [1.0, 2.0, 3.0, 4.0, 5.0, 6.0])
    """
    raw = (high - low) / n
    power = 10.0 ** math.floor(math.log10(raw))
    step = next(power * factor for factor in (1, 2, 5, 10) if raw <= power * factor * (1 + 1e-9))
    slack = 1e-9
    if cover:
        first, last = math.floor(low / step + slack), math.ceil(high / step - slack)
    else:
        first, last = math.ceil(low / step - slack), math.floor(high / step + slack)
    digits = max(0, -math.floor(math.log10(step)))
    return [round(index * step, digits) + 0.0 for index in range(first, last + 1)]


def number_text(value: float) -> str:
    """A number for a tick or a label.

    >>> [number_text(value) for value in (2500.0, 1_500_000.0, 0.0003, 2e-7, 1.52345)]
    ['2,500', '1.5M', '0.0003', '2e-07', '1.523']
    """
    for limit, suffix in ((1e9, "G"), (1e6, "M"), (1e4, "k")):
        if abs(value) >= limit:
            return f"{value / (1e3 if suffix == 'k' else limit):.4g}{suffix}"
    if abs(value) >= 1000:
        return f"{value:,.0f}"
    return f"{value:.4g}"


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


def _padded(low: float, high: float, *, pad_ends: bool = True) -> Point:
    """low and high, moved apart where they are (nearly) equal."""
    if high - low > 1e-9 * max(abs(low), abs(high)):
        return low, high
    half = abs(low) * 0.1 or 1.0
    return (low - half, high + half) if pad_ends else (low, low + max(1.0, half))


def _svg(title: str, description: str, width: int, height: int, parts: list[str]) -> str:
    return (
        f'<svg viewBox="0 0 {width} {height}" role="img" aria-label="{escape(description)}">'
        f"<title>{escape(title)}</title><desc>{escape(description)}</desc>{''.join(parts)}</svg>"
    )


def _grid(ticks: list[float], y: _Scale) -> str:
    parts = []
    for tick in ticks:
        at = f"{y(tick):.1f}"
        parts.append(
            f'<line class="grid" x1="{LEFT}" y1="{at}" x2="{WIDTH - RIGHT}" y2="{at}"/>'
            f'<text class="tick end" x="{LEFT - 8}" y="{y(tick) + 4:.1f}">{number_text(tick)}</text>'
        )
    return "".join(parts)


def _x_axis(ticks: list[float], x: _Scale, bottom: float, label: str, *, grid_from: float | None = None) -> str:
    parts = [f'<line class="axis" x1="{x.start}" y1="{bottom}" x2="{x.stop}" y2="{bottom}"/>']
    for tick in ticks:
        at = f"{x(tick):.1f}"
        top = bottom - 4 if grid_from is None else grid_from
        kind = "axis" if grid_from is None else "grid"
        parts.append(
            f'<line class="{kind}" x1="{at}" y1="{top}" x2="{at}" y2="{bottom}"/>'
            f'<text class="tick middle" x="{at}" y="{bottom + 16}">{number_text(tick)}</text>'
        )
    parts.append(f'<text class="label" x="{x.stop}" y="{bottom + 33}" text-anchor="end">{escape(label)}</text>')
    return "".join(parts)


def _legend(series: list[Series]) -> str:
    if len(series) < 2:
        return ""
    parts, at = [], float(WIDTH - RIGHT)
    for one in reversed(series):
        at -= 6.6 * len(one.label)
        parts.append(
            f'<g class="{one.style}">'
            f'<line class="line" x1="{at - 22:.1f}" y1="{TOP - 18}" x2="{at - 6:.1f}" y2="{TOP - 18}"/>'
            f'<text class="name" x="{at:.1f}" y="{TOP - 14}">{escape(one.label)}</text></g>'
        )
        at -= 36
    return "".join(parts)


def _line(series: Series, x: _Scale, y: _Scale) -> str:
    points = thin(series.points)
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
        f"<title>{escape(series.label)}, {number_text(at)}: {number_text(value)}</title></circle>"
        for at, value in finite[::every]
    )
    return f'<g class="{series.style}"><path class="line" d="{" ".join(path)}"/>{dots}</g>'


def _last(series: Series) -> str:
    return next((number_text(y) for _, y in reversed(series.points) if math.isfinite(y)), "no value")
