"""The token cache: a corpus as token ids in memory-mapped files, with the tokenizer that made them.

<cache_root>/<first 16 hex digits of the fingerprint>/
    cache.json            {"format": "lmexp.cache", "version": 3, "fingerprint": ..., "dtype": "uint16",
                           "tokenizer": identity, "sources": {name: {"split", "cleaning", "n_read", "n_documents",
                           "n_bytes", "n_duplicates", "n_dropped", "n_quarantined", "documents_digest"}},
                           "splits": {"train": {"n_documents", "n_tokens", "n_bytes", "n_bytes_dtype",
                           "documents_digest", "sources": {name: {"first_document", "n_documents", "start", "stop",
                           "n_bytes"}}}, ...}}
    tokenizer.json        the tokenizer, trained on the training split
    <split>.tokens        token ids, raw little-endian dtype: an <eos>, then the documents, each followed by <eos>
    <split>.documents     int64: the stream position (index into <split>.tokens) of each document's first token, and at
                          last 1 + n_tokens
    <split>.bytes         n_bytes_dtype: source bytes of each token; only for tokenizers whose tokens alone
                          don't tell (n_bytes_dtype is null for the others)
    quarantine.jsonl      {"source", "file", "line", "reason"} a line: what should have been a document and isn't

Every token but the leading <eos> is predicted from what stands before it: n_tokens counts those. The documents of a
split come source by source, each source in its own order; a corpus that is no mixture has one source, "".

The fingerprint is a SHA-256 over this format's version, the documents after cleaning, what was left out, and the
settings of split and tokenizer. A folder is made under another name and renamed when it is complete: one with its name
is whole. Beside the caches, corpora/ holds what is known of each source (survey.py).
"""

from __future__ import annotations

import os
import re
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lmexp.data import building
from lmexp.data.building import CACHE_JSON, FORMAT, VERSION, Build
from lmexp.data.config import CorpusConfig
from lmexp.data.progress import Progress, silent
from lmexp.data.shared_work import GoneError, remove
from lmexp.data.split import SPLIT_NAMES
from lmexp.data.summary import summarize
from lmexp.data.surveying import CORPORA, Surveyor
from lmexp.data.tokenizing import TOKENIZER_JSON
from lmexp.data.worker import Crew
from lmexp.data.writing import map_array
from lmexp.errors import DataError
from lmexp.reading import check_folder, check_format, read_object
from lmexp.tokenizers import base as tokenizers
from lmexp.tokenizers.config import TokenizerConfig

ATTEMPTS = 3
"""Times that a cache is begun anew after others have removed what was made of it."""
PASSING = re.compile(r"\.[0-9a-f]{16}(-[0-9a-f]{8})?\.(once|partial|once\.partial|gone)")
"""Names of what processes leave behind that were killed."""
TOKEN_DTYPES = ("uint8", "uint16", "uint32")
"""Of the tokens, and of the bytes that each covers."""
ABANDONED_SECONDS = 7 * 86_400
"""What was begun and not touched for so long is removed."""

Ints = NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class SourceRange:
    """Where the documents of a source are in a split."""

    first_document: int
    n_documents: int
    start: int
    """Stream position of the first token of its first document."""
    stop: int
    """Stream position after the <eos> of its last document."""
    n_bytes: int
    """UTF-8 bytes of its text."""


