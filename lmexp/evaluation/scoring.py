"""Log-likelihoods of continuations: how likely a model finds a text after another one.

As lm-eval 0.4.13 does it where that is right: context and continuation are encoded together and divided where the
context's own tokens end, spaces at its end go to the continuation, and what is too long is cut on the left. Sequences
are padded on the right, which a causal model can't see, and are batched by length.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa  # type: ignore[import-untyped]
import torch
from numpy.typing import NDArray
from torch import Tensor

from lmexp.errors import ConfigError
from lmexp.evaluation.collect import ORDER, collect
from lmexp.evaluation.context import EvaluationContext
from lmexp.evaluation.samples import COUNT, NUMBER, NUMBERS, Header, Samples, lists_of
from lmexp.metrics.functional import token_nats
from lmexp.models.base import evaluation_mode

if TYPE_CHECKING:
    from lmexp.tokenizers.base import Tokenizer

Ints = NDArray[np.int64]
Floats = NDArray[np.float64]

PIECE = {"n_tokens": COUNT, "n_first": COUNT, "logprobs": NUMBERS, "latency": NUMBER}
"""Columns of a table of pieces, which collect() keeps while they are scored."""


@dataclass(frozen=True, slots=True)
class Piece:
    """Tokens that a model reads at once, of which the last ones are scored."""

    tokens: Ints
    """(seq + 1,): all but the last are read."""
    n_scored: int


@dataclass(frozen=True, slots=True)
class Likelihoods:
    """What was found for each request; (n_requests,)."""

    logprob: Floats
    """Sum over the tokens of the continuation, in nats."""
    n_tokens: Ints
    n_first: Ints
    """How many of them were the model's first choice."""
    logprobs: list[Floats]
    """Of each token."""
    latency: Floats


class Requests:
    """Continuations to score, each after its context, as tokens.

    begin: "eos" shows the model an <eos> before each context, as before each document in training; "nothing" only
    before an empty one, where something must stand.
    """

    def __init__(
        self, tokenizer: Tokenizer, pairs: Sequence[tuple[str, str]], *, begin: str = "eos", max_length: int
    ) -> None:
        self.n_cut = 0
        """Requests of which the context was cut."""
        self.pieces: list[Piece] = []
        """Different ones; each is scored once."""
        self._pieces_of: list[list[int]] = []
        numbers: dict[tuple[bytes, int], int] = {}
        for context, continuation in encode_pairs(tokenizer, pairs):
            start = [tokenizer.eos_id] if begin == "eos" or not len(context) else []
            before = np.concatenate([np.array(start, dtype=np.int64), context])
            self.n_cut += len(before) + len(continuation) > max_length + 1
            mine = []
            for piece in cut(before, continuation, max_length):
                key = piece.tokens.tobytes(), piece.n_scored
                if key not in numbers:
                    numbers[key] = len(self.pieces)
                    self.pieces.append(piece)
                mine.append(numbers[key])
            self._pieces_of.append(mine)

    def batches(self, batch_size: int) -> list[Ints]:
        """Numbers of the pieces that are scored together, the longest first: what takes too much memory does so at
        once."""
        order = sorted(range(len(self.pieces)), key=lambda n: (-len(self.pieces[n].tokens), n))
        return [np.array(order[i : i + batch_size]) for i in range(0, len(order), batch_size)]

    def score(self, context: EvaluationContext, numbers: Ints) -> Any:
        """A row for each piece of a batch, as collect() wants it."""
        start = time.perf_counter()
        pieces = [self.pieces[n] for n in numbers]
        scored = score_pieces(context, pieces)
        lengths = np.array([piece.n_scored for piece in pieces])
        logprobs = np.concatenate([one for one, _ in scored])
        seconds = time.perf_counter() - start
        return pa.table(
            {
                "n_tokens": pa.array(lengths),
                "n_first": pa.array([int(first.sum()) for _, first in scored], COUNT),
                "logprobs": lists_of(logprobs, lengths),
                "latency": pa.array(np.full(len(pieces), seconds / len(pieces))),
                ORDER: pa.array(numbers),
            }
        )

    def likelihoods(self, table: Any) -> Likelihoods:
        """What belongs to each request, from the rows of all pieces in order."""
        logprobs = [np.array(one, dtype=np.float64) for one in table.column("logprobs").to_pylist()]
        n_first, latency = (table.column(name).to_numpy() for name in ("n_first", "latency"))
        tokens = [np.concatenate([logprobs[n] for n in mine]) for mine in self._pieces_of]
        return Likelihoods(
            logprob=np.array([one.sum() for one in tokens]),
            n_tokens=np.array([len(one) for one in tokens], dtype=np.int64),
            n_first=np.array([n_first[mine].sum() for mine in self._pieces_of], dtype=np.int64),
            logprobs=tokens,
            latency=np.array([latency[mine].sum() for mine in self._pieces_of]),
        )


