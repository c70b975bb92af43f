"""The bootstrap over clusters, for functions of sums, such as ratios; for other figures see cluster_bootstrap.py.

Tokens of one document are not independent, so documents are drawn, with replacement, and the figure is
computed anew over those drawn. Intervals: percentile, or bias-corrected and accelerated (BCa), the default here
(Efron 1987; Efron and Tibshirani 1993, chapters 13 and 14).

One seed gives one set of draws, whatever is computed on them. So figures of two models over the same items are
paired, and so is their difference: compute both in one statistic, then `map` them.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from statistics import NormalDist

import numpy as np
from numpy.typing import ArrayLike, NDArray

from lmexp.evaluation.statistics.bca import bca_interval
from lmexp.evaluation.statistics.clusters import Floats, Ints, count_text
from lmexp.evaluation.statistics.intervals import CONFIDENCE, Interval, check_share

N_RESAMPLES = 1000
MIN_CLUSTERS = 5
"""With fewer clusters there are too few different draws for any interval."""
FEW_CLUSTERS = 20
"""With fewer clusters bootstrap intervals are too narrow, even when expanded."""
MAX_DRAWS_AT_ONCE = 1 << 20

Figure = Callable[[Floats], ArrayLike]


def resample_sums(
    columns: ArrayLike, *, n_resamples: int = N_RESAMPLES, seed: int = 0, max_draws: int = MAX_DRAWS_AT_ONCE
) -> NDArray[np.float64]:
    """Sums of each column over clusters drawn with replacement: (n_resamples, n_columns).

    columns: (n_clusters, n_columns). All columns see the same draws, so differences between them are paired.
    max_draws bounds the memory and does not change the result.

    >>> resample_sums([[1.0, 2.0]], n_resamples=2)
    array([[1., 2.],
           [1., 2.]])
    """
    values = np.asarray(columns, dtype=np.float64)  # (n_clusters, n_columns)
    if values.ndim != 2 or not len(values):
        raise ValueError(f"columns has shape {values.shape}; expected (n_clusters, n_columns), one cluster or more")
    sums = np.empty((n_resamples, values.shape[1]))
    start = 0
    for drawn in draws_of_clusters(len(values), n_resamples, seed, max_draws):  # (rows, n_clusters)
        stop = start + len(drawn)
        for column in range(values.shape[1]):
            sums[start:stop, column] = values[drawn, column].sum(axis=1)
        start = stop
    return sums


def percentile_interval(estimates: ArrayLike, *, confidence: float = CONFIDENCE) -> Interval:
    """The middle part of resampled estimates. Those that are not finite (an empty denominator) are left out.

    >>> percentile_interval(range(101), confidence=0.5)
    Interval(low=25.0, high=75.0, note='')
    """
    check_share("confidence", confidence)
    values = np.asarray(estimates, dtype=np.float64)
    finite = values[np.isfinite(values)]
    if not finite.size:
        return Interval(None, None, "no interval: the figure is not finite in any resample")
    low, high = np.quantile(finite, [(1 - confidence) / 2, (1 + confidence) / 2])
    n_left_out = values.size - finite.size
    note = f"{count_text(n_left_out, 'resample')} without a finite figure left out" if n_left_out else ""
    return Interval(float(low), float(high), note)


def expanded(confidence: float, n: int) -> float:
    """The confidence to ask of a bootstrap over n clusters so that it covers as a t interval does (Hesterberg 2015).

    Draws vary less than the truth by (n - 1) / n, and their quantiles are a normal's, not a t's. arXiv 1411.5279.

    >>> round(expanded(0.95, 10), 4), round(expanded(0.95, 1000), 4)
    (0.9829, 0.9504)
    """
    from scipy import special  # type: ignore[import-untyped]  # here: it takes half a second

    quantile = math.sqrt(n / (n - 1)) * float(special.stdtrit(n - 1, (1 + confidence) / 2))
    return min(2 * NormalDist().cdf(quantile) - 1, 1 - 1e-12)


@dataclass(frozen=True, slots=True, kw_only=True)
class Resampled:
    """One or several figures on all the data, on each resample, and on all but one cluster."""

    estimate: Floats
    """The figures on all the data: (...), such as () for one, (2,) for two models."""
    draws: Floats
    """The figures of each resample: (n_resamples, ...)."""
    jackknife: Floats | None
    """The figures without one cluster (or group of clusters) each: (n_left_out, ...); None where BCa isn't defined."""
    n_clusters: int
    seed: int

    def map(self, figure: Figure) -> Resampled:
        """Figures of these figures: `figure` takes (..., k) and gives (...) or (..., m), whatever comes before.

        >>> both = resampled_sums([[1.0, 2.0]] * 8)
        >>> both.map(lambda sums: sums[..., 1] - sums[..., 0]).estimate
        array(8.)
        """
        with np.errstate(all="ignore"):  # an empty denominator in a resample is no mistake
            return replace(
                self,
                estimate=np.asarray(figure(self.estimate), np.float64),
                draws=np.asarray(figure(self.draws), np.float64),
                jackknife=None if self.jackknife is None else np.asarray(figure(self.jackknife), np.float64),
            )

    def interval(self, *, method: str = "bca", confidence: float = CONFIDENCE) -> Interval:
        """The interval of the one figure; for several, `map` to each. method: bca or percentile.

        Percentile stands in where BCa is not defined; the note says why. There is none under 5 clusters. Both are
        expanded for few clusters; they cover as they should from 20 on, and the note says where there are fewer.

        >>> resampled_sums([[1.0]] * 4).map(lambda sums: sums[..., 0]).interval()
        Interval(low=None, high=None, note='no interval: 4 clusters are too few to draw from; at least 5 are needed')
        """
        if self.estimate.ndim:
            raise ValueError(f"there are figures of shape {self.estimate.shape}; map them to the one you want")
        if method not in ("bca", "percentile"):
            raise ValueError(f"method is {method!r}; expected bca or percentile")
        check_share("confidence", confidence)
        why_none = self._why_none()
        if why_none:
            return Interval(None, None, f"no interval: {why_none}")
        interval, estimate = Interval(None, None), float(self.estimate)
        wider, why_percentile = expanded(confidence, self.n_clusters), ""
        if method == "bca" and self.jackknife is not None:
            interval = bca_interval(estimate, self.draws, self.jackknife, confidence=wider)
            why_percentile = "" if interval.low is not None else interval.note
        if interval.low is None:
            interval = percentile_interval(self.draws, confidence=wider)
        notes = (self._few(), why_percentile, interval.note)
        return replace(interval, note="; ".join(note for note in notes if note))

    @property
    def method(self) -> str:
        """The words for a row: what was drawn, how often, from which seed."""
        clusters = count_text(self.n_clusters, "cluster")
        return f"expanded BCa bootstrap over {clusters}, {len(self.draws):,} resamples, seed {self.seed}"

    def _why_none(self) -> str:
        if self.n_clusters < MIN_CLUSTERS:
            are = "is" if self.n_clusters == 1 else "are"
            count = count_text(self.n_clusters, "cluster")
            return f"{count} {are} too few to draw from; at least {MIN_CLUSTERS} are needed"
        return "" if np.isfinite(self.estimate) else f"the figure is {float(self.estimate)}"

    def _few(self) -> str:
        few = f"only {count_text(self.n_clusters, 'cluster')}: the interval may be too narrow"
        return few if self.n_clusters < FEW_CLUSTERS else ""


