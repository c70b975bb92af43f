"""Selective prediction: how good the answers are when a model may keep silent where it is least confident.

Risk is the mean loss of the items answered, coverage their share (El-Yaniv and Wiener 2010; Geifman and El-Yaniv
2017). Items of equal confidence are answered in random order, and the figures are expectations over it: they never
depend on the order in which items come.
"""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import ArrayLike, NDArray

Floats = NDArray[np.float64]


def risk_coverage_curve(confidence: ArrayLike, losses: ArrayLike) -> tuple[Floats, Floats]:
    """Coverage 1/n, 2/n, ..., 1, and the expected risk of the so many most confident items: (n,) each.

    confidence: (n,) any finite numbers, higher is surer; losses: (n,) of each item, such as 1 - correct.

    >>> risk_coverage_curve([0.9, 0.5, 0.5, 0.1], [0, 0, 1, 1])[1].round(3)
    array([0.   , 0.25 , 0.333, 0.5  ])
    """
    sure, values = _pairs(confidence, losses)
    n = len(sure)
    order = np.argsort(-sure, kind="stable")
    sure, values = sure[order], values[order]
    starts = np.flatnonzero(np.append(True, np.diff(sure) != 0))  # of groups of equal confidence
    sizes = np.diff(starts, append=n)
    expected = np.repeat(np.add.reduceat(values, starts) / sizes, sizes)  # of each place
    places = np.arange(1, n + 1)
    return places / n, np.cumsum(expected) / places


def area_under_risk_coverage(confidence: ArrayLike, losses: ArrayLike) -> float:
    """AURC: the mean of the risk-coverage curve; lower is better, the overall mean loss if confidence says nothing.

    >>> round(area_under_risk_coverage([0.9, 0.8, 0.1], [0, 0, 1]), 4)
    0.1111
    """
    return float(risk_coverage_curve(confidence, losses)[1].mean())


def excess_area(confidence: ArrayLike, losses: ArrayLike) -> float:
    """AURC above that of the best order, lowest losses first: 0 is the best (Geifman et al. 2019, arXiv 1805.08206).

    >>> excess_area([3, 2, 1], [0, 0, 1]), round(excess_area([1, 2, 3], [0, 0, 1]), 4)
    (0.0, 0.5)
    """
    values = _pairs(confidence, losses)[1]
    return area_under_risk_coverage(confidence, values) - area_under_risk_coverage(-values, values)


def accuracy_at_coverage(confidence: ArrayLike, correct: ArrayLike, *, coverage: float = 0.1) -> float:
    """Expected accuracy of the most confident items, `coverage` of all of them, rounded up to whole items.

    >>> accuracy_at_coverage([0.9, 0.8, 0.7, 0.1], [1, 1, 0, 0], coverage=0.5)
    1.0
    """
    if not 0 < coverage <= 1:
        raise ValueError(f"coverage is {coverage}; expected a share above 0, at most 1")
    accuracy = risk_coverage_curve(confidence, correct)[1]
    return float(accuracy[max(0, math.ceil(coverage * len(accuracy) - 1e-9) - 1)])


def _pairs(confidence: ArrayLike, losses: ArrayLike) -> tuple[Floats, Floats]:
    sure, values = np.asarray(confidence, np.float64), np.asarray(losses, np.float64)
    if sure.ndim != 1 or sure.shape != values.shape or not sure.size:
        raise ValueError(
            f"confidence has shape {sure.shape}, scores of items {values.shape}; expected (n,) for both, n at least 1"
        )
    if not (np.isfinite(sure).all() and np.isfinite(values).all()):
        raise ValueError("confidence and scores must be finite; leave out the items that have none, and say so")
    return sure, values
