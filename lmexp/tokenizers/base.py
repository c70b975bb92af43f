"""What every tokenizer can do, and the one file format of all of them.

A saved tokenizer is JSON: {"format": "lmexp.tokenizer", "version": 1, "kind": "bpe", ...what the kind needs}.
"""

from __future__ import annotations

import hashlib
import importlib
import json
from abc import ABC, abstractmethod
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from lmexp.errors import DataError
from lmexp.reading import check_format, read_object

FORMAT = "lmexp.tokenizer"
VERSION = 1
BUILT_IN = ("byte", "char", "word", "bpe", "hf")
"""Kinds of which the class is in the module of the same name."""

MOST_BYTES = 1 << 28
"""Of a tokenizer's file. The largest vocabularies in use take about 40 MB."""

Ints = NDArray[np.integer[Any]]
"""Integers of any width, maybe unsigned: widen them before you compute with them."""


class Tokenizer(ABC):
    """Text to token ids and back.

    <eos> ends a document. It has no bytes, decodes to nothing, and encode() never yields it, for no text.
    """

    kind: ClassVar[str]
    vocab_size: int
    eos_id: int
    _classes: ClassVar[dict[str, type[Tokenizer]]] = {}

    def __init_subclass__(cls) -> None:
        Tokenizer._classes[cls.kind] = cls

    @abstractmethod
    def encode(self, text: str) -> list[int]:
        """Token ids of a text, without <eos>."""

    def encode_batch(self, texts: Sequence[str]) -> list[Ints]:
        """Token ids of each text, without <eos>."""
        return [np.array(self.encode(text), dtype=np.int64) for text in texts]

    def encode_with_bytes(self, text: str) -> tuple[Ints, Ints]:
        """Token ids of a text and the bytes of it that each covers, which sum to len(text.encode())."""
        table = self.token_bytes()
        if table is None:
            raise NotImplementedError(f"{type(self).__name__} must tell how many bytes each token covers")
        ids = self.encode_batch([text])[0]
        return ids, table[ids]

    def decode(self, ids: Iterable[int]) -> str:
        """The text of some token ids; pieces of a character that don't belong together become U+FFFD."""
        known = [int(token) for token in ids]
        wrong = next((token for token in known if not 0 <= token < self.vocab_size), None)
        if wrong is not None:
            raise ValueError(f"token {wrong} is outside the vocabulary (0 to {self.vocab_size - 1})")
        return self._decode([token for token in known if token != self.eos_id])

    @abstractmethod
    def token_bytes(self) -> NDArray[np.int64] | None:
        """UTF-8 bytes of each token, (vocab,), 0 for <eos>; None where a token doesn't tell, as <unk>."""

    @abstractmethod
    def _decode(self, ids: list[int]) -> str:
        """Text of ids that are in the vocabulary and not <eos>."""

    @abstractmethod
    def _state(self) -> dict[str, Any]:
        """What from_state needs to make this tokenizer again: JSON types only."""

    @classmethod
    @abstractmethod
    def from_state(cls, state: dict[str, Any]) -> Tokenizer:
        """The tokenizer of which _state() was saved."""

    def to_dict(self) -> dict[str, Any]:
        """Everything about this tokenizer, as JSON types."""
        return {"format": FORMAT, "version": VERSION, "kind": self.kind, **self._state()}

    def digest(self) -> str:
        """SHA-256 of to_dict(), the same wherever and however it is saved."""
        text = json.dumps(self.to_dict(), sort_keys=True, ensure_ascii=False, separators=(",", ":"))
        return hashlib.sha256(text.encode()).hexdigest()

    def save(self, path: Path) -> None:
        """Write to_dict() as JSON."""
        path.write_text(json.dumps(self.to_dict(), ensure_ascii=False), encoding="utf-8")


def from_dict(state: dict[str, Any], where: str = "tokenizer") -> Tokenizer:
    """The tokenizer of which to_dict() gave state. where: what an error names, e.g. the file."""
    check_format(state, where, DataError, FORMAT, VERSION)
    kind = str(state.get("kind"))
    if kind in BUILT_IN:
        importlib.import_module(f"lmexp.tokenizers.{kind}")
    if kind not in Tokenizer._classes:
        raise DataError(
            f"{where}: unknown kind of tokenizer {kind!r}; expected one of {', '.join(BUILT_IN)}, "
            f"or one from a package named with lmexp -p"
        )
    try:
        return Tokenizer._classes[kind].from_state(state)
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        raise DataError(
            f"{where}: damaged {kind} tokenizer ({type(error).__name__}: {error}); make it again"
        ) from error


def load(path: Path) -> Tokenizer:
    """The tokenizer that save(path) wrote."""
    return from_dict(read_json(path), where=str(path))


def read_json(path: Path) -> dict[str, Any]:
    """The JSON object of a tokenizer's file. It may be a symbolic link, as in the cache of Hugging Face's hub."""
    try:
        state: dict[str, Any] = read_object(path, DataError, most=MOST_BYTES, follow=True)
    except FileNotFoundError:
        raise DataError(f"{path}: no such file; expected a tokenizer that lmexp saved") from None
    return state


def texts(values: Any) -> list[str]:
    """The same list; ValueError unless it holds text only."""
    if not isinstance(values, list) or not all(isinstance(value, str) for value in values):
        raise ValueError("expected a list of text")
    return values
