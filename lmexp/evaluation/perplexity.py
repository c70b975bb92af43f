"""Loss, perplexity, bits per byte and next-token accuracy: ratios of sums over every target of a split.

Cross-entropy is computed in float32 or wider whatever the model's precision, summed in float64 and counted
in int64.
"""

from __future__ import annotations

import math
import time
from typing import Any

import numpy as np
import pyarrow.compute as pc  # type: ignore[import-untyped]
import torch
from numpy.typing import NDArray

from lmexp.errors import ConfigError, DataError
from lmexp.evaluation.collect import collect
from lmexp.evaluation.config import PerplexityConfig
from lmexp.evaluation.context import EvaluationContext, split_note
from lmexp.evaluation.figures import rows_of
from lmexp.evaluation.row import Row, not_measured
from lmexp.evaluation.samples import NUMBER, Figure, Header, Key, Samples, add_columns
from lmexp.evaluation.scoring import check_logits
from lmexp.evaluation.sums import SEGMENT
from lmexp.evaluation.targets import Targets
from lmexp.evaluation.token_samples import TokenSamples, token_scores
from lmexp.metrics.functional import token_nats
from lmexp.metrics.ignore import IGNORE
from lmexp.models.base import TargetScorer, evaluation_mode


def _figure(name: str, definition: str, denominator: str, **more: Any) -> Figure:
    return Figure(
        **{
            "name": name,
            "definition": definition,
            "numerator": "logprob",
            "denominator": denominator,
            "scale": -1.0,
            "higher_is_better": False,
            **more,
        }
    )


BITS = {"scale": -1.0 / math.log(2), "unit": "bits per byte"}
FIGURES = (
    _figure("loss", "mean cross-entropy of a token", "n_tokens", unit="nats per token"),
    _figure("perplexity", "exp of the mean cross-entropy of a token", "n_tokens", exp=True),
    _figure(
        "word_perplexity",
        "exp(sum of cross-entropy / words), where a word begins with each document and with each stretch of whitespace",
        "n_words",
        exp=True,
    ),
    _figure("byte_perplexity", "exp(sum of cross-entropy / UTF-8 bytes of the tokens)", "n_bytes", exp=True),
    _figure("bits_per_byte", "sum of cross-entropy / (UTF-8 bytes of the tokens x ln 2)", "n_bytes", **BITS),
    _figure(
        "accuracy",
        "share of tokens that were the model's first choice",
        "n_tokens",
        numerator="n_correct",
        scale=1.0,
        higher_is_better=True,
    ),
)
DISJOINT = (
    _figure(
        "disjoint_perplexity",
        "exp of the mean cross-entropy of a token in disjoint windows",
        "n_tokens",
        numerator="disjoint_logprob",
        exp=True,
    ),
    _figure(
        "disjoint_bits_per_byte",
        "bits per byte in disjoint windows",
        "n_bytes",
        numerator="disjoint_logprob",
        **BITS,
    ),
    _figure(
        "stride_gain",
        "bits per byte in disjoint windows minus those in overlapping ones",
        "n_bytes",
        numerator="stride_gain",
        **BITS | {"scale": 1.0 / math.log(2)},
        paired=True,
        higher_is_better=None,
    ),
)
"""With a stride."""


