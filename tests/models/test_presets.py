"""The presets in conf/model: published sizes, and what every language model must show, on small copies."""

from __future__ import annotations

import dataclasses

import pytest
import torch
import torch.nn.functional as F  # noqa: N812
from torch import Tensor

from lmexp.config.compose import compose
from lmexp.models.config import GPTConfig
from lmexp.models.gpt import GPT
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
