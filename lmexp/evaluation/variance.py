"""How much a score hangs on the way of asking: prompts, order of the choices, solved items shown.

Read from the tables of evaluations that asked each item in several ways, without the model. A score is a mean plus an
effect of its item, of its prompt, of both together, and so on; see lmexp.evaluation.statistics.variance.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lmexp.evaluation.config import VarianceConfig
from lmexp.evaluation.context import EvaluationContext
from lmexp.evaluation.plot import Plot, Series
from lmexp.evaluation.row import Row, not_measured
from lmexp.evaluation.samples import Samples
from lmexp.evaluation.statistics.bootstrap import N_RESAMPLES
from lmexp.evaluation.statistics.intervals import clustered_mean
from lmexp.evaluation.statistics.variance import Component, variance_components

FACTORS = {"prompt": "prompt_id", "seed": "seed", "order": "perturbation"}
"""Way of asking -> column that tells it."""
ORDER = "order-"
"""What a perturbation that is an order of the choices begins with; the given order has none."""


@dataclass(frozen=True, slots=True)
class Design:
    """A table as a block: every item asked in each combination of the levels of some factors."""

    samples: Samples
    levels: dict[str, list[Any]]
    """Factor -> its levels."""
    scores: NDArray[np.float64]
    """(n_items, n_levels of each factor...)"""
    predictions: NDArray[np.object_]
    """The same shape."""
    clusters: NDArray[np.int64]
    """(n_items,)"""

    @property
    def where(self) -> str:
        """What the effects are of."""
        ways = [f"{len(levels)} {factor}s" for factor, levels in self.levels.items()]
        return f"{len(self.scores):,} items x {' x '.join(ways)}; {self.samples.header.definition}"


class Variance:
    """Rows for each table whose items were asked in several ways."""

    runs_last = True

    def __init__(self, config: VarianceConfig) -> None:
        self.config = config

    def run(self, context: EvaluationContext) -> list[Row]:
        name = context.name or self.config.kind
        rows = []
        for table, samples in context.samples.items():
            design = design_of(samples)
            if isinstance(design, Design):
                rows += rows_of_design(f"{name}/{table}", design, seed=context.seed)
            elif design:
                rows.append(_nothing(f"{name}/{table}/sd", samples.header.split, design))
        if rows:
            return rows
        why = (
            "no evaluation asked its items in several ways; give one of kind multiple_choice prompts, seeds or "
            "option_orders, e.g. evaluation.csqa.option_orders=4"
        )
        return [_nothing(f"{name}/sd", "", why)]


def design_of(samples: Samples) -> Design | str:
    """The table as a block; "" where items were asked in one way, and otherwise why it is none."""
    names = {factor: samples.values(column) for factor, column in FACTORS.items()}
    if any(text and not text.startswith(ORDER) for text in names["order"]):
        return ""  # perturbed items: another evaluation's business
    levels = {factor: list(dict.fromkeys(column)) for factor, column in names.items()}
    levels = {factor: found for factor, found in levels.items() if len(found) > 1}
    if not levels:
        return ""
    items = list(dict.fromkeys(samples.values("sample_id")))
    if len(items) < 2:
        return "only one item was asked"
    place = {item: i for i, item in enumerate(items)}
    shape = (len(items), *(len(found) for found in levels.values()))
    scores, predictions = np.full(shape, np.nan), np.full(shape, None, dtype=object)
    clusters = np.zeros(len(items), dtype=np.int64)
    columns = zip(
        samples.values("sample_id"),
        *(names[factor] for factor in levels),
        samples.numbers("score").tolist(),
        samples.values("prediction"),
        samples.clusters().tolist(),
        strict=True,
    )
    for item, *ways, score, prediction, cluster in columns:
        cell = (place[item], *(found.index(way) for found, way in zip(levels.values(), ways, strict=True)))
        scores[cell], predictions[cell], clusters[cell[0]] = score, prediction, cluster
    if len(samples) != scores.size or not np.isfinite(scores).all():
        return "not every item has a finite score for each way of asking"
    return Design(samples, levels, scores, predictions, clusters)


def rows_of_design(name: str, design: Design, *, seed: int) -> list[Row]:
    """Range, standard deviation and flips of each factor, the components, and the mean of each level."""
    factors = tuple(design.levels)
    components = {part.name: part for part in variance_components(design.scores, ("item", *factors), seed=seed)}
    rows = []
    for axis, factor in enumerate(factors, 1):
        rows += [_range(name, design, factor, axis), _deviation(name, design, factor, components[factor], seed)]
        rows.append(_flips(name, design, factor, axis))
    rows[0] = replace(rows[0], plot=_plot(name, design))
    rows += [_share(name, design, part, seed) for part in components.values()]
    return rows + list(_levels(name, design))


def _level_means(design: Design, axis: int) -> NDArray[np.float64]:
    others = tuple(i for i in range(design.scores.ndim) if i != axis)
    means: NDArray[np.float64] = design.scores.mean(axis=others)
    return means


def _row(name: str, design: Design, definition: str, **found: Any) -> Row:
    return Row(
        name=name,
        split=design.samples.header.split,
        definition=f"{definition}; {design.where}",
        n=found.pop("n", design.scores.size),
        n_clusters=int(np.unique(design.clusters).size),
        aspect="robustness",
        **found,
    )


def _range(name: str, design: Design, factor: str, axis: int) -> Row:
    means = _level_means(design, axis)
    return _row(
        f"{name}/{factor}_range",
        design,
        f"largest minus smallest mean score among the {len(means)} {factor}s",
        estimate=float(means.max() - means.min()),
        method="no interval: it grows with the number of levels",
        higher_is_better=False,
    )


def _deviation(name: str, design: Design, factor: str, part: Component, seed: int) -> Row:
    return _row(
        f"{name}/{factor}_sd",
        design,
        f"standard deviation of the mean score between {factor}s, beyond what the items explain",
        estimate=math.sqrt(part.variance),
        low=_root(part.interval.low),
        high=_root(part.interval.high),
        method=_method(part, seed),
        higher_is_better=False,
    )


def _flips(name: str, design: Design, factor: str, axis: int) -> Row:
    first = np.take(design.predictions, [0], axis=axis)
    flipped = (design.predictions != first).any(axis=axis).reshape(len(design.scores), -1)  # (n_items, other levels)
    mean = clustered_mean(flipped.mean(axis=1), design.clusters)
    return _row(
        f"{name}/{factor}_flips",
        design,
        f"share of items whose answer isn't the same under all {factor}s, all else equal",
        estimate=mean.estimate,
        low=mean.interval.low,
        high=mean.interval.high,
        method=mean.method,
        higher_is_better=False,
    )


def _share(name: str, design: Design, part: Component, seed: int) -> Row:
    definition = f"share of {part.name} in the variance of a single score"
    if math.isnan(part.share):
        why = "all scores are equal: there is no variance"
        return _nothing(f"{name}/share[{part.name}]", design.samples.header.split, why, definition)
    interval = part.share_interval
    finite = interval.low is not None and interval.high is not None and math.isfinite(interval.low + interval.high)
    return _row(
        f"{name}/share[{part.name}]",
        design,
        definition,
        estimate=part.share,
        low=interval.low if finite else None,
        high=interval.high if finite else None,
        method=_method(part, seed),
    )


def _levels(name: str, design: Design) -> Iterator[Row]:
    figure = design.samples.header.figures[0]
    for axis, (factor, levels) in enumerate(design.levels.items(), 1):
        for number, level in enumerate(levels):
            scores = np.take(design.scores, number, axis=axis).reshape(len(design.scores), -1)
            mean = clustered_mean(scores.mean(axis=1), design.clusters)
            yield _row(
                f"{name}/{figure.name}[{factor}={'given' if level == '' else level}]",
                design,
                f"mean score with one {factor} alone",
                n=scores.size,
                estimate=mean.estimate,
                low=mean.interval.low,
                high=mean.interval.high,
                method=mean.method,
                higher_is_better=figure.higher_is_better,
            )


def _plot(name: str, design: Design) -> Plot:
    found = [(factor, mean) for axis, factor in enumerate(design.levels, 1) for mean in _level_means(design, axis)]
    return Plot(
        kind="dots",
        title=f"mean score by way of asking: {name.partition('/')[2]}",
        series=[Series(label="a level", x=[factor for factor, _ in found], y=[float(mean) for _, mean in found])],
        y_label=design.samples.header.figures[0].name,
        higher_is_better=design.samples.header.figures[0].higher_is_better,
    )


def _method(part: Component, seed: int) -> str:
    words = f"ANOVA components, bootstrap over items and ways of asking, {N_RESAMPLES:,} resamples, seed {seed}"
    return f"{words}; {part.note}" if part.note else words


def _root(value: float | None) -> float | None:
    return None if value is None else math.sqrt(value)


def _nothing(name: str, split: str, why: str, definition: str = "how much scores hang on the way of asking") -> Row:
    return replace(not_measured(name, split, definition, why), aspect="robustness")