class Perplexity:
    """Scores every token of a split, given those before it in its window."""

    def __init__(self, config: PerplexityConfig) -> None:
        self.config = config

    def run(self, context: EvaluationContext) -> list[Row]:
        """A row for each figure; the table behind them is left in context.samples."""
        name, config = context.name or self.config.kind, self.config
        try:
            split, _ = context.choose_split(config.split)
        except DataError as error:
            return [
                not_measured(f"{name}/{f.name}", config.split, f.definition, str(error), unit=f.unit)
                for f in self._figures
            ]
        _check_length(context, name, config.sequence_length)
        targets = context.targets(
            split,
            windows=config.windows,
            sequence_length=config.sequence_length,
            stride=config.stride,
            max_tokens=config.max_tokens,
            score_eos=config.score_eos,
        )
        samples = self._samples(context, targets, name, split)
        context.samples[name] = samples
        return rows_of(samples, seed=context.seed)

    @property
    def _figures(self) -> tuple[Figure, ...]:
        return FIGURES if self.config.stride is None else (*FIGURES, *DISJOINT)

    def _samples(self, context: EvaluationContext, targets: Targets, name: str, split: str) -> Samples:
        header = Header(
            name=name,
            kind=self.config.kind,
            split=split,
            definition=targets.definition + split_note(self.config.split, split),
            key=Key(model=context.model_digest, task=targets.task, settings={**targets.settings, **context.settings}),
            figures=self._figures,
            cluster=targets.cluster,
        )
        scorings = [targets] if self.config.stride is None else [targets, targets.disjoint()]
        batches = [
            (number, windows)
            for number, scoring in enumerate(scorings)
            for windows in scoring.numbers(self.config.batch_size)
        ]

        def score_batch(batch: tuple[int, NDArray[np.int64]]) -> Any:
            start = time.perf_counter()
            number, windows = batch
            shown = scorings[number].batch(windows)
            found = shown.sum(*score(context, shown.tokens, shown.targets, shown.positions))
            return found.table(time.perf_counter() - start, number)

        with evaluation_mode(context.model), torch.no_grad():
            return collect(
                context,
                header,
                batches,
                score_batch,
                schema=SEGMENT,
                batching={"batch_size": self.config.batch_size},
                finish=lambda segments: perplexity_table(segments, targets, len(scorings)),
            )


def perplexity_table(segments: Any, targets: Targets, n_scorings: int) -> Any:
    """The columns of a samples table, from all segments: with those of a second, disjoint scoring where there is one.

    By position, the disjoint windows are looked at: all positions occur equally often there.
    """
    by_scoring = [segments.filter(pc.equal(segments.column("scoring"), number)) for number in range(n_scorings)]
    samples = TokenSamples(by_scoring[-1], targets.split, targets.cache.tokenizer.decode, targets.cluster)
    scores, disjoint = token_scores(by_scoring[0]), token_scores(by_scoring[-1])
    table = samples.table(scores)
    columns = samples.by_position(disjoint, targets.showing.sequence_length)
    if n_scorings > 1:
        logprob = samples.sums(disjoint.logprob)
        columns["disjoint_logprob"] = NUMBER, logprob
        columns["stride_gain"] = NUMBER, table.column("logprob").to_numpy() - logprob
    return add_columns(table, columns)


def _check_length(context: EvaluationContext, name: str, length: int | None) -> None:
    longest = getattr(context.model, "max_sequence_length", None)
    if length is not None and isinstance(longest, int) and length > longest:
        raise ConfigError(
            f"evaluation.{name}.sequence_length is {length}, but the model takes {longest} tokens at most "
            f"(the data.sequence_length it was built with); give {longest} or fewer"
        )


def score(
    context: EvaluationContext,
    tokens: NDArray[np.int64],
    targets: NDArray[np.int64],
    positions: NDArray[np.int64] | None = None,
) -> tuple[NDArray[np.float64], NDArray[np.bool_]]:
    """Nats of each target (0 for IGNORE), and whether the model's first choice was right: all (batch, seq)."""
    inputs = torch.from_numpy(tokens).to(context.device)  # (batch, seq)
    if isinstance(context.model, TargetScorer):
        return _score_directly(context.model, inputs, targets, positions)
    places = {} if positions is None else {"positions": torch.from_numpy(positions).to(context.device)}
    with context.dtype_context():
        logits = context.model(inputs, **places)  # (batch, seq, vocab)
    check_logits(logits, targets.shape, int(targets.max()))
    labels = torch.from_numpy(targets).to(context.device)
    nats, correct = [], []
    for row, label in zip(logits, labels, strict=True):  # one at a time: the copy in float32 stays small
        nats.append(token_nats(row, label))
        correct.append(row.argmax(dim=-1) == label)
    return (
        torch.stack(nats).cpu().numpy().astype(np.float64),
        torch.stack(correct).cpu().numpy(),
    )


def _score_directly(
    model: TargetScorer, inputs: torch.Tensor, targets: NDArray[np.int64], positions: NDArray[np.int64] | None
) -> tuple[NDArray[np.float64], NDArray[np.bool_]]:
    """score() of a model that needs no logits."""
    counted, device = targets != IGNORE, inputs.device
    labels = torch.from_numpy(np.where(counted, targets, 0)).to(device)
    places = None if positions is None else torch.from_numpy(positions).to(device)
    logprobs, first = (found.cpu().numpy() for found in model.score_targets(inputs, labels, places))
    return np.where(counted, -logprobs, 0.0).astype(np.float64), first & counted
