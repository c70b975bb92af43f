"""Figures from a table, with the interval that each kind deserves."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from lmexp.evaluation.figures import addends, estimate_of, row_of, rows_of
from lmexp.evaluation.samples import COUNT, NUMBER, Figure, Header, Key, Samples, make_table
from lmexp.evaluation.statistics.bootstrap import bca_of_sums
from lmexp.evaluation.statistics.intervals import clustered_mean, wilson

ACC = Figure(name="acc", definition="share that is right", numerator="score", binary=True, higher_is_better=True)
LOSS = Figure(
    name="loss", definition="mean", numerator="logprob", denominator="n_tokens", scale=-1.0, unit="nats per token"
)
PPL = replace(LOSS, name="perplexity", exp=True, unit="")


def make_samples(scores: Any, logprobs: Any = None, n_tokens: Any = None, clusters: Any = None) -> Samples:
    n = len(scores)
    table = make_table(
        {
            "sample_id": [f"s{i}" for i in range(n)],
            "cluster_id": [f"c{c}" for c in (range(n) if clusters is None else clusters)],
            "score": np.asarray(scores, float),
            "logprob": np.zeros(n) if logprobs is None else np.asarray(logprobs, float),
            "n_tokens": np.ones(n, int) if n_tokens is None else np.asarray(n_tokens),
            "wins": np.ones(n),
            "empty": np.zeros(n, int),
        },
        {"wins": NUMBER, "empty": COUNT},
    )
    header = Header(
        name="mine",
        kind="numbers",
        split="test",
        definition="20 questions",
        key=Key(model="", task={}),
        figures=(ACC, LOSS),
    )
    return Samples(replace(header, cluster="question"), table)


def test_a_share_of_independent_samples_has_wilsons_interval() -> None:
    row = row_of(ACC, make_samples([1] * 8 + [0] * 2), seed=0)
    expected = wilson(8, 10)
    assert (row.estimate, row.low, row.high) == (0.8, expected.low, expected.high)
    assert (row.low, row.high) == pytest.approx((0.4902, 0.9433), abs=1e-4)
    assert (row.method, row.n, row.n_clusters) == ("Wilson over 10 questions", 10, 10)
    assert row.definition == "share that is right; 20 questions"
    assert (row.name, row.split, row.higher_is_better) == ("mine/acc", "test", True)


def test_a_mean_of_clustered_samples_has_a_clustered_t_interval() -> None:
    scores, clusters = np.arange(20) / 20, np.arange(20) % 4
    row = row_of(replace(ACC, binary=False), make_samples(scores, clusters=clusters), seed=0)
    expected = clustered_mean(scores, clusters).interval
    assert (row.low, row.high) == (expected.low, expected.high)
    assert row.estimate == pytest.approx(scores.mean(), rel=1e-14)
    assert (row.n, row.n_clusters) == (20, 4)
    assert row.method.startswith("t over 4 questions")
    binary = row_of(ACC, make_samples(scores > 0.5, clusters=clusters), seed=0)
    assert binary.method.startswith("t over 4 questions")  # Wilson is for independent samples


def test_a_ratio_of_sums_has_a_bootstrap_over_clusters() -> None:
    generator = np.random.default_rng(0)
    n_tokens = generator.integers(1, 50, 60)
    logprobs, clusters = -generator.random(60) * n_tokens, np.arange(60) // 2
    samples = make_samples(np.zeros(60), logprobs, n_tokens, clusters)
    row, ppl = row_of(LOSS, samples, seed=3), row_of(PPL, samples, seed=3)
    sums = addends(LOSS, samples).reshape(30, 2, 2).sum(axis=1)  # two samples a cluster
    expected = bca_of_sums(sums, lambda both: both[..., 0] / both[..., 1], seed=3)
    assert row.n_clusters == 30
    assert row.estimate == pytest.approx(-logprobs.sum() / n_tokens.sum(), rel=1e-14)
    assert (row.low, row.high) == pytest.approx((expected.low, expected.high), rel=1e-12)
    assert ppl.estimate == math.exp(row.estimate)
    assert (ppl.low, ppl.high) == pytest.approx((math.exp(row.low), math.exp(row.high)), rel=1e-3)
    assert row.n == n_tokens.sum()
    assert row.method == "expanded BCa bootstrap over 30 questions, 1,000 resamples, seed 3"
    assert row_of(replace(LOSS, paired=True), samples, seed=3).method == f"paired {row.method}"
    assert row_of(replace(LOSS, counted="n_tokens", denominator="wins"), samples, seed=3).n == n_tokens.sum()


def test_rows_come_in_the_order_of_the_header() -> None:
    rows = rows_of(make_samples([1, 0, 1]), seed=0)
    assert [row.name for row in rows] == ["mine/acc", "mine/loss"]


def test_the_order_of_samples_does_not_change_an_estimate() -> None:
    generator = np.random.default_rng(1)
    logprobs, n_tokens = -(10 ** generator.uniform(-8, 8, 300)), generator.integers(1, 50, 300)
    order = generator.permutation(300)
    one = estimate_of(LOSS, make_samples(np.zeros(300), logprobs, n_tokens))
    assert one == estimate_of(LOSS, make_samples(np.zeros(300), logprobs[order], n_tokens[order]))


@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
def test_scores_that_are_not_finite_are_told_with_their_number(bad: float) -> None:
    samples = make_samples(np.zeros(4), [-1, bad, bad, -1], clusters=[0, 1, 1, 2])
    for figure in (LOSS, PPL):
        row = row_of(figure, samples, seed=0)
        assert row.status == "not measured: the model's scores are not finite in 1 of 3 questions"
        assert row.estimate is None


def test_what_has_no_figure_says_why() -> None:
    samples = make_samples([1, 0])
    none = samples.where(np.zeros(2, np.bool_))
    assert row_of(ACC, none, seed=0).status == "not measured: there are no samples"
    assert row_of(replace(LOSS, denominator="empty"), samples, seed=0).status == "not measured: the sum of empty is 0"
    no_tokens = make_samples([1, 0], n_tokens=[0, 0])
    assert row_of(LOSS, no_tokens, seed=0).status == "not measured: no token was scored"
    large = make_samples([0, 0], [-1000, -1000])
    assert row_of(PPL, large, seed=0).status == "not measured: exp of 1000 overflows"


def test_one_cluster_has_no_interval() -> None:
    samples = make_samples([1, 0], clusters=[0, 0])
    for figure in (ACC, LOSS, replace(LOSS, paired=True)):
        row = row_of(figure, samples, seed=0)
        assert row.measured and row.low is None
        assert row.method == "no interval: only one question was scored"
