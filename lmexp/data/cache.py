"""The token cache: a corpus as token ids in memory-mapped files, with the tokenizer that made them.

<cache_root>/<first 16 hex digits of the fingerprint>/
    cache.json            {"format": "lmexp.cache", "version": 1, "fingerprint": ..., "dtype": "uint16",
                           "tokenizer": settings, "split": settings, "n_skipped": files left out,
                           "splits": {"train": {"n_documents", "n_tokens", "n_bytes", "n_bytes_dtype"}, ...}}
    tokenizer.json        the tokenizer, trained on the training split
    <split>.tokens        token ids, raw little-endian dtype; each document is followed by <eos>
    <split>.documents     int64: where each document begins, and at last the number of tokens
    <split>.bytes         n_bytes_dtype: source bytes of each token; only for tokenizers whose tokens alone
                          don't tell (n_bytes_dtype is null for the others)

The fingerprint is a SHA-256 over this format's version, the documents, and the settings of split and
tokenizer. A folder is made under another name and renamed when it is complete: one with its name is whole.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import shutil
import uuid
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lmexp.data.config import CorpusConfig
from lmexp.data.split import SplitCorpus
from lmexp.data.windows import n_training_windows
from lmexp.data.writing import little_endian, write_split
from lmexp.errors import DataError
from lmexp.tokenizers import base as tokenizers
from lmexp.tokenizers.config import BPETokenizerConfig, TokenizerConfig

FORMAT = "lmexp.cache"
VERSION = 1
CACHE_JSON = "cache.json"
TOKENIZER_JSON = "tokenizer.json"

Ints = NDArray[np.int64]
Progress = Callable[[str], None]


def _silent(line: str) -> None:
    """No progress."""


class TokenSplit:
    """The tokens of one split.

    tokens: (n_tokens,), memory-mapped.
    document_starts: (n_documents + 1,) first token of each document, and at last n_tokens.
    """

    def __init__(self, path: Path, name: str, dtype: str, facts: dict[str, Any], token_bytes: Ints | None) -> None:
        self.name = name
        self.n_tokens = int(facts["n_tokens"])
        self.n_documents = int(facts["n_documents"])
        self.n_bytes = int(facts["n_bytes"])
        """UTF-8 bytes of the split's text."""
        self.tokens = _open(path / f"{name}.tokens", dtype, self.n_tokens)
        starts = _open(path / f"{name}.documents", "int64", self.n_documents + 1)
        self.document_starts: Ints = starts.astype(np.int64)
        self._token_bytes = token_bytes
        self._bytes = None
        if token_bytes is None:
            self._bytes = _open(path / f"{name}.bytes", facts["n_bytes_dtype"], self.n_tokens)

    def windows(self, starts: Ints, length: int) -> Ints:
        """The tokens from each start on: (len(starts), length)."""
        return _gather(self.tokens, starts, length)

    def window_bytes(self, starts: Ints, length: int) -> Ints:
        """The UTF-8 bytes of each token from each start on: (len(starts), length); <eos> has none."""
        if self._token_bytes is not None:
            return self._token_bytes[self.windows(starts, length)]
        assert self._bytes is not None
        return _gather(self._bytes, starts, length)

    def token_bytes(self, start: int, stop: int) -> Ints:
        """The UTF-8 bytes of each token from start to before stop: (stop - start,)."""
        if self._token_bytes is not None:
            counts: Ints = self._token_bytes[self.tokens[start:stop]]
            return counts
        assert self._bytes is not None
        return self._bytes[start:stop].astype(np.int64)


class TokenCache:
    """An opened token cache. splits: train, and validation and test where their fractions aren't 0."""

    def __init__(self, path: Path) -> None:
        facts = _read_facts(path)
        self.path = path
        self.fingerprint: str = facts["fingerprint"]
        self.tokenizer = tokenizers.load(path / TOKENIZER_JSON)
        table = self.tokenizer.token_bytes()
        self.splits = {
            name: TokenSplit(path, name, facts["dtype"], split, table) for name, split in facts["splits"].items()
        }


