"""Files of the token cache (format: cache.py) and of what leads to it."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
from numpy.typing import NDArray

from lmexp.files import sync_file, sync_folder
from lmexp.tokenizers.base import Tokenizer

CHUNK_CHARACTERS = 2_000_000
CHUNK_DOCUMENTS = 4_096
COPY_BYTES = 1 << 22

Ints = NDArray[np.int64]


class SplitWriter:
    """The documents of one split in one unit, tokenized a chunk at a time.

    Writes NAME.tokens, NAME.lengths (tokens of each document with its <eos>, int64) and, where the tokens alone don't
    tell, NAME.bytes (bytes of each token).
    """

    def __init__(self, folder: Path, name: str, tokenizer: Tokenizer) -> None:
        self.n_documents = self.n_tokens = self.n_bytes = 0
        self._tokens = folder / f"{name}.tokens"
        self._lengths = folder / f"{name}.lengths"
        self._tokenizer = tokenizer
        self._dtype = little_endian(token_dtype(tokenizer))
        self._counts = None if tokenizer.token_bytes() is not None else ByteCounts(folder / f"{name}.bytes")
        self._texts: list[str] = []
        self._n_characters = 0

    def add(self, text: str, n_bytes: int) -> None:
        """Take the next document."""
        self._texts.append(text)
        self._n_characters += len(text)
        self.n_bytes += n_bytes
        if self._n_characters >= CHUNK_CHARACTERS or len(self._texts) >= CHUNK_DOCUMENTS:
            self._flush()

    def close(self) -> dict[str, Any]:
        """Write the rest; returns what is to be known of the files."""
        self._flush()
        return {
            "n_documents": self.n_documents,
            "n_tokens": self.n_tokens,
            "n_bytes": self.n_bytes,
            "n_bytes_dtype": self._counts and self._counts.dtype,
        }

    def _flush(self) -> None:
        texts, self._texts, self._n_characters = self._texts, [], 0
        if not texts:
            return
        if self._counts is None:
            ids = self._tokenizer.encode_batch(texts)
        else:
            pairs = [self._tokenizer.encode_with_bytes(text) for text in texts]
            ids = [pair[0] for pair in pairs]
            self._counts.append(joined([pair[1] for pair in pairs], 0, np.dtype(np.int64)))
        with self._tokens.open("ab") as file:
            write_array(file, joined(ids, self._tokenizer.eos_id, self._dtype))
        lengths = np.fromiter(map(len, ids), "<i8", len(ids)) + 1
        with self._lengths.open("ab") as file:
            write_array(file, lengths.astype("<i8"))
        self.n_documents += len(ids)
        self.n_tokens += int(lengths.sum())


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
            with self.path.open("wb") as file:
                write_array(file, narrow.astype(little_endian("uint32")))
        with self.path.open("ab") as file:
            write_array(file, counts.astype(little_endian(self.dtype)))


def joined(documents: Sequence[NDArray[Any]], last: int, dtype: np.dtype[Any]) -> NDArray[Any]:
    """Arrays end to end, with `last` after each.

    >>> joined([np.array([5, 6]), np.array([7])], 0, np.dtype("uint8"))
    array([5, 6, 0, 7, 0], dtype=uint8)
    """
    lengths = np.fromiter(map(len, documents), np.int64, len(documents))
    ends = np.cumsum(lengths + 1) - 1
    out = np.empty(int(lengths.sum()) + len(documents), dtype)
    inside = np.ones(len(out), bool)
    inside[ends] = False
    out[ends] = last
    out[inside] = np.concatenate(documents)
    return out


def token_dtype(tokenizer: Tokenizer) -> np.dtype[Any]:
    """The smallest type that holds every token."""
    return np.min_scalar_type(tokenizer.vocab_size - 1)


def little_endian(dtype: str | np.dtype[Any]) -> np.dtype[Any]:
    """The dtype as it is in the files, whatever the machine."""
    little: np.dtype[Any] = np.dtype(dtype).newbyteorder("<")
    return little


def map_array(path: Path, dtype: str, n: int) -> NDArray[Any]:
    """The n values of a file, memory-mapped; ValueError where it holds more or fewer."""
    expected, found = n * np.dtype(dtype).itemsize, path.stat().st_size
    if found != expected:
        raise ValueError(f"{path.name} has {found:,} bytes, not {expected:,}")
    if n == 0:
        return np.empty(0, little_endian(dtype))  # an empty file can't be mapped
    # A plain array over the mapped file: slicing a np.memmap costs several times as much.
    return np.asarray(np.memmap(path, little_endian(dtype), mode="r"))


def write_array(file: BinaryIO, array: NDArray[Any]) -> None:
    """Write the bytes of an array. numpy's tofile() would not tell why it can't, e.g. that the disk is full."""
    file.write(np.ascontiguousarray(array).data)


def append_file(file: BinaryIO, path: Path) -> None:
    """Write the content of another file."""
    with path.open("rb") as source:
        shutil.copyfileobj(source, file, COPY_BYTES)


def json_line(entry: dict[str, Any]) -> bytes:
    """A line of JSON; file names that aren't UTF-8 are escaped."""
    return (json.dumps(entry, ensure_ascii=False) + "\n").encode("utf-8", "backslashreplace")


def sync_all(folder: Path) -> None:
    """fsync a folder and the files in it."""
    for name in os.listdir(folder):
        sync_file(folder / name)
    sync_folder(folder)
