import itertools
from pathlib import Path

import numpy as np
import pytest

from lmexp.data.config import CorpusConfig, TextFilesConfig
from lmexp.data.split import SPLIT_NAMES, SplitCorpus
from lmexp.errors import DataError


def split(folder: Path, texts: list[str], **settings: object) -> dict[str, list[str]]:
    """The texts of each split of a corpus of one file a text."""
    folder.mkdir(exist_ok=True)
    for i, text in enumerate(texts):
        (folder / f"{i:05}.txt").write_text(text)
    config = TextFilesConfig(path=str(folder), **settings)
    corpus = SplitCorpus(config.documents(), config)
    found = {name: list(corpus.texts(name)) for name in corpus.names}
    assert {name: len(texts) for name, texts in found.items()} == {n: corpus.n_documents(n) for n in corpus.names}
    return found


def home(splits: dict[str, list[str]]) -> dict[str, str]:
    return {text: name for name, texts in splits.items() for text in texts}


def test_hash_splits_whole_documents_in_about_the_shares_asked_for(tmp_path: Path) -> None:
    texts = [f"document {i}" for i in range(1500)]
    found = split(tmp_path / "a", texts, validation_fraction=0.2, test_fraction=0.1)
    assert sorted(itertools.chain(*found.values())) == sorted(texts)
    assert [round(len(found[name]) / 1500, 1) for name in SPLIT_NAMES] == [0.7, 0.2, 0.1]


def test_hash_keeps_identical_documents_together_and_moves_none_when_some_are_added(tmp_path: Path) -> None:
    texts = [f"document {i // 2}" for i in range(200)]
    before = home(split(tmp_path / "a", texts))
    after = home(split(tmp_path / "b", ["new 1", *texts, "new 2", "new 3"]))
    assert all(after[text] == before[text] for text in texts)
    parts = split(tmp_path / "a", texts)
    assert not set(parts["train"]) & set(parts["validation"])


@pytest.mark.parametrize("n_documents", [1, 3, 7])
def test_tail_is_the_end_of_the_stream_of_characters(tmp_path: Path, n_documents: int) -> None:
    stream = "".join(np.random.default_rng(0).choice(list("abc\u00e9 "), 101))
    borders = np.linspace(0, 101, n_documents + 1).astype(int)
    texts = [stream[a:b] for a, b in itertools.pairwise(borders)]
    found = split(tmp_path / "a", texts, split="tail", validation_fraction=0.1, test_fraction=0.2)
    assert {name: "".join(texts) for name, texts in found.items()} == {
        "train": stream[:70],
        "validation": stream[70:80],
        "test": stream[80:],
    }


def test_tail_is_nanogpts_split_of_tinyshakespeare(shared_data: Path) -> None:
    """Figures from nanoGPT's data/shakespeare_char/prepare.py."""
    path = shared_data / "tinyshakespeare" / "input.txt"
    config = TextFilesConfig(path=str(path), split="tail", validation_fraction=0.1, test_fraction=0.0)
    corpus = SplitCorpus(config.documents(), config)
    texts = {name: "".join(corpus.texts(name)) for name in corpus.names}
    assert {name: len(text) for name, text in texts.items()} == {"train": 1_003_854, "validation": 111_540}
    assert texts["train"] + texts["validation"] == path.read_text(encoding="utf-8")


def test_a_fraction_of_zero_makes_no_split(tmp_path: Path) -> None:
    texts = [f"document {i}" for i in range(50)]
    for how in ("hash", "tail"):
        found = split(tmp_path / "a", texts, split=how, validation_fraction=0.2, test_fraction=0)
        assert list(found) == ["train", "validation"]
        assert list(split(tmp_path / "a", texts, split=how, validation_fraction=0, test_fraction=0)) == ["train"]


def test_a_split_that_gets_nothing_is_an_error_with_the_fix(tmp_path: Path) -> None:
    with pytest.raises(DataError) as caught:
        split(tmp_path / "a", ["one document"])
    message = str(caught.value)
    assert "data.split=hash doesn't put the 1 document into validation (data.validation_fraction=0.05)" in message
    assert "use data.split=tail, more text, a larger data.validation_fraction or data.validation_fraction=0" in message
    with pytest.raises(DataError, match="into validation"):
        split(tmp_path / "b", ["short"], split="tail")
    with pytest.raises(DataError, match=r"into train; make data\.validation_fraction"):
        split(tmp_path / "c", ["a"], validation_fraction=0.999, test_fraction=0)


def test_an_empty_corpus_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"data\.path=.*: no text was found"):
        split(tmp_path / "a", ["", " \n"])


def test_a_corpus_that_changes_while_it_is_read_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text("some text of a file")
    config: CorpusConfig = TextFilesConfig(path=str(tmp_path), split="tail", test_fraction=0.2)
    corpus = SplitCorpus(config.documents(), config)
    (tmp_path / "a.txt").write_text("some text of a File")
    with pytest.raises(DataError, match="changed while they were read"):
        list(corpus.texts("train"))
