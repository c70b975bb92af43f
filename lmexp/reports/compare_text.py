"""A comparison in the terminal: the sides, a table of differences, what to know, and in which settings they differ."""

from __future__ import annotations

import io
from collections.abc import Iterator

from rich.console import Console, RenderableType
from rich.table import Table
from rich.text import Text

from lmexp.evaluation.comparison import NOT_COMPARED, Difference
from lmexp.reports import compare_words as say
from lmexp.reports.visible import visible
from lmexp.runs.compare import Comparison, Side
from lmexp.runs.settings import Setting

TONES = {"good": "green", "bad": "red"}
NARROW = 110
"""Columns below which a list stands for the table."""
PIPE_WIDTH = 120
MOST_SETTINGS = 30
MOST_VALUE = 60


def print_comparison(comparison: Comparison, console: Console) -> None:
    """Print all of it."""
    for part in _parts(comparison, console.width):
        console.print(part, soft_wrap=isinstance(part, Text))


def as_text(comparison: Comparison, *, width: int = PIPE_WIDTH) -> str:
    """The same as plain text."""
    console = Console(file=io.StringIO(), width=width, force_terminal=False, no_color=True)
    with console.capture() as captured:
        print_comparison(comparison, console)
    return captured.get().rstrip()


def _parts(comparison: Comparison, width: int) -> Iterator[RenderableType]:
    for side in comparison.sides:
        yield from _side(side)
    for side in comparison.sides[1:]:
        rows = [row for row in comparison.rows if row.other == side.label]
        compared = [row for row in rows if row.verdict != NOT_COMPARED]
        verdict = say.verdict_on(comparison, side.label)
        yield Text()
        yield _text(verdict.text, TONES.get(verdict.tone, ""))
        if compared and width >= NARROW:
            yield _table(compared)
        else:
            yield from _list(compared)
        yield from (_text(line, "dim") for line in say.not_compared(rows))
    yield _text(say.LEGEND, "dim")
    yield from (_text(line) for line in dict.fromkeys(map(_how, comparison.rows)) if line)
    yield from (_text(say.unmatched_text(one), "yellow") for one in comparison.unmatched)
    yield from (_text(f"note: {note}") for note in comparison.notes)
    yield from _settings("config", comparison.config)
    yield from _settings("machine", comparison.machine)


def _side(side: Side) -> Iterator[Text]:
    if len(side.runs) == 1:
        yield _text(f"{say.side_text(side)}  {side.runs[0].path}", "bold")
        return
    yield _text(say.side_text(side), "bold")
    yield from (_text(f"   {run.label}  {run.path}") for run in side.runs)


def _table(rows: list[Difference]) -> Table:
    table = Table()
    names = say.headings(rows[0].reference, rows[0].other)
    for name in names:
        text = name in (names[0], names[-1])
        table.add_column(
            name, justify="left" if text else "right", no_wrap=not text, overflow="fold", max_width=34 if text else None
        )
    for row in rows:
        table.add_row(*map(_text, say.cells(row)), style="bold" if row.primary else "")
    return table


def _list(rows: list[Difference]) -> Iterator[Text]:
    """The rows one below the other, for a narrow terminal."""
    for row in rows:
        name, reference, other, difference, interval, p, corrected, verdict = say.cells(row)
        yield _text(name, "bold" if row.primary else "")
        yield _text(f"  {verdict}")
        yield _text(f"  {row.reference} {reference}, {row.other} {other}, difference {difference} [{interval}]")
        yield _text(f"  p {p}, corrected {corrected}", "dim")


def _how(row: Difference) -> str:
    """How much was compared, once for all figures of an evaluation."""
    if row.verdict == NOT_COMPARED:
        return ""
    return f"{row.name.partition('/')[0]}, {row.other} against {row.reference}: {say.counts_of(row)}"


def _settings(what: str, settings: list[Setting]) -> Iterator[Text]:
    if not settings:
        yield _text(f"{what}: the same in all runs")
        return
    yield _text(f"{what}: {len(settings):,} differ")
    for setting in settings[:MOST_SETTINGS]:
        values = "   ".join(f"{label} {_cut(say.values_of(setting, label))}" for label in setting.values)
        yield _text(f"  {setting.key:<30} {values}")
    if len(settings) > MOST_SETTINGS:
        yield _text(f"  and {len(settings) - MOST_SETTINGS:,} more, in the page")


def _cut(text: str) -> str:
    return text if len(text) <= MOST_VALUE else f"{text[:MOST_VALUE]}..."


def _text(text: str, style: str = "") -> Text:
    """Text that is neither markup nor a control sequence."""
    return Text(visible(text), style=style)
