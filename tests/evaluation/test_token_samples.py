"""Samples made of tokens: their words, their texts, and their loss by position."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from lmexp.data.cache import TokenCache, prepare
from lmexp.data.config import JsonLinesConfig
from lmexp.evaluation.config import PerplexityConfig
from lmexp.evaluation.context import EvaluationContext
from lmexp.evaluation.perplexity import Perplexity
from lmexp.evaluation.samples import Samples
from lmexp.evaluation.token_plots import loss_by_position
from lmexp.evaluation.token_samples import word_starts
from lmexp.tokenizers.config import BPETokenizerConfig, ByteTokenizerConfig, TokenizerConfig
from tests.evaluation.tiny import EOS, TinyModel, make_cache, random_documents

TEXTS = [
    "one",
    " two words ",
    "é\u2003wide\u3000 spaces\u00a0",
    "\n\n\n many\n\nlines \n",
    "日本語 のテキスト " * 5,
    "a b c d e f g h i j k l m n o p q r s t u v w x y z " * 3,
    "\U0001f469\u200d\U0001f467 family",
]


def corpus(folder: Path, tokenizer: TokenizerConfig, n: int) -> TokenCache:
    """A test split of n documents."""
    texts = {"train": ["some words to learn from, é日本\u2003\u3000\u00a0"] * 20, "test": (TEXTS * n)[:n]}
    for name, documents in texts.items():
        (folder / f"{name}.jsonl").write_text("".join(json.dumps({"text": text}) + "\n" for text in documents))
    config = JsonLinesConfig(path=str(folder), pattern="train.jsonl", test_pattern="test.jsonl", validation_fraction=0)
    config.sequence_length = 7
    return prepare(config, tokenizer, cache_root=folder / "cache")


def measure(cache: Any, windows: str = "stream", length: int = 7, **config: Any) -> Samples:
    n_tokens = cache.tokenizer.vocab_size
    context = EvaluationContext(model=TinyModel(n_tokens), cache=cache, sequence_length=length, windows=windows)
    Perplexity(PerplexityConfig(**config)).run(context)
    return context.samples["perplexity"]


@pytest.mark.parametrize("tokenizer", [ByteTokenizerConfig(), BPETokenizerConfig(vocab_size=280)], ids=["byte", "bpe"])
@pytest.mark.parametrize("n", [7, 28], ids=["windows as samples", "documents as samples"])
@pytest.mark.parametrize("score_eos", [True, False])
def test_words_add_up_to_those_of_the_documents(
    tmp_path: Path, tokenizer: TokenizerConfig, n: int, score_eos: bool
) -> None:
    """As lm-eval counts, also where a window ends inside a word or inside a character."""
    cache = corpus(tmp_path, tokenizer, n)
    texts = (TEXTS * n)[:n]
    expected = [len(re.split(r"\s+", text)) for text in texts]
    for windows in ("stream", "packed", "padded"):
        samples = measure(cache, windows, score_eos=score_eos)
        found = samples.counts("n_words")
        assert found.sum() == sum(expected)
        if n >= 20:
            assert found.tolist() == expected
            assert samples.values("target") == texts
        else:
            assert samples.header.cluster == "window"
            assert len("".join(samples.values("target"))) >= sum(map(len, texts))
        assert samples.counts("n_bytes").sum() == sum(len(text.encode()) for text in texts)


@pytest.mark.parametrize("text", ["", " ", "a", *TEXTS])
def test_words_begin_where_lm_eval_splits(text: str) -> None:
    starts = word_starts(text).tolist()
    assert len(starts) == len(re.split(r"\s+", text))
    for start in starts[1:]:
        assert text.encode()[start:].decode()[0].isspace()


def test_the_first_tokens_of_a_text_have_the_words_that_begin_there(tmp_path: Path) -> None:
    cache = corpus(tmp_path, ByteTokenizerConfig(), 7)
    whole = measure(cache, max_tokens=20)
    texts = ["one", " two words ", "é\u2003"]  # 4 + 12 tokens with their <eos>; then 4 of the third document
    assert whole.counts("n_tokens").sum() == 20
    assert whole.counts("n_words").sum() == 1 + 4 + 1
    assert "".join(whole.values("target")).startswith("".join(texts[:2]) + "é")


@pytest.mark.parametrize("windows", ["stream", "packed", "padded"])
@pytest.mark.parametrize("n_documents", [5, 30])
def test_buckets_of_positions_hold_the_nats_of_their_tokens(tmp_path: Path, windows: str, n_documents: int) -> None:
    documents = random_documents(n_documents, 2)
    samples = measure(make_cache(tmp_path, {"test": documents}), windows, length=6)
    logprobs = np.concatenate(samples.values("logprobs"))
    if windows == "stream":
        seen = np.arange(len(logprobs)) % 6 + 1
    else:
        seen = np.concatenate([np.arange(len(document)) % 6 + 1 for document in documents])
    if windows == "packed" and n_documents < 20:  # a window holds several documents, not in their order
        assert np.sum(samples.values("position_tokens")) == len(logprobs)
        return
    found = loss_by_position(samples)
    for low, high, n, loss in zip(found.seen, [2, 4, 8], found.n_tokens, found.loss, strict=True):
        inside = (seen >= low) & (seen < high)
        assert n == inside.sum()
        assert loss == pytest.approx(-logprobs[inside].mean(), rel=1e-12)
    nats, n_tokens = (np.array(samples.values(f"position_{name}")) for name in ("nats", "tokens"))
    np.testing.assert_allclose(nats.sum(axis=1), -samples.numbers("logprob"), rtol=1e-12)
    np.testing.assert_array_equal(n_tokens.sum(axis=1), samples.counts("n_tokens"))


def test_the_curve_has_intervals_over_documents(tmp_path: Path) -> None:
    found = loss_by_position(measure(make_cache(tmp_path, {"test": random_documents(40, 2)}), "padded", length=64))
    assert found.seen.tolist() == [1, 2, 4, 8, 16]
    for loss, interval in zip(found.loss, found.intervals, strict=True):
        assert interval.low is not None and interval.high is not None
        assert interval.low < loss < interval.high
    alone = loss_by_position(measure(make_cache(tmp_path, {"test": [[1, 2, EOS]]})))
    assert alone.intervals[0].low is None
