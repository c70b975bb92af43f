"""Our GPT as Hugging Face's GPT-2, Llama or Qwen3, and theirs as our GPT: settings and weights, both ways.

Pure functions over the content of a config.json and over tensors by name; neither imports transformers. What can't be
expressed on the other side is a ConfigError that names the settings which stand in the way. The names of their tensors
and the meaning of their settings are those of transformers' models/{gpt2,llama,qwen3}/modeling_*.py.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from lmexp.errors import CheckpointError
from lmexp.models.config import GPTConfig
from lmexp.models.hf_config import architecture_of, gpt_config_of, hf_config_of


@dataclass(frozen=True, slots=True)
class Weight:
    """A tensor of ours, and where it is on the other side."""

    ours: str
    theirs: tuple[str, ...]
    """Several are the rows of ours, one after another."""
    rows: tuple[int, ...]
    """How many rows of ours each of theirs has."""
    columns: int | None = None
    """None for a vector."""
    transposed: bool = False
    """Whether theirs is (columns, rows)."""

    def shapes(self) -> list[tuple[int, ...]]:
        """The shape of each of theirs."""
        if self.columns is None:
            return [(rows,) for rows in self.rows]
        return [(self.columns, rows) if self.transposed else (rows, self.columns) for rows in self.rows]


def to_hf(
    config: GPTConfig, vocab_size: int, sequence_length: int, state: Mapping[str, Tensor]
) -> tuple[dict[str, Any], dict[str, Tensor]]:
    """What goes into config.json and into model.safetensors for transformers to compute the same logits.

    config, vocab_size, sequence_length: as the GPT was built with; state: its state_dict().
    With positions=learned that is a GPT2LMHeadModel, with rotary a LlamaForCausalLM, or with qk_norm a
    Qwen3ForCausalLM; ConfigError where these lack a setting of ours. GPT-2 always has biases: with bias=false they are
    zeros, and from_hf leaves them out again. bos_token_id, eos_token_id and pad_token_id are null: they are the
    tokenizer's. A tied output matrix is left out. The tensors are copies, with memory of their own.
    """
    hf_config = hf_config_of(config, vocab_size, sequence_length)
    hf_state: dict[str, Tensor] = {}
    like = state.get("token_embedding.weight")
    left = set(state)
    for weight in _weights(config, vocab_size, sequence_length):
        left.discard(weight.ours)
        tensor = state.get(weight.ours)
        if tensor is None and not config.bias and weight.ours.endswith(".bias") and like is not None:
            tensor = like.new_zeros(sum(weight.rows))
        shape = (sum(weight.rows),) if weight.columns is None else (sum(weight.rows), weight.columns)
        _check(weight.ours, tensor, shape)
        assert tensor is not None
        for name, part in zip(weight.theirs, tensor.detach().split_with_sizes(weight.rows), strict=True):
            hf_state[name] = (part.T if weight.transposed else part).clone(memory_format=torch.contiguous_format)
    if left:
        raise CheckpointError(f"{min(left)} is a tensor that a GPT with this config doesn't have")
    assert like is not None
    return {**hf_config, "dtype": str(like.dtype).removeprefix("torch.")}, hf_state


def from_hf(
    hf_config: Mapping[str, Any], hf_state: Mapping[str, Tensor]
) -> tuple[GPTConfig, int, int, dict[str, Tensor]]:
    """The config, vocab_size, sequence_length and state_dict() of a GPT that computes the same logits.

    hf_config: the content of a config.json with model_type gpt2, llama or qwen3; hf_state: of its model.safetensors.
    ConfigError where our GPT lacks a setting of theirs, CheckpointError where a tensor is missing, too many or of
    another shape. Tensors keep their dtype; those that need no change are the same objects.
    """
    config, vocab_size, sequence_length = gpt_config_of(hf_config)
    theirs = _known_names(hf_state)
    if architecture_of(config) == "GPT2LMHeadModel" and not config.bias and _has_bias(theirs):
        config.bias = True  # written by to_hf without biases, and trained since with them
    state: dict[str, Tensor] = {}
    used = set()
    for weight in _weights(config, vocab_size, sequence_length):
        parts = []
        for name, shape in zip(weight.theirs, weight.shapes(), strict=True):
            tensor = theirs.get(name)
            _check(name, tensor, shape)
            assert tensor is not None
            parts.append(tensor.T if weight.transposed else tensor)
            used.add(name)
        if config.bias or not weight.ours.endswith(".bias"):
            state[weight.ours] = parts[0].contiguous() if len(parts) == 1 else torch.cat(parts)
    unexpected = sorted(theirs.keys() - used)
    if config.tie_embeddings and "lm_head.weight" in unexpected:
        if not torch.equal(theirs["lm_head.weight"], state["token_embedding.weight"]):
            raise CheckpointError(
                "lm_head.weight differs from the token embedding, but config.json says tie_word_embeddings=true; set "
                "it to false there"
            )
        unexpected.remove("lm_head.weight")
    if unexpected:
        raise CheckpointError(
            f"{unexpected[0]} is a tensor that {hf_config['model_type']} with this config.json doesn't have"
            f"{f', and so are {len(unexpected) - 1} more' if len(unexpected) > 1 else ''}"
        )
    return config, vocab_size, sequence_length, state


def _weights(config: GPTConfig, vocab_size: int, sequence_length: int) -> Iterator[Weight]:
    """Every tensor of the other side; GPT-2's biases also where ours has none."""
    d_model = config.d_model
    gpt2 = architecture_of(config) == "GPT2LMHeadModel"
    root = "transformer" if gpt2 else "model"
    embedding = "wte" if gpt2 else "embed_tokens"
    yield Weight("token_embedding.weight", (f"{root}.{embedding}.weight",), (vocab_size,), d_model)
    if gpt2:
        yield Weight("position_embedding.weight", ("transformer.wpe.weight",), (sequence_length,), d_model)
    for number in range(config.n_layer):
        if gpt2:
            yield from _gpt2_block(config, f"blocks.{number}", f"transformer.h.{number}")
        else:
            yield from _llama_block(config, f"blocks.{number}", f"model.layers.{number}")
    yield from _norm("final_norm", "transformer.ln_f" if gpt2 else "model.norm", d_model, bias=gpt2)
    if not config.tie_embeddings:
        yield Weight("head.weight", ("lm_head.weight",), (vocab_size,), d_model)


