"""Runs of trainer.strategy=fsdp, and a program that does them as one rank of several under torchrun.

torchrun ... -m tests.training.sharded FOLDER  # runs SCENARIOS below FOLDER; facts-RANK.json tells what was seen
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import warnings
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, distributed, nn

from lmexp.config.schema import TrainConfig
from lmexp.models.config import ModelConfig
from lmexp.training.fsdp import ShardedStrategy
from tests.evaluation.tiny import make_cache
from tests.training.fitting import SPLITS, Recorder, fit, make_config

COMMON = ("trainer.max_steps=8", "model.n_layer=2", "scheduler=constant", "checkpoint.every_n_steps=2")
MEASURED = ("evaluation=[perplexity,baselines]", "trainer.ema_decay=0.9", "evaluation.perplexity.weights=ema")
MEASURED += ("evaluation.perplexity.every_n_steps=4",)
SCENARIOS: dict[str, tuple[str, ...]] = {
    "llama": ("model=llama_tiny", "model.n_kv_head=1"),
    "gpt": ("model=gpt_tiny", "model.bias=true", "trainer.accumulate_grad_batches=2", "optimizer=adam", *MEASURED),
    "packed": ("data.windows=packed", "optimizer.fused=false", "trainer.gradient_clip_val=0.3"),
    "bf16": ("trainer.precision=bf16-mixed",),
    "bf16-true": ("trainer.precision=bf16-true", "trainer.ema_decay=0.9"),
    "muon": ("model=llama_tiny", "optimizer=muon"),
    "custom": (),
}
"""Name -> overrides that one process runs and two do, sharded."""
STOPPED_AT = 4


class Odd(nn.Module):
    """What is hard to share: a tied head, a block that is used twice, odd sizes, fewer numbers than processes."""

    def __init__(self, vocab_size: int, sequence_length: int) -> None:
        super().__init__()
        self.max_sequence_length = sequence_length
        self.embedding = nn.Embedding(vocab_size, 15)
        twice = nn.Linear(15, 15)
        self.twice = nn.ModuleList([twice, twice])
        self.once = nn.ModuleList(
            [nn.Sequential(nn.Linear(15, 7), nn.Tanh(), nn.Linear(7, 15), nn.Tanh()) for _ in range(3)]
        )
        self.activations = nn.ModuleList([nn.ReLU()])
        self.scale = nn.Parameter(torch.ones(1))
        self.head = nn.Linear(15, vocab_size, bias=False)
        self.head.weight = self.embedding.weight
        self.register_buffer("shift", torch.full((15,), 0.5))

    def forward(self, tokens: Tensor) -> Tensor:
        x = self.embedding(tokens) + self.shift
        for block in (*self.twice, *self.once):
            x = x + self.activations[0](block(x))
        logits: Tensor = self.head(x * self.scale)
        return logits


@dataclass(kw_only=True, slots=True)
class OddConfig(ModelConfig):
    """Of the model above."""

    kind: str = "odd"

    def build(self, *, vocab_size: int, sequence_length: int) -> nn.Module:
        return Odd(vocab_size, sequence_length)


def config_of(name: str, *more: str) -> TrainConfig:
    """The config of a scenario."""
    config = make_config("stream", *SCENARIOS[name], *COMMON, *more)
    if name == "custom":
        config.model = OddConfig()
    return config


def run(folder: Path, name: str, cache: Any, *more: str, rank: int = 0) -> Recorder:
    """Do a scenario, or go on with it; rows.json in its folder has what was logged."""
    recorder = fit(folder, config_of(name, *more), cache, rank=rank)
    if rank == 0:
        path = folder / "rows.json"
        rows = json.loads(path.read_text()) if path.exists() else {}
        for step, row in recorder.rows.items():
            rows[str(step)] = rows.get(str(step), {}) | row
        path.write_text(json.dumps(rows))
    return recorder


def start(folder: Path) -> subprocess.CompletedProcess[str]:
    """Run this program in two processes."""
    torchrun = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2", "-m", "tests.training.sharded"]
    return subprocess.run(
        [sys.executable, *torchrun, str(folder)],
        env=os.environ | {"OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        timeout=500,
    )


def main() -> None:
    """Every scenario at once; one of them again with a stop in between; and one that one process began."""
    folder, rank = Path(sys.argv[1]), int(os.environ["RANK"])
    sharded = ("trainer.devices=2", "trainer.strategy=fsdp")
    own = folder / f"cache-{rank}"
    own.mkdir()
    cache, facts = make_cache(own, SPLITS), {}
    setup = ShardedStrategy.setup

    def noted(self: Any, trainer: Any) -> None:
        setup(self, trainer)
        parameters = list(trainer.lightning_module.parameters())
        facts[name] = [sum(p.numel() for p in parameters), sum(p.to_local().numel() for p in parameters)]

    ShardedStrategy.setup = noted  # type: ignore[method-assign]
    for name in SCENARIOS:
        run(folder / name, name, cache, *sharded, rank=rank)
    for name in ("gpt", "custom"):
        run(folder / f"{name}-stopped", name, cache, *sharded, f"trainer.max_steps={STOPPED_AT}", rank=rank)
        if rank == 0:
            shutil.copytree(folder / f"{name}-stopped", folder / f"{name}-to-one")
        run(folder / f"{name}-stopped", name, cache, *sharded, rank=rank)
        run(folder / f"{name}-from-one", name, cache, *sharded, rank=rank)
    (folder / f"facts-{rank}.json").write_text(json.dumps(facts))
    distributed.destroy_process_group()


if __name__ == "__main__":
    warnings.simplefilter("error")
    main()
