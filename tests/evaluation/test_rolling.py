"""Overlapping windows: every token once, given what its window shows before it."""

from __future__ import annotations

import math
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
import torch

from lmexp.errors import ConfigError
from lmexp.evaluation.config import BaselinesConfig, PerplexityConfig
from lmexp.evaluation.context import EvaluationContext
from lmexp.evaluation.perplexity import Perplexity
from lmexp.evaluation.rolling import WindowRows, rolling, side_by_side
from lmexp.evaluation.row import Row
from lmexp.evaluation.runner import run_evaluations
from lmexp.evaluation.targets import Showing, Targets
from lmexp.models.config import GPTConfig
from tests.evaluation.tiny import EOS, VOCAB, TinyModel, make_cache, random_documents, stream_of

TEST = random_documents(30, 2)
LONG = [[*np.random.default_rng(i).integers(0, EOS, 40 + 13 * i).tolist(), EOS] for i in range(3)]


def evaluate(folder: Path, documents: list[list[int]] = TEST, **config: object) -> tuple[dict[str, Row], object]:
    cache = make_cache(folder, {"train": random_documents(50, 1), "test": documents})
    context = EvaluationContext(model=TinyModel(), cache=cache, sequence_length=7)
    configs = {"perplexity": PerplexityConfig(**config), "baselines": BaselinesConfig()}  # type: ignore[arg-type]
    rows = run_evaluations(configs, context)
    return {row.name: row for row in rows}, context.samples["perplexity"]


def logprob_given(context: list[int], target: int) -> float:
    """From one forward pass over the context alone."""
    return float(TinyModel()(torch.tensor([context]))[0, -1].detach().log_softmax(-1)[target])


