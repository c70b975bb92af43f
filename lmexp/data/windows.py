"""Sequences of tokens cut out of a split: at random borders to train on, side by side to evaluate on."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import ArrayLike, NDArray

from lmexp.data.order import epoch_keys, sample_indices
from lmexp.errors import DataError

if TYPE_CHECKING:
    from lmexp.data.cache import TokenSplit

Ints = NDArray[np.int64]


class TrainingWindows:
    """Windows of sequence_length + 1 tokens in an endless random order that depends on the seed alone.

    An epoch cuts the stream into n_samples windows from a first token of its own (its phase), so borders
    between windows differ from epoch to epoch, and shows each window once. Less than two windows' worth of
    tokens, at the two ends, is left out of an epoch.
    """

    def __init__(self, split: TokenSplit, sequence_length: int, seed: int) -> None:
        self.split = split
        self.sequence_length = sequence_length
        self.seed = seed
        self.n_samples = n_training_windows(split.n_tokens, sequence_length)
        self._n_phases = min(sequence_length, split.n_tokens - self.n_samples * sequence_length)

    def starts(self, positions: ArrayLike) -> Ints:
        """First token of the window at each position of the training order; any shape."""
        given = np.asarray(positions, dtype=np.int64)
        phases = epoch_keys(given // self.n_samples, self.seed, stream=1) % np.uint64(self._n_phases)
        return sample_indices(given, self.n_samples, self.seed) * self.sequence_length + phases.astype(np.int64)

    def gather(self, starts: Ints) -> Ints:
        """The windows that begin at starts: (batch, sequence_length + 1)."""
        return self.split.windows(starts, self.sequence_length + 1)


class EvaluationWindows:
    """Windows side by side that predict each token of a split but the first once; the last may be shorter.

    Window i predicts the tokens from i * sequence_length + 1 on.
    """

    def __init__(self, split: TokenSplit, sequence_length: int) -> None:
        self.split = split
        self.sequence_length = sequence_length
        self.n_full, self.rest = divmod(split.n_tokens - 1, sequence_length)
        self.n_windows = self.n_full + (self.rest > 0)

    def n_batches(self, batch_size: int, rank: int = 0, world_size: int = 1) -> int:
        """Batches that batches() yields."""
        total = -(-self.n_full // batch_size) + (self.rest > 0)
        return len(range(rank, total, world_size))

    def batches(self, batch_size: int, rank: int = 0, world_size: int = 1) -> Iterator[Ints]:
        """Numbers of the windows of each batch of a rank; all windows of a batch are equally long."""
        full = range(0, self.n_full, batch_size)
        every = [(first, min(first + batch_size, self.n_full)) for first in full]
        if self.rest:
            every.append((self.n_full, self.n_windows))
        for first, end in every[rank::world_size]:
            yield np.arange(first, end)

    def gather(self, windows: Ints) -> tuple[Ints, Ints]:
        """Tokens (batch, seq + 1) of equally long windows, and the bytes (batch, seq) they predict."""
        starts = windows * self.sequence_length
        length = self.sequence_length if int(windows[0]) < self.n_full else self.rest
        return self.split.windows(starts, length + 1), self.split.window_bytes(starts + 1, length)


def n_training_windows(n_tokens: int, sequence_length: int) -> int:
    """Windows in an epoch: as many as fit after any phase, and one where there are just enough tokens."""
    if n_tokens < sequence_length + 1:
        raise DataError(
            f"data.sequence_length={sequence_length} needs at least {sequence_length + 1:,} training tokens, "
            f"found {n_tokens:,}; use data.sequence_length={max(1, n_tokens // 2)} or smaller, or more text"
        )
    return max(1, (n_tokens - sequence_length) // sequence_length)
