"""Unigram and bigram models fitted by counting, in bounded memory.

unigram: add-one (Laplace), p(w) = (c(w) + 1) / (N + V).
bigram: interpolated with the unigram by Witten and Bell (1991, method C; Chen and Goodman 1999, section 2.5):
    p(w | h) = (c(h, w) + T(h) p(w)) / (c(h) + T(h)), with T(h) the number of different tokens seen after h,
    and p(w | h) = p(w) for an h that was never seen.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

CHUNK = 1 << 22
"""Tokens that are counted at once."""

Ints = NDArray[np.int64]
Floats = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Unigram:
    """Probability of each token, (vocab,)."""

    probabilities: Floats

    def probability(self, tokens: NDArray[np.integer]) -> Floats:
        """p(token) of each."""
        found: Floats = self.probabilities[tokens]
        return found


@dataclass(frozen=True, slots=True)
class Bigram:
    """Counts of the pairs that were seen, sorted by code = previous * vocab + token."""

    unigram: Unigram
    codes: Ints
    counts: Ints
    n_after: Ints
    """(vocab,) pairs that start with each token."""
    n_kinds: Ints
    """(vocab,) different tokens seen after each token."""

    def probability(self, previous: NDArray[np.integer], tokens: NDArray[np.integer]) -> Floats:
        """p(token | previous) of each pair."""
        codes = pair_codes(previous, tokens, len(self.n_after))
        at = np.minimum(np.searchsorted(self.codes, codes), len(self.codes) - 1)
        seen = np.where(self.codes[at] == codes, self.counts[at], 0)
        n_after, n_kinds = self.n_after[previous], self.n_kinds[previous]
        back_off = self.unigram.probability(tokens)
        # never seen: n_after = n_kinds = 0, and all of the weight falls to the unigram
        weight = np.where(n_after == 0, 1, n_kinds)
        found: Floats = (seen + weight * back_off) / (n_after + weight)
        return found


def fit_unigram(tokens: NDArray[np.integer], vocab_size: int, *, chunk: int = CHUNK) -> Unigram:
    """Count the tokens (any integer type, may be memory-mapped)."""
    counts = np.zeros(vocab_size, dtype=np.int64)
    for start in range(0, len(tokens), chunk):
        counts += np.bincount(tokens[start : start + chunk], minlength=vocab_size)
    return Unigram((counts + 1) / (len(tokens) + vocab_size))


def fit_bigram(tokens: NDArray[np.integer], vocab_size: int, *, chunk: int = CHUNK) -> Bigram:
    """Count the pairs of neighbours, and for the unigram the second of each: the first token is given, an <eos>.

    There must be two tokens or more.
    """
    codes, counts = count_pairs(tokens, vocab_size, chunk=chunk)
    previous = codes // vocab_size
    return Bigram(
        unigram=fit_unigram(tokens[1:], vocab_size, chunk=chunk),
        codes=codes,
        counts=counts,
        n_after=np.bincount(previous, weights=counts, minlength=vocab_size).astype(np.int64),
        n_kinds=np.bincount(previous, minlength=vocab_size),
    )


def count_pairs(tokens: NDArray[np.integer], vocab_size: int, *, chunk: int = CHUNK) -> tuple[Ints, Ints]:
    """Codes of the pairs that occur, sorted, and how often each does.

    Runs of about equal length are merged, as in a merge sort, so that a pair is copied only a few times.
    """
    runs: list[tuple[Ints, Ints]] = []
    for start in range(0, len(tokens) - 1, chunk):
        part = tokens[start : start + chunk + 1]
        runs.append(_count(pair_codes(part[:-1], part[1:], vocab_size), vocab_size))
        while len(runs) > 1 and len(runs[-2][0]) <= 2 * len(runs[-1][0]):
            runs.append(_merge(runs.pop(), runs.pop()))
    while len(runs) > 1:
        runs.append(_merge(runs.pop(), runs.pop()))
    return runs[0]


def pair_codes(previous: NDArray[np.integer], tokens: NDArray[np.integer], vocab_size: int) -> Ints:
    """One number for each pair."""
    return previous.astype(np.int64) * vocab_size + tokens


def _count(codes: Ints, vocab_size: int) -> tuple[Ints, Ints]:
    if vocab_size**2 <= 4 * len(codes):  # a table of all pairs is small: no need to sort
        table = np.bincount(codes, minlength=vocab_size**2)
        present = np.flatnonzero(table)
        return present, table[present]
    present, counts = np.unique(codes, return_counts=True)
    return present, counts


def _merge(one: tuple[Ints, Ints], other: tuple[Ints, Ints]) -> tuple[Ints, Ints]:
    codes = np.concatenate([one[0], other[0]])
    counts = np.concatenate([one[1], other[1]])
    order = np.argsort(codes, kind="stable")  # merges two sorted runs
    codes, counts = codes[order], counts[order]
    starts = np.flatnonzero(np.diff(codes, prepend=-1))
    return codes[starts], np.add.reduceat(counts, starts)
