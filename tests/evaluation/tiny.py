"""A tiny corpus and a tiny model to evaluate, and a program that evaluates them as one rank of several.

python -m tests.evaluation.tiny FOLDER RANK WORLD_SIZE BATCH_SIZE ...  # prints the rows for each as JSON
"""

from __future__ import annotations

import hashlib
import json
import sys
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import torch
from torch import Tensor, distributed, nn

from lmexp.data.cache import TokenSplit
from lmexp.evaluation.config import BaselinesConfig, PerplexityConfig
from lmexp.evaluation.context import EvaluationContext
from lmexp.evaluation.row import Row
from lmexp.evaluation.runner import run_evaluations
from lmexp.models.layers.attention import document_mask

EOS = 9
VOCAB = 10


class TinyModel(nn.Module):
    """Causal: logits after each token from the mean of the embeddings so far in its document, and its position."""

    def __init__(self, vocab_size: int = VOCAB, dtype: torch.dtype = torch.float64) -> None:
        super().__init__()
        generator = torch.Generator().manual_seed(0)
        self.embedding = nn.Parameter(torch.randn(vocab_size, 16, generator=generator, dtype=torch.float64).to(dtype))
        self.head = nn.Parameter(torch.randn(16, vocab_size, generator=generator, dtype=torch.float64).to(dtype))

    def forward(self, tokens: Tensor, positions: Tensor | None = None) -> Tensor:
        if positions is None:
            positions = torch.arange(tokens.shape[1]).expand_as(tokens)
        seen = document_mask(positions)[:, 0].to(self.embedding.dtype)  # (batch, seq, seq)
        mean = (seen / seen.sum(dim=-1, keepdim=True)) @ self.embedding[tokens]  # (batch, seq, d)
        return (mean + torch.sin(positions)[..., None].to(mean.dtype)) @ self.head


def random_documents(n: int, seed: int) -> list[list[int]]:
    """Documents of 1 to 30 tokens, the last one <eos>."""
    generator = np.random.default_rng(seed)
    return [[*generator.integers(0, EOS, generator.integers(0, 30)).tolist(), EOS] for _ in range(n)]


def make_cache(
    folder: Path, splits: Mapping[str, Sequence[Sequence[int]]], token_bytes: Sequence[int] = (*range(1, VOCAB), 0)
) -> Any:
    """What an evaluation reads of a TokenCache, with these documents (lists of tokens) in each split."""
    table = np.array(token_bytes, dtype=np.int64)
    opened = {}
    for name, documents in splits.items():
        tokens = np.array(stream_of(documents), dtype="uint16")
        starts = np.cumsum([1, *map(len, documents)]).astype("int64")
        tokens.tofile(folder / f"{name}.tokens")
        starts.tofile(folder / f"{name}.documents")
        sizes = {"n_documents": len(documents), "n_bytes": int(table[tokens[1:]].sum())}
        source = {**sizes, "first_document": 0, "start": 1, "stop": len(tokens)}
        facts = {**sizes, "n_tokens": len(tokens) - 1, "n_bytes_dtype": None, "sources": {"": source}}
        facts["documents_digest"] = hashlib.sha256(tokens.tobytes()).hexdigest()
        opened[name] = TokenSplit(folder, name, "uint16", facts, table)
    tokenizer = SimpleNamespace(
        vocab_size=len(token_bytes),
        eos_id=EOS,
        decode=lambda ids: "".join(f"<{token}>" for token in ids),
        digest=lambda: "0" * 64,
    )
    return SimpleNamespace(path=folder, fingerprint="0" * 64, splits=opened, tokenizer=tokenizer, facts={})


def stream_of(documents: Sequence[Sequence[int]]) -> list[int]:
    """The tokens of a split: <eos>, then the documents."""
    return [EOS, *(token for document in documents for token in document)]


def evaluate(folder: Path, *, rank: int = 0, world_size: int = 1, batch_size: int = 4, **changes: Any) -> list[Row]:
    """Perplexity and baselines on random documents."""
    cache = make_cache(folder, {"train": random_documents(50, 1), "test": random_documents(30, 2)})
    settings = {"model": TinyModel(), "cache": cache, "sequence_length": 7, **changes}
    context = EvaluationContext(rank=rank, world_size=world_size, **settings)
    configs = {"baselines": BaselinesConfig(), "perplexity": PerplexityConfig(batch_size=batch_size)}
    return run_evaluations(configs, context)


def main() -> None:
    folder = Path(sys.argv[1])
    rank, world_size, *batch_sizes = (int(argument) for argument in sys.argv[2:])
    own = folder / f"rank-{rank}"
    own.mkdir()
    distributed.init_process_group("gloo", f"file://{folder}/meet", rank=rank, world_size=world_size)
    found = [evaluate(own, rank=rank, world_size=world_size, batch_size=size) for size in batch_sizes]
    distributed.destroy_process_group()
    print(json.dumps([[asdict(row) for row in rows] for rows in found]))


if __name__ == "__main__":
    main()
