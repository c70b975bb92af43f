from __future__ import annotations

import math

import numpy as np
import pytest
from scipy import special, stats
from statsmodels.stats.weightstats import DescrStatsW

from lmexp.evaluation.statistics.power import minimal_detectable_effect, tost


def test_minimal_detectable_effect_is_the_published_multiple() -> None:
    assert minimal_detectable_effect(1.0) == pytest.approx(1.96 + 0.84, abs=0.002)
    assert minimal_detectable_effect(2.0, power=0.9, alpha=0.01) == pytest.approx(
        2 * (special.ndtri(0.995) + special.ndtri(0.9))
    )
    assert minimal_detectable_effect(0.0) == 0


def test_an_effect_of_that_size_is_found_with_that_power() -> None:
    effect = minimal_detectable_effect(0.5)
    estimates = effect + 0.5 * np.random.default_rng(0).normal(size=20_000)
    assert np.mean(2 * special.ndtr(-np.abs(estimates) / 0.5) < 0.05) == pytest.approx(0.8, abs=0.01)


def test_tost_equals_statsmodels() -> None:
    values = np.random.default_rng(1).normal(0.05, 1, 80)
    expected, *_ = DescrStatsW(values).ttost_mean(-0.4, 0.4)
    ours = tost(float(values.mean()), float(stats.sem(values)), 79, 0.4)
    assert ours.p_value == pytest.approx(float(expected))
    expected, *_ = DescrStatsW(values - 0.5).ttost_mean(-0.4, 0.4)
    ours = tost(float(values.mean() - 0.5), float(stats.sem(values)), 79, 0.4)
    assert ours.p_value == pytest.approx(float(expected))


@pytest.mark.parametrize("difference", np.linspace(-0.3, 0.3, 13))
def test_the_90_interval_is_within_the_margins_exactly_when_equivalent(difference: float) -> None:
    result = tost(float(difference), 0.1, 20, 0.3)
    assert result.interval.low is not None and result.interval.high is not None
    assert result.equivalent == (max(-result.interval.low, result.interval.high) < 0.3)
    assert result.equivalent == (result.p_value < 0.05)


def test_at_the_margin_it_is_called_equivalent_5_times_in_100() -> None:
    estimates = 1.0 + 0.1 * np.random.default_rng(2).normal(size=4000)
    assert np.mean([tost(x, 0.1, math.inf, 1.0).equivalent for x in estimates]) == pytest.approx(0.05, abs=0.01)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: minimal_detectable_effect(-1.0), "se is -1"),
        (lambda: minimal_detectable_effect(math.nan), "se is nan"),
        (lambda: minimal_detectable_effect(1.0, power=1.0), "power is 1"),
        (lambda: tost(0.0, 1.0, 9, 0.0), "margin is 0"),
        (lambda: tost(0.0, 0.0, 9, 1.0), "no spread"),
        (lambda: tost(0.0, 1.0, 9, 1.0, alpha=0.5), "alpha is 0.5"),
    ],
)
def test_wrong_input_is_a_clear_error(call: object, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        call()  # type: ignore[operator]
