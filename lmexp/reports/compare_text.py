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
PIPE_WIDTH = 120
NAME_WIDTH, VERDICT_WIDTH = 20, 19
"""That a table must leave at least for names and verdicts, which may take several lines."""
P = 5
"""Place of the column that gives way first."""
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
        if compared:
            table = _table(compared, width)
            yield from [table] if table is not None else _list(compared)
            yield _text(say.counts_text(compared), "dim")
        yield from (_text(line, "dim") for line in say.not_compared(rows))
    yield _text(say.LEGEND, "dim")
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


def _table(rows: list[Difference], width: int) -> Table | None:
    """A section for each evaluation, its name above those of its figures; None where it is too wide, even without p."""
    lines = [say.headings(rows[0].reference, rows[0].other), *map(say.cells, rows)]
    names = [f"  {line[0].partition('/')[2]}" for line in lines[1:]]
    name = min(NAME_WIDTH, max(map(len, [*names, *(row.evaluation for row in rows)])))
    for left_out in ((), (P,)):
        numbers = [place for place in range(1, len(lines[0]) - 1) if place not in left_out]
        taken = sum(max(len(line[place]) for line in lines) for place in numbers)
        left = width - name - taken - 3 * (len(numbers) + 2) - 1
        if left >= VERDICT_WIDTH:
            break
    else:
        return None
    table = Table()
    table.add_column(lines[0][0], overflow="fold", width=name)
    for place in numbers:
        table.add_column(lines[0][place], justify="right", no_wrap=True)
    table.add_column(lines[0][-1], overflow="fold", width=min(left, max(len(line[-1]) for line in lines)))
    evaluation = ""
    for row, short, line in zip(rows, names, lines[1:], strict=True):
        if row.evaluation != evaluation:
            evaluation = row.evaluation
            table.add_section()
            table.add_row(_text(evaluation))
        cells = (short, *(line[place] for place in numbers), line[-1])
        table.add_row(*map(_text, cells), style="bold" if row.primary else "")
    return table


def _list(rows: list[Difference]) -> Iterator[Text]:
    """The rows one below the other, for a narrow terminal."""
    for row in rows:
        name, reference, other, difference, interval, p, corrected, verdict = say.cells(row)
        yield _text(name, "bold" if row.primary else "")
        yield _text(f"  {verdict}")
        yield _text(f"  {row.reference} {reference}, {row.other} {other}, difference {difference} [{interval}]")
        yield _text(f"  p {p}, corrected p {corrected}", "dim")


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
