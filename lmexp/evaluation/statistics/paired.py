"""Tests of the difference between two models on the same items. Differences are always A minus B.

Binary scores of independent items: exact McNemar. Means, clusters or not: the clustered paired t test. Figures of
sums or of a whole corpus: approximate randomization (randomization.py), with an interval of the paired bootstrap.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from statistics import NormalDist
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike

from lmexp.evaluation.statistics.clusters import finite_scores
from lmexp.evaluation.statistics.intervals import CONFIDENCE, Interval, check_share, clustered_mean


@dataclass(frozen=True, slots=True, kw_only=True)
class PairedTest:
    """A difference between two models, with its interval and a two-sided p-value."""

    method: str
    estimate: float
    """Figure of A minus figure of B."""
    interval: Interval
    p_value: float | None
    """None where nothing can be tested; the note says why."""
    n: int
    n_clusters: int
    se: float = math.nan
    """Standard error of the estimate, where the method has one."""
    df: float = math.nan
    """Degrees of freedom of the standard error."""
    note: str = ""


class McNemar(NamedTuple):
    """Two-sided p-values of McNemar's test."""

    exact: float
    mid_p: float


def mcnemar(n_only_a: int, n_only_b: int) -> McNemar:
    """p-values for equal rates, from the items that only one of two models got right (McNemar 1947).

    The exact one never rejects too often; mid-p (Fagerland et al. 2013) is less timid, and nearly never rejects too
    often. Both are 1 where the models differ nowhere. Items must be independent: no clusters.

    >>> test = mcnemar(10, 2)
    >>> round(test.exact, 6), round(test.mid_p, 6)
    (0.038574, 0.022461)
    """
    if min(n_only_a, n_only_b) < 0 or n_only_a != int(n_only_a) or n_only_b != int(n_only_b):
        raise ValueError(f"n_only_a is {n_only_a}, n_only_b is {n_only_b}; expected numbers of items")
    if n_only_a == n_only_b:
        return McNemar(1.0, 1.0)
    from scipy import special  # type: ignore[import-untyped]  # here: it takes half a second

    fewer, n = min(n_only_a, n_only_b), n_only_a + n_only_b
    tail = float(special.bdtr(fewer, n, 0.5))
    point = tail - float(special.bdtr(fewer - 1, n, 0.5)) if fewer else tail
    return McNemar(min(1.0, 2 * tail), 2 * tail - point)


def paired_binary(correct_a: ArrayLike, correct_b: ArrayLike, *, confidence: float = CONFIDENCE) -> PairedTest:
    """Difference of two accuracies over independent items: exact McNemar, adjusted Wald (Agresti and Min 2005).

    correct_a, correct_b: (n,) 0 or 1. Where items share clusters use paired_t on correct_a - correct_b.

    >>> test = paired_binary([1] * 10 + [0] * 2 + [1] * 28, [0] * 10 + [1] * 2 + [1] * 28)
    >>> test.estimate, round(test.interval.low, 3), round(test.interval.high, 3), round(test.p_value, 4)
    (0.2, 0.032, 0.349, 0.0386)
    """
    check_share("confidence", confidence)
    a, b = finite_scores(correct_a, "correct_a"), finite_scores(correct_b, "correct_b")
    if a.shape != b.shape:
        raise ValueError(f"correct_a has {len(a):,} items, correct_b {len(b):,}; expected the same items in both")
    if not (np.isin(a, (0, 1)).all() and np.isin(b, (0, 1)).all()):
        raise ValueError("correct_a and correct_b must be 0 or 1 for each item; for other scores use paired_t")
    n, n_only_a, n_only_b = len(a), int((a > b).sum()), int((b > a).sum())
    return PairedTest(
        method="exact McNemar",
        estimate=(n_only_a - n_only_b) / n,
        interval=_agresti_min(n_only_a, n_only_b, n, confidence),
        p_value=mcnemar(n_only_a, n_only_b).exact,
        n=n,
        n_clusters=n,
        note="" if n_only_a + n_only_b else "both models are right on the same items",
    )


def paired_t(
    differences: ArrayLike, clusters: ArrayLike | None = None, *, confidence: float = CONFIDENCE
) -> PairedTest:
    """Mean difference of the items' scores, with the t test and interval of clustered_mean.

    differences: (n,) score of A minus score of B; clusters: (n,), without them each item is its own.
    p is 1 where all differences are 0, and None where no cluster deviates from another mean than 0.

    >>> test = paired_t([1.0, 0.0, 2.0, 1.0])
    >>> test.estimate, round(test.se, 3), round(test.p_value, 3), test.df
    (1.0, 0.408, 0.092, 3.0)
    """
    scores = finite_scores(differences, "differences")
    mean = clustered_mean(scores, clusters, confidence=confidence)
    p_value, note = t_p_value(mean.estimate, mean.se, mean.df), mean.interval.note
    if not scores.any():
        p_value, note = 1.0, "the two models' scores are the same on every item"
    elif p_value is None:
        note = note.replace("no interval", "no interval and no test")
    return PairedTest(
        method=f"clustered paired t over {mean.n_clusters:,} cluster{'s'[: mean.n_clusters != 1]}",
        estimate=mean.estimate,
        interval=mean.interval,
        p_value=p_value,
        n=mean.n,
        n_clusters=mean.n_clusters,
        se=mean.se,
        df=mean.df,
        note=note,
    )


def _agresti_min(n_only_a: int, n_only_b: int, n: int, confidence: float) -> Interval:
    """Wald's interval with half an item added to each cell of the 2 x 2 table."""
    z, total = NormalDist().inv_cdf((1 + confidence) / 2), n + 2
    middle = (n_only_a - n_only_b) / total
    half = z * math.sqrt((n_only_a + n_only_b + 1) / total - middle**2) / math.sqrt(total)
    return Interval(max(-1.0, middle - half), min(1.0, middle + half))


def t_p_value(estimate: float, se: float, df: float) -> float | None:
    """Two-sided p-value of the t test; None where se is nan (one cluster) or 0 (no spread to judge by)."""
    if not se > 0:  # 0, or nan for one cluster
        return None
    from scipy import special

    return float(2 * special.stdtr(df, -abs(estimate) / se))
