"""Token caches whose tokens tell where they stand: the token at place p is p, and has p % 5 bytes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np

from lmexp.data.cache import TokenSplit
from lmexp.data.config import MixtureConfig, TextFilesConfig


def make_cache(folder: Path, splits: Mapping[str, Mapping[str, Sequence[int]]], fingerprint: str = "f" * 64) -> Any:
    """What is read of a TokenCache, with documents of these lengths (with their <eos>): {split: {source: lengths}}."""
    opened = {}
    for name, sources in splits.items():
        lengths = [length for documents in sources.values() for length in documents]
        starts = np.cumsum([1, *lengths]).astype("int64")
        n_tokens = int(starts[-1]) - 1
        starts.tofile(folder / f"{name}.documents")
        np.arange(n_tokens + 1, dtype="int32").tofile(folder / f"{name}.tokens")
        ranges, first = {}, 0
        for source, documents in sources.items():
            last = first + len(documents)
            ranges[source] = {
                "first_document": first,
                "n_documents": len(documents),
                "start": int(starts[first]),
                "stop": int(starts[last]),
                "n_bytes": 0,
            }
            first = last
        facts = {"n_tokens": n_tokens, "n_documents": len(lengths), "n_bytes": 0, "sources": ranges}
        facts["documents_digest"] = "0" * 64
        opened[name] = TokenSplit(folder, name, "int32", facts, np.arange(n_tokens + 1) % 5)
    return SimpleNamespace(path=folder, fingerprint=fingerprint, splits=opened)


def corpus(windows: str, sequence_length: int, weights: Mapping[str, float] | None = None, batch_size: int = 8) -> Any:
    """The config of a corpus; with weights, of a mixture."""
    settings: dict[str, Any] = {"windows": windows, "sequence_length": sequence_length, "batch_size": batch_size}
    if weights is None:
        return TextFilesConfig(**settings)
    return MixtureConfig(parts={name: TextFilesConfig() for name in weights}, weights=dict(weights), **settings)


def some_lengths(n: int, seed: int, longest: int = 40) -> list[int]:
    """Lengths of documents, many short ones."""
    drawn = np.random.default_rng(seed).exponential(longest / 4, n).astype(int)
    return np.clip(drawn, 1, longest).tolist()
