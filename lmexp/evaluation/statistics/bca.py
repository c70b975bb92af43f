"""Bias-corrected and accelerated bootstrap intervals: Efron 1987; conventions as scipy.stats.bootstrap."""

from __future__ import annotations

import math
from statistics import NormalDist

import numpy as np
from numpy.typing import ArrayLike

from lmexp.evaluation.statistics.intervals import CONFIDENCE, Interval


def bca_interval(
    estimate: float, draws: ArrayLike, jackknife: ArrayLike, *, confidence: float = CONFIDENCE
) -> Interval:
    """Quantiles of the draws at levels shifted by bias and skewness; none, with the reason, where these aren't defined.

    estimate: on all the data; draws: (n_resamples,), those that are not finite are left out; jackknife: (n_left_out,)
    estimates without each cluster, or group of clusters.

    >>> bca_interval(1.0, [1.0, 1.0], [1.0, 1.0, 1.0])
    Interval(low=None, high=None, note='percentile instead of BCa: all resamples give the same figure')
    """
    values = np.asarray(draws, dtype=np.float64)
    finite = values[np.isfinite(values)]
    without = np.asarray(jackknife, dtype=np.float64)
    if not finite.size or np.ptp(finite) == 0:
        return _undefined("all resamples give the same figure")
    if without.size < 2 or not np.isfinite(without).all():
        return _undefined("the figure is not finite without one of the clusters")
    influence = without.mean() - without
    scale = float(np.abs(influence).max())
    if scale == 0:
        return _undefined("no cluster alone changes the figure")
    below = ((finite < estimate).sum() + (finite <= estimate).sum()) / (2 * finite.size)
    if not 0 < below < 1:
        return _undefined("the estimate lies outside of all resamples")
    influence /= scale  # cubes of small numbers underflow
    acceleration = float((influence**3).sum()) / (6 * float((influence**2).sum()) ** 1.5)
    bias = NormalDist().inv_cdf(float(below))
    levels = [_level((1 + side * confidence) / 2, bias, acceleration) for side in (-1, 1)]
    if not 0 <= levels[0] < levels[1] <= 1:
        return _undefined(f"the acceleration ({acceleration:.3g}) is too large")
    low, high = np.quantile(finite, levels)
    n_beyond = min(levels[0], 1 - levels[1]) * finite.size
    note = "an end lies beyond the outermost resamples: draw more, or doubt it" if n_beyond < 1 else ""
    left_out = values.size - finite.size
    if left_out:
        note = "; ".join(filter(None, (note, f"{left_out:,} of {values.size:,} resamples had no finite figure")))
    return Interval(float(low), float(high), note)


def _level(level: float, bias: float, acceleration: float) -> float:
    """The level of the quantile to read in place of `level`; nan where the formula breaks down."""
    shifted = bias + NormalDist().inv_cdf(level)
    if acceleration * shifted >= 1:
        return math.nan
    return NormalDist().cdf(bias + shifted / (1 - acceleration * shifted))


def _undefined(why: str) -> Interval:
    return Interval(None, None, f"percentile instead of BCa: {why}")
