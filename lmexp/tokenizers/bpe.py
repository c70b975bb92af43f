"""Byte-level byte-pair encoding as in GPT-2 (Radford et al. 2019), by Hugging Face's tokenizers.

The first 256 ids are the bytes, then come the merges in the order they were learned; <eos> is the last id.
The library doesn't know <eos> at all, so text that holds the characters "<eos>" is encoded like any other.
"""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
import tokenizers
from tokenizers import decoders, models, pre_tokenizers, trainers

from lmexp.tokenizers.base import Ints, Tokenizer

# The library's threads don't survive a fork: a child process that uses them hangs, and unless this variable
# is set, the library may warn in every child. Here the parent keeps its threads; a child works without them.
os.environ.setdefault("TOKENIZERS_PARALLELISM", "true")
if sys.platform != "win32":
    os.register_at_fork(after_in_child=lambda: os.environ.update(TOKENIZERS_PARALLELISM="false"))


class BPETokenizer(Tokenizer):
    """Byte-level BPE; decode(encode(text)) == text for every text.

    tokens: the vocabulary without <eos>, each byte written as one printable character (GPT-2's table).
    merges: pairs of tokens, most important first.
    """

    kind = "bpe"

    def __init__(self, tokens: list[str], merges: list[tuple[str, str]]) -> None:
        self.tokens = tokens
        self.merges = merges
        self.eos_id = len(tokens)
        self.vocab_size = len(tokens) + 1
        vocab = {token: i for i, token in enumerate(tokens)}
        self._library = _pipeline(models.BPE(vocab=vocab, merges=merges))

    @classmethod
    def train(cls, texts: Iterable[str], *, vocab_size: int, min_frequency: int) -> BPETokenizer:
        """Learn merges until there are vocab_size tokens, or no pair that occurs min_frequency times."""
        trainer = trainers.BpeTrainer(
            vocab_size=vocab_size - 1,
            min_frequency=min_frequency,
            initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
            show_progress=False,
        )
        library = _pipeline(models.BPE())
        library.train_from_iterator(texts, trainer=trainer)
        model = json.loads(library.to_str())["model"]
        return cls(sorted(model["vocab"], key=model["vocab"].get), [(left, right) for left, right in model["merges"]])

    def encode(self, text: str) -> list[int]:
        ids: list[int] = self._library.encode(text, add_special_tokens=False).ids
        return ids

    def encode_batch(self, texts: Sequence[str]) -> list[Ints]:
        encodings = self._library.encode_batch_fast(list(texts), add_special_tokens=False)
        return [np.array(encoding.ids, dtype=np.int64) for encoding in encodings]

    def token_bytes(self) -> Ints:
        # A token is written with one character a byte.
        return np.array([len(token) for token in self.tokens] + [0], dtype=np.int64)

    def _decode(self, ids: list[int]) -> str:
        text: str = self._library.decode(ids, skip_special_tokens=False)
        return text

    def _state(self) -> dict[str, Any]:
        return {"tokens": self.tokens, "merges": [list(pair) for pair in self.merges]}

    @classmethod
    def from_state(cls, state: dict[str, Any]) -> BPETokenizer:
        return cls(state["tokens"], [(left, right) for left, right in state["merges"]])


def _pipeline(model: models.BPE) -> tokenizers.Tokenizer:
    """The library's tokenizer around a model: GPT-2's split into words, then bytes."""
    library = tokenizers.Tokenizer(model)
    library.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=True)
    library.decoder = decoders.ByteLevel()
    return library
