"""Every UTF-8 byte is a token: ids 0 to 255 are the bytes, 256 is <eos>."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lmexp.tokenizers.base import Ints, Tokenizer


class ByteTokenizer(Tokenizer):
    """UTF-8 bytes.

    >>> ByteTokenizer().encode("né")
    [110, 195, 169]
    """

    kind = "byte"
    vocab_size = 257
    eos_id = 256

    def encode(self, text: str) -> list[int]:
        return list(text.encode())

    def encode_batch(self, texts: Sequence[str]) -> list[Ints]:
        return [np.frombuffer(text.encode(), dtype=np.uint8) for text in texts]

    def token_bytes(self) -> NDArray[np.int64]:
        table = np.ones(self.vocab_size, dtype=np.int64)
        table[self.eos_id] = 0
        return table

    def _decode(self, ids: list[int]) -> str:
        return bytes(ids).decode(errors="replace")

    def _state(self) -> dict[str, Any]:
        return {}

    @classmethod
    def from_state(cls, state: dict[str, Any]) -> ByteTokenizer:
        return cls()
