from __future__ import annotations

import itertools
import math
from collections import Counter, defaultdict
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from lmexp.evaluation import baselines as module
from lmexp.evaluation.config import BaselinesConfig, PerplexityConfig
from lmexp.evaluation.context import EvaluationContext
from lmexp.evaluation.row import Row
from lmexp.evaluation.runner import run_evaluations
from tests.evaluation.tiny import EOS, VOCAB, TinyModel, evaluate, make_cache, random_documents, stream_of


class DictionaryBigram:
    """Witten-Bell with dictionaries, one pair at a time."""

    def __init__(self, tokens: list[int], vocab_size: int) -> None:
        self.counts = Counter(tokens[1:])
        self.n, self.vocab_size = len(tokens) - 1, vocab_size
        self.after: dict[int, Counter[int]] = defaultdict(Counter)
        for previous, token in pairwise(tokens):
            self.after[previous][token] += 1

    def unigram(self, token: int) -> float:
        return (self.counts[token] + 1) / (self.n + self.vocab_size)

    def bigram(self, previous: int, token: int) -> float:
        after = self.after[previous]
        if not after:
            return self.unigram(token)
        kinds, total = len(after), after.total()
        return (after[token] + kinds * self.unigram(token)) / (total + kinds)


def test_rows_equal_the_reference_on_the_targets_of_perplexity(tmp_path: Path) -> None:
    train, test = random_documents(50, 1), random_documents(30, 2)  # as in evaluate()
    rows = {row.name: row for row in evaluate(tmp_path)}
    reference = DictionaryBigram(stream_of(train), VOCAB)
    tokens = stream_of(test)
    n_bytes = sum(t + 1 for t in tokens[1:] if t != EOS)
    unigram = -sum(math.log2(reference.unigram(t)) for t in tokens[1:]) / n_bytes
    bigram = -sum(math.log2(reference.bigram(p, t)) for p, t in pairwise(tokens)) / n_bytes
    model = rows["perplexity/bits_per_byte"]
    assert rows["baselines/unigram_bits_per_byte"].estimate == pytest.approx(unigram, rel=1e-12)
    assert rows["baselines/bigram_bits_per_byte"].estimate == pytest.approx(bigram, rel=1e-12)
    assert model.estimate is not None
    lift = rows["baselines/lift_over_bigram"]
    assert lift.estimate == pytest.approx(bigram - model.estimate, rel=1e-9)
    assert lift.n == model.n
    assert lift.method == "paired expanded BCa bootstrap over 30 documents, 1,000 resamples, seed 0"


def test_lift_of_a_model_that_equals_the_baseline_is_zero_with_no_width(tmp_path: Path) -> None:
    train = random_documents(50, 1)
    counts = np.bincount([t for document in train for t in document], minlength=VOCAB) + 1
    probabilities = counts / counts.sum()

    class AsUnigram(nn.Module):
        def forward(self, tokens: Tensor) -> Tensor:
            return torch.from_numpy(np.log(probabilities)).expand(*tokens.shape, -1)

    rows = {row.name: row for row in evaluate(tmp_path, model=AsUnigram())}
    lift = rows["baselines/lift_over_unigram"]
    baseline = rows["baselines/unigram_bits_per_byte"]
    assert (lift.estimate, lift.low, lift.high) == pytest.approx((0, 0, 0), abs=1e-12)
    assert baseline.low is not None
    assert baseline.high is not None
    assert baseline.high - baseline.low > 0.01  # so the pairing is what makes it narrow


def test_latency_is_the_time_of_its_own_batch(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_TARGETS_AT_ONCE", 7)  # a window each
    clock = itertools.count()
    monkeypatch.setattr(module.time, "perf_counter", lambda: next(clock))
    cache = make_cache(tmp_path, {"train": random_documents(50, 1), "test": random_documents(30, 2)})
    context = EvaluationContext(model=TinyModel(), cache=cache, sequence_length=7)
    rows = run_evaluations({"baselines": BaselinesConfig()}, context)
    n_windows = math.ceil(sum(map(len, random_documents(30, 2))) / 7)
    assert rows[0].measured
    assert context.samples["baselines"].numbers("latency").sum() == pytest.approx(n_windows)  # a second each


def test_baselines_follow_the_limit_of_perplexity(tmp_path: Path) -> None:
    cache = make_cache(tmp_path, {"train": random_documents(50, 1), "test": random_documents(30, 2)})
    context = EvaluationContext(model=TinyModel(), cache=cache, sequence_length=7)
    configs = {"a": BaselinesConfig(), "b": PerplexityConfig(max_tokens=100)}
    rows = {row.name: row for row in run_evaluations(configs, context)}
    assert rows["b/loss"].n == 100
    assert rows["a/lift_over_unigram"].n == rows["b/bits_per_byte"].n
    assert all(row.measured for row in rows.values())


def test_without_perplexity_the_lift_says_what_to_ask_for(tmp_path: Path) -> None:
    cache = make_cache(tmp_path, {"train": random_documents(50, 1), "test": random_documents(30, 2)})
    context = EvaluationContext(model=TinyModel(), cache=cache, sequence_length=7)
    rows = {row.name: row for row in run_evaluations({"baselines": BaselinesConfig()}, context)}
    assert rows["baselines/bigram_bits_per_byte"].measured
    assert "evaluation=[perplexity,baselines]" in rows["baselines/lift_over_bigram"].status


def test_text_without_bytes_is_said_to_be_unmeasured(tmp_path: Path) -> None:
    cache = make_cache(tmp_path, {"train": [[1, 2, 3]], "test": [[1, 2, 3]]}, token_bytes=[0] * VOCAB)
    context = EvaluationContext(model=TinyModel(), cache=cache, sequence_length=7)
    configs = {"perplexity": PerplexityConfig(), "baselines": BaselinesConfig()}
    rows: list[Row] = [
        row for row in run_evaluations(configs, context) if row.name.endswith("_byte") or "lift" in row.name
    ]
    assert len(rows) == 5
    assert all(row.status == "not measured: the scored tokens cover no bytes" for row in rows)
