"""From counts to probabilities: what each n-gram adds, and how much weight is left to the next shorter context.

All methods end in one form. With h the context, h' the same without its first token, and h' ... down to no context,

    p(w | h) = share(h w) + weight(h) p(w | h')        (interpolated; a context that was never seen has weight 1)
    p(w | h) = share(h w) + weight(h) base(w)          (add_k and mle: the longest context alone)

kneser_ney    interpolated modified Kneser-Ney, three discounts for each order (Chen and Goodman 1999, section 3),
              estimated as KenLM does (Heafield et al. 2013); the unigrams are interpolated with the uniform.
witten_bell   interpolated (Witten and Bell 1991, method C; Chen and Goodman 1999, section 2.5); the unigrams are
              add-one, which is the same method with the uniform where every token was seen.
add_k         (c(h w) + k) / (c(h) + k vocab).
mle           c(h w) / c(h): what was never seen has probability 0. A context that was never seen: uniform.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from lmexp.models.ngram_counts import Counts, Ints, find

Floats = NDArray[np.float64]

FALLBACK_DISCOUNTS = (0.5, 1.0, 1.5)
"""Of n-grams seen once, twice, more often, where there are too few of some to estimate from: KenLM's."""


@dataclass(frozen=True, slots=True)
class Probabilities:
    """All that tells p(w | h)."""

    base: Floats
    """(vocab,): p(w) without a context."""
    codes: tuple[Ints, ...]
    """Of the n-grams of order 2, 3, ..., sorted; see ngram_counts."""
    shares: tuple[Floats, ...]
    """Of each of these."""
    weights: tuple[Floats, ...]
    """Of their contexts, by id: (vocab,) for order 2, then one for each n-gram of the order below."""
    discounts: tuple[tuple[float, float, float], ...] = ()
    """Of each order from 1 on, with kneser_ney."""
    guessed: tuple[int, ...] = ()
    """Orders whose discounts couldn't be estimated and are FALLBACK_DISCOUNTS."""


def smooth(counts: Counts, smoothing: str, *, k: float = 1.0) -> Probabilities:
    """Probabilities by the named method; k is read with add_k."""
    if smoothing == "kneser_ney":
        return kneser_ney(counts)
    if smoothing == "witten_bell":
        return witten_bell(counts)
    return add_k(counts, k if smoothing == "add_k" else 0.0)


def kneser_ney(counts: Counts) -> Probabilities:
    """Interpolated modified Kneser-Ney.

    Below the highest order an n-gram counts as often as different tokens precede it; one that nothing precedes, such
    as those at the beginning of a document, as often as it occurs.
    """
    adjusted = [_adjusted(counts, n) for n in range(1, counts.order)] + [counts.of_order(counts.order)]
    estimated = [_discounts(of_order) for of_order in adjusted]
    discounts = tuple(FALLBACK_DISCOUNTS if found is None else found for found in estimated)
    parts = [
        _discounted(of_order, _prefixes(counts, n), _n_contexts(counts, n), discounts[n - 1])
        for n, of_order in enumerate(adjusted, start=1)
    ]
    shares, weights = [share for share, _ in parts], [weight for _, weight in parts]
    return Probabilities(
        base=shares[0] + weights[0][0] / counts.vocab_size,
        codes=counts.codes,
        shares=tuple(shares[1:]),
        weights=tuple(weights[1:]),
        discounts=discounts,
        guessed=tuple(n for n, found in enumerate(estimated, start=1) if found is None),
    )


def witten_bell(counts: Counts) -> Probabilities:
    """A context leaves as much weight as different tokens were seen after it."""

    def leave(n_after: Ints, n_kinds: Ints) -> tuple[Floats, Floats]:
        total: Floats = (n_after + n_kinds).astype(np.float64)
        return total, np.divide(n_kinds, total, out=np.ones(len(total)), where=total > 0)

    base = (counts.unigrams + 1) / (counts.unigrams.sum() + counts.vocab_size)
    return _relative(counts, base, leave)


