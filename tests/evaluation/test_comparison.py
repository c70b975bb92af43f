"""Planted differences are found as often as the design promises, planted nulls are not, and nothing else decides."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from scipy import stats

from lmexp.errors import ConfigError, RunError
from lmexp.evaluation.comparison import Difference
from lmexp.evaluation.conclusions import Declared, words
from lmexp.evaluation.samples import Figure, Samples
from tests.evaluation.tables import ACC, NATS, PERPLEXITY, differences, matched, rows, samples

N = 1000
MEAN = Figure(name="f1", definition="mean F1", numerator="score", higher_is_better=True)


def paired_scores(seed: int, *, gain: float) -> tuple[Any, Any]:
    """Right answers of two models that are right on mostly the same items; the second's accuracy is higher by gain."""
    generator = np.random.default_rng(seed)
    a = generator.random(N) < 0.6
    flips = generator.random(N)
    b = np.where(a, flips >= 0.05, flips < (0.05 * 0.6 + gain) / 0.4)
    return a, b


def share_found(gain: float, n_seeds: int) -> float:
    found = [differences(*map(samples, paired_scores(seed, gain=gain)))[0].p_value for seed in range(n_seeds)]
    return float(np.mean(np.array(found, np.float64) < 0.05))


def test_a_planted_difference_of_4_points_is_found_as_often_as_the_paired_design_promises() -> None:
    row = rows(*map(samples, paired_scores(0, gain=0.04)))[0]
    assert row.se is not None
    promised = stats.norm.cdf(0.04 / row.se - stats.norm.ppf(0.975))
    assert promised > 0.9  # two accuracies apart, unpaired, would be found half as often
    assert share_found(0.04, 200) == pytest.approx(promised, abs=0.06)


def test_a_planted_null_is_rejected_in_5_percent_or_fewer() -> None:
    assert 0.01 <= share_found(0.0, 400) <= 0.065  # exact McNemar errs on the safe side


def test_the_smallest_detectable_difference_is_found_4_times_out_of_5() -> None:
    generator = np.random.default_rng(1)

    def compared(gain: float) -> Difference:
        a = generator.random(200)
        b = a + generator.normal(gain, 1, 200)
        return differences(samples(a, figures=[MEAN]), samples(b, figures=[MEAN]))[0]

    size = float(np.mean([compared(0).detectable or 0 for _ in range(100)]))
    found = [(compared(size).p_value or 0) < 0.05 for _ in range(400)]
    assert np.mean(found) == pytest.approx(0.8, abs=0.06)


def test_mcnemar_gives_the_published_p_through_the_whole_path() -> None:
    a = [1] * 2 + [0] * 10 + [1] * 20 + [0] * 8
    b = [0] * 2 + [1] * 10 + [1] * 20 + [0] * 8
    row = rows(samples(a), samples(b))[0]
    assert (row.method, row.n, row.n_clusters) == ("exact McNemar", 40, 40)
    assert row.p_value == pytest.approx(0.038574, abs=1e-6)
    assert (row.reference_estimate, row.other_estimate) == (pytest.approx(22 / 40), pytest.approx(30 / 40))
    assert row.difference == pytest.approx(0.2)
    assert (row.verdict, words(row)) == ("better", "B is better")


def test_clustered_shares_are_compared_by_cluster() -> None:
    generator = np.random.default_rng(0)
    a, b = generator.integers(0, 2, (2, 300))
    clusters = [f"d{i // 10}" for i in range(300)]
    row = rows(*(samples(x, clusters=clusters, cluster="document") for x in (a, b)))[0]
    sums = (b - a).reshape(30, 10).sum(axis=1)
    assert row.n_clusters == 30
    assert row.p_value == pytest.approx(stats.ttest_1samp(sums, 0).pvalue)


def nats(seed: int, gain: float = 0.0, **more: Any) -> Samples:
    """Log-probabilities of 200 documents of different length."""
    generator = np.random.default_rng(7)
    n_tokens = generator.integers(5, 60, 200)
    noise = np.random.default_rng(seed).normal(0, 0.1, 200)
    logprobs = -n_tokens * (2.0 + generator.normal(0, 0.5, 200) - gain + noise)
    given = {"logprobs": logprobs, "n_tokens": n_tokens, "figures": [NATS, PERPLEXITY], "cluster": "document"}
    return samples(np.zeros(200), **{**given, **more})