def resampled_sums(columns: ArrayLike, *, n_resamples: int = N_RESAMPLES, seed: int = 0) -> Resampled:
    """Sums of the columns, of each resample and without each cluster; `map` a figure over them.

    columns: (n_clusters, n_columns), finite. The draws are those of resample_sums and cluster_bootstrap.

    >>> counts = resampled_sums([[3, 4], [1, 2], [2, 4], [4, 4], [0, 1], [2, 3]])
    >>> accuracy = counts.map(lambda sums: sums[..., 0] / sums[..., 1])
    >>> round(float(accuracy.estimate), 3), accuracy.method
    (0.667, 'expanded BCa bootstrap over 6 clusters, 1,000 resamples, seed 0')
    """
    values = np.asarray(columns, dtype=np.float64)
    draws = resample_sums(values, n_resamples=n_resamples, seed=seed)
    if not np.isfinite(values).all():
        raise ValueError(f"columns holds {int((~np.isfinite(values)).sum()):,} numbers that are not finite")
    totals = values.sum(axis=0)  # (n_columns,)
    return Resampled(estimate=totals, draws=draws, jackknife=totals - values, n_clusters=len(values), seed=seed)


def bca_of_sums(
    columns: ArrayLike,
    figure: Figure,
    *,
    n_resamples: int = N_RESAMPLES,
    seed: int = 0,
    confidence: float = CONFIDENCE,
) -> Interval:
    """BCa interval of a figure of sums over clusters; figure takes (..., n_columns) and gives (...).

    >>> interval = bca_of_sums([[3, 4], [1, 2], [2, 4], [4, 4], [0, 1]] * 4, lambda sums: sums[..., 0] / sums[..., 1])
    >>> interval.low < 10 / 15 < interval.high
    True
    """
    return resampled_sums(columns, n_resamples=n_resamples, seed=seed).map(figure).interval(confidence=confidence)


def draws_of_clusters(n_clusters: int, n_resamples: int, seed: int, max_draws: int) -> Iterator[Ints]:
    """Numbers of the clusters drawn: (rows, n_clusters) at a time, all together n_resamples rows."""
    if n_resamples < 1:
        raise ValueError(f"n_resamples is {n_resamples}; expected at least 1")
    generator = np.random.default_rng(seed)
    rows = max(1, max_draws // n_clusters)
    for start in range(0, n_resamples, rows):
        yield generator.integers(0, n_clusters, size=(min(start + rows, n_resamples) - start, n_clusters))
