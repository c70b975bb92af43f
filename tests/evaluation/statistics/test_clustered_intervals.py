from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import pytest
import statsmodels.api
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats
from statsmodels.stats.proportion import proportion_confint

from lmexp.evaluation.statistics.clusters import cluster_codes, sums_by_cluster
from lmexp.evaluation.statistics.intervals import (
    clustered_mean,
    clustered_se,
    few_note,
    mean_interval,
    wilson,
)

scores = st.lists(st.floats(-1e3, 1e3), min_size=2, max_size=30)


def test_wilson_matches_the_published_numbers() -> None:
    low, high = wilson(8, 10).low, wilson(8, 10).high
    assert (low, high) == pytest.approx((0.4902, 0.9433), abs=5e-5)
    assert wilson(0, 20).low == 0
    assert wilson(0, 20).high == pytest.approx(0.1611, abs=5e-5)


@pytest.mark.parametrize(("k", "n"), [(0, 1), (1, 1), (3, 7), (50, 100), (999, 1000)])
def test_wilson_equals_statsmodels(k: int, n: int) -> None:
    ours = wilson(k, n, confidence=0.9)
    assert (ours.low, ours.high) == pytest.approx(proportion_confint(k, n, alpha=0.1, method="wilson"), abs=1e-12)


def test_wilson_without_items_and_with_impossible_counts() -> None:
    assert wilson(0, 0).low is None and "no items" in wilson(0, 0).note
    for k, n in ((3, 2), (-1, 2)):
        with pytest.raises(ValueError, match="whole numbers"):
            wilson(k, n)
    with pytest.raises(ValueError, match="confidence is 95"):
        wilson(1, 2, confidence=95)


def test_clustered_error_matches_the_published_numbers() -> None:
    assert clustered_se(range(20), [i % 4 for i in range(20)]) == pytest.approx(0.6455, abs=5e-5)
    assert clustered_se(range(20)) == pytest.approx(1.3229, abs=5e-5)


def test_clustered_error_equals_statsmodels() -> None:
    generator = np.random.default_rng(0)
    codes = generator.integers(0, 12, 90)
    y = generator.normal(size=90) + codes
    fitted = statsmodels.api.OLS(y, np.ones(90)).fit(cov_type="cluster", cov_kwds={"groups": codes})
    assert clustered_se(y, codes) == pytest.approx(float(fitted.bse[0]))


@given(scores)
def test_each_item_its_own_cluster_is_the_plain_t_interval(values: list[float]) -> None:
    mean = clustered_mean(values)
    if np.ptp(values) <= 1e-9:
        return
    expected = stats.t.interval(0.95, len(values) - 1, np.mean(values), stats.sem(values))
    assert (mean.interval.low, mean.interval.high) == pytest.approx(expected, rel=1e-6, abs=1e-9)


@given(scores, st.floats(-100, 100), st.floats(0.1, 10))
def test_interval_moves_and_stretches_with_the_scores(values: list[float], shift: float, factor: float) -> None:
    clusters = [i // 2 for i in range(len(values))]
    one, other = clustered_mean(values, clusters), clustered_mean([factor * v + shift for v in values], clusters)
    assert other.estimate == pytest.approx(factor * one.estimate + shift, abs=1e-8)
    assert other.se == pytest.approx(factor * one.se, abs=1e-8, nan_ok=True)


def test_order_and_names_of_clusters_do_not_matter() -> None:
    generator = np.random.default_rng(1)
    values, codes = generator.normal(size=50), generator.integers(0, 7, 50)
    order = generator.permutation(50)
    named = np.array([f"document {9 - code}" for code in codes])
    assert clustered_se(values[order], named[order]) == pytest.approx(clustered_se(values, codes))


def _covered(sizes: list[int], n_trials: int, draw: Callable[[np.random.Generator, int], np.ndarray]) -> float:
    """Share of intervals that hold 0; scores have an effect of their cluster (30% of the variance)."""
    generator = np.random.default_rng(2)
    codes, covered = np.repeat(np.arange(len(sizes)), sizes), 0
    for _ in range(n_trials):
        values = draw(generator, len(sizes))[codes] * 0.3**0.5 + draw(generator, len(codes)) * 0.7**0.5
        interval = mean_interval(values, codes)
        assert interval.low is not None and interval.high is not None
        covered += interval.low <= 0 <= interval.high
    return covered / n_trials


@pytest.mark.parametrize("sizes", [[1] * 30, [5] * 5, [5] * 20, [1, 2, 3, 4, 10] * 8])
def test_nominal_95_covers_93_to_97_in_100(sizes: list[int]) -> None:
    assert 0.93 <= _covered(sizes, 2000, lambda g, n: g.normal(size=n)) <= 0.97


def test_without_the_clusters_it_would_not_cover() -> None:
    generator, codes = np.random.default_rng(3), np.repeat(np.arange(30), 10)
    covered = 0
    for _ in range(300):
        interval = mean_interval(generator.normal(size=30)[codes] + generator.normal(size=300))
        assert interval.low is not None and interval.high is not None
        covered += interval.low <= 0 <= interval.high
    assert covered / 300 < 0.75


@pytest.mark.slow
@pytest.mark.parametrize("sizes", [[1] * 100, [4] * 25, [1, 1, 2, 8] * 20])
def test_skewed_scores_are_covered_too(sizes: list[int]) -> None:
    assert 0.93 <= _covered(sizes, 5000, lambda g, n: g.gamma(2.0, size=n) - 2) <= 0.97


def test_nothing_to_judge_by_gives_no_interval_but_says_why() -> None:
    assert "one cluster" in mean_interval([1.0, 2.0], ["a", "a"]).note
    assert "one cluster" in mean_interval([1.0]).note
    assert math.isnan(clustered_se([1.0]))
    for constant in ([0.1] * 7, [1e6 + 0.1] * 9, [0.0] * 3):
        assert mean_interval(constant).low is None
        assert "no cluster deviates" in mean_interval(constant).note


def test_few_clusters_are_named() -> None:
    assert "only 5 clusters" in mean_interval(range(10), [i % 5 for i in range(10)]).note
    assert not few_note([3] * 20)
    assert "as if 1.0" in few_note([10_000] + [1] * 30)


@pytest.mark.parametrize(
    ("values", "clusters", "message"),
    [
        ([], None, "at least one item"),
        ([1.0, np.nan], None, "holds nan at 1"),
        ([np.inf, 1.0], None, "holds inf at 0"),
        ([[1.0], [2.0]], None, "shape"),
        ([1.0, 2.0], [1], "expected the cluster of each item"),
        ([1.0, 2.0], [1.0, np.nan], "clusters holds nan"),
        ([1.0, 2.0], np.array(["a", None], dtype=object), "can't be sorted"),
    ],
)
def test_wrong_input_is_a_clear_error(values: object, clusters: object, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        clustered_mean(values, clusters)  # type: ignore[arg-type]


def test_sums_by_cluster_follow_the_codes() -> None:
    codes = cluster_codes(["b", "a", "b"], 3)
    np.testing.assert_array_equal(codes, [1, 0, 1])
    np.testing.assert_array_equal(sums_by_cluster([1.0, 2.0, 4.0], ["b", "a", "b"]), [2.0, 5.0])
