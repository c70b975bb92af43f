"""Words and punctuation marks are tokens: 0 is <eos>, 1 is <unk>, then words, the most frequent first.

With split=whitespace, whatever stands between white space is a token, and <unk> in a text is <unk>.

White space is not kept: it belongs to the word that follows, at the end of a text to the last word.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable
from typing import Any

import numpy as np

from lmexp.errors import DataError
from lmexp.tokenizers.base import Ints, Tokenizer, texts

EOS, UNKNOWN = 0, 1
UNKNOWN_TEXT = "<unk>"
PUNCTUATION, WHITESPACE = "punctuation", "whitespace"
WORDS = {
    PUNCTUATION: re.compile(r"\w+(?:['’]\w+)*|[^\w\s]"),  # noqa: RUF001 - the typographic apostrophe is meant
    WHITESPACE: re.compile(r"\S+"),
}
SPACE_BEFORE_CLOSING = re.compile(r" ([.,;:!?)\]}%…”])")
SPACE_AFTER_OPENING = re.compile(r"([(\[{“]) ")


class WordTokenizer(Tokenizer):
    """Words of a fixed vocabulary; all others are <unk>.

    >>> WordTokenizer(["hello", ","]).encode("hello, world")
    [2, 3, 1]
    """

    kind = "word"
    eos_id = EOS

    def __init__(self, words: list[str], *, lowercase: bool = False, split: str = PUNCTUATION) -> None:
        self.words = words
        self.lowercase = lowercase
        self.split = split
        self._word = WORDS[split]
        self.vocab_size = 2 + len(words)
        self._ids = {word: token for token, word in enumerate(words, start=2)}

    @classmethod
    def train(
        cls, texts: Iterable[str], *, min_frequency: int, lowercase: bool, split: str = PUNCTUATION
    ) -> WordTokenizer:
        """The tokenizer that knows every word which occurs min_frequency times in texts."""
        counts: Counter[str] = Counter()
        for text in texts:
            counts.update(word.lower() if lowercase else word for word in WORDS[split].findall(text))
        counts.pop(UNKNOWN_TEXT, None)  # only what is split at white space has it in one piece
        frequent = [(-count, word) for word, count in counts.items() if count >= min_frequency]
        if not frequent:
            raise DataError(
                f"tokenizer: none of the {len(counts):,} words of the training split occurs "
                f"tokenizer.min_frequency={min_frequency} times; try tokenizer.min_frequency=1"
            )
        return cls([word for _, word in sorted(frequent)], lowercase=lowercase, split=split)

    def encode(self, text: str) -> list[int]:
        # A text of white space alone is one <unk>, so that its bytes belong to a token too.
        words = self._word.findall(text) or ([UNKNOWN_TEXT] if text else [])
        return [self._ids.get(word.lower() if self.lowercase else word, UNKNOWN) for word in words]

    def encode_with_bytes(self, text: str) -> tuple[Ints, Ints]:
        ends = [match.end() for match in self._word.finditer(text)] or ([len(text)] if text else [])
        if ends:
            ends[-1] = len(text)
        starts = [0, *ends[:-1]]
        n_bytes = [len(text[start:end].encode()) for start, end in zip(starts, ends, strict=False)]
        return np.array(self.encode(text), dtype=np.int64), np.array(n_bytes, dtype=np.int64)

    def token_bytes(self) -> None:
        return None

    def _decode(self, ids: list[int]) -> str:
        text = " ".join(UNKNOWN_TEXT if token == UNKNOWN else self.words[token - 2] for token in ids)
        if self.split == WHITESPACE:
            return text
        return SPACE_AFTER_OPENING.sub(r"\1", SPACE_BEFORE_CLOSING.sub(r"\1", text))

    def _state(self) -> dict[str, Any]:
        split = {} if self.split == PUNCTUATION else {"split": self.split}  # files that are older than it have none
        return {"words": self.words, "lowercase": self.lowercase, **split}

    @classmethod
    def from_state(cls, state: dict[str, Any]) -> WordTokenizer:
        split = str(state.get("split", PUNCTUATION))
        return cls(texts(state["words"]), lowercase=bool(state["lowercase"]), split=split)
