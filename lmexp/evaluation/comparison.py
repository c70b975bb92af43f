"""From the matched tables of two sides to rows: each figure's difference, with its interval, test and verdict.

one run a side:
  a share of independent samples       exact McNemar; interval of Agresti and Min (2005)
  another mean, or clustered samples   clustered paired t
  a ratio of sums, or exp of one       paired bootstrap over clusters, approximate randomization
several runs on a side:                t over runs and clusters (statistics/runs.py)
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np

from lmexp.evaluation.figures import addends, ratio_of
from lmexp.evaluation.matching import Matched, Table
from lmexp.evaluation.samples import Figure, Samples
from lmexp.evaluation.statistics.bootstrap import resampled_sums
from lmexp.evaluation.statistics.clusters import Floats, sums_by_cluster
from lmexp.evaluation.statistics.intervals import CONFIDENCE, Interval
from lmexp.evaluation.statistics.paired import PairedTest, paired_binary, paired_t
from lmexp.evaluation.statistics.power import ALPHA, minimal_detectable_effect
from lmexp.evaluation.statistics.randomization import randomization_of_sums
from lmexp.evaluation.statistics.runs import Runs, compare_methods, ratio_runs

NOT_TESTED, NOT_COMPARED = "not tested", "not compared"
VERDICTS = (
    *("better", "worse", "higher", "lower"),
    *("equivalent", "not distinguishable", "the same", NOT_TESTED, NOT_COMPARED),
)

OF_THE_INPUT = ("n_tokens", "n_words", "n_bytes")
"""Columns that count what was asked, not what the model made of it: where they differ, ratios to them aren't alike."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Difference:
    """A figure of one side minus the same of the first side, over the samples that all their runs scored."""

    name: str
    """evaluation/figure, such as csqa/acc."""
    kind: str
    """Of the evaluation: multiple_choice."""
    split: str
    definition: str
    unit: str
    higher_is_better: bool | None
    reference: str
    """Letter of the first side."""
    other: str
    """Letter of the side that is compared with it."""
    verdict: str = NOT_TESTED
    """One of VERDICTS, of the other side."""
    primary: bool = False
    """Declared as the one to decide by; the others explore."""
    reference_estimate: float | None = None
    """The figure of the first side over these samples; a mean over its runs."""
    other_estimate: float | None = None
    difference: float | None = None
    """other minus reference."""
    low: float | None = None
    """Lower end of the 95% interval of the difference; None where there is none."""
    high: float | None = None
    se: float | None = None
    df: float | None = None
    """Degrees of freedom of se; None where they are as good as unlimited."""
    p_value: float | None = None
    adjusted_p: float | None = None
    """p_value, corrected for the number of tests."""
    correction: str = ""
    """How it was corrected."""
    detectable: float | None = None
    """The smallest true difference that a comparison like this finds 4 times out of 5."""
    margin: float | None = None
    """The largest difference that doesn't matter, as declared; None where nobody said."""
    equivalence_p: float | None = None
    """For the hypothesis that the difference is the margin or more, corrected as p_value is."""
    n: int = 0
    """Samples compared."""
    n_clusters: int = 0
    cluster: str = ""
    n_runs: tuple[int, int] = (1, 1)
    """Of the reference and of the other side."""
    method: str = ""
    note: str = ""
    """What to know when reading it; why there is no difference, where there is none."""

    @property
    def evaluation(self) -> str:
        """The evaluation that made it."""
        return self.name.partition("/")[0]

    @property
    def within_margin(self) -> bool:
        """Whether the difference was shown to be smaller than the margin."""
        return self.equivalence_p is not None and self.equivalence_p < ALPHA


def compare_figures(
    matched: Matched, *, sides: tuple[str, str], seed: int, done: Callable[[], None] = lambda: None
) -> list[Difference]:
    """A row for each figure of the reference's table. sides: letters of reference and other. done: called after
    each."""
    rows = []
    for figure in matched.reference[0].samples.header.figures:
        rows.append(_compare(figure, matched, sides, seed))
        done()
    return rows


def _compare(figure: Figure, matched: Matched, sides: tuple[str, str], seed: int) -> Difference:
    header = matched.reference[0].samples.header
    row = Difference(
        name=f"{header.name}/{figure.name}",
        kind=header.kind,
        split=header.split,
        definition=f"{figure.definition}; {header.definition}",
        unit=figure.unit,
        higher_is_better=figure.higher_is_better,
        reference=sides[0],
        other=sides[1],
        n=len(matched.reference[0].samples),
        cluster=header.cluster,
        n_runs=(len(matched.reference), len(matched.other)),
    )
    why_not = _why_not(figure, matched)
    if why_not:
        return replace(row, verdict=NOT_COMPARED, note=why_not)
    clusters = np.array(matched.reference[0].samples.values("cluster_id"))
    sizes = sums_by_cluster(np.ones(len(clusters)), clusters)  # (n_clusters,)
    reference, other = (_runs(figure, tables, clusters) for tables in (matched.reference, matched.other))
    estimates = [float(side.figures.mean()) for side in (reference, other)]
    if not all(map(math.isfinite, estimates)):
        return replace(row, verdict=NOT_COMPARED, note="the figure is too large for a number")
    if row.n_runs == (1, 1):
        one, two = matched.reference[0].samples, matched.other[0].samples
        test = _paired(figure, one, two, clusters, seed)
    else:
        test = compare_methods(other, reference, sizes=sizes)
    return replace(
        row,
        reference_estimate=estimates[0],
        other_estimate=estimates[1],
        difference=test.estimate,
        low=test.interval.low,
        high=test.interval.high,
        se=_finite(test.se),
        df=_finite(test.df),
        p_value=test.p_value,
        detectable=_detectable(test.se, test.df),
        n_clusters=len(sizes),
        method=test.method,
        note=test.note,
    )


