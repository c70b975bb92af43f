from collections import Counter

import numpy as np
import pytest

from lmexp.models.ngram_counts import Counts, count_ngrams

EOS = 0


def as_dictionaries(counts: Counts) -> list[dict[tuple[int, ...], int]]:
    """The n-grams of each order as tuples, with their counts."""
    names: list[tuple[int, ...]] = [(token,) for token in range(counts.vocab_size)]
    found = [{name: int(n) for name, n in zip(names, counts.unigrams, strict=True) if n}]
    for codes, numbers in zip(counts.codes, counts.counts, strict=True):
        assert (np.diff(codes) > 0).all()
        names = [(*names[code // counts.vocab_size], code % counts.vocab_size) for code in codes.tolist()]
        found.append({name: int(n) for name, n in zip(names, numbers, strict=True)})
    return found


def counted(tokens: list[int], order: int, cut_at: int | None) -> list[Counter[tuple[int, ...]]]:
    """The same with Python's own counters: all n-grams but those that hold cut_at inside."""
    windows = [[tuple(tokens[i : i + n]) for i in range(len(tokens) - n + 1)] for n in range(1, order + 1)]
    windows[0] = windows[0][1:]  # the first token is given
    return [Counter(one for one in of_order if cut_at not in one[1:-1]) for of_order in windows]


@pytest.mark.parametrize("chunk", [1, 2, 3, 7, 64, 1000])
@pytest.mark.parametrize("cut_at", [None, EOS])
@pytest.mark.parametrize("vocab_size", [6, 60_000])
def test_counts_equal_counting_one_by_one_whatever_the_chunk(chunk: int, cut_at: int | None, vocab_size: int) -> None:
    tokens = np.random.default_rng(chunk).integers(0, 6, 400, dtype=np.uint16)
    tokens[0] = EOS
    seen: list[int] = []
    found = count_ngrams(tokens, 5, vocab_size, cut_at=cut_at, chunk=chunk, progress=seen.append)
    assert as_dictionaries(found) == [dict(one) for one in counted(tokens.tolist(), 5, cut_at)]
    assert seen[-1] == 399
    assert seen == sorted(seen)


@pytest.mark.parametrize("tokens", [[0, 1], [0, 0], [0, 3, 0]])
def test_texts_that_are_shorter_than_the_order_are_counted(tokens: list[int]) -> None:
    found = count_ngrams(np.array(tokens), 4, 5, cut_at=EOS)
    assert as_dictionaries(found) == [dict(one) for one in counted(tokens, 4, EOS)]
