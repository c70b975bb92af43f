"""Attention with linear biases (Press et al. 2022, arXiv:2108.12409): no positions in the tokens, less for far keys."""

from __future__ import annotations

import torch
from torch import Tensor


def alibi_slopes(n_head: int, *, dtype: torch.dtype, device: torch.device | None = None) -> Tensor:
    """How much each head's logits fall per token of distance, (n_head,).

    With n_head a power of two the geometric series 2^(-8/n), 2^(-16/n), ..., 2^-8; otherwise that of the power of two
    below, and then every second slope of that of the power above, as in the authors' code.
    """
    power = 1 << (n_head.bit_length() - 1)  # the largest power of two that isn't above n_head
    first = torch.arange(1, power + 1, dtype=dtype, device=device) * (8 / power)
    rest = (2 * torch.arange(n_head - power, dtype=dtype, device=device) + 1) * (4 / power)
    return 2.0 ** -torch.cat((first, rest))


def alibi_mask(n_head: int, queries: Tensor, slots: int, allowed: Tensor | None, dtype: torch.dtype) -> Tensor:
    """What is added to attention's logits: minus slope times distance, minus infinity where a key must not be seen.

    queries: (batch or 1, seq) slot of each query, which stands in a sequence of this many slots; allowed: as
    attention.document_mask, (batch or 1, 1, seq, slots), or None for itself and all before. dtype: at least fp32, lest
    distances be rounded. -> (batch or 1, n_head, seq, slots)
    """
    distance = queries[:, None, :, None] - torch.arange(slots, device=queries.device)  # (batch or 1, 1, seq, slots)
    slopes = alibi_slopes(n_head, dtype=dtype, device=queries.device)[:, None, None]
    visible = distance >= 0 if allowed is None else allowed
    return (-slopes * distance).masked_fill(~visible, float("-inf"))
