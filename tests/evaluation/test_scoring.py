from __future__ import annotations

import math
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from lmexp.errors import ConfigError
from lmexp.evaluation.scoring import Requests, cut, encode_pairs, score_pieces
from tests.evaluation.asking import TOKENIZER, VOCAB, Uniform, context
from tests.evaluation.asking import model as small_model

EOS = TOKENIZER.eos_id


def likelihoods(
    pairs: list[tuple[str, str]], *, batch_size: int = 4, model: nn.Module | None = None, length: int = 64, **how: Any
) -> Any:
    import pyarrow as pa

    requests = Requests(TOKENIZER, pairs, max_length=length, **how)
    given = context(model or small_model(length))
    with torch.no_grad():
        tables = [requests.score(given, numbers) for numbers in requests.batches(batch_size)]
    return requests.likelihoods(pa.concat_tables(tables).sort_by("order"))


def by_hand(tokens: list[int], n_scored: int, model: nn.Module | None = None) -> list[float]:
    """Log-probability of each of the last tokens."""
    with torch.no_grad():
        found = (model or small_model(64))(torch.tensor([tokens[:-1]])).double().log_softmax(dim=-1)[0]
    return [float(found[i, tokens[i + 1]]) for i in range(len(tokens) - 1 - n_scored, len(tokens) - 1)]


def test_a_continuation_is_scored_after_eos_and_its_context() -> None:
    found = likelihoods([("abc", " dé")])
    tokens = [EOS, *TOKENIZER.encode("abc dé")]
    assert found.logprobs[0] == pytest.approx(by_hand(tokens, 4), abs=1e-5)
    assert found.logprob[0] == pytest.approx(sum(by_hand(tokens, 4)), abs=1e-5)
    assert found.n_tokens[0] == 4


def test_begin_nothing_shows_eos_before_an_empty_context_only() -> None:
    found = likelihoods([("abc", " d"), ("", "abc"), ("  ", "abc")], begin="nothing")
    assert found.logprobs[0] == pytest.approx(by_hand(TOKENIZER.encode("abc d"), 2), abs=1e-5)
    assert found.logprobs[1] == pytest.approx(by_hand([EOS, *TOKENIZER.encode("abc")], 3), abs=1e-5)
    assert found.n_tokens[2] == 5  # spaces go to the continuation


def test_spaces_at_the_end_of_a_context_go_to_the_continuation() -> None:
    moved, plain = likelihoods([("abc ", "d")]), likelihoods([("abc", " d")])
    assert moved.logprob[0] == plain.logprob[0]


def test_long_contexts_are_cut_on_the_left() -> None:
    requests = Requests(TOKENIZER, [("x" * 100, "abc"), ("y", "abc")], max_length=10)
    assert requests.n_cut == 1
    assert requests.pieces[0].tokens.tolist() == [*TOKENIZER.encode("x" * 8), *TOKENIZER.encode("abc")]
    assert requests.pieces[0].n_scored == 3
    fits, longer = (Requests(TOKENIZER, [("x" * n, "abc")], max_length=10).n_cut for n in (7, 8))
    assert (fits, longer) == (0, 1)  # <eos>, 7 and 3 tokens: the last is not read


@pytest.mark.parametrize("n", [10, 11, 25, 30])
def test_a_continuation_longer_than_the_model_reads_is_scored_once_in_several_pieces(n: int) -> None:
    context_tokens, tokens = np.array([100, 101]), np.arange(n)
    pieces = cut(context_tokens, tokens, 10)
    assert np.concatenate([piece.tokens[-piece.n_scored :] for piece in pieces]).tolist() == tokens.tolist()
    assert all(len(piece.tokens) <= 11 and piece.n_scored < len(piece.tokens) for piece in pieces)
    assert len(likelihoods([("ab", "c" * n)], length=10).logprobs[0]) == n


@pytest.mark.parametrize("batch_size", [1, 8, 32])
def test_batches_change_nothing(batch_size: int) -> None:
    pairs = [("a" * (i % 7), "bc" * (1 + i % 5) + str(i)) for i in range(40)]
    one, other = likelihoods(pairs, batch_size=3), likelihoods(pairs, batch_size=batch_size)
    assert np.abs(one.logprob - other.logprob).max() < 1e-5
    assert one.n_first.tolist() == other.n_first.tolist()


def test_a_batch_depends_on_requests_and_batch_size_alone_and_begins_with_the_longest() -> None:
    requests = Requests(TOKENIZER, [("a" * i, "b") for i in range(10)], max_length=64)
    batches = requests.batches(4)
    lengths = [len(requests.pieces[n].tokens) for numbers in batches for n in numbers]
    assert lengths == sorted(lengths, reverse=True)
    assert [len(numbers) for numbers in batches] == [4, 4, 2]


def test_equal_requests_are_scored_once() -> None:
    requests = Requests(TOKENIZER, [("a", "b"), ("a", "c"), ("a", "b")], max_length=64)
    assert len(requests.pieces) == 2
    found = likelihoods([("a", "b"), ("a", "c"), ("a", "b")])
    assert found.logprob[0] == found.logprob[2] != found.logprob[1]


def test_a_uniform_model_finds_every_token_as_likely() -> None:
    found = likelihoods([("abc", "de")], model=Uniform())
    assert found.logprob[0] == pytest.approx(-2 * math.log(VOCAB), rel=1e-6)


def test_first_choices_are_counted() -> None:
    class Next(nn.Module):
        """Sure that t is followed by t + 1."""

        def forward(self, tokens: Tensor) -> Tensor:
            return nn.functional.one_hot((tokens + 1) % VOCAB, VOCAB).float()

    assert likelihoods([("a", "bcd"), ("a", "bxd")], model=Next()).n_first.tolist() == [3, 1]


def test_half_precision_logits_become_float32_first() -> None:
    class Half(Uniform):
        def forward(self, tokens: Tensor) -> Tensor:
            return super().forward(tokens).to(torch.bfloat16)

    assert likelihoods([("a", "b")], model=Half()).logprob[0] == pytest.approx(-math.log(VOCAB), rel=1e-6)


def test_a_token_that_reaches_over_the_border_is_not_taken_from_the_context() -> None:
    """lm-eval would score nothing, or another text."""
    table = {"a": [1], "b": [2], "ab": [3], "abb": [3, 2], "bb": [2, 2]}
    tokenizer: Any = SimpleNamespace(encode_batch=lambda texts: [table[text] for text in texts])
    found = encode_pairs(tokenizer, [("a", "b"), ("a", "bb"), ("ab", "b")])
    assert [(before.tolist(), after.tolist()) for before, after in found] == [([1], [2]), ([1], [2, 2]), ([3], [2])]


def test_wrong_logits_are_refused_with_what_was_expected() -> None:
    pieces = Requests(TOKENIZER, [("a", "b")], max_length=64).pieces

    class Last(nn.Module):
        def forward(self, tokens: Tensor) -> Tensor:
            return torch.zeros(len(tokens), VOCAB)

    class Few(nn.Module):
        def forward(self, tokens: Tensor) -> Tensor:
            return torch.zeros(*tokens.shape, 5)

    with pytest.raises(ConfigError, match=r"expected logits of shape .*got \(1, 257\)"):
        score_pieces(context(Last()), pieces)
    with pytest.raises(ConfigError, match=r"token id \d+, but the model gives logits for only 5 tokens"):
        score_pieces(context(Few()), pieces)
