"""Calibration: whether a model that says 80% is right 8 times in 10. Pure functions of probabilities and outcomes.

Expected calibration error with bins of equal mass, as `get_ece_em` of uncertainty-calibration (Kumar et al. 2019,
arXiv 1909.10155); temperature scaling (Guo et al. 2017, arXiv 1706.04599), never fitted on what it is applied to.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]

N_BINS = 10
MAX_TEMPERATURE = 100.0
"""Temperatures are sought from 1 / this to this."""


@dataclass(frozen=True, slots=True)
class Reliability:
    """The reliability curve: one entry for each bin that holds items, in the order of confidence."""

    confidence: Floats
    """Mean confidence of the bin's items."""
    accuracy: Floats
    """Share of them that are right."""
    n: Ints
    """How many they are."""


def reliability_curve(confidence: ArrayLike, correct: ArrayLike, *, n_bins: int = N_BINS) -> Reliability:
    """Mean confidence and accuracy in bins of equal mass, cut midway between neighbouring confidences.

    confidence: (n,) from 0 to 1, both counted; correct: (n,) 0 or 1. Equal confidences share a bin, so there may be
    fewer bins, and none for fewer items than bins.

    >>> reliability_curve([0.2, 0.4, 0.9, 1.0], [0, 1, 1, 1], n_bins=2)
    Reliability(confidence=array([0.3 , 0.95]), accuracy=array([0.5, 1. ]), n=array([2, 2]))
    """
    p, hits = _pairs(confidence, correct)
    if n_bins < 1:
        raise ValueError(f"n_bins is {n_bins}; expected at least 1")
    order = np.argsort(p)
    p, hits = p[order], hits[order]
    size = -(-len(p) // min(n_bins, len(p)))
    cuts = np.arange(size, len(p), size)
    middles = (p[cuts - 1] + p[cuts]) / 2
    ends = np.unique(np.append(np.searchsorted(p, middles, side="right"), len(p)))  # a middle belongs to the lower bin
    starts = np.append(0, ends[:-1])[: len(ends)]
    n = ends - starts
    return Reliability(np.add.reduceat(p, starts) / n, np.add.reduceat(hits, starts) / n, n)


def expected_calibration_error(confidence: ArrayLike, correct: ArrayLike, *, n_bins: int = N_BINS) -> float:
    """Mean over items of |accuracy - confidence| of their bin: 0 is calibrated. Biased upwards: report n with it.

    >>> round(expected_calibration_error([0.7] * 10, [1] * 9 + [0]), 6)
    0.2
    """
    curve = reliability_curve(confidence, correct, n_bins=n_bins)
    return float((curve.n * np.abs(curve.accuracy - curve.confidence)).sum() / curve.n.sum())


def brier_scores(probabilities: ArrayLike, targets: ArrayLike) -> Floats:
    """sum over classes of (p_k - y_k)^2 for each item, 0 to 2; the Brier score is their mean (Brier 1950).

    probabilities: (n, n_classes), rows sum to 1; targets: (n,) class numbers -> (n,)

    >>> brier_scores([[0.5, 0.5], [0.0, 1.0]], [0, 1])
    array([0.5, 0. ])
    """
    p, labels = _classes(probabilities, targets)
    return np.asarray((p**2).sum(axis=1) - 2 * p[np.arange(len(p)), labels] + 1)


def negative_log_likelihoods(probabilities: ArrayLike, targets: ArrayLike) -> Floats:
    """-ln of the probability of each item's target, in nats; inf where that is 0; NLL is their mean.

    probabilities: (n, n_classes), rows sum to 1; targets: (n,) class numbers -> (n,)

    >>> negative_log_likelihoods([[0.25, 0.75], [0.0, 1.0]], [0, 1]).round(4)
    array([1.3863, 0.    ])
    """
    p, labels = _classes(probabilities, targets)
    with np.errstate(divide="ignore"):
        return np.asarray(-np.log(p[np.arange(len(p)), labels])) + 0.0


@dataclass(frozen=True, slots=True)
class Scaled:
    """Probabilities after temperature scaling by cross-fitting."""

    probabilities: Floats
    """(n, n_classes)"""
    temperatures: Floats
    """(n_folds,); at an end of the range (0.01, 100) there is no best one, as where every item is right."""
    folds: Ints
    """(n,) the fold of each item, to which the temperature of that number was applied."""


def cross_fitted_temperature(
    logits: ArrayLike, targets: ArrayLike, clusters: ArrayLike | None = None, *, n_folds: int = 5, seed: int = 0
) -> Scaled:
    """softmax(logits / temperature), the temperature of each fold fitted on the other folds alone.

    logits: (n, n_classes) or log-likelihoods of choices; -inf where an item has fewer choices. targets: (n,);
    clusters: (n,) stay together in a fold; without them each item is its own. There must be n_folds or more.

    >>> logits = np.array([[4.0, 0.0]] * 10)  # 98% sure, and right in 8 of 10
    >>> scaled = cross_fitted_temperature(logits, [0, 0, 0, 0, 1] * 2, [0, 0, 0, 0, 0, 1, 1, 1, 1, 1], n_folds=2)
    >>> scaled.probabilities[0].round(3)
    array([0.8, 0.2])
    """
    scores, labels = _logits(logits, targets)
    ids = np.arange(len(scores)) if clusters is None else np.unique(np.asarray(clusters), return_inverse=True)[1]
    if ids.shape != labels.shape:
        raise ValueError(f"clusters has shape {ids.shape}; expected the cluster of each item: {labels.shape}")
    n_clusters = int(ids.max()) + 1
    if not 2 <= n_folds <= n_clusters:
        raise ValueError(f"n_folds is {n_folds} for {n_clusters} clusters; expected 2 to {n_clusters}")
    fold_of_cluster = np.random.default_rng(seed).permutation(n_clusters) % n_folds
    folds = fold_of_cluster[ids]
    temperatures = np.array([fit_temperature(scores[folds != k], labels[folds != k]) for k in range(n_folds)])
    return Scaled(_softmax(scores / temperatures[folds, None]), temperatures, folds)


def fit_temperature(logits: ArrayLike, targets: ArrayLike) -> float:
    """The temperature that minimizes the NLL of softmax(logits / temperature) on these very items.

    The NLL is convex in 1 / temperature, so halving finds where its slope is 0; 0.01 or 100 if beyond.

    >>> round(fit_temperature([[4.0, 0.0]] * 5, [0, 0, 0, 0, 1]), 4)  # 4 / ln(0.8 / 0.2)
    2.8854
    """
    scores, labels = _logits(logits, targets)
    chosen = scores[np.arange(len(scores)), labels]
    finite = np.where(np.isneginf(scores), 0.0, scores)  # they have probability 0

    def slope(inverse: float) -> float:
        return float(((_softmax(scores * inverse) * finite).sum(axis=1) - chosen).mean())

    low, high = -np.log(MAX_TEMPERATURE), np.log(MAX_TEMPERATURE)  # of 1 / temperature
    if slope(float(np.exp(low))) >= 0:
        return MAX_TEMPERATURE
    if slope(float(np.exp(high))) <= 0:
        return 1 / MAX_TEMPERATURE
    while high - low > 1e-10:
        middle = (low + high) / 2
        low, high = (middle, high) if slope(float(np.exp(middle))) < 0 else (low, middle)
    return float(np.exp(-(low + high) / 2))


def _softmax(logits: Floats) -> Floats:
    raised = np.exp(logits - logits.max(axis=1, keepdims=True))
    return np.asarray(raised / raised.sum(axis=1, keepdims=True))


def _pairs(confidence: ArrayLike, correct: ArrayLike) -> tuple[Floats, Floats]:
    p, hits = np.asarray(confidence, np.float64), np.asarray(correct, np.float64)
    if p.ndim != 1 or p.shape != hits.shape or not p.size:
        raise ValueError(f"confidence has shape {p.shape}, correct {hits.shape}; expected (n,) for both, n at least 1")
    if not ((p >= 0) & (p <= 1)).all():
        raise ValueError(f"confidence holds {p[~((p >= 0) & (p <= 1))][0]}; expected probabilities from 0 to 1")
    if not ((hits == 0) | (hits == 1)).all():
        raise ValueError(f"correct holds {hits[(hits != 0) & (hits != 1)][0]}; expected 0 or 1 for each item")
    return p, hits


def _classes(probabilities: ArrayLike, targets: ArrayLike) -> tuple[Floats, Ints]:
    p, labels = _rows("probabilities", probabilities, targets)
    if not (p >= 0).all() or not (np.abs(p.sum(axis=1) - 1) < 1e-4).all():
        raise ValueError("probabilities must be 0 or more and sum to 1 in each row; take the softmax of logits first")
    return p, labels


def _logits(logits: ArrayLike, targets: ArrayLike) -> tuple[Floats, Ints]:
    scores, labels = _rows("logits", logits, targets)
    if np.isnan(scores).any() or np.isposinf(scores).any():
        raise ValueError("logits holds nan or inf; expected finite numbers, or -inf where an item has fewer choices")
    if np.isneginf(scores[np.arange(len(scores)), labels]).any():
        raise ValueError("logits is -inf at an item's target; no temperature makes that possible")
    return scores, labels


def _rows(name: str, rows: ArrayLike, targets: ArrayLike) -> tuple[Floats, Ints]:
    values, labels = np.asarray(rows, np.float64), np.asarray(targets)
    if values.ndim != 2 or labels.shape != (len(values),) or not values.size:
        raise ValueError(f"{name} has shape {values.shape}, targets {labels.shape}; expected (n, n_classes) and (n,)")
    if labels.dtype.kind not in "iu" or not ((labels >= 0) & (labels < values.shape[1])).all():
        raise ValueError(f"targets must be class numbers from 0 to {values.shape[1] - 1}")
    return values, labels.astype(np.int64)
