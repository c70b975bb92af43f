"""Configs of the tokenizers."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

from lmexp.checks import at_least, not_empty
from lmexp.errors import ConfigError
from lmexp.redaction import secret_fields

if TYPE_CHECKING:
    from lmexp.tokenizers.base import Tokenizer

N_BYTES_AND_EOS = 257


@dataclass(kw_only=True, slots=True)
class TokenizerConfig:
    """How text becomes tokens."""

    kind: str = "???"

    def train(self, texts: Iterable[str]) -> Tokenizer:
        """A tokenizer fitted to texts, which are documents of the training split."""
        raise NotImplementedError

    def identity(self) -> dict[str, Any]:
        """What decides the tokens of a text, together with the training text, as JSON types."""
        return {name: value for name, value in asdict(self).items() if name not in secret_fields(type(self))}

    def text_bytes(self) -> int | None:
        """Bytes of training text that train() wants at most; 0 is none, None is all."""
        return None


@dataclass(kw_only=True, slots=True)
class ByteTokenizerConfig(TokenizerConfig):
    """Every UTF-8 byte is a token."""

    kind: str = "byte"

    def train(self, texts: Iterable[str]) -> Tokenizer:
        from lmexp.tokenizers.byte import ByteTokenizer

        return ByteTokenizer()

    def text_bytes(self) -> int | None:
        return 0


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
    train_bytes: int = 100_000_000
    """Bytes of training text to learn from at most, taken from all parts of the corpus."""

    def __post_init__(self) -> None:
        if self.vocab_size < N_BYTES_AND_EOS:
            raise ConfigError(
                f"tokenizer.vocab_size is {self.vocab_size}; "
                f"expected at least {N_BYTES_AND_EOS}: the 256 bytes and <eos>"
            )
        at_least("tokenizer.vocab_size", self.vocab_size, N_BYTES_AND_EOS)
        _check_min_frequency(self.min_frequency)
        at_least("tokenizer.train_bytes", self.train_bytes, 1)

    def train(self, texts: Iterable[str]) -> Tokenizer:
        from lmexp.tokenizers.bpe import BPETokenizer

        return BPETokenizer.train(texts, vocab_size=self.vocab_size, min_frequency=self.min_frequency)

    def text_bytes(self) -> int | None:
        return self.train_bytes


@dataclass(kw_only=True, slots=True)
class SavedTokenizerConfig(TokenizerConfig):
    """A tokenizer from a file; nothing is trained."""

    kind: str = "saved"
    path: str = ""
    """A tokenizer.json that lmexp saved, or the run or cache that holds it; or one of Hugging Face's tokenizers that is
    byte-level BPE as GPT-2's."""

    def train(self, texts: Iterable[str]) -> Tokenizer:
        from lmexp.tokenizers.saved import load

        return load(self.path)

    def identity(self) -> dict[str, Any]:
        """The tokenizer itself, wherever its file lies."""
        return {"kind": self.kind, "sha256": self.train(()).digest()}

    def text_bytes(self) -> int | None:
        return 0


@dataclass(kw_only=True, slots=True)
class HFTokenizerConfig(TokenizerConfig):
    """The tokenizer of a Hugging Face model, whatever its algorithm; nothing is trained."""

    kind: str = "hf"
    path: str = ""
    """A folder that holds tokenizer.json, or a name on the hub."""
    revision: str | None = None
    """Commit of a repository on the hub: its 40 hex digits."""
    eos: str | None = None
    """The token that ends a document; null is the one that the folder names."""

    def __post_init__(self) -> None:
        not_empty("tokenizer.revision", self.revision, "<commit>")
        not_empty("tokenizer.eos", self.eos, "</s>")

    def train(self, texts: Iterable[str]) -> Tokenizer:
        from lmexp.tokenizers.hf import load

        return load(self.path, revision=self.revision, eos=self.eos)

    def identity(self) -> dict[str, Any]:
        """The tokenizer itself, wherever its file lies."""
        return {"kind": self.kind, "sha256": self.train(()).digest()}

    def text_bytes(self) -> int | None:
        return 0


def _check_min_frequency(min_frequency: int) -> None:
    at_least("tokenizer.min_frequency", min_frequency, 1)
