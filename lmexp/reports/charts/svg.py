"""The parts that charts have in common: the element with its words, grid, axes and legend."""

from __future__ import annotations

from collections.abc import Sequence

from lmexp.reports.charts.scales import Scale, number_text
from lmexp.reports.visible import shown

WIDTH, HEIGHT = 400, 250
LEFT, RIGHT, TOP, BOTTOM = 56, 16, 28, 42
CHARACTER = 7.4
"""Width of a character, about, of the larger type on phones."""
LEGEND_LINE = 16
N_COLOURS = 8


def style(colour: int) -> str:
    """The class of a series; its colours are numbered from 1 on, and come again after N_COLOURS."""
    return f"series-{(colour - 1) % N_COLOURS + 1}"


def svg(title: str, description: str, height: float, parts: Sequence[str], *, width: float = WIDTH) -> str:
    """The element, with what it shows in words."""
    return (
        f'<svg viewBox="0 0 {width:g} {height:g}" role="img" aria-label="{shown(description)}">'
        f"<title>{shown(title)}</title><desc>{shown(description)}</desc>{''.join(parts)}</svg>"
    )


def y_axis(ticks: list[float], y: Scale, label: str = "") -> str:
    """Lines across, their numbers, and above them what they count."""
    parts = []
    for tick in ticks:
        at = f"{y(tick):.1f}"
        parts.append(
            f'<line class="grid" x1="{LEFT}" y1="{at}" x2="{WIDTH - RIGHT}" y2="{at}"/>'
            f'<text class="tick end" x="{LEFT - 8}" y="{y(tick) + 4:.1f}">{number_text(tick)}</text>'
        )
    if label:
        parts.append(f'<text class="label" x="4" y="14">{shown(short(label, 60))}</text>')
    return "".join(parts)


def x_axis(
    ticks: list[float],
    x: Scale,
    bottom: float,
    label: str,
    *,
    grid_from: float | None = None,
    below: Sequence[float] = (),
) -> str:
    """The line below, its numbers, and below them what they count. grid_from: lines up to there. below: a second row
    of numbers, one for each tick."""
    left, right = sorted((x.start, x.stop))
    parts = [f'<line class="axis" x1="{left}" y1="{bottom}" x2="{right}" y2="{bottom}"/>']
    for tick in ticks:
        at = f"{x(tick):.1f}"
        top = bottom - 4 if grid_from is None else grid_from
        kind = "axis" if grid_from is None else "grid"
        parts.append(
            f'<line class="{kind}" x1="{at}" y1="{top}" x2="{at}" y2="{bottom}"/>'
            f'<text class="tick middle" x="{at}" y="{bottom + 16}">{number_text(tick)}</text>'
        )
    for tick, number in zip(ticks, below, strict=False):
        text = number_text(number)
        ends = x(tick) + CHARACTER * len(text) / 2 > WIDTH
        place = f'class="tick end" x="{WIDTH}"' if ends else f'class="tick middle" x="{x(tick):.1f}"'
        parts.append(f'<text {place} y="{bottom + 31}">{text}</text>')
    y = bottom + (49 if below else 34)
    parts.append(f'<text class="label" x="{right}" y="{y}" text-anchor="end">{shown(short(label, 60))}</text>')
    return "".join(parts)


def legend(entries: Sequence[tuple[str, int]], *, top: float = TOP) -> str:
    """Labels with the numbers of their colours, from right to left, in lines of which the last is above top."""
    if len(entries) < 2:
        return ""
    parts = []
    for (label, colour), (at, line) in zip(reversed(entries), _places(entries), strict=True):
        middle = top - 18 - LEGEND_LINE * (n_legend_lines(entries) - 1 - line)
        parts.append(
            f'<g class="{style(colour)}"><line class="line" x1="{at - 20:.1f}" y1="{middle:g}" x2="{at - 6:.1f}" '
            f'y2="{middle:g}"/><text class="name" x="{at:.1f}" y="{middle + 4:g}">{shown(short(label, 30))}</text></g>'
        )
    return "".join(parts)


def n_legend_lines(entries: Sequence[tuple[str, int]]) -> int:
    """How many lines a legend has; none for a single series."""
    return 1 + max(line for _, line in _places(entries)) if len(entries) > 1 else 0


def _places(entries: Sequence[tuple[str, int]]) -> list[tuple[float, int]]:
    """Left end and line of each label, the last one first."""
    found, at, line = [], float(WIDTH - RIGHT), 0
    for label, _ in reversed(entries):
        width = CHARACTER * len(short(label, 30))
        if at - width - 20 < 4 and at < WIDTH - RIGHT:
            at, line = float(WIDTH - RIGHT), line + 1
        at -= width
        found.append((at, line))
        at -= 34
    return found


def short(text: str, most: int) -> str:
    """text, with an ellipsis in place of what is too much.

    >>> short("generalization", 8)
    'general…'
    """
    return text if len(text) <= most else f"{text[: most - 1].rstrip()}…"


def with_unit(label: str, unit: str) -> str:
    """The label of an axis.

    >>> with_unit("latency", "ms"), with_unit("share", "")
    ('latency (ms)', 'share')
    """
    return f"{label} ({unit})" if unit and label else label or unit


def words(label: str, value: float, low: float | None = None, high: float | None = None, n: int | None = None) -> str:
    """A point in words, as they show where the pointer rests.

    >>> words("news", 0.5, 0.25, 0.75, 1200)
    'news: 0.5 (0.25 to 0.75), n 1,200'
    """
    interval = "" if low is None or high is None else f" ({number_text(low)} to {number_text(high)})"
    return f"{label}: {number_text(value)}{interval}{f', n {n:,}' if n is not None else ''}"
