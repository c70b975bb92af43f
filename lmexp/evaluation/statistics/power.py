"""What a comparison could have seen: the smallest difference it would find, the size it needs, and equivalence."""

from __future__ import annotations

import math
from dataclasses import dataclass
from statistics import NormalDist

from lmexp.evaluation.statistics.intervals import Interval, check_share, t_interval

ALPHA = 0.05
POWER = 0.8


def minimal_detectable_effect(se: float, *, power: float = POWER, alpha: float = ALPHA) -> float:
    """The true difference that a two-sided test at alpha finds with this power: (1.96 + 0.84) * se by default.

    se: standard error of the difference, such as that of paired_t, from 30 clusters or so (normal quantiles).

    >>> round(minimal_detectable_effect(0.01), 4)
    0.028
    """
    check_share("power", power)
    check_share("alpha", alpha)
    if not 0 <= se < math.inf:
        raise ValueError(f"se is {se}; expected the standard error of a difference, 0 or more")
    normal = NormalDist()
    return (normal.inv_cdf(1 - alpha / 2) + normal.inv_cdf(power)) * se


@dataclass(frozen=True, slots=True, kw_only=True)
class Equivalence:
    """Whether a difference is small enough not to matter."""

    difference: float
    margin: float
    p_value: float
    """For the hypothesis that the true difference is the margin or more, either way."""
    interval: Interval
    """At confidence 1 - 2 alpha: within the margins exactly when p_value < alpha."""
    equivalent: bool


def tost(difference: float, se: float, df: float, margin: float, *, alpha: float = ALPHA) -> Equivalence:
    """Two one-sided t tests for -margin < true difference < margin (Schuirmann 1987). The margin is declared before.

    difference, se, df: as paired_t gives them; df=math.inf for a normal estimate.

    >>> result = tost(0.001, 0.004, 99, margin=0.01)
    >>> round(result.p_value, 3), result.equivalent
    (0.013, True)
    """
    if not margin > 0:
        raise ValueError(f"margin is {margin}; expected the largest difference that doesn't matter, above 0")
    if not 0 < alpha < 0.5:
        raise ValueError(f"alpha is {alpha}; expected a number between 0 and 0.5")
    if not (0 < se < math.inf and df > 0 and math.isfinite(difference)):
        raise ValueError(
            f"difference is {difference}, se {se}, df {df}; expected finite numbers and se and df above 0: "
            f"where no cluster deviates there is no spread to judge by"
        )
    from scipy import special  # type: ignore[import-untyped]  # here: it takes half a second

    p_value = float(special.stdtr(df, (abs(difference) - margin) / se))
    return Equivalence(
        difference=difference,
        margin=margin,
        p_value=p_value,
        interval=t_interval(difference, se, df, confidence=1 - 2 * alpha),
        equivalent=p_value < alpha,
    )
