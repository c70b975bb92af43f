"""Every character of the training text is a token: 0 is <eos>, 1 is <unk>, then characters by code point."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np

from lmexp.tokenizers.base import Ints, Tokenizer

EOS, UNKNOWN = 0, 1
UNKNOWN_TEXT = "\N{REPLACEMENT CHARACTER}"


class CharTokenizer(Tokenizer):
    """Unicode characters (code points); those not in the alphabet are <unk>, which decodes to U+FFFD.

    >>> CharTokenizer("abc").encode("cab!")
    [4, 2, 3, 1]
    """

    kind = "char"
    eos_id = EOS

    def __init__(self, alphabet: str) -> None:
        self.alphabet = "".join(sorted(set(alphabet)))
        self.vocab_size = 2 + len(self.alphabet)
        codes = _code_points(self.alphabet)
        # Code point -> id. The last entry stands for all code points beyond the alphabet's largest.
        self._ids = np.full(int(codes.max(initial=0)) + 2, UNKNOWN, dtype=np.int64)
        self._ids[codes] = np.arange(2, self.vocab_size)

    @classmethod
    def train(cls, texts: Iterable[str]) -> CharTokenizer:
        """The tokenizer whose alphabet is all characters of texts."""
        alphabet: set[str] = set()
        for text in texts:
            alphabet.update(text)
        return cls("".join(alphabet))

    def encode(self, text: str) -> list[int]:
        ids: list[int] = self._encode(_code_points(text)).tolist()
        return ids

    def encode_batch(self, texts: Sequence[str]) -> list[Ints]:
        return [self._encode(_code_points(text)) for text in texts]

    def encode_with_bytes(self, text: str) -> tuple[Ints, Ints]:
        codes = _code_points(text)
        n_bytes = 1 + (codes > 0x7F) + (codes > 0x7FF) + (codes > 0xFFFF).astype(np.int64)
        return self._encode(codes), n_bytes

    def token_bytes(self) -> None:
        return None

    def _encode(self, codes: Ints) -> Ints:
        ids: Ints = self._ids[np.minimum(codes, len(self._ids) - 1)]
        return ids

    def _decode(self, ids: list[int]) -> str:
        return "".join(UNKNOWN_TEXT if token == UNKNOWN else self.alphabet[token - 2] for token in ids)

    def _state(self) -> dict[str, Any]:
        return {"alphabet": self.alphabet}

    @classmethod
    def from_state(cls, state: dict[str, Any]) -> CharTokenizer:
        return cls("".join(state["alphabet"]))


def _code_points(text: str) -> Ints:
    return np.frombuffer(text.encode("utf-32-le", errors="surrogatepass"), dtype="<u4").astype(np.int64)
