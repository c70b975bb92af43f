"""The presets in conf/model: published sizes, and what every language model must show, on small copies."""

from __future__ import annotations

import dataclasses
from typing import Any

import pytest
import torch
import torch.nn.functional as F  # noqa: N812
from torch import Tensor

from lmexp.config.compose import compose
from lmexp.models.config import GPTConfig
from lmexp.models.gpt import GPT
from lmexp.models.hf_config import gpt_config_of
from lmexp.paths import CONF_DIR

PUBLISHED = {
    "gpt2_small": (50_257, 1024, 124_439_808),
    "gpt2_medium": (50_257, 1024, 354_823_168),
    "gpt2_large": (50_257, 1024, 774_030_080),
    "gpt2_xl": (50_257, 1024, 1_557_611_200),
    "llama_1b": (128_256, 2048, 1_235_814_400),
    "tinyllama_1b": (32_000, 2048, 1_100_048_384),
    "smollm2_135m": (49_152, 2048, 134_515_008),
    "smollm2_360m": (49_152, 2048, 361_821_120),
    "nanochat_d12": (65_536, 2048, 185_597_952 + 25 * 768 + 12 * 2 * 128),
}
"""Preset -> tokens, sequence length, and parameters as counted on the hub; of nanochat, which has none in its norms,
2 * 65,536 * 768 + 12 * 12 * 768^2, and those of our norms."""
LLAMA_1B_ROPE = {
    "rope_type": "llama3",
    "factor": 32.0,
    "low_freq_factor": 1.0,
    "high_freq_factor": 4.0,
    "original_max_position_embeddings": 8192,
}
CONFIG_JSON: dict[str, tuple[str, dict[str, Any]]] = {
    "gpt2_small": ("gpt2", {"n_embd": 768, "n_layer": 12, "n_head": 12}),
    "gpt2_medium": ("gpt2", {"n_embd": 1024, "n_layer": 24, "n_head": 16}),
    "gpt2_large": ("gpt2", {"n_embd": 1280, "n_layer": 36, "n_head": 20}),
    "gpt2_xl": ("gpt2", {"n_embd": 1600, "n_layer": 48, "n_head": 25}),
    "llama_1b": (
        "llama",
        {
            "hidden_size": 2048,
            "num_hidden_layers": 16,
            "num_attention_heads": 32,
            "num_key_value_heads": 8,
            "intermediate_size": 8192,
            "head_dim": 64,
            "rms_norm_eps": 1e-5,
            "tie_word_embeddings": True,
            "rope_theta": 500000.0,
            "rope_scaling": LLAMA_1B_ROPE,
        },
    ),
    "tinyllama_1b": (
        "llama",
        {
            "hidden_size": 2048,
            "num_hidden_layers": 22,
            "num_attention_heads": 32,
            "num_key_value_heads": 4,
            "intermediate_size": 5632,
            "rms_norm_eps": 1e-5,
            "rope_theta": 10000.0,
            "rope_scaling": None,
        },
    ),
    "smollm2_135m": (
        "llama",
        {
            "hidden_size": 576,
            "num_hidden_layers": 30,
            "num_attention_heads": 9,
            "num_key_value_heads": 3,
            "intermediate_size": 1536,
            "rms_norm_eps": 1e-5,
            "tie_word_embeddings": True,
            "rope_theta": 100000,
        },
    ),
    "smollm2_360m": (
        "llama",
        {
            "hidden_size": 960,
            "num_hidden_layers": 32,
            "num_attention_heads": 15,
            "num_key_value_heads": 5,
            "intermediate_size": 2560,
            "rms_norm_eps": 1e-5,
            "tie_word_embeddings": True,
            "rope_theta": 100000,
        },
    ),
}
"""Preset -> model_type and what else decides its logits, as in the config.json of the published model."""
OWN = ("gpt_tiny", "llama_tiny")
VOCAB, SEQ = 29, 16


def config_of(preset: str) -> GPTConfig:
    config = compose([f"model={preset}"]).config.model
    assert isinstance(config, GPTConfig)
    return config


def small(preset: str) -> GPT:
    """Two layers with the preset's ratio of heads and of widths, and few features."""
    config = config_of(preset)
    group = config.n_head // config.kv_heads
    n_head = 2 * group
    scaled = dataclasses.replace(
        config,
        n_layer=2,
        n_head=n_head,
        n_kv_head=2,
        d_model=8 * n_head,
        d_ff=config.feed_forward_width * 8 * n_head // config.d_model,
        rotary_original_length=None if config.rotary_original_length is None else 8,
    )
    torch.manual_seed(0)
    model = scaled.build(vocab_size=VOCAB, sequence_length=SEQ)
    assert isinstance(model, GPT)
    return model


def some_tokens(batch: int, seq: int) -> Tensor:
    return torch.randint(VOCAB, (batch, seq), generator=torch.Generator().manual_seed(1))


def test_every_preset_is_tested() -> None:
    presets = {p.stem for p in CONF_DIR.glob("model/*.yaml") if "/schema/model@_here_: gpt" in p.read_text("utf-8")}
    assert presets == {*PUBLISHED, *OWN}


@pytest.mark.parametrize("preset", PUBLISHED)
def test_a_preset_has_the_published_number_of_parameters(preset: str) -> None:
    vocab_size, sequence_length, expected = PUBLISHED[preset]
    with torch.device("meta"):
        model = config_of(preset).build(vocab_size=vocab_size, sequence_length=sequence_length)
    assert sum(parameter.numel() for parameter in model.parameters()) == expected
    first_line = (CONF_DIR / "model" / f"{preset}.yaml").read_text(encoding="utf-8").splitlines()[0]
    assert preset == "nanochat_d12" or f"{expected:,} parameters" in first_line


@pytest.mark.parametrize("preset", CONFIG_JSON)
def test_a_preset_has_the_settings_of_the_published_model(preset: str) -> None:
    model_type, settings = CONFIG_JSON[preset]
    theirs, _, _ = gpt_config_of({"model_type": model_type, "vocab_size": 50_257, **settings})
    ours = config_of(preset)
    assert (ours.kv_heads, ours.feed_forward_width) == (theirs.kv_heads, theirs.feed_forward_width)
    free = {name: getattr(ours, name) for name in ("n_kv_head", "d_ff", "dropout")}
    assert dataclasses.replace(theirs, **free) == ours


@pytest.mark.parametrize("preset", [*PUBLISHED, *OWN])
def test_future_tokens_do_not_change_past_logits(preset: str) -> None:
    model, tokens = small(preset).eval(), some_tokens(2, SEQ)
    changed = tokens.clone()
    changed[:, 9:] = (tokens[:, 9:] + 1) % VOCAB
    before, after = model(tokens), model(changed)
    torch.testing.assert_close(after[:, :9], before[:, :9], rtol=0, atol=1e-6)
    assert (after[:, 9:] - before[:, 9:]).abs().amax(dim=(0, 2)).min() > 1e-4


@pytest.mark.parametrize("preset", ["gpt2_xl", "llama_1b", "smollm2_135m", "nanochat_d12"])
def test_one_batch_overfits(preset: str) -> None:
    model, tokens = small(preset), some_tokens(4, SEQ + 1)
    tokens[:, 0] = torch.arange(4)  # what follows a shared first token could not be known
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-2)
    lowest = float("inf")  # at this learning rate relu2 has spikes
    for _ in range(100):
        loss = F.cross_entropy(model(tokens[:, :-1]).flatten(0, 1), tokens[:, 1:].flatten())
        optimizer.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        optimizer.step()
        lowest = min(lowest, loss.item())
    assert lowest < 0.05
