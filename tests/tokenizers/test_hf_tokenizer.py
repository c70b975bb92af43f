"""Tokenizers of Hugging Face's library, read and written: the same ids as AutoTokenizer's."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from lmexp.errors import DataError
from lmexp.tokenizers import base, hf
from lmexp.tokenizers.base import Tokenizer
from lmexp.tokenizers.byte import ByteTokenizer
from lmexp.tokenizers.char import CharTokenizer
from lmexp.tokenizers.config import HFTokenizerConfig, SavedTokenizerConfig
from lmexp.tokenizers.hf import HFTokenizer
from lmexp.tokenizers.library import library
from lmexp.tokenizers.to_hf import same_tokens, write
from lmexp.tokenizers.word import WordTokenizer
from tests.hugging_face import tokenizer as bpe

transformers = pytest.importorskip("transformers")

TEXTS = ["the cat sat on the mat", "  two  spaces\n\nand lines\r\n", "été 漢字 🙂 x=1;", "", "<eos>", "a<unk>b"]
OURS: dict[str, Tokenizer] = {
    "byte": ByteTokenizer(),
    "char": CharTokenizer("abcdefghijklmnopqrstuvwxyz \n漢été🙂"),
    "bpe": bpe(),
}


def llama_like() -> dict[str, Any]:
    """What tokenizer.json holds of a tokenizer as Llama 2's: metaspace and bytes for what the vocabulary lacks."""
    lib = library()
    vocab = {"<unk>": 0, "<s>": 1, "</s>": 2, **{f"<0x{byte:02X}>": 3 + byte for byte in range(256)}}
    for letter in "▁abcdefghijklmnopqrstuvwxyz<>/":
        vocab[letter] = len(vocab)
    made = lib.Tokenizer(lib.models.BPE(vocab=vocab, merges=[], unk_token="<unk>", byte_fallback=True, fuse_unk=True))
    made.normalizer = lib.normalizers.Replace(" ", "▁")
    made.decoder = lib.decoders.Sequence(
        [lib.decoders.Replace("▁", " "), lib.decoders.ByteFallback(), lib.decoders.Fuse()]
    )
    made.add_special_tokens(["<unk>", "<s>", "</s>"])
    return dict(json.loads(made.to_str()))


@pytest.mark.parametrize("name", OURS)
def test_what_is_written_gives_autotokenizer_the_same_ids(name: str, tmp_path: Path) -> None:
    ours = OURS[name]
    assert write(ours, tmp_path)
    theirs = transformers.AutoTokenizer.from_pretrained(tmp_path)
    assert (len(theirs), theirs.eos_token_id) == (ours.vocab_size, ours.eos_id)
    read = HFTokenizerConfig(path=str(tmp_path)).train(())
    for text in TEXTS:
        ids = ours.encode(text)
        if not text.startswith("<") and "<unk>" not in text:
            assert theirs.encode(text, add_special_tokens=False) == ids, text
            assert theirs.decode(ids) == read.decode(ids)
        assert read.encode(text) == ids, text
        assert [a.tolist() for a in read.encode_with_bytes(text)] == [a.tolist() for a in ours.encode_with_bytes(text)]
    assert (read.vocab_size, read.eos_id) == (ours.vocab_size, ours.eos_id)
    assert read.decode(ours.encode("the cat")) == "the cat"


