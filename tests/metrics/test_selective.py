from __future__ import annotations

import itertools

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from lmexp.metrics.selective import (
    accuracy_at_coverage,
    area_under_risk_coverage,
    excess_area,
    risk_coverage_curve,
)

items = st.lists(st.tuples(st.integers(0, 3), st.integers(0, 1)), min_size=1, max_size=6)


def over_all_orders(confidence: list[int], losses: list[int]) -> np.ndarray:
    """Mean risk-coverage curve of all orders in which confidence never rises."""
    curves = []
    for order in itertools.permutations(range(len(losses))):
        if all(confidence[a] >= confidence[b] for a, b in itertools.pairwise(order)):
            curves.append(np.cumsum(np.array(losses)[list(order)]) / np.arange(1, len(losses) + 1))
    return np.mean(curves, axis=0)


@given(items)
def test_ties_are_averaged_over_their_orders(drawn: list[tuple[int, int]]) -> None:
    confidence, losses = (list(part) for part in zip(*drawn, strict=True))
    coverage, risk = risk_coverage_curve(confidence, losses)
    np.testing.assert_allclose(risk, over_all_orders(confidence, losses))
    np.testing.assert_allclose(coverage, np.arange(1, len(losses) + 1) / len(losses))


@given(items, st.randoms(use_true_random=False))
def test_the_order_of_items_does_not_matter(drawn: list[tuple[int, int]], random) -> None:  # type: ignore[no-untyped-def]
    shuffled = list(drawn)
    random.shuffle(shuffled)
    one, other = (risk_coverage_curve(*zip(*order, strict=True))[1] for order in (drawn, shuffled))
    np.testing.assert_allclose(one, other)


@given(items)
def test_excess_is_never_negative_and_0_for_the_best_order(drawn: list[tuple[int, int]]) -> None:
    confidence, losses = zip(*drawn, strict=True)
    assert excess_area(confidence, losses) >= -1e-12
    assert excess_area([-loss for loss in losses], losses) == pytest.approx(0)


def test_area_by_hand() -> None:
    assert area_under_risk_coverage([3, 2, 1], [0, 0, 1]) == pytest.approx((0 + 0 + 1 / 3) / 3)
    assert area_under_risk_coverage([1, 2, 3], [0, 0, 1]) == pytest.approx((1 + 1 / 2 + 1 / 3) / 3)
    assert area_under_risk_coverage([0.5] * 10, [1, 0] * 5) == pytest.approx(0.5)


def test_accuracy_at_coverage() -> None:
    confidence = np.arange(100) / 100
    correct = confidence >= 0.95
    assert accuracy_at_coverage(confidence, correct) == 0.5
    assert accuracy_at_coverage(confidence, correct, coverage=0.05) == 1.0
    assert accuracy_at_coverage(confidence, correct, coverage=1.0) == pytest.approx(0.05)
    assert accuracy_at_coverage([0.5] * 8, [1, 0] * 4, coverage=0.1) == 0.5  # a tie of all: the expectation
    assert accuracy_at_coverage([0.9, 0.1], [1, 0], coverage=1e-9) == 1.0
    assert accuracy_at_coverage(np.arange(100), np.arange(100) >= 93, coverage=0.07) == 1.0  # 7.000000000000001


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: area_under_risk_coverage([], []), "n at least 1"),
        (lambda: area_under_risk_coverage([1.0], [1, 0]), "for both"),
        (lambda: area_under_risk_coverage([np.nan], [1]), "must be finite"),
        (lambda: area_under_risk_coverage([1.0], [np.inf]), "must be finite"),
        (lambda: accuracy_at_coverage([1.0], [1], coverage=0.0), "coverage is 0"),
    ],
)
def test_wrong_input_is_a_clear_error(call: object, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        call()  # type: ignore[operator]
