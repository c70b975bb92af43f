"""The report card in the terminal: a table where it fits, else a list."""

from __future__ import annotations

import io
import os
import sys
from collections.abc import Iterator
from pathlib import Path

from rich.console import Console, RenderableType
from rich.table import Table
from rich.text import Text

from lmexp.evaluation.row import MEASURED, Row, figure, interval_text
from lmexp.reports.card import Card, Group, card_of, grouped
from lmexp.reports.run_files import read_run
from lmexp.reports.visible import visible

TONES = {"good": "green", "bad": "red"}
NUMBERS = ("estimate", "95% interval", "n", "clusters")
FREE_WIDTH = 34
"""What a table must leave at least for the names of figures, splits and units."""
PIPE_WIDTH = 120


def print_report(run_dir: Path) -> None:
    """Print the card of a run folder, as wide as the terminal. RunError if it is no run folder."""
    known = sys.stdout.isatty() or "COLUMNS" in os.environ
    console = Console(width=None if known else PIPE_WIDTH, highlight=False)
    print_card(card_of(read_run(run_dir), run_dir.name), console)


def print_card(card: Card, console: Console) -> None:
    """The run, the verdict and the figures."""
    console.print(_text(f"{card.name}: {card.state}", "bold"))
    console.print(_text(card.run_id, "dim"))
    console.print(_text(card.verdict.text, TONES.get(card.verdict.tone, "")))
    if not card.rows:
        console.print(_text(f"No figures: {card.missing}.", "dim"))
    for part in parts(card.rows, console.width):
        console.print(part)
    if card.checkpoint:
        console.print(_text(f"checkpoint: {card.checkpoint}", "dim"))
    for later in card.later:
        for part in parts(later.rows, console.width):
            console.print(part)
        console.print(_text(f"evaluated on request; checkpoint: {later.checkpoint}", "dim"))


def as_text(rows: list[Row], *, width: int = PIPE_WIDTH) -> str:
    """The figures as plain text."""
    console = Console(file=io.StringIO(), width=width, force_terminal=False, no_color=True)
    with console.capture() as captured:
        for part in parts(rows, width):
            console.print(part)
    return captured.get().rstrip()


def parts(rows: list[Row], width: int) -> Iterator[RenderableType]:
    """The figures of each group, then those that were not measured, with the reason."""
    measured = grouped([row for row in rows if row.measured])
    if measured:
        table = _table(measured)
        if _fits(measured, width):
            yield table
        else:
            for group in measured:
                yield from _list(group)
    for row in rows:
        if not row.measured:
            yield _text(f"{row.name}, {row.split}: {row.status}", "dim")


def _table(groups: list[Group]) -> Table:
    """A section for each evaluation under its name, with what was scored and the aspect where that is to be told."""
    told = _tells_status(groups)
    several = len({group.aspect for group in groups}) > 1
    table = Table()
    table.add_column("figure", overflow="fold")
    for heading in NUMBERS:
        table.add_column(heading, justify="right", no_wrap=True)
    table.add_column("unit", overflow="fold")
    if told:
        table.add_column("status", no_wrap=True)
    for group in groups:
        table.add_section()
        splits = list(dict.fromkeys(row.split for row in group.rows))
        title = [group.evaluation, *(splits if len(splits) == 1 else []), *([group.aspect] if several else [])]
        table.add_row(_text(" · ".join(filter(None, title)), "bold"))
        for row in group.rows:
            name = row.name.partition("/")[2] or row.name
            where = f" ({row.split})" if len(splits) > 1 and row.split else ""
            cells = [f"  {name}{where}", *_numbers(row), row.unit, *([row.status] if told else [])]
            table.add_row(*(_text(cell) for cell in cells))
    return table


def _tells_status(groups: list[Group]) -> bool:
    """Whether some figure is not measured as such, but estimated."""
    return any(row.status != MEASURED for group in groups for row in group.rows)


def _fits(groups: list[Group], width: int) -> bool:
    """Whether all numbers stand in their columns unbroken, with room for names, splits and units."""
    columns = zip(NUMBERS, *(_numbers(row) for group in groups for row in group.rows), strict=True)
    taken = sum(max(len(cell) for cell in column) for column in columns)
    taken += len("estimated") + 3 if _tells_status(groups) else 0
    return taken + 3 * 7 + 1 + FREE_WIDTH <= width


def _list(group: Group) -> Iterator[RenderableType]:
    """The rows one below the other, for a narrow terminal."""
    yield _text(f"{group.evaluation} ({group.aspect})", "bold")
    for row in group.rows:
        estimate, interval, n, clusters = _numbers(row)
        within = "" if interval == "-" else f" [{interval}]"
        yield _text(f"  {row.name.partition('/')[2] or row.name}, {row.split}")
        yield _text(f"    {estimate}{within} {row.unit}".rstrip())
        yield _text(f"    n {n}, clusters {clusters}, {row.status}", "dim")


def _numbers(row: Row) -> tuple[str, str, str, str]:
    return figure(row.estimate), interval_text(row), f"{row.n:,}", f"{row.n_clusters:,}"


def _text(text: str, style: str = "") -> Text:
    """Text that is neither markup nor a control sequence."""
    return Text(visible(text), style=style)