def score_requests(
    context: EvaluationContext,
    header: Header,
    requests: Requests,
    *,
    batch_size: int,
    finish: Callable[[Likelihoods], Any],
) -> Samples:
    """The table of an evaluation that asks for log-likelihoods. All processes must call this.

    finish: makes the table's columns.
    """
    with evaluation_mode(context.model), torch.no_grad():
        return collect(
            context,
            header,
            requests.batches(batch_size),
            lambda numbers: requests.score(context, numbers),
            schema=PIECE,
            batching={"batch_size": batch_size, "batches": "by length"},
            finish=lambda table: finish(requests.likelihoods(table)),
        )


def longest_input(context: EvaluationContext) -> int:
    """Tokens that the model reads at once."""
    return int(getattr(context.model, "max_sequence_length", context.sequence_length))


def encode_pairs(tokenizer: Tokenizer, pairs: Sequence[tuple[str, str]]) -> list[tuple[Ints, Ints]]:
    """Tokens of each context and of its continuation, which has at least one.

    Where the two share a token, so that there is no place to divide, they are encoded by themselves; lm-eval would
    score another text than was asked for.
    """
    texts: dict[str, None] = {}
    moved = []
    for context, continuation in pairs:
        bare = context.rstrip()
        moved.append((bare, context[len(bare) :] + continuation))
        texts |= dict.fromkeys((bare, context + continuation))
    encoded = dict(zip(texts, (_ints(one) for one in tokenizer.encode_batch(list(texts))), strict=True))
    found = []
    for bare, continuation in moved:
        before, whole = encoded[bare], encoded[bare + continuation]
        n = len(before)
        if len(whole) > n and bool((whole[:n] == before).all()):
            found.append((before, whole[n:]))
            continue
        alone = _ints(tokenizer.encode_batch([continuation])[0])
        if not len(alone):
            raise ConfigError(f"the continuation {continuation[:80]!r} has no tokens; expected some text")
        found.append((before, alone))
    return found


def cut(context: Ints, continuation: Ints, max_length: int) -> list[Piece]:
    """What a model that reads max_length tokens at once can be shown: one piece, its context cut on the left; several
    where the continuation alone is longer. Each token is scored once."""
    tokens = np.concatenate([context, continuation])
    pieces = []
    for start in range(0, len(continuation), max_length):
        n_scored = min(max_length, len(continuation) - start)
        stop = len(context) + start + n_scored
        pieces.append(Piece(tokens[max(0, stop - max_length - 1) : stop], n_scored))
    return pieces


def score_pieces(context: EvaluationContext, pieces: Sequence[Piece]) -> list[tuple[Floats, NDArray[np.bool_]]]:
    """Log-probability of each scored token of each piece, and whether it was the model's first choice.

    Only the positions before scored tokens are turned into log-probabilities, in float32 or wider.
    """
    longest = max(len(piece.tokens) for piece in pieces) - 1
    inputs = np.zeros((len(pieces), longest), dtype=np.int64)
    for row, piece in zip(inputs, pieces, strict=True):
        row[: len(piece.tokens) - 1] = piece.tokens[:-1]
    with context.dtype_context():
        logits = context.model(torch.from_numpy(inputs).to(context.device))  # (batch, seq, vocab)
    check_logits(logits, inputs.shape, max(int(piece.tokens.max()) for piece in pieces))
    nats, first = [], []
    for row, piece in zip(logits, pieces, strict=True):  # one at a time: the copy in float32 stays small
        stop = len(piece.tokens) - 1
        needed = row[stop - piece.n_scored : stop]  # (n_scored, vocab)
        targets = torch.from_numpy(piece.tokens[-piece.n_scored :]).to(context.device)
        nats.append(token_nats(needed, targets))
        first.append(needed.argmax(dim=-1) == targets)
    lengths = np.cumsum([piece.n_scored for piece in pieces])[:-1]
    logprobs = -torch.cat(nats).cpu().numpy().astype(np.float64)
    return list(
        zip(np.split(logprobs, lengths), np.split(torch.cat(first).cpu().numpy(), lengths), strict=True),
    )


def _ints(tokens: Any) -> Ints:
    return np.asarray(tokens).astype(np.int64)


def check_logits(logits: Tensor, shape: tuple[int, ...], largest_id: int) -> None:
    """ConfigError unless logits are (batch, seq, vocab) for tokens of this shape, with ids up to largest_id."""
    if logits.ndim != 3 or tuple(logits.shape[:2]) != shape:
        raise ConfigError(
            f"expected logits of shape (batch, seq, vocab) = {(*shape, 'vocab')}, got {tuple(logits.shape)}; let "
            f"forward(tokens) return the logits after each token"
        )
    if largest_id >= logits.shape[-1]:
        raise ConfigError(
            f"the text has token id {largest_id}, but the model gives logits for only {logits.shape[-1]} tokens; "
            f"evaluate a model with the tokenizer it was trained with"
        )
