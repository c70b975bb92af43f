"""Our tokenizers as tokenizer.json of Hugging Face's library, and whether two tokenizers give a model the same ids."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from lmexp.errors import DataError
from lmexp.files import write_atomically
from lmexp.paths import TOKENIZER_JSON
from lmexp.tokenizers import base, bpe, saved
from lmexp.tokenizers.base import Tokenizer
from lmexp.tokenizers.bpe import PRINTABLE_BYTES, BPETokenizer
from lmexp.tokenizers.byte import ByteTokenizer
from lmexp.tokenizers.char import CharTokenizer
from lmexp.tokenizers.hf import TOKENIZER_CONFIG_JSON, HFTokenizer
from lmexp.tokenizers.library import byte_level, library

EOS, UNKNOWN = "<eos>", "<unk>"
IDS_DEPEND_ON = ("model", "normalizer", "pre_tokenizer", "added_tokens")
"""Parts of a tokenizer.json."""


def to_hugging_face(tokenizer: Tokenizer) -> dict[str, Any] | None:
    """What a tokenizer.json of Hugging Face's library holds for the same ids; None where it can't express them.

    Other than ours, that library takes "<eos>" in a text for the end of a document.
    """
    if isinstance(tokenizer, HFTokenizer):
        return {**tokenizer.state, "post_processor": None}  # as lmexp encodes: nothing is put around a text
    hf = library()
    if isinstance(tokenizer, BPETokenizer | ByteTokenizer):
        tokens = tokenizer.tokens if isinstance(tokenizer, BPETokenizer) else _byte_tokens()
        merges = tokenizer.merges if isinstance(tokenizer, BPETokenizer) else []
        pipeline = byte_level(hf.models.BPE(vocab={token: i for i, token in enumerate(tokens)}, merges=merges))
        pipeline.decoder = hf.decoders.ByteLevel()
        pipeline.add_special_tokens([EOS])
    elif isinstance(tokenizer, CharTokenizer):
        vocab = {token: i for i, token in enumerate([EOS, UNKNOWN, *tokenizer.alphabet])}
        pipeline = hf.Tokenizer(hf.models.WordLevel(vocab=vocab, unk_token=UNKNOWN))
        pipeline.pre_tokenizer = hf.pre_tokenizers.Split(hf.Regex("(?m)."), "isolated")  # m: also line breaks
        pipeline.decoder = hf.decoders.Fuse()
        pipeline.add_special_tokens([EOS, UNKNOWN])
    else:
        return None
    state: dict[str, Any] = json.loads(pipeline.to_str())
    return state


def write(tokenizer: Tokenizer, folder: Path) -> bool:
    """Write tokenizer.json and tokenizer_config.json, for AutoTokenizer; False where they can't express it."""
    state = to_hugging_face(tokenizer)
    if state is None:
        return False
    eos = tokenizer.eos if isinstance(tokenizer, HFTokenizer) else EOS
    settings: dict[str, Any] = {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "clean_up_tokenization_spaces": False,
        "eos_token": eos,
        "bos_token": eos,
    }
    if isinstance(tokenizer, CharTokenizer):
        settings["unk_token"] = UNKNOWN
    write_atomically(folder / TOKENIZER_JSON, json.dumps(state, ensure_ascii=False))
    write_atomically(folder / TOKENIZER_CONFIG_JSON, json.dumps(settings, indent=2, ensure_ascii=False) + "\n")
    return True


def same_tokens(folder: Path, tokenizer: Tokenizer) -> bool | None:
    """Whether the tokenizer.json in a model's folder gives each text the ids that tokenizer gives it; None without one.

    Special tokens of the file that the tokenizer leaves out don't count: no text becomes one.
    """
    if not (folder / TOKENIZER_JSON).exists():
        return None
    state = base.read_json(folder / TOKENIZER_JSON)
    if "format" in state:
        return base.from_dict(state, str(folder / TOKENIZER_JSON)).digest() == tokenizer.digest()
    ours = to_hugging_face(tokenizer)
    if ours is not None and all(_plain(ours).get(part) == _plain(state).get(part) for part in IDS_DEPEND_ON):
        return True
    return isinstance(tokenizer, BPETokenizer) and _same_merges(state, tokenizer, str(folder / TOKENIZER_JSON))


def _same_merges(state: dict[str, Any], tokenizer: BPETokenizer, where: str) -> bool:
    """Whether a file of byte-level BPE has these tokens, under these ids, and these merges."""
    try:
        read = saved.from_hugging_face(state, where)
    except DataError:
        return False
    vocab = state["model"]["vocab"]
    same_ids = all(vocab.get(token) == i for i, token in enumerate(tokenizer.tokens))
    return same_ids and isinstance(read, bpe.BPETokenizer) and read.digest() == tokenizer.digest()


def _plain(state: dict[str, Any]) -> dict[str, Any]:
    """state as the library writes it, which differs from what an older one wrote; as it is where it can't be read."""
    try:
        plain: dict[str, Any] = json.loads(library().Tokenizer.from_str(json.dumps(state)).to_str())
    except Exception:  # of no kind of its own; whoever uses the file says what is wrong with it
        return state
    return plain


def _byte_tokens() -> list[str]:
    """The printable character of each byte, by byte."""
    return [character for character, _ in sorted(PRINTABLE_BYTES.items(), key=lambda pair: pair[1])]
