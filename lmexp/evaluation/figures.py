"""From a samples table to the rows of a report card: every figure with the interval that its kind deserves.

a share of independent samples       Wilson (1927)
another mean, or clustered samples   t over clusters (Liang and Zeger 1986)
a ratio of sums, or exp of one       expanded BCa bootstrap over clusters (Efron 1987; Hesterberg 2015)
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from lmexp.evaluation.plot import MOST_NAMES, MOST_TEXT, Plot, Series
from lmexp.evaluation.row import Row, not_measured
from lmexp.evaluation.samples import Figure, Samples
from lmexp.evaluation.statistics.bootstrap import N_RESAMPLES, resampled_sums
from lmexp.evaluation.statistics.clusters import sums_by_cluster
from lmexp.evaluation.statistics.intervals import Interval, clustered_mean, wilson
from lmexp.evaluation.token_plots import with_plots

Floats = NDArray[np.float64]

MOST_SLICES = 100

EMPTY = {
    "n_bytes": "the scored tokens cover no bytes",
    "n_tokens": "no token was scored",
    "n_words": "the scored tokens begin no word",
}
"""Denominator -> what it means when it is 0."""


def rows_of(samples: Samples, *, seed: int) -> list[Row]:
    """A row for each figure that the table's header names."""
    rows = [row_of(figure, samples, seed=seed) for figure in samples.header.figures]
    return with_plots(rows, samples, seed=seed)


def rows_by_slice(samples: Samples, *, seed: int) -> list[Row]:
    """A row for the main figure in each slice, such as blimp/acc[adjunct_island]; none where there is one slice only.

    Of more than MOST_SLICES the first by name; the last row says how many were left out.
    """
    column = np.array(samples.values("slice"), dtype=object)
    names = sorted(set(column))
    if len(names) < 2:
        return []
    figure, rows = samples.header.figures[0], []
    for name in names[:MOST_SLICES]:
        row = row_of(figure, samples.where(column == name), seed=seed)
        definition = f"{row.definition}; only {name}"
        rows.append(replace(row, name=f"{row.name}[{name}]", definition=definition))
    if len(names) > MOST_SLICES:
        header = samples.header
        why = f"{len(names) - MOST_SLICES:,} more of {len(names):,} slices; samples.parquet has them"
        rows.append(not_measured(f"{header.name}/{figure.name}[...]", header.split, figure.definition, why))
    return rows


def with_slices(rows: list[Row], by_slice: list[Row]) -> list[Row]:
    """All rows, the first with a plot of the main figure in the slices."""
    drawn = [row for row in by_slice if row.estimate is not None]
    if not drawn or rows[0].estimate is None:
        return [*rows, *by_slice]
    main = rows[0]
    some = [main, *drawn[: MOST_NAMES - 1]]
    names = ["all", *(row.name.partition("[")[2].removesuffix("]")[:MOST_TEXT] for row in some[1:])]
    bounds = [(row.low, row.high) for row in some if row.low is not None and row.high is not None]
    whole = len(bounds) == len(some)  # a series has intervals throughout, or none
    series = Series(
        label=main.name.partition("/")[2],
        x=names,
        y=[row.estimate for row in some if row.estimate is not None],
        low=[low for low, _ in bounds] if whole else None,
        high=[high for _, high in bounds] if whole else None,
        n=[row.n for row in some],
    )
    plot = Plot(
        kind="forest",
        title=f"{main.name} by slice",
        series=[series],
        y_label=series.label,
        y_unit=main.unit,
        higher_is_better=main.higher_is_better,
    )
    return [replace(main, plot=plot), *rows[1:], *by_slice]


