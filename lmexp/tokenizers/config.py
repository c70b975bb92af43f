"""Configs of the tokenizers."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from lmexp.errors import ConfigError

if TYPE_CHECKING:
    from lmexp.tokenizers.base import Tokenizer

N_BYTES_AND_EOS = 257


@dataclass(kw_only=True, slots=True)
class TokenizerConfig:
    """How text becomes tokens."""

    kind: str = "???"

    def train(self, texts: Iterable[str]) -> Tokenizer:
        """A tokenizer fitted to texts, which are the documents of the training split."""
        raise NotImplementedError


@dataclass(kw_only=True, slots=True)
class ByteTokenizerConfig(TokenizerConfig):
    """Every UTF-8 byte is a token."""

    kind: str = "byte"

    def train(self, texts: Iterable[str]) -> Tokenizer:
        from lmexp.tokenizers.byte import ByteTokenizer

        return ByteTokenizer()


@dataclass(kw_only=True, slots=True)
class CharTokenizerConfig(TokenizerConfig):
    """Every character of the training text is a token; others are <unk>."""

    kind: str = "char"

    def train(self, texts: Iterable[str]) -> Tokenizer:
        from lmexp.tokenizers.char import CharTokenizer

        return CharTokenizer.train(texts)


@dataclass(kw_only=True, slots=True)
class WordTokenizerConfig(TokenizerConfig):
    """Words and punctuation marks are tokens; white space between them is dropped."""

    kind: str = "word"
    min_frequency: int = 2
    """A word that occurs less often in the training text is <unk>."""
    lowercase: bool = False
    """Whether The and the are the same word."""

    def __post_init__(self) -> None:
        _check_min_frequency(self.min_frequency)

    def train(self, texts: Iterable[str]) -> Tokenizer:
        from lmexp.tokenizers.word import WordTokenizer

        return WordTokenizer.train(texts, min_frequency=self.min_frequency, lowercase=self.lowercase)


@dataclass(kw_only=True, slots=True)
class BPETokenizerConfig(TokenizerConfig):
    """Byte-level byte-pair encoding, as GPT-2's: every text has tokens, none is unknown."""

    kind: str = "bpe"
    vocab_size: int = 1024
    """Tokens in the vocabulary at most, the 256 bytes and <eos> included."""
    min_frequency: int = 2
    """A pair that occurs less often in the training text isn't merged."""

    def __post_init__(self) -> None:
        if self.vocab_size < N_BYTES_AND_EOS:
            raise ConfigError(
                f"tokenizer.vocab_size is {self.vocab_size}; "
                f"expected at least {N_BYTES_AND_EOS}: the 256 bytes and <eos>"
            )
        _check_min_frequency(self.min_frequency)

    def train(self, texts: Iterable[str]) -> Tokenizer:
        from lmexp.tokenizers.bpe import BPETokenizer

        return BPETokenizer.train(texts, vocab_size=self.vocab_size, min_frequency=self.min_frequency)


def _check_min_frequency(min_frequency: int) -> None:
    if min_frequency < 1:
        raise ConfigError(f"tokenizer.min_frequency is {min_frequency}; expected at least 1, which keeps everything")
