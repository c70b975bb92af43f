"""Which tokens of a split are scored, batch by batch, and what each belongs to."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from lmexp.data.windows import EvaluationWindows
from lmexp.evaluation.sums import Segments, sum_segments

if TYPE_CHECKING:
    from lmexp.data.cache import TokenSplit

Ints = NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class TargetBatch:
    """Windows of one length, read and scored together."""

    tokens: Ints
    """(batch, seq + 1): tokens[:, :-1] are read, tokens[:, 1:] are the targets."""
    n_bytes: Ints
    """(batch, seq): UTF-8 bytes of each target."""
    window: Ints
    """(batch, seq): number of each target's window."""
    document: Ints
    """(batch, seq): number of each target's document."""
    scored: NDArray[np.bool_]
    """(batch, seq): whether a target counts; false beyond max_tokens."""

    def sum(self, nats: NDArray[np.float64], correct: NDArray[np.bool_]) -> Segments:
        """Sums of what was found for the targets, both (batch, seq)."""
        which = self.scored
        return sum_segments(self.window[which], self.document[which], nats[which], self.n_bytes[which], correct[which])


class Targets:
    """Every token of a split but the first, in disjoint windows, up to max_tokens of them."""

    def __init__(self, split: TokenSplit, sequence_length: int, max_tokens: int | None = None) -> None:
        self.max_tokens = max_tokens
        self.n_targets = min(split.n_tokens - 1, max_tokens or split.n_tokens)
        self.windows = EvaluationWindows(split, sequence_length)
        self._n_windows = -(-self.n_targets // sequence_length)
        self._document_starts = split.document_starts

    @property
    def definition(self) -> str:
        """What a comparison must keep equal."""
        limit = self.max_tokens
        part = "all tokens but the first" if limit is None else f"the first {limit:,} tokens"
        length = self.windows.sequence_length
        return (
            f"{part} of the split, whose documents stand one after another, each ended by <eos> (0 bytes); "
            f"each token given those before it in its window; "
            f"disjoint windows of {length} tokens (stride {length})"
        )

    def n_batches(self, batch_size: int, rank: int = 0, world_size: int = 1) -> int:
        """Batches that batches() yields to this rank."""
        return sum(1 for _ in self._numbers(batch_size, rank, world_size))

    def batches(self, batch_size: int, rank: int = 0, world_size: int = 1) -> Iterator[TargetBatch]:
        """The batches of one rank: rank, rank + world_size, ..."""
        for numbers in self._numbers(batch_size, rank, world_size):
            tokens, n_bytes = self.windows.gather(numbers)
            first = numbers * self.windows.sequence_length + 1  # position of each window's first target
            positions = first[:, None] + np.arange(tokens.shape[1] - 1)  # (batch, seq)
            yield TargetBatch(
                tokens=tokens,
                n_bytes=n_bytes,
                window=np.broadcast_to(numbers[:, None], positions.shape),
                document=np.searchsorted(self._document_starts, positions, side="right") - 1,
                scored=positions <= self.n_targets,
            )

    def _numbers(self, batch_size: int, rank: int, world_size: int) -> Iterator[Ints]:
        """Numbers of the windows of each batch, those beyond max_tokens left out."""
        for numbers in self.windows.batches(batch_size, rank, world_size):
            within = numbers[numbers < self._n_windows]
            if len(within):
                yield within
