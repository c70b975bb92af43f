"""Count the n-grams of a stream of tokens in one pass: each chunk by itself, the chunks merged as in a merge sort.

Counts are a trie. An n-gram is its prefix (the same without its last token) and its last token, and has the number
code = id of the prefix * vocab + token; its own id is the place of its code among those of its order, sorted. The id
of a single token is the token. So n-grams of any order are sorted arrays of int64, and memory holds a chunk and the
counts themselves.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

CHUNK = 1 << 22
"""Tokens that are counted at once."""

Ints = NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class Counts:
    """How often each n-gram occurs, for each n up to the order."""

    unigrams: Ints
    """(vocab,): of each token but the first, which is given."""
    codes: tuple[Ints, ...]
    """Of the n-grams of order 2, 3, ..., sorted."""
    counts: tuple[Ints, ...]
    """Of each of these."""

    @property
    def vocab_size(self) -> int:
        """Tokens that it tells apart."""
        return len(self.unigrams)

    @property
    def order(self) -> int:
        """Tokens of the longest n-grams."""
        return 1 + len(self.codes)

    def of_order(self, order: int) -> Ints:
        """The counts of the n-grams of an order from 1 on, by their ids."""
        return self.counts[order - 2] if order > 1 else self.unigrams


def count_ngrams(
    tokens: NDArray[np.integer],
    order: int,
    vocab_size: int,
    *,
    cut_at: int | None = None,
    chunk: int = CHUNK,
    progress: Callable[[int], None] = lambda counted: None,
) -> Counts:
    """Count the n-grams of tokens (any integer type, may be memory-mapped; two or more).

    cut_at: the token between documents: an n-gram may begin and end with it, but not hold it inside, so that no
    document is the context of another. None counts across them. progress: called with the tokens counted so far.
    """
    runs: list[Counts] = []
    for start in range(1, len(tokens), chunk):
        first = max(0, start - (order - 1))
        part = np.asarray(tokens[first : start + chunk], dtype=np.int64)
        runs.append(_count(part, start - first, order, vocab_size, cut_at))
        progress(min(start + chunk, len(tokens)) - 1)
        while len(runs) > 1 and _size(runs[-2]) <= 2 * _size(runs[-1]):
            runs.append(_merge(runs.pop(), runs.pop()))
    while len(runs) > 1:
        runs.append(_merge(runs.pop(), runs.pop()))
    return runs[0]


def find(codes: Ints, wanted: Ints) -> Ints:
    """Place of each wanted code among sorted ones, -1 where it isn't there; any shape."""
    if not len(codes):
        return np.full(wanted.shape, -1)
    at = np.minimum(np.searchsorted(codes, wanted), len(codes) - 1)
    return np.where(codes[at] == wanted, at, -1)


def _count(part: Ints, n_given: int, order: int, vocab_size: int, cut_at: int | None) -> Counts:
    """Counts of the n-grams that end after the first n_given tokens; those that end in them are listed, for they may
    be prefixes, but not counted."""
    places = np.arange(len(part))
    cuts = np.where(part == cut_at, places, 0) if cut_at is not None else np.zeros_like(places)
    # tokens of the longest n-gram that ends at each place; where it begins before the part, that is longer than order
    reach = places - np.maximum.accumulate(np.concatenate([[0], cuts[:-1]])) + 1
    counted = places >= n_given
    codes, counts = [], []
    ids = part
    for n in range(2, order + 1):
        ends = np.flatnonzero(reach >= n)
        found, inverse, n_found = _distinct(ids[ends - 1] * vocab_size + part[ends], counted[ends])
        ids = np.full(len(part), -1)
        ids[ends] = inverse
        codes.append(found)
        counts.append(n_found)
    return Counts(np.bincount(part[n_given:], minlength=vocab_size), tuple(codes), tuple(counts))


def _distinct(codes: Ints, counted: NDArray[np.bool_]) -> tuple[Ints, Ints, Ints]:
    """The different codes, sorted; which of them each code is; how many of each are counted."""
    span = int(codes.max(initial=0)) + 1
    if span <= 4 * len(codes):  # a table of all codes is small: no need to sort
        present = np.zeros(span, np.bool_)
        present[codes] = True
        found = np.flatnonzero(present)
        inverse = (np.cumsum(present) - 1)[codes]
    else:
        found, inverse = np.unique(codes, return_inverse=True)
    return found, inverse, np.bincount(inverse[counted], minlength=len(found))


def _size(counts: Counts) -> int:
    return sum(map(len, counts.codes))


def _merge(one: Counts, other: Counts) -> Counts:
    """Both together."""
    vocab_size = one.vocab_size
    codes, counts = [], []
    new_ids = [np.arange(vocab_size)] * 2  # of the prefixes of each
    for n in range(2, one.order + 1):
        # ids grow with codes in all three, so codes stay sorted when their prefixes get new ids
        both = [
            ids[given // vocab_size] * vocab_size + given % vocab_size
            for ids, given in zip(new_ids, (one.codes[n - 2], other.codes[n - 2]), strict=True)
        ]
        together = np.concatenate(both)
        order = np.argsort(together, kind="stable")  # merges two sorted runs
        together = together[order]
        starts = np.flatnonzero(np.diff(together, prepend=-1))
        codes.append(together[starts])
        together_counts = np.concatenate([one.of_order(n), other.of_order(n)])[order]
        counts.append(np.add.reduceat(together_counts, starts) if len(starts) else together_counts)
        new_ids = [np.searchsorted(codes[-1], given) for given in both]
    return Counts(one.unigrams + other.unigrams, tuple(codes), tuple(counts))
