"""Muon takes fewer steps than AdamW. benchmarks/muon.py measures it on the whole experiment."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from lmexp.models.config import GPTConfig
from lmexp.optim.config import AdamWConfig, MuonConfig, OptimizerConfig
from lmexp.optim.schedulers.config import CosineConfig

STEPS, LENGTH = 200, 64
RATES = (4e-3, 8e-3, 1.6e-2)


def characters(path: Path) -> tuple[Tensor, Tensor]:
    """The ids of the characters: for training, and for validation."""
    text = path.read_text(encoding="utf-8")
    number = {character: i for i, character in enumerate(sorted(set(text)))}
    ids = torch.tensor([number[character] for character in text])
    return ids[: int(0.9 * len(ids))], ids[int(0.9 * len(ids)) :]


def loss_after(config: OptimizerConfig, seed: int, train: Tensor, validation: Tensor) -> float:
    """Validation loss of a small GPT after STEPS steps with a cosine schedule and clipped gradients."""
    torch.manual_seed(seed)
    model = GPTConfig(n_layer=2, n_head=4, d_model=64).build(vocab_size=65, sequence_length=LENGTH)
    optimizer = config.build(model.named_parameters())
    scheduler = CosineConfig(warmup_steps=10).build(optimizer, STEPS)

    def loss(windows: Tensor) -> Tensor:
        return nn.functional.cross_entropy(model(windows[:, :-1]).flatten(0, 1), windows[:, 1:].flatten())

    for _ in range(STEPS):
        starts = torch.randint(len(train) - LENGTH, (12,)).tolist()
        optimizer.zero_grad()
        loss(torch.stack([train[start : start + LENGTH + 1] for start in starts])).backward()
        nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        scheduler.step()
    with torch.no_grad():
        return loss(validation[: 400 * (LENGTH + 1)].view(400, LENGTH + 1)).item()


@pytest.mark.slow
def test_muon_beats_adamw_at_equal_steps_with_the_best_rate_for_adamw(shared_data: Path) -> None:
    texts = characters(shared_data / "tinyshakespeare" / "input.txt")
    losses = {lr: loss_after(AdamWConfig(lr=lr), 0, *texts) for lr in RATES}
    best = min(losses, key=lambda lr: losses[lr])
    for seed in (1, 2, 3):
        adamw = loss_after(AdamWConfig(lr=best), seed, *texts)
        assert loss_after(MuonConfig(lr=best), seed, *texts) < adamw - 0.02, (best, seed)
