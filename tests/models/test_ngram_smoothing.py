"""Probabilities against nltk's, and against modified Kneser-Ney written down with dictionaries."""

from __future__ import annotations

import dataclasses
import itertools
import math
from collections import Counter, defaultdict
from collections.abc import Sequence
from typing import Any

import nltk.lm
import numpy as np
import pytest
import torch
from nltk.util import everygrams

from lmexp.models import ngram_smoothing
from lmexp.models.config import SMOOTHINGS, NGramConfig
from lmexp.models.ngram import NGram
from lmexp.models.ngram_counts import count_ngrams
from lmexp.models.ngram_smoothing import FALLBACK_DISCOUNTS, smooth, witten_bell

EOS, VOCAB = 0, 7


def fitted(tokens: Sequence[int], vocab_size: int, **settings: Any) -> NGram:
    model = NGram(NGramConfig(**settings), vocab_size=vocab_size)
    model.fit(np.array(tokens), eos_id=EOS)
    return model


def probability(model: NGram, *tokens: int) -> float:
    """p(last token | those before it)."""
    return float(model(torch.tensor([tokens[:-1]]))[0, -1, tokens[-1]].double().exp())


def random_stream(n_documents: int = 60, seed: int = 0) -> list[int]:
    """Documents of 0 to 8 tokens, small ones more often, each ended by EOS; and the EOS before them."""
    generator = np.random.default_rng(seed)
    documents = [
        generator.geometric(0.4, generator.integers(0, 9)).clip(1, VOCAB - 2).tolist() for _ in range(n_documents)
    ]
    return [EOS, *(token for document in documents for token in (*document, EOS))]


class NltksTest:
    """The data of nltk's own tests (nltk/test/unit/lm/test_models.py): <s> and </s> are tokens, e and g unknown."""

    words = ("a", "b", "c", "d", "z", "<s>", "</s>", "<UNK>")
    sentences = ("a b c d", "<UNK> <UNK> a d b <UNK>")

    @classmethod
    def ids(cls, *words: str) -> list[int]:
        return [cls.words.index(word) for word in words]

    @classmethod
    def perplexity(cls, pairs: list[tuple[str, str]], **settings: Any) -> float:
        text = [word for one in cls.sentences for word in ("<s>", *one.split(), "</s>")]
        model = fitted(cls.ids(*text), len(cls.words), order=2, across_documents=True, **settings)
        logprobs = [float(model(torch.tensor([cls.ids(previous)]))[0, 0, cls.ids(word)[0]]) for previous, word in pairs]
        return math.exp(-sum(logprobs) / len(logprobs))


SEEN = [("<s>", "a"), ("a", "b"), ("b", "<UNK>"), ("<UNK>", "a"), ("a", "d"), ("d", "</s>")]
OTHER = [("<s>", "a"), ("a", "c"), ("c", "<UNK>"), ("<UNK>", "d"), ("d", "c"), ("c", "</s>")]


def test_golden_figures_of_nltks_tests() -> None:
    assert NltksTest.perplexity(SEEN, smoothing="mle") == pytest.approx(2.1398, abs=1e-4)
    assert math.log2(NltksTest.perplexity(SEEN, smoothing="mle")) == pytest.approx(1.0975, abs=1e-4)
    assert NltksTest.perplexity([("<s>", "a"), ("a", "c")], smoothing="mle") == math.inf  # unseen
    assert NltksTest.perplexity(OTHER, smoothing="add_k") == pytest.approx(8.7393, abs=1e-4)
    assert NltksTest.perplexity(OTHER, smoothing="add_k", k=0.1) == pytest.approx(17.0504, abs=1e-4)


def test_golden_figure_of_nltks_unigrams() -> None:
    text = [word for one in NltksTest.sentences for word in ("<s>", *one.split(), "</s>")]
    # nltk predicts the first <s> too, so here a token stands before it
    model = fitted([0, *NltksTest.ids(*text)], len(NltksTest.words), order=1, smoothing="mle")
    seen = NltksTest.ids("<s>", "a", "b", "<UNK>", "d", "</s>")
    asked = model(torch.zeros(1, 1, dtype=torch.int64))[0, 0, seen]
    reference = nltk.lm.MLE(1, nltk.lm.Vocabulary(NltksTest.words, unk_cutoff=1))
    reference.fit([[(word,) for word in text]])
    expected = [reference.score(NltksTest.words[one]) for one in seen]
    np.testing.assert_allclose(asked.exp().numpy(), expected, rtol=1e-6)
    text_of_the_test = NltksTest.ids("<s>", "a", "c", "<UNK>", "d", "c", "</s>")
    logprobs = model(torch.zeros(1, 1, dtype=torch.int64))[0, 0, text_of_the_test]
    assert float((-logprobs.mean()).exp()) == pytest.approx(8.0529, abs=1e-4)


def nltk_model(kind: Any, tokens: list[int], order: int, **settings: Any) -> Any:
    """An nltk model of the n-grams of a stream, without padding; its first token alone isn't counted."""
    model = kind(order=order, vocabulary=nltk.lm.Vocabulary([*map(str, range(VOCAB)), *map(str, range(VOCAB))]))
    for name, value in settings.items():
        setattr(model.estimator, name, value)
    grams = [tuple(map(str, one)) for one in everygrams(tokens, max_len=order)]
    model.fit([[one for one in grams if len(one) > 1 or one is not grams[0]]])
    return model


def contexts(order: int) -> list[tuple[int, ...]]:
    return list(itertools.product(range(VOCAB), repeat=order - 1))


