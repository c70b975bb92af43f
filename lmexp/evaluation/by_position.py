"""The loss by how many tokens the model has seen: what context is worth to it."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from lmexp.evaluation.samples import Samples
from lmexp.evaluation.statistics.bootstrap import percentile_interval, resample_sums
from lmexp.evaluation.statistics.intervals import Interval

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class LossByPosition:
    """One entry for each range of positions in which a token was scored; the range ends before the next power of 2."""

    seen: Ints
    """Fewest tokens seen before a target of the range, its window's first token included: 1, 2, 4, 8, ..."""
    n_tokens: Ints
    loss: Floats
    """Nats per token."""
    intervals: list[Interval]
    """95%, from a bootstrap over clusters."""


def loss_by_position(samples: Samples, *, seed: int = 0) -> LossByPosition:
    """The curve of a table of perplexity."""
    nats, n_tokens = (_by_cluster(samples, name) for name in ("position_nats", "position_tokens"))
    n_buckets = nats.shape[1]
    present = np.flatnonzero(n_tokens.sum(axis=0))
    drawn = resample_sums(np.concatenate([nats, n_tokens], axis=1), seed=seed)  # (n_resamples, 2 * buckets)
    with np.errstate(all="ignore"):
        losses = drawn[:, :n_buckets] / drawn[:, n_buckets:]
    few = len(nats) < 2
    return LossByPosition(
        seen=2**present,
        n_tokens=n_tokens.sum(axis=0)[present].astype(np.int64),
        loss=nats.sum(axis=0)[present] / n_tokens.sum(axis=0)[present],
        intervals=[Interval(None, None) if few else percentile_interval(losses[:, bucket]) for bucket in present],
    )


def _by_cluster(samples: Samples, column: str) -> Floats:
    """Sums of a column of equally long lists: (clusters, buckets)."""
    values = np.array(samples.values(column), np.float64)  # (samples, buckets)
    clusters = samples.clusters()
    sums = np.zeros((int(clusters.max()) + 1, values.shape[1]))
    np.add.at(sums, clusters, values)
    return sums
