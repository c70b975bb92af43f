"""What a mirror shows of a report card, as plain data: keys and values, and tables."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, fields
from typing import Any

from lmexp.evaluation.plot import Plot, plot_from
from lmexp.evaluation.row import Row
from lmexp.redaction import redact
from lmexp.tracking.rows import Number

TABLE_KEY = "evaluation/card"
LINES = ("curve", "reliability", "risk_coverage")
"""Kinds of plots that a line chart of (x, y) shows."""
COLUMNS = (
    "name", "split", "aspect", "estimate", "low", "high", "unit", "n", "n_clusters", "status", "definition", "method",
)  # fmt: skip

TEXT_COLUMNS = ("prompt", "seed", "text")


def without_secrets(rows: Sequence[Row]) -> dict[str, Row]:
    """Key -> row with every secret in its text replaced. A key is evaluation/<name>, with the split where two rows have
    the same name."""
    found: dict[str, Row] = {}
    for row in rows:
        values = {field.name: redact(getattr(row, field.name)) for field in fields(Row) if field.name != "plot"}
        plot = None if row.plot is None else plot_from(redact(asdict(row.plot)))
        clean = Row(**values, plot=plot)
        key = f"evaluation/{clean.name}"
        if key in found:
            key = f"{key}/{clean.split}"
        while key in found:
            key += "'"
        found[key] = clean
    return found


def summary_of(rows: Mapping[str, Row]) -> dict[str, Number]:
    """Each row's estimate under its key, and what makes it more than a number under that: low, high, n."""
    values: dict[str, Number] = {}
    for key, row in rows.items():
        if row.measured:
            ends = {key: row.estimate, f"{key}/low": row.low, f"{key}/high": row.high, f"{key}/n": row.n}
            values |= {name: value for name, value in ends.items() if value is not None}
    return values


def table_of(rows: Mapping[str, Row]) -> dict[str, Any]:
    """All rows, as columns and data of a table."""
    return {
        "columns": [*COLUMNS, "definition_hash"],
        "data": [[*(getattr(row, name) for name in COLUMNS), row.definition_hash] for row in rows.values()],
    }


def points_of(plot: Plot) -> dict[str, Any]:
    """The points of a plot, as columns and data of a table."""
    data = []
    for series in plot.series:
        ends = (series.low, series.high, series.n)
        for place, (x, y) in enumerate(zip(series.x, series.y, strict=True)):
            data.append([series.label, x, y, *(None if end is None else end[place] for end in ends)])
    return {"columns": ["series", "x", "y", "low", "high", "n"], "data": data}