@pytest.mark.parametrize("order", [2, 3])
def test_witten_bell_equals_nltks_with_nltks_unigrams(order: int) -> None:
    """nltk's unigrams are relative frequencies, lmexp's are add-one: the rest is the same."""
    tokens = random_stream()
    model = fitted(tokens, VOCAB, order=order, smoothing="witten_bell", across_documents=True)
    model.base = torch.from_numpy(np.bincount(tokens[1:], minlength=VOCAB) / (len(tokens) - 1))
    reference = nltk_model(nltk.lm.WittenBellInterpolated, tokens, order)
    for context in contexts(order):
        for token in range(VOCAB - 1):  # nltk has no answer for a token that it never saw
            expected = reference.unmasked_score(str(token), tuple(map(str, context)))
            assert probability(model, *context, token) == pytest.approx(expected, rel=1e-5, abs=1e-9)


@pytest.mark.parametrize("order", [2, 3])
def test_kneser_ney_equals_nltks_with_nltks_one_discount(order: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """nltk has one discount for all orders and counts, none for the unigrams; lmexp estimates three for each."""
    discounts = iter([(0.0, 0.0, 0.0), *[(0.3, 0.3, 0.3)] * (order - 1)])
    monkeypatch.setattr(ngram_smoothing, "_discounts", lambda counts: next(discounts))
    tokens = random_stream()
    tokens += tokens[:3]  # so that something precedes each n-gram below the highest order
    model = fitted(tokens, VOCAB, order=order, across_documents=True)
    reference = nltk_model(nltk.lm.KneserNeyInterpolated, tokens, order, discount=0.3)
    for context in contexts(order):
        for token in range(VOCAB - 1):
            expected = reference.unmasked_score(str(token), tuple(map(str, context)))
            assert probability(model, *context, token) == pytest.approx(expected, rel=1e-5, abs=1e-9)


class Reference:
    """Interpolated modified Kneser-Ney of sentences as Chen and Goodman and KenLM have it, with dictionaries."""

    def __init__(self, tokens: list[int], order: int) -> None:
        self.order = order
        cut = [
            Counter(
                gram
                for i in range(len(tokens) - n + 1)
                if EOS not in (gram := tuple(tokens[i : i + n]))[1:-1] and (n > 1 or i > 0)
            )
            for n in range(1, order + 1)
        ]
        self.counts = []
        for n in range(1, order):
            before: dict[tuple[int, ...], set[int]] = defaultdict(set)
            for gram in cut[n]:
                before[gram[1:]].add(gram[0])
            self.counts.append({g: len(before[g]) if before[g] else c for g, c in cut[n - 1].items()})
        self.counts.append(dict(cut[-1]))
        self.discounts = [self.estimate(counts) for counts in self.counts]

    @staticmethod
    def estimate(counts: dict[tuple[int, ...], int]) -> list[float]:
        n = Counter(counts.values())
        if not (n[1] and n[2] and n[3]):  # as for the unigrams, each of which follows on many tokens
            return [0.0, *FALLBACK_DISCOUNTS]
        y = n[1] / (n[1] + 2 * n[2])
        return [0.0, 1 - 2 * y * n[2] / n[1], 2 - 3 * y * n[3] / n[2], 3 - 4 * y * n[4] / n[3]]

    def p(self, context: tuple[int, ...], token: int) -> float:
        n = len(context) + 1
        lower = self.p(context[1:], token) if context else 1 / VOCAB
        counts, discounts = self.counts[n - 1], self.discounts[n - 1]
        after = {gram[-1]: c for gram, c in counts.items() if gram[:-1] == context}
        if not after:
            return lower
        total, taken = sum(after.values()), {t: discounts[min(c, 3)] for t, c in after.items()}
        return (after.get(token, 0) - taken.get(token, 0)) / total + sum(taken.values()) / total * lower


def test_kneser_ney_equals_the_reference_for_every_context() -> None:
    tokens = random_stream(120, 1)
    model, reference = fitted(tokens, VOCAB, order=3), Reference(tokens, 3)
    assert [d == [0.0, *FALLBACK_DISCOUNTS] for d in reference.discounts] == [True, False, False]
    for first, second in contexts(3):
        # beyond an <eos> nothing is looked at
        context = (second,) if second == EOS else (first, second)
        for token in range(VOCAB):
            expected = reference.p(context, token)
            assert probability(model, first, second, token) == pytest.approx(expected, rel=1e-5)


def test_discounts_that_cannot_be_estimated_are_said_to_be_guessed() -> None:
    found = smooth(count_ngrams(np.array([EOS, 1, 2, EOS]), 2, 3, cut_at=EOS), "kneser_ney")
    assert found.guessed == (1, 2)
    assert found.discounts == (FALLBACK_DISCOUNTS, FALLBACK_DISCOUNTS)


@pytest.mark.parametrize("smoothing", SMOOTHINGS)
@pytest.mark.parametrize("order", [1, 2, 4])
@pytest.mark.parametrize("across", [False, True])
def test_probabilities_sum_to_one_after_every_context(smoothing: str, order: int, across: bool) -> None:
    tokens = random_stream(20)
    model = fitted(tokens, VOCAB, order=order, smoothing=smoothing, across_documents=across)
    asked = torch.cartesian_prod(*[torch.arange(VOCAB)] * 4)  # every context, seen and unseen
    sums = model(asked).double().exp().sum(dim=-1)
    torch.testing.assert_close(sums, torch.ones_like(sums), rtol=0, atol=1e-6)


def test_witten_bell_unigrams_are_add_one() -> None:
    counts = count_ngrams(np.array([EOS, 1, 1, EOS]), 2, 4)
    assert witten_bell(counts).base.tolist() == [2 / 7, 3 / 7, 1 / 7, 1 / 7]
    assert dataclasses.is_dataclass(counts)
