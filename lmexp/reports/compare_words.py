"""What the page and the terminal both say of a comparison: the same numbers in the same words."""

from __future__ import annotations

import re
from collections.abc import Sequence

from lmexp.evaluation.comparison import NOT_COMPARED, VERDICTS, Difference
from lmexp.evaluation.conclusions import words
from lmexp.evaluation.matching import Unmatched
from lmexp.evaluation.row import figure
from lmexp.reports.verdict import Verdict
from lmexp.runs.compare import Comparison, Side
from lmexp.runs.settings import Setting

MOST_SAMPLES = 10
PRIMARY = "*"
LEGEND = (
    f"{PRIMARY} primary: decide by these (Holm-corrected). The others explore (Benjamini-Hochberg). p is the chance of "
    "a difference as large where there is none. Intervals are 95%, each by itself."
)


def headings(reference: str, other: str) -> tuple[str, ...]:
    """Of the columns of a table of cells."""
    return ("figure", reference, other, f"{other} - {reference}", "95% interval", "p", "corrected p", "verdict")


def cells(row: Difference) -> tuple[str, ...]:
    """A row under headings; for one that could be compared."""
    return (
        name_of(row),
        figure(row.reference_estimate),
        figure(row.other_estimate),
        signed(row.difference),
        interval_of(row),
        p_text(row.p_value),
        p_text(row.adjusted_p),
        words(row),
    )


def name_of(row: Difference) -> str:
    """The figure, marked where it is primary."""
    return f"{row.name} {PRIMARY}" if row.primary else row.name


def interval_of(row: Difference) -> str:
    """Of the difference: "-0.1 to +0.2", or a dash."""
    return "-" if row.low is None or row.high is None else f"{signed(row.low)} to {signed(row.high)}"


def signed(value: float | None) -> str:
    """
    >>> signed(0.0123), signed(-2.0), signed(0.0), signed(None)
    ('+0.01230', '-2.000', '0', '-')
    """
    return f"+{figure(value)}" if value is not None and value > 0 else figure(value)


def p_text(value: float | None) -> str:
    """
    >>> p_text(0.04321), p_text(0.00001), p_text(1.0), p_text(None)
    ('0.043', '<0.0001', '1', '-')
    """
    if value is None:
        return "-"
    return "<0.0001" if value < 0.0001 else f"{value:.2g}"


def verdict_on(comparison: Comparison, other: str) -> Verdict:
    """What the primary figures say of one side against the first, and no more."""
    primary = [row for row in comparison.rows if row.other == other and row.primary]
    if not primary:
        return Verdict("plain", f"No verdict on {other}: no primary figure could be compared.")
    tones = {{"better": "good", "worse": "bad"}.get(row.verdict, "plain") for row in primary}
    tone = tones.pop() if len(tones) == 1 else "plain"
    if len(primary) == 1:
        return Verdict(tone, f"{_sentence(primary[0])}.")
    found = [(verdict, [row.name for row in primary if row.verdict == verdict]) for verdict in VERDICTS]
    told = "; ".join(f"{verdict} in {', '.join(names)}" for verdict, names in found if names)
    return Verdict(tone, f"{other} against {primary[0].reference}, {len(primary)} primary figures: {told}.")


def _sentence(row: Difference) -> str:
    interval = "" if row.low is None else f" [{interval_of(row)}]"
    unit = f" {row.unit}" if row.unit else ""
    return f"{row.name}: {words(row)}; {row.other} - {row.reference} = {signed(row.difference)}{interval}{unit}"


def side_text(side: Side) -> str:
    """One line: the letter, the names and how many runs."""
    n = len(side.runs)
    return f"{side.label}  {side.name}" + (f", {n} runs" if n > 1 else "")


def unmatched_text(unmatched: Unmatched) -> str:
    """Which samples some runs lack, and how many."""
    shown = ", ".join(unmatched.samples[:MOST_SAMPLES])
    more = len(unmatched.samples) - MOST_SAMPLES
    n = len(unmatched.samples)
    return (
        f"{unmatched.evaluation}, {unmatched.other} against {unmatched.reference}: {n:,} sample{'s'[: n != 1]} not "
        f"compared, not in {', '.join(unmatched.missing_from)}: {shown}{f' and {more:,} more' if more > 0 else ''}"
    )


def not_compared(rows: Sequence[Difference]) -> list[str]:
    """Figures without a difference, and why."""
    return [
        f"{row.name}, {row.other} against {row.reference}: {words(row)}" for row in rows if row.verdict == NOT_COMPARED
    ]


def counts_text(rows: Sequence[Difference]) -> str:
    """How much was compared in which evaluations, for the rows of one side."""
    evaluations: dict[str, dict[str, None]] = {}
    for row in rows:
        evaluations.setdefault(counts_of(row), {})[row.evaluation] = None
    return "compared: " + "; ".join(f"{counts} of {', '.join(names)}" for counts, names in evaluations.items())


def counts_of(row: Difference) -> str:
    """How much was compared: "1,000 samples, 250 documents"."""
    clusters = "" if row.cluster == "sample" else f" in {row.n_clusters:,} {row.cluster}s"
    return f"{row.n:,} samples{clusters}"


def values_of(setting: Setting, label: str) -> str:
    """The value in the runs of a side: once where all have it."""
    values = setting.values[label]
    return values[0] if len(set(values)) == 1 else ", ".join(values)


def file_name(comparison: Comparison) -> str:
    """compare-<names>-<6 hex>.html: the same for the same runs, so that comparing again replaces it."""
    names = "-vs-".join(side.name for side in comparison.sides)
    safe = re.sub(r"[^\w.+-]+", "-", names)[:60].strip("-")
    return f"compare-{safe}-{comparison.key[:6]}.html"
