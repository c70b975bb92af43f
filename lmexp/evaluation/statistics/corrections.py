"""p-values of several tests, corrected for their number. What was not tested (nan) stays so and doesn't count."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import ArrayLike

from lmexp.evaluation.statistics.clusters import Floats


def holm(p_values: ArrayLike | Sequence[float | None]) -> Floats:
    """Adjusted p-values that keep the chance of any false rejection below alpha (Holm 1979): for declared metrics.

    p_values: (n,), None or nan where there was no test.

    >>> holm([0.01, 0.04, None, 0.03, 0.005])
    array([0.03, 0.06,  nan, 0.06, 0.02])
    """
    return _adjusted(p_values, "holm")


def benjamini_hochberg(p_values: ArrayLike | Sequence[float | None]) -> Floats:
    """Adjusted p-values that keep the share of false among all rejections below alpha (1995): for exploration.

    p_values: (n,), None or nan where there was no test. For tests that are independent or positively dependent.

    >>> benjamini_hochberg([0.01, 0.04, 0.03, 0.005])
    array([0.02, 0.04, 0.04, 0.02])
    """
    return _adjusted(p_values, "fdr_bh")


def _adjusted(p_values: ArrayLike | Sequence[float | None], method: str) -> Floats:
    values = np.array(p_values, dtype=np.float64)  # None becomes nan
    if values.ndim != 1:
        raise ValueError(f"p_values has shape {values.shape}; expected (n,)")
    tested = ~np.isnan(values)
    wrong = values[tested & ~((values >= 0) & (values <= 1))]
    if wrong.size:
        raise ValueError(f"p_values holds {wrong[0]}; expected numbers from 0 to 1, or nan for no test")
    if tested.any():
        from statsmodels.stats.multitest import multipletests  # type: ignore[import-untyped]  # here: it takes seconds

        values[tested] = multipletests(values[tested], method=method)[1]
    return values
