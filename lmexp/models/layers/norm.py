"""Normalization of the last dimension."""

from __future__ import annotations

import torch
import torch.nn.functional as F  # noqa: N812 - torch's own name for it
from torch import Tensor, nn


class RMSNorm(nn.Module):
    """x over its root mean square, times a learned weight (Zhang and Sennrich 2019, arXiv:1910.07467)."""

    def __init__(self, d: int, *, eps: float = 1e-5) -> None:
        super().__init__()
        self.eps = eps
        self.weight = nn.Parameter(torch.ones(d))

    def forward(self, x: Tensor) -> Tensor:
        """(..., d) -> (..., d), in the weight's precision.

        torch has no fused kernel for the bf16 x and fp32 weight that autocast gives, and warns: so x is cast.
        """
        return F.rms_norm(x.to(self.weight.dtype), self.weight.shape, self.weight, self.eps)


def make_norm(kind: str, d: int, *, bias: bool, eps: float = 1e-5) -> nn.Module:
    """layer_norm or rms_norm over d features; bias is for layer_norm only."""
    return RMSNorm(d, eps=eps) if kind == "rms_norm" else nn.LayerNorm(d, bias=bias, eps=eps)
