"""Causal self-attention: multi-head (arXiv:1706.03762) or grouped-query (arXiv:2305.13245)."""

from __future__ import annotations

from collections.abc import Callable

import torch
import torch.nn.functional as F  # noqa: N812 - torch's own name for it
from torch import Tensor, nn

from lmexp.models.layers.norm import RMSNorm
from lmexp.models.layers.rotary import Rotation, rotate

Remember = Callable[[Tensor, Tensor], tuple[Tensor, Tensor]]
"""Keeps the keys and values of new tokens; gives those of all tokens so far, see layers/cache.py."""


class CausalSelfAttention(nn.Module):
    """Every position gathers from itself and the positions before it, or from those of them that a mask allows."""

    def __init__(
        self,
        d_model: int,
        n_head: int,
        *,
        n_kv_head: int,
        bias: bool,
        dropout: float,
        qk_norm: bool,
        norm_eps: float = 1e-5,
    ) -> None:
        super().__init__()
        self.n_head, self.n_kv_head, self.d_head = n_head, n_kv_head, d_model // n_head
        self.dropout = dropout
        self.qkv = nn.Linear(d_model, (n_head + 2 * n_kv_head) * self.d_head, bias=bias)
        self.output = nn.Linear(d_model, d_model, bias=bias)
        self.q_norm = RMSNorm(self.d_head, eps=norm_eps) if qk_norm else None
        self.k_norm = RMSNorm(self.d_head, eps=norm_eps) if qk_norm else None
        self.residual_dropout = nn.Dropout(dropout)

    def forward(
        self,
        x: Tensor,
        rotation: Rotation | None = None,
        mask: Tensor | None = None,
        remember: Remember | None = None,
    ) -> Tensor:
        """(batch, seq, d_model) -> (batch, seq, d_model). mask: see document_mask; or what is added, see alibi_mask.

        remember: x are new tokens that gather from those before too; with mask=None, one token from all.
        """
        batch, seq, d_model = x.shape
        qkv = self.qkv(x).view(batch, seq, -1, self.d_head).transpose(1, 2)  # (batch, heads, seq, d_head)
        q, k, v = qkv.split((self.n_head, self.n_kv_head, self.n_kv_head), dim=1)
        if self.q_norm is not None and self.k_norm is not None:
            q, k = self.q_norm(q), self.k_norm(k)
        if rotation is not None:
            q, k = rotate(q, rotation), rotate(k, rotation)
        if remember is not None:
            k, v = remember(k, v)  # (batch, n_kv_head, slots, d_head)
        gathered = F.scaled_dot_product_attention(
            q.to(v.dtype),  # under autocast the norms give fp32
            k.to(v.dtype),
            v,
            attn_mask=mask if mask is None or mask.dtype == torch.bool else mask.to(v.dtype),
            dropout_p=self.dropout if self.training else 0.0,
            is_causal=mask is None and (remember is None or seq > 1),
            enable_gqa=self.n_kv_head != self.n_head,
        )  # (batch, n_head, seq, d_head)
        merged = gathered.transpose(1, 2).reshape(batch, seq, d_model)
        mixed: Tensor = self.residual_dropout(self.output(merged))
        return mixed


def document_mask(positions: Tensor) -> Tensor:
    """Who gathers from whom: from itself and what comes before it in its own document. (batch, 1, seq, seq) bool.

    positions: (batch, seq), where each 0 starts a document.
    """
    seq = positions.shape[1]
    document = (positions == 0).cumsum(dim=1)  # (batch, seq)
    same = document[:, :, None] == document[:, None, :]  # (batch, seq, seq)
    causal = torch.ones(seq, seq, dtype=torch.bool, device=positions.device).tril()
    return (same & causal)[:, None]
