from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import ArrayLike

from lmexp.evaluation.statistics.bootstrap import percentile_interval, resample_sums
from lmexp.evaluation.statistics.intervals import Interval


def ratio_interval(numerator: ArrayLike, denominator: ArrayLike, *, n_resamples: int = 1000, seed: int = 0) -> Interval:
    """Of sum(numerator) / sum(denominator) over clusters: plain percentiles of what is drawn."""
    columns = np.stack([np.asarray(numerator, np.float64), np.asarray(denominator, np.float64)], axis=1)
    sums = resample_sums(columns, n_resamples=n_resamples, seed=seed)  # (n_resamples, 2)
    with np.errstate(divide="ignore", invalid="ignore"):
        return percentile_interval(sums[:, 0] / sums[:, 1])


def test_ratio_interval_covers_the_truth_about_95_times_in_100() -> None:
    generator = np.random.default_rng(0)
    n_trials, truth, covered = 300, 1.7, 0
    for trial in range(n_trials):
        n_tokens = generator.integers(5, 200, 60)
        document = generator.normal(truth, 0.3, 60)  # documents differ: tokens are not independent
        nats = document * n_tokens + generator.normal(0, 1, 60) * np.sqrt(n_tokens)
        interval = ratio_interval(nats, n_tokens, n_resamples=400, seed=trial)
        assert interval.low is not None
        assert interval.high is not None
        covered += interval.low <= truth <= interval.high
    assert 0.89 <= covered / n_trials <= 0.985


def test_interval_agrees_with_the_delta_method_for_many_clusters() -> None:
    generator = np.random.default_rng(1)
    n_tokens = generator.integers(50, 150, 2000).astype(float)
    nats = n_tokens * generator.normal(2, 0.5, 2000)
    ratio = nats.sum() / n_tokens.sum()
    error = np.sqrt(((nats - ratio * n_tokens) ** 2).sum()) / n_tokens.sum()
    interval = ratio_interval(nats, n_tokens)
    assert interval.low == pytest.approx(ratio - 1.96 * error, abs=0.3 * error)
    assert interval.high == pytest.approx(ratio + 1.96 * error, abs=0.3 * error)


def test_memory_limit_does_not_change_the_result() -> None:
    columns = np.random.default_rng(2).normal(size=(37, 3))
    at_once = resample_sums(columns, n_resamples=50)
    np.testing.assert_array_equal(at_once, resample_sums(columns, n_resamples=50, max_draws=1))
    np.testing.assert_array_equal(at_once, resample_sums(columns, n_resamples=50, max_draws=100))


def test_same_seed_same_interval_other_seed_other_interval() -> None:
    numbers = np.random.default_rng(3).normal(size=30)
    ones = np.ones(30)
    assert ratio_interval(numbers, ones, seed=5) == ratio_interval(numbers, ones, seed=5)
    assert ratio_interval(numbers, ones, seed=5) != ratio_interval(numbers, ones, seed=6)


def test_columns_are_paired() -> None:
    column = np.random.default_rng(4).normal(size=40)
    sums = resample_sums(np.stack([column, column + 1], axis=1))
    np.testing.assert_allclose(sums[:, 1] - sums[:, 0], 40)


def test_empty_denominators_are_left_out() -> None:
    interval = ratio_interval([0.0, 3.0], [0.0, 2.0])
    assert (interval.low, interval.high) == (1.5, 1.5)
    assert percentile_interval([np.nan, np.inf]).low is None
