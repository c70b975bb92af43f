import json
from pathlib import Path
from typing import Any

import pytest
import tokenizers
from tokenizers import models, normalizers, pre_tokenizers, processors, trainers

from lmexp.errors import DataError
from lmexp.tokenizers.base import Tokenizer
from lmexp.tokenizers.bpe import BPETokenizer
from lmexp.tokenizers.byte import ByteTokenizer
from lmexp.tokenizers.char import CharTokenizer
from lmexp.tokenizers.config import SavedTokenizerConfig
from lmexp.tokenizers.word import WordTokenizer

TEXTS = ["low lower lowest newer newest wider widest " * 5, "naïve 日本語 🙂 " * 5]
SAVED = [
    ByteTokenizer(),
    CharTokenizer("abc"),
    WordTokenizer(["low", "new"], lowercase=True),
    BPETokenizer.train(TEXTS, vocab_size=300, min_frequency=2),
]


def load(path: Path | str) -> Tokenizer:
    return SavedTokenizerConfig(path=str(path)).train(["this text isn't read"])


@pytest.mark.parametrize("tokenizer", SAVED, ids=lambda tokenizer: tokenizer.kind)
def test_a_tokenizer_is_itself_wherever_it_was_saved(tokenizer: Tokenizer, tmp_path: Path) -> None:
    (tmp_path / "run").mkdir()
    tokenizer.save(tmp_path / "run" / "tokenizer.json")
    tokenizer.save(tmp_path / "mine.json")
    paths = [tmp_path / "run", tmp_path / "run" / "tokenizer.json", tmp_path / "mine.json"]
    for path in paths:
        assert type(load(path)) is type(tokenizer)
        assert load(path).to_dict() == tokenizer.to_dict()
    identities = [SavedTokenizerConfig(path=str(path)).identity() for path in paths]
    assert identities == [{"kind": "saved", "sha256": tokenizer.digest()}] * 3


def test_another_tokenizer_has_another_identity(tmp_path: Path) -> None:
    identities = []
    for i, tokenizer in enumerate(SAVED):
        tokenizer.save(tmp_path / f"{i}.json")
        identities.append(SavedTokenizerConfig(path=str(tmp_path / f"{i}.json")).identity()["sha256"])
    assert len(set(identities)) == len(SAVED)