def add_k(counts: Counts, k: float) -> Probabilities:
    """k is added to the count of every token after a context; 0 is maximum likelihood."""
    added = k * counts.vocab_size

    def leave(n_after: Ints, n_kinds: Ints) -> tuple[Floats, Floats]:
        total: Floats = n_after + np.float64(added)
        return total, np.divide(added, total, out=np.ones(len(total)), where=n_after > 0)

    base = np.full(counts.vocab_size, 1 / counts.vocab_size)
    if counts.order == 1:
        base = (counts.unigrams + k) / (counts.unigrams.sum() + added)
    return _relative(counts, base, leave)


def _relative(counts: Counts, base: Floats, leave: Callable[[Ints, Ints], tuple[Floats, Floats]]) -> Probabilities:
    """Shares are counts over a total of their context. leave: tokens, and different ones, seen after each context ->
    that total, and the weight that is left."""
    shares: list[Floats] = []
    weights: list[Floats] = []
    for n in range(2, counts.order + 1):
        prefixes, of_order, n_contexts = _prefixes(counts, n), counts.of_order(n), _n_contexts(counts, n)
        n_after = np.bincount(prefixes, of_order, n_contexts).astype(np.int64)
        total, weight = leave(n_after, np.bincount(prefixes, minlength=n_contexts))
        shares.append(of_order / total[prefixes])
        weights.append(weight)
    return Probabilities(base=base, codes=counts.codes, shares=tuple(shares), weights=tuple(weights))


def _prefixes(counts: Counts, n: int) -> Ints:
    """Id of the prefix of each n-gram of an order; the context of a single token is the only one there."""
    return counts.codes[n - 2] // counts.vocab_size if n > 1 else np.zeros(counts.vocab_size, np.int64)


def _n_contexts(counts: Counts, n: int) -> int:
    return len(counts.of_order(n - 1)) if n > 1 else 1


def _adjusted(counts: Counts, n: int) -> Ints:
    """How many different tokens precede each n-gram of an order below the highest; its count where none does."""
    n_before = np.bincount(_suffixes(counts, n + 1), minlength=len(counts.of_order(n)))
    return np.where(n_before > 0, n_before, counts.of_order(n))


def _suffixes(counts: Counts, n: int) -> Ints:
    """Id of each n-gram of an order without its first token, n from 2 on."""
    found = counts.codes[0] % counts.vocab_size
    for codes, shorter in zip(counts.codes[1 : n - 1], counts.codes, strict=False):
        prefixes, last = np.divmod(codes, counts.vocab_size)
        found = find(shorter, found[prefixes] * counts.vocab_size + last)
    return found


def _discounts(counts: Ints) -> tuple[float, float, float] | None:
    """Chen and Goodman's estimate from how many n-grams have count 1, 2, 3 and 4; None where it isn't defined."""
    n1, n2, n3, n4 = (int(found) for found in np.bincount(np.minimum(counts, 5), minlength=5)[1:5])
    if not (n1 and n2 and n3):
        return None
    y = n1 / (n1 + 2 * n2)
    found = 1 - 2 * y * n2 / n1, 2 - 3 * y * n3 / n2, 3 - 4 * y * n4 / n3
    return found if all(0 <= discount <= i for i, discount in enumerate(found, start=1)) else None


def _discounted(
    counts: Ints, prefixes: Ints, n_contexts: int, discounts: tuple[float, float, float]
) -> tuple[Floats, Floats]:
    """Share of each n-gram, and the weight that the discounts leave to each context."""
    taken = np.array([0.0, *discounts])[np.minimum(counts, 3)]
    total = np.bincount(prefixes, counts, n_contexts)
    left = np.bincount(prefixes, taken, n_contexts)
    weights = np.divide(left, total, out=np.ones(n_contexts), where=total > 0)
    return (counts - taken) / np.maximum(total, 1)[prefixes], weights