class TokenSplit:
    """The tokens of one split.

    tokens: (1 + n_tokens,), memory-mapped; the first is an <eos> that no document holds.
    document_starts: (n_documents + 1,) stream position of each document's first token, and at last 1 + n_tokens;
    memory-mapped.
    """

    def __init__(self, path: Path, name: str, dtype: str, facts: dict[str, Any], token_bytes: Ints | None) -> None:
        self.name = name
        self.n_tokens = int(facts["n_tokens"])
        """Tokens to predict: all but the leading <eos>."""
        self.n_documents = int(facts["n_documents"])
        self.n_bytes = int(facts["n_bytes"])
        """UTF-8 bytes of the split's text."""
        self.documents_digest = str(facts["documents_digest"])
        """SHA-256 of its documents, the same for any tokenizer and whatever the other splits hold."""
        self.sources = {source: SourceRange(**places) for source, places in facts["sources"].items()}
        self.tokens = _open(path / f"{name}.tokens", dtype, 1 + self.n_tokens)
        self.document_starts: Ints = _open(path / f"{name}.documents", "int64", self.n_documents + 1)
        if self.document_starts[0] != 1 or self.document_starts[-1] != 1 + self.n_tokens:
            raise ValueError(f"{name}.documents doesn't fit {name}.tokens")
        self._token_bytes = token_bytes
        self._bytes = None
        if token_bytes is None:
            self._bytes = _open(path / f"{name}.bytes", facts["n_bytes_dtype"], 1 + self.n_tokens)

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
    """An opened token cache. splits: train, and validation and test where text was held out or given for them."""

    def __init__(self, path: Path) -> None:
        check_folder(path, DataError, files={*os.listdir(path)} - {PLANS}, folders=[PLANS])
        facts = _read_facts(path)
        self.path = path
        self.facts = facts
        """cache.json."""
        self.fingerprint: str = facts["fingerprint"]
        self.tokenizer = tokenizers.load(path / TOKENIZER_JSON)
        table = self.tokenizer.token_bytes()
        try:
            self.splits = {
                name: TokenSplit(path, name, facts["dtype"], split, table) for name, split in facts["splits"].items()
            }
        except DataError:
            raise
        except (ArithmeticError, AttributeError, KeyError, TypeError, ValueError) as error:
            raise _damaged(path, f"{CACHE_JSON} doesn't fit the files ({type(error).__name__}: {error})") from error


def prepare(
    data: CorpusConfig, tokenizer: TokenizerConfig, *, cache_root: Path, progress: Progress = silent
) -> TokenCache:
    """The token cache of a corpus: opened if there is one, made if there isn't.

    Any number of processes may be at it at the same time, on any number of machines that share cache_root: they share
    the work. What a killed one had done is not done again.
    """
    try:
        for _ in range(ATTEMPTS):
            try:
                return _prepare(data, tokenizer, cache_root, progress)
            except GoneError:
                progress.say("what was made so far was removed: beginning anew")
    except OSError as error:
        raise DataError(
            f"can't write the token cache in {cache_root}: {error.strerror or error}; "
            f"choose another folder with data.cache_dir=FOLDER"
        ) from error
    raise DataError(f"the token cache in {cache_root} was removed again and again while it was made; who does that?")


def open_prepared(cache_root: Path, fingerprint: str) -> TokenCache | None:
    """The cache of a known fingerprint; None where it hasn't been made."""
    path = cache_root / fingerprint[:16]
    if not path.exists():
        return None
    cache = TokenCache(path)
    if cache.fingerprint != fingerprint:
        raise DataError(
            f"token cache {path} has the fingerprint {cache.fingerprint}, expected {fingerprint}; "
            f"delete this folder and it is made again, or use another with data.cache_dir=FOLDER"
        )
    return cache


def _prepare(data: CorpusConfig, tokenizer: TokenizerConfig, root: Path, progress: Progress) -> TokenCache:
    crew = Crew(data)
    surveyor = Surveyor(root, progress, crew.help)
    try:
        surveys = {name: surveyor.survey(name, config) for name, config in data.sources().items()}
        summaries = [summarize(name, config, surveys[name]) for name, config in data.sources().items()]
        fingerprint = building.fingerprint(summaries, tokenizer)
        path = root / fingerprint[:16]
        build = Build(path, fingerprint, summaries, tokenizer, progress, crew.help)
        if path.exists():
            progress.say(f"tokens: found in {path}")
        else:
            build.run()
    finally:
        crew.close()
        surveyor.forget()
    build.discard()
    _sweep(path)
    cache = open_prepared(root, fingerprint)
    if cache is None:
        raise GoneError
    _check_rows(cache, data)
    return cache


