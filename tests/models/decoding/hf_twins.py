"""Hugging Face models with random weights, and lmexp's GPT with the same."""

from __future__ import annotations

import warnings
from typing import Any

import torch
from torch import Tensor

from lmexp.models.config import GPTConfig
from lmexp.models.gpt import GPT

VOCAB, SEQ = 61, 48

with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    from transformers import GPT2Config, GPT2LMHeadModel, LlamaConfig, LlamaForCausalLM


def twins(kind: str) -> tuple[Any, GPT]:
    """A GPT2LMHeadModel or LlamaForCausalLM, and the GPT that computes the same. Their logits are far from uniform."""
    torch.manual_seed(0)
    common = {"bos_token_id": 0, "eos_token_id": 0, "pad_token_id": 0, "vocab_size": VOCAB}
    if kind == "gpt2":
        theirs: Any = GPT2LMHeadModel(
            GPT2Config(n_positions=SEQ, n_embd=32, n_layer=2, n_head=4, activation_function="gelu", **common)
        )
        settings: dict[str, Any] = {"bias": True}
    else:
        theirs = LlamaForCausalLM(
            LlamaConfig(
                max_position_embeddings=SEQ,
                hidden_size=32,
                intermediate_size=64,
                num_hidden_layers=2,
                num_attention_heads=4,
                num_key_value_heads=2,
                rms_norm_eps=1e-5,
                **common,
            )
        )
        settings = {"positions": "rotary", "norm": "rms_norm", "activation": "swiglu", "n_kv_head": 2, "d_ff": 64}
        settings["tie_embeddings"] = False
    with torch.no_grad():
        for parameter in theirs.parameters():
            parameter.normal_(std=0.3 if parameter.dim() > 1 else 0.1).add_(1 if parameter.dim() == 1 else 0)
    config = GPTConfig(n_layer=2, d_model=32, n_head=4, **settings)
    ours = config.build(vocab_size=VOCAB, sequence_length=SEQ)
    assert isinstance(ours, GPT)
    weights = _gpt2(theirs.state_dict()) if kind == "gpt2" else _llama(theirs.state_dict())
    ours.load_state_dict(weights)
    return theirs.eval(), ours.eval()


def _gpt2(theirs: dict[str, Tensor]) -> dict[str, Tensor]:
    found = {
        "token_embedding.weight": theirs["transformer.wte.weight"],
        "position_embedding.weight": theirs["transformer.wpe.weight"],
        "final_norm.weight": theirs["transformer.ln_f.weight"],
        "final_norm.bias": theirs["transformer.ln_f.bias"],
    }
    names = {
        "ln_1": "attention_norm",
        "attn.c_attn": "attention.qkv",
        "attn.c_proj": "attention.output",
        "ln_2": "feed_forward_norm",
        "mlp.c_fc": "feed_forward.up",
        "mlp.c_proj": "feed_forward.down",
    }
    for layer in range(2):
        for there, here in names.items():
            weight = theirs[f"transformer.h.{layer}.{there}.weight"]
            found[f"blocks.{layer}.{here}.weight"] = weight.T if weight.dim() == 2 else weight
            found[f"blocks.{layer}.{here}.bias"] = theirs[f"transformer.h.{layer}.{there}.bias"]
    return found


def _llama(theirs: dict[str, Tensor]) -> dict[str, Tensor]:
    found = {
        "token_embedding.weight": theirs["model.embed_tokens.weight"],
        "final_norm.weight": theirs["model.norm.weight"],
        "head.weight": theirs["lm_head.weight"],
    }
    names = {
        "attention_norm": "input_layernorm",
        "attention.output": "self_attn.o_proj",
        "feed_forward_norm": "post_attention_layernorm",
        "feed_forward.gate": "mlp.gate_proj",
        "feed_forward.up": "mlp.up_proj",
        "feed_forward.down": "mlp.down_proj",
    }
    for layer in range(2):
        there = f"model.layers.{layer}"
        qkv = [theirs[f"{there}.self_attn.{name}_proj.weight"] for name in "qkv"]
        found[f"blocks.{layer}.attention.qkv.weight"] = torch.cat(qkv)
        for here, name in names.items():
            found[f"blocks.{layer}.{here}.weight"] = theirs[f"{there}.{name}.weight"]
    return found
