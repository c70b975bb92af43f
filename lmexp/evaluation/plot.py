"""A plot of the report card as plain data: what is drawn in the report and on W&B, and kept in JSON.

Kinds that place numbers against numbers: curve, reliability (confidence and accuracy of bins, with the diagonal) and
risk_coverage. Kinds that list names, one below the other, with their values to the right: forest (estimates with
intervals), bars (the same, from 0 on), dots (a factor's levels and their range) and strip (a distribution).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field, fields
from typing import Any

NAME_KINDS = ("forest", "bars", "dots", "strip")
NUMBER_KINDS = ("curve", "reliability", "risk_coverage")
KINDS = (*NAME_KINDS, *NUMBER_KINDS)
MOST_POINTS = 4000
MOST_SERIES = 8
MOST_NAMES = 100
MOST_TEXT = 200


@dataclass(kw_only=True, slots=True)
class Series:
    """Points that belong together; all lists are equally long."""

    label: str
    """What they are, for the legend."""
    x: Sequence[float] | Sequence[str]
    """Where each lies: numbers, or in a plot of NAME_KINDS names. dots and strip have a name once for each dot of it,
    the others once."""
    y: Sequence[float]
    """The value of each."""
    low: Sequence[float] | None = None
    """Lower ends of the 95% intervals; with high, or neither."""
    high: Sequence[float] | None = None
    """Upper ends."""
    n: Sequence[int] | None = None
    """How many samples are behind each."""

    def __post_init__(self) -> None:
        """Any sequence will do, and is kept as a list."""
        for name in ("x", "y", "low", "high", "n"):
            values = getattr(self, name)
            setattr(self, name, None if values is None else list(values))

    @property
    def numbers(self) -> list[float]:
        """x in a plot of NUMBER_KINDS."""
        return [float(x) for x in self.x]


@dataclass(kw_only=True, slots=True)
class Reference:
    """A line to compare with: chance, zero, the length a model was trained on."""

    label: str
    value: float
    axis: str = "y"
    """y: a value that series may reach; x: a place, such as a position."""


@dataclass(kw_only=True, slots=True)
class Plot:
    """What is drawn below a row of the report card."""

    kind: str
    """One of KINDS."""
    title: str
    series: Sequence[Series]
    y_label: str
    """What the values are; with names, these lie on the horizontal axis."""
    y_unit: str = ""
    """Unit of the values; empty for a plain number."""
    x_label: str = ""
    """What x is; with names it may stay empty."""
    x_unit: str = ""
    log_x: bool = False
    """Whether equal factors of x lie equally far apart."""
    references: Sequence[Reference] = field(default_factory=list)
    higher_is_better: bool | None = None
    """Which direction of the values is better; None where neither is."""

    def __post_init__(self) -> None:
        """ValueError where it can't be drawn: what is wrong, and what is expected."""
        check(self)

    @property
    def names(self) -> list[str]:
        """The names that the series have points at, in order of first appearance; for NAME_KINDS."""
        return list(dict.fromkeys(str(name) for series in self.series for name in series.x))


def plot_from(entry: Any) -> Plot:
    """The plot that dataclasses.asdict made an object of; ValueError where it is none."""
    values = _object(entry, Plot, "plot")
    values["series"] = [Series(**_object(one, Series, "series")) for one in _list(values.get("series"), "series")]
    references = _list(values.get("references", []), "references")
    values["references"] = [Reference(**_object(one, Reference, "reference")) for one in references]
    return Plot(**values)


def check(plot: Plot) -> None:
    """ValueError unless a plot is of a known kind, finite and small enough to draw."""
    if plot.kind not in KINDS:
        raise ValueError(f"plot: kind is {str(plot.kind)[:80]!r}; expected one of {', '.join(KINDS)}")
    for name in ("title", "y_label", "y_unit", "x_label", "x_unit"):
        _check_text(f"plot {name}", getattr(plot, name))
    where = f"plot {plot.title!r}"
    if not isinstance(plot.log_x, bool) or not isinstance(plot.higher_is_better, bool | None):
        raise ValueError(f"{where}: log_x and higher_is_better are true or false (or none)")
    if not 1 <= len(plot.series) <= MOST_SERIES:
        raise ValueError(f"{where} has {len(plot.series)} series; expected 1 to {MOST_SERIES}")
    for series in plot.series:
        _check_series(f"{where}, series {str(series.label)[:80]!r}", plot, series)
    n_points = sum(len(series.y) for series in plot.series)
    if not 1 <= n_points <= MOST_POINTS:
        raise ValueError(f"{where} has {n_points:,} points; expected 1 to {MOST_POINTS:,}: bin or thin them first")
    if plot.kind in NAME_KINDS and len(plot.names) > MOST_NAMES:
        raise ValueError(f"{where} has {len(plot.names):,} names; expected {MOST_NAMES} at most: show the extreme ones")
    _check_references(where, plot)


