"""Tokenizers from files: those that lmexp saved, and byte-level BPE of Hugging Face's tokenizers."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from lmexp.errors import DataError
from lmexp.paths import TOKENIZER_JSON, expanded
from lmexp.plugins import did_you_mean
from lmexp.tokenizers import base
from lmexp.tokenizers.base import Tokenizer


def load(given: str) -> Tokenizer:
    """The tokenizer of a file, or of the tokenizer.json in a folder. given: as in tokenizer.path."""
    if not given:
        raise DataError(
            f"tokenizer.path is not set; say which tokenizer, e.g. "
            f"tokenizer.path=outputs/<experiment>/<run id>/{TOKENIZER_JSON}"
        )
    path = expanded(given)
    if path.is_dir():
        if not (path / TOKENIZER_JSON).exists():
            raise DataError(
                f"tokenizer.path={given}: this folder has no {TOKENIZER_JSON}; expected a run, a token cache or a file"
            )
        path = path / TOKENIZER_JSON
    elif not path.exists():
        raise DataError(f"tokenizer.path={given}: no such file or folder{_near(path)}")
    state = base.read_json(path)
    if "format" not in state and isinstance(state.get("model"), dict):
        return from_hugging_face(state, where=str(path))
    return base.from_dict(state, where=str(path))


def from_hugging_face(state: dict[str, Any], where: str) -> Tokenizer:
    """The tokenizer of a file of Hugging Face's tokenizers, if it is byte-level BPE that splits text as GPT-2 does.

    Its special tokens are left out, since text never becomes one; the others keep their order, and <eos> is lmexp's
    own, the last id. GPT-2's own file so has the ids it always had, <|endoftext|> included.
    """
    from lmexp.tokenizers.bpe import BPETokenizer

    model = state["model"]
    if not isinstance(state.get("added_tokens") or [], list):
        raise DataError(f"{where}: damaged tokenizer (added_tokens is no list); get the file again")
    for key, found, fits, expected in _requirements(state):
        if not fits:
            raise DataError(
                f"{where}: {key} is {found!r}, expected {expected}; of Hugging Face's tokenizers only byte-level BPE "
                f"that splits text as GPT-2 does can be used; train one instead, tokenizer=bpe"
            )
    try:
        special = {token["content"] for token in state.get("added_tokens") or []}
        tokens = [token for token in sorted(model["vocab"], key=model["vocab"].get) if token not in special]
        merges = [pair.split(" ") if isinstance(pair, str) else pair for pair in model["merges"]]
        return BPETokenizer(tokens, [(left, right) for left, right in merges])
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        raise DataError(f"{where}: damaged tokenizer ({type(error).__name__}: {error}); get the file again") from error


def _requirements(state: dict[str, Any]) -> list[tuple[str, Any, bool, str]]:
    """Key of a Hugging Face file, its value, whether that is one lmexp's BPE can reproduce, and which is."""
    model = state["model"]
    split = state.get("pre_tokenizer")
    gpt2 = isinstance(split, dict) and (split.get("type"), split.get("add_prefix_space"), split.get("use_regex", True))
    ordinary = [
        t.get("content") for t in state.get("added_tokens") or [] if isinstance(t, dict) and not t.get("special")
    ]
    nothing = [
        (f"model.{key}", model.get(key), not model.get(key), "nothing")
        for key in ("dropout", "unk_token", "continuing_subword_prefix", "end_of_word_suffix", "byte_fallback")
    ]
    return [
        ("model.type", model.get("type"), model.get("type") == "BPE", "'BPE'"),
        ("normalizer", state.get("normalizer"), state.get("normalizer") is None, "null"),
        (
            "pre_tokenizer",
            split,
            gpt2 == ("ByteLevel", False, True),
            "{'type': 'ByteLevel', 'add_prefix_space': False, 'use_regex': True}",
        ),
        ("model.ignore_merges", model.get("ignore_merges"), not model.get("ignore_merges"), "false"),
        ("added_tokens that aren't special", ordinary, not ordinary, "none"),
        *nothing,
    ]


def _near(path: Path) -> str:
    parent = Path(os.path.abspath(path)).parent
    return did_you_mean(path.name, os.listdir(parent)) if parent.is_dir() and os.access(parent, os.R_OK) else ""
