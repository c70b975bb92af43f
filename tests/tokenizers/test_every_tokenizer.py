"""What holds for every tokenizer."""

import json

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lmexp.errors import ConfigError, DataError
from lmexp.tokenizers import base
from lmexp.tokenizers.base import Tokenizer
from lmexp.tokenizers.config import (
    BPETokenizerConfig,
    ByteTokenizerConfig,
    CharTokenizerConfig,
    SavedTokenizerConfig,
    TokenizerConfig,
    WordTokenizerConfig,
)
from lmexp.tokenizers.hf import HFTokenizer
from lmexp.tokenizers.to_hf import to_hugging_face

TEXTS = [
    "The cat sat on the mat, and the dog sat by the door.",
    "def f(x):\n    return x + 1  # naïve 日本語 🙂\n",
] * 3
CONFIGS = {
    "byte": ByteTokenizerConfig(),
    "char": CharTokenizerConfig(),
    "word": WordTokenizerConfig(),
    "word, lower case": WordTokenizerConfig(min_frequency=1, lowercase=True),
    "bpe": BPETokenizerConfig(vocab_size=300),
}
TOKENIZERS = {name: config.train(TEXTS) for name, config in CONFIGS.items()}
TOKENIZERS["hf"] = HFTokenizer(to_hugging_face(TOKENIZERS["bpe"]) or {}, "<eos>")
TOKENIZERS["hf, words"] = HFTokenizer(to_hugging_face(TOKENIZERS["char"]) or {}, "<eos>")
every_tokenizer = pytest.mark.parametrize("tokenizer", TOKENIZERS.values(), ids=TOKENIZERS.keys())


@every_tokenizer
@given(text=st.text())
@settings(deadline=None, max_examples=60)
def test_bytes_of_the_tokens_sum_to_the_bytes_of_the_text(tokenizer: Tokenizer, text: str) -> None:
    ids, n_bytes = tokenizer.encode_with_bytes(text)
    assert ids.tolist() == tokenizer.encode(text) == tokenizer.encode_batch([text])[0].tolist()
    assert len(ids) == len(n_bytes)
    assert n_bytes.sum() == len(text.encode())
    assert (n_bytes > 0).all()


@pytest.mark.parametrize("kind", ["byte", "bpe", "hf"])
@given(text=st.text())
@settings(deadline=None, max_examples=150)
def test_byte_level_tokenizers_give_every_text_back(kind: str, text: str) -> None:
    assert TOKENIZERS[kind].decode(TOKENIZERS[kind].encode(text)) == text


@given(text=st.text(alphabet="".join(TEXTS)))
@settings(deadline=None)
def test_char_gives_back_every_text_of_its_alphabet(text: str) -> None:
    assert TOKENIZERS["char"].decode(TOKENIZERS["char"].encode(text)) == text


@every_tokenizer
@given(text=st.text() | st.sampled_from(["<eos>", "a <eos><eos> b", "<unk>", "<|endoftext|>"]))
@settings(deadline=None, max_examples=60)
def test_text_never_becomes_the_end_of_a_document(tokenizer: Tokenizer, text: str) -> None:
    ids = tokenizer.encode(text)
    assert tokenizer.eos_id not in ids
    assert all(0 <= token < tokenizer.vocab_size for token in ids)


@every_tokenizer
def test_eos_decodes_to_nothing_and_has_no_bytes(tokenizer: Tokenizer) -> None:
    ids = tokenizer.encode("the cat")
    assert tokenizer.decode([*ids, tokenizer.eos_id]) == tokenizer.decode(ids) == "the cat"
    table = tokenizer.token_bytes()
    if table is not None:
        assert table.shape == (tokenizer.vocab_size,)
        assert table[tokenizer.eos_id] == 0


@every_tokenizer
def test_batches_equal_single_texts(tokenizer: Tokenizer) -> None:
    batch = tokenizer.encode_batch([*TEXTS, ""])
    assert [ids.tolist() for ids in batch] == [tokenizer.encode(text) for text in [*TEXTS, ""]]
    assert all(np.issubdtype(ids.dtype, np.integer) for ids in batch)


@every_tokenizer
def test_a_saved_tokenizer_is_the_same(tokenizer: Tokenizer, tmp_path) -> None:
    tokenizer.save(tmp_path / "tokenizer.json")
    loaded = base.load(tmp_path / "tokenizer.json")
    assert type(loaded) is type(tokenizer)
    assert (loaded.vocab_size, loaded.eos_id) == (tokenizer.vocab_size, tokenizer.eos_id)
    assert loaded.to_dict() == tokenizer.to_dict()
    for text in [*TEXTS, "unseen: ÿ Ω"]:
        assert loaded.encode(text) == tokenizer.encode(text)
        assert loaded.decode(loaded.encode(text)) == tokenizer.decode(tokenizer.encode(text))


