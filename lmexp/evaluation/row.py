"""A row of the report card: one figure with its definition, its interval and the method that made it."""

from __future__ import annotations

import json
import math
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

from rich.table import Table

from lmexp.errors import RunError
from lmexp.files import write_atomically
from lmexp.reading import read_format

FORMAT = "lmexp.evaluation"
VERSION = 1
MEASURED = "measured"


@dataclass(kw_only=True, slots=True)
class Row:
    """One figure."""

    name: str
    """evaluation/figure, such as perplexity/bits_per_byte."""
    split: str
    """Part of the corpus that was scored."""
    definition: str
    """What the figure is, with all that a comparison must keep equal."""
    estimate: float | None = None
    """The figure; None where it was not measured."""
    low: float | None = None
    """Lower end of the 95% interval; None where there is none."""
    high: float | None = None
    """Upper end of the 95% interval."""
    n: int = 0
    """What the figure is an average over: tokens, or bytes for figures per byte."""
    n_clusters: int = 0
    """Independent groups of these, such as documents."""
    unit: str = ""
    """Unit of the estimate and of its interval; empty for a plain number."""
    method: str = ""
    """How the interval was made."""
    status: str = MEASURED
    """measured, or "not measured: why"."""
    higher_is_better: bool | None = None
    """Which direction is better; None where neither is."""

    @property
    def measured(self) -> bool:
        """Whether there is an estimate."""
        return self.status == MEASURED


def not_measured(name: str, split: str, definition: str, why: str, *, unit: str = "") -> Row:
    """A row that says why there is no figure."""
    return Row(name=name, split=split, definition=definition, unit=unit, status=f"not measured: {why}")


@dataclass(kw_only=True, slots=True)
class Summary:
    """What evaluation/summary.json holds."""

    checkpoint: str
    """Name of the checkpoint that was evaluated."""
    rows: list[Row]


def write_summary(path: Path, rows: list[Row], *, checkpoint: str) -> None:
    """Write the rows as JSON, complete or not at all."""
    for row in rows:
        _check_finite(row)
    content = {
        "format": FORMAT,
        "version": VERSION,
        "checkpoint": checkpoint,
        "rows": [asdict(row) for row in rows],
    }
    text = json.dumps(content, indent=2, ensure_ascii=False, allow_nan=False) + "\n"
    path.parent.mkdir(parents=True, exist_ok=True)
    write_atomically(path, text)


def read_summary(path: Path) -> Summary:
    """The rows in a summary.json; RunError where it is missing, damaged or of another format or version."""
    try:
        content = read_format(path, RunError, FORMAT, VERSION)
    except FileNotFoundError:
        raise RunError(f"there is no {path}; run lmexp evaluate to make it") from None
    try:
        rows = [_row_from(entry) for entry in content["rows"]]
        return Summary(checkpoint=str(content["checkpoint"]), rows=rows)
    except (KeyError, TypeError, ValueError) as error:
        raise RunError(f"{path} is damaged ({error}); run lmexp evaluate to make it anew") from None


def text_table(rows: list[Row], *, title: str | None = None) -> Table:
    """The rows as a table for the terminal."""
    table = Table(title=title, title_justify="left")
    table.add_column("figure")
    table.add_column("split")
    for heading in ("estimate", "95% interval", "n", "clusters"):
        table.add_column(heading, justify="right")
    table.add_column("unit")
    for row in rows:
        if row.measured:
            counts = (f"{row.n:,}", f"{row.n_clusters:,}")
            table.add_row(row.name, row.split, figure(row.estimate), interval_text(row), *counts, row.unit)
        else:
            table.add_row(row.name, row.split, row.status, style="dim")
    return table


def figure(value: float | None) -> str:
    """A value for people, to four significant digits or more.

    >>> figure(1.23456), figure(1234.5678), figure(0.00012344), figure(0), figure(None)
    ('1.235', '1,234.6', '0.0001234', '0', '-')
    """
    if value is None:
        return "-"
    if value == 0 or not 1e-4 <= abs(value) < 1e9:
        return f"{value:.4g}"
    decimals = 3 - math.floor(math.log10(abs(value)))
    return f"{value:,.{max(decimals, 1)}f}"


def interval_text(row: Row) -> str:
    """The interval as "1.2 to 1.3", or a dash."""
    if row.low is None or row.high is None:
        return "-"
    return f"{figure(row.low)} to {figure(row.high)}"


def _row_from(entry: dict[str, Any]) -> Row:
    unknown = set(entry) - {field.name for field in fields(Row)}
    if unknown:
        raise ValueError(f"unknown keys {', '.join(sorted(unknown))}")
    row = Row(**entry)
    for name, kinds in ROW_TYPES.items():
        if not isinstance(getattr(row, name), kinds):
            raise ValueError(f"{name} is {repr(getattr(row, name))[:80]}")
    _check_finite(row)
    return row


ROW_TYPES: dict[str, tuple[type, ...]] = {
    **dict.fromkeys(("name", "split", "definition", "unit", "method", "status"), (str,)),
    **dict.fromkeys(("estimate", "low", "high"), (float, int, type(None))),
    **dict.fromkeys(("n", "n_clusters"), (int,)),
    "higher_is_better": (bool, type(None)),
}


def _check_finite(row: Row) -> None:
    for name in ("estimate", "low", "high"):
        value = getattr(row, name)
        if value is not None and not math.isfinite(value):
            raise ValueError(
                f"row {row.name}: {name} is {value}; expected a finite number; "
                f"use not_measured(...) to say why there is none"
            )
