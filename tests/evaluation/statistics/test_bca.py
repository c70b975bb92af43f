from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy import stats

from lmexp.evaluation.statistics.bca import bca_interval
from lmexp.evaluation.statistics.bootstrap import Resampled, bca_of_sums, expanded, resample_sums, resampled_sums
from lmexp.evaluation.statistics.cluster_bootstrap import cluster_bootstrap

Floats = NDArray[np.float64]


def ratio(sums: Floats) -> Floats:
    found: Floats = sums[..., 0] / sums[..., 1]
    return found


def covers(resampled: Resampled, truth: float, method: str = "bca") -> bool:
    interval = resampled.interval(method=method)
    assert interval.low is not None and interval.high is not None
    return interval.low <= truth <= interval.high


@pytest.mark.parametrize("confidence", [0.5, 0.9, 0.95])
def test_bca_equals_scipy_on_the_same_draws(confidence: float) -> None:
    values = np.random.default_rng(0).gamma(1.0, size=25)
    ours = cluster_bootstrap(lambda items: float(np.var(values[items])), np.arange(25), n_resamples=999)

    class Done:
        bootstrap_distribution = ours.draws

    options = {"n_resamples": 0, "bootstrap_result": Done(), "confidence_level": confidence}
    for method, low_high in (
        ("BCa", bca_interval(float(ours.estimate), ours.draws, ours.jackknife, confidence=confidence)),  # type: ignore[arg-type]
        ("percentile", None),
    ):
        expected = stats.bootstrap((values,), np.var, method=method, **options).confidence_interval
        if low_high is not None:
            assert (low_high.low, low_high.high) == pytest.approx((expected.low, expected.high), rel=1e-9)
        else:
            assert tuple(np.quantile(ours.draws, [(1 - confidence) / 2, (1 + confidence) / 2])) == pytest.approx(
                (expected.low, expected.high)
            )


def test_resamples_equal_to_the_estimate_count_half_as_in_scipy() -> None:
    values = np.array([0, 0, 1, 1, 1, 0, 1, 1, 0, 1, 1, 2])
    ours = cluster_bootstrap(lambda items: float(values[items].mean()), np.arange(12))
    assert ours.jackknife is not None and (ours.draws == ours.estimate).sum() > 50

    class Done:
        bootstrap_distribution = ours.draws

    expected = stats.bootstrap((values,), np.mean, n_resamples=0, bootstrap_result=Done()).confidence_interval
    found = bca_interval(float(ours.estimate), ours.draws, ours.jackknife)
    assert (found.low, found.high) == pytest.approx((expected.low, expected.high), rel=1e-9)


def test_sums_and_indices_give_the_same() -> None:
    generator = np.random.default_rng(1)
    codes = np.sort(generator.integers(0, 30, 100))
    values, sizes = generator.normal(size=100), np.bincount(codes, minlength=30)
    columns = np.stack([np.bincount(codes, values, 30), sizes], axis=1)[sizes > 0]
    fast, slow = resampled_sums(columns).map(ratio), cluster_bootstrap(lambda i: values[i].mean(), codes)
    np.testing.assert_allclose(fast.draws, slow.draws)
    assert fast.jackknife is not None and slow.jackknife is not None
    np.testing.assert_allclose(fast.jackknife, slow.jackknife)
    assert fast.interval().low == pytest.approx(slow.interval().low)
    assert bca_of_sums(columns, ratio) == fast.interval()
    np.testing.assert_array_equal(resample_sums(columns), resampled_sums(columns).draws)


def test_chunks_do_not_change_results() -> None:
    values = np.random.default_rng(2).normal(size=(40, 2))
    codes = np.arange(40) // 2

    def statistic(items: NDArray[np.int64]) -> Floats:
        found: Floats = values[items].mean(axis=0)
        return found

    at_once = cluster_bootstrap(statistic, codes, n_resamples=50)
    for max_draws in (1, 33, 200):
        other = cluster_bootstrap(statistic, codes, n_resamples=50, max_draws=max_draws)
        np.testing.assert_array_equal(at_once.draws, other.draws)


def test_whole_clusters_are_drawn() -> None:
    clusters = np.array(["c", "a", "c", "b", "b", "c"])

    def whole(items: NDArray[np.int64]) -> float:
        counts = np.bincount(items, minlength=6)
        for name in "abc":
            assert np.ptp(counts[clusters == name]) == 0
        return float(len(items))

    lengths = cluster_bootstrap(whole, clusters, n_resamples=200)
    assert lengths.estimate == 6
    assert set(np.unique(lengths.draws)) == {3, 4, 5, 6, 7, 8, 9}
    assert lengths.jackknife is not None
    np.testing.assert_array_equal(np.sort(lengths.jackknife), [3, 4, 5])


def test_two_models_are_paired_by_map() -> None:
    generator = np.random.default_rng(3)
    a = generator.normal(size=60)
    b = a - 0.3 + generator.normal(0, 0.01, 60)
    both = cluster_bootstrap(lambda i: np.array([a[i].mean(), b[i].mean()]), np.arange(60))
    difference = both.map(lambda figures: figures[..., 0] - figures[..., 1])
    interval = difference.interval()
    assert interval.low is not None and interval.high is not None
    assert interval.high - interval.low < 0.02
    assert interval.low < 0.3 < interval.high
    assert both.map(lambda figures: figures[..., 0]).interval().note == ""


