"""Which tokens of a split are scored, batch by batch, and what each belongs to."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from lmexp.data.windows import evaluation_rows
from lmexp.evaluation.sums import FEW_DOCUMENTS, Segments, sum_segments

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
    places: Ints
    """(batch, seq): place of each target in its split."""
    scored: NDArray[np.bool_]
    """(batch, seq): whether a target counts; false where there is none, and beyond max_tokens."""

    def sum(self, nats: NDArray[np.float64], correct: NDArray[np.bool_]) -> Segments:
        """Sums of what was found for the targets, both (batch, seq)."""
        which = self.scored
        return sum_segments(
            self.window[which],
            self.document[which],
            self.places[which],
            nats[which],
            self.n_bytes[which],
            correct[which],
        )


class Targets:
    """Every token of a split, or its first max_tokens, each once, in windows as the model was trained on."""

    def __init__(
        self, cache: TokenCache, split: str, *, windows: str, sequence_length: int, max_tokens: int | None = None
    ) -> None:
        self.cache = cache
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

    @property
    def n_documents(self) -> int:
        """Documents of which a token is scored."""
        return int(np.searchsorted(self.split.document_starts[:-1], self.n_targets, side="right"))

    @property
    def task(self) -> dict[str, Any]:
        """What a comparison must keep equal. Where all of the split is scored as documents, models with different
        tokenizers are asked the same."""
        task: dict[str, Any] = {"documents": self.split.documents_digest}
        if self.max_tokens is None and self.n_documents >= FEW_DOCUMENTS:
            return task
        tokenizer = self.cache.tokenizer.digest()
        cut = {} if self.n_documents >= FEW_DOCUMENTS else {"windows": self.windows, "length": self.sequence_length}
        return {**task, "max_tokens": self.max_tokens, "tokenizer": tokenizer, **cut}

    @property
    def settings(self) -> dict[str, Any]:
        """How the tokens are shown to a model."""
        windows = "stream" if self.windows == "stream" else "documents"
        return {"windows": windows, "sequence_length": self.sequence_length}

    def batches(self, batch_size: int, rank: int = 0, world_size: int = 1) -> Iterator[TargetBatch]:
        """The batches of one rank: rank, rank + world_size, ..."""
        for numbers in list(self.numbers(batch_size))[rank::world_size]:
            yield self.batch(numbers)

    def numbers(self, batch_size: int) -> Iterator[Ints]:
        """Numbers of the windows of each batch, without windows that have nothing to score."""
        # those of a stream are in its order, so the first of them are enough
        stop = -(-self.n_targets // self.sequence_length) if self.windows == "stream" else self.rows.n_rows
        for numbers in self.rows.batches(batch_size):
            within = numbers[numbers < stop]
            if self.max_tokens is not None and self.windows != "stream" and len(within):
                within = within[self._scored(self.rows.gather(within).places).any(axis=1)]
            if len(within):
                yield within

    def batch(self, numbers: Ints) -> TargetBatch:
        """The windows with these numbers."""
        rows = self.rows.gather(numbers)
        return TargetBatch(
            tokens=rows.tokens,
            targets=rows.targets,
            positions=rows.positions,
            n_bytes=self.split.window_bytes(rows.places.ravel(), 1).reshape(rows.places.shape),
            window=np.broadcast_to(numbers[:, None], rows.places.shape),
            document=np.searchsorted(self.split.document_starts, rows.places, side="right") - 1,
            places=rows.places,
            scored=self._scored(rows.places),
        )

    def _scored(self, places: Ints) -> NDArray[np.bool_]:
        return (places > 0) & (places <= self.n_targets)
