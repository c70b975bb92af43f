from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray
from scipy import stats
from statsmodels.stats.contingency_tables import mcnemar as reference_mcnemar

from lmexp.evaluation.statistics.paired import mcnemar, paired_binary, paired_t
from lmexp.evaluation.statistics.randomization import approximate_randomization, randomization_of_sums

Floats = NDArray[np.float64]


def mean(sums: Floats) -> Floats:
    found: Floats = sums[..., 0] / sums[..., 1]
    return found


def test_mcnemar_matches_the_published_numbers() -> None:
    assert mcnemar(10, 2) == pytest.approx((0.038574, 0.022461), abs=5e-7)
    assert mcnemar(2, 10) == mcnemar(10, 2)
    assert mcnemar(0, 0) == (1.0, 1.0) == mcnemar(7, 7)
    assert mcnemar(0, 1) == pytest.approx((1.0, 0.5))


@given(st.integers(0, 300), st.integers(0, 300))
def test_mcnemar_equals_statsmodels_and_mid_p_is_smaller(a: int, b: int) -> None:
    ours = mcnemar(a, b)
    assert ours.exact == pytest.approx(float(reference_mcnemar([[0, a], [b, 0]], exact=True).pvalue))
    assert 0 <= ours.mid_p <= ours.exact <= 1