def token_by_token(text: list[int], length: int, stride: int) -> list[float]:
    """Logprob of each token of a text but its first; each from a forward pass of its own."""
    found = []
    for place in range(1, len(text)):
        number = max(0, -(-(place - length) // stride))  # of the window that predicts it
        end = min(length + number * stride, len(text) - 1)
        found.append(logprob_given(text[max(0, end - length) : place], text[place]))
    return found


@pytest.mark.parametrize("context_length", [1, 8, 10])
def test_34_tokens_in_windows_of_10_are_those_of_lm_eval(tmp_path: Path, context_length: int) -> None:
    """With a stride of max - context + 1: the same inputs and the same targets, each once."""
    lm_eval_utils = pytest.importorskip("lm_eval.utils")
    tokens = np.random.default_rng(0).integers(0, EOS, 34).tolist()
    expected = list(lm_eval_utils.get_rolling_token_windows(tokens, EOS, 10, context_length))
    cache = make_cache(tmp_path, {"test": [[*tokens, EOS]]})
    showing = Showing(windows="padded", sequence_length=10, stride=11 - context_length, score_eos=False)
    targets = Targets(cache, "test", showing)
    found = []
    for batch in map(targets.batch, targets.numbers(1)):
        found.append((batch.tokens[0].tolist(), batch.targets[0][batch.scored[0]].tolist()))
    assert found == [(read, predicted) for read, predicted in expected]
    assert [token for _, predicted in found for token in predicted] == tokens


@pytest.mark.parametrize("n_tokens", [1, 9, 10, 11, 12, 34])
@pytest.mark.parametrize("stride", [1, 3, 9, 10])
def test_every_token_is_predicted_once_with_enough_context(tmp_path: Path, n_tokens: int, stride: int) -> None:
    windows = rolling(np.array([1, 100]), np.array([n_tokens, 5]), 10, stride)
    targets = np.concatenate(
        [np.arange(first, first + n) for first, n in zip(windows.first_target, windows.n_scored, strict=True)]
    )
    assert targets.tolist() == [*range(1, 1 + n_tokens), *range(100, 105)]
    assert (windows.n_read <= 10).all()
    later = windows.first_target[:-1] > 10
    assert (windows.first_target - windows.first)[:-1][later].min(initial=99) >= 10 - stride + 1


def test_documents_without_tokens_have_no_window() -> None:
    windows = rolling(np.array([1, 1, 4]), np.array([0, 3, 0]), 2, 1)
    assert windows.first.tolist() == [0, 1]


@pytest.mark.parametrize("windows", ["stream", "documents"])
@pytest.mark.parametrize("stride", [1, 3, 7])
def test_strided_logprobs_equal_a_forward_pass_for_each_token(tmp_path: Path, windows: str, stride: int) -> None:
    """With stride 1 all are conditioned on the whole window: the brute force."""
    rows, samples = evaluate(tmp_path, windows=windows, stride=stride, batch_size=4)
    if windows == "stream":
        expected = token_by_token(stream_of(TEST), 7, stride)
    else:
        expected = [p for document in TEST for p in token_by_token([EOS, *document], 7, stride)]
    found = [p for sample in samples.values("logprobs") for p in sample]
    np.testing.assert_allclose(found, expected, rtol=1e-12)
    assert rows["perplexity/loss"].n == len(expected) == sum(map(len, TEST))
    assert rows["perplexity/loss"].estimate == pytest.approx(-np.mean(expected), rel=1e-12)
    assert f"(stride {stride})" in rows["perplexity/loss"].definition
    assert f"is given {8 - stride} or more" in rows["perplexity/loss"].definition
    assert samples.header.key.settings["stride"] == stride


@pytest.mark.parametrize("documents", [TEST, LONG], ids=["documents", "windows as samples"])
@pytest.mark.parametrize("windows", ["stream", "documents"])
def test_both_figures_are_reported_on_the_same_samples(
    tmp_path: Path, windows: str, documents: list[list[int]]
) -> None:
    alone, table = evaluate(tmp_path, documents, windows=windows)
    both, strided = evaluate(tmp_path, documents, windows=windows, stride=2)
    for name in ("perplexity", "bits_per_byte"):
        one, other = alone[f"perplexity/{name}"], both[f"perplexity/disjoint_{name}"]
        assert (one.estimate, one.low, one.high, one.n) == (other.estimate, other.low, other.high, other.n)
    for name in ("sample_id", "target", "n_tokens", "n_bytes", "n_words", "position_nats", "position_tokens"):
        assert table.values(name) == strided.values(name)
    gain = both["perplexity/stride_gain"]
    expected = alone["perplexity/bits_per_byte"].estimate - both["perplexity/bits_per_byte"].estimate
    assert gain.estimate == pytest.approx(expected, rel=1e-9)
    assert gain.method.startswith("paired expanded BCa bootstrap over ")
    assert gain.plot is not None and gain.plot.names == ["stride 2", "disjoint windows"]
    lift = both["baselines/lift_over_unigram"]
    unigram = both["baselines/unigram_bits_per_byte"].estimate
    assert lift.estimate == pytest.approx(unigram - both["perplexity/bits_per_byte"].estimate, rel=1e-9)


@pytest.mark.parametrize("stride", [None, 3])
@pytest.mark.parametrize("windows", ["stream", "documents"])
@pytest.mark.parametrize("max_tokens", [None, 60])
def test_batch_size_changes_nothing(tmp_path: Path, stride: int | None, windows: str, max_tokens: int | None) -> None:
    settings = {"windows": windows, "stride": stride, "max_tokens": max_tokens}
    _, first = evaluate(tmp_path, batch_size=1, **settings)
    for batch_size in (8, 32):
        _, other = evaluate(tmp_path, batch_size=batch_size, **settings)
        assert other.values("sample_id") == first.values("sample_id")
        np.testing.assert_allclose(
            np.concatenate(other.values("logprobs")), np.concatenate(first.values("logprobs")), atol=1e-10
        )
        for name in ("n_tokens", "n_bytes", "n_words", "n_correct"):
            np.testing.assert_array_equal(other.numbers(name), first.numbers(name))


def test_max_tokens_does_not_change_what_the_others_are_given(tmp_path: Path) -> None:
    _, whole = evaluate(tmp_path, windows="documents", stride=3)
    _, part = evaluate(tmp_path, windows="documents", stride=3, max_tokens=60)
    found = np.concatenate(part.values("logprobs"))
    np.testing.assert_allclose(found, np.concatenate(whole.values("logprobs"))[:60], rtol=1e-12)
    assert len(found) == 60


@pytest.mark.parametrize("windows", ["stream", "documents"])
@pytest.mark.parametrize("stride", [None, 3])
def test_eos_is_left_out_on_request(tmp_path: Path, windows: str, stride: int | None) -> None:
    rows, samples = evaluate(tmp_path, windows=windows, stride=stride, score_eos=False)
    assert rows["perplexity/loss"].n == sum(len(document) - 1 for document in TEST)
    assert "scored" in rows["perplexity/loss"].definition
    assert "lift_over_unigram" in str(list(rows)) and rows["baselines/lift_over_unigram"].measured
    assert samples.header.key.task["score_eos"] is False
    _, whole = evaluate(tmp_path, windows=windows, stride=stride)
    assert samples.counts("n_bytes").sum() == whole.counts("n_bytes").sum()
    if stride is None:
        expected = [p for sample in whole.values("logprobs") for p in sample]
        ends = np.cumsum([len(document) for document in TEST]) - 1
        found = [p for sample in samples.values("logprobs") for p in sample]
        np.testing.assert_allclose(found, np.delete(expected, ends), rtol=1e-12)


def test_a_model_takes_shorter_windows_and_refuses_longer_ones(tmp_path: Path) -> None:
    torch.manual_seed(0)
    model = GPTConfig(n_layer=1, d_model=16, n_head=2).build(vocab_size=VOCAB, sequence_length=7)
    context = EvaluationContext(model=model, cache=make_cache(tmp_path, {"test": TEST}), sequence_length=7)
    rows = Perplexity(PerplexityConfig(sequence_length=5)).run(context)
    assert "windows of 5 tokens" in rows[0].definition
    with pytest.raises(ConfigError, match=r"sequence_length is 8, but the model takes 7 tokens at most"):
        Perplexity(PerplexityConfig(sequence_length=8)).run(context)
    with pytest.raises(ConfigError, match=r"stride is 9, more than the 7 tokens of a window"):
        Perplexity(PerplexityConfig(stride=9)).run(context)


def test_wrong_strides_and_windows_are_refused() -> None:
    with pytest.raises(ConfigError, match=r"stride \(9\) must not be larger than .*sequence_length \(8\)"):
        PerplexityConfig(stride=9, sequence_length=8)
    with pytest.raises(ConfigError, match="stride is 0; expected at least 1"):
        PerplexityConfig(stride=0)
    with pytest.raises(ConfigError, match="windows is 'packed'; expected one of"):
        PerplexityConfig(windows="packed")


def test_rows_are_filled_up_with_eos_and_batched_by_length(tmp_path: Path) -> None:
    split = make_cache(tmp_path, {"test": [[1, 2, EOS], [3, 4, 5, 6, EOS], [EOS]]}).splits["test"]
    rows = WindowRows(split, side_by_side(split.document_starts, 4))
    batches = list(rows.batches(2))
    assert [batch.tolist() for batch in batches] == [[1, 0], [2, 3]]
    found = rows.gather(batches[0])
    assert found.tokens.tolist() == [[EOS, 3, 4, 5], [EOS, 1, 2, EOS]]
    assert found.places.tolist() == [[4, 5, 6, 7], [1, 2, 3, 0]]
    assert found.targets.tolist() == [[3, 4, 5, 6], [1, 2, EOS, -100]]
    assert rows.gather(batches[1]).tokens.shape == (2, 1)


def test_perplexity_of_longer_context_is_lower_where_context_helps(tmp_path: Path) -> None:
    """A model that counts what it has seen is surer with more of it."""

    class Counting(torch.nn.Module):
        def forward(self, tokens: torch.Tensor) -> torch.Tensor:
            seen = torch.nn.functional.one_hot(tokens, VOCAB).double().cumsum(1) + 0.1
            return seen.log()

    documents = [[i % 9] * 60 + [EOS] for i in range(25)]
    context = EvaluationContext(
        model=Counting(), cache=make_cache(tmp_path, {"test": documents}), sequence_length=16, windows="padded"
    )
    rows = {row.name: row for row in Perplexity(PerplexityConfig(stride=4, score_eos=False)).run(context)}
    assert rows["perplexity/stride_gain"].low > 0.01
    plot = rows["perplexity/loss"].plot
    assert plot is not None
    losses = plot.series[0].y
    assert plot.series[0].x == [1, 2, 4, 8, 16]
    assert all(later < earlier for earlier, later in pairwise(losses[:4]))
    assert all(math.isfinite(loss) for loss in losses)
