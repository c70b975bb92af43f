"""What context is worth to a model: the loss by how many tokens it has seen, and bits per byte by the stride."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lmexp.evaluation.plot import Plot, Reference, Series
from lmexp.evaluation.row import Row
from lmexp.evaluation.samples import Samples
from lmexp.evaluation.statistics.bootstrap import resampled_sums
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
    """95%, from a bootstrap over clusters, as for the loss itself."""


def with_plots(rows: Sequence[Row], samples: Samples, *, seed: int) -> list[Row]:
    """The rows of a table of perplexity, the loss and the stride's gain with what is drawn of them."""
    by_name = {row.name.rpartition("/")[2]: row for row in rows}
    plots = {}
    if "loss" in by_name and by_name["loss"].measured and "position_nats" in samples.table.column_names:
        plots["loss"] = position_plot(loss_by_position(samples, seed=seed), samples.header.key.settings)
    strided, disjoint = (by_name.get(name) for name in ("bits_per_byte", "disjoint_bits_per_byte"))
    if strided is not None and disjoint is not None and strided.measured and disjoint.measured:
        plots["stride_gain"] = stride_plot(strided, disjoint, samples.header.key.settings)
    return [replace(row, plot=plots.get(name, row.plot)) for name, row in by_name.items()]


def position_plot(found: LossByPosition, settings: dict[str, Any]) -> Plot:
    """The curve of the loss. settings: of the table's key."""
    length = settings.get("sequence_length")
    has_intervals = all(interval.low is not None for interval in found.intervals)
    return Plot(
        kind="curve",
        title="loss by tokens seen before (2 stands for 2 to 3, 4 for 4 to 7, ...), disjoint windows",
        series=[
            Series(
                label="loss",
                x=found.seen.tolist(),
                y=found.loss.tolist(),
                low=[interval.low for interval in found.intervals] if has_intervals else None,  # type: ignore[misc]
                high=[interval.high for interval in found.intervals] if has_intervals else None,  # type: ignore[misc]
                n=found.n_tokens.tolist(),
            )
        ],
        y_label="loss",
        y_unit="nats per token",
        x_label="tokens seen before",
        log_x=True,
        references=[Reference(label="window", value=length, axis="x")] if isinstance(length, int) else [],
        higher_is_better=False,
    )


def stride_plot(strided: Row, disjoint: Row, settings: dict[str, Any]) -> Plot:
    """Bits per byte in overlapping and in disjoint windows."""
    rows = [strided, disjoint]
    has_intervals = all(row.low is not None for row in rows)
    return Plot(
        kind="forest",
        title=f"bits per byte by stride, windows of {settings.get('sequence_length')} tokens",
        series=[
            Series(
                label="bits per byte",
                x=[f"stride {settings.get('stride')}", "disjoint windows"],
                y=[row.estimate for row in rows],  # type: ignore[misc]
                low=[row.low for row in rows] if has_intervals else None,  # type: ignore[misc]
                high=[row.high for row in rows] if has_intervals else None,  # type: ignore[misc]
                n=[row.n for row in rows],
            )
        ],
        y_label="bits per byte",
        y_unit="bits per byte",
        higher_is_better=False,
    )


def loss_by_position(samples: Samples, *, seed: int = 0) -> LossByPosition:
    """The curve of a table of perplexity."""
    nats, n_tokens = (_by_cluster(samples, name) for name in ("position_nats", "position_tokens"))
    n_buckets = nats.shape[1]
    present = np.flatnonzero(n_tokens.sum(axis=0))
    drawn = resampled_sums(np.concatenate([nats, n_tokens], axis=1), seed=seed)  # of 2 * buckets columns

    def interval(bucket: int) -> Interval:
        return drawn.map(lambda sums: sums[..., bucket] / sums[..., n_buckets + bucket]).interval()

    return LossByPosition(
        seen=2**present,
        n_tokens=n_tokens.sum(axis=0)[present].astype(np.int64),
        loss=nats.sum(axis=0)[present] / n_tokens.sum(axis=0)[present],
        intervals=[interval(bucket) for bucket in present.tolist()],
    )


def _by_cluster(samples: Samples, column: str) -> Floats:
    """Sums of a column of equally long lists: (clusters, buckets)."""
    values = np.array(samples.values(column), np.float64)  # (samples, buckets)
    clusters = samples.clusters()
    sums = np.zeros((int(clusters.max()) + 1, values.shape[1]))
    np.add.at(sums, clusters, values)
    return sums
