"""Methods known from a few runs: with one run it is the paired t test, and with few it still errs in 5% at most."""

from __future__ import annotations

import numpy as np
import pytest

from lmexp.evaluation.statistics.paired import paired_t
from lmexp.evaluation.statistics.runs import Runs, compare_methods, ratio_runs


def runs_of(scores: np.ndarray) -> Runs:
    return ratio_runs(scores, np.ones(scores.shape))


def test_one_run_each_is_the_paired_t_test() -> None:
    a, b = np.random.default_rng(0).normal(size=(2, 1, 40))
    ours, theirs = compare_methods(runs_of(a), runs_of(b)), paired_t(a[0] - b[0])
    assert (ours.estimate, ours.se, ours.df, ours.p_value) == pytest.approx(
        (theirs.estimate, theirs.se, theirs.df, theirs.p_value)
    )
    assert (ours.interval.low, ours.interval.high) == pytest.approx((theirs.interval.low, theirs.interval.high))


def test_the_influences_of_an_exp_are_its_derivatives() -> None:
    generator = np.random.default_rng(1)
    numerator, denominator = generator.random((1, 50)), generator.integers(1, 9, (1, 50)).astype(float)
    found = ratio_runs(numerator, denominator, exp=True)
    step = 1e-6
    weights = np.ones(50)
    weights[3] += step
    moved = np.exp((weights * numerator[0]).sum() / (weights * denominator[0]).sum())
    assert (moved - found.figures[0]) / step == pytest.approx(found.influences[0, 3], rel=1e-3)
    assert found.influences.sum() == pytest.approx(0, abs=1e-12)


@pytest.mark.parametrize("n_runs", [2, 3, 5])
@pytest.mark.parametrize(("among_runs", "among_items", "both"), [(0, 0, 1), (0.1, 0, 1), (1, 1, 0.1), (0.1, 1, 1)])
def test_a_null_is_rejected_in_5_percent_or_fewer(
    n_runs: int, among_runs: float, among_items: float, both: float
) -> None:
    generator, n_items, rejected = np.random.default_rng(0), 100, []
    for _ in range(500):
        sides = (
            runs_of(
                generator.normal(0, among_items, n_items)
                + generator.normal(0, among_runs, (n_runs, 1))
                + generator.normal(0, both, (n_runs, n_items))
            )
            for _ in range(2)
        )
        p_value = compare_methods(*sides).p_value
        assert p_value is not None
        rejected.append(p_value < 0.05)
    assert np.mean(rejected) <= 0.075
