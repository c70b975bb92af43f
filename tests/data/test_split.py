import hashlib
import itertools
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from lmexp.data.cache import TokenCache, prepare
from lmexp.data.config import TextFilesConfig
from lmexp.data.split import CUT, SPLIT_NAMES, hash_homes, tail_borders, tail_homes
from lmexp.errors import DataError
from lmexp.tokenizers.config import ByteTokenizerConfig

Split = Callable[..., dict[str, list[str]]]


def texts(cache: TokenCache) -> dict[str, list[str]]:
    """The documents of each split of a cache of bytes."""
    found = {}
    for name, split in cache.splits.items():
        borders = split.document_starts.tolist()
        found[name] = [cache.tokenizer.decode(split.tokens[a : b - 1]) for a, b in itertools.pairwise(borders)]
    return found


@pytest.fixture
def split(write_pieces, prepare_pieces) -> Split:
    """split(texts, name of the corpus, given parts, **settings): the texts of each split."""

    def run(documents: list[str], name: str = "corpus", given: dict[str, list[str]] | None = None, **settings: object):
        shares = {"validation_fraction": 0.05, "test_fraction": 0.05, "unit_lines": 97}
        return texts(prepare_pieces(write_pieces(documents, name, **(given or {})), **(shares | settings)))

    return run


def home(splits: dict[str, list[str]]) -> dict[str, str]:
    return {text: name for name, texts in splits.items() for text in texts}


def test_hash_splits_whole_documents_in_about_the_shares_asked_for(split: Split) -> None:
    documents = [f"document {i}" for i in range(1500)]
    found = split(documents, validation_fraction=0.2, test_fraction=0.1)
    assert sorted(itertools.chain(*found.values())) == sorted(documents)
    assert [round(len(found[name]) / 1500, 1) for name in SPLIT_NAMES] == [0.7, 0.2, 0.1]


def test_hash_decides_by_the_first_53_bits_of_the_sha256(split: Split) -> None:
    documents = [f"document {i}" for i in range(300)]
    expected: dict[str, list[str]] = {name: [] for name in SPLIT_NAMES}
    for text in documents:
        point = (int(hashlib.sha256(text.encode()).hexdigest()[:16], 16) >> 11) / 2**53
        expected["test" if point < 0.15 else "validation" if point < 0.15 + 0.25 else "train"].append(text)
    assert split(documents, validation_fraction=0.25, test_fraction=0.15) == expected


def test_a_point_on_a_border_belongs_above_it() -> None:
    points = [0.25 - 2**-53, 0.25, 0.5 - 2**-53, 0.5]
    heads = [(int(point * 2**53) << 11).to_bytes(8, "big") + bytes(8) for point in points]
    digests = np.frombuffer(b"".join(heads), np.uint8).reshape(-1, 16)
    assert [SPLIT_NAMES[home] for home in hash_homes(digests, 0.25, 0.25)] == [
        "test",
        "validation",
        "validation",
        "train",
    ]


def test_hash_keeps_identical_documents_together_and_moves_none_when_some_are_added(split: Split) -> None:
    documents = [f"document {i // 2}" for i in range(200)]
    before = home(split(documents, "a"))
    after = home(split(["new 1", *documents, "new 2", "new 3"], "b"))
    assert all(after[text] == before[text] for text in documents)
    parts = split(documents, "a")
    assert not set(parts["train"]) & set(parts["validation"])


@pytest.mark.parametrize("n_documents", [1, 3, 7])
def test_tail_is_the_end_of_the_stream_of_characters(split: Split, n_documents: int) -> None:
    stream = "".join(np.random.default_rng(0).choice(list("abc\u00e9 "), 101))
    borders = np.linspace(0, 101, n_documents + 1).astype(int)
    documents = [stream[a:b] for a, b in itertools.pairwise(borders)]
    found = split(documents, split="tail", validation_fraction=0.1, test_fraction=0.2, unit_lines=2)
    assert {name: "".join(texts) for name, texts in found.items()} == {
        "train": stream[:70],
        "validation": stream[70:80],
        "test": stream[80:],
    }