def _check_series(where: str, plot: Plot, series: Series) -> None:
    _check_text(f"{where}: label", series.label)
    if plot.kind in NAME_KINDS:
        for name in series.x:
            _check_text(f"{where}: a name in x", name)
        if plot.kind in ("forest", "bars") and len(set(series.x)) < len(series.x):
            raise ValueError(f"{where}: a name stands twice in x; {plot.kind} have one estimate a name")
    else:
        _check_numbers(f"{where}: x", series.x)
        if plot.log_x and not all(x > 0 for x in series.numbers):
            raise ValueError(f"{where}: log_x needs every x above 0")
        if plot.kind in ("reliability", "risk_coverage") and not all(0 <= x <= 1 for x in series.numbers):
            raise ValueError(f"{where}: the x of a {plot.kind} plot lies between 0 and 1")
    if plot.kind in ("dots", "strip") and (series.low is not None or series.high is not None):
        raise ValueError(f"{where}: {plot.kind} show values, not intervals; leave low and high out")
    if (series.low is None) != (series.high is None):
        raise ValueError(f"{where}: low and high come together")
    for name in ("y", "low", "high", "n"):
        numbers = getattr(series, name)
        if numbers is not None:
            _check_numbers(f"{where}: {name}", numbers)
            if len(numbers) != len(series.x):
                raise ValueError(f"{where}: {name} has {len(numbers)} entries, and x has {len(series.x)}")
    if series.n is not None and not all(isinstance(n, int) and n >= 0 for n in series.n):
        raise ValueError(f"{where}: n holds counts, so whole numbers from 0 on")


def _check_references(where: str, plot: Plot) -> None:
    if len(plot.references) > MOST_SERIES:
        raise ValueError(f"{where} has {len(plot.references)} references; expected {MOST_SERIES} at most")
    for reference in plot.references:
        _check_text(f"{where}: label of a reference", reference.label)
        _check_numbers(f"{where}: reference {reference.label!r}", [reference.value])
        axes = ("y",) if plot.kind in NAME_KINDS else ("x", "y")
        if reference.axis not in axes:
            raise ValueError(
                f"{where}: axis of a reference is {str(reference.axis)[:80]!r}; expected {' or '.join(axes)}"
            )
        if plot.log_x and reference.axis == "x" and reference.value <= 0:
            raise ValueError(f"{where}: log_x needs references on x above 0")


def _check_text(what: str, text: object) -> None:
    if not isinstance(text, str) or len(text) > MOST_TEXT:
        raise ValueError(f"{what} is {repr(text)[:80]}; expected text of {MOST_TEXT} characters at most")


def _check_numbers(what: str, numbers: Sequence[Any]) -> None:
    for number in numbers:
        if not is_number(number):
            raise ValueError(f"{what} holds {repr(number)[:80]}; expected finite Python numbers (array.tolist())")


def is_number(value: object) -> bool:
    """Whether a value is a finite number that a float holds.

    >>> [is_number(value) for value in (1, 0.5, True, "1", float("nan"), 10**400)]
    [True, True, False, False, False, False]
    """
    if isinstance(value, bool) or not isinstance(value, int | float):
        return False
    try:
        return math.isfinite(value)
    except OverflowError:
        return False


def _object(entry: Any, schema: type, what: str) -> dict[str, Any]:
    """The keys of a JSON object that holds a dataclass."""
    if not isinstance(entry, dict):
        raise ValueError(f"{what} is {repr(entry)[:80]}; expected an object")
    unknown = set(entry) - {one.name for one in fields(schema)}
    if unknown:
        raise ValueError(f"{what}: unknown keys {', '.join(sorted(unknown))[:200]}")
    lists = {name: entry[name] for name in ("x", "y", "low", "high", "n") if entry.get(name) is not None}
    for name, value in lists.items():
        _list(value, f"{what}: {name}")
    return dict(entry)


def _list(value: Any, what: str) -> list[Any]:
    if not isinstance(value, list):
        raise ValueError(f"{what} is {repr(value)[:80]}; expected a list")
    return value
