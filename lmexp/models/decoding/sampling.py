"""From logits to the probabilities that the next token is drawn from. The order of the steps is Hugging Face's."""

from __future__ import annotations

from collections.abc import Iterable

import torch
import torch.nn.functional as F  # noqa: N812 - torch's own name for it
from torch import Tensor


def penalize_repetition(logits: Tensor, tokens: Iterable[int], penalty: float) -> Tensor:
    """Logits (vocab,) where those of tokens are divided by penalty, or multiplied where negative (arXiv:1909.05858).

    >>> penalize_repetition(torch.tensor([2.0, -2.0, 2.0]), [0, 1, 0], 2.0)
    tensor([ 1., -4.,  2.])
    """
    seen = torch.tensor(sorted(set(tokens)), device=logits.device)
    found = logits[seen]
    penalized = logits.clone()
    penalized[seen] = torch.where(found < 0, found * penalty, found / penalty)
    return penalized


def next_token_probabilities(
    logits: Tensor,
    *,
    temperature: float = 1.0,
    top_k: int | None = None,
    top_p: float | None = None,
    min_p: float | None = None,
) -> Tensor:
    """What the next token is drawn from: (..., vocab) probabilities in float64.

    logits: (..., vocab), divided by temperature; 0 puts all on the likeliest token. top_k keeps the k likeliest
    tokens; top_p, after it, the smallest set of likeliest tokens that holds that share of what is left; min_p,
    after both, those at least that share as likely as the likeliest. Of equally likely tokens those with smaller
    ids come first.

    >>> next_token_probabilities(torch.tensor([0.5, 0.3, 0.2]).log(), top_p=0.6)
    tensor([0.6250, 0.3750, 0.0000], dtype=torch.float64)
    """
    logits = logits.double()
    if temperature == 0:
        return F.one_hot(logits.argmax(dim=-1), logits.shape[-1]).double()
    scaled = (logits - logits.amax(dim=-1, keepdim=True)) / temperature  # 0 at most: tiny temperatures stay finite
    if top_k is not None and top_k < scaled.shape[-1]:
        scaled = scaled.masked_fill(~_likeliest(scaled, top_k), float("-inf"))
    probabilities = scaled.softmax(dim=-1)
    if top_p is not None and top_p < 1:
        ordered, order = probabilities.sort(dim=-1, descending=True, stable=True)
        before = ordered.cumsum(dim=-1) - ordered  # share of the likelier tokens
        ordered = ordered.masked_fill(before >= top_p, 0)
        probabilities = torch.zeros_like(probabilities).scatter(-1, order, ordered)
    if min_p is not None:
        least = min_p * probabilities.amax(dim=-1, keepdim=True)
        probabilities = probabilities.masked_fill(probabilities < least, 0)
    return probabilities / probabilities.sum(dim=-1, keepdim=True)


def _likeliest(scores: Tensor, k: int) -> Tensor:
    """(..., vocab) bool: the k largest; of equal ones the first."""
    kth = scores.topk(k, dim=-1).values[..., -1:]
    larger, equal = scores > kth, scores == kth
    room = k - larger.sum(dim=-1, keepdim=True)
    return larger | (equal & (equal.cumsum(dim=-1) <= room))
