"""Plots that list names, one below the other: forests, bars, the dots of a factor's levels, strips."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from statistics import fmean, median

from lmexp.evaluation.plot import Plot, Series
from lmexp.reports.charts.scales import Scale, covering, number_text
from lmexp.reports.charts.svg import (
    BOTTOM,
    CHARACTER,
    LEGEND_LINE,
    RIGHT,
    WIDTH,
    legend,
    n_legend_lines,
    short,
    style,
    svg,
    with_unit,
    words,
    x_axis,
)
from lmexp.reports.visible import shown

ROW, TALL_ROW, SPLIT = 26, 34, 16
NAME_CHARACTERS = 22
VALUE_WIDTH = 50
MOST_TOLD = 12
GOLDEN = 0.618034


@dataclass(frozen=True, slots=True)
class _Entry:
    """What one series has at one name."""

    series: Series
    colour: int
    places: list[int]
    """Indices into the series' lists."""

    def values(self) -> list[float]:
        return [float(self.series.y[place]) for place in self.places]


def draw_names(plot: Plot) -> str:
    """A plot of NAME_KINDS as an <svg> element."""
    rows = _rows(plot)
    labels = [(series.label, colour) for colour, series in enumerate(plot.series, start=1)]
    tall = any(series.n for series in plot.series)
    left = 14 + CHARACTER * min(max(len(name) for name in rows), NAME_CHARACTERS)
    right = WIDTH - (2 * RIGHT if plot.kind in ("dots", "strip") else VALUE_WIDTH)
    above = 10.0 + LEGEND_LINE * (n_legend_lines(labels) + bool(plot.references))
    tops, bottom = [], above
    for entries in rows.values():
        tops.append(bottom)
        bottom += (TALL_ROW if tall else ROW) + SPLIT * (len(entries) - 1)
    x, ticks = covering(_numbers(plot), left, right)
    better = {True: "higher is better", False: "lower is better", None: ""}[plot.higher_is_better]
    label = ", ".join(filter(None, (with_unit(plot.y_label, plot.y_unit), better)))
    parts = [
        x_axis(ticks, x, bottom, label, grid_from=above),
        legend(labels, top=above + 6 - LEGEND_LINE * bool(plot.references)),
        *_references(plot, x, above, bottom),
    ]
    for (name, entries), top, end in zip(rows.items(), tops, [*tops[1:], bottom], strict=True):
        parts.append(_row(plot, name, entries, top, end, x))
    return svg(plot.title, _in_words(plot, rows), bottom + BOTTOM, parts)


def _rows(plot: Plot) -> dict[str, list[_Entry]]:
    """Name -> what each series that has it has there."""
    rows: dict[str, list[_Entry]] = {name: [] for name in plot.names}
    for colour, series in enumerate(plot.series, start=1):
        places: dict[str, list[int]] = {}
        for place, name in enumerate(series.x):
            places.setdefault(str(name), []).append(place)
        for name, found in places.items():
            rows[name].append(_Entry(series, colour, found))
    return rows


def _numbers(plot: Plot) -> list[float]:
    """All values that must lie inside."""
    found = [float(v) for series in plot.series for v in (*series.y, *(series.low or ()), *(series.high or ()))]
    found += [reference.value for reference in plot.references]
    return found + ([0.0] if plot.kind == "bars" else [])


def _references(plot: Plot, x: Scale, top: float, bottom: float) -> list[str]:
    parts = []
    for one in plot.references:
        at = f"{x(one.value):.1f}"
        parts.append(
            f'<line class="reference" x1="{at}" y1="{top}" x2="{at}" y2="{bottom}">'
            f"<title>{shown(words(one.label, one.value))}</title></line>"
            f'<text class="label middle" x="{at}" y="{top - 4}">{shown(short(one.label, 24))}</text>'
        )
    return parts


