"""A decoder-only transformer: GPT-2 (Radford et al. 2019), Llama (arXiv:2302.13971) and what lies between.

With learned positions, LayerNorm, GELU and tied embeddings it computes what nanoGPT's model.py computes.
"""

from __future__ import annotations

import math
from functools import partial

import torch
import torch.nn.functional as F  # noqa: N812 - torch's own name for it
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from lmexp.models.config import GPTConfig
from lmexp.models.layers.alibi import alibi_mask
from lmexp.models.layers.attention import CausalSelfAttention, document_mask
from lmexp.models.layers.block import Block
from lmexp.models.layers.cache import KVCache
from lmexp.models.layers.feed_forward import make_feed_forward
from lmexp.models.layers.norm import make_norm
from lmexp.models.layers.rotary import Rotary
from lmexp.models.layers.rotary_scaling import RotaryScaling


class GPT(nn.Module):
    """Token ids to the logits of each next token."""

    def __init__(self, config: GPTConfig, *, vocab_size: int, sequence_length: int) -> None:
        super().__init__()
        self.vocab_size = vocab_size
        self.max_sequence_length = sequence_length
        self.token_embedding = nn.Embedding(vocab_size, config.d_model)
        learned = config.positions == "learned"
        self.position_embedding = nn.Embedding(sequence_length, config.d_model) if learned else None
        self.rotary = _rotary(config, sequence_length) if config.positions == "rotary" else None
        self.alibi_heads = config.n_head if config.positions == "alibi" else None
        self.activation_checkpointing = config.activation_checkpointing
        self.embedding_dropout = nn.Dropout(config.dropout)
        self.blocks = nn.ModuleList(_block(config) for _ in range(config.n_layer))
        self.final_norm = _norm(config)
        self.head = None if config.tie_embeddings else nn.Linear(config.d_model, vocab_size, bias=False)
        self._initialize(config)

    @property
    def head_weight(self) -> Tensor:
        """(vocab, d_model) output matrix: logits = hidden @ head_weight.T."""
        return self.token_embedding.weight if self.head is None else self.head.weight

    def hidden(self, tokens: Tensor, positions: Tensor | None = None, cache: KVCache | None = None) -> Tensor:
        """tokens (batch, seq) -> (batch, seq, d_model): all but the head, so that a loss can go by chunks."""
        seq = tokens.shape[1]
        if seq > self.max_sequence_length:
            raise ValueError(
                f"tokens has {seq} positions, but this model takes {self.max_sequence_length} at most (the "
                f"data.sequence_length it was built with); give it fewer"
            )
        mask = None if positions is None else document_mask(positions)  # (batch, 1, seq, seq)
        if cache is not None:
            positions = cache.positions(seq, tokens.device)  # (batch or 1, seq)
            mask = cache.mask(positions)  # (batch or 1, 1, seq, slots)
        x = self.token_embedding(tokens)  # (batch, seq, d_model)
        if self.position_embedding is not None:
            by_index = self.position_embedding.weight[:seq]
            x = x + (by_index if positions is None else self.position_embedding(positions))
        rotation = None if self.rotary is None else self.rotary(seq, positions)
        if self.alibi_heads is not None:
            earlier = 0 if cache is None else max(cache.lengths)
            queries = torch.arange(seq, device=x.device)[None] if cache is None or positions is None else positions
            precision = torch.promote_types(x.dtype, torch.float32)
            mask = alibi_mask(self.alibi_heads, queries, earlier + seq, mask, precision)
        x = self.embedding_dropout(x)
        for layer, block in enumerate(self.blocks):
            if cache is not None:
                x = block(x, rotation, mask, partial(cache.append, layer))
            elif self.activation_checkpointing and torch.is_grad_enabled():
                x = checkpoint(block, x, rotation, mask, use_reentrant=False)
            else:
                x = block(x, rotation, mask)
        if cache is not None:
            cache.advance(seq)
        normed: Tensor = self.final_norm(x)
        return normed

    def forward(self, tokens: Tensor, positions: Tensor | None = None, cache: KVCache | None = None) -> Tensor:
        """tokens (batch, seq) -> logits (batch, seq, vocab).

        positions: (batch, seq) of each token in its own document, where a sequence holds several; each 0 starts
        one, and none sees another. None: each sequence is one document. cache: tokens go on from those that it
        has seen (then without positions), and it has seen them too afterwards; see base.CachedLanguageModel.
        """
        if cache is not None and positions is not None:
            raise ValueError("give either positions or a cache: a cache knows the positions of its rows' next tokens")
        return F.linear(self.hidden(tokens, positions, cache), self.head_weight)

    def new_cache(self, batch_size: int, max_length: int) -> KVCache:
        """An empty cache for batch_size texts of up to max_length tokens each."""
        if max_length > self.max_sequence_length:
            raise ValueError(
                f"max_length is {max_length}, but this model takes {self.max_sequence_length} tokens at most"
            )
        return KVCache(n_layer=len(self.blocks), batch_size=batch_size, max_length=max_length)

    def _initialize(self, config: GPTConfig) -> None:
        """GPT-2's: normal weights, zero biases; the 2 * n_layer projections that add to the residual stream
        are scaled down so that the stream starts with the same variance at any depth."""
        for name, module in self.named_modules():
            if isinstance(module, nn.Linear | nn.Embedding):
                residual = name.endswith((".attention.output", ".feed_forward.down"))
                scale = 1 / math.sqrt(2 * config.n_layer) if residual else 1.0
                nn.init.normal_(module.weight, std=config.init_std * scale)
            if isinstance(module, nn.Linear) and module.bias is not None:
                nn.init.zeros_(module.bias)


def _rotary(config: GPTConfig, sequence_length: int) -> Rotary:
    scaling = RotaryScaling(config.rotary_scaling, config.rotary_factor, config.rotary_original_length)
    scaled = None if config.rotary_scaling == "none" else scaling
    return Rotary(config.d_head, sequence_length, base=config.rotary_base, scaling=scaled)


def _norm(config: GPTConfig) -> nn.Module:
    return make_norm(config.norm, config.d_model, bias=config.bias, eps=config.norm_eps)


def _block(config: GPTConfig) -> Block:
    bias, dropout = config.bias, config.dropout
    return Block(
        attention_norm=_norm(config),
        attention=CausalSelfAttention(
            config.d_model,
            config.n_head,
            n_kv_head=config.kv_heads,
            bias=bias,
            dropout=dropout,
            qk_norm=config.qk_norm,
            norm_eps=config.norm_eps,
        ),
        feed_forward_norm=_norm(config),
        feed_forward=make_feed_forward(
            config.activation, config.d_model, config.feed_forward_width, bias=bias, dropout=dropout
        ),
    )
