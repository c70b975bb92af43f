"""Sums over targets, so that figures don't depend on batch size, padding or number of processes.

Targets are summed twice: first within a segment (targets of one document within one window), by whichever process
scored the window; then over segments in the order of the text, always the same. Samples are documents, or windows
where documents are few.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa  # type: ignore[import-untyped]
from numpy.typing import NDArray

from lmexp.evaluation.collect import ORDER
from lmexp.evaluation.samples import COUNT, NUMBER, NUMBERS, lists_of, make_table

if TYPE_CHECKING:
    from lmexp.data.cache import TokenSplit

FEW_DOCUMENTS = 20

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]

SEGMENT = {
    "window": COUNT,
    "document": COUNT,
    "place": COUNT,
    "n_tokens": COUNT,
    "n_bytes": COUNT,
    "nats": NUMBER,
    "n_correct": COUNT,
    "logprobs": NUMBERS,
    "latency": NUMBER,
}
"""Columns of a table of segments, which collect() keeps while they are scored."""


@dataclass(frozen=True, slots=True)
class Segments:
    """One entry for each (window, document) that has targets; arrays of equal length but for logprobs."""

    window: Ints
    document: Ints
    place: Ints
    """Of the first target, in its split."""
    n_tokens: Ints
    n_bytes: Ints
    nats: Floats
    n_correct: Ints
    logprobs: Floats
    """Of the targets one after another, n_tokens of each segment."""

    def table(self, seconds: float) -> Any:
        """As a pyarrow.Table; seconds: that it took to score them, shared out evenly."""
        n = len(self.window)
        columns = {
            **{name: pa.array(getattr(self, name)) for name in SEGMENT if name not in ("logprobs", "latency")},
            "logprobs": lists_of(self.logprobs, self.n_tokens),
            "latency": pa.array(np.full(n, seconds / max(n, 1))),
        }
        return pa.table({**columns, ORDER: columns["place"]})


def sum_segments(
    window: Ints, document: Ints, place: Ints, nats: Floats, n_bytes: Ints, correct: NDArray[np.bool_]
) -> Segments:
    """Sums over stretches of neighbouring targets with the same window and document.

    All arguments have one entry for each target, in order of position within each window.
    """
    new = (np.diff(window, prepend=-1) != 0) | (np.diff(document, prepend=-1) != 0)
    starts = np.flatnonzero(new)
    wide = nats.astype(np.float64, copy=False)

    def total(values: NDArray[Any]) -> NDArray[Any]:
        return np.add.reduceat(values, starts) if len(starts) else values[:0]

    return Segments(
        window=window[starts],
        document=document[starts],
        place=place[starts],
        n_tokens=np.diff(starts, append=len(window)),
        n_bytes=total(n_bytes.astype(np.int64, copy=False)),
        nats=total(wide),
        n_correct=total(correct.astype(np.int64)),
        logprobs=-wide,
    )


def cluster_of(segments: Any) -> str:
    """What a sample is: document, or window where there are fewer than 20 documents. Takes a table of segments."""
    return "document" if len(segments.column("document").unique()) >= FEW_DOCUMENTS else "window"


def samples_table(segments: Any, split: TokenSplit, decode: Callable[[Sequence[int]], str]) -> Any:
    """The columns of a samples table, from all segments in the order of the text. n_correct is nan where nats are."""
    cluster = cluster_of(segments)
    ids, member = np.unique(segments.column(cluster).to_numpy(), return_inverse=True)
    order = np.argsort(member, kind="stable")
    segments = segments.take(order)
    member = member[order]
    place, n_tokens = segments.column("place").to_numpy(), segments.column("n_tokens").to_numpy()

    def counts(name: str) -> Ints:
        total = np.zeros(len(ids), dtype=np.int64)
        np.add.at(total, member, segments.column(name).to_numpy())
        return total

    def sums(name: str) -> Floats:
        # adds in the order of the segments; the type stubs know only the counts of bincount, not its sums
        return np.bincount(member, segments.column(name).to_numpy(), len(ids)).astype(np.float64)

    texts = [""] * len(ids)
    for number, start, n in zip(member.tolist(), place.tolist(), n_tokens.tolist(), strict=True):
        texts[number] += decode(split.tokens[start : start + n].tolist())
    nats, correct, total = sums("nats"), counts("n_correct").astype(np.float64), counts("n_tokens")
    correct[np.isnan(nats)] = np.nan  # a nan has no first choice
    names = [f"{cluster}-{number}" for number in ids.tolist()]
    return make_table(
        {
            "sample_id": names,
            "cluster_id": names,
            "target": texts,
            "score": correct / total,
            "logprob": -nats,
            "logprobs": lists_of(segments.column("logprobs").combine_chunks().flatten().to_numpy(), total),
            "n_tokens": total,
            "n_bytes": counts("n_bytes"),
            "latency": sums("latency"),
            "n_correct": correct,
        },
        {"n_correct": NUMBER},
    )