def _gpt2_block(config: GPTConfig, ours: str, theirs: str) -> Iterator[Weight]:
    d_model, d_ff = config.d_model, config.feed_forward_width
    yield from _norm(f"{ours}.attention_norm", f"{theirs}.ln_1", d_model, bias=True)
    yield from _norm(f"{ours}.feed_forward_norm", f"{theirs}.ln_2", d_model, bias=True)
    for our, their, rows, columns in (
        ("attention.qkv", "attn.c_attn", 3 * d_model, d_model),
        ("attention.output", "attn.c_proj", d_model, d_model),
        ("feed_forward.up", "mlp.c_fc", d_ff, d_model),
        ("feed_forward.down", "mlp.c_proj", d_model, d_ff),
    ):
        yield Weight(f"{ours}.{our}.weight", (f"{theirs}.{their}.weight",), (rows,), columns, transposed=True)
        yield Weight(f"{ours}.{our}.bias", (f"{theirs}.{their}.bias",), (rows,))


def _llama_block(config: GPTConfig, ours: str, theirs: str) -> Iterator[Weight]:
    d_model, d_ff = config.d_model, config.feed_forward_width
    yield from _norm(f"{ours}.attention_norm", f"{theirs}.input_layernorm", d_model, bias=False)
    yield from _norm(f"{ours}.feed_forward_norm", f"{theirs}.post_attention_layernorm", d_model, bias=False)
    if config.qk_norm:
        yield from _norm(f"{ours}.attention.q_norm", f"{theirs}.self_attn.q_norm", config.d_head, bias=False)
        yield from _norm(f"{ours}.attention.k_norm", f"{theirs}.self_attn.k_norm", config.d_head, bias=False)
    kv = config.kv_heads * config.d_head
    qkv = tuple(f"self_attn.{name}_proj" for name in "qkv")
    for our, their, rows, columns in (
        ("attention.qkv", qkv, (d_model, kv, kv), d_model),
        ("attention.output", ("self_attn.o_proj",), (d_model,), d_model),
        ("feed_forward.gate", ("mlp.gate_proj",), (d_ff,), d_model),
        ("feed_forward.up", ("mlp.up_proj",), (d_ff,), d_model),
        ("feed_forward.down", ("mlp.down_proj",), (d_model,), d_ff),
    ):
        names = [f"{theirs}.{name}" for name in their]
        yield Weight(f"{ours}.{our}.weight", tuple(f"{name}.weight" for name in names), rows, columns)
        if config.bias:
            yield Weight(f"{ours}.{our}.bias", tuple(f"{name}.bias" for name in names), rows)


def _norm(ours: str, theirs: str, width: int, *, bias: bool) -> Iterator[Weight]:
    yield Weight(f"{ours}.weight", (f"{theirs}.weight",), (width,))
    if bias:
        yield Weight(f"{ours}.bias", (f"{theirs}.bias",), (width,))


def _known_names(hf_state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Their tensors under the names of the whole model, without tables that older files hold besides weights.

    The file of gpt2 on the hub has the names of GPT2Model: wte.weight and not transformer.wte.weight.
    """
    bare = "wte.weight" in hf_state
    return {
        f"transformer.{name}" if bare and name != "lm_head.weight" else name: tensor
        for name, tensor in hf_state.items()
        if not name.endswith((".attn.bias", ".attn.masked_bias", ".rotary_emb.inv_freq"))
    }


def _has_bias(theirs: Mapping[str, Tensor]) -> bool:
    """Whether any bias isn't zero."""
    return any(bool(tensor.any()) for name, tensor in theirs.items() if name.endswith(".bias"))


def _check(name: str, tensor: Tensor | None, shape: tuple[int, ...]) -> None:
    """CheckpointError unless a tensor is there and has its shape."""
    if tensor is None:
        raise CheckpointError(f"the weights lack {name}, expected with shape {list(shape)}")
    if tuple(tensor.shape) != shape:
        raise CheckpointError(f"{name} has shape {list(tensor.shape)}, expected {list(shape)} by the config")
