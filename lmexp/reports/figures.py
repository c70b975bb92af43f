"""The rows of the report card as HTML: tables with a mark for each interval, plots, definitions."""

from __future__ import annotations

from collections.abc import Iterable

from lmexp.evaluation.plot import Plot, Series
from lmexp.evaluation.row import Row, Summary, figure, interval_text
from lmexp.reports.card import Card, Group, grouped
from lmexp.reports.charts.plots import figure_of
from lmexp.reports.charts.scales import Scale
from lmexp.reports.visible import shown

COLUMNS = ("figure", "split", "estimate", "95% interval", "n", "clusters", "status")
NUMBERS = ("estimate", "95% interval", "n", "clusters")
MARK_WIDTH, MARK_HEIGHT = 120, 14
BASELINES = {
    "perplexity/bits_per_byte": ("this model", "this model"),
    "baselines/bigram_bits_per_byte": ("counting", "bigram"),
    "baselines/unigram_bits_per_byte": ("counting", "unigram"),
}
"""Row -> the series and the name under which it stands in the chart of the baselines."""


def section(card: Card) -> str:
    """All groups of rows; why there are none where there are none."""
    later = "".join(_later(one) for one in card.later)
    if not card.rows:
        return f'<p class="soft">No figures: {shown(card.missing)}.</p>{later}'
    checkpoint = f'<p class="soft small">Checkpoint: {shown(card.checkpoint)}</p>' if card.checkpoint else ""
    return "\n".join([_against_baselines(card.rows), *(_group(group) for group in card.groups), checkpoint, later])


def _later(summary: Summary) -> str:
    """What `lmexp evaluate` was asked for."""
    note = f'<p class="soft small">Evaluated on request; checkpoint: {shown(summary.checkpoint)}</p>'
    return "\n".join([*(_group(group) for group in grouped(summary.rows)), note])


def _group(group: Group) -> str:
    """A table of rows, then their plots, then what each of them means."""
    aspect = f'<span class="aspect">{shown(group.aspect)}</span>'
    head = "".join(
        f'<th scope="col"{_class("number" if column in NUMBERS else "")}>{column}</th>' for column in COLUMNS
    )
    scales = mark_scales(group.rows)
    body = "\n".join(_row(row, scales.get(_kind_of_number(row))) for row in group.rows)
    name = shown(group.evaluation)
    table = f"<table><thead><tr>{head}</tr></thead><tbody>\n{body}\n</tbody></table>"
    return (
        f'<h3>{name} {aspect}</h3>\n<div class="wide" tabindex="0" role="region" aria-label="figures of {name}">'
        f"{table}</div>\n{_plots(row.plot for row in group.rows if row.plot)}{_definitions(group.rows)}"
    )


def _row(row: Row, scale: Scale | None) -> str:
    name = shown(row.name).replace("/", "/<wbr>").replace("_", "_<wbr>")
    first = f'<th scope="row">{name}</th><td>{shown(row.split)}</td>'
    if not row.measured:
        return f'<tr>{first}<td colspan="5" class="soft">{shown(row.status)}</td></tr>'
    unit = f'<span class="small">{shown(row.unit)}</span>' if row.unit else ""
    mark = interval_mark(row, scale) if scale and row.low is not None and row.high is not None else ""
    return (
        f'<tr>{first}<td class="number">{figure(row.estimate)}{unit}</td>'
        f'<td class="number interval">{interval_text(row)}{mark}</td>'
        f'<td class="number">{row.n:,}</td><td class="number">{row.n_clusters:,}</td>'
        f"<td{_class('' if row.status == 'measured' else 'estimated')}>{shown(row.status)}</td></tr>"
    )


