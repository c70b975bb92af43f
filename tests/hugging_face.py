"""Small Hugging Face models on disk, made here with random weights and a tokenizer trained here."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
import transformers

from lmexp.models import hf_architecture
from lmexp.tokenizers import to_hf
from lmexp.tokenizers.bpe import BPETokenizer

LENGTH = 24
"""Positions of each model."""
WIDTHS: dict[str, Any] = {
    "hidden_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "intermediate_size": 48,
    "initializer_range": 0.2,
}
HEADS = {"head_dim": 8}
GPT_NEOX = {name: value for name, value in WIDTHS.items() if name != "num_key_value_heads"}
SETTINGS: dict[str, dict[str, Any]] = {
    "gpt2": {"n_embd": 32, "n_layer": 2, "n_head": 4, "initializer_range": 0.2},
    "llama": WIDTHS,
    "mistral": WIDTHS,
    "olmo2": WIDTHS,
    "phi3": {**WIDTHS, "pad_token_id": 0},
    "qwen2": WIDTHS,
    "qwen3": {**WIDTHS, **HEADS},
    "gemma": {**WIDTHS, **HEADS},
    "gpt_neox": GPT_NEOX,
}
"""model_type -> what makes the architecture small, and its weights large enough to tell models apart."""


def tokenizer(texts: list[str] | None = None) -> BPETokenizer:
    """Byte-level BPE of a few merges."""
    lines = texts or [f"the cat sat on the mat {i} and the dog ran" for i in range(50)]
    return BPETokenizer.train(lines, vocab_size=300, min_frequency=2)


def write_model(folder: Path, model_type: str = "gpt2", *, seed: int = 0, **settings: Any) -> Any:
    """A folder with a model and its tokenizer, as save_pretrained() writes them; returns the model."""
    hf_architecture.library()  # no progress bars
    own = tokenizer()
    given = {**SETTINGS[model_type], "vocab_size": own.vocab_size, "max_position_embeddings": LENGTH, **settings}
    special = {"bos_token_id": own.eos_id, "eos_token_id": own.eos_id}
    config = transformers.AutoConfig.for_model(model_type, **{**given, **special})
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        model = transformers.AutoModelForCausalLM.from_config(config, dtype=torch.float32).eval()
    model.save_pretrained(folder)
    to_hf.write(own, folder)
    return model
