"""Intervals for figures that are functions of sums, such as ratios: the bootstrap over clusters.

Tokens of one document are not independent, so documents are drawn, with replacement, and the figure is
computed anew from the sums over those drawn (percentile interval: Efron and Tibshirani 1993, chapter 13).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

N_RESAMPLES = 1000
CONFIDENCE = 0.95
_MAX_DRAWS_AT_ONCE = 1 << 20


@dataclass(frozen=True, slots=True)
class Interval:
    """A two-sided interval; None at both ends where there are too few clusters to say."""

    low: float | None
    high: float | None


def resample_sums(
    columns: ArrayLike, *, n_resamples: int = N_RESAMPLES, seed: int = 0, max_draws: int = _MAX_DRAWS_AT_ONCE
) -> NDArray[np.float64]:
    """Sums of each column over clusters drawn with replacement: (n_resamples, n_columns).

    columns: (n_clusters, n_columns). All columns see the same draws, so differences between them are paired.
    max_draws bounds the memory and does not change the result.

    >>> resample_sums([[1.0, 2.0]], n_resamples=2)
    array([[1., 2.],
           [1., 2.]])
    """
    values = np.asarray(columns, dtype=np.float64)  # (n_clusters, n_columns)
    n_clusters, n_columns = values.shape
    generator = np.random.default_rng(seed)
    rows = max(1, max_draws // n_clusters)
    sums = np.empty((n_resamples, n_columns))
    for start in range(0, n_resamples, rows):
        stop = min(start + rows, n_resamples)
        drawn = generator.integers(0, n_clusters, size=(stop - start, n_clusters))
        for column in range(n_columns):
            sums[start:stop, column] = values[drawn, column].sum(axis=1)
    return sums


def percentile_interval(estimates: ArrayLike, *, confidence: float = CONFIDENCE) -> Interval:
    """The middle part of resampled estimates. Those that are not finite (an empty denominator) are left out.

    >>> percentile_interval(range(101), confidence=0.5)
    Interval(low=25.0, high=75.0)
    """
    values = np.asarray(estimates, dtype=np.float64)
    values = values[np.isfinite(values)]
    if not values.size:
        return Interval(None, None)
    low, high = np.quantile(values, [(1 - confidence) / 2, (1 + confidence) / 2])
    return Interval(float(low), float(high))


def ratio_interval(
    numerator: ArrayLike,
    denominator: ArrayLike,
    *,
    n_resamples: int = N_RESAMPLES,
    seed: int = 0,
    confidence: float = CONFIDENCE,
) -> Interval:
    """Interval of sum(numerator) / sum(denominator) over clusters; one entry of each for a cluster."""
    columns = np.stack([np.asarray(numerator, np.float64), np.asarray(denominator, np.float64)], axis=1)
    if len(columns) < 2:
        return Interval(None, None)
    sums = resample_sums(columns, n_resamples=n_resamples, seed=seed)  # (n_resamples, 2)
    with np.errstate(divide="ignore", invalid="ignore"):
        return percentile_interval(sums[:, 0] / sums[:, 1], confidence=confidence)