def test_words_have_no_counterpart(tmp_path: Path) -> None:
    assert not write(WordTokenizer(["a"]), tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_the_same_tokens_are_known_again(tmp_path: Path) -> None:
    assert same_tokens(tmp_path, OURS["bpe"]) is None
    for name, tokenizer in OURS.items():
        write(tokenizer, tmp_path)
        known = [other for other, one in OURS.items() if same_tokens(tmp_path, one)]
        assert known == [name]
        assert same_tokens(tmp_path, HFTokenizerConfig(path=str(tmp_path)).train(()))
        assert same_tokens(tmp_path, WordTokenizer(["a"])) is False
    assert same_tokens(tmp_path, SavedTokenizerConfig(path=str(tmp_path)).train(()))  # byte-level BPE, read as ours
    own = tmp_path / "own"
    own.mkdir()
    OURS["char"].save(own / "tokenizer.json")
    assert [same_tokens(own, one) for one in OURS.values()] == [False, True, False]


def test_byte_fallback_and_metaspace() -> None:
    tokenizer = HFTokenizer(llama_like(), "</s>")
    for text in ("the cat  sat", "été 漢字 🙂", " </s> <s>", "x"):
        ids, n_bytes = tokenizer.encode_with_bytes(text)
        assert tokenizer.eos_id not in ids
        assert tokenizer.decode(ids) == text
        assert n_bytes.sum() == len(text.encode())
        assert (n_bytes > 0).all()
    assert tokenizer.encode("é") == [3 + byte for byte in "é".encode()]


def test_lossy_tokenizers_cover_every_byte() -> None:
    lib = library()
    vocab = {"[UNK]": 0, "[SEP]": 1, "the": 2, "cat": 3, "##s": 4}
    made = lib.Tokenizer(lib.models.WordPiece(vocab=vocab, unk_token="[UNK]"))
    made.normalizer, made.pre_tokenizer = lib.normalizers.BertNormalizer(), lib.pre_tokenizers.BertPreTokenizer()
    tokenizer = HFTokenizer(json.loads(made.to_str()), "[SEP]")  # a word of its vocabulary, not an added token
    for text, expected in (
        (" The  CATS!", [2, 3, 4, 0]),
        ("   ", [0]),
        ("the [SEP] cat", [2, 0, 0, 0, 3]),
        ("", []),
    ):
        ids, n_bytes = tokenizer.encode_with_bytes(text)
        assert ids.tolist()[:1] == expected[:1]
        assert tokenizer.eos_id not in ids
        assert n_bytes.sum() == len(text.encode())
    assert tokenizer.encode(" The  CATS!") == [2, 3, 4, 0]
    assert [one.tolist() for one in tokenizer.encode_batch(["the", "  ", ""])] == [[2], [0], []]


def test_a_saved_one_needs_nothing_else(tmp_path: Path) -> None:
    tokenizer = HFTokenizer(llama_like(), "</s>")
    tokenizer.save(tmp_path / "tokenizer.json")
    loaded = base.load(tmp_path / "tokenizer.json")
    assert loaded.digest() == tokenizer.digest()
    assert loaded.encode("the cat") == tokenizer.encode("the cat")
    assert SavedTokenizerConfig(path=str(tmp_path)).train(()).digest() == tokenizer.digest()


def test_padding_and_truncation_of_the_file_are_left_out() -> None:
    state = llama_like()
    made = library().Tokenizer.from_str(json.dumps(state))
    made.enable_truncation(3)
    made.enable_padding(length=9)
    assert HFTokenizer(json.loads(made.to_str()), "</s>").encode("the cat") == HFTokenizer(state, "</s>").encode(
        "the cat"
    )


def folder_with(folder: Path, state: dict[str, Any], **settings: Any) -> str:
    folder.mkdir(exist_ok=True)
    (folder / "tokenizer.json").write_text(json.dumps(state))
    (folder / "tokenizer_config.json").write_text(json.dumps(settings))
    return str(folder)


def test_the_end_of_a_document_is_named_by_the_folder_or_typed(tmp_path: Path) -> None:
    plain = folder_with(tmp_path / "a", llama_like(), eos_token="</s>")
    as_object = folder_with(tmp_path / "b", llama_like(), eos_token={"content": "</s>", "lstrip": False})
    assert hf.load(plain).eos_id == hf.load(as_object).eos_id == 2
    assert hf.load(plain, eos="<s>").eos_id == 1
    with pytest.raises(DataError, match=r"tokenizer\.eos=<s: it has no token '<s'; did you mean <s>"):
        hf.load(plain, eos="<s")
    unnamed = folder_with(tmp_path / "c", llama_like())
    with pytest.raises(DataError, match=r"names an eos_token; say which token ends a document"):
        hf.load(unnamed)
    (tmp_path / "c" / "special_tokens_map.json").write_text('{"eos_token": "<s>"}')
    assert hf.load(unnamed).eos_id == 1


def test_files_that_are_no_tokenizer(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"tokenizer\.path is not set"):
        hf.load("")
    with pytest.raises(DataError, match=r"has no tokenizer\.json; where it has a tokenizer of an older format"):
        hf.load(str(tmp_path))
    ByteTokenizer().save(tmp_path / "tokenizer.json")
    with pytest.raises(DataError, match="lmexp made this tokenizer; read it with tokenizer=saved"):
        hf.load(str(tmp_path))
    for state, message in (
        ({}, "it has no model"),
        ({"model": {"type": "BPE", "vocab": {"a": 10**15}, "merges": []}}, "the tokenizers library can't read it"),
        ({"model": {"type": "Sorcery"}}, "the tokenizers library can't read it"),
        (llama_like() | {"added_tokens": 5}, "added_tokens is no list"),
        (llama_like(), "it has no token '<nothing>'"),
    ):
        with pytest.raises(DataError, match=message):
            hf.load(folder_with(tmp_path / "x", state, eos_token="<nothing>"))
        damaged = {"format": "lmexp.tokenizer", "version": 1, "kind": "hf", "eos": "<nothing>", "tokenizer": state}
        with pytest.raises(DataError, match="damaged hf tokenizer"):
            base.from_dict(damaged)


def test_ids_are_integers_that_a_cache_can_hold() -> None:
    (ids,) = HFTokenizer(llama_like(), "</s>").encode_batch(["the cat"])
    assert np.issubdtype(ids.dtype, np.integer)
