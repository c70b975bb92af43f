"""Hugging Face's GPT-2 and tokenizer in lmexp's interfaces, to score the same model with lm-eval.

Import it after lm_eval or transformers: these warn.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from lmexp.tokenizers.bpe import BPETokenizer

EOS = "<|eos|>"


class AsLmexp(nn.Module):
    """Tokens (batch, seq) to logits (batch, seq, vocab)."""

    def __init__(self, model: Any) -> None:
        super().__init__()
        self.model = model
        self.max_sequence_length: int = model.config.n_positions

    def forward(self, tokens: Tensor) -> Tensor:
        logits: Tensor = self.model(tokens).logits
        return logits


def make_gpt2(vocab_size: int, n_positions: int) -> Any:
    """A random transformers.GPT2LMHeadModel with logits far from uniform."""
    from transformers import GPT2Config, GPT2LMHeadModel

    torch.manual_seed(0)
    config = GPT2Config(
        vocab_size=vocab_size,
        n_positions=n_positions,
        n_embd=32,
        n_layer=2,
        n_head=2,
        initializer_range=0.3,
        bos_token_id=vocab_size - 1,
        eos_token_id=vocab_size - 1,
    )
    return GPT2LMHeadModel(config).eval()


def as_hugging_face(tokenizer: BPETokenizer, max_length: int) -> Any:
    """A transformers tokenizer that gives the same ids, <eos> included."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    vocab = {token: i for i, token in enumerate(tokenizer.tokens)}
    pipeline = Tokenizer(models.BPE(vocab=vocab, merges=tokenizer.merges))
    pipeline.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    pipeline.decoder = decoders.ByteLevel()
    pipeline.add_special_tokens([EOS])
    return PreTrainedTokenizerFast(tokenizer_object=pipeline, eos_token=EOS, model_max_length=max_length)


def in_lm_eval(model: Any, tokenizer: Any, max_length: int, **more: Any) -> Any:
    """The model as lm-eval takes one: each request by itself, and never from its cache."""
    from lm_eval.models.huggingface import HFLM

    settings = {"batch_size": 1, "device": "cpu", "max_length": max_length, "logits_cache": False, **more}
    return HFLM(pretrained=model, tokenizer=tokenizer, **settings)
