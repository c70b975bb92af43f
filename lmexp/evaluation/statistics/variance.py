"""Where the variance of a score comes from: components of crossed random factors, such as item x prompt x seed.

Cronbach's generalizability theory (Cronbach et al. 1972; Brennan 2001), for evaluations Miller 2024 (arXiv 2411.00640):
a score is a mean plus an effect of its item, of its prompt, of both together, and so on. Every cell of the design holds
one score, so the interaction of all factors can't be told from noise: it is the residual.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import combinations

import numpy as np
from numpy.typing import ArrayLike

from lmexp.evaluation.statistics.bootstrap import N_RESAMPLES, expanded, percentile_interval
from lmexp.evaluation.statistics.clusters import Floats, finite_scores
from lmexp.evaluation.statistics.intervals import CONFIDENCE, Interval

FEW_LEVELS = 20
"""With fewer levels of a factor (fewer prompts) the interval of what it adds is too narrow."""
_MAX_SCORES_AT_ONCE = 1 << 20


@dataclass(frozen=True, slots=True, kw_only=True)
class Component:
    """The part of one factor, or of several together, in the variance of a single score."""

    name: str
    """Factors joined by " x "; "residual" for all of them together, with whatever noise there is."""
    variance: float
    """In squared units of the score; 0 where the estimate is negative."""
    raw: float
    """The estimate as it came out; one below 0 means too little to be seen beside the others."""
    share: float
    """Of the sum of all variances; nan where that is 0."""
    interval: Interval
    """Of the variance; its low end is 0 where resampled estimates are negative."""
    share_interval: Interval
    note: str


def variance_components(
    scores: ArrayLike,
    factors: tuple[str, ...] = ("item", "prompt"),
    *,
    n_resamples: int = N_RESAMPLES,
    seed: int = 0,
    confidence: float = CONFIDENCE,
) -> list[Component]:
    """Components of a balanced crossed design by the method of moments (ANOVA), with bootstrap intervals.

    scores: one axis for each of the factors, each of at least 2 levels: (n_items, n_prompts), or
    (n_items, n_prompts, n_seeds). Levels of all factors are drawn with replacement, and the bias of that is taken
    out. Percentile intervals; the note says where a factor has fewer than 20 levels.

    >>> items, prompts = np.arange(5.0)[:, None], np.array([0.0, 1.0, -1.0])
    >>> for part in variance_components(items + prompts):
    ...     print(part.name, part.variance, round(part.share, 3))
    item 2.5 0.714
    prompt 1.0 0.286
    residual 0.0 0.0
    """
    values = np.asarray(scores, dtype=np.float64)
    _check(values, factors)
    raw = _components(values[None])[0]  # (2, 2, ...)
    drawn = _resampled(values, n_resamples, seed)  # (n_resamples, 2, 2, ...)
    rounding = 1e-12 * float((values**2).mean())
    raw, drawn = (np.where(np.abs(part) <= rounding, 0.0, part) for part in (raw, drawn))
    names = [subset for size in range(1, len(factors) + 1) for subset in combinations(range(len(factors)), size)]
    places = tuple(np.array([[int(axis in subset) for subset in names] for axis in range(len(factors))]))
    found = raw[places]  # (n_components,)
    clipped = np.maximum(drawn[(slice(None), *places)], 0)  # (n_resamples, n_components)
    shares = _shares(clipped)
    wider = [expanded(confidence, min(values.shape[axis] for axis in subset)) for subset in names]
    return [
        Component(
            name="residual" if len(subset) == len(factors) else " x ".join(factors[axis] for axis in subset),
            variance=max(float(found[i]), 0.0),
            raw=float(found[i]),
            share=float(_shares(np.maximum(found, 0))[i]),
            interval=percentile_interval(clipped[:, i], confidence=wider[i]),
            share_interval=percentile_interval(shares[:, i], confidence=wider[i]),
            note=_note(float(found[i]), {factors[axis]: values.shape[axis] for axis in subset}),
        )
        for i, subset in enumerate(names)
    ]


def _components(values: Floats) -> Floats:
    """The component of each set of factors, at index 1 of the axes that are in it; mean^2 at 0, 0, ...

    values: (rows, levels of the first factor, ...) -> (rows, 2, 2, ...), one 2 for each factor.
    E[MS_S] = sum over T containing S of (levels of the factors outside T) x component_T, solved one axis at a time.
    """
    shape = values.shape[1:]
    parts: Floats = values[:, None]  # (rows, sets of factors so far, levels of the first factor, ...)
    for axis in range(2, values.ndim + 1):  # each axis is split into its mean and the deviations from it
        mean = parts.mean(axis=axis, keepdims=True)
        both = np.stack([np.broadcast_to(mean, parts.shape), parts - mean], axis=2)
        parts = both.reshape(len(values), -1, *shape)
    squares = np.square(parts).reshape(len(values), parts.shape[1], -1).sum(axis=2)
    found: Floats = squares.reshape(len(values), *(2 for _ in shape))
    for axis, n in enumerate(shape, start=1):
        of_means, of_deviations = np.moveaxis(found, axis, 0)
        inside = of_deviations / (n - 1)
        found = np.stack([(of_means - inside) / n, inside], axis=axis)
    return found


def _resampled(values: Floats, n_resamples: int, seed: int) -> Floats:
    """Components of resamples, with levels of every factor drawn: (n_resamples, 2, 2, ...)."""
    generators = [np.random.default_rng((seed, axis)) for axis in range(values.ndim)]
    rows = max(1, _MAX_SCORES_AT_ONCE // values.size)
    found = []
    for start in range(0, n_resamples, rows):
        n_rows = min(rows, n_resamples - start)
        levels = [
            np.expand_dims(generator.integers(0, n, size=(n_rows, n)), [a + 1 for a in range(values.ndim) if a != axis])
            for axis, (n, generator) in enumerate(zip(values.shape, generators, strict=True))
        ]
        found.append(_without_bias(_components(values[tuple(levels)]), values.shape))
    return np.concatenate(found)


def _without_bias(components: Floats, shape: tuple[int, ...]) -> Floats:
    """Components of resamples, freed of what drawing some levels twice does to them, exactly in expectation.

    Of n levels drawn with replacement two are the same with chance 1/n: per axis, what varies with it shrinks to
    (n-1)/n, and the rest goes to what doesn't. components: (rows, 2, 2, ...).
    """
    for axis, n in enumerate(shape, start=1):
        outside, inside = np.moveaxis(components, axis, 0)
        components = np.stack([outside - inside / (n - 1), inside * n / (n - 1)], axis=axis)
    return components


def _shares(components: Floats) -> Floats:
    total = components.sum(axis=-1, keepdims=True)
    with np.errstate(invalid="ignore"):
        shares: Floats = np.where(total > 0, components / total, np.nan)
    return shares


def _note(raw: float, levels: dict[str, int]) -> str:
    notes = [f"negative estimate {raw:.3g} reported as 0"] if raw < 0 else []
    few = [f"{n} levels of {name}" for name, n in levels.items() if n < FEW_LEVELS]
    if few:
        notes.append(f"only {' and '.join(few)}: the interval may be too narrow")
    return "; ".join(notes)


def _check(values: Floats, factors: tuple[str, ...]) -> None:
    if values.ndim != len(factors) or len(factors) < 2 or len(set(factors)) < len(factors):
        raise ValueError(
            f"scores has shape {values.shape}, factors are {factors}; expected one axis for each of two or more factors"
        )
    if min(values.shape) < 2:
        raise ValueError(f"scores has shape {values.shape}; expected at least 2 levels of each of {factors}")
    finite_scores(values.ravel(), "scores")
