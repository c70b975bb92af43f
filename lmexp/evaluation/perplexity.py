"""Loss, perplexity, bits per byte and next-token accuracy: ratios of sums over every target of a split.

Cross-entropy is computed in float32 or wider whatever the model's precision, summed in float64 and counted
in int64.
"""

from __future__ import annotations

import math
import time
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from lmexp.errors import ConfigError, DataError
from lmexp.evaluation.collect import collect
from lmexp.evaluation.config import PerplexityConfig
from lmexp.evaluation.context import EvaluationContext, evaluation_mode, split_note
from lmexp.evaluation.figures import rows_of
from lmexp.evaluation.row import Row, not_measured
from lmexp.evaluation.samples import Figure, Header, Key, Samples
from lmexp.evaluation.sums import FEW_DOCUMENTS, SEGMENT, samples_table
from lmexp.evaluation.targets import Targets
from lmexp.metrics.functional import token_nats

FIGURES = (
    Figure(
        name="loss",
        definition="mean cross-entropy of a token",
        numerator="logprob",
        denominator="n_tokens",
        scale=-1.0,
        unit="nats per token",
        higher_is_better=False,
    ),
    Figure(
        name="perplexity",
        definition="exp of the mean cross-entropy of a token",
        numerator="logprob",
        denominator="n_tokens",
        scale=-1.0,
        exp=True,
        higher_is_better=False,
    ),
    Figure(
        name="bits_per_byte",
        definition="sum of cross-entropy / (UTF-8 bytes of the tokens x ln 2)",
        numerator="logprob",
        denominator="n_bytes",
        scale=-1.0 / math.log(2),
        unit="bits per byte",
        higher_is_better=False,
    ),
    Figure(
        name="accuracy",
        definition="share of tokens that were the model's first choice",
        numerator="n_correct",
        denominator="n_tokens",
        higher_is_better=True,
    ),
)


class Perplexity:
    """Scores every token of a split, given those before it in its window."""

    def __init__(self, config: PerplexityConfig) -> None:
        self.config = config

    def run(self, context: EvaluationContext) -> list[Row]:
        """Four rows; the table behind them is left in context.samples."""
        name = context.name or self.config.kind
        try:
            split, _ = context.choose_split(self.config.split)
        except DataError as error:
            return [
                not_measured(f"{name}/{f.name}", self.config.split, f.definition, str(error), unit=f.unit)
                for f in FIGURES
            ]
        targets = context.targets(split, self.config.max_tokens)
        samples = self._samples(context, targets, name, split)
        context.samples[name] = samples
        return rows_of(samples, seed=context.seed)

    def _samples(self, context: EvaluationContext, targets: Targets, name: str, split: str) -> Samples:
        assert context.cache is not None
        header = Header(
            name=name,
            kind=self.config.kind,
            split=split,
            definition=targets.definition + split_note(self.config.split, split),
            key=Key(model=context.model_digest, task=targets.task, settings={**targets.settings, **context.settings}),
            figures=FIGURES,
            cluster="document" if targets.n_documents >= FEW_DOCUMENTS else "window",
        )
        decode = context.cache.tokenizer.decode

        def score_batch(numbers: NDArray[np.int64]) -> Any:
            start = time.perf_counter()
            batch = targets.batch(numbers)
            found = batch.sum(*score(context, batch.tokens, batch.targets, batch.positions))
            return found.table(time.perf_counter() - start)

        with evaluation_mode(context.model), torch.no_grad():
            return collect(
                context,
                header,
                list(targets.numbers(self.config.batch_size)),
                score_batch,
                schema=SEGMENT,
                batching={"batch_size": self.config.batch_size},
                finish=lambda segments: samples_table(segments, targets.split, decode),
            )


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
