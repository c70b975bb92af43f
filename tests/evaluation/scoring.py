"""A program that scores a tiny GPT as one rank of several, to be killed and gone on with.

python -m tests.evaluation.scoring FOLDER RANK WORLD_SIZE SECONDS BATCH_SIZE ...
    writes FOLDER/batch-<size>/perplexity/samples.parquet; SECONDS: that a forward pass takes at least. Prints a JSON
    list: how many forward passes there were for each batch size.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
import uuid
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, distributed, nn

from lmexp.evaluation import collect
from lmexp.evaluation.config import PerplexityConfig
from lmexp.evaluation.context import EvaluationContext
from lmexp.evaluation.perplexity import Perplexity
from lmexp.evaluation.row import Row
from lmexp.models.config import GPTConfig
from tests.evaluation.tiny import VOCAB, make_cache, random_documents

ROOT = Path(__file__).parents[2]
LENGTH = 16


class Slow(nn.Module):
    """A model that takes its time, and counts how often it was asked."""

    def __init__(self, model: nn.Module, seconds: float) -> None:
        super().__init__()
        self.model, self.seconds, self.n_passes = model, seconds, 0

    def forward(self, tokens: Tensor, **positions: Tensor) -> Tensor:
        time.sleep(self.seconds)
        self.n_passes += 1
        logits: Tensor = self.model(tokens, **positions)
        return logits


def score(folder: Path, own: Path, batch_size: int, *, seconds: float = 0.0, **ranks: int) -> tuple[list[Row], int]:
    """Rows, and how many forward passes they took. own: a folder for this process alone."""
    torch.manual_seed(0)
    config = GPTConfig(n_layer=2, d_model=16, n_head=2, positions="rotary", init_std=0.3)
    model = Slow(config.build(vocab_size=VOCAB, sequence_length=LENGTH), seconds)
    context = EvaluationContext(
        model=model,
        cache=make_cache(own, {"test": random_documents(60, 2)}),
        sequence_length=LENGTH,
        folder=folder / f"batch-{batch_size}",
        model_digest="1" * 64,
        **ranks,
    )
    rows = Perplexity(PerplexityConfig(batch_size=batch_size, stride=4, windows="documents")).run(context)
    return rows, model.n_passes


def start(folder: Path, world_size: int, seconds: float, batch_sizes: Sequence[int]) -> list[subprocess.Popen[str]]:
    """The program once for each rank."""
    meet = folder / f"meet-{uuid.uuid4().hex[:8]}"
    return [
        subprocess.Popen(
            [sys.executable, "-m", "tests.evaluation.scoring", str(folder), str(rank), str(world_size), str(seconds)]
            + [str(size) for size in batch_sizes],
            stdout=subprocess.PIPE,
            text=True,
            cwd=ROOT,
            env={**os.environ, "OMP_NUM_THREADS": "1", "MEET": str(meet)},
        )
        for rank in range(world_size)
    ]


def passes(ranks: list[subprocess.Popen[str]]) -> list[list[int]]:
    """What each of them prints, when they are done."""
    found: list[list[int]] = [json.loads(rank.communicate(timeout=300)[0]) for rank in ranks]
    assert all(rank.returncode == 0 for rank in ranks)
    return found


def main() -> None:
    folder, rank, world_size, seconds = Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3]), float(sys.argv[4])
    torch.set_num_threads(1)
    collect.SECONDS = 0.0
    own = folder / f"own-{uuid.uuid4().hex[:8]}"
    own.mkdir()
    if world_size > 1:
        distributed.init_process_group("gloo", f"file://{os.environ['MEET']}", rank=rank, world_size=world_size)
    ranks: dict[str, Any] = {"rank": rank, "world_size": world_size}
    found = [score(folder, own, int(size), seconds=seconds, **ranks)[1] for size in sys.argv[5:]]
    if world_size > 1:
        distributed.destroy_process_group()
    print(json.dumps(found))


if __name__ == "__main__":
    main()
