"""How well counting does: unigram and bigram models on the very targets that the model is scored on.

They are fitted on the training split as a stream: documents one after another, each ended by <eos>. So the first
token of a document is given the <eos> before it, as it is for a model.
The lift is a paired difference: each resample draws the same documents for both.
"""

from __future__ import annotations

import math
from collections.abc import Iterator

import numpy as np

from lmexp.errors import DataError
from lmexp.evaluation.config import BaselinesConfig
from lmexp.evaluation.context import EvaluationContext, split_note
from lmexp.evaluation.ngrams import Bigram, Unigram, fit_bigram
from lmexp.evaluation.row import Row, not_measured
from lmexp.evaluation.statistics.bootstrap import N_RESAMPLES, ratio_interval
from lmexp.evaluation.statistics.intervals import Interval
from lmexp.evaluation.sums import (
    ClusterSums,
    Segments,
    cluster_sums,
    join_segments,
    same_targets,
)
from lmexp.evaluation.targets import Targets

UNIT = "bits per byte"
WHAT = {
    "unigram": "add-one unigram model",
    "bigram": "bigram model interpolated with the add-one unigram (Witten-Bell)",
}
NO_BYTES = "the scored tokens cover no bytes"
_TARGETS_AT_ONCE = 1 << 20


class Baselines:
    """Scores the two n-gram models, and the model's lift over each where perplexity was measured before."""

    runs_last = True

    def __init__(self, config: BaselinesConfig) -> None:
        self.config = config

    def run(self, context: EvaluationContext) -> list[Row]:
        """Four rows; the sums behind them stay in context.results as "unigram/SPLIT" and "bigram/SPLIT"."""
        try:
            name, _ = context.choose_split(self.config.split)
            _, train = context.choose_split("train")
        except DataError as error:
            return _nothing(self.config.split, str(error))
        assert context.cache is not None
        model = context.results.get(f"perplexity/{name}")
        targets = context.targets(name, model.max_tokens if model else None)
        fitted = None
        if context.rank == 0:  # the others wait: one copy of the counts is enough
            context.progress("baselines: counting", 0, 1)
            bigram = fit_bigram(train.tokens, context.cache.tokenizer.vocab_size)
            context.progress("baselines: scoring", 0, 1)
            fitted = {which: _score(which, bigram, targets) for which in WHAT}
            context.progress("baselines: scoring", 1, 1)
        sums = context.gather(fitted)[0]
        assert sums is not None
        for which in WHAT:
            context.results[f"{which}/{name}"] = sums[which]
        definition = f"fitted on the {train.n_tokens:,} training tokens; {targets.definition}"
        definition += split_note(self.config.split, name)
        rows = [_row(which, sums[which], name, definition, context.seed) for which in WHAT]
        return rows + [_lift(which, sums[which], model, name, definition, context.seed) for which in WHAT]


def _score(which: str, bigram: Bigram, targets: Targets) -> ClusterSums:
    """Sums over the targets under one of the two models."""
    segments = join_segments(list(_segments(bigram if which == "bigram" else bigram.unigram, targets)))
    return cluster_sums(segments, max_tokens=targets.max_tokens)


def _segments(model: Unigram | Bigram, targets: Targets) -> Iterator[Segments]:
    for batch in targets.batches(max(1, _TARGETS_AT_ONCE // targets.sequence_length)):
        tokens = np.where(batch.scored, batch.targets, 0)  # IGNORE is no token
        p = model.probability(batch.tokens, tokens) if isinstance(model, Bigram) else model.probability(tokens)
        yield batch.sum(-np.log(p), np.zeros(p.shape, np.bool_))  # their first choices are of no interest


def _row(which: str, sums: ClusterSums, split: str, definition: str, seed: int) -> Row:
    name, words = f"baselines/{which}_bits_per_byte", f"bits per byte of the {WHAT[which]}, {definition}"
    if not sums.total_bytes:
        return not_measured(name, split, words, NO_BYTES, unit=UNIT)
    interval = ratio_interval(sums.nats / math.log(2), sums.n_bytes, seed=seed)
    return _measured(name, split, words, sums.bits_per_byte, interval, sums, sums.method(N_RESAMPLES, seed), False)


def _lift(which: str, sums: ClusterSums, model: ClusterSums | None, split: str, definition: str, seed: int) -> Row:
    name = f"baselines/lift_over_{which}"
    words = f"bits per byte of the {WHAT[which]} minus those of the model on the same tokens; {definition}"
    why = _why_not_paired(sums, model)
    if model is None or why:
        return not_measured(name, split, words, why, unit=UNIT)
    interval = ratio_interval((sums.nats - model.nats) / math.log(2), sums.n_bytes, seed=seed)
    estimate = sums.bits_per_byte - model.bits_per_byte
    method = f"paired {sums.method(N_RESAMPLES, seed)}"
    return _measured(name, split, words, estimate, interval, sums, method, True)


def _measured(
    name: str,
    split: str,
    words: str,
    estimate: float,
    interval: Interval,
    sums: ClusterSums,
    method: str,
    up: bool,
) -> Row:
    return Row(
        name=name,
        split=split,
        definition=words,
        estimate=estimate,
        low=interval.low,
        high=interval.high,
        n=sums.total_bytes,
        n_clusters=len(sums.ids),
        unit=UNIT,
        method=method,
        higher_is_better=up,
    )


def _why_not_paired(sums: ClusterSums, model: ClusterSums | None) -> str:
    if model is None:
        return "the model has no perplexity on this split; ask for evaluation=[perplexity,baselines]"
    if not sums.total_bytes:
        return NO_BYTES
    if not same_targets(sums, model):
        return "the model's perplexity was measured on other tokens"
    return "" if np.isfinite(model.nats).all() else "the model's loss is not finite"


def _nothing(split: str, why: str) -> list[Row]:
    names = [f"{which}_bits_per_byte" for which in WHAT] + [f"lift_over_{which}" for which in WHAT]
    return [not_measured(f"baselines/{name}", split, "n-gram baselines", why, unit=UNIT) for name in names]
