"""Approximate randomization: would a difference so large arise if A's and B's outputs were exchanged at random?

Outputs of whole clusters trade places (Noreen 1989; for corpus metrics Riezler and Maxwell 2005). With few clusters all
2^C assignments are tried, which makes the p-value exact. It needs no normal data, and holds for any number of clusters;
but with C clusters no p-value is below 2 / 2^C, so 5 or fewer can't reject at 5%.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

import numpy as np
from numpy.typing import ArrayLike, NDArray

from lmexp.evaluation.statistics.clusters import Floats, cluster_codes, count_text, finite_scores
from lmexp.evaluation.statistics.intervals import Interval
from lmexp.evaluation.statistics.paired import PairedTest

N_PERMUTATIONS = 10_000
_MAX_SWAPS_AT_ONCE = 1 << 20
_ROUNDING = 1e-9
_NO_INTERVAL = Interval(None, None, "no interval: a randomization test has none; take that of the paired bootstrap")

Swaps = NDArray[np.bool_]


def approximate_randomization(
    statistic: Callable[[Swaps], float],
    clusters: ArrayLike,
    *,
    n_permutations: int = N_PERMUTATIONS,
    seed: int = 0,
    max_swaps: int = _MAX_SWAPS_AT_ONCE,
) -> PairedTest:
    """Test of any difference between two models: statistic(swap) is A's figure minus B's after the swap.

    swap: (n,) True for items whose outputs of A and B trade places, the same within a cluster. clusters: (n,).
    p = (1 + number of differences at least as large) / (1 + n_permutations), or exact by trying all 2^C assignments
    where these are no more. statistic is called once for each: for sums and means use randomization_of_sums.

    >>> a, b = np.array([3, 1, 4, 1, 5, 9.0]), np.array([2, 0, 3, 1, 4, 8.0])
    >>> test = approximate_randomization(lambda swap: float(np.where(swap, b - a, a - b).mean()), np.arange(6))
    >>> round(test.estimate, 3), test.p_value, test.method
    (0.833, 0.0625, 'exact randomization over all 64 assignments of 6 clusters')
    """
    n = np.asarray(clusters).size
    codes = _codes(clusters, n)
    n_clusters = int(codes.max()) + 1
    observed = float(statistic(np.zeros(n, np.bool_)))
    parts = _swaps(n_clusters, n_permutations, seed, max_swaps)
    differences = np.array([statistic(row[codes]) for swaps in parts for row in swaps], np.float64)
    return _result(observed, differences, n, n_clusters, n_permutations, seed)


def randomization_of_sums(
    sums_a: ArrayLike,
    sums_b: ArrayLike,
    figure: Callable[[Floats], ArrayLike],
    *,
    n: int | None = None,
    n_permutations: int = N_PERMUTATIONS,
    seed: int = 0,
    max_swaps: int = _MAX_SWAPS_AT_ONCE,
) -> PairedTest:
    """Test of a difference of figures of sums over clusters: figure takes (..., n_columns) and gives (...).

    sums_a, sums_b: (n_clusters, n_columns), such as nats and bytes of each document; n: how many items they are sums
    over. The swaps are those of approximate_randomization.

    >>> nats, bytes = np.array([3, 1, 4, 1, 5, 9.0]), np.ones(6)
    >>> a, b = np.stack([nats, bytes], axis=1), np.stack([nats - 1, bytes], axis=1)
    >>> test = randomization_of_sums(a, b, lambda sums: sums[..., 0] / sums[..., 1])
    >>> test.estimate, test.p_value
    (1.0, 0.03125)
    """
    a, b = np.asarray(sums_a, np.float64), np.asarray(sums_b, np.float64)
    if a.ndim != 2 or a.shape != b.shape or not len(a):
        raise ValueError(f"sums_a has shape {a.shape}, sums_b {b.shape}; expected (n_clusters, n_columns) for both")
    finite_scores(a.ravel(), "sums_a")
    finite_scores(b.ravel(), "sums_b")

    def difference(swaps: Swaps) -> Floats:  # (rows, n_clusters) -> (rows,)
        moved = swaps.astype(np.float64) @ (b - a)  # (rows, n_columns)
        with np.errstate(all="ignore"):
            of_a, of_b = figure(a.sum(axis=0) + moved), figure(b.sum(axis=0) - moved)
            return np.asarray(of_a, np.float64) - np.asarray(of_b, np.float64)

    observed = float(difference(np.zeros((1, len(a)), np.bool_))[0])
    parts = _swaps(len(a), n_permutations, seed, max_swaps)
    differences = np.concatenate([difference(swaps) for swaps in parts])
    return _result(observed, differences, len(a) if n is None else n, len(a), n_permutations, seed)


def _codes(clusters: ArrayLike, n: int) -> NDArray[np.int64]:
    if not n:
        raise ValueError("clusters is empty; expected the cluster of each item, and at least one item")
    return cluster_codes(clusters, n)


def _swaps(n_clusters: int, n_permutations: int, seed: int, max_swaps: int) -> Iterator[Swaps]:
    """Which clusters trade places: (rows, n_clusters) at a time; all assignments, or n_permutations drawn."""
    if n_permutations < 1:
        raise ValueError(f"n_permutations is {n_permutations}; expected at least 1")
    rows = max(1, max_swaps // n_clusters)
    generator = np.random.default_rng(seed)
    exact = _exact(n_clusters, n_permutations)
    total = 2**n_clusters if exact else n_permutations
    for start in range(0, total, rows):
        numbers = np.arange(start, min(start + rows, total))
        if exact:
            yield (numbers[:, None] >> np.arange(n_clusters)) & 1 == 1
        else:
            yield generator.random((len(numbers), n_clusters)) < 0.5


def _exact(n_clusters: int, n_permutations: int) -> bool:
    return n_clusters < 63 and 2**n_clusters <= n_permutations


def _result(
    observed: float, differences: Floats, n: int, n_clusters: int, n_permutations: int, seed: int
) -> PairedTest:
    exact = _exact(n_clusters, n_permutations)
    p_value, note = None, "no test: the difference is not finite, or not under some assignment"
    if np.isfinite(observed) and np.isfinite(differences).all():
        largest = max(abs(observed), float(np.abs(differences).max()))
        count = int((np.abs(differences) >= abs(observed) - _ROUNDING * largest).sum())
        p_value = count / len(differences) if exact else (1 + count) / (1 + len(differences))
        note = "" if n_clusters > 5 else f"{count_text(n_clusters, 'cluster')} can give no p-value below 0.05"
    of = f"of {count_text(n_clusters, 'cluster')}"
    return PairedTest(
        method=f"exact randomization over all {len(differences):,} assignments {of}"
        if exact
        else f"approximate randomization {of}, {len(differences):,} permutations, seed {seed}",
        estimate=observed,
        interval=_NO_INTERVAL,
        p_value=p_value,
        n=n,
        n_clusters=n_clusters,
        note=note,
    )
