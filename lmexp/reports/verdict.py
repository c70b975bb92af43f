"""One sentence on whether a run's model beats counting, and no more than its intervals allow."""

from __future__ import annotations

from dataclasses import dataclass

from lmexp.evaluation.row import Row, figure, interval_text

RUNNING = ("created", "running")


@dataclass(frozen=True, slots=True)
class Verdict:
    """A sentence, and whether it is good news: good, bad or plain."""

    tone: str
    text: str


def verdict(rows: list[Row], state: str) -> Verdict:
    """What the rows say about the model against the bigram and the unigram baselines."""
    by_name = {row.name: row for row in rows if row.measured}
    model = by_name.get("perplexity/bits_per_byte")
    if model is None:
        return _without(rows, state)
    text = f"{model.split.capitalize()} bits per byte {_with_interval(model)}"
    comparisons = [
        _compare(by_name[f"baselines/lift_over_{which}"], which, by_name.get(f"baselines/{which}_bits_per_byte"))
        for which in ("unigram", "bigram")
        if f"baselines/lift_over_{which}" in by_name
    ]
    if not comparisons:
        return Verdict("plain", f"{text}. It was not compared with baselines.")
    tones = {comparison.tone for comparison in comparisons}
    tone = "bad" if "bad" in tones else "plain" if "plain" in tones else "good"
    return Verdict(tone, f"{text}: {', and '.join(comparison.text for comparison in comparisons)}.")


def _without(rows: list[Row], state: str) -> Verdict:
    if rows:
        why = next((row.status for row in rows if row.name == "perplexity/bits_per_byte"), "")
        return Verdict("plain", f"No verdict: bits per byte {why or 'were not asked for'}.")
    if state in RUNNING:
        return Verdict("plain", "No verdict yet: the run has not finished.")
    if state == "done":
        return Verdict("plain", "No verdict: the run has not been evaluated.")
    return Verdict("bad", f"No verdict: the run ended as {state}, without an evaluation.")


def _compare(lift: Row, which: str, baseline: Row | None) -> Verdict:
    """What a lift (baseline minus model, in bits per byte) shows."""
    assert lift.estimate is not None
    against = f"the {which} baseline" + (f" ({figure(baseline.estimate)})" if baseline else "")
    by = f"by {figure(abs(lift.estimate))}"
    if lift.low is None or lift.high is None:
        return Verdict("plain", f"{'below' if lift.estimate > 0 else 'above'} {against} {by}, without an interval")
    if lift.low > 0:
        return Verdict("good", f"better than {against} {by} [{interval_text(lift)}]")
    if lift.high < 0:
        low, high = figure(-lift.high), figure(-lift.low)
        return Verdict("bad", f"worse than {against} {by} [{low} to {high}]")
    return Verdict("plain", f"not distinguishable from {against}, difference [{interval_text(lift)}]")


def _with_interval(row: Row) -> str:
    if row.low is None:
        return figure(row.estimate)
    return f"{figure(row.estimate)} [{interval_text(row)}]"
