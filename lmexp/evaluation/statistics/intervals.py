"""Intervals of proportions and of means over clusters, in closed form.

Items of one cluster (document, question, source) are not independent: the standard error of a mean is made from
the sums of each cluster's deviations (Liang and Zeger 1986; for evaluations Miller 2024, arXiv 2411.00640).
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from statistics import NormalDist

import numpy as np
from numpy.typing import ArrayLike

from lmexp.evaluation.statistics.clusters import cluster_codes, count_text, finite_scores

CONFIDENCE = 0.95
FEW_CLUSTERS = 20
"""With fewer clusters, in effect, the t interval of a mean is too narrow where the clusters differ in size."""
_ROUNDING = 1e-14


@dataclass(frozen=True, slots=True)
class Interval:
    """A two-sided interval; None at both ends where there are too few clusters to say."""

    low: float | None
    high: float | None
    note: str = ""
    """What to know when reading it: why there is none, or why it may be too narrow."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Mean:
    """A mean, or a difference of means, over clusters."""

    estimate: float
    se: float
    """Standard error; nan where one cluster alone leaves it unknown."""
    df: float
    """Degrees of freedom of the standard error."""
    interval: Interval
    n: int
    n_clusters: int
    method: str


def wilson(n_successes: int, n: int, *, confidence: float = CONFIDENCE) -> Interval:
    """The score interval of a proportion over n independent items (Wilson 1927); honest for any n of 1 or more.

    >>> interval = wilson(8, 10)
    >>> round(interval.low, 4), round(interval.high, 4)
    (0.4902, 0.9433)
    """
    if not 0 <= n_successes <= n or n_successes != int(n_successes) or n != int(n):
        raise ValueError(f"n_successes is {n_successes} of n = {n}; expected whole numbers, 0 <= n_successes <= n")
    check_share("confidence", confidence)
    if n == 0:
        return Interval(None, None, "no interval: there are no items")
    z = NormalDist().inv_cdf((1 + confidence) / 2)
    share = n_successes / n
    middle = (share + z * z / (2 * n)) / (1 + z * z / n)
    half = z / (1 + z * z / n) * math.sqrt(share * (1 - share) / n + z * z / (4 * n * n))
    low = 0.0 if n_successes == 0 else middle - half
    high = 1.0 if n_successes == n else middle + half
    return Interval(low, high)


def clustered_se(values: ArrayLike, clusters: ArrayLike | None = None) -> float:
    """Standard error of the mean: sqrt(C/(C-1) * sum_c (sum_{i in c} (s_i - mean))^2) / n, C the clusters.

    values, clusters: (n,); without clusters each item is its own. nan for a single cluster.

    >>> round(clustered_se(range(20), [i % 4 for i in range(20)]), 4), round(clustered_se(range(20)), 4)
    (0.6455, 1.3229)
    """
    scores = finite_scores(values)
    codes = cluster_codes(clusters, len(scores))
    n_clusters = int(codes.max()) + 1
    if n_clusters < 2:
        return math.nan
    deviations = np.bincount(codes, scores - scores.mean())  # (n_clusters,)
    se = math.sqrt(n_clusters / (n_clusters - 1) * float((deviations**2).sum())) / len(scores)
    return se if se > _ROUNDING * np.abs(scores).max() else 0.0


def clustered_mean(values: ArrayLike, clusters: ArrayLike | None = None, *, confidence: float = CONFIDENCE) -> Mean:
    """Mean over items, and its t interval with C - 1 degrees of freedom for C clusters.

    values, clusters: (n,); without clusters each item is its own. There is no interval for one cluster, nor where
    no cluster deviates from the mean. The note says where there are fewer clusters than the interval needs.

    >>> mean = clustered_mean([1.0, 3.0])
    >>> mean.estimate, mean.se, mean.df, mean.interval.note
    (2.0, 1.0, 1.0, 'only 2 clusters: the interval may be too narrow')
    """
    scores = finite_scores(values)
    codes = cluster_codes(clusters, len(scores))
    sizes = np.bincount(codes).astype(np.float64)
    se, df = clustered_se(scores, codes), float(len(sizes) - 1)
    mean = float(scores.mean())
    return Mean(
        estimate=mean,
        se=se,
        df=df,
        interval=t_interval(mean, se, df, confidence=confidence, note=few_note(sizes)),
        n=len(scores),
        n_clusters=len(sizes),
        method=f"clustered t over {count_text(len(sizes), 'cluster')}",
    )


def mean_interval(values: ArrayLike, clusters: ArrayLike | None = None, *, confidence: float = CONFIDENCE) -> Interval:
    """The interval of clustered_mean.

    >>> interval = mean_interval([0.0, 1.0, 1.0, 0.0] * 5)
    >>> round(interval.low, 4), round(interval.high, 4)
    (0.2599, 0.7401)
    """
    return clustered_mean(values, clusters, confidence=confidence).interval


def t_interval(estimate: float, se: float, df: float, *, confidence: float = CONFIDENCE, note: str = "") -> Interval:
    """estimate -+ t * se; none where se is nan (one cluster) or 0 (no spread to judge by).

    >>> round(t_interval(0.0, 1.0, 3).high, 4)
    3.1824
    """
    check_share("confidence", confidence)
    if math.isnan(se):
        return Interval(None, None, "no interval: all items are in one cluster")
    if se == 0:
        return Interval(None, None, "no interval: no cluster deviates from the mean")
    from scipy import special  # type: ignore[import-untyped]  # here: it takes half a second

    half = float(special.stdtrit(df, (1 + confidence) / 2)) * se
    return Interval(estimate - half, estimate + half, note)


def few_note(sizes: ArrayLike) -> str:
    """A warning where there are, in effect, fewer than 20 clusters; empty otherwise.

    sizes: (n_clusters,) items of each. Clusters of unequal size count for fewer: (sum n)^2 / sum n^2.

    >>> few_note([5] * 20), few_note([100] + [1] * 20)
    ('', '21 clusters, but of such unequal size as if 1.4: the interval may be too narrow')
    """
    counts = np.asarray(sizes, dtype=np.float64)
    effective = float(counts.sum() ** 2 / (counts**2).sum())
    if effective >= FEW_CLUSTERS - 1e-9:
        return ""
    if len(counts) < FEW_CLUSTERS:
        return f"only {count_text(len(counts), 'cluster')}: the interval may be too narrow"
    return f"{len(counts):,} clusters, but of such unequal size as if {effective:.1f}: the interval may be too narrow"


def check_share(name: str, value: float) -> None:
    """Raise ValueError unless value is between 0 and 1, both excluded."""
    if not 0 < value < 1:
        raise ValueError(f"{name} is {value}; expected a number between 0 and 1")
