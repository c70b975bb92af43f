"""Sums over targets, so that figures don't depend on batch size, padding or number of processes.

Targets are summed twice: first within a segment (targets of one document within one window), by whichever
process scored the window; then over segments in the order of the windows, always the same. Ratios of these
sums are the figures, and documents (or windows, where documents are few) are the clusters of their intervals.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

FEW_DOCUMENTS = 20

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class Segments:
    """One entry for each (window, document) that has targets; arrays of equal length."""

    window: Ints
    document: Ints
    nats: Floats
    n_tokens: Ints
    n_bytes: Ints
    n_correct: Ints


@dataclass(frozen=True, slots=True)
class ClusterSums:
    """Sums of the targets of each cluster, in order; arrays of equal length."""

    cluster: str
    """What a cluster is: document or window."""
    ids: Ints
    nats: Floats
    n_tokens: Ints
    n_bytes: Ints
    n_correct: Ints
    max_tokens: int | None = None
    """The limit under which the targets were chosen; None if all of the split were."""

    @property
    def total_nats(self) -> float:
        """Sum of all nats, correctly rounded; inf or nan where one is."""
        finite = bool(np.isfinite(self.nats).all())
        return math.fsum(self.nats) if finite else float(self.nats.sum())

    @property
    def total_tokens(self) -> int:
        """Number of targets."""
        return int(self.n_tokens.sum())

    @property
    def total_bytes(self) -> int:
        """UTF-8 bytes of the targets."""
        return int(self.n_bytes.sum())

    @property
    def total_correct(self) -> int:
        """Targets that were the model's first choice."""
        return int(self.n_correct.sum())

    @property
    def columns(self) -> Floats:
        """nats, n_tokens, n_bytes, n_correct of each cluster: (n_clusters, 4)."""
        return np.stack([self.nats, self.n_tokens, self.n_bytes, self.n_correct], axis=1)

    @property
    def totals(self) -> Floats:
        """The sums of the columns: (4,)."""
        return np.array([self.total_nats, self.total_tokens, self.total_bytes, self.total_correct])

    @property
    def bits_per_byte(self) -> float:
        """Cross-entropy in bits for each UTF-8 byte; nan where there are no bytes."""
        return self.total_nats / (self.total_bytes * math.log(2)) if self.total_bytes else math.nan

    def method(self, n_resamples: int, seed: int) -> str:
        """The words for an interval over these clusters."""
        n = len(self.ids)
        if n < 2:
            return f"no interval: only one {self.cluster} was scored"
        few = f" (fewer than {FEW_DOCUMENTS} documents)" if self.cluster == "window" else ""
        return f"bootstrap over {n:,} {self.cluster}s{few}, {n_resamples:,} resamples, seed {seed}"


def sum_segments(window: Ints, document: Ints, nats: Floats, n_bytes: Ints, correct: NDArray[np.bool_]) -> Segments:
    """Sums over stretches of neighbouring targets with the same window and document.

    All arguments have one entry for each target, in order of position within each window.
    """
    new = (np.diff(window, prepend=-1) != 0) | (np.diff(document, prepend=-1) != 0)
    starts = np.flatnonzero(new)
    return Segments(
        window=window[starts],
        document=document[starts],
        nats=np.add.reduceat(nats.astype(np.float64, copy=False), starts),
        n_tokens=np.diff(starts, append=len(window)),
        n_bytes=np.add.reduceat(n_bytes.astype(np.int64, copy=False), starts),
        n_correct=np.add.reduceat(correct.astype(np.int64), starts),
    )


def join_segments(parts: Sequence[Segments]) -> Segments:
    """All segments in the order of windows and documents, whoever scored them."""
    window = np.concatenate([part.window for part in parts])
    document = np.concatenate([part.document for part in parts])
    order = np.lexsort((document, window))
    return Segments(
        window=window[order],
        document=document[order],
        nats=np.concatenate([part.nats for part in parts])[order],
        n_tokens=np.concatenate([part.n_tokens for part in parts])[order],
        n_bytes=np.concatenate([part.n_bytes for part in parts])[order],
        n_correct=np.concatenate([part.n_correct for part in parts])[order],
    )


def cluster_sums(segments: Segments, *, max_tokens: int | None = None) -> ClusterSums:
    """Sums by document, or by window where there are fewer than 20 documents. Takes joined segments."""
    documents = np.unique(segments.document)
    by_document = len(documents) >= FEW_DOCUMENTS
    ids, member = np.unique(segments.document if by_document else segments.window, return_inverse=True)

    def counts(values: Ints) -> Ints:
        total = np.zeros(len(ids), dtype=np.int64)
        np.add.at(total, member, values)
        return total

    # adds in the order of the segments; the type stubs know only the counts of bincount, not its sums
    nats = np.bincount(member, segments.nats, len(ids)).astype(np.float64)
    return ClusterSums(
        cluster="document" if by_document else "window",
        ids=ids,
        nats=nats,
        n_tokens=counts(segments.n_tokens),
        n_bytes=counts(segments.n_bytes),
        n_correct=counts(segments.n_correct),
        max_tokens=max_tokens,
    )


def same_targets(one: ClusterSums, other: ClusterSums) -> bool:
    """Whether both are sums over the same targets in the same clusters, so that they can be paired."""
    return (
        one.cluster == other.cluster
        and np.array_equal(one.ids, other.ids)
        and np.array_equal(one.n_tokens, other.n_tokens)
        and np.array_equal(one.n_bytes, other.n_bytes)
    )
