"""Items and the clusters (documents, questions, sources) that they fall into, checked."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]


def finite_scores(values: ArrayLike, name: str = "values") -> Floats:
    """values as float64: (n,), n at least 1. ValueError where there are none, or one is not finite.

    >>> finite_scores([True, False])
    array([1., 0.])
    """
    scores = np.asarray(values, dtype=np.float64)
    if scores.ndim != 1 or not scores.size:
        raise ValueError(f"{name} has shape {scores.shape}; expected one score for each item, and at least one item")
    wrong = np.flatnonzero(~np.isfinite(scores))
    if wrong.size:
        raise ValueError(
            f"{name} holds {scores[wrong[0]]} at {wrong[0]} ({wrong.size:,} of {scores.size:,} are not finite); "
            f"leave such items out, and say so, or score them"
        )
    return scores


def cluster_codes(clusters: ArrayLike | None, n: int) -> Ints:
    """The number of each item's cluster, 0 to n_clusters - 1, in the order of the sorted ids: (n,).

    clusters: (n,) ids, numbers or text; None makes each item its own cluster.

    >>> cluster_codes(["b", "a", "b"], 3)
    array([1, 0, 1])
    """
    if clusters is None:
        return np.arange(n)
    ids = np.asarray(clusters)
    if ids.shape != (n,):
        raise ValueError(f"clusters has shape {ids.shape}; expected the cluster of each item: ({n},)")
    if ids.dtype.kind == "f" and np.isnan(ids).any():
        raise ValueError("clusters holds nan; expected an id for each item: give an item without one its own")
    try:
        return np.unique(ids, return_inverse=True)[1].astype(np.int64, copy=False)
    except TypeError as error:
        raise ValueError(f"clusters can't be sorted ({error}); expected ids of one type, all text or all int") from None


def sums_by_cluster(columns: ArrayLike, clusters: ArrayLike | None) -> Floats:
    """Sums over the items of each cluster, in the order of cluster_codes: (n_clusters, ...).

    columns: (n, ...), such as numerator and denominator of each item.

    >>> sums_by_cluster([[1.0, 1.0], [2.0, 1.0], [4.0, 1.0]], ["a", "a", "b"])
    array([[3., 2.],
           [4., 1.]])
    """
    values = np.asarray(columns, dtype=np.float64)
    codes = cluster_codes(clusters, len(values))
    sums = np.zeros((int(codes.max(initial=-1)) + 1, *values.shape[1:]))
    np.add.at(sums, codes, values)
    return sums


def count_text(n: int, what: str) -> str:
    """
    >>> count_text(1, "cluster"), count_text(1200, "cluster")
    ('1 cluster', '1,200 clusters')
    """
    return f"{n:,} {what}" if n == 1 else f"{n:,} {what}s"