def test_mcnemar_keeps_its_level_and_its_interval_covers() -> None:
    generator, n, n_trials = np.random.default_rng(0), 200, 4000
    cells = generator.multinomial(n, (0.5, 0.15, 0.1, 0.25), size=n_trials)  # both, only a, only b, none
    covered = 0
    for row in range(n_trials // 4):
        a = np.repeat([1, 1, 0, 0], cells[row])
        b = np.repeat([1, 0, 1, 0], cells[row])
        test = paired_binary(a, b)
        assert test.interval.low is not None and test.interval.high is not None
        covered += test.interval.low <= 0.05 <= test.interval.high
    assert 0.93 <= covered / (n_trials // 4) <= 0.97
    null = generator.multinomial(n, (0.5, 0.12, 0.12, 0.26), size=n_trials)
    p_values = np.array([mcnemar(int(row[1]), int(row[2])) for row in null])  # (n_trials, 2)
    exact, mid_p = (p_values <= 0.05).mean(axis=0)
    assert 0.02 <= exact <= 0.05
    assert 0.035 <= mid_p <= 0.06


def test_the_same_answers_are_no_difference() -> None:
    test = paired_binary([1, 0, 1] * 20, [1, 0, 1] * 20)
    assert (test.estimate, test.p_value) == (0, 1)
    assert test.interval.low is not None and test.interval.high is not None
    assert test.interval.low < 0 < test.interval.high
    assert "same items" in test.note


def test_paired_t_equals_scipy_without_clusters() -> None:
    generator = np.random.default_rng(1)
    a, b = generator.normal(size=40), generator.normal(0.2, size=40)
    expected, ours = stats.ttest_rel(a, b), paired_t(a - b)
    assert ours.p_value == pytest.approx(float(expected.pvalue))
    interval = expected.confidence_interval(0.95)
    assert (ours.interval.low, ours.interval.high) == pytest.approx((interval.low, interval.high))
    assert (ours.n, ours.n_clusters, ours.df) == (40, 40, 39)


@pytest.mark.parametrize("n_clusters", [8, 30])
def test_paired_t_rejects_5_in_100_under_the_null_with_clusters(n_clusters: int) -> None:
    generator, codes, n_trials = np.random.default_rng(2), np.repeat(np.arange(n_clusters), 5), 3000
    effects = generator.normal(size=(n_trials, n_clusters))[:, codes]
    differences = effects + generator.normal(size=effects.shape)
    p_values = [paired_t(row, codes).p_value or 0.0 for row in differences]
    assert 0.035 <= np.mean(np.array(p_values) < 0.05) <= 0.065
    naive = [paired_t(row).p_value or 0.0 for row in differences[:500]]
    assert np.mean(np.array(naive) < 0.05) > 0.15


def test_differences_without_spread_are_not_tested_but_no_difference_is_p_1() -> None:
    none = paired_t([0.0] * 9)
    assert none.p_value == 1.0 and none.interval.low is None
    constant = paired_t([0.3] * 9)
    assert constant.p_value is None
    assert "no interval and no test" in constant.note
    assert paired_t([1.0, 2.0], ["a", "a"]).p_value is None


def test_randomization_equals_scipy_when_exact() -> None:
    generator = np.random.default_rng(3)
    a, b = generator.normal(size=9), generator.normal(0.5, size=9)

    def difference(x: Floats, y: Floats, axis: int) -> Floats:
        found: Floats = np.mean(x - y, axis=axis)
        return found

    expected = stats.permutation_test((a, b), difference, permutation_type="samples", n_resamples=np.inf)
    generic = approximate_randomization(lambda swap: float(np.where(swap, b - a, a - b).mean()), np.arange(9))
    ones = np.ones(9)
    sums = randomization_of_sums(np.stack([a, ones], 1), np.stack([b, ones], 1), mean)
    assert generic.p_value == sums.p_value == pytest.approx(float(expected.pvalue))
    assert generic.estimate == pytest.approx(sums.estimate)
    assert "exact randomization over all 512" in sums.method


def test_drawn_permutations_come_near_the_exact_p_value() -> None:
    generator = np.random.default_rng(4)
    a, b, ones = generator.normal(size=13), generator.normal(0.5, size=13), np.ones(13)
    columns = np.stack([a, ones], 1), np.stack([b, ones], 1)
    exact = randomization_of_sums(*columns, mean, n_permutations=8192)
    drawn = randomization_of_sums(*columns, mean, n_permutations=8191)
    assert exact.method.startswith("exact") and drawn.method.startswith("approximate")
    assert exact.p_value is not None and drawn.p_value is not None
    assert abs(exact.p_value - drawn.p_value) < 4 * (exact.p_value * (1 - exact.p_value) / 8191) ** 0.5


def test_no_p_value_of_drawn_permutations_is_0() -> None:
    a, b = np.ones((200, 2)), np.ones((200, 2)) * [0, 1]
    test = randomization_of_sums(a, b, mean, n_permutations=99)
    assert (test.estimate, test.p_value) == (1.0, 0.01)


def test_chunks_do_not_change_the_p_value_and_both_ways_see_the_same_swaps() -> None:
    generator = np.random.default_rng(5)
    a, b = generator.normal(size=(30, 2)) + 5, generator.normal(size=(30, 2)) + 5.2
    first = randomization_of_sums(a, b, mean, n_permutations=300)
    for max_swaps in (1, 77, 1000):
        assert randomization_of_sums(a, b, mean, n_permutations=300, max_swaps=max_swaps) == first

    def statistic(swap: NDArray[np.bool_]) -> float:
        one, other = np.where(swap[:, None], b, a), np.where(swap[:, None], a, b)
        return float(mean(one.sum(axis=0)) - mean(other.sum(axis=0)))

    generic = approximate_randomization(statistic, np.arange(30), n_permutations=300, max_swaps=50)
    assert generic.p_value == first.p_value


@pytest.mark.parametrize("n_clusters", [8, 25])
def test_randomization_rejects_5_in_100_under_the_null_with_clusters(n_clusters: int) -> None:
    generator, n_trials = np.random.default_rng(6), 3000
    rejected = 0
    for trial in range(n_trials):
        n = generator.integers(1, 40, n_clusters).astype(float)
        common = generator.gamma(2.0, size=n_clusters)
        a, b = (common * n + generator.standard_t(3, n_clusters) * n for _ in range(2))
        columns = np.stack([a, n], 1), np.stack([b, n], 1)
        p_value = randomization_of_sums(*columns, mean, n_permutations=399, seed=trial).p_value
        assert p_value is not None
        rejected += p_value <= 0.05
    assert 0.035 <= rejected / n_trials <= 0.065


def test_clusters_trade_places_as_a_whole() -> None:
    clusters = np.array(["x", "y", "x", "z", "y"])
    seen = set()

    def statistic(swap: NDArray[np.bool_]) -> float:
        for name in "xyz":
            assert len(set(swap[clusters == name])) == 1
        seen.add(tuple(swap))
        return 0.0

    test = approximate_randomization(statistic, clusters)
    assert len(seen) == 8
    assert test.p_value == 1.0
    assert "no p-value below 0.05" in test.note
    assert (test.n, test.n_clusters) == (5, 3)


def test_rounding_does_not_break_ties() -> None:
    generator = np.random.default_rng(7)
    for _ in range(20):
        b, n = generator.random(6), generator.random(6)
        test = randomization_of_sums(np.stack([b + 0.1, n], 1), np.stack([b, n], 1), mean)
        assert test.p_value == 2 / 64  # nothing swapped, and everything


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: mcnemar(-1, 2), "numbers of items"),
        (lambda: paired_binary([1, 0], [1]), "the same items"),
        (lambda: paired_binary([1, 0.5], [1, 0]), "0 or 1"),
        (lambda: paired_t([]), "at least one item"),
        (lambda: paired_t([np.nan, 1.0]), "differences holds nan"),
        (lambda: approximate_randomization(lambda swap: 0.0, []), "clusters is empty"),
        (lambda: randomization_of_sums([[1.0]], [[1.0], [2.0]], mean), "for both"),
        (lambda: randomization_of_sums([[np.inf, 1]], [[1.0, 1]], mean), "sums_a holds inf"),
        (lambda: randomization_of_sums([[1.0, 1]], [[1.0, 1]], mean, n_permutations=0), "n_permutations is 0"),
    ],
)
def test_wrong_input_is_a_clear_error(call: object, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        call()  # type: ignore[operator]


def test_a_figure_without_value_is_not_tested() -> None:
    test = randomization_of_sums([[1.0, 0.0]] * 3, [[1.0, 0.0]] * 3, mean)
    assert test.p_value is None and "not finite" in test.note