def test_ratios_and_their_exp_are_compared_by_the_paired_bootstrap() -> None:
    loss, perplexity = rows(nats(1), nats(2, gain=0.1))
    for row in (loss, perplexity):
        assert row.verdict == "better"
        assert row.low is not None
        assert row.high is not None
        assert row.low < row.difference < row.high < 0  # type: ignore[operator]
        assert "bootstrap over 200 clusters" in row.method
        assert "approximate randomization" in row.method
    assert perplexity.reference_estimate == pytest.approx(math.exp(loss.reference_estimate or 0))
    # paired: the spread of the documents, five times that of the noise, doesn't widen the interval
    assert loss.se == pytest.approx(0.1 * math.sqrt(2 / 200), rel=0.3)


def numbers(row: Difference) -> list[float]:
    return [x for x in (row.difference, row.low, row.high, row.p_value, row.se) if x is not None]


@pytest.mark.parametrize("make", [lambda s: samples(paired_scores(s, gain=0.04)[1]), nats], ids=["acc", "loss"])
def test_exchanging_the_sides_turns_the_sign_and_the_order_of_rows_changes_nothing(make: Any) -> None:
    a, b = make(1), make(2)
    order = np.random.default_rng(0).permutation(len(a))
    shuffled = Samples(b.header, b.table.take(order))
    for one, other, moved in zip(rows(a, b), rows(b, a), rows(a, shuffled), strict=True):
        assert numbers(moved) == numbers(one)
        assert one.low is not None
        assert (one.difference, one.low, one.high) == pytest.approx((-other.difference, -other.high, -other.low))  # type: ignore[operator]
        assert (one.p_value, one.adjusted_p) == pytest.approx((other.p_value, other.adjusted_p))
        assert {one.verdict, other.verdict} in ({"better", "worse"}, {"not distinguishable"})


def test_several_seeds_a_side_widen_the_interval_to_the_spread_of_the_runs() -> None:
    a, b = ([nats(seed, gain=gain) for seed, gain in enumerate(gains)] for gains in ((0, 0.1, 0.3), (0.05, 0.2, 0.35)))
    single, several = rows(a[0], b[0])[0], rows(a, b)[0]
    assert single.verdict == "better"
    assert several.verdict == "not distinguishable"
    assert several.n_runs == (3, 3)
    assert "3 and 3 runs" in several.method
    figures = [[rows(a[0], run)[0].other_estimate for run in side] for side in (a, b)]
    welch = math.sqrt(sum(np.var(side, ddof=1) / 3 for side in figures))  # type: ignore[arg-type]
    assert several.se == pytest.approx(welch, rel=0.05)  # here items add next to nothing
    assert several.difference == pytest.approx(np.mean(figures[1]) - np.mean(figures[0]))  # type: ignore[arg-type]


def test_no_difference_is_never_claimed_without_a_margin() -> None:
    a, b = paired_scores(3, gain=0.0)
    row = rows(samples(a), samples(b))[0]
    assert row.verdict == "not distinguishable"
    assert words(row).startswith("not distinguishable (smallest detectable 0.0")
    equivalent = rows(samples(a), samples(b), Declared(margin=0.05))[0]
    assert (equivalent.verdict, words(equivalent)) == ("equivalent", "equivalent: closer than the margin of 0.05")
    tight = rows(samples(a), samples(b), Declared(margin=0.002))[0]
    assert words(tight).endswith("; not shown to be within 0.002)")
    small = rows(nats(1), nats(2, gain=0.1), Declared(margins={"loss": 0.5}))[0]
    assert words(small) == "B is better, by less than the margin of 0.5"


@pytest.mark.parametrize("margin", [0.0, -1.0, math.nan, math.inf])
def test_a_margin_is_a_number_above_0(margin: float) -> None:
    with pytest.raises(ConfigError, match="above 0"):
        Declared(margin=margin)


def test_the_same_scores_are_said_to_be_the_same() -> None:
    a = samples([1, 0, 1, 1, 0, 1], figures=[ACC, MEAN])
    assert [row.verdict for row in rows(a, a)] == ["the same"] * 2
    assert [row.verdict for row in rows(nats(1), nats(1))] == ["the same"] * 2