def _check_rows(cache: TokenCache, data: CorpusConfig) -> None:
    """Make the plan of the rows, where they need one; DataError where there are too few tokens."""
    from lmexp.data.windows import training_rows

    training_rows(cache, data, seed=0)


def _sweep(made: Path) -> None:
    """Remove what others began to remove, and what they began to make and left long before this cache was made or was
    opened (by the file system's clock)."""
    now = max(made.stat().st_ctime, made.parent.stat().st_mtime)
    for folder in (made.parent, made.parent / CORPORA):
        for path in folder.glob(".*"):
            if not PASSING.fullmatch(path.name):
                continue  # not ours: data.cache_dir may be any folder
            if path.suffix == ".gone":
                shutil.rmtree(path, ignore_errors=True)
                continue
            try:
                newest = max(found.stat().st_mtime for found in (path, *path.iterdir()))
            except OSError:
                continue  # at work, after all
            if newest < now - ABANDONED_SECONDS:
                remove(path)


def _gather(array: NDArray[Any], starts: Ints, length: int) -> Ints:
    # sliding_window_view(array, length), made in 1 microsecond instead of 15.
    size = array.itemsize
    every: NDArray[Any] = np.ndarray((len(array) - length + 1, length), array.dtype, array.data, strides=(size, size))
    return every[starts].astype(np.int64)


PLANS = "plans"
"""Folder of the plans of rows in a cache, see lmexp.data.plans."""


def _open(path: Path, dtype: str, n: int) -> NDArray[Any]:
    try:
        return map_array(path, dtype, n)
    except FileNotFoundError:
        raise _damaged(path.parent, f"{path.name} is missing") from None
    except ValueError as error:
        raise _damaged(path.parent, str(error)) from None


def _read_facts(path: Path) -> dict[str, Any]:
    try:
        facts: dict[str, Any] = read_object(path / CACHE_JSON, DataError)
    except (OSError, DataError) as error:
        raise _damaged(path, f"{CACHE_JSON} can't be read ({error})") from error
    check_format(facts, path / CACHE_JSON, DataError, FORMAT, VERSION)
    wrong = next((key for key, fits in _fits(facts).items() if not fits), None)
    if wrong is not None:
        raise _damaged(path, f"{CACHE_JSON} has {wrong} {repr(facts.get(wrong))[:200]}, which lmexp doesn't write")
    return facts


def _fits(facts: dict[str, Any]) -> dict[str, bool]:
    """Whether each value of cache.json is of the kind that it should be."""
    splits, sources = facts.get("splits"), facts.get("sources")
    counted = ("n_read", "n_documents", "n_bytes", "n_duplicates")
    return {
        "fingerprint": re.fullmatch("[0-9a-f]{64}", str(facts.get("fingerprint"))) is not None,
        "dtype": facts.get("dtype") in TOKEN_DTYPES,
        "tokenizer": isinstance(facts.get("tokenizer"), dict),
        "splits": isinstance(splits, dict)
        and "train" in splits
        and all(
            name in SPLIT_NAMES and isinstance(split, dict) and split.get("n_bytes_dtype") in (None, *TOKEN_DTYPES)
            for name, split in splits.items()
        ),
        "sources": isinstance(sources, dict)
        and all(
            isinstance(source, dict)
            and all(type(source.get(name)) is int for name in counted)
            and all(isinstance(source.get(name), dict) for name in ("split", "cleaning", "n_dropped", "n_quarantined"))
            and all(type(n) is int for name in ("n_dropped", "n_quarantined") for n in source[name].values())
            for source in sources.values()
        ),
    }


def _damaged(path: Path, what: str) -> DataError:
    return DataError(f"token cache {path} is damaged: {what}; delete this folder and it is made again")
