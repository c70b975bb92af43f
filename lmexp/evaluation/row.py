"""A row of the report card: one figure with its definition, its interval and the method that made it."""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Any

from lmexp.errors import RunError
from lmexp.evaluation.plot import Plot, check, is_number, plot_from
from lmexp.files import write_atomically
from lmexp.reading import read_format

FORMAT = "lmexp.evaluation"
VERSION = 2
MEASURED = "measured"
ESTIMATED = "estimated"
NOT_MEASURED = "not measured: "
ASPECTS = ("accuracy", "robustness", "generalization", "efficiency", "interpretability", "safety", "cost")


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
    """measured; estimated, where it follows from a model of what was not measured; or "not measured: why"."""
    higher_is_better: bool | None = None
    """Which direction is better; None where neither is."""
    aspect: str = "accuracy"
    """Which question it answers: one of ASPECTS."""
    plot: Plot | None = None
    """What is drawn of it."""

    def __post_init__(self) -> None:
        """ValueError where it says what no row says."""
        if self.aspect not in ASPECTS:
            raise ValueError(f"row {self.name}: aspect is {self.aspect!r}; expected one of {', '.join(ASPECTS)}")
        if self.status not in (MEASURED, ESTIMATED) and not self.status.startswith(NOT_MEASURED):
            raise ValueError(
                f"row {self.name}: status is {self.status!r}; expected {MEASURED}, {ESTIMATED} or '{NOT_MEASURED}why'"
            )

    @property
    def measured(self) -> bool:
        """Whether there is an estimate, measured as such or estimated."""
        return self.status in (MEASURED, ESTIMATED)

    @property
    def evaluation(self) -> str:
        """The evaluation that made it."""
        return self.name.partition("/")[0]

    @property
    def definition_hash(self) -> str:
        """12 hex digits of the definition's SHA-256. Figures may be compared only where it is equal."""
        return hashlib.sha256(self.definition.encode("utf-8", errors="surrogatepass")).hexdigest()[:12]


def not_measured(name: str, split: str, definition: str, why: str, *, unit: str = "", aspect: str = "accuracy") -> Row:
    """A row that says why there is no figure."""
    return Row(name=name, split=split, definition=definition, unit=unit, aspect=aspect, status=f"{NOT_MEASURED}{why}")


@dataclass(kw_only=True, slots=True)
class Summary:
    """What evaluation/summary.json holds."""

    checkpoint: str
    """Name of the checkpoint that was evaluated."""
    rows: list[Row]
    tables: dict[str, str] = field(default_factory=dict)
    """Evaluation -> digest of the key of the samples table that its rows derive from."""


def write_summary(path: Path, rows: list[Row], *, checkpoint: str, tables: Mapping[str, str] | None = None) -> None:
    """Write the rows as JSON, complete or not at all. tables: see Summary."""
    for row in rows:
        _check_finite(row)
    content = {
        "format": FORMAT,
        "version": VERSION,
        "checkpoint": checkpoint,
        "tables": dict(tables or {}),
        "rows": [row_json(row) for row in rows],
    }
    text = json.dumps(content, indent=2, ensure_ascii=False, allow_nan=False) + "\n"
    path.parent.mkdir(parents=True, exist_ok=True)
    write_atomically(path, text.encode(errors="backslashreplace"))  # a lone surrogate as JSON writes it, \\udc80


def read_summary(path: Path) -> Summary:
    """The rows in a summary.json; RunError where it is missing, damaged or of another format or version."""
    try:
        content = read_format(path, RunError, FORMAT, VERSION)
    except FileNotFoundError:
        raise RunError(f"there is no {path}; run lmexp evaluate to make it") from None
    try:
        rows = [_row_from(entry) for entry in content["rows"]]
        return Summary(checkpoint=str(content["checkpoint"]), rows=rows, tables=_tables(content["tables"]))
    except (KeyError, TypeError, ValueError) as error:
        raise RunError(f"{path} is damaged ({error}); run lmexp evaluate to make it anew") from None


def row_json(row: Row) -> dict[str, Any]:
    """The row as plain data, with the hash of its definition."""
    return {**asdict(row), "definition_hash": row.definition_hash}


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


def _tables(given: Any) -> dict[str, str]:
    if not isinstance(given, dict) or not all(isinstance(key, str) for key in given.values()):
        raise ValueError(f"tables is {repr(given)[:80]}; expected text")
    return dict(given)


def _row_from(entry: Any) -> Row:
    if not isinstance(entry, dict):
        raise ValueError(f"a row is {repr(entry)[:80]}; expected an object")
    unknown = set(entry) - {one.name for one in fields(Row)} - {"definition_hash"}
    if unknown:
        raise ValueError(f"unknown keys {', '.join(sorted(unknown))[:200]}")
    for name, kinds in ROW_TYPES.items():
        if name in entry and (not isinstance(entry[name], kinds) or (type(entry[name]) is bool and bool not in kinds)):
            raise ValueError(f"{name} is {repr(entry[name])[:80]}")
    values = {name: value for name, value in entry.items() if name != "definition_hash"}
    if values.get("plot") is not None:
        values["plot"] = plot_from(values["plot"])
    row = Row(**values)
    _check_finite(row)
    found = entry.get("definition_hash", row.definition_hash)
    if found != row.definition_hash:
        raise ValueError(f"row {row.name[:80]}: the hash of its definition is {row.definition_hash}, not {found}")
    return row


ROW_TYPES: dict[str, tuple[type, ...]] = {
    **dict.fromkeys(("name", "split", "definition", "unit", "method", "status", "aspect", "definition_hash"), (str,)),
    **dict.fromkeys(("estimate", "low", "high"), (float, int, type(None))),
    **dict.fromkeys(("n", "n_clusters"), (int,)),
    "higher_is_better": (bool, type(None)),
}


def _check_finite(row: Row) -> None:
    for name in ("estimate", "low", "high"):
        value = getattr(row, name)
        if value is not None and not is_number(value):
            raise ValueError(
                f"row {row.name}: {name} is {repr(value)[:80]}; expected a finite number; "
                f"use not_measured(...) to say why there is none"
            )
    if row.plot is not None:
        check(row.plot)
