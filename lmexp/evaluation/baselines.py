"""How well counting does: unigram and bigram models on the very targets that the model is scored on.

They are fitted on the training split as a stream: documents one after another, each ended by <eos>. So the first
token of a document is given the <eos> before it, as it is for a model.
The lift is a paired difference: each resample draws the same documents for both.
"""

from __future__ import annotations

import math
import time
from dataclasses import replace
from typing import Any

import numpy as np
import pyarrow as pa  # type: ignore[import-untyped]
import torch

from lmexp.errors import DataError
from lmexp.evaluation.choice_baselines import choice_baselines
from lmexp.evaluation.collect import finished, publish
from lmexp.evaluation.config import BaselinesConfig
from lmexp.evaluation.context import EvaluationContext, split_note
from lmexp.evaluation.figures import row_of
from lmexp.evaluation.row import Row, not_measured
from lmexp.evaluation.samples import NUMBER, Figure, Header, Key, Samples, add_columns
from lmexp.evaluation.targets import Targets
from lmexp.evaluation.token_samples import TokenSamples, token_scores
from lmexp.models.config import NGramConfig
from lmexp.models.ngram import NGram

UNIT = "bits per byte"
WHAT = {
    "unigram": "add-one unigram model",
    "bigram": "bigram model interpolated with the add-one unigram (Witten-Bell)",
}
MODELS = {"unigram": NGramConfig(order=1, smoothing="add_k"), "bigram": NGramConfig(order=2, smoothing="witten_bell")}
_TARGETS_AT_ONCE = 1 << 20


class Baselines:
    """Scores the two n-gram models, and the model's lift over each where perplexity was measured before; and what
    answers without a model reach on the questions that were asked before."""

    runs_last = True

    def __init__(self, config: BaselinesConfig) -> None:
        self.config = config

    def run(self, context: EvaluationContext) -> list[Row]:
        """Four rows of n-grams, the table behind them left in context.samples; and those of each table of questions."""
        name = context.name or self.config.kind
        asked = list(context.samples.values())
        return self._ngrams(context, name) + [
            row for samples in asked for row in choice_baselines(samples, name=name, seed=context.seed)
        ]

    def _ngrams(self, context: EvaluationContext, name: str) -> list[Row]:
        try:
            split, _ = context.choose_split(self.config.split)
            _, train = context.choose_split("train")
        except DataError as error:
            return _nothing(name, self.config.split, str(error))
        model = _perplexity_on(context, split)
        targets = context.targets(split, **_as_shown(model))
        definition = f"fitted on the {train.n_tokens:,} training tokens; {targets.definition}"
        header = Header(
            name=name,
            kind=self.config.kind,
            split=split,
            definition=definition + split_note(self.config.split, split),
            key=Key(
                model=context.model_digest,
                task={**targets.task, "train": train.documents_digest},
                settings={**targets.settings, **context.settings, "paired": model is not None},
            ),
            cluster=targets.cluster,
        )
        found = finished(context, header)
        samples = self._samples(context, header, targets, model) if found is None else _with_figures(found)
        context.samples[name] = samples
        return _rows(samples, model, seed=context.seed)

    def _samples(self, context: EvaluationContext, header: Header, targets: Targets, model: Samples | None) -> Samples:
        table = None
        if context.rank == 0:  # the others wait: one copy of the counts is enough
            assert context.cache is not None
            context.progress(f"{header.name}: counting", 0, 1)
            tokens, tokenizer = context.cache.splits["train"].tokens, context.cache.tokenizer
            models = {which: NGram(one, vocab_size=tokenizer.vocab_size) for which, one in MODELS.items()}
            for one in models.values():
                one.fit(tokens, eos_id=tokenizer.eos_id)
            context.progress(f"{header.name}: scoring", 0, 1)
            decode = tokenizer.decode
            segments = {which: _segments(one, targets) for which, one in models.items()}
            samples = TokenSamples(segments["bigram"], targets.split, decode, targets.cluster)
            scores = {which: token_scores(found) for which, found in segments.items()}
            context.progress(f"{header.name}: scoring", 1, 1)
            nats = {which: -samples.sums(found.logprob) for which, found in scores.items()}
            table = add_columns(
                samples.table(scores["bigram"]), {f"{which}_nats": (NUMBER, found) for which, found in nats.items()}
            )
            if model is not None and _same_targets(table, model):
                lift = {f"over_{which}": (NUMBER, found + model.numbers("logprob")) for which, found in nats.items()}
                table = add_columns(table, lift)
        table = context.gather(table)[0]
        found = _with_figures(Samples(header, table))
        if context.rank == 0:
            publish(context, found)
        return found


