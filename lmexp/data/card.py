"""The data card: what a token cache holds, as plain JSON.

Format "lmexp.data_card", version 1; `facts` tells the keys. It holds no times, so that equal data give equal bytes, and
takes bounded memory and a few seconds at most: what is counted on a sample says so.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lmexp.data import survey
from lmexp.data.cache import TokenCache, TokenSplit
from lmexp.data.config import CorpusConfig
from lmexp.data.survey import QUARANTINE
from lmexp.data.windows import SOURCE_BITS, Rows, evaluation_rows, training_rows
from lmexp.metrics.ignore import IGNORE
from lmexp.redaction import redact_text
from lmexp.tokenizers.base import Tokenizer

FORMAT = "lmexp.data_card"
VERSION = 1

QUANTILES = (0.0, 0.01, 0.05, 0.25, 0.5, 0.75, 0.95, 0.99, 1.0)
MAX_LENGTHS = 1_000_000
"""Documents of a source and split at most whose lengths are looked at, evenly spaced."""
MAX_COUNTED = 200_000_000
"""Training tokens at most that are counted for the use of the vocabulary, in evenly spaced blocks."""
BLOCK = 1 << 22
N_QUARANTINED = 20
N_EXAMPLES = 4
EXAMPLE_TOKENS = 1_024
"""Tokens of an example at most."""
N_TOP = 20

Ints = NDArray[np.int64]


def facts(cache: TokenCache, data: CorpusConfig, seed: int) -> dict[str, Any]:
    """Everything about the tokens of a corpus that a person wants to see before training on them.

    data, seed: how they are cut into sequences and in which order.
    """
    shares = data.shares()
    return {
        "format": FORMAT,
        "version": VERSION,
        "fingerprint": cache.fingerprint,
        "settings": settings(data, seed),
        "tokenizer": cache.facts["tokenizer"],
        "splits": {name: _split(cache, name, data) for name in cache.splits},
        "sources": {name: _source(cache, name, config, shares[name]) for name, config in data.sources().items()},
        "quarantine": quarantined(cache, N_QUARANTINED),
        "vocabulary": _vocabulary(cache),
        "examples": _examples(cache, data, seed),
    }


def settings(data: CorpusConfig, seed: int) -> dict[str, Any]:
    """What decides about the examples, besides the cache."""
    names = ("windows", "sequence_length", "batch_size")
    return {"seed": seed, **{name: getattr(data, name) for name in names}, "shares": data.shares()}


def quarantined(cache: TokenCache, n: int) -> dict[str, Any]:
    """n: all bad documents; by_kind; first: the first few, with source, file, line and reason."""
    by_kind: dict[str, int] = {}
    for source in cache.facts["sources"].values():
        for kind, count in source["n_quarantined"].items():
            by_kind[kind] = by_kind.get(kind, 0) + count
    return {"n": sum(by_kind.values()), "by_kind": by_kind, "first": _first_bad(cache.path / QUARANTINE, n)}


def _first_bad(path: Path, n: int) -> list[dict[str, Any]]:
    """Entries of the quarantine; what is set aside may hold half a surrogate pair, which no page can."""
    return [
        {key: v.encode(errors="backslashreplace").decode() if isinstance(v, str) else v for key, v in entry.items()}
        for entry in (survey.quarantined(path, n) if path.exists() else ())
    ]


def _split(cache: TokenCache, name: str, data: CorpusConfig) -> dict[str, Any]:
    """Counts of a split, and how many rows its windows take."""
    split = cache.splits[name]
    counts = _counts(split.n_documents, split.n_tokens, split.n_bytes)
    if not split.n_tokens:
        return counts | {"rows": 0, "padding": 0.0}
    rows = evaluation_rows(cache, name, data.windows, data.sequence_length)
    places = rows.n_rows * data.sequence_length if data.windows != "stream" else rows.n_targets
    return counts | {"rows": rows.n_rows, "padding": 1 - rows.n_targets / places if places else 0.0}


def _counts(n_documents: int, n_tokens: int, n_bytes: int) -> dict[str, Any]:
    per_token = n_bytes / n_tokens if n_tokens else None
    return {"n_documents": n_documents, "n_tokens": n_tokens, "n_bytes": n_bytes, "bytes_per_token": per_token}


def _source(cache: TokenCache, name: str, config: CorpusConfig, share: float) -> dict[str, Any]:
    """What cache.json says of a source, what the source knows of itself, and its documents in each split."""
    source = config.source()
    return {
        "kind": config.kind,
        "where": redact_text(source.where),
        "share": share,
        **cache.facts["sources"][name],
        "known": source.facts(),
        "splits": {split.name: _documents(split, name) for split in cache.splits.values() if name in split.sources},
    }


def _documents(split: TokenSplit, source: str) -> dict[str, Any]:
    """Counts and lengths of a source's documents in a split. Lengths are in tokens, without <eos>."""
    found = split.sources[source]
    counts = _counts(found.n_documents, found.stop - found.start, found.n_bytes)
    if not found.n_documents:
        return counts | {"lengths": None}
    step = -(-found.n_documents // MAX_LENGTHS)
    first = np.arange(found.first_document, found.first_document + found.n_documents, step)
    lengths = np.asarray(split.document_starts[first + 1] - split.document_starts[first] - 1, dtype=np.int64)
    n_bins = int(lengths.max()).bit_length() + 1
    bins = np.bincount(np.frexp(lengths)[1], minlength=n_bins)[:n_bins]  # bin i: 2^(i-1) to before 2^i; bin 0: empty
    return counts | {
        "lengths": {
            "n_looked_at": len(lengths),
            "mean": float(lengths.mean()),
            "quantiles": {f"{q:g}": float(v) for q, v in zip(QUANTILES, np.quantile(lengths, QUANTILES), strict=True)},
            "histogram": {"from": [0, *(1 << i for i in range(n_bins - 1))], "n": bins.tolist()},
        }
    }


def _vocabulary(cache: TokenCache) -> dict[str, Any]:
    """How many tokens of the vocabulary occur in the training split, and which most often."""
    tokens = cache.splits["train"].tokens[1:]
    n_blocks = -(-len(tokens) // BLOCK)
    step = max(1, -(-len(tokens) // MAX_COUNTED))
    counts = np.zeros(cache.tokenizer.vocab_size, dtype=np.int64)
    for block in range(0, n_blocks, step):
        counts += np.bincount(tokens[block * BLOCK : (block + 1) * BLOCK], minlength=len(counts))
    top = np.argsort(-counts, kind="stable")[:N_TOP]
    total = int(counts.sum())
    return {
        "size": len(counts),
        "n_used": int((counts > 0).sum()),
        "n_counted": total,
        "n_tokens": len(tokens),
        "top": [
            {"token": _decoded(cache.tokenizer, [int(token)]), "share": int(counts[token]) / total}
            for token in top
            if counts[token]
        ],
    }


def _examples(cache: TokenCache, data: CorpusConfig, seed: int) -> list[dict[str, Any]]:
    """The first rows of the first optimizer step, as text; each piece is what is predicted of one document."""
    order = training_rows(cache, data, seed)
    ids = order.ids(np.arange(min(data.batch_size, N_EXAMPLES)))
    rows, names = order.gather(ids), list(data.sources())
    return [
        {
            "source": names[int(ids[i]) >> SOURCE_BITS] if len(names) > 1 else names[0],
            "sample_id": int(ids[i]),
            "n_targets": int((rows.targets[i] != IGNORE).sum()),
            "n_padding": int((rows.targets[i] == IGNORE).sum()),
            "pieces": _pieces(rows, i, cache.tokenizer),
        }
        for i in range(len(ids))
    ]


def _pieces(rows: Rows, row: int, tokenizer: Tokenizer) -> list[dict[str, Any]]:
    """text, and ends: whether the document ends there, in the order of the row."""
    targets = rows.targets[row]
    starts = np.zeros(len(targets), dtype=bool) if rows.positions is None else rows.positions[row] == 0
    pieces: list[dict[str, Any]] = []
    tokens: list[int] = []

    def close(*, ends: bool) -> None:
        if tokens or ends:
            pieces.append({"text": _decoded(tokenizer, tokens), "n_tokens": len(tokens), "ends": ends})
        tokens.clear()

    for token, starts_here in zip(targets[:EXAMPLE_TOKENS].tolist(), starts.tolist(), strict=False):
        if starts_here:
            close(ends=False)
        if token == tokenizer.eos_id:
            close(ends=True)
        elif token != IGNORE:
            tokens.append(token)
    close(ends=False)
    return pieces


def _decoded(tokenizer: Tokenizer, tokens: list[int]) -> str:
    return "<eos>" if tokens == [tokenizer.eos_id] else tokenizer.decode(tokens)