def interval_mark(row: Row, scale: Scale) -> str:
    """Estimate and interval as a small <svg> element, with a line at 0."""
    assert row.low is not None and row.high is not None
    middle = MARK_HEIGHT / 2
    told = f"{figure(row.estimate)}, {interval_text(row)}, on a scale from {figure(scale.low)} to {figure(scale.high)}"
    dot = "" if row.estimate is None else f'<circle class="dot" cx="{scale(row.estimate):.1f}" cy="{middle}" r="3.2"/>'
    return (
        f'<svg class="mark" viewBox="0 0 {MARK_WIDTH} {MARK_HEIGHT}" role="img" aria-label="{shown(told)}">'
        f"<title>{shown(told)}</title>"
        f'<line class="axis" x1="{scale.start}" y1="{middle}" x2="{scale.stop}" y2="{middle}"/>'
        f'<line class="axis" x1="{scale(0.0):.1f}" y1="1" x2="{scale(0.0):.1f}" y2="{MARK_HEIGHT - 1}"/>'
        f'<g class="series-1"><line class="whisker" x1="{scale(row.low):.1f}" y1="{middle}" '
        f'x2="{scale(row.high):.1f}" y2="{middle}"/>{dot}</g></svg>'
    )


def mark_scales(rows: Iterable[Row]) -> dict[str, Scale]:
    """One scale for all rows of a unit: from 0, so that lengths can be compared; plain numbers within -1 and 1 have one
    of their own, which ends at 1."""
    ends: dict[str, list[float]] = {}
    for row in rows:
        if row.measured:
            ends.setdefault(_kind_of_number(row), [0.0]).extend(v for v in (row.estimate, row.low, row.high) if v)
    scales = {}
    for kind, values in ends.items():
        low, high = min(values), 1.0 if kind == "share" else max(values)
        if 1e-300 < high - low < 1e300:
            scales[kind] = Scale(low, high, 4.0, MARK_WIDTH - 4.0)
    return scales


def _kind_of_number(row: Row) -> str:
    """The rows of a group with the same answer share a scale."""
    values = [value for value in (row.estimate, row.low, row.high) if value is not None]
    if row.unit:
        return f"unit {row.unit}"
    return "share" if all(-1 <= value <= 1 for value in values) else "number"


def _plots(plots: Iterable[Plot]) -> str:
    drawn = "".join(figure_of(plot) for plot in plots)
    return f'<div class="charts">{drawn}</div>\n' if drawn else ""


def _definitions(rows: Iterable[Row]) -> str:
    entries = "".join(
        f"<dt>{shown(row.name)}</dt><dd>{shown(_in_words(row))} "
        f'<span class="hash">definition {row.definition_hash}</span></dd>'
        for row in rows
    )
    return f'<details><summary>Definitions and methods</summary><dl class="pairs">{entries}</dl></details>'


def _in_words(row: Row) -> str:
    better = {True: "higher is better", False: "lower is better", None: ""}[row.higher_is_better]
    return ". ".join(part for part in (row.definition, row.method, better) if part) + "."


def _against_baselines(rows: list[Row]) -> str:
    """The model beside the baselines, where there are any and they bring no plot of their own."""
    by_name = {row.name: row for row in rows if row.measured and row.estimate is not None}
    known = [(label, name, by_name[row]) for row, (label, name) in BASELINES.items() if row in by_name]
    if len(known) < 2 or any(row.plot for row in rows if row.evaluation == "baselines"):
        return ""
    plot = Plot(
        kind="bars",
        title="Against the baselines",
        series=[_estimates(label, known) for label in dict.fromkeys(label for label, *_ in known)],
        y_label="bits per byte",
        higher_is_better=False,
    )
    return f'<div class="charts">{figure_of(plot)}</div>'


def _estimates(label: str, known: list[tuple[str, str, Row]]) -> Series:
    """The rows with this label: estimate, and its interval where it has one."""
    mine = [(name, row, row.estimate or 0.0) for given, name, row in known if given == label]
    return Series(
        label=label,
        x=[name for name, *_ in mine],
        y=[estimate for *_, estimate in mine],
        low=[estimate if row.low is None else row.low for _, row, estimate in mine],
        high=[estimate if row.high is None else row.high for _, row, estimate in mine],
    )


def _class(name: str) -> str:
    return f' class="{name}"' if name else ""
