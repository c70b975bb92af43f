"""Feed-forward layers: each position by itself, through a wider layer and back."""

from __future__ import annotations

import torch.nn.functional as F  # noqa: N812 - torch's own name for it
from torch import Tensor, nn


class GELUFeedForward(nn.Module):
    """down(gelu(up(x))), with the exact GELU as nanoGPT has it."""

    def __init__(self, d_model: int, d_ff: int, *, bias: bool, dropout: float) -> None:
        super().__init__()
        self.up = nn.Linear(d_model, d_ff, bias=bias)
        self.down = nn.Linear(d_ff, d_model, bias=bias)
        self.residual_dropout = nn.Dropout(dropout)

    def forward(self, x: Tensor) -> Tensor:
        """(batch, seq, d_model) -> (batch, seq, d_model)."""
        out: Tensor = self.residual_dropout(self.down(F.gelu(self.up(x))))
        return out


class SwiGLUFeedForward(nn.Module):
    """down(silu(gate(x)) * up(x)) (Shazeer 2020, arXiv:2002.05202)."""

    def __init__(self, d_model: int, d_ff: int, *, bias: bool, dropout: float) -> None:
        super().__init__()
        self.gate = nn.Linear(d_model, d_ff, bias=bias)
        self.up = nn.Linear(d_model, d_ff, bias=bias)
        self.down = nn.Linear(d_ff, d_model, bias=bias)
        self.residual_dropout = nn.Dropout(dropout)

    def forward(self, x: Tensor) -> Tensor:
        """(batch, seq, d_model) -> (batch, seq, d_model)."""
        out: Tensor = self.residual_dropout(self.down(F.silu(self.gate(x)) * self.up(x)))
        return out


def make_feed_forward(activation: str, d_model: int, d_ff: int, *, bias: bool, dropout: float) -> nn.Module:
    """The feed-forward layer with this activation: gelu or swiglu."""
    layer = SwiGLUFeedForward if activation == "swiglu" else GELUFeedForward
    return layer(d_model, d_ff, bias=bias, dropout=dropout)
