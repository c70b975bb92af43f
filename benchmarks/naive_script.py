"""What startup.py compares with: a training script as many write it, with Hydra, Lightning and W&B (offline).

    python -m benchmarks.naive_script path=FILE [key=value ...]

Model, data and optimizer have the sizes of `lmexp train tokenizer=byte`: 4 blocks of width 128, 16 sequences of
256 bytes a step, AdamW. Nothing of lmexp.
"""

from __future__ import annotations

from pathlib import Path

import hydra
import pytorch_lightning as pl
import torch
import torch.nn.functional as F  # noqa: N812 - torch's own name for it
from hydra.core.config_store import ConfigStore
from omegaconf import DictConfig
from pytorch_lightning.callbacks import ModelCheckpoint
from pytorch_lightning.loggers import WandbLogger
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset

from benchmarks.first_step import FirstStep

CONFIG = {
    "seed": 1234,
    "path": "???",
    "first_step": "first_step.txt",
    "batch_size": 16,
    "sequence_length": 256,
    "model": {"n_layer": 4, "n_head": 4, "d_model": 128},
    "optimizer": {"lr": 1e-3, "weight_decay": 0.1},
    "trainer": {"max_steps": 1, "accelerator": "auto", "devices": 1},
}
ConfigStore.instance().store(name="config", node=CONFIG)


class Windows(Dataset[Tensor]):
    """Consecutive windows of a file's bytes, one longer than the sequence."""

    def __init__(self, path: str, sequence_length: int) -> None:
        self.bytes = torch.tensor(list(Path(path).read_bytes()))
        self.sequence_length = sequence_length

    def __len__(self) -> int:
        return (len(self.bytes) - 1) // self.sequence_length

    def __getitem__(self, i: int) -> Tensor:
        start = i * self.sequence_length
        return self.bytes[start : start + self.sequence_length + 1]


class LanguageModel(pl.LightningModule):
    """A causal transformer from torch's own layers."""

    def __init__(self, config: DictConfig) -> None:
        super().__init__()
        width, length = config.model.d_model, config.sequence_length
        self.config = config
        self.tokens = nn.Embedding(257, width)
        self.positions = nn.Embedding(length, width)
        layer = nn.TransformerEncoderLayer(
            width, config.model.n_head, 4 * width, dropout=0.0, activation="gelu", batch_first=True, norm_first=True
        )
        self.blocks = nn.TransformerEncoder(
            layer, config.model.n_layer, nn.LayerNorm(width), enable_nested_tensor=False
        )
        self.head = nn.Linear(width, 257, bias=False)
        self.register_buffer("mask", nn.Transformer.generate_square_subsequent_mask(length), persistent=False)

    def training_step(self, batch: Tensor, batch_idx: int) -> Tensor:
        tokens, targets = batch[:, :-1], batch[:, 1:]  # (batch, seq)
        x = self.tokens(tokens) + self.positions.weight  # (batch, seq, d_model)
        logits = self.head(self.blocks(x, mask=self.mask, is_causal=True))  # (batch, seq, vocab)
        loss = F.cross_entropy(logits.flatten(0, 1), targets.flatten())
        self.log("train/loss", loss, prog_bar=True)
        return loss

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.AdamW(self.parameters(), **self.config.optimizer)


@hydra.main(version_base="1.3", config_path=None, config_name="config")
def main(config: DictConfig) -> None:
    """Train."""
    pl.seed_everything(config.seed)
    loader = DataLoader(Windows(config.path, config.sequence_length), config.batch_size, shuffle=True, drop_last=True)
    trainer = pl.Trainer(
        **config.trainer,
        logger=WandbLogger(project="naive", save_dir=".", offline=True),
        callbacks=[ModelCheckpoint(), FirstStep(config.first_step)],
    )
    trainer.fit(LanguageModel(config), loader)


if __name__ == "__main__":
    main()
