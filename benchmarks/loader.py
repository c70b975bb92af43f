"""Tokens a second of the training loader, in process, next to two peers.

lmexp's batches: windows of 1,024 tokens in random order, cut from a stream, packed, and from a mixture of two sources
(stream and packed), at 16 and 64 rows a batch. The peers cut the same stream: one plain numpy gather a batch at starts
drawn with numpy (the most that is to be had), and torch's DataLoader over a map-style data set, shuffled, with its own
collate and no workers. All take turns in one process; a figure is the median over the turns. Wanted: at least 200
million tokens a second for the stream, in batches of 64.

    python -m benchmarks.loader [--rounds 15] > benchmarks/results/loader.md

Some 15 seconds. The exit code is 1 where the wanted is not reached.
"""

from __future__ import annotations

import argparse
import itertools
import statistics
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import torch
from torch.utils.data import DataLoader, Dataset

from benchmarks.machine import machine
from lmexp.data.cache import TokenSplit
from lmexp.data.config import CorpusConfig, MixtureConfig, TextFilesConfig
from lmexp.data.module import TrainingBatches
from lmexp.data.windows import training_rows

LENGTH = 1024
BATCH_SIZES = (16, 64)
N_DOCUMENTS = 100_000
TOKENS_A_TURN = 1 << 23
WANTED = 200.0
"""Million tokens a second."""


def make_cache(folder: Path) -> Any:
    """A training split of two sources, about 40 million random tokens in documents of widely differing lengths."""
    generator = np.random.default_rng(0)
    lengths = np.clip(generator.lognormal(5.5, 1.0, N_DOCUMENTS).astype(np.int64), 1, 100_000)
    starts = np.concatenate([[1], 1 + np.cumsum(lengths)])
    n_tokens = int(lengths.sum())
    generator.integers(0, 50_000, n_tokens + 1, dtype=np.uint16).tofile(folder / "train.tokens")
    starts.tofile(folder / "train.documents")
    sources = {}
    for name, first, last in (("code", 0, N_DOCUMENTS // 2), ("books", N_DOCUMENTS // 2, N_DOCUMENTS)):
        sources[name] = {
            "first_document": first,
            "n_documents": last - first,
            "start": int(starts[first]),
            "stop": int(starts[last]),
            "n_bytes": 0,
        }
    facts = {"n_tokens": n_tokens, "n_documents": N_DOCUMENTS, "n_bytes": 0, "sources": sources}
    split = TokenSplit(folder, "train", "uint16", facts, np.ones(50_000, np.int64))
    return SimpleNamespace(path=folder, fingerprint="0" * 64, splits={"train": split})


def merged(cache: Any) -> Any:
    """The same split with one source."""
    train = cache.splits["train"]
    whole = SimpleNamespace(first_document=0, n_documents=N_DOCUMENTS, start=1, stop=1 + train.n_tokens)
    folder = cache.path / "merged"
    split = SimpleNamespace(
        name="train",
        n_tokens=train.n_tokens,
        tokens=train.tokens,
        document_starts=train.document_starts,
        windows=train.windows,
        sources={"": whole},
    )
    return SimpleNamespace(path=folder, fingerprint="0" * 64, splits={"train": split})


def config(windows: str, *, mixture: bool) -> CorpusConfig:
    """Windows of LENGTH."""
    if not mixture:
        return TextFilesConfig(windows=windows, sequence_length=LENGTH)
    parts = {"code": TextFilesConfig(), "books": TextFilesConfig()}
    return MixtureConfig(parts=parts, weights={"code": 3.0}, windows=windows, sequence_length=LENGTH)


def numpy_gather(tokens: np.ndarray, batch_size: int) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
    """Windows at random starts."""
    generator = np.random.default_rng(0)
    every = np.lib.stride_tricks.sliding_window_view(tokens, LENGTH + 1)
    while True:
        rows = torch.from_numpy(every[generator.integers(0, len(every), batch_size)].astype(np.int64))
        yield rows[:, :-1], rows[:, 1:]


class MapStyle(Dataset[tuple[torch.Tensor, torch.Tensor]]):
    """A window an item, side by side."""

    def __init__(self, tokens: np.ndarray) -> None:
        self.tokens = tokens

    def __len__(self) -> int:
        return (len(self.tokens) - 1) // LENGTH

    def __getitem__(self, index: int) -> tuple[torch.Tensor, torch.Tensor]:
        row = torch.from_numpy(self.tokens[index * LENGTH : (index + 1) * LENGTH + 1].astype(np.int64))
        return row[:-1], row[1:]


def loaders(cache: Any, batch_size: int) -> dict[str, Iterator[Any]]:
    """Name -> endless batches of each side."""
    one, tokens = merged(cache), cache.splits["train"].tokens
    rows = {
        "lmexp, stream": training_rows(one, config("stream", mixture=False), seed=0),
        "lmexp, packed": training_rows(one, config("packed", mixture=False), seed=0),
        "lmexp, mixture of streams": training_rows(cache, config("stream", mixture=True), seed=0),
        "lmexp, mixture, packed": training_rows(cache, config("packed", mixture=True), seed=0),
    }
    map_style = DataLoader(MapStyle(tokens), batch_size=batch_size, shuffle=True, drop_last=True)
    return {name: iter(TrainingBatches(each, batch_size)) for name, each in rows.items()} | {
        "numpy, one gather a batch": numpy_gather(tokens, batch_size),
        "torch DataLoader, map-style": itertools.chain.from_iterable(itertools.repeat(map_style)),
    }


def turn(batches: Iterator[Any], batch_size: int) -> float:
    """Million tokens a second of some batches."""
    n_batches = TOKENS_A_TURN // (batch_size * LENGTH)
    started = time.perf_counter()
    for _ in range(n_batches):
        next(batches)
    return n_batches * batch_size * LENGTH / (time.perf_counter() - started) / 1e6


def main() -> int:
    """All loaders, turn by turn."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=15)
    arguments = parser.parse_args()
    medians: dict[str, list[float]] = {}
    with tempfile.TemporaryDirectory() as folder:
        cache = make_cache(Path(folder))
        cache.splits["train"].tokens.sum()  # all pages in memory
        for batch_size in BATCH_SIZES:
            sides = loaders(cache, batch_size)
            found: dict[str, list[float]] = {name: [] for name in sides}
            for _ in range(1 + arguments.rounds):
                for name, batches in sides.items():
                    found[name].append(turn(batches, batch_size))
            for name, rates in found.items():
                medians.setdefault(name, []).append(statistics.median(rates[1:]))  # the first turn warms up
    lines = [
        "# The training loader, in process",
        "",
        f"Million tokens a second; medians of {arguments.rounds} turns of {TOKENS_A_TURN:,} tokens; rows of {LENGTH}.",
        "",
        "| | " + " | ".join(f"{size} rows a batch" for size in BATCH_SIZES) + " |",
        "|---" * (1 + len(BATCH_SIZES)) + "|",
        *(f"| {name} | " + " | ".join(f"{rate:.0f}" for rate in rates) + " |" for name, rates in medians.items()),
    ]
    reached = medians["lmexp, stream"][-1] >= WANTED
    lines += [
        "",
        f"Wanted: {WANTED:.0f} for the stream at {BATCH_SIZES[-1]} rows: {'reached' if reached else 'not reached'}.",
        "",
        machine(),
    ]
    print("\n".join(lines))
    return 0 if reached else 1


if __name__ == "__main__":
    sys.exit(main())