def test_tail_agrees_with_walking_along_the_characters() -> None:
    rng = np.random.default_rng(0)
    for _ in range(200):
        lengths = rng.integers(1, 12, rng.integers(1, 12))
        validation, test = rng.choice([0, 0.1, 0.3, 0.45], 2)
        borders = tail_borders(int(lengths.sum()), validation, test)
        expected: dict[tuple[int, int], list[int]] = {}
        at = 0
        for document, length in enumerate(lengths.tolist()):
            for character in range(length):
                inside = sum(at >= border for border in borders[1:-1])
                expected.setdefault((document, inside), []).append(character)
                at += 1
        cut = int(rng.integers(0, len(lengths) + 1))  # the same in two chunks
        found: dict[tuple[int, int], list[int]] = {}
        for first, chunk in ((0, lengths[:cut]), (cut, lengths[cut:])):
            homes, pieces = tail_homes(chunk, int(lengths[:first].sum()), borders)
            for i, place in enumerate(homes.tolist()):
                if place != CUT:
                    found[first + i, place] = list(range(chunk[i]))
            found |= {(first + p.document, p.split): list(range(p.start, p.stop)) for p in pieces}
        assert found == expected


def test_tail_is_nanogpts_split_of_tinyshakespeare(shared_data: Path, tmp_path: Path) -> None:
    """Figures from nanoGPT's data/shakespeare_char/prepare.py."""
    path = shared_data / "tinyshakespeare" / "input.txt"
    config = TextFilesConfig(path=str(path), split="tail", validation_fraction=0.1, test_fraction=0.0)
    found = {k: "".join(v) for k, v in texts(prepare(config, ByteTokenizerConfig(), cache_root=tmp_path)).items()}
    assert {name: len(text) for name, text in found.items()} == {"train": 1_003_854, "validation": 111_540}
    assert found["train"] + found["validation"] == path.read_text(encoding="utf-8")


def test_a_fraction_of_zero_makes_no_split(split: Split) -> None:
    documents = [f"document {i}" for i in range(50)]
    for how in ("hash", "tail"):
        found = split(documents, split=how, validation_fraction=0.2, test_fraction=0.0)
        assert list(found) == ["train", "validation"]
        assert list(split(documents, split=how, validation_fraction=0.0, test_fraction=0.0)) == ["train"]


@pytest.mark.parametrize("how", ["hash", "tail"])
def test_given_splits_are_kept_whole_and_nothing_else_is_held_out_for_them(split: Split, how: str) -> None:
    documents = [f"document {i}" for i in range(100)]
    given = {"validation": ["document 1", "v 2", "v 3"], "train": ["t 1", "t 2"]}
    found = split(documents, given=given, split=how, validation_fraction=0.3, test_fraction=0.2)
    assert found["validation"] == given["validation"]
    rest = split(documents, "without", split=how, validation_fraction=0.0, test_fraction=0.2)
    assert found["train"] == [*rest["train"], "t 1", "t 2"]  # in the order of the files
    assert found["test"] == rest["test"]


def test_a_split_that_gets_nothing_is_an_error_with_the_fix(split: Split) -> None:
    with pytest.raises(DataError) as caught:
        split(["one document"])
    message = str(caught.value)
    assert "data.split=hash doesn't put the 1 document into validation (data.validation_fraction=0.05)" in message
    assert "use data.split=tail, more text, a larger data.validation_fraction or data.validation_fraction=0" in message
    with pytest.raises(DataError, match="into validation"):
        split(["short"], "b", split="tail")
    with pytest.raises(DataError, match=r"into train; make data\.validation_fraction"):
        split(["a"], "c", validation_fraction=0.999, test_fraction=0.0)
    with pytest.raises(DataError, match=r"validation has documents of its own, but none was found or kept"):
        split(["a", "b"], "d", given={"validation": ["too long"]}, max_characters=1)


def test_an_empty_corpus_is_an_error(split: Split) -> None:
    with pytest.raises(DataError, match=r"data\.path=.*: no text was found"):
        split([])
    with pytest.raises(
        DataError, match=r"no text was found; nothing in it is good(.|\n)*all\.jsonl, line 1: odd: it is"
    ):
        split([{"bad": "odd: it is"}], "b")
    with pytest.raises(DataError, match=r"no document is left \(2 short were dropped\)"):
        split(["a", "b"], "c", min_characters=10)
