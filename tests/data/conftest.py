"""Small corpora and caches."""

from collections.abc import Callable
from pathlib import Path

import pytest

from lmexp.data.cache import TokenCache, prepare
from lmexp.data.config import TextFilesConfig
from lmexp.tokenizers.config import ByteTokenizerConfig, TokenizerConfig


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
