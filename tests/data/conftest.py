"""Small corpora and caches."""

import importlib
import json
import os
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from lmexp import plugins
from lmexp.data.cache import TokenCache, prepare
from lmexp.data.config import TextFilesConfig
from lmexp.tokenizers.config import ByteTokenizerConfig, TokenizerConfig

LONG_AGO = 1_000_000_000


collect_ignore = ["pieces.py"]
"""Imported as a package that a test trusts, not while tests are collected."""


@pytest.fixture
def lines_file(tmp_path: Path) -> Path:
    """60 lines of differing lengths."""
    path = tmp_path / "lines.txt"
    path.write_text("".join(f"line {i}: {'naïve ' * (i % 7)}end\n" for i in range(60)), encoding="utf-8")
    return path


@pytest.fixture
def make_cache(tmp_path: Path, lines_file: Path) -> Callable[..., TokenCache]:
    """make_cache(tokenizer, **settings of data): the cache of lines_file, a document a line."""

    def make(tokenizer: TokenizerConfig | None = None, **settings: object) -> TokenCache:
        given = {
            "path": str(lines_file),
            "document": "line",
            "sequence_length": 8,
            "validation_fraction": 0.2,
            "test_fraction": 0.2,
        }
        config = TextFilesConfig(**(given | settings))
        return prepare(config, tokenizer or ByteTokenizerConfig(), cache_root=tmp_path / "cache")

    return make


@pytest.fixture
def pieces() -> ModuleType:
    """tests/data/pieces.py, trusted: data=pieces is known."""
    plugins.trust(["tests.data.pieces"])
    return importlib.import_module("tests.data.pieces")


@pytest.fixture
def write_pieces(tmp_path: Path) -> Callable[..., str]:
    """write_pieces(documents, name, validation=...): the path of a corpus for data=pieces, written long ago."""

    def write(documents: Sequence[Any], name: str = "corpus", **given: Sequence[Any]) -> str:
        folder = tmp_path / name
        folder.mkdir(exist_ok=True)
        parts: Mapping[str, Sequence[Any]] = {"all": documents, **given}
        for part, entries in parts.items():
            path = folder / f"{part}.jsonl"
            path.write_text("".join(json.dumps(entry) + "\n" for entry in entries), encoding="utf-8")
            os.utime(path, (LONG_AGO, LONG_AGO))
        return str(folder)

    return write


@pytest.fixture
def prepare_pieces(tmp_path: Path, pieces: ModuleType) -> Callable[..., TokenCache]:
    """prepare_pieces(path, tokenizer, **settings of data): the cache of a corpus that write_pieces wrote."""

    def make(path: str, tokenizer: TokenizerConfig | None = None, /, **settings: Any) -> TokenCache:
        none_held_out = {"validation_fraction": 0.0, "test_fraction": 0.0, "sequence_length": 1}
        config = pieces.PiecesConfig(**none_held_out | settings | {"path": path})
        root = settings.get("cache_dir") or tmp_path / "cache"
        return prepare(config, tokenizer or ByteTokenizerConfig(), cache_root=Path(root))

    return make
