"""Shares of classes, side by side."""

from __future__ import annotations

import math

from lmexp.reports.charts.scales import Scale, number_text, round_ticks
from lmexp.reports.charts.svg import BOTTOM, HEIGHT, LEFT, RIGHT, TOP, WIDTH, legend, style, svg, y_axis
from lmexp.reports.visible import shown


def histogram(title: str, series: list[tuple[str, list[float]]], starts: list[float], *, x_label: str) -> str:
    """Shares side by side for each class, as an <svg> element. series: label and share of each class; the classes go
    from one start to before the next."""
    highest = max((share for _, shares in series for share in shares), default=0.0)
    ticks = round_ticks(0.0, highest or 1.0, n=4, cover=True)
    y = Scale(0.0, ticks[-1], HEIGHT - BOTTOM, TOP)
    width = (WIDTH - RIGHT - LEFT) / len(starts)
    every = math.ceil(len(starts) / 10)
    parts = [y_axis(ticks, y, "share"), legend([(label, colour) for colour, (label, _) in enumerate(series, start=1)])]
    for number, start in enumerate(starts):
        at = LEFT + width * number
        if number % every == 0:
            parts.append(
                f'<text class="tick middle" x="{at + width / 2:.1f}" y="{HEIGHT - BOTTOM + 16}">'
                f"{number_text(start)}</text>"
            )
        end = f" to {number_text(starts[number + 1] - 1)}" if number + 1 < len(starts) else " or more"
        bar = width * 0.86 / len(series)
        for place, (label, shares) in enumerate(series):
            left, top = at + width * 0.07 + bar * place, y(shares[number])
            parts.append(
                f'<g class="{style(place + 1)}"><rect class="bar" x="{left:.1f}" y="{top:.1f}" width="{bar:.1f}" '
                f'height="{HEIGHT - BOTTOM - top:.1f}"><title>{shown(label)}, {number_text(start)}{end}: '
                f"{shares[number]:.2%}</title></rect></g>"
            )
    axis = HEIGHT - BOTTOM
    parts.append(f'<line class="axis" x1="{LEFT}" y1="{axis}" x2="{WIDTH - RIGHT}" y2="{axis}"/>')
    parts.append(f'<text class="label" x="{WIDTH - RIGHT}" y="{axis + 34}" text-anchor="end">{shown(x_label)}</text>')
    largest = "; ".join(
        f"{label} most often from {number_text(starts[max(range(len(starts)), key=shares.__getitem__)])}"
        for label, shares in series
    )
    return svg(title, f"{title} over {x_label}; {largest}", HEIGHT, parts)