def _perplexity_on(context: EvaluationContext, split: str) -> Samples | None:
    """The table of the model's perplexity on the split, where it was measured before."""
    for samples in context.samples.values():
        if (samples.header.kind, samples.header.split) == ("perplexity", split):
            return samples
    return None


def _as_shown(model: Samples | None) -> dict[str, Any]:
    """Which tokens perplexity was measured on, in which windows: the arguments of EvaluationContext.targets."""
    if model is None:
        return {}
    task, settings = model.header.key.task, model.header.key.settings
    return {
        "windows": settings["windows"],
        "sequence_length": settings["sequence_length"],
        "max_tokens": task.get("max_tokens"),
        "score_eos": task["score_eos"],
    }


def _segments(model: NGram, targets: Targets) -> pa.Table:
    """All segments under one of the two models."""

    tables = []
    for numbers in targets.numbers(max(1, _TARGETS_AT_ONCE // targets.showing.sequence_length)):
        start = time.perf_counter()
        batch = targets.batch(numbers)
        wanted = np.where(batch.scored, batch.targets, 0)  # IGNORE is no token
        logprob = model.target_log_probabilities(torch.from_numpy(batch.tokens), torch.from_numpy(wanted)).numpy()
        found = batch.sum(-logprob, np.zeros(logprob.shape, np.bool_))  # their first choices are of no interest
        tables.append(found.table(time.perf_counter() - start))
    return pa.concat_tables(tables).sort_by("place")


def _score(which: str) -> Figure:
    return Figure(
        name=f"{which}_bits_per_byte",
        definition=f"bits per byte of the {WHAT[which]}",
        numerator=f"{which}_nats",
        denominator="n_bytes",
        scale=1 / math.log(2),
        unit=UNIT,
        higher_is_better=False,
    )


def _lift(which: str) -> Figure:
    return replace(
        _score(which),
        name=f"lift_over_{which}",
        definition=f"bits per byte of the {WHAT[which]} minus those of the model on the same tokens",
        numerator=f"over_{which}",
        paired=True,
        higher_is_better=True,
    )


def _with_figures(samples: Samples) -> Samples:
    """The same, its header naming the figures that its columns make."""
    known = (*map(_score, WHAT), *map(_lift, WHAT))
    figures = tuple(figure for figure in known if figure.numerator in samples.table.column_names)
    return Samples(replace(samples.header, figures=figures), samples.table)


def _rows(samples: Samples, model: Samples | None, *, seed: int) -> list[Row]:
    header = samples.header
    rows = [row_of(_score(which), samples, seed=seed) for which in WHAT]
    for which in WHAT:
        lift = _lift(which)
        words = f"{lift.definition}; {header.definition}"
        why = _why_not_paired(samples, model, lift)
        if why:
            rows.append(not_measured(f"{header.name}/{lift.name}", header.split, words, why, unit=UNIT))
            continue
        rows.append(row_of(lift, samples, seed=seed))
    return rows


def _same_targets(table: pa.Table, model: Samples) -> bool:
    """Whether both hold the same targets in the same samples, so that they can be paired."""
    return all(table.column(name).equals(model.table.column(name)) for name in ("sample_id", "n_tokens", "n_bytes"))


def _why_not_paired(samples: Samples, model: Samples | None, lift: Figure) -> str:
    if model is None:
        return "the model has no perplexity on this split; ask for evaluation=[perplexity,baselines]"
    if lift.numerator not in samples.table.column_names:
        return "the model's perplexity was measured on other tokens"
    if not np.isfinite(samples.numbers(lift.numerator)).all():
        return "the model's loss is not finite"
    return ""


def _nothing(name: str, split: str, why: str) -> list[Row]:
    names = [f"{which}_bits_per_byte" for which in WHAT] + [f"lift_over_{which}" for which in WHAT]
    return [not_measured(f"{name}/{one}", split, "n-gram baselines", why, unit=UNIT) for one in names]