def row_of(figure: Figure, samples: Samples, *, seed: int) -> Row:
    """A figure over all rows of a table. seed: of the bootstrap."""
    header = samples.header
    name, definition = f"{header.name}/{figure.name}", f"{figure.definition}; {header.definition}"
    why = _why_not(figure, samples)
    if why:
        return not_measured(name, header.split, definition, why, unit=figure.unit)
    estimate = estimate_of(figure, samples)
    if not math.isfinite(estimate):
        mean = figure.scale * _total(samples.numbers(figure.numerator)) / _denominator(figure, samples).sum()
        return not_measured(name, header.split, definition, f"exp of {mean:.6g} overflows", unit=figure.unit)
    interval, method = interval_of(figure, samples, seed=seed)
    return Row(
        name=name,
        split=header.split,
        definition=definition,
        estimate=estimate,
        low=interval.low,
        high=interval.high,
        n=_n(figure, samples),
        n_clusters=int(samples.clusters().max()) + 1,
        unit=figure.unit,
        method=f"paired {method}" if figure.paired and interval.low is not None else method,
        higher_is_better=figure.higher_is_better,
    )


def estimate_of(figure: Figure, samples: Samples) -> float:
    """The figure; nan or inf where it has none."""
    total = _denominator(figure, samples).sum()
    if not total:
        return math.nan
    ratio = figure.scale * _total(samples.numbers(figure.numerator)) / float(total)
    return _exp(ratio) if figure.exp else ratio


def addends(figure: Figure, samples: Samples) -> Floats:
    """What a figure adds up, scale * numerator and denominator of each sample: (n, 2)."""
    return np.stack([figure.scale * samples.numbers(figure.numerator), _denominator(figure, samples)], axis=1)


def ratio_of(figure: Figure) -> Callable[[Floats], Floats]:
    """The figure of sums of its addends: (..., 2) -> (...)."""

    def ratio(sums: Floats) -> Floats:
        found: Floats = sums[..., 0] / sums[..., 1]
        return np.exp(found) if figure.exp else found

    return ratio


def interval_of(figure: Figure, samples: Samples, *, seed: int) -> tuple[Interval, str]:
    """The 95% interval of a figure, and how it was made."""
    clusters, what = samples.clusters(), samples.header.cluster
    n_clusters = int(clusters.max()) + 1
    if n_clusters < 2:
        return Interval(None, None), f"no interval: only one {what} was scored"
    if figure.denominator is None and not figure.exp:
        values = samples.numbers(figure.numerator)
        if figure.binary and n_clusters == len(samples):
            return wilson(int(values.sum()), len(values)), f"Wilson over {n_clusters:,} {what}s"
        mean = clustered_mean(figure.scale * values, clusters)
        return mean.interval, _noted(f"t over {n_clusters:,} {what}s", mean.interval)
    sums = sums_by_cluster(addends(figure, samples), clusters)  # (n_clusters, 2)
    interval = resampled_sums(sums, seed=seed).map(ratio_of(figure)).interval()
    few = " (fewer than 20 documents)" if what == "window" else ""
    words = f"expanded BCa bootstrap over {n_clusters:,} {what}s{few}, {N_RESAMPLES:,} resamples, seed {seed}"
    return interval, _noted(words, interval)


def _noted(method: str, interval: Interval) -> str:
    return f"{method}; {interval.note}" if interval.note else method


def _denominator(figure: Figure, samples: Samples) -> Floats:
    return np.ones(len(samples)) if figure.denominator is None else samples.numbers(figure.denominator)


def _n(figure: Figure, samples: Samples) -> int:
    counted = figure.counted or figure.denominator
    return len(samples) if counted is None else int(samples.counts(counted).sum())


def _why_not(figure: Figure, samples: Samples) -> str:
    if not len(samples):
        return "there are no samples"
    values = samples.numbers(figure.numerator)
    wrong = np.unique(samples.clusters()[~np.isfinite(values)]).size
    if wrong:
        n_clusters, what = int(samples.clusters().max()) + 1, samples.header.cluster
        return f"the model's scores are not finite in {wrong:,} of {n_clusters:,} {what}s"
    if not _denominator(figure, samples).sum():
        return EMPTY.get(figure.denominator or "", f"the sum of {figure.denominator} is 0")
    return ""


def _total(values: Floats) -> float:
    """Correctly rounded; inf or nan where a value is."""
    return math.fsum(values) if bool(np.isfinite(values).all()) else float(values.sum())


def _exp(value: float) -> float:
    try:
        return math.exp(value)
    except OverflowError:
        return math.inf