@pytest.mark.parametrize(
    ("path", "message"),
    [
        ("", "tokenizer.path is not set; say which tokenizer, e.g. tokenizer.path=outputs/"),
        ("tokeniser.json", "no such file or folder; did you mean tokenizer.json?"),
        ("nowhere/at/all", "no such file or folder"),
        ("empty", "this folder has no tokenizer.json; expected a run, a token cache or a file"),
        ("run.json", "expected format 'lmexp.tokenizer' version 1, got 'lmexp.run' version 1"),
        ("text.json", "not JSON (Expecting value"),
    ],
)
def test_a_wrong_path_is_refused(path: str, message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path("empty").mkdir()
    Path("tokenizer.json").write_text("{}")
    Path("run.json").write_text('{"format": "lmexp.run", "version": 1}')
    Path("text.json").write_text("once")
    with pytest.raises(DataError) as caught:
        load(path)
    assert message in str(caught.value)


def hugging_face(**changes: Any) -> tokenizers.Tokenizer:
    """A tokenizer as its users train them."""
    library = tokenizers.Tokenizer(models.BPE())
    library.pre_tokenizer = changes.get("pre_tokenizer", pre_tokenizers.ByteLevel(add_prefix_space=False))
    library.post_processor = processors.ByteLevel(trim_offsets=False)
    if "normalizer" in changes:
        library.normalizer = changes["normalizer"]
    trainer = trainers.BpeTrainer(
        vocab_size=320,
        special_tokens=changes.get("special_tokens", []),
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    library.train_from_iterator(TEXTS, trainer=trainer)
    library.add_special_tokens(changes.get("later_special_tokens", []))
    library.add_tokens(changes.get("added_tokens", []))
    return library


UNSEEN = [*TEXTS, "the lowest\n\n  newt's 123 日本", "<|endoftext|> <s>", ""]


def test_a_hugging_face_file_keeps_its_ids(tmp_path: Path) -> None:
    library = hugging_face(later_special_tokens=["<|endoftext|>"])
    library.save(str(tmp_path / "tokenizer.json"))
    tokenizer = load(tmp_path)
    assert tokenizer.eos_id == library.token_to_id("<|endoftext|>")
    assert tokenizer.vocab_size == library.get_vocab_size()
    for text in UNSEEN[:3]:
        assert tokenizer.encode(text) == library.encode(text, add_special_tokens=False).ids
    assert tokenizer.decode(tokenizer.encode(UNSEEN[3])) == UNSEEN[3]


def test_special_tokens_before_the_others_are_left_out(tmp_path: Path) -> None:
    library = hugging_face(special_tokens=["<s>", "</s>"])
    library.save(str(tmp_path / "tokenizer.json"))
    tokenizer = load(tmp_path)
    assert tokenizer.eos_id == library.get_vocab_size() - 2
    for text in UNSEEN[:3]:
        ids = library.encode(text, add_special_tokens=False).ids
        assert tokenizer.encode(text) == [token - 2 for token in ids]


def test_merges_may_be_written_as_in_older_files(tmp_path: Path) -> None:
    state = json.loads(hugging_face().to_str())
    expected = BPETokenizer.train(TEXTS, vocab_size=321, min_frequency=0).to_dict()
    (tmp_path / "new.json").write_text(json.dumps(state))
    state["model"]["merges"] = [" ".join(pair) for pair in state["model"]["merges"]]
    (tmp_path / "old.json").write_text(json.dumps(state))
    assert load(tmp_path / "new.json").to_dict() == load(tmp_path / "old.json").to_dict() == expected


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"normalizer": normalizers.NFC()}, "normalizer is {'type': 'NFC'}, expected null"),
        ({"pre_tokenizer": pre_tokenizers.ByteLevel(add_prefix_space=True)}, "pre_tokenizer is {'type': 'ByteLevel'"),
        ({"pre_tokenizer": pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)}, "pre_tokenizer is"),
        ({"pre_tokenizer": pre_tokenizers.Whitespace()}, "pre_tokenizer is {'type': 'Whitespace'}"),
        ({"added_tokens": ["<call>"]}, "added_tokens that aren't special is ['<call>'], expected none"),
    ],
)
def test_other_tokenizers_of_hugging_face_are_refused(changes: dict[str, Any], message: str, tmp_path: Path) -> None:
    hugging_face(**changes).save(str(tmp_path / "tokenizer.json"))
    with pytest.raises(DataError) as caught:
        load(tmp_path)
    assert message in str(caught.value)
    assert "train one instead, tokenizer=bpe" in str(caught.value)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"type": "WordPiece"}, "model.type is 'WordPiece', expected 'BPE'"),
        ({"dropout": 0.1}, "model.dropout is 0.1, expected nothing"),
        ({"ignore_merges": True}, "model.ignore_merges is True, expected false"),
        ({"byte_fallback": True}, "model.byte_fallback is True"),
        ({"vocab": {"a": 0}}, "damaged tokenizer (ValueError: the vocabulary lacks 255 of the 256 bytes"),
        ({"vocab": None}, "damaged tokenizer"),
        ({"merges": [["a", "b", "c"]]}, "damaged tokenizer"),
    ],
)
def test_models_that_lmexp_has_not_are_refused(changes: dict[str, Any], message: str, tmp_path: Path) -> None:
    state = json.loads(hugging_face().to_str())
    state["model"] |= changes
    (tmp_path / "tokenizer.json").write_text(json.dumps(state))
    with pytest.raises(DataError) as caught:
        load(tmp_path)
    assert message in str(caught.value)
