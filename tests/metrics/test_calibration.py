from __future__ import annotations

import bisect
import math
import time

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import optimize
from sklearn.metrics import brier_score_loss, log_loss

from lmexp.evaluation.statistics.cluster_bootstrap import cluster_bootstrap
from lmexp.metrics.calibration import (
    brier_scores,
    cross_fitted_temperature,
    expected_calibration_error,
    fit_temperature,
    negative_log_likelihoods,
    reliability_curve,
)

pairs = st.lists(
    st.tuples(st.one_of(st.sampled_from([0.0, 0.25, 0.5, 1.0]), st.floats(0, 1)), st.integers(0, 1)), min_size=1
)


def reference_ece(pairs: list[tuple[float, int]], n_bins: int) -> float:
    """Item by item: chunks of equal size of the sorted confidences, edges halfway, each item to the lower bin."""
    confidences = sorted(p for p, _ in pairs)
    size = math.ceil(len(pairs) / min(n_bins, len(pairs)))
    edges = [(confidences[k - 1] + confidences[k]) / 2 for k in range(size, len(pairs), size)]
    bins: dict[int, list[tuple[float, int]]] = {}
    for p, y in pairs:
        bins.setdefault(bisect.bisect_left(edges, p), []).append((p, y))
    return sum(abs(sum(p - y for p, y in items)) for items in bins.values()) / len(pairs)


@given(pairs, st.sampled_from([1, 3, 10, 15]))
def test_ece_equals_the_definition_item_by_item(items: list[tuple[float, int]], n_bins: int) -> None:
    confidence, correct = zip(*items, strict=True)
    found = expected_calibration_error(confidence, correct, n_bins=n_bins)
    assert found == pytest.approx(reference_ece(items, n_bins), abs=1e-12)
    assert reliability_curve(confidence, correct, n_bins=n_bins).n.sum() == len(items)


@pytest.mark.parametrize("n_bins", [10, 15])
def test_constant_confidence_gives_accuracy_minus_confidence(n_bins: int) -> None:
    correct = [1] * 37 + [0] * 63
    assert expected_calibration_error([0.8] * 100, correct, n_bins=n_bins) == pytest.approx(0.43)
    assert expected_calibration_error([1.0] * 100, correct, n_bins=n_bins) == pytest.approx(0.63)


def test_confidence_of_exactly_1_and_0_is_counted() -> None:
    confidence, correct = [0.0] * 5 + [1.0] * 15, [1] * 5 + [0] * 15
    assert expected_calibration_error(confidence, correct) == 1.0
    curve = reliability_curve(confidence, correct)
    np.testing.assert_array_equal(curve.confidence, [0, 1])
    np.testing.assert_array_equal(curve.n, [5, 15])


@pytest.mark.parametrize("n_bins", [10, 15])
def test_bernoulli_labels_of_their_own_confidence_tend_to_0(n_bins: int) -> None:
    generator, found = np.random.default_rng(0), []
    for n in (500, 5000, 500_000):
        confidence = generator.random(n)
        found.append(expected_calibration_error(confidence, generator.random(n) < confidence, n_bins=n_bins))
    assert found[0] > found[1] > found[2]
    assert found[2] < 0.003
    skewed = confidence**2  # says too little: E|p - p^2| = 1/2 - 1/3
    assert expected_calibration_error(skewed, generator.random(n) < confidence) == pytest.approx(1 / 6, abs=0.003)


def test_bins_hold_equally_many() -> None:
    confidence = np.random.default_rng(1).random(150)
    np.testing.assert_array_equal(reliability_curve(confidence, confidence > 0.5, n_bins=15).n, [10] * 15)
    assert len(reliability_curve([0.5], [1]).n) == 1


def test_brier_and_nll_equal_sklearn() -> None:
    generator = np.random.default_rng(2)
    p, targets = generator.dirichlet(np.ones(4), 60), generator.integers(0, 4, 60)
    assert negative_log_likelihoods(p, targets).mean() == pytest.approx(log_loss(targets, p, labels=range(4)))
    expected = brier_score_loss(targets, p, labels=range(4), scale_by_half=False)
    assert brier_scores(p, targets).mean() == pytest.approx(expected)
    np.testing.assert_allclose(brier_scores(p, targets), ((p - np.eye(4)[targets]) ** 2).sum(axis=1))
    assert negative_log_likelihoods([[1.0, 0.0]], [1])[0] == math.inf
    np.testing.assert_allclose(brier_scores([[1.0, 0.0], [1.0, 0.0]], [0, 1]), [0, 2])