def _row(plot: Plot, name: str, entries: Sequence[_Entry], top: float, end: float, x: Scale) -> str:
    """A name and what is drawn to its right, between two heights."""
    middle = (top + end) / 2
    counts = {n for entry in entries if entry.series.n for n in (sum(entry.series.n[p] for p in entry.places),)}
    below = f"n {min(counts):,}" if len(counts) == 1 else ""
    shift = -6 if below else 0
    parts = [
        f'<text class="name end" x="{x.start - 10:.1f}" y="{middle + 4 + shift:.1f}">'
        f"<title>{shown(name)}</title>{shown(short(name, NAME_CHARACTERS))}</text>"
    ]
    if below:
        parts.append(f'<text class="tick end" x="{x.start - 10:.1f}" y="{middle + 14:.1f}">{below}</text>')
    first = middle - SPLIT * (len(entries) - 1) / 2
    for number, entry in enumerate(entries):
        at = first + SPLIT * number
        drawn = (
            _estimates(plot, name, entry, at, x) if plot.kind in ("forest", "bars") else _dots(plot, name, entry, at, x)
        )
        parts.append(f'<g class="{style(entry.colour)}">{drawn}</g>')
    return "".join(parts)


def _estimates(plot: Plot, name: str, entry: _Entry, at: float, x: Scale) -> str:
    """Estimates with their intervals; from 0 on where they are bars."""
    parts, series = [], entry.series
    for place in entry.places:
        value = float(series.y[place])
        low, high = (None if ends is None else float(ends[place]) for ends in (series.low, series.high))
        label = name if len(plot.series) == 1 or series.label == name else f"{name}, {series.label}"
        told = words(label, value, low, high, series.n[place] if series.n else None)
        bar = f'<line class="stem" x1="{x(0):.1f}" y1="{at:.1f}" x2="{x(value):.1f}" y2="{at:.1f}"/>'
        ends = [value if end is None else end for end in (low, high)]
        parts.append(
            f"<g><title>{shown(told)}</title>{bar if plot.kind == 'bars' else ''}"
            f'<line class="whisker" x1="{x(ends[0]):.1f}" y1="{at:.1f}" x2="{x(ends[1]):.1f}" y2="{at:.1f}"/>'
            f'<circle class="dot" cx="{x(value):.1f}" cy="{at:.1f}" r="4.5"/>'
            f'<text class="value" x="{x(max(value, *ends)) + 9:.1f}" y="{at + 4:.1f}">{number_text(value)}</text></g>'
        )
    return "".join(parts)


def _dots(plot: Plot, name: str, entry: _Entry, at: float, x: Scale) -> str:
    """A dot for each value and a mark: dots have their range and their mean, a strip its median."""
    values = entry.values()
    strip = plot.kind == "strip"
    label = name if len(plot.series) == 1 else f"{name}, {entry.series.label}"
    centre = median(values) if strip else fmean(values)
    parts = []
    if not strip:
        parts.append(
            f'<line class="stem thin" x1="{x(min(values)):.1f}" y1="{at:.1f}" x2="{x(max(values)):.1f}" y2="{at:.1f}"/>'
        )
    for number, value in enumerate(values):
        aside = (number * GOLDEN % 1 - 0.5) * 12 if strip else 0.0  # apart, and the same every time
        parts.append(
            f'<circle class="dot faint" cx="{x(value):.1f}" cy="{at + aside:.1f}" r="{2.5 if strip else 4}">'
            f"<title>{shown(words(label, value))}</title></circle>"
        )
    told = words(f"{label}, {'median' if strip else 'mean'} of {len(values):,}", centre)
    parts.append(
        f'<line class="centre" x1="{x(centre):.1f}" y1="{at - 8:.1f}" x2="{x(centre):.1f}" y2="{at + 8:.1f}">'
        f"<title>{shown(told)}</title></line>"
    )
    return "".join(parts)


def _in_words(plot: Plot, rows: dict[str, list[_Entry]]) -> str:
    told = [_told(plot, name, entry) for name, entries in rows.items() for entry in entries]
    rest = f" and {len(told) - MOST_TOLD} more" if len(told) > MOST_TOLD else ""
    references = "".join(f"; {one.label} at {number_text(one.value)}" for one in plot.references)
    return f"{plot.title}. {with_unit(plot.y_label, plot.y_unit)}. {'; '.join(told[:MOST_TOLD])}{rest}{references}"


def _told(plot: Plot, name: str, entry: _Entry) -> str:
    label = name if len(plot.series) == 1 or entry.series.label == name else f"{name}, {entry.series.label}"
    values = entry.values()
    if plot.kind in ("dots", "strip"):
        return f"{label} from {number_text(min(values))} to {number_text(max(values))}"
    return f"{label} {', '.join(number_text(value) for value in values)}"
