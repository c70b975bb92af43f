"""Windows that may overlap: each token of a text is predicted once, given what its window shows before it.

rolling   The first window of a text predicts all its tokens. Each further one ends `stride` tokens later and predicts
          what is new, given all that stands before it in the window; the last is as long as the others, and predicts
          what is left. With a stride of the whole length these are the windows of lm-eval's loglikelihood_rolling.
cut       Windows side by side; the last of a text is shorter, and nothing is seen across a cut but the token before.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from lmexp.data.plans import cut
from lmexp.data.windows import Rows
from lmexp.metrics.ignore import IGNORE

if TYPE_CHECKING:
    from lmexp.data.cache import TokenSplit

Ints = NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class Windows:
    """(windows,) each, in the order of the text."""

    first: Ints
    """Place of the first token that is read."""
    n_read: Ints
    n_scored: Ints
    """Targets: those after the last so many tokens that are read."""

    @property
    def first_target(self) -> Ints:
        """Place of the first target of each."""
        return self.first + self.n_read - self.n_scored + 1


def rolling(starts: Ints, lengths: Ints, sequence_length: int, stride: int) -> Windows:
    """Overlapping windows of texts. starts: place of each text's first token; lengths: its tokens.

    >>> windows = rolling(np.array([1]), np.array([7]), 4, 2)
    >>> windows.first, windows.n_read, windows.n_scored
    (array([0, 2, 3]), array([4, 4, 4]), array([4, 2, 1]))
    """
    n_more = -(-np.maximum(lengths - sequence_length, 0) // stride)
    n_windows = np.where(lengths > 0, 1 + n_more, 0)
    number = np.arange(n_windows.sum()) - np.repeat(np.cumsum(n_windows) - n_windows, n_windows)  # 0, 1, ... in a text
    length = np.repeat(lengths, n_windows)
    end = np.minimum(sequence_length + number * stride, length)
    before = np.where(number > 0, np.minimum(sequence_length + (number - 1) * stride, length), 0)
    begin = np.maximum(end - sequence_length, 0)
    return Windows(np.repeat(starts - 1, n_windows) + begin, end - begin, end - before)


def side_by_side(document_starts: Ints, sequence_length: int) -> Windows:
    """Documents cut every sequence_length tokens. document_starts: as a TokenSplit has them."""
    first, lengths = cut(document_starts, sequence_length)
    return Windows(first, lengths, lengths)


class WindowRows:
    """Such windows as rows; those of a batch are about equally long, and filled up with <eos>."""

    def __init__(self, split: TokenSplit, windows: Windows) -> None:
        self.split = split
        self.windows = windows
        self._longest_first = np.argsort(-windows.n_read, kind="stable")

    def batches(self, batch_size: int) -> Iterator[Ints]:
        """Numbers of the windows of each batch, longest first."""
        for start in range(0, len(self._longest_first), batch_size):
            yield self._longest_first[start : start + batch_size]

    def gather(self, numbers: Ints) -> Rows:
        """The windows with these numbers."""
        first, n_read, n_scored = (
            values[numbers][:, None] for values in (self.windows.first, self.windows.n_read, self.windows.n_scored)
        )  # (batch, 1)
        offsets = np.arange(int(n_read.max()))  # (seq,)
        read = np.where(offsets < n_read, first + offsets, 0)  # place 0 is an <eos>
        is_target = (offsets < n_read) & (offsets >= n_read - n_scored)
        places = np.where(is_target, first + offsets + 1, 0)
        tokens = self.split.tokens
        targets = np.where(is_target, tokens[places].astype(np.int64), IGNORE)
        return Rows(tokens[read].astype(np.int64), targets, None, places)