def test_many_clusters_are_left_out_in_groups_with_the_same_acceleration() -> None:
    values = np.random.default_rng(4).gamma(0.5, size=1200)
    grouped = cluster_bootstrap(lambda i: float(values[i].mean()), np.arange(1200))
    assert grouped.jackknife is not None
    assert len(grouped.jackknife) == 500
    fast = resampled_sums(np.stack([values, np.ones(1200)], axis=1)).map(ratio)
    assert grouped.interval().low == pytest.approx(fast.interval().low, rel=2e-3)
    assert grouped.interval().high == pytest.approx(fast.interval().high, rel=2e-3)


@pytest.mark.parametrize("n_clusters", [20, 60])
def test_nominal_95_covers_about_95_in_100_with_clusters(n_clusters: int) -> None:
    generator, covered, n_trials = np.random.default_rng(5), 0, 700
    for trial in range(n_trials):
        n = generator.integers(5, 200, n_clusters)
        nats = generator.normal(1.7, 0.3, n_clusters) * n + generator.normal(size=n_clusters) * n**0.5
        covered += covers(resampled_sums(np.stack([nats, n], 1), n_resamples=600, seed=trial).map(ratio), 1.7)
    assert 0.925 <= covered / n_trials <= 0.975  # 93 to 97, and half a standard error of the trials


@pytest.mark.slow
@pytest.mark.parametrize("n_clusters", [30, 60, 100])
@pytest.mark.parametrize("kind", ["nats", "answers", "skewed"])
def test_nominal_95_covers_93_to_97_in_100(kind: str, n_clusters: int) -> None:
    generator, covered, n_trials = np.random.default_rng(6), 0, 2000
    for trial in range(n_trials):
        n = generator.integers(5, 60, n_clusters)
        if kind == "nats":
            sums = generator.normal(1, 0.3, n_clusters) * n + generator.normal(size=n_clusters) * n**0.5
        elif kind == "answers":
            sums = generator.binomial(n, generator.beta(4, 1, n_clusters)) / 0.8
        else:
            sums = generator.gamma(2, 0.5, n_clusters) * n
        covered += covers(resampled_sums(np.stack([sums, n], 1), seed=trial).map(ratio), 1.0)
    assert 0.925 <= covered / n_trials <= 0.975


def test_expansion_restores_the_t_interval_of_a_mean() -> None:
    values = np.random.default_rng(7).normal(size=12)
    resampled = resampled_sums(np.stack([values, np.ones(12)], axis=1), n_resamples=200_000).map(ratio)
    t = stats.t.interval(0.95, 11, values.mean(), stats.sem(values))
    plain = np.quantile(resampled.draws, [0.025, 0.975])
    interval = resampled.interval(method="percentile")
    assert interval.low is not None and interval.high is not None
    assert interval.high - interval.low == pytest.approx(t[1] - t[0], rel=0.05)
    assert np.ptp(plain) < 0.9 * (t[1] - t[0])
    quantile = stats.norm.ppf((1 + expanded(0.95, 12)) / 2)
    assert quantile == pytest.approx((12 / 11) ** 0.5 * stats.t.ppf(0.975, 11))
    assert expanded(0.95, 2) < 1


def test_where_bca_is_not_defined_percentile_stands_in_and_says_so() -> None:
    same = resampled_sums([[2.0, 1.0]] * 30).map(ratio).interval()
    assert (same.low, same.high) == (2.0, 2.0)
    assert "all resamples give the same figure" in same.note
    sizes = np.random.default_rng(8).random(30) + 1
    top = cluster_bootstrap(lambda i: -float(sizes[np.unique(i)].sum()), np.arange(30))  # the least on all the data
    assert "outside of all resamples" in top.interval().note
    assert top.interval().low is not None
    lonely = resampled_sums([[1.0, 0.0]] * 29 + [[1.0, 1.0]]).map(ratio).interval()  # 1/0 without the last
    assert "not finite without one of the clusters" in lonely.note
    assert "left out" in lonely.note


def test_biased_figures_are_marked_when_an_end_lies_beyond_the_resamples() -> None:
    draws = np.linspace(1, 2, 1000)
    interval = bca_interval(1.01, draws, np.random.default_rng(9).normal(size=50))
    assert interval.low == pytest.approx(1.0, abs=0.01)
    assert "beyond the outermost resamples" in interval.note


def test_few_clusters_are_refused_or_named() -> None:
    assert resampled_sums([[1.0, 2.0]] * 4).map(ratio).interval().low is None
    columns = np.random.default_rng(10).random((12, 2)) + 1
    assert "only 12 clusters" in resampled_sums(columns).map(ratio).interval().note
    one = cluster_bootstrap(lambda i: float(len(i)), ["a", "a"], n_resamples=3)
    assert "1 cluster is too few" in one.interval().note


def test_wrong_input_is_a_clear_error() -> None:
    with pytest.raises(ValueError, match="clusters is empty"):
        cluster_bootstrap(lambda i: 0.0, [])
    with pytest.raises(ValueError, match="not finite"):
        resampled_sums([[1.0], [np.nan]])
    with pytest.raises(ValueError, match="one cluster or more"):
        resampled_sums(np.empty((0, 2)))
    with pytest.raises(ValueError, match="map them"):
        resampled_sums([[1.0, 2.0]] * 9).interval()
    with pytest.raises(ValueError, match="bca or percentile"):
        resampled_sums([[1.0, 2.0]] * 9).map(ratio).interval(method="basic")
    with pytest.raises(ValueError, match="n_resamples is 0"):
        resampled_sums([[1.0]], n_resamples=0)
    assert "the figure is nan" in cluster_bootstrap(lambda i: np.nan, np.arange(9), n_resamples=9).interval().note
