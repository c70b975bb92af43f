from __future__ import annotations

import itertools

import numpy as np
import pandas as pd
import pytest
from numpy.typing import NDArray
from statsmodels.formula.api import ols
from statsmodels.stats.anova import anova_lm

from lmexp.evaluation.statistics import variance
from lmexp.evaluation.statistics.variance import _components, _without_bias, variance_components

Floats = NDArray[np.float64]


def crossed(generator: np.random.Generator, items: int, prompts: int) -> Floats:
    """Scores with variance 2 from items, 1 from prompts, 3 from both."""
    rows = generator.normal(0, 2**0.5, (items, 1)) + generator.normal(size=(1, prompts))
    return rows + generator.normal(0, 3**0.5, (items, prompts))


def test_components_are_those_of_the_anova_table() -> None:
    y = crossed(np.random.default_rng(0), 7, 4)
    item, prompt = (index.ravel() for index in np.indices(y.shape))
    frame = pd.DataFrame({"y": y.ravel(), "item": item, "prompt": prompt})
    table = anova_lm(ols("y ~ C(item) + C(prompt)", frame).fit())
    squares = table["mean_sq"]
    expected = {
        "item": (squares["C(item)"] - squares["Residual"]) / 4,
        "prompt": (squares["C(prompt)"] - squares["Residual"]) / 7,
        "residual": squares["Residual"],
    }
    found = {part.name: part.raw for part in variance_components(y, n_resamples=10)}
    assert found == pytest.approx(expected)


def test_three_factors_equal_the_textbook_formulas() -> None:
    y = np.random.default_rng(1).normal(size=(5, 4, 3))
    squares = {}
    for chosen in itertools.product((0, 1), repeat=3):
        part = y
        for axis in range(3):
            mean = part.mean(axis=axis, keepdims=True)
            part = part - mean if chosen[axis] else np.broadcast_to(mean, part.shape)
        squares[chosen] = (part**2).sum() / np.prod([y.shape[a] - 1 for a in range(3) if chosen[a]])
    expected = {
        "item": (squares[1, 0, 0] - squares[1, 1, 0] - squares[1, 0, 1] + squares[1, 1, 1]) / 12,
        "item x seed": (squares[1, 0, 1] - squares[1, 1, 1]) / 4,
        "prompt x seed": (squares[0, 1, 1] - squares[1, 1, 1]) / 5,
        "residual": squares[1, 1, 1],
    }
    found = {part.name: part.raw for part in variance_components(y, ("item", "prompt", "seed"), n_resamples=10)}
    assert len(found) == 7
    assert {name: found[name] for name in expected} == pytest.approx(expected)


def test_components_are_right_on_average() -> None:
    generator = np.random.default_rng(2)
    average = _components(np.stack([crossed(generator, 6, 5) for _ in range(4000)])).mean(axis=0)
    assert average[1, 0] == pytest.approx(2, abs=0.15)
    assert average[0, 1] == pytest.approx(1, abs=0.12)
    assert average[1, 1] == pytest.approx(3, abs=0.1)


def test_resamples_are_right_on_average_too() -> None:
    generator = np.random.default_rng(3)
    y = crossed(generator, 6, 4)
    items, prompts = generator.integers(0, 6, (20_000, 6, 1)), generator.integers(0, 4, (20_000, 1, 4))
    drawn, truth = _components(y[items, prompts]), _components(y[None])[0]
    corrected = _without_bias(drawn, y.shape).mean(axis=0)
    np.testing.assert_allclose(corrected[[0, 1, 1], [1, 0, 1]], truth[[0, 1, 1], [1, 0, 1]], atol=0.1)
    assert abs(drawn.mean(axis=0)[1, 1] - truth[1, 1]) > 0.5  # what the correction is for


def test_chunks_do_not_change_results(monkeypatch: pytest.MonkeyPatch) -> None:
    y = crossed(np.random.default_rng(6), 12, 7)
    at_once = variance_components(y, n_resamples=40)
    monkeypatch.setattr(variance, "_MAX_SCORES_AT_ONCE", 300)
    assert variance_components(y, n_resamples=40) == at_once


def test_intervals_cover() -> None:
    generator, n_trials = np.random.default_rng(4), 120
    covered = np.zeros(3)
    for trial in range(n_trials):
        parts = variance_components(crossed(generator, 50, 25), n_resamples=200, seed=trial)
        for place, (part, truth) in enumerate(zip(parts, (2, 1, 3), strict=True)):
            assert part.interval.low is not None and part.interval.high is not None
            covered[place] += part.interval.low <= truth <= part.interval.high
    assert (covered / n_trials >= 0.89).all()  # 93 less two standard errors of 120 trials


def test_a_negative_estimate_is_0_and_says_so() -> None:
    y = np.array([[0.0, 1.0], [1.0, 0.0]])
    item, prompt, residual = variance_components(y, n_resamples=20)
    assert item.raw == pytest.approx(-0.5)
    assert (item.variance, item.share, prompt.variance) == (0, 0, 0)
    assert "negative estimate -0.5 reported as 0" in item.note
    assert residual.share == 1


def test_equal_scores_have_no_variance_to_share() -> None:
    for part in variance_components(np.full((4, 3), 0.1), n_resamples=20):
        assert part.variance == 0 and np.isnan(part.share)
        assert part.share_interval.low is None


def test_shares_sum_to_1_and_few_levels_are_named() -> None:
    parts = variance_components(crossed(np.random.default_rng(5), 30, 4), n_resamples=50)
    assert sum(part.share for part in parts) == pytest.approx(1)
    assert parts[0].note == ""
    assert "only 4 levels of prompt" in parts[1].note


@pytest.mark.parametrize(
    ("scores", "factors", "message"),
    [
        (np.zeros((3, 1)), ("item", "prompt"), "at least 2 levels"),
        (np.zeros(3), ("item",), "two or more factors"),
        (np.zeros((3, 3)), ("item", "item"), "two or more factors"),
        (np.array([[np.nan, 1], [1, 2]]), ("item", "prompt"), "scores holds nan"),
    ],
)
def test_wrong_input_is_a_clear_error(scores: Floats, factors: tuple[str, ...], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        variance_components(scores, factors)
