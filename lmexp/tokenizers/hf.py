"""Tokenizers of Hugging Face models, whatever their algorithm: a tokenizer.json, run by the library that wrote it.

Text is text here: special tokens that are written out in it are encoded as their characters, and none is put around it.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from lmexp.errors import DataError
from lmexp.hub import folder_of
from lmexp.paths import TOKENIZER_JSON
from lmexp.plugins import did_you_mean
from lmexp.reading import read_object
from lmexp.tokenizers import base
from lmexp.tokenizers.base import Ints, Tokenizer
from lmexp.tokenizers.bpe import PRINTABLE_BYTES
from lmexp.tokenizers.library import library

TOKENIZER_CONFIG_JSON = "tokenizer_config.json"
SPECIAL_TOKENS_JSON = "special_tokens_map.json"
NEEDED = (TOKENIZER_JSON, TOKENIZER_CONFIG_JSON, SPECIAL_TOKENS_JSON)
"""Of a repository on the hub."""


class HFTokenizer(Tokenizer):
    """A tokenizer of the library `tokenizers`, with one of its tokens as <eos>.

    state: what its tokenizer.json holds; eos: the token that ends a document.
    """

    kind = "hf"

    def __init__(self, state: dict[str, Any], eos: str) -> None:
        self.state = {**state, "truncation": None, "padding": None}
        self.eos = eos
        self._library = _parsed(_with_special(self.state, eos))
        self._library.encode_special_tokens = True
        vocab = self._library.get_vocab(with_added_tokens=True)
        if eos not in vocab:
            raise ValueError(f"it has no token {eos!r}")
        self.eos_id = int(vocab[eos])
        self.vocab_size = max(vocab.values()) + 1
        self._n_bytes = np.zeros(self.vocab_size, dtype=np.int64)
        for token, number in vocab.items():  # of byte-level tokens; encode_with_bytes() sees whether they are
            known = all(character in PRINTABLE_BYTES for character in token)
            self._n_bytes[number] = len(token) if known else len(token.encode())
        unknown = state["model"].get("unk_token")
        self._unknown_id: int | None = vocab.get(unknown) if isinstance(unknown, str) else None

    def encode(self, text: str) -> list[int]:
        ids: list[int] = self._encode(text)[0].tolist()
        return ids

    def encode_batch(self, texts: Sequence[str]) -> list[Ints]:
        found = self._library.encode_batch_fast(list(texts), add_special_tokens=False)
        arrays = [np.array(one.ids, dtype=np.int64) for one in found]
        return [
            self._encode(text)[0] if (text and not len(ids)) or self.eos_id in ids else ids
            for text, ids in zip(texts, arrays, strict=True)
        ]

    def encode_with_bytes(self, text: str) -> tuple[Ints, Ints]:
        ids, ends = self._encode(text)
        by_token = self._n_bytes[ids]
        if by_token.sum() == len(text.encode()) and (by_token > 0).all():
            return ids, by_token
        return ids, _bytes_up_to(text, ends)

    def token_bytes(self) -> None:
        return None

    def _encode(self, text: str) -> tuple[Ints, list[int]]:
        """Token ids, and where in the text each ends."""
        found = self._library.encode(text, add_special_tokens=False)
        ids, ends = found.ids, [end for _, end in found.offsets]
        if self.eos_id in ids and len(self.eos) > 1 and self.eos in text:  # its vocabulary has it as a word of its own
            pieces = text.split(self.eos)
            return self._joined(
                [
                    self.eos[1:] * (i > 0) + piece + self.eos[:1] * (i + 1 < len(pieces))
                    for i, piece in enumerate(pieces)
                ]
            )
        if self.eos_id in ids:
            ids = [self._other_than_eos(token) for token in ids]
        if text and not ids and self._unknown_id is not None:  # so that its bytes belong to a token
            ids, ends = [self._unknown_id], [len(text)]
        return np.array(ids, dtype=np.int64), ends

    def _joined(self, pieces: list[str]) -> tuple[Ints, list[int]]:
        """The tokens of pieces, one after the other."""
        all_ids: list[Ints] = [np.zeros(0, dtype=np.int64)]
        all_ends: list[int] = []
        start = 0
        for piece in pieces:
            ids, ends = self._encode(piece)
            all_ids.append(ids)
            all_ends += [start + end for end in ends]
            start += len(piece)
        return np.concatenate(all_ids), all_ends

    def _other_than_eos(self, token: int) -> int:
        """The token, or <unk> in place of an <eos> that stands for a piece of text."""
        if token != self.eos_id:
            return token
        if self._unknown_id is None or self._unknown_id == self.eos_id:
            raise DataError(
                f"the tokenizer uses {self.eos!r} for a piece of text, so it can't end documents too; choose another "
                f"token with tokenizer.eos=..."
            )
        return self._unknown_id

    def _decode(self, ids: list[int]) -> str:
        text: str = self._library.decode(ids, skip_special_tokens=False)
        return text

    def _state(self) -> dict[str, Any]:
        return {"eos": self.eos, "tokenizer": self.state}

    @classmethod
    def from_state(cls, state: dict[str, Any]) -> HFTokenizer:
        if not isinstance(state["tokenizer"]["model"], dict) or not isinstance(state["eos"], str):
            raise ValueError("expected the tokenizer's model and its <eos>")
        return cls(state["tokenizer"], state["eos"])


def load(given: str, *, revision: str | None = None, eos: str | None = None) -> HFTokenizer:
    """The tokenizer of a Hugging Face folder or repository. given: as in tokenizer.path."""
    if not given:
        raise DataError("tokenizer.path is not set; say which model's, e.g. tokenizer.path=FOLDER")
    where = f"tokenizer.path={given}"
    folder = folder_of("tokenizer.path", given, revision, NEEDED, DataError)
    if not (folder / TOKENIZER_JSON).exists():
        raise DataError(
            f"{where}: this folder has no {TOKENIZER_JSON}; where it has a tokenizer of an older format, convert it: "
            f"AutoTokenizer.from_pretrained({given!r}).save_pretrained(NEW_FOLDER)"
        )
    state = base.read_json(folder / TOKENIZER_JSON)
    if "format" in state:
        raise DataError(f"{where}: lmexp made this tokenizer; read it with tokenizer=saved {where}")
    if not isinstance(state.get("model"), dict):
        raise DataError(
            f"{folder / TOKENIZER_JSON}: expected a tokenizer of Hugging Face's tokenizers; it has no model"
        )
    try:
        return HFTokenizer(state, eos if eos is not None else _named_eos(folder, where))
    except ValueError as error:
        if eos is None:
            raise DataError(f"{folder / TOKENIZER_JSON}: {error}") from None
        vocab = _parsed(state).get_vocab(with_added_tokens=True)
        raise DataError(f"tokenizer.eos={eos}: {error}{did_you_mean(eos, vocab)}") from None


def _named_eos(folder: Path, where: str) -> str:
    """The <eos> that the files beside tokenizer.json name."""
    for name in (TOKENIZER_CONFIG_JSON, SPECIAL_TOKENS_JSON):
        try:
            token = read_object(folder / name, DataError, follow=True).get("eos_token")
        except FileNotFoundError:
            continue
        content = token.get("content") if isinstance(token, dict) else token
        if isinstance(content, str) and content:
            return content
    raise DataError(
        f"{where}: neither {TOKENIZER_CONFIG_JSON} nor {SPECIAL_TOKENS_JSON} names an eos_token; say which token ends "
        f"a document, e.g. tokenizer.eos='</s>'"
    )


def _parsed(state: dict[str, Any]) -> Any:
    """The library's tokenizer; ValueError where it can't read it."""
    try:
        return library().Tokenizer.from_str(json.dumps(state))
    except Exception as error:  # of no kind of its own
        raise ValueError(f"the tokenizers library can't read it ({' '.join(str(error).split())[:200]})") from None


def _with_special(state: dict[str, Any], eos: str) -> dict[str, Any]:
    """state with <eos> as a special token, so that text never becomes it."""
    added = state.get("added_tokens") or []
    if not isinstance(added, list) or not all(isinstance(token, dict) for token in added):
        raise ValueError("added_tokens is no list of tokens")
    marked = [{**token, "special": True} if token.get("content") == eos else token for token in added]
    return {**state, "added_tokens": marked}


def _bytes_up_to(text: str, ends: list[int]) -> Ints:
    """Bytes that each token covers: up to its end, from where the one before ended; the last one takes what is left.

    Tokens that share a character share its bytes.
    """
    reached = np.maximum.accumulate(np.array([*ends[:-1], len(text)][: len(ends)], dtype=np.int64))
    codes = np.frombuffer(text.encode("utf-32-le", errors="surrogatepass"), dtype="<u4")
    widths = 1 + (codes > 0x7F).astype(np.int64) + (codes > 0x7FF) + (codes > 0xFFFF)
    before = np.concatenate([[0], np.cumsum(widths)])[reached]  # bytes up to each token's end
    counts: Ints = np.diff(before, prepend=0)
    for start in np.flatnonzero(counts > 0):
        stop = start + 1
        while stop < len(counts) and counts[stop] == 0:
            stop += 1
        shared, rest = divmod(int(counts[start]), int(stop - start))
        counts[start:stop] = shared
        counts[start : start + rest] += 1
    return counts
