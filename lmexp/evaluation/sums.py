"""What was found for targets, by segment: the targets of one document within one window.

Segments are what processes hand each other. How targets are grouped into windows, batches and processes changes no
figure: from segments, scores go to the place of each token, and are summed there in the order of the text.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa  # type: ignore[import-untyped]
from numpy.typing import NDArray

from lmexp.evaluation.collect import ORDER
from lmexp.evaluation.samples import COUNT, COUNTS, NUMBER, NUMBERS, lists_of

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]

SEGMENT = {
    "scoring": COUNT,
    "window": COUNT,
    "document": COUNT,
    "place": COUNT,
    "seen": COUNT,
    "n_tokens": COUNT,
    "n_bytes": COUNT,
    "logprobs": NUMBERS,
    "correct": COUNTS,
    "latency": NUMBER,
}
"""Columns of a table of segments, which collect() keeps while they are scored."""

LISTS = ("logprobs", "correct")
PLACES = 1 << 40
"""More than any split has: those of one scoring come before those of the next."""


@dataclass(frozen=True, slots=True)
class Segments:
    """One entry for each (window, document) that has targets; arrays of equal length but for the last two."""

    window: Ints
    document: Ints
    place: Ints
    """Of the first target, in its split."""
    seen: Ints
    """Tokens that the first target is predicted from; each next one has one more."""
    n_tokens: Ints
    n_bytes: Ints
    logprobs: Floats
    """Of the targets one after another, n_tokens of each segment."""
    correct: Ints
    """1 where the first choice was right, in the same order."""

    def table(self, seconds: float, scoring: int = 0) -> Any:
        """As a pyarrow.Table. seconds: that it took to score them, shared out evenly; scoring: number of the way in
        which the targets were shown, where there are several."""
        n = len(self.window)
        given = {"scoring": np.full(n, scoring), "latency": np.full(n, seconds / max(n, 1))}
        lists = {name: lists_of(getattr(self, name), self.n_tokens) for name in LISTS}
        plain = {name: getattr(self, name) for name in SEGMENT if name not in (*given, *lists)}
        columns = {name: {**given, **lists, **plain}[name] for name in SEGMENT}
        return pa.table({**columns, ORDER: self.place + scoring * PLACES})


def sum_segments(
    window: Ints, document: Ints, place: Ints, seen: Ints, logprob: Floats, n_bytes: Ints, correct: NDArray[np.bool_]
) -> Segments:
    """Stretches of neighbouring targets with the same window and document.

    All arguments have one entry for each target, in order of position within each window.
    """
    new = (np.diff(window, prepend=-1) != 0) | (np.diff(document, prepend=-1) != 0)
    starts = np.flatnonzero(new)
    return Segments(
        window=window[starts],
        document=document[starts],
        place=place[starts],
        seen=seen[starts],
        n_tokens=np.diff(starts, append=len(window)),
        n_bytes=np.add.reduceat(n_bytes.astype(np.int64, copy=False), starts) if len(starts) else n_bytes[:0],
        logprobs=logprob.astype(np.float64, copy=False),
        correct=correct.astype(np.int64),
    )
