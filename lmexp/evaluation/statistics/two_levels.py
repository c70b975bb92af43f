"""The interval of a figure over runs and clusters of items: standard error of the bootstrap, t quantile for few runs.

Quantiles of the resamples won't do here: three runs give ten different sets of three.
"""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import ArrayLike

from lmexp.evaluation.statistics.clusters import Floats
from lmexp.evaluation.statistics.intervals import CONFIDENCE, Interval, t_interval


def two_level_interval(
    estimate: float,
    draws: ArrayLike,
    without_run: tuple[Floats, ...],
    n_clusters: int,
    *,
    confidence: float = CONFIDENCE,
) -> Interval:
    """estimate -+ t * standard deviation of the draws, which are of runs and of clusters.

    draws: (n_resamples,); without_run: for each model (n_runs,), the figure without each of its runs. The degrees of
    freedom lie between those of the runs and those of the clusters, by their parts in the variance (Satterthwaite
    1946); the part of the runs is their jackknife variance (Efron and Tibshirani 1993, chapter 11).

    >>> runs = np.array([-2.0, 2.0])  # all of the variance lies between two runs: 1 degree of freedom
    >>> round(two_level_interval(0.0, [-1.0, 1.0], (runs,), 100).high, 2)
    25.41
    """
    values = np.asarray(draws, dtype=np.float64)
    if not np.isfinite(values).all() or not all(np.isfinite(runs).all() for runs in without_run):
        return Interval(None, None, "no interval: the figure is not finite in some resamples")
    total = float(values.var(ddof=1))
    if total == 0:
        return Interval(None, None, "no interval: all resamples give the same figure")
    of_runs = [(len(runs) - 1) / len(runs) * float(((runs - runs.mean()) ** 2).sum()) for runs in without_run]
    total = max(total, sum(of_runs))
    of_clusters = total - sum(of_runs)
    df = total**2 / (
        sum(part**2 / (len(runs) - 1) for part, runs in zip(of_runs, without_run, strict=True))
        + of_clusters**2 / (n_clusters - 1)
    )
    return t_interval(estimate, math.sqrt(total), df, confidence=confidence)
