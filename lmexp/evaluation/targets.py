"""Which tokens of a split are scored, batch by batch, and what each belongs to."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from lmexp.data.windows import EvaluationRows, evaluation_rows
from lmexp.errors import ConfigError
from lmexp.evaluation.rolling import WindowRows, Windows, rolling, side_by_side
from lmexp.evaluation.sums import Segments, sum_segments

if TYPE_CHECKING:
    from lmexp.data.cache import TokenCache

Ints = NDArray[np.int64]

FEW_DOCUMENTS = 20


@dataclass(frozen=True, kw_only=True, slots=True)
class Showing:
    """What is scored, and how it is shown to a model."""

    windows: str
    """stream; or documents apart, several in a row (packed) or one (padded), which a model sees alike."""
    sequence_length: int
    """Tokens in a window."""
    stride: int | None = None
    """Tokens from a window's end to the next one's; None puts windows side by side."""
    max_tokens: int | None = None
    """Score only the first so many of the split."""
    score_eos: bool = True
    """Whether the <eos> that ends a document is scored."""

    def __post_init__(self) -> None:
        if self.stride is not None and self.stride > self.sequence_length:
            raise ConfigError(
                f"evaluation.perplexity.stride is {self.stride}, more than the {self.sequence_length} tokens of a "
                f"window: tokens would be left out; expected {self.sequence_length} at most"
            )


@dataclass(frozen=True, slots=True)
class TargetBatch:
    """Windows that are read and scored together."""

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
        """What was found for the targets, both (batch, seq), by segment."""
        which = self.scored
        positions = np.arange(self.tokens.shape[1]) if self.positions is None else self.positions
        return sum_segments(
            self.window[which],
            self.document[which],
            self.places[which],
            np.broadcast_to(positions + 1, which.shape)[which],
            -nats[which],
            self.n_bytes[which],
            correct[which],
        )


class Targets:
    """Every token of a split, or its first max_tokens, each once."""

    def __init__(self, cache: TokenCache, split: str, showing: Showing) -> None:
        self.cache = cache
        self.split = cache.splits[split]
        self.showing = showing
        n_tokens, most = self.split.n_tokens, showing.max_tokens
        self.max_tokens = most if most is not None and most < n_tokens else None
        self.n_targets = self.max_tokens or n_tokens
        self.rows = self._rows()

    def disjoint(self) -> Targets:
        """The same tokens in windows side by side."""
        return Targets(self.cache, self.split.name, replace(self.showing, stride=None))

    @property
    def definition(self) -> str:
        """What a comparison must keep equal: packed and padded windows show a model the same."""
        showing, length, stride = self.showing, self.showing.sequence_length, self.showing.stride
        part = "all tokens" if self.max_tokens is None else f"the first {self.max_tokens:,} tokens"
        more = f"so that beyond the first each token is given {length - (stride or length) + 1} or more"
        if showing.windows == "stream":
            eos = "" if showing.score_eos else ", which isn't scored"
            cut = f"disjoint windows of {length} tokens (stride {length})"
            overlap = f"overlapping windows of {length} tokens (stride {stride}), {more}"
            return (
                f"{part} of the split, whose documents stand one after another, each ended by <eos> (0 bytes){eos}; "
                f"each token given those before it in its window; {cut if stride is None else overlap}"
            )
        eos = " and ended by <eos> (0 bytes)" if showing.score_eos else "; the <eos> that ends it isn't scored"
        cut = f"are cut every {length}, and nothing is seen across a cut but the token before it"
        overlap = f"are read in overlapping windows of {length} (stride {stride}), {more}"
        return (
            f"{part} of the split, each document by itself after an <eos>{eos}; "
            f"each token given those before it in its document, never another document; "
            f"documents of more than {length} tokens {cut if stride is None else overlap}"
        )

    @property
    def n_documents(self) -> int:
        """Documents of which a token is scored."""
        return int(np.searchsorted(self.split.document_starts[:-1], self.n_targets, side="right"))

    @property
    def cluster(self) -> str:
        """What a sample is: document, or window where documents are few."""
        return "document" if self.n_documents >= FEW_DOCUMENTS else "window"

    @property
    def task(self) -> dict[str, Any]:
        """What a comparison must keep equal. Where all of the split is scored as documents, models with different
        tokenizers are asked the same."""
        task: dict[str, Any] = {"documents": self.split.documents_digest, "score_eos": self.showing.score_eos}
        if self.max_tokens is None and self.cluster == "document":
            return task
        windows, length = self.showing.windows, self.showing.sequence_length
        cut = {} if self.cluster == "document" else {"windows": windows, "length": length}
        return {**task, "max_tokens": self.max_tokens, "tokenizer": self.cache.tokenizer.digest(), **cut}

    @property
    def settings(self) -> dict[str, Any]:
        """How the tokens are shown to a model."""
        showing = self.showing
        windows = "stream" if showing.windows == "stream" else "documents"
        return {"windows": windows, "sequence_length": showing.sequence_length, "stride": showing.stride}

    def numbers(self, batch_size: int) -> Iterator[Ints]:
        """Numbers of the windows of each batch, without windows that have nothing to score."""
        if isinstance(self.rows, WindowRows):
            yield from self.rows.batches(batch_size)
            return
        # those of a stream are in its order, so the first of them are enough
        stream = self.showing.windows == "stream"
        stop = -(-self.n_targets // self.showing.sequence_length) if stream else self.rows.n_rows
        for numbers in self.rows.batches(batch_size):
            within = numbers[numbers < stop]
            if self.max_tokens is not None and not stream and len(within):
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
            document=self._documents(rows.places),
            places=rows.places,
            scored=self._scored(rows.places),
        )

    def _rows(self) -> EvaluationRows | WindowRows:
        showing, split = self.showing, self.split
        stream, length = showing.windows == "stream", showing.sequence_length
        if showing.stride is None and showing.windows != "padded":
            return evaluation_rows(self.cache, split.name, showing.windows, length)
        if showing.stride is None:
            windows = side_by_side(split.document_starts, length)
        else:
            borders = np.array([1, 1 + split.n_tokens]) if stream else np.asarray(split.document_starts)
            n_tokens = np.diff(borders) - (0 if stream or showing.score_eos else 1)
            windows = rolling(borders[:-1], n_tokens, length, showing.stride)
        within = windows.first_target <= self.n_targets
        return WindowRows(split, Windows(windows.first[within], windows.n_read[within], windows.n_scored[within]))

    def _scored(self, places: Ints) -> NDArray[np.bool_]:
        scored = (places > 0) & (places <= self.n_targets)
        if not self.showing.score_eos:
            scored &= places != self.split.document_starts[self._documents(places) + 1] - 1
        return scored

    def _documents(self, places: Ints) -> Ints:
        found: Ints = np.searchsorted(self.split.document_starts, places, side="right") - 1
        return found