def test_primary_figures_are_corrected_by_holm_and_the_others_by_benjamini_hochberg() -> None:
    a, b = paired_scores(0, gain=0.03)
    figures = [replace(MEAN, name=name) for name in ("one", "two", "three", "four")]
    sides = samples(a, figures=figures), samples(b, figures=figures)
    default = rows(*sides)
    assert [row.primary for row in default] == [True, False, False, False]
    chosen = rows(*sides, Declared(primary=("two", "csqa/three")))
    assert [row.correction for row in chosen] == [
        "Benjamini-Hochberg, 2 tests", "Holm, 2 tests", "Holm, 2 tests", "Benjamini-Hochberg, 2 tests",
    ]  # fmt: skip
    p = chosen[0].p_value
    assert p is not None
    assert [row.adjusted_p for row in chosen] == pytest.approx([p, 2 * p, 2 * p, p])
    by_chance = replace(chosen[1], p_value=0.03, adjusted_p=0.06, verdict="not distinguishable")
    assert words(by_chance).startswith("not distinguishable (after Holm, 2 tests; smallest detectable ")


def test_baselines_are_not_primary_unless_they_are_named() -> None:
    a, b = samples([1, 0] * 9), samples([1, 1] * 9)
    for one in (a, b):
        one.header = replace(one.header, kind="baselines")
    assert [row.primary for row in rows(a, b)] == [False]
    assert [row.primary for row in rows(a, b, Declared(primary=("acc",)))] == [True]


def test_other_tasks_are_refused_with_what_differs() -> None:
    one, two = (samples([1, 0], task={"items": digit * 64, "shots": shots}) for digit, shots in (("1", 0), ("2", 5)))
    with pytest.raises(RunError) as refused:
        rows(one, two)
    message = str(refused.value)
    assert "items: 111111111111... in A, 222222222222... in B" in message
    assert "shots: 0 in A, 5 in B" in message
    assert "--evaluation" in message


def test_what_not_all_scored_is_listed_and_left_out_on_both_sides() -> None:
    a = samples([1, 0, 1, 1], ids=["q1", "q2", "q3", "q4"])
    b = samples([1, 0, 0, 1], ids=["q9", "q4", "q2", "q1"])
    found = matched([a], [b])
    assert [(u.missing_from, u.samples) for u in found.unmatched] == [(("B",), ("q3",)), (("A",), ("q9",))]
    row = rows(a, b)[0]
    assert (row.n, row.reference_estimate, row.other_estimate) == (3, pytest.approx(2 / 3), pytest.approx(1 / 3))
    with pytest.raises(RunError, match=r"no sample in common \(A has q1; B has z\)"):
        matched([a], [samples([1], ids=["z"])])
    with pytest.raises(RunError, match=r"1 samples stand in it twice \(q1\)"):
        matched([a], [samples([1, 0], ids=["q1", "q1"])])
    with pytest.raises(RunError, match="another one in B"):
        matched([a], [samples([1], ids=["q1"], clusters=["other"])])


def test_figures_of_different_tokenizers_are_not_compared_unless_the_unit_is_the_same() -> None:
    per_byte = replace(NATS, name="bits_per_byte", denominator="n_bytes")
    a, b = (nats(1, n_tokens=np.full(200, n), figures=[NATS]) for n in (10, 12))
    (row,) = rows(a, b)
    assert row.verdict == "not compared"
    assert "2,000 tokens in A and 2,400 in B" in row.note
    assert row.primary is False
    assert per_byte.denominator == "n_bytes"


@pytest.mark.parametrize(
    ("other", "why"),
    [
        (samples([1, math.nan]), "not finite in 1 of 2 samples"),
        (samples([1, 0.5]), "not 0 or 1"),
        (samples([1, 0], figures=[replace(ACC, scale=100.0)]), "computes it otherwise"),
        (samples([1, 0], figures=[]), "doesn't have it"),
    ],
)
def test_figures_that_cannot_be_compared_say_why(other: Samples, why: str) -> None:
    (row,) = rows(samples([1, 0]), other)
    assert (row.verdict, row.difference, row.p_value) == ("not compared", None, None)
    assert why in row.note


def test_one_cluster_is_no_test() -> None:
    sides = (samples(x, clusters=["d"] * 4, cluster="document") for x in ([1, 0, 0, 0], [1, 1, 1, 0]))
    (row,) = rows(*sides)
    assert (row.verdict, row.p_value, row.low) == ("not tested", None, None)