def _paired(figure: Figure, one: Samples, two: Samples, clusters: Floats, seed: int) -> PairedTest:
    """two minus one, a run each."""
    if figure.denominator is None and not figure.exp:
        a, b = one.numbers(figure.numerator), two.numbers(figure.numerator)
        by_mean = paired_t(figure.scale * (b - a), clusters)
        if not figure.binary or len(np.unique(clusters)) < len(clusters):
            return by_mean
        test = paired_binary(b, a)
        ends = sorted(figure.scale * end for end in (test.interval.low, test.interval.high) if end is not None)
        interval = Interval(ends[0], ends[1])
        return replace(test, estimate=figure.scale * test.estimate, interval=interval, se=by_mean.se, df=by_mean.df)
    columns = [addends(figure, samples) for samples in (two, one)]
    sums = sums_by_cluster(np.concatenate(columns, axis=1), clusters)  # (n_clusters, 4)
    figures = ratio_of(figure)
    drawn = resampled_sums(sums, seed=seed).map(lambda s: figures(s[..., :2]) - figures(s[..., 2:]))
    test = randomization_of_sums(sums[:, :2], sums[:, 2:], figures, n=len(clusters), seed=seed)
    same = bool((sums[:, :2] == sums[:, 2:]).all())
    finite = drawn.draws[np.isfinite(drawn.draws)]
    interval = Interval(None, None, "the two models' scores are the same on every sample") if same else drawn.interval()
    return replace(
        test,
        interval=interval,
        se=0.0 if same else _spread(finite, len(sums)),
        df=float(len(sums) - 1) if len(sums) > 1 else math.nan,
        method=f"{drawn.method}; p from {test.method}",
        note="; ".join(filter(None, (interval.note, test.note))),
    )


def _spread(draws: Floats, n_clusters: int) -> float:
    """Standard error from resamples, which vary less than the truth by (n - 1) / n; nan where there are too few."""
    if len(draws) < 2 or n_clusters < 2:
        return math.nan
    return float(draws.std(ddof=1)) * math.sqrt(n_clusters / (n_clusters - 1))


def _runs(figure: Figure, tables: Sequence[Table], clusters: Floats) -> Runs:
    sums = np.stack([sums_by_cluster(addends(figure, t.samples), clusters) for t in tables])  # (runs, clusters, 2)
    with np.errstate(over="ignore"):
        return ratio_runs(sums[..., 0], sums[..., 1], exp=figure.exp)


def _why_not(figure: Figure, matched: Matched) -> str:
    """Why a figure can't be compared; empty where it can."""
    for table in matched.tables:
        theirs = {f.name: f for f in table.samples.header.figures}.get(figure.name)
        if theirs is None:
            return f"{table.label} doesn't have it: another version of lmexp evaluated it"
        if replace(theirs, definition=figure.definition) != figure:
            return f"{table.label} computes it otherwise: another version of lmexp evaluated it"
        n_wrong = int((~np.isfinite(addends(figure, table.samples)).all(axis=1)).sum())
        if n_wrong:
            return f"the scores of {table.label} are not finite in {n_wrong:,} of {len(table.samples):,} samples"
        if figure.binary and not np.isin(table.samples.numbers(figure.numerator), (0, 1)).all():
            return f"{figure.numerator} of {table.label} is not 0 or 1 for each sample"
        if figure.denominator is not None and not table.samples.numbers(figure.denominator).sum() > 0:
            return f"the sum of {figure.denominator} is 0 in {table.label}"
    if figure.denominator in OF_THE_INPUT:
        counts = [table.samples.numbers(figure.denominator) for table in matched.tables]
        for table, count in zip(matched.tables, counts, strict=True):
            if not np.array_equal(count, counts[0]):
                return _unlike(figure.denominator, matched.tables[0].label, table.label, counts[0], count)
    return ""


def _unlike(column: str, first: str, other: str, one: Floats, two: Floats) -> str:
    what = column.removeprefix("n_")
    fix = "; compare bits per byte" if what == "tokens" else ""
    return (
        f"the same samples have {one.sum():,.0f} {what} in {first} and {two.sum():,.0f} in {other}, "
        f"so a mean over {what} is of different things{fix}"
    )


def _detectable(se: float, df: float) -> float | None:
    """With few degrees of freedom the quantile of t stands in for the normal one."""
    if not 0 < se < math.inf:
        return None
    if not df < math.inf:
        return minimal_detectable_effect(se)
    from scipy import special  # type: ignore[import-untyped]  # here: it takes half a second

    level = (1 + CONFIDENCE) / 2
    return minimal_detectable_effect(se * float(special.stdtrit(df, level) / special.ndtri(level)))


def _finite(value: float) -> float | None:
    return float(value) if math.isfinite(value) else None
