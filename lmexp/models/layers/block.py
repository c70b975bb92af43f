"""The pre-norm transformer block (Xiong et al. 2020, arXiv:2002.04745)."""

from __future__ import annotations

from torch import Tensor, nn

from lmexp.models.layers.attention import Remember
from lmexp.models.layers.rotary import Rotation


class Block(nn.Module):
    """x plus attention of the normed x, then plus feed-forward of the normed sum."""

    def __init__(
        self,
        *,
        attention_norm: nn.Module,
        attention: nn.Module,
        feed_forward_norm: nn.Module,
        feed_forward: nn.Module,
    ) -> None:
        super().__init__()
        self.attention_norm = attention_norm
        self.attention = attention
        self.feed_forward_norm = feed_forward_norm
        self.feed_forward = feed_forward

    def forward(
        self,
        x: Tensor,
        rotation: Rotation | None = None,
        mask: Tensor | None = None,
        remember: Remember | None = None,
    ) -> Tensor:
        """(batch, seq, d_model) -> (batch, seq, d_model)."""
        x = x + self.attention(self.attention_norm(x), rotation, mask, remember)
        out: Tensor = x + self.feed_forward(self.feed_forward_norm(x))
        return out
