"""Byte-level byte-pair encoding as in GPT-2 (Radford et al. 2019), trained by tokenizers, encoded by tiktoken.

The first 256 ids are the bytes, then come the merges in the order they were learned; <eos> is the last id.
Neither library takes "<eos>" or any other characters of a text for a special token.

tiktoken is several times as fast as the library that trains. It joins the neighbours whose union has the lowest id; BPE
joins those whose merge stands first. _ids_tell_the_merges decides whether that is the same, as it is for every trained
vocabulary; for others the library encodes. Both split by the same pattern and, in the versions pinned here, the same
Unicode tables: tests compare them on every code point.
"""

from __future__ import annotations

import functools
import json
import re
from collections.abc import Iterable, Iterator, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import tiktoken
from numpy.typing import NDArray

from lmexp.tokenizers.base import Ints, Tokenizer, texts
from lmexp.tokenizers.library import byte_level, library

if TYPE_CHECKING:
    import tokenizers

N_BYTES = 256

PATTERN = r"""'(?:[sdmt]|ll|ve|re)| ?\p{L}++| ?\p{N}++| ?[^\s\p{L}\p{N}]++|\s++$|\s+(?!\S)|\s"""
r"""GPT-2's split into words, as tiktoken writes it: the same words as
's|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+, with less backtracking."""

CHUNK_CHARACTERS = 1 << 18
"""A longer text is encoded in chunks of about this size. tiktoken gives up within a million white spaces."""

_SPACE = r"\t-\r \x85\xa0\u1680\u2000-\u200a\u2028\u2029\u202f\u205f\u3000"
BORDER = re.compile(
    rf"(?<=[^{_SPACE}])(?=[{_SPACE}])"
    rf"|(?<=[{_SPACE}])(?=[{_SPACE}][^{_SPACE}])"
    r"|(?<=[0-9A-Za-z\u4e00-\u9fa5])(?=[!-/:-@\[-`{-~\u3001\u3002\uff0c])"
)
r"""Places at which a text can be cut and its parts encoded by themselves, exactly. White space is Unicode's, as in \s.

- A | white: a word has white space at its beginning only, or is nothing else; so it ends here. The part before ends
  without white space, so no lookahead of \s+(?!\S) reaches its end; the part behind begins a word.
- white | white A: \s+(?!\S) leaves the last white space of a run to the next word. Without it, the others are one word
  as before, since they then end the text.
- letter or digit | punctuation: no word has punctuation behind them. The characters listed have been of these classes
  in every version of Unicode.
"""


def _printable_bytes() -> dict[str, int]:
    """GPT-2's table: one printable character for each byte."""
    kept = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    others = [byte for byte in range(N_BYTES) if byte not in kept]
    return {chr(byte): byte for byte in kept} | {chr(0x100 + i): byte for i, byte in enumerate(others)}


PRINTABLE_BYTES = _printable_bytes()


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
        _check(tokens, merges)
        self._bytes = [bytes(PRINTABLE_BYTES[character] for character in token) for token in tokens]
        self._dtype: type[np.unsignedinteger[Any]] = np.uint16 if self.vocab_size <= 1 << 16 else np.uint32
        self._encoding = _encoding(self._bytes) if _ids_tell_the_merges(tokens, merges) else None

    @classmethod
    def train(cls, texts: Iterable[str], *, vocab_size: int, min_frequency: int) -> BPETokenizer:
        """Learn merges until there are vocab_size tokens, or no pair that occurs min_frequency times."""
        hf = library()
        trainer = hf.trainers.BpeTrainer(
            vocab_size=vocab_size - 1,
            min_frequency=min_frequency,
            initial_alphabet=hf.pre_tokenizers.ByteLevel.alphabet(),
            show_progress=False,
        )
        pipeline = byte_level(hf.models.BPE())
        pipeline.train_from_iterator(texts, trainer=trainer)
        model = json.loads(pipeline.to_str())["model"]
        return cls(sorted(model["vocab"], key=model["vocab"].get), [(left, right) for left, right in model["merges"]])

    def encode(self, text: str) -> list[int]:
        ids: list[int] = self._encode(text).tolist()
        return ids

    def encode_batch(self, texts: Sequence[str]) -> list[Ints]:
        return [self._encode(text) for text in texts]

    def token_bytes(self) -> NDArray[np.int64]:
        return np.array([len(token) for token in self._bytes] + [0], dtype=np.int64)

    def _encode(self, text: str) -> Ints:
        chunks = [self._encode_chunk(chunk).astype(self._dtype) for chunk in chunks_of(text)]
        if len(chunks) == 1:
            return chunks[0]
        return np.concatenate(chunks)

    def _encode_chunk(self, text: str) -> Ints:
        if self._encoding is not None:
            ids: Ints = self._encoding.encode_to_numpy(text, disallowed_special=())
            return ids
        return np.array(self._fallback.encode(text, add_special_tokens=False).ids, dtype=np.int64)

    @functools.cached_property
    def _fallback(self) -> tokenizers.Tokenizer:
        vocab = {token: i for i, token in enumerate(self.tokens)}
        pipeline: tokenizers.Tokenizer = byte_level(library().models.BPE(vocab=vocab, merges=self.merges))
        return pipeline

    def _decode(self, ids: list[int]) -> str:
        return b"".join([self._bytes[token] for token in ids]).decode(errors="replace")

    def _state(self) -> dict[str, Any]:
        return {"tokens": self.tokens, "merges": [list(pair) for pair in self.merges]}

    @classmethod
    def from_state(cls, state: dict[str, Any]) -> BPETokenizer:
        return cls(texts(state["tokens"]), [(left, right) for left, right in state["merges"]])


