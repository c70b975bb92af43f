"""Tokens that continue a batch of prompts, one by one as they are sampled."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import NamedTuple

import torch
from torch import nn

from lmexp.errors import ConfigError
from lmexp.models.base import evaluation_mode
from lmexp.models.decoding.config import DecodingConfig
from lmexp.models.decoding.next_logits import NextLogits
from lmexp.models.decoding.sampling import next_token_probabilities, penalize_repetition

Ends = Callable[[int, int], bool]
"""Row and its new token -> whether its text ends here. Asked once for each token, before it is yielded."""


class Sampled(NamedTuple):
    """A token that continues a prompt."""

    row: int
    """Of which prompt."""
    token: int
    is_last: bool


def sample(
    model: nn.Module,
    prompts: Sequence[Sequence[int]],
    decoding: DecodingConfig,
    *,
    seeds: Sequence[int],
    eos_id: int | None = None,
    ends: Ends | None = None,
) -> Iterator[Sampled]:
    """The tokens that continue each prompt, as they are made.

    seeds: of each row, whose tokens depend on no other row; the global random state is neither read nor moved. A row
    ends with eos_id, which is yielded too, with max_new_tokens, or where ends says so. Until the iterator ends or is
    closed, the model is in eval mode; then its mode is as before.
    """
    check_prompts(prompts)
    return _sample(model, prompts, decoding, seeds, eos_id, ends)


def check_prompts(prompts: Sequence[Sequence[int]]) -> None:
    """A ConfigError unless each prompt has a token."""
    if not all(len(prompt) for prompt in prompts):
        raise ConfigError("prompt has no token; expected one at least, e.g. the tokenizer's eos_id to start a document")


def _sample(
    model: nn.Module,
    prompts: Sequence[Sequence[int]],
    decoding: DecodingConfig,
    seeds: Sequence[int],
    eos_id: int | None,
    ends: Ends | None,
) -> Iterator[Sampled]:
    going_on = list(range(len(prompts)))  # place in the batch -> row
    generators = [torch.Generator().manual_seed(seed) for seed in seeds]
    with evaluation_mode(model):
        following = NextLogits(model, prompts, max_new_tokens=decoding.max_new_tokens)
        for length in range(1, decoding.max_new_tokens + 1):
            logits = following()  # (going on, vocab)
            tokens = [
                _draw(logits[place], following.texts[place], decoding, generators[row])
                for place, row in enumerate(going_on)
            ]
            following.extend(tokens)
            kept = []
            for place, (row, token) in enumerate(zip(going_on, tokens, strict=True)):
                ended = ends is not None and ends(row, token)
                is_last = ended or token == eos_id or length == decoding.max_new_tokens
                if not is_last:
                    kept.append(place)
                yield Sampled(row, token, is_last)
            if not kept:
                return
            if len(kept) < len(going_on):
                following.reorder(kept)
                going_on = [going_on[place] for place in kept]


def _draw(logits: torch.Tensor, text: list[int], decoding: DecodingConfig, generator: torch.Generator) -> int:
    if decoding.repetition_penalty != 1:
        logits = penalize_repetition(logits, text, decoding.repetition_penalty)
    if decoding.temperature == 0:
        return int(logits.argmax())
    probabilities = next_token_probabilities(
        logits,
        temperature=decoding.temperature,
        top_k=decoding.top_k,
        top_p=decoding.top_p,
        min_p=decoding.min_p,
    )
    # In float32, as Hugging Face draws: the same seed gives the same tokens.
    return int(torch.multinomial(probabilities.float(), 1, generator=generator))
