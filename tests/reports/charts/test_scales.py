from __future__ import annotations

import math
from itertools import pairwise

import pytest

from lmexp.reports.charts.scales import Scale, covering, power_ticks, round_ticks


@pytest.mark.parametrize(("low", "high"), [(0, 1), (0.1, 0.9), (1.43, 5.6), (-3, 4e6), (2e-7, 9e-7), (99.5, 100.5)])
def test_ticks_are_round_and_cover_the_range(low: float, high: float) -> None:
    ticks = round_ticks(low, high, cover=True)
    assert 3 <= len(ticks) <= 9
    assert ticks[0] <= low
    assert ticks[-1] >= high
    steps = [after - before for before, after in pairwise(ticks)]
    leading = steps[0] / 10 ** math.floor(math.log10(steps[0]) + 1e-9)
    assert steps == pytest.approx([steps[0]] * len(steps))
    assert round(leading, 6) in (1, 2, 5, 10)
    assert all(low <= tick <= high for tick in round_ticks(low, high))


def test_equal_factors_lie_equally_far_apart() -> None:
    scale = Scale(1.0, 1000.0, 10.0, 40.0, log=True)
    assert [scale(value) for value in (1, 10, 100, 1000)] == pytest.approx([10, 20, 30, 40])


@pytest.mark.parametrize(("low", "high"), [(1, 1e9), (16, 2048), (3, 40), (0.001, 0.5)])
def test_ticks_of_a_logarithmic_scale_are_powers_within(low: float, high: float) -> None:
    ticks = power_ticks(low, high)
    assert 1 <= len(ticks) <= 8
    assert all(low * (1 - 1e-9) <= tick <= high * (1 + 1e-9) for tick in ticks)
    assert len({round(math.log(after / before), 9) for before, after in pairwise(ticks)}) <= 1


@pytest.mark.parametrize("values", [[0.0], [5e-324], [0.0, 5e-324], [1e-310, 1e-309], [1e300], [-1e-320, 1e-320]])
def test_values_that_hardly_differ_can_be_placed(values: list[float]) -> None:
    scale, ticks = covering(values, 0.0, 100.0)
    assert all(-1e-6 <= scale(value) <= 100 + 1e-6 for value in values)
    assert len(ticks) >= 2
