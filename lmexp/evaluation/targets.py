"""Which tokens of a split are scored, batch by batch, and what each belongs to."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from lmexp.data.windows import evaluation_rows
from lmexp.evaluation.sums import Segments, sum_segments

if TYPE_CHECKING:
    from lmexp.data.cache import TokenCache

Ints = NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class TargetBatch:
    """Windows of one length, read and scored together."""

    tokens: Ints
    """(batch, seq): what is read."""
    targets: Ints
    """(batch, seq): the token after each; IGNORE where there is none."""
    positions: Ints | None
    """(batch, seq): position of each token in its own document, where a window holds several; see data/batch.py."""
    n_bytes: Ints
    """(batch, seq): UTF-8 bytes of each target."""
    window: Ints
    """(batch, seq): number of each target's window."""
    document: Ints
    """(batch, seq): number of each target's document."""
    scored: NDArray[np.bool_]
    """(batch, seq): whether a target counts; false where there is none, and beyond max_tokens."""

    def sum(self, nats: NDArray[np.float64], correct: NDArray[np.bool_]) -> Segments:
        """Sums of what was found for the targets, both (batch, seq)."""
        which = self.scored
        return sum_segments(self.window[which], self.document[which], nats[which], self.n_bytes[which], correct[which])


class Targets:
    """Every token of a split, or its first max_tokens, each once, in windows as the model was trained on."""

    def __init__(
        self, cache: TokenCache, split: str, *, windows: str, sequence_length: int, max_tokens: int | None = None
    ) -> None:
        self.split = cache.splits[split]
        self.windows = windows
        self.sequence_length = sequence_length
        n_tokens = self.split.n_tokens
        self.max_tokens = max_tokens if max_tokens is not None and max_tokens < n_tokens else None
        self.n_targets = self.max_tokens or n_tokens
        self.rows = evaluation_rows(cache, split, windows, sequence_length)

    @property
    def definition(self) -> str:
        """What a comparison must keep equal: packed and padded windows show a model the same."""
        limit, length = self.max_tokens, self.sequence_length
        part = "all tokens" if limit is None else f"the first {limit:,} tokens"
        if self.windows == "stream":
            return (
                f"{part} of the split, whose documents stand one after another, each ended by <eos> (0 bytes); "
                f"each token given those before it in its window; "
                f"disjoint windows of {length} tokens (stride {length})"
            )
        return (
            f"{part} of the split, each document by itself after an <eos> and ended by <eos> (0 bytes); "
            f"each token given those before it in its document, never another document; "
            f"documents of more than {length} tokens are cut every {length}, and nothing is seen across a cut but "
            f"the token before it"
        )

    def n_batches(self, batch_size: int, rank: int = 0, world_size: int = 1) -> int:
        """Batches that batches() goes through for this rank."""
        return sum(1 for _ in self._numbers(batch_size, rank, world_size))

    def batches(self, batch_size: int, rank: int = 0, world_size: int = 1) -> Iterator[TargetBatch]:
        """The batches of one rank: rank, rank + world_size, ..., without windows that have nothing to score."""
        starts = self.split.document_starts
        for numbers in self._numbers(batch_size, rank, world_size):
            rows = self.rows.gather(numbers)
            scored = (rows.places > 0) & (rows.places <= self.n_targets)  # (batch, seq)
            kept = scored.any(axis=1)
            if not kept.any():
                continue
            places = rows.places[kept]
            yield TargetBatch(
                tokens=rows.tokens[kept],
                targets=rows.targets[kept],
                positions=None if rows.positions is None else rows.positions[kept],
                n_bytes=self.split.window_bytes(places.ravel(), 1).reshape(places.shape),
                window=np.broadcast_to(numbers[kept, None], places.shape),
                document=np.searchsorted(starts, places, side="right") - 1,
                scored=scored[kept],
            )

    def _numbers(self, batch_size: int, rank: int, world_size: int) -> Iterator[Ints]:
        """Numbers of the windows of each batch. Those of a stream are in its order, so the first of them are enough."""
        stop = -(-self.n_targets // self.sequence_length) if self.windows == "stream" else self.rows.n_rows
        for numbers in self.rows.batches(batch_size, rank, world_size):
            within = numbers[numbers < stop]
            if len(within):
                yield within
