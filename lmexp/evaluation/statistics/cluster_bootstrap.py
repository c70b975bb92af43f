"""The bootstrap over clusters for any figure of items, such as corpus metrics and areas.

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
