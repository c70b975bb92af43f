"""Loss, perplexity, bits per byte and next-token accuracy: ratios of sums over every target of a split.

Cross-entropy is computed in float32 or wider whatever the model's precision, summed in float64 and counted
in int64.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from itertools import chain

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from lmexp.errors import ConfigError, DataError
from lmexp.evaluation.config import PerplexityConfig
from lmexp.evaluation.context import EvaluationContext, evaluation_mode, split_note
from lmexp.evaluation.row import Row, not_measured
from lmexp.evaluation.statistics.bootstrap import N_RESAMPLES, percentile_interval, resample_sums
from lmexp.evaluation.statistics.intervals import Interval
from lmexp.evaluation.sums import ClusterSums, Segments, cluster_sums, join_segments
from lmexp.evaluation.targets import Targets
from lmexp.metrics.functional import token_nats

FIGURES = {
    "loss": ("mean cross-entropy of a token", "nats per token"),
    "perplexity": ("exp of the mean cross-entropy of a token", ""),
    "bits_per_byte": ("sum of cross-entropy / (UTF-8 bytes of the tokens x ln 2)", "bits per byte"),
    "accuracy": ("share of tokens that were the model's first choice", ""),
}


class Perplexity:
    """Scores every token of a split, given those before it in its window."""

    def __init__(self, config: PerplexityConfig) -> None:
        self.config = config

    def run(self, context: EvaluationContext) -> list[Row]:
        """Four rows; the sums behind them are left in context.results["perplexity/SPLIT"]."""
        try:
            name, _ = context.choose_split(self.config.split)
        except DataError as error:
            return [
                not_measured(f"perplexity/{figure}", self.config.split, what, str(error), unit=unit)
                for figure, (what, unit) in FIGURES.items()
            ]
        targets = context.targets(name, self.config.max_tokens)
        with evaluation_mode(context.model), torch.no_grad():
            scored = list(self._score(targets, context))
        segments = join_segments(list(chain(*context.gather(scored))))
        sums = cluster_sums(segments, max_tokens=targets.max_tokens)
        context.results[f"perplexity/{name}"] = sums
        return rows_of(sums, name, targets.definition + split_note(self.config.split, name), context.seed)

    def _score(self, targets: Targets, context: EvaluationContext) -> Iterator[Segments]:
        """Sums of the batches which fall to this process."""
        mine = (self.config.batch_size, context.rank, context.world_size)
        n_batches = targets.n_batches(*mine)
        for done, batch in enumerate(targets.batches(*mine)):
            context.progress("perplexity", done, n_batches)
            yield batch.sum(*score(context, batch.tokens, batch.targets, batch.positions))
        context.progress("perplexity", n_batches, n_batches)


def score(
    context: EvaluationContext,
    tokens: NDArray[np.int64],
    targets: NDArray[np.int64],
    positions: NDArray[np.int64] | None = None,
) -> tuple[NDArray[np.float64], NDArray[np.bool_]]:
    """Nats of each target (0 for IGNORE), and whether the model's first choice was right: all (batch, seq)."""
    inputs = torch.from_numpy(tokens).to(context.device)  # (batch, seq)
    places = {} if positions is None else {"positions": torch.from_numpy(positions).to(context.device)}
    with context.dtype_context():
        logits = context.model(inputs, **places)  # (batch, seq, vocab)
    _check_logits(logits, targets)
    labels = torch.from_numpy(targets).to(context.device)
    nats, correct = [], []
    for row, label in zip(logits, labels, strict=True):  # one at a time: the copy in float32 stays small
        nats.append(token_nats(row, label))
        correct.append(row.argmax(dim=-1) == label)
    return (
        torch.stack(nats).cpu().numpy().astype(np.float64),
        torch.stack(correct).cpu().numpy(),
    )


def rows_of(sums: ClusterSums, split: str, definition: str, seed: int) -> list[Row]:
    """The four figures with their intervals."""
    estimates, resampled = _figures(sums.totals), _figures(resample_sums(sums.columns, seed=seed))
    rows = []
    for figure, (what, unit) in FIGURES.items():
        name, words = f"perplexity/{figure}", f"{what}; {definition}"
        if not np.isfinite(estimates[figure]):
            rows.append(not_measured(name, split, words, _why_not(figure, sums), unit=unit))
            continue
        interval = percentile_interval(resampled[figure]) if len(sums.ids) > 1 else Interval(None, None)
        rows.append(
            Row(
                name=name,
                split=split,
                definition=words,
                estimate=float(estimates[figure]),
                low=interval.low,
                high=interval.high,
                n=sums.total_bytes if figure == "bits_per_byte" else sums.total_tokens,
                n_clusters=len(sums.ids),
                unit=unit,
                method=sums.method(N_RESAMPLES, seed),
                higher_is_better=figure == "accuracy",
            )
        )
    return rows


def _figures(sums: NDArray[np.float64]) -> dict[str, NDArray[np.float64]]:
    """Each figure from sums (..., 4) in the order of ClusterSums.columns; nan or inf where it has none."""
    nats, n_tokens, n_bytes, n_correct = np.moveaxis(sums, -1, 0)
    with np.errstate(all="ignore"):
        return {
            "loss": nats / n_tokens,
            "perplexity": np.exp(nats / n_tokens),
            "bits_per_byte": nats / (n_bytes * math.log(2)),
            "accuracy": np.where(np.isnan(nats), np.nan, n_correct / n_tokens),  # a nan has no first choice
        }


def _why_not(figure: str, sums: ClusterSums) -> str:
    wrong = int((~np.isfinite(sums.nats)).sum())
    if wrong:
        return f"the model's loss is not finite in {wrong:,} of {len(sums.ids):,} {sums.cluster}s"
    if figure == "bits_per_byte":
        return "the scored tokens cover no bytes"
    return f"exp of the loss ({sums.total_nats / sums.total_tokens:.6g}) overflows"


def _check_logits(logits: Tensor, targets: NDArray[np.int64]) -> None:
    if logits.ndim != 3 or tuple(logits.shape[:2]) != targets.shape:
        raise ConfigError(
            f"perplexity: expected logits of shape (batch, seq, vocab) = {(*targets.shape, 'vocab')}, "
            f"got {tuple(logits.shape)}; let forward(tokens) return the logits after each token"
        )
    if targets.max() >= logits.shape[-1]:
        raise ConfigError(
            f"perplexity: the text has token id {targets.max()}, but the model gives logits for only "
            f"{logits.shape[-1]} tokens; evaluate a model with the tokenizer it was trained with"
        )
