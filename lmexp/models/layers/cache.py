"""Keys and values of the tokens that a model has seen, so that each new token costs one step and not the whole text.

Slot s of a row holds the token at position s of that row's text, so rows of any length share a batch: a query at
position p gathers from the slots up to p of its own row, and nothing else has to be masked.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor


class KVCache:
    """Keys and values of each layer, (batch, n_kv_head, max_length, d_head), and how many tokens each row has."""

    def __init__(self, *, n_layer: int, batch_size: int, max_length: int) -> None:
        self.max_length = max_length
        self.lengths = [0] * batch_size
        """Tokens of each row so far."""
        self._keys: list[Tensor | None] = [None] * n_layer  # made when its layer first says of which dtype
        self._values: list[Tensor | None] = [None] * n_layer
        self._slots = torch.empty(0)  # where the new tokens go, as positions() said

    def positions(self, new: int, device: torch.device) -> Tensor:
        """Positions of new tokens in each row: (batch, new), or (1, new) where all rows are equally long."""
        if max(self.lengths) + new > self.max_length:
            raise ValueError(
                f"the cache was made for {self.max_length} tokens, but a row would have {max(self.lengths) + new}; "
                f"make it with a larger max_length"
            )
        starts = self.lengths[:1] if self._is_even() else self.lengths
        self._slots = torch.tensor(starts, device=device)[:, None] + torch.arange(new, device=device)
        return self._slots

    def mask(self, positions: Tensor) -> Tensor | None:
        """Which slots each new token gathers from: (batch or 1, 1, new, slots) bool.

        None: the plain causal mask of new tokens (the cache is empty), or all slots (one new token in each row).
        """
        new = positions.shape[1]
        if self._is_even() and (new == 1 or self.lengths[0] == 0):
            return None
        slots = torch.arange(max(self.lengths) + new, device=positions.device)
        return (slots <= positions[:, :, None])[:, None]

    def append(self, layer: int, k: Tensor, v: Tensor) -> tuple[Tensor, Tensor]:
        """Keep what a layer made of new tokens, (batch, n_kv_head, new, d_head); its keys and values of all slots.

        positions() comes first. The rows grow with advance(), once all layers are done.
        """
        batch, n_kv_head, new, d_head = k.shape
        keys, values = self._keys[layer], self._values[layer]
        if keys is None or values is None:
            keys = k.new_zeros(batch, n_kv_head, self.max_length, d_head)
            values = v.new_zeros(batch, n_kv_head, self.max_length, d_head)
            self._keys[layer], self._values[layer] = keys, values
        if self._is_even():
            span = slice(self.lengths[0], self.lengths[0] + new)
            keys[:, :, span], values[:, :, span] = k, v
        else:
            rows = torch.arange(batch, device=k.device)[:, None]
            keys[rows, :, self._slots], values[rows, :, self._slots] = k.transpose(1, 2), v.transpose(1, 2)
        end = max(self.lengths) + new
        return keys[:, :, :end], values[:, :, :end]

    def advance(self, new: int) -> None:
        """Each row has new more tokens."""
        self.lengths = [length + new for length in self.lengths]

    def crop(self, lengths: Sequence[int]) -> None:
        """Forget what row i has beyond its first lengths[i] tokens."""
        self.lengths = [min(has, keep) for has, keep in zip(self.lengths, lengths, strict=True)]

    def reorder(self, rows: Sequence[int]) -> None:
        """Row i is from now on what row rows[i] was; those named twice are copied, those not named are forgotten."""
        if list(rows) == list(range(len(self.lengths))):
            return
        end, same_size = max(self.lengths), len(rows) == len(self.lengths)
        self.lengths = [self.lengths[row] for row in rows]
        for kept in (self._keys, self._values):
            for layer, tensor in enumerate(kept):
                if tensor is None:
                    continue
                chosen = torch.tensor(rows, device=tensor.device)
                if same_size:  # as each step of beam search does
                    tensor[:, :, :end] = tensor[chosen, :, :end]
                else:
                    kept[layer] = tensor[chosen]

    def _is_even(self) -> bool:
        return min(self.lengths) == max(self.lengths)
