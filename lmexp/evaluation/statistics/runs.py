"""The difference between two methods, each known from a few training runs that scored the same items.

Runs and clusters of items are two crossed random factors: the variance of a difference is that of the items, and what
runs add to it (Cameron, Gelbach and Miller 2011). With two or three runs a bootstrap over them is far too narrow; here
the degrees of freedom follow from how well each part is known (Satterthwaite 1946).
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from lmexp.evaluation.statistics.clusters import Floats, count_text
from lmexp.evaluation.statistics.intervals import CONFIDENCE, Interval, few_note, t_interval
from lmexp.evaluation.statistics.paired import PairedTest, t_p_value

FEW_RUNS = 5


@dataclass(frozen=True, slots=True, kw_only=True)
class Runs:
    """A figure of each run of a method."""

    figures: Floats
    """(n_runs,)."""
    influences: Floats
    """(n_runs, n_clusters): what each cluster adds to its run's figure; each run's sum to 0."""

    @property
    def among_runs(self) -> float:
        """Variance of the mean figure, from how the runs differ; 0 for a single run."""
        n = len(self.figures)
        return float(np.var(self.figures, ddof=1) / n) if n > 1 else 0.0

    @property
    def among_items(self) -> float:
        """The part of among_runs that comes from the items: each run is right on other ones."""
        n, n_clusters = self.influences.shape
        if n < 2 or n_clusters < 2:
            return 0.0
        deviations = self.influences - self.influences.mean(axis=0)
        return float((deviations**2).sum() * n_clusters / (n_clusters - 1) / (n * (n - 1)))


def ratio_runs(numerator: Floats, denominator: Floats, *, exp: bool = False) -> Runs:
    """Runs of sum(numerator) / sum(denominator), or of exp of it: both (n_runs, n_clusters).

    >>> ratio_runs(np.array([[1.0, 3.0]]), np.ones((1, 2))).influences
    array([[-0.5,  0.5]])
    """
    total = denominator.sum(axis=1, keepdims=True)  # (n_runs, 1)
    ratio = numerator.sum(axis=1, keepdims=True) / total
    influences = (numerator - ratio * denominator) / total
    figures = np.exp(ratio) if exp else ratio
    return Runs(figures=figures[:, 0], influences=influences * figures if exp else influences)


def compare_methods(a: Runs, b: Runs, *, sizes: Floats | None = None, confidence: float = CONFIDENCE) -> PairedTest:
    """Mean figure of a's runs minus that of b's, for other runs and other items than these; both with equal clusters.

    sizes: (n_clusters,) items of each. A side of one run stands for itself alone. With one run each, and no exp, this
    is paired.paired_t.

    >>> a, b = (ratio_runs(np.array(x), np.ones((2, 4))) for x in ([[1.0, 2, 3, 4], [2, 3, 4, 5]], [[0.0] * 4] * 2))
    >>> test = compare_methods(a, b)
    >>> test.estimate, round(test.se, 3), round(test.df, 2)
    (3.0, 0.816, 3.69)
    """
    n_clusters = a.influences.shape[1]
    mean = (a.influences.mean(axis=0), b.influences.mean(axis=0))
    estimate = float(a.figures.mean() - b.figures.mean())
    runs = [(side.among_runs, len(side.figures) - 1) for side in (a, b)]
    if n_clusters < 2:
        items, se, df = math.nan, math.nan, math.nan
    else:
        items = float(((mean[0] - mean[1]) ** 2).sum()) * n_clusters / (n_clusters - 1)
        added = max(0.0, sum(variance for variance, _ in runs) - a.among_items - b.among_items)
        se = math.sqrt(items + added)
        spread = items**2 / (n_clusters - 1) + sum(variance**2 / n for variance, n in runs if n)
        df = max(1.0, (items + added) ** 2 / spread) if spread else float(n_clusters - 1)
    counts = " and ".join(f"{len(side.figures):,}" for side in (a, b))
    few = [n + 1 for _, n in runs if 0 < n < FEW_RUNS - 1]
    notes = [few_note(np.ones(n_clusters) if sizes is None else sizes)]
    notes += [f"{count_text(min(few), 'run')} tell little of others"] if few else []
    interval = t_interval(estimate, se, df, confidence=confidence) if se != 0 else Interval(None, None)
    return PairedTest(
        method=f"t over {counts} runs and {count_text(n_clusters, 'cluster')}, {df:.1f} degrees of freedom",
        estimate=estimate,
        interval=interval,
        p_value=t_p_value(estimate, se, df),
        n=n_clusters,
        n_clusters=n_clusters,
        se=se,
        df=df,
        note="; ".join(filter(None, [*notes, interval.note])),
    )
