"""What may be concluded from the differences of a comparison, all of its tests taken together.

The primary figures were declared before: any false finding among them is unlikely (Holm). The others explore: few of
what is found there is false (Benjamini-Hochberg). That there is no difference is never found, but that it is smaller
than a margin may be, where one was declared.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field, replace

from lmexp.errors import ConfigError
from lmexp.evaluation.comparison import NOT_COMPARED, NOT_TESTED, Difference
from lmexp.evaluation.row import figure
from lmexp.evaluation.statistics.corrections import benjamini_hochberg, holm
from lmexp.evaluation.statistics.power import ALPHA, tost

BASELINES = "baselines"
"""Kind of the evaluation whose figures aren't primary unless they are named."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Declared:
    """What was said before anybody looked. A name is a figure's, of every evaluation (acc), or of one (csqa/acc)."""

    primary: tuple[str, ...] = ()
    """Names of the primary figures; none stands for the first of each evaluation that can be compared, baselines apart:
    counting is the same for both sides, and how far a model lies above it is its own figure once more."""
    margin: float | None = None
    """The largest difference of a primary figure that doesn't matter."""
    margins: dict[str, float] = field(default_factory=dict)
    """The same of figures by name."""

    def __post_init__(self) -> None:
        """ConfigError where a margin is none."""
        for name, margin in [("margin", self.margin), *((f"margin of {name}", x) for name, x in self.margins.items())]:
            if margin is not None and not 0 < margin < math.inf:
                raise ConfigError(f"{name} is {margin}; expected the largest difference that doesn't matter, above 0")

    @property
    def names(self) -> list[str]:
        """All that are named."""
        return [*self.primary, *self.margins]

    def margin_of(self, row: Difference) -> float | None:
        """The margin of a row that knows whether it is primary."""
        named = [value for name, value in self.margins.items() if is_named(row.name, name)]
        return named[0] if named else self.margin if row.primary else None


def declared(primary: Sequence[str], margins: Sequence[str]) -> Declared:
    """From the words of a command line: names of figures, and margins as X or FIGURE=X. ConfigError for others.

    >>> declared(["acc"], ["0.01", "perplexity/loss=0.02"])
    Declared(primary=('acc',), margin=0.01, margins={'perplexity/loss': 0.02})
    """
    found: dict[str, float] = {}
    for word in margins:
        name, _, number = word.rpartition("=")
        try:
            found[name] = float(number)
        except ValueError:
            raise ConfigError(f"--margin {word}: expected a number or FIGURE=number, e.g. --margin acc=0.01") from None
    return Declared(primary=tuple(primary), margin=found.pop("", None), margins=found)


def is_named(full: str, name: str) -> bool:
    """
    >>> is_named("csqa/acc", "acc"), is_named("csqa/acc", "csqa/acc"), is_named("csqa/acc_norm", "acc")
    (True, True, False)
    """
    return name in (full, full.partition("/")[2])


def concluded(rows: Sequence[Difference], declared: Declared) -> list[Difference]:
    """The rows with what was declared, corrected p-values and verdicts."""
    first: dict[tuple[str, str], str] = {}
    for row in rows:
        if row.verdict != NOT_COMPARED and row.kind != BASELINES:
            first.setdefault((row.evaluation, row.other), row.name)
    marked = []
    for row in rows:
        if row.verdict != NOT_COMPARED:
            chosen = any(is_named(row.name, name) for name in declared.primary)
            if not declared.primary:
                chosen = first.get((row.evaluation, row.other)) == row.name
            row = replace(row, primary=chosen)
            row = replace(row, margin=declared.margin_of(row))
        marked.append(row)
    for primary in (True, False):
        places = [i for i, row in enumerate(marked) if row.primary is primary and row.verdict != NOT_COMPARED]
        for place, row in zip(places, _corrected([marked[i] for i in places], primary), strict=True):
            marked[place] = replace(row, verdict=_verdict(row))
    return marked


def words(row: Difference) -> str:
    """The verdict as a user reads it, with the letter of the side that it is about."""
    margin = "" if row.margin is None else f"{row.margin:g}"
    if row.verdict in ("better", "worse", "higher", "lower"):
        small = f", by less than the margin of {margin}" if row.within_margin else ""
        return f"{row.other} is {row.verdict}{small}"
    if row.verdict == "equivalent":
        return f"equivalent: closer than the margin of {margin}"
    if row.verdict == "the same":
        return "the same on every sample"
    if row.verdict in (NOT_COMPARED, NOT_TESTED):
        return f"{row.verdict}: {row.note}" if row.note else row.verdict
    told = [f"after {row.correction}"] if row.p_value is not None and row.p_value < ALPHA else []
    told += [f"smallest detectable {figure(row.detectable)}"] if row.detectable is not None else []
    told += [f"not shown to be within {margin}"] if margin else []
    return f"not distinguishable ({'; '.join(told)})" if told else "not distinguishable"


def _corrected(rows: list[Difference], primary: bool) -> list[Difference]:
    correct, name = (holm, "Holm") if primary else (benjamini_hochberg, "Benjamini-Hochberg")
    n_tests = sum(row.p_value is not None for row in rows)
    adjusted = correct([row.p_value for row in rows])
    equivalent = correct([_equivalence(row) for row in rows])
    correction = f"{name}, {n_tests} test{'s'[: n_tests != 1]}"
    return [
        replace(row, adjusted_p=_known(p), equivalence_p=_known(p_equivalent), correction=correction)
        for row, p, p_equivalent in zip(rows, adjusted.tolist(), equivalent.tolist(), strict=True)
    ]


def _equivalence(row: Difference) -> float | None:
    if row.margin is None or not row.se or row.difference is None:
        return None
    return tost(row.difference, row.se, math.inf if row.df is None else row.df, row.margin).p_value


def _verdict(row: Difference) -> str:
    assert row.difference is not None
    if row.adjusted_p is not None and row.adjusted_p < ALPHA:
        if row.higher_is_better is None:
            return "higher" if row.difference > 0 else "lower"
        return "better" if (row.difference > 0) == row.higher_is_better else "worse"
    if row.se == 0 and row.difference == 0:
        return "the same"
    if row.within_margin:
        return "equivalent"
    return NOT_TESTED if row.p_value is None else "not distinguishable"


def _known(value: float) -> float | None:
    return None if math.isnan(value) else value
