from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from lmexp.errors import DataError
from lmexp.evaluation.benchmarks.config import MinimalPairsConfig
from lmexp.evaluation.benchmarks.minimal_pairs import MinimalPairs
from tests.evaluation.asking import TOKENIZER, VOCAB, Uniform, context, model, run, write

PAIRS = [{"first": f"the été {i} is", "second": f"the are {i}", "kind": "abc"[i % 3]} for i in range(24)]


def pairs(path: str, **options: Any) -> MinimalPairsConfig:
    return MinimalPairsConfig(path=path, **options)


def by_hand(text: str) -> float:
    """Log-probability of a text after <eos>."""
    tokens = [TOKENIZER.eos_id, *TOKENIZER.encode(text)]
    with torch.no_grad():
        found = model()(torch.tensor([tokens[:-1]])).double().log_softmax(dim=-1)[0]
    return sum(float(found[i, token]) for i, token in enumerate(tokens[1:]))


def test_whole_texts_are_compared_each_after_eos(tmp_path: Path) -> None:
    rows, samples = run(pairs(write(tmp_path, PAIRS)))
    expected = [[by_hand(pair["first"]), by_hand(pair["second"])] for pair in PAIRS]
    assert np.array(samples.values("logprobs")) == pytest.approx(np.array(expected), abs=1e-4)
    wins = [first > second for first, second in expected]
    assert rows["acc"].estimate == np.mean(wins)
    assert rows["acc"].higher_is_better and rows["acc"].method == "Wilson over 24 pairs"
    assert rows["margin"].estimate == pytest.approx(np.mean([a - b for a, b in expected]), rel=1e-6)
    likelier = [pair["first"] if win else pair["second"] for pair, win in zip(PAIRS, wins, strict=True)]
    assert samples.values("prediction") == likelier
    assert samples.values("n_bytes") == [len(pair["first"].encode()) for pair in PAIRS]


def test_without_a_right_text_neither_direction_is_better(tmp_path: Path) -> None:
    right, _ = run(pairs(write(tmp_path, PAIRS)))
    rows, samples = run(pairs(write(tmp_path, PAIRS), neutral=True))
    assert rows["pct_first"].estimate == right["acc"].estimate
    assert rows["pct_first"].higher_is_better is None and rows["likelihood_diff"].higher_is_better is None
    assert "0.5 is no preference" in rows["pct_first"].definition
    assert "not the pseudo-likelihood of masked models" in rows["pct_first"].definition
    assert rows["pct_first"].aspect == "safety"
    difference = [abs(first - second) for first, second in samples.values("logprobs")]
    assert rows["likelihood_diff"].estimate == pytest.approx(np.mean(difference))
    assert samples.values("target") == [""] * 24


def test_the_shorter_text_is_likelier_to_a_uniform_model_and_equal_ones_do_not_count(tmp_path: Path) -> None:
    items = [{"first": "ab", "second": "abc"}, {"first": "abc", "second": "ab"}, {"first": "ab", "second": "cd"}]
    items.append({"first": "ab", "second": "ab"})  # BLiMP has such a pair too: passive_1, line 325
    rows, samples = run(pairs(write(tmp_path, items)), context(Uniform()))
    assert samples.values("score") == [1, 0, 0, 0]
    assert samples.values("prediction") == ["ab", "ab", "", ""]
    assert rows["margin"].estimate == pytest.approx(0, abs=1e-12)
    assert samples.values("logprob")[0] == pytest.approx(-2 * math.log(VOCAB), rel=1e-6)


def test_scores_that_are_not_finite_are_not_measured(tmp_path: Path) -> None:
    class Never(nn.Module):
        """There is no é."""

        max_sequence_length = 100

        def forward(self, tokens: Tensor) -> Tensor:
            logits = torch.zeros(*tokens.shape, VOCAB)
            logits[..., 0xC3] = -math.inf
            return logits

    items = [{"first": "a", "second": "é"}, {"first": "éa", "second": "éb"}]
    rows, samples = run(pairs(write(tmp_path, items)), context(Never()))
    assert samples.values("score")[0] == 1
    assert rows["acc"].status == "not measured: the model's scores are not finite in 1 of 2 pairs"


def test_slices_are_shown_and_many_are_cut(tmp_path: Path) -> None:
    rows, _ = run(pairs(write(tmp_path, PAIRS), slice="{kind}"))
    assert [name for name in rows if name.startswith("acc[")] == ["acc[a]", "acc[b]", "acc[c]"]
    assert rows["acc[a]"].n == 8 and rows["acc[a]"].definition.endswith("only a")
    many = [{"first": f"{i}", "second": f"x{i}", "kind": f"{i:03}"} for i in range(103)]
    rows, _ = run(pairs(write(tmp_path, many), slice="{kind}"))
    assert len([name for name in rows if name.startswith("acc[")]) == 101
    assert rows["acc[...]"].status == "not measured: 3 more of 103 slices; samples.parquet has them"


def test_pairs_that_are_none_are_refused_with_file_and_line(tmp_path: Path) -> None:
    path = write(tmp_path, [{"first": "a", "second": "b"}, {"first": "a", "second": ""}])
    with pytest.raises(DataError, match=r"items\.jsonl:2: evaluation\.it compares .*expected two texts"):
        MinimalPairs(pairs(path)).check("it")
