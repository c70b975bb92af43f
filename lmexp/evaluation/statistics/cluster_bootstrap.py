"""The bootstrap over clusters for any figure of items, such as corpus metrics and areas; and over runs too.

The statistic is handed indices of items, so texts work as well as numbers. See bootstrap.py for how figures are paired.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import ArrayLike

from lmexp.evaluation.statistics.bootstrap import MAX_DRAWS_AT_ONCE, N_RESAMPLES, Resampled, draws_of_clusters
from lmexp.evaluation.statistics.clusters import Ints, cluster_codes

MAX_JACKKNIFE = 500
"""With more clusters, so many groups of them are left out in turn for BCa's acceleration, which has the same limit."""


def cluster_bootstrap(
    statistic: Callable[[Ints], ArrayLike],
    clusters: ArrayLike,
    *,
    n_resamples: int = N_RESAMPLES,
    seed: int = 0,
    max_draws: int = MAX_DRAWS_AT_ONCE,
) -> Resampled:
    """Any figure of items whose clusters are drawn: statistic(indices of items, with repeats) -> () or (k,).

    clusters: (n,) the cluster of each item; np.arange(n) where items are independent. Beyond 500 clusters the
    acceleration of BCa is made by leaving out each of 500 groups of them.

    >>> texts = np.array(["a", "bb", "ccc", "a", "bb", "a"])
    >>> lengths = cluster_bootstrap(lambda items: sum(map(len, texts[items])) / len(items), np.arange(6))
    >>> round(float(lengths.estimate), 3), len(lengths.draws)
    (1.667, 1000)
    """
    codes = _codes(clusters)
    members = _Members(codes)
    everything = np.arange(len(codes))
    n_groups = min(len(members.sizes), MAX_JACKKNIFE)
    groups = codes % MAX_JACKKNIFE
    estimate = np.asarray(statistic(everything), np.float64)
    with np.errstate(all="ignore"):  # an empty denominator in a resample is no mistake
        rows = [
            statistic(members.of(row))
            for drawn in draws_of_clusters(len(members.sizes), n_resamples, seed, max_draws)
            for row in drawn
        ]
        left = [statistic(everything[groups != group]) for group in range(n_groups)] if n_groups > 1 else []
    return Resampled(
        estimate=estimate,
        draws=np.asarray(rows, np.float64),
        jackknife=np.asarray(left, np.float64),
        n_clusters=len(members.sizes),
        seed=seed,
    )


def two_level_bootstrap(
    statistic: Callable[[tuple[Ints, ...], Ints], ArrayLike],
    n_runs: tuple[int, ...],
    clusters: ArrayLike,
    *,
    n_resamples: int = N_RESAMPLES,
    seed: int = 0,
) -> Resampled:
    """Runs (training seeds) are drawn as well as clusters of items, for figures of a method, not of a checkpoint.

    statistic(runs, items): runs has indices of the runs of each model, n_runs their number, such as (5, 3); the
    figure must be one that doesn't grow with the number of runs, such as a mean over them. Every run has scored the
    same items. One run fewer than there are is drawn, so that the variance between a few runs is not understated
    (Rao and Wu 1988). Runs and clusters are drawn crosswise (Owen 2007), which errs on the wide side.

    >>> scores = np.arange(60.0).reshape(3, 20)  # (runs, items)
    >>> mean = two_level_bootstrap(lambda runs, items: scores[np.ix_(runs[0], items)].mean(), (3,), np.arange(20))
    >>> mean.method
    't interval by the bootstrap over 3 runs and 20 clusters, 1,000 resamples, seed 0'
    """
    codes = _codes(clusters)
    if min(n_runs, default=0) < 1:
        raise ValueError(f"n_runs is {n_runs}; expected the number of runs of each model, at least 1")
    members = _Members(codes)
    generator = np.random.default_rng((seed, 1))  # clusters keep the draws that they have without runs
    all_runs, everything = [np.arange(n) for n in n_runs], np.arange(len(codes))

    def without(model: int, run: int) -> ArrayLike:
        left = np.delete(all_runs[model], run)
        return statistic((*all_runs[:model], left, *all_runs[model + 1 :]), everything)

    estimate = np.asarray(statistic(tuple(all_runs), everything), np.float64)
    without_run = tuple(
        np.asarray([without(model, run) for run in range(n) if n > 1] or [estimate], np.float64)
        for model, n in enumerate(n_runs)
    )
    rows = []
    with np.errstate(all="ignore"):
        for drawn in draws_of_clusters(len(members.sizes), n_resamples, seed, MAX_DRAWS_AT_ONCE):
            for row in drawn:
                runs = tuple(generator.integers(0, n, size=max(n - 1, 1)) for n in n_runs)
                rows.append(statistic(runs, members.of(row)))
    return Resampled(
        estimate=estimate,
        draws=np.asarray(rows, np.float64),
        jackknife=None,
        n_clusters=len(members.sizes),
        seed=seed,
        without_run=without_run,
    )


class _Members:
    """The items of each cluster, quick to join for clusters drawn."""

    def __init__(self, codes: Ints) -> None:
        self.sizes = np.bincount(codes)  # (n_clusters,)
        self._starts = np.cumsum(self.sizes) - self.sizes
        self._items = np.argsort(codes, kind="stable")  # items, cluster by cluster

    def of(self, drawn: Ints) -> Ints:
        """Indices of the items of these clusters, in their order."""
        sizes = self.sizes[drawn]
        before = np.cumsum(sizes) - sizes
        places = np.arange(int(sizes.sum())) + np.repeat(self._starts[drawn] - before, sizes)
        found: Ints = self._items[places]
        return found


def _codes(clusters: ArrayLike) -> Ints:
    n = np.asarray(clusters).size
    if not n:
        raise ValueError("clusters is empty; expected the cluster of each item, and at least one item")
    return cluster_codes(clusters, n)
