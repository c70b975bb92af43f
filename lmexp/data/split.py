"""Which documents, or which parts of them, belong to train, validation and test.

hash: a document goes where the SHA-256 of its text says, so identical documents stay together and a new
document moves no other. tail: the corpus is one stream of characters; its last fractions are held out.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

SPLIT_NAMES = ("train", "validation", "test")
DROPPED = 255
"""Home of a document that belongs to no split."""
CUT = 254
"""Home of a document that several splits share."""

Homes = NDArray[np.uint8]
"""(documents,) index into SPLIT_NAMES, DROPPED or CUT."""


@dataclass(frozen=True, slots=True)
class Piece:
    """Part of a document (its number) that was cut: characters from start to before stop."""

    document: int
    split: int
    start: int
    stop: int


def points(digests: NDArray[np.uint8]) -> NDArray[np.float64]:
    """(documents,) a number from 0 to below 1 that depends on nothing but the document's text.

    digests: (documents, 16), the first bytes of its SHA-256.

    >>> points(np.array([[128] + [0] * 15, [255] * 16], dtype=np.uint8)).tolist()
    [0.5, 0.9999999999999999]
    """
    heads = np.ascontiguousarray(digests[:, :8]).view(">u8")[:, 0].astype(np.uint64)
    return (heads >> np.uint64(11)).astype(np.float64) * 2.0**-53


def hash_homes(digests: NDArray[np.uint8], validation: float, test: float) -> Homes:
    """Whole documents by their points: test lies below `test`, validation above it, train above both."""
    at = points(digests)
    homes = np.zeros(len(at), np.uint8)
    homes[at < test + validation] = SPLIT_NAMES.index("validation")
    homes[at < test] = SPLIT_NAMES.index("test")
    return homes


def tail_borders(n_characters: int, validation: float, test: float) -> list[int]:
    """The stream's borders: train, then validation, then test.

    >>> tail_borders(101, 0.1, 0.2)
    [0, 70, 80, 101]
    """
    n = n_characters
    return [0, int(n * (1 - (validation + test))), int(n * (1 - test)), n]


def tail_homes(characters: NDArray[np.int64], before: int, borders: list[int]) -> tuple[Homes, list[Piece]]:
    """Homes of documents next to each other, and the pieces of those that were cut.

    characters: (documents,) their lengths, none 0. before: characters of the stream before them.
    """
    ends = before + np.cumsum(characters)
    starts = ends - characters
    inner = np.array(borders[1:-1])
    homes = np.searchsorted(inner, starts, side="right").astype(np.uint8)
    last = np.searchsorted(inner, ends - 1, side="right")
    pieces = []
    for i in np.flatnonzero(homes != last).tolist():
        pieces += list(_pieces(i, int(starts[i]), int(ends[i]), borders))
        homes[i] = CUT
    return homes, pieces


def _pieces(document: int, start: int, end: int, borders: list[int]) -> Iterator[Piece]:
    for split, (low, high) in enumerate(itertools.pairwise(borders)):
        piece = Piece(document, split, max(low, start) - start, min(high, end) - start)
        if piece.start < piece.stop:
            yield piece