def chunks_of(text: str, size: int = CHUNK_CHARACTERS) -> Iterator[str]:
    """A text in parts that can be encoded by themselves; longer than size only where nothing can be cut.

    >>> list(chunks_of("to be, or not", size=4))
    ['to be', ', or', ' not']
    """
    start = 0
    while len(text) - start > size and (border := BORDER.search(text, start + size)):
        yield text[start : border.start()]
        start = border.start()
    yield text[start:]


def _check(tokens: list[str], merges: list[tuple[str, str]]) -> None:
    """Raise ValueError unless every byte is a token and every merge makes one."""
    known = set(tokens)
    if len(known) != len(tokens):
        raise ValueError("a token stands in the vocabulary twice")
    if "" in known:
        raise ValueError("a token of no characters stands in the vocabulary")
    missing = [byte for character, byte in PRINTABLE_BYTES.items() if character not in known]
    if missing:
        raise ValueError(f"the vocabulary lacks {len(missing)} of the 256 bytes, e.g. 0x{missing[0]:02x}")
    for left, right in merges:
        if not {left, right, left + right} <= known:
            raise ValueError(f"the merge of {left!r} and {right!r} is not in the vocabulary")


def _ids_tell_the_merges(tokens: list[str], merges: list[tuple[str, str]]) -> bool:
    """Whether always joining the neighbours whose union has the lowest id is the same as following the merges.

    It is where the tokens are the bytes and then what each merge makes, in this order, and where each token, as a text
    by itself, becomes that one token. For then two neighbours whose union is a token can only be the pair of its merge:
    whatever joins inside a token's characters does so as if they stood alone, and there that pair is the last step.
    """
    if any(len(token) > 1 for token in tokens[:N_BYTES]) or tokens[N_BYTES:] != [a + b for a, b in merges]:
        return False
    ids = {token: i for i, token in enumerate(tokens)}
    pairs = [(ids[left], ids[right]) for left, right in merges]
    made = {pair: N_BYTES + i for i, pair in enumerate(pairs)}
    return all(max(pair) < token and _stay_whole(*pair, token, pairs, made) for pair, token in made.items())


def _stay_whole(
    left: int, right: int, limit: int, pairs: list[tuple[int, int]], made: dict[tuple[int, int], int]
) -> bool:
    """Whether two tokens side by side are still there when the merge `limit` is due: nothing joins across their border.

    It goes back in time: the younger of the two is undone, and the halves at the border must not join either while they
    last. The method is that of is_valid_token_pair in github/rust-gems, crates/bpe/src/byte_pair_encoding.rs.
    """
    while made.get((left, right), limit) >= limit:
        if max(left, right) < N_BYTES:
            return True
        if left > right:
            limit, left = left, pairs[left - N_BYTES][1]
        else:  # of equal ones the left one is made first
            limit, right = right + 1, pairs[right - N_BYTES][0]
    return False


def _encoding(pieces: list[bytes]) -> tiktoken.Encoding:
    # The special token is never allowed, so no text yields it; without any, tiktoken searches for it at each character.
    ranks = {piece: i for i, piece in enumerate(pieces)}
    return tiktoken.Encoding("lmexp", pat_str=PATTERN, mergeable_ranks=ranks, special_tokens={"<eos>": len(pieces)})