def test_fitted_temperature_is_the_minimum_of_the_nll() -> None:
    generator = np.random.default_rng(3)
    logits = generator.normal(size=(400, 5))
    p = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    targets = (p.cumsum(axis=1) > generator.random((400, 1))).argmax(axis=1)

    def nll(temperature: float) -> float:
        scaled = 3 * logits / temperature
        return float((np.log(np.exp(scaled).sum(axis=1)) - scaled[np.arange(400), targets]).mean())

    expected = optimize.minimize_scalar(nll, bounds=(0.1, 20), method="bounded", options={"xatol": 1e-8}).x
    found = fit_temperature(3 * logits, targets)
    assert found == pytest.approx(expected, rel=1e-5)
    assert found == pytest.approx(3, rel=0.25)
    gone = np.full((400, 1), -np.inf)  # a choice that no item has
    assert fit_temperature(np.hstack([3 * logits, gone]), targets) == pytest.approx(found)


def test_a_temperature_without_a_minimum_ends_at_the_range() -> None:
    assert fit_temperature([[1.0, 0.0]] * 3, [0, 0, 0]) == 0.01
    assert fit_temperature([[1.0, 0.0]] * 3, [1, 1, 1]) == 100


def test_no_fold_sees_its_own_items_and_clusters_stay_together() -> None:
    generator = np.random.default_rng(4)
    logits, targets = generator.normal(size=(60, 3)) * 2, generator.integers(0, 3, 60)
    clusters = np.repeat([f"q{i}" for i in range(20)], 3)
    scaled = cross_fitted_temperature(logits, targets, clusters)
    assert set(scaled.folds) == set(range(5))
    assert all(len(set(scaled.folds[clusters == cluster])) == 1 for cluster in clusters)
    for k in range(5):
        others = scaled.folds != k
        assert scaled.temperatures[k] == pytest.approx(fit_temperature(logits[others], targets[others]))
        changed = targets.copy()
        changed[~others] = (changed[~others] + 1) % 3
        again = cross_fitted_temperature(logits, changed, clusters)
        np.testing.assert_array_equal(again.probabilities[~others], scaled.probabilities[~others])
        assert not np.allclose(again.probabilities[others], scaled.probabilities[others])
        softmax = np.exp(logits / scaled.temperatures[k])
        expected = (softmax / softmax.sum(axis=1, keepdims=True))[~others]
        np.testing.assert_allclose(scaled.probabilities[~others], expected)


def test_scaling_mends_overconfidence() -> None:
    generator = np.random.default_rng(5)
    logits = generator.normal(size=(3000, 3))
    p = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    targets = (p.cumsum(axis=1) > generator.random((3000, 1))).argmax(axis=1)
    scaled = cross_fitted_temperature(4 * logits, targets)
    np.testing.assert_allclose(scaled.temperatures, 4, rtol=0.15)
    raw = np.exp(4 * logits) / np.exp(4 * logits).sum(axis=1, keepdims=True)

    def ece(probabilities: np.ndarray) -> float:
        return expected_calibration_error(probabilities.max(axis=1), probabilities.argmax(axis=1) == targets)

    assert ece(raw) > 0.2
    assert ece(scaled.probabilities) < 0.04


def test_it_is_fast_enough_for_a_bootstrap() -> None:
    generator = np.random.default_rng(6)
    confidence = generator.random(10_000)
    correct = generator.random(10_000) < confidence
    start = time.process_time()
    resampled = cluster_bootstrap(
        lambda items: expected_calibration_error(confidence[items], correct[items]), np.arange(10_000) // 2
    )
    assert time.process_time() - start < 15
    interval = resampled.interval(method="percentile")
    assert interval.low is not None and interval.high is not None
    assert 0 < interval.low < interval.high < 0.05


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: expected_calibration_error([], []), "n at least 1"),
        (lambda: expected_calibration_error([0.5], [1, 0]), "expected"),
        (lambda: expected_calibration_error([1.1], [1]), "confidence holds 1.1"),
        (lambda: expected_calibration_error([np.nan], [1]), "confidence holds nan"),
        (lambda: expected_calibration_error([0.5], [0.5]), "correct holds 0.5"),
        (lambda: expected_calibration_error([0.5], [1], n_bins=0), "n_bins is 0"),
        (lambda: brier_scores([[0.5, 0.6]], [0]), "sum to 1"),
        (lambda: brier_scores([[np.nan, 1.0]], [0]), "sum to 1"),
        (lambda: brier_scores([[0.5, 0.5]], [2]), "class numbers from 0 to 1"),
        (lambda: brier_scores([[0.5, 0.5]], [0.0]), "class numbers"),
        (lambda: negative_log_likelihoods([0.5], [0]), "n_classes"),
        (lambda: fit_temperature([[np.nan, 0.0]], [0]), "nan or inf"),
        (lambda: fit_temperature([[-np.inf, 0.0]], [0]), "at an item's target"),
        (lambda: cross_fitted_temperature([[0.0, 1.0]] * 4, [0] * 4, [1, 1, 2, 2]), "5 for 2 clusters"),
        (lambda: cross_fitted_temperature([[0.0, 1.0]] * 4, [0] * 4, [1, 2]), "the cluster of each item"),
    ],
)
def test_wrong_input_is_a_clear_error(call: object, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        call()  # type: ignore[operator]