def prepare(
    data: CorpusConfig, tokenizer: TokenizerConfig, *, cache_root: Path, progress: Progress = _silent
) -> TokenCache:
    """The token cache of a corpus: opened if there is one, made if there isn't."""
    corpus = SplitCorpus(data.documents(), data)
    settings = {
        "tokenizer": dataclasses.asdict(tokenizer),
        "split": {name: getattr(data, name) for name in ("split", "validation_fraction", "test_fraction")},
    }
    fingerprint = _fingerprint(corpus.survey.digest, settings)
    path = cache_root / fingerprint[:16]
    if path.exists():
        progress(f"tokens: found in {path}")
    else:
        _build(path, corpus, tokenizer, {"fingerprint": fingerprint, **settings}, progress)
    cache = TokenCache(path)
    n_training_windows(cache.splits["train"].n_tokens, data.sequence_length)
    return cache


def _fingerprint(documents: str, settings: dict[str, Any]) -> str:
    text = json.dumps({"version": VERSION, "documents": documents, **settings}, sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()


def _build(path: Path, corpus: SplitCorpus, config: TokenizerConfig, facts: dict[str, Any], progress: Progress) -> None:
    """Make the cache beside path, then rename it. If another process was faster, its cache is as good."""
    beside = path.with_name(f".{path.name}-{uuid.uuid4().hex[:8]}")
    try:
        beside.mkdir(parents=True)
        _fill(beside, corpus, config, facts, progress)
        try:
            beside.rename(path)
        except OSError:
            if not path.is_dir():
                raise
    except OSError as error:
        raise DataError(
            f"can't write the token cache in {path.parent}: {error.strerror or error}; "
            f"choose another folder with data.cache_dir=FOLDER"
        ) from error
    finally:
        shutil.rmtree(beside, ignore_errors=True)


def _fill(
    folder: Path, corpus: SplitCorpus, config: TokenizerConfig, facts: dict[str, Any], progress: Progress
) -> None:
    n_skipped = corpus.documents.n_skipped
    if n_skipped:
        progress(f"files left out because they are not UTF-8 text: {n_skipped:,}")
    progress(f"training tokenizer {config.kind}: {corpus.n_documents('train'):,} documents")
    tokenizer = config.train(corpus.texts("train"))
    if isinstance(config, BPETokenizerConfig) and tokenizer.vocab_size < config.vocab_size:
        progress(
            f"vocabulary: {tokenizer.vocab_size} tokens, not tokenizer.vocab_size={config.vocab_size}; "
            f"no other pair occurs tokenizer.min_frequency={config.min_frequency} times"
        )
    tokenizer.save(folder / TOKENIZER_JSON)
    dtype = np.min_scalar_type(tokenizer.vocab_size - 1)
    splits = {}
    for name in corpus.names:
        progress(f"tokenizing {name}: {corpus.n_documents(name):,} documents")
        splits[name] = write_split(folder, name, corpus.texts(name), tokenizer, dtype)
    facts = {
        "format": FORMAT,
        "version": VERSION,
        **facts,
        "dtype": dtype.name,
        "n_skipped": n_skipped,
        "splits": splits,
    }
    (folder / CACHE_JSON).write_text(json.dumps(facts, indent=2) + "\n", encoding="utf-8")


def _gather(array: NDArray[Any], starts: Ints, length: int) -> Ints:
    # sliding_window_view(array, length), made in 1 microsecond instead of 15.
    size = array.itemsize
    every: NDArray[Any] = np.ndarray((len(array) - length + 1, length), array.dtype, array.data, strides=(size, size))
    return every[starts].astype(np.int64)


def _open(path: Path, dtype: str, n: int) -> NDArray[Any]:
    expected = n * np.dtype(dtype).itemsize
    if not path.exists():
        raise _damaged(path.parent, f"{path.name} is missing")
    if path.stat().st_size != expected:
        raise _damaged(path.parent, f"{path.name} has {path.stat().st_size:,} bytes, not {expected:,}")
    # A plain array over the mapped file: slicing a np.memmap costs several times as much.
    return np.asarray(np.memmap(path, little_endian(dtype), mode="r"))


def _read_facts(path: Path) -> dict[str, Any]:
    try:
        facts = json.loads((path / CACHE_JSON).read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise _damaged(path, f"{CACHE_JSON} can't be read ({error})") from error
    found = (facts.get("format"), facts.get("version"))
    if found != (FORMAT, VERSION):
        raise DataError(
            f"{path / CACHE_JSON}: expected format {FORMAT!r} version {VERSION}, got {found[0]!r} version "
            f"{found[1]!r}; another version of lmexp wrote it: use another folder with data.cache_dir=FOLDER"
        )
    assert isinstance(facts, dict)
    return facts


def _damaged(path: Path, what: str) -> DataError:
    return DataError(f"token cache {path} is damaged: {what}; delete this folder and it is made again")