@pytest.mark.parametrize("name", CONFIGS)
def test_training_twice_gives_the_same_tokenizer(name: str) -> None:
    assert CONFIGS[name].train(iter(TEXTS)).to_dict() == TOKENIZERS[name].to_dict()


@every_tokenizer
def test_ids_outside_the_vocabulary_are_refused(tokenizer: Tokenizer) -> None:
    for wrong in (-1, tokenizer.vocab_size):
        with pytest.raises(ValueError, match=f"token {wrong} is outside the vocabulary"):
            tokenizer.decode([wrong])


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"format": "other"}, "expected format 'lmexp.tokenizer' version 1, got 'other' version 1"),
        ({"version": 2}, "got 'lmexp.tokenizer' version 2"),
        ({"kind": "sorcery"}, "unknown kind of tokenizer 'sorcery'; expected one of byte, char, word, bpe, hf"),
        ({"alphabet": None}, "damaged char tokenizer"),
    ],
)
def test_unknown_files_are_refused(change, message, tmp_path) -> None:
    path = tmp_path / "tokenizer.json"
    path.write_text(json.dumps(TOKENIZERS["char"].to_dict() | change))
    with pytest.raises(DataError) as caught:
        base.load(path)
    assert message in str(caught.value)
    assert str(path) in str(caught.value)


@pytest.mark.parametrize(("content", "message"), [(None, "no such file"), ("{", "not JSON"), ("[]", "got a list")])
def test_files_that_are_no_tokenizer_are_refused(content, message, tmp_path) -> None:
    path = tmp_path / "tokenizer.json"
    if content is not None:
        path.write_text(content)
    with pytest.raises(DataError, match=message):
        base.load(path)


def test_a_users_tokenizer_can_be_loaded() -> None:
    from lmexp.tokenizers.byte import ByteTokenizer

    class MyTokenizer(ByteTokenizer):
        kind = "mine"

    assert type(base.from_dict(MyTokenizer().to_dict())) is MyTokenizer


@every_tokenizer
def test_the_digest_is_of_the_content(tokenizer: Tokenizer, tmp_path) -> None:
    reordered = dict(reversed(tokenizer.to_dict().items()))
    (tmp_path / "tokenizer.json").write_text(json.dumps(reordered, indent=1))
    assert base.load(tmp_path / "tokenizer.json").digest() == tokenizer.digest()
    others = [other.digest() for other in TOKENIZERS.values() if other is not tokenizer]
    assert tokenizer.digest() not in others


def test_identities_tell_settings_apart() -> None:
    configs = [*CONFIGS.values(), BPETokenizerConfig(vocab_size=300, train_bytes=7)]
    identities = [json.dumps(config.identity(), sort_keys=True) for config in configs]
    assert len(set(identities)) == len(configs)
    assert BPETokenizerConfig(vocab_size=300).identity() == CONFIGS["bpe"].identity()


@pytest.mark.parametrize(
    ("config", "expected"),
    [
        (ByteTokenizerConfig(), 0),
        (SavedTokenizerConfig(path="any"), 0),
        (BPETokenizerConfig(), 100_000_000),
        (BPETokenizerConfig(train_bytes=5), 5),
        (CharTokenizerConfig(), None),
        (WordTokenizerConfig(), None),
        (TokenizerConfig(kind="mine"), None),
    ],
)
def test_how_much_text_training_wants(config: TokenizerConfig, expected: int | None) -> None:
    assert config.text_bytes() == expected


def test_a_folder_is_no_tokenizer_file(tmp_path) -> None:
    with pytest.raises(DataError, match="it is a folder; expected a file"):
        base.load(tmp_path)


def test_wrong_settings_name_the_option() -> None:
    with pytest.raises(ConfigError, match=r"tokenizer\.train_bytes is 0; expected at least 1"):
        BPETokenizerConfig(train_bytes=0)
    with pytest.raises(ConfigError, match=r"tokenizer\.vocab_size is 256; expected at least 257"):
        BPETokenizerConfig(vocab_size=256)
    for config in (BPETokenizerConfig, WordTokenizerConfig):
        with pytest.raises(ConfigError, match=r"tokenizer\.min_frequency is 0; expected at least 1"):
            config(min_frequency=0)
