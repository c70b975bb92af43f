"""Rotary positions (Su et al. 2021, arXiv:2104.09864), with Llama's pairing of features i and i + d_head / 2.

A query at position i and a key at position j are rotated by angles that grow with i and j, so that their
product depends on i - j alone.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple, Self

import torch
from torch import Tensor, nn

from lmexp.models.layers.rotary_scaling import RotaryScaling, frequencies


class Rotation(NamedTuple):
    """Cosines and sines of each position's angles, (seq, d_head / 2) or, where each sequence has positions of its
    own, (batch, 1, seq, d_head / 2); in fp32 or wider."""

    cos: Tensor
    sin: Tensor


class Rotary(nn.Module):
    """The rotations of positions 0 to max_sequence_length - 1, computed once."""

    cos: Tensor
    sin: Tensor

    def __init__(
        self, d_head: int, max_sequence_length: int, *, base: float = 10000.0, scaling: RotaryScaling | None = None
    ) -> None:
        super().__init__()
        self.d_head, self.max_sequence_length, self.base, self.scaling = d_head, max_sequence_length, base, scaling
        device = torch.get_default_device()
        for name, table in zip(("cos", "sin"), self._tables(), strict=True):
            self.register_buffer(name, table.float().to(device), persistent=False)

    def forward(self, length: int, positions: Tensor | None = None) -> Rotation:
        """The first length positions, or those given, (batch, seq)."""
        if positions is None:
            return Rotation(self.cos[:length], self.sin[:length])  # (seq, d_head / 2)
        return Rotation(self.cos[positions][:, None], self.sin[positions][:, None])  # (batch, 1, seq, d_head / 2)

    def _tables(self) -> tuple[Tensor, Tensor]:
        """In float64 on the CPU: at position 100,000 an fp32 angle is off by 0.004."""
        positions = torch.arange(self.max_sequence_length, dtype=torch.float64, device="cpu")
        per_position, factor = frequencies(self.d_head, self.base, self.scaling)
        angles = torch.outer(positions, per_position)
        return angles.cos() * factor, angles.sin() * factor  # (max_sequence_length, d_head / 2)

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> Self:
        """Move or cast, then fill anew: bf16 must not round the tables, float64 wants more digits than fp32
        has, and tables from the meta device have no values yet."""
        super()._apply(fn, recurse)  # type: ignore[no-untyped-call]
        if self.cos.device.type != "meta":
            dtype = torch.promote_types(self.cos.dtype, torch.float32)
            cos, sin = self._tables()
            self.cos, self.sin = cos.to(dtype).to(self.cos.device), sin.to(dtype).to(self.sin.device)
        return self


def rotate(x: Tensor, rotation: Rotation) -> Tensor:
    """x (batch, n_head, seq, d_head) turned by its positions, in fp32 or wider; the result has x's dtype."""
    cos, sin = rotation
    left, right = x.to(cos.dtype).chunk(2, dim=-1)  # (batch, n_head, seq, d_head / 2)
    turned = torch.cat((left * cos - right * sin, right * cos + left * sin), dim=-1)
    return turned.to(x.dtype)  # (batch, n_head, seq, d_head)
