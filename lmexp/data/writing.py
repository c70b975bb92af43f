"""Text to the files of a split in the token cache (format: cache.py), a chunk of documents at a time."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lmexp.tokenizers.base import Tokenizer

CHUNK_CHARACTERS = 4_000_000
CHUNK_DOCUMENTS = 4_096

Ints = NDArray[np.int64]


def write_split(
    folder: Path, name: str, texts: Iterable[str], tokenizer: Tokenizer, dtype: np.dtype[Any]
) -> dict[str, Any]:
    """Write the files of one split, a chunk of documents at a time; returns its entry in cache.json."""
    lengths: list[int] = []
    total_bytes = 0
    counts = None if tokenizer.token_bytes() is not None else ByteCounts(folder / f"{name}.bytes")
    with (folder / f"{name}.tokens").open("wb") as file:
        for chunk in _chunks(texts):
            total_bytes += sum(len(text.encode()) for text in chunk)
            if counts is None:
                ids = tokenizer.encode_batch(chunk)
            else:
                pairs = [tokenizer.encode_with_bytes(text) for text in chunk]
                ids = [pair[0] for pair in pairs]
                counts.append(_joined([pair[1] for pair in pairs], 0))
            file.write(_joined(ids, tokenizer.eos_id).astype(little_endian(dtype)).tobytes())
            lengths += [len(document) + 1 for document in ids]
    starts = np.cumsum([0, *lengths]).astype(little_endian("int64"))
    starts.tofile(folder / f"{name}.documents")
    return {
        "n_documents": len(lengths),
        "n_tokens": int(starts[-1]),
        "n_bytes": total_bytes,
        "n_bytes_dtype": counts and counts.dtype,
    }


class ByteCounts:
    """The file of the bytes that each token covers: uint16 until a token covers more than that can hold."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.dtype = "uint16"
        path.touch()

    def append(self, counts: Ints) -> None:
        """Write the counts of the next tokens."""
        if self.dtype == "uint16" and counts.max(initial=0) > np.iinfo(np.uint16).max:
            self.dtype = "uint32"
            narrow = np.fromfile(self.path, little_endian("uint16"))
            narrow.astype(little_endian("uint32")).tofile(self.path)
        with self.path.open("ab") as file:
            file.write(counts.astype(little_endian(self.dtype)).tobytes())


def _chunks(texts: Iterable[str]) -> Iterator[list[str]]:
    """Texts in groups that fit in memory, however long the corpus is."""
    chunk: list[str] = []
    n_characters = 0
    for text in texts:
        chunk.append(text)
        n_characters += len(text)
        if n_characters >= CHUNK_CHARACTERS or len(chunk) >= CHUNK_DOCUMENTS:
            yield chunk
            chunk, n_characters = [], 0
    if chunk:
        yield chunk


def _joined(documents: list[Ints], last: int) -> Ints:
    """Arrays end to end, with `last` after each."""
    end = np.array([last], dtype=np.int64)
    return np.concatenate([part for document in documents for part in (document, end)])


def little_endian(dtype: str | np.dtype[Any]) -> np.dtype[Any]:
    """The dtype as it is in the files, whatever the machine."""
    little: np.dtype[Any] = np.dtype(dtype).newbyteorder("<")
    return little
