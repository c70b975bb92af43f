"""Feed-forward layers: each position by itself, through a wider layer and back."""

from __future__ import annotations

import torch.nn.functional as F  # noqa: N812 - torch's own name for it
from torch import Tensor, nn


class FeedForward(nn.Module):
    """down(activation(up(x)))."""

    def __init__(self, activation: str, d_model: int, d_ff: int, *, bias: bool, dropout: float) -> None:
        """activation: gelu (exact, as nanoGPT has it), gelu_tanh (its tanh approximation, as GPT-2 has it) or relu2."""
        super().__init__()
        self.activation = activation
        self.up = nn.Linear(d_model, d_ff, bias=bias)
        self.down = nn.Linear(d_ff, d_model, bias=bias)
        self.residual_dropout = nn.Dropout(dropout)

    def forward(self, x: Tensor) -> Tensor:
        """(batch, seq, d_model) -> (batch, seq, d_model)."""
        out: Tensor = self.residual_dropout(self.down(self._activated(self.up(x))))
        return out

    def _activated(self, x: Tensor) -> Tensor:
        if self.activation == "relu2":  # So et al. 2021, arXiv:2109.08668
            return F.relu(x).square()
        return F.gelu(x, approximate="tanh" if self.activation == "gelu_tanh" else "none")


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
    """The feed-forward layer with this activation: gelu, gelu_tanh, relu2 or swiglu."""
    if activation == "swiglu":
        return SwiGLUFeedForward(d_model, d_ff, bias=bias, dropout=dropout)
    return FeedForward(activation, d_model, d_ff, bias=bias, dropout=dropout)
