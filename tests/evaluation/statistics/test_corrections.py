from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lmexp.evaluation.statistics.corrections import benjamini_hochberg, holm


def test_published_numbers() -> None:
    np.testing.assert_allclose(benjamini_hochberg([0.01, 0.04, 0.03, 0.005]), [0.02, 0.04, 0.04, 0.02])
    np.testing.assert_allclose(holm([0.01, 0.04, 0.03, 0.005]), [0.03, 0.06, 0.06, 0.02])


@pytest.mark.parametrize("correct", [holm, benjamini_hochberg])
def test_what_was_not_tested_does_not_count(correct) -> None:  # type: ignore[no-untyped-def]
    adjusted = correct([None, 0.01, np.nan, 0.04])
    np.testing.assert_allclose(adjusted[[1, 3]], correct([0.01, 0.04]))
    assert np.isnan(adjusted[[0, 2]]).all()
    assert correct([]).shape == (0,)
    assert np.isnan(correct([np.nan, np.nan])).all()


@settings(max_examples=20, deadline=None)  # statsmodels collects garbage on each call
@given(st.lists(st.floats(0, 1), min_size=1, max_size=20))
def test_adjusted_values_are_no_smaller_and_keep_the_order(p_values: list[float]) -> None:
    raw = np.array(p_values)
    by_holm, by_rate = holm(raw), benjamini_hochberg(raw)
    for adjusted in (by_holm, by_rate):
        assert (adjusted >= raw - 1e-15).all() and (adjusted <= 1).all()
        assert (np.diff(adjusted[np.argsort(raw, kind="stable")]) >= -1e-15).all()
    assert (by_holm >= by_rate - 1e-12).all()
    assert by_holm.min() == pytest.approx(min(1, raw.min() * len(raw)))


@pytest.mark.parametrize("wrong", [[0.5, 1.5], [-0.1], [np.inf]])
def test_what_is_no_p_value_is_refused(wrong: list[float]) -> None:
    with pytest.raises(ValueError, match="from 0 to 1"):
        holm(wrong)
    with pytest.raises(ValueError, match="shape"):
        holm([wrong])


def test_input_is_left_alone() -> None:
    given_values = np.array([0.01, 0.04])
    holm(given_values)
    np.testing.assert_array_equal(given_values, [0.01, 0.04])
