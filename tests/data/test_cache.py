import itertools
import json
import shutil
from pathlib import Path

import numpy as np
import pytest

from lmexp.data import building, writing
from lmexp.data.cache import SourceRange, TokenCache, open_prepared, prepare
from lmexp.data.config import JsonLinesConfig, MixtureConfig, TextFilesConfig
from lmexp.data.progress import Progress
from lmexp.errors import DataError
from lmexp.tokenizers.config import (
    BPETokenizerConfig,
    ByteTokenizerConfig,
    CharTokenizerConfig,
    WordTokenizerConfig,
)

TOKENIZERS = [
    ByteTokenizerConfig(),
    CharTokenizerConfig(),
    WordTokenizerConfig(),
    BPETokenizerConfig(vocab_size=270),
]
every_tokenizer = pytest.mark.parametrize("tokenizer", TOKENIZERS, ids=lambda config: config.kind)


@every_tokenizer
def test_documents_end_with_eos_and_none_is_lost(make_cache, lines_file: Path, tokenizer) -> None:
    cache = make_cache(tokenizer)
    assert list(cache.splits) == ["train", "validation", "test"]
    eos = cache.tokenizer.eos_id
    found = []
    for split in cache.splits.values():
        assert split.tokens[0] == eos
        assert split.document_starts[0] == 1
        assert split.document_starts[-1] == 1 + split.n_tokens == len(split.tokens)
        for first, end in itertools.pairwise(split.document_starts):
            ids = split.tokens[first:end]
            assert np.flatnonzero(ids == eos).tolist() == [len(ids) - 1]
            found.append(ids[:-1].tolist())
    lines = lines_file.read_text(encoding="utf-8").splitlines()
    assert sorted(found) == sorted(cache.tokenizer.encode(line) for line in lines)


@every_tokenizer
def test_bytes_of_the_tokens_sum_to_those_of_the_text(make_cache, lines_file: Path, tokenizer) -> None:
    cache = make_cache(tokenizer)
    total = 0
    for split in cache.splits.values():
        n_bytes = split.token_bytes(0, 1 + split.n_tokens)
        assert n_bytes.sum() == split.n_bytes
        assert n_bytes[split.tokens == cache.tokenizer.eos_id].sum() == 0
        starts = np.array([3, 0, 7])
        assert np.array_equal(split.windows(starts, 5)[0], split.tokens[3:8])
        assert np.array_equal(split.window_bytes(starts, 5)[2], n_bytes[7:12])
        total += split.n_bytes
    assert total == len(lines_file.read_bytes().replace(b"\n", b""))


def test_tokens_take_the_smallest_type(make_cache) -> None:
    types = {config.kind: str(make_cache(config).splits["train"].tokens.dtype) for config in TOKENIZERS}
    assert types == {"byte": "uint16", "char": "uint8", "word": "uint8", "bpe": "uint16"}


def test_the_tokenizer_learns_from_the_training_split_alone(tmp_path: Path) -> None:
    path = tmp_path / "a.txt"
    path.write_text("a" * 90 + "b" * 10)
    config = TextFilesConfig(path=str(path), split="tail", validation_fraction=0.1, test_fraction=0, sequence_length=4)
    cache = prepare(config, CharTokenizerConfig(), cache_root=tmp_path / "cache")
    assert cache.tokenizer.vocab_size == 3
    assert cache.splits["validation"].tokens.tolist() == [0] + [1] * 10 + [0]


def test_a_second_time_the_cache_is_found(make_cache, tmp_path: Path, monkeypatch) -> None:
    first = make_cache()
    monkeypatch.setattr(building.Build, "run", None)
    again = make_cache(batch_size=3, sequence_length=4)  # neither is a matter of the cache
    assert again.path == first.path == tmp_path / "cache" / first.fingerprint[:16]
    known = open_prepared(tmp_path / "cache", first.fingerprint)
    assert known is not None and known.path == first.path
    assert open_prepared(tmp_path / "cache", "0" * 64) is None


def test_a_cache_with_another_fingerprint_is_refused(make_cache, tmp_path: Path) -> None:
    cache = make_cache()
    path = cache.path / "cache.json"
    path.write_text(path.read_text().replace(cache.fingerprint, cache.fingerprint[:-4] + "0000"))
    for again in (make_cache, lambda: open_prepared(tmp_path / "cache", cache.fingerprint)):
        with pytest.raises(DataError, match=rf"has the fingerprint \w+0000, expected {cache.fingerprint}; delete"):
            again()


def test_whatever_changes_the_tokens_changes_the_fingerprint(make_cache, lines_file: Path) -> None:
    found = {make_cache().fingerprint}
    found.add(make_cache(CharTokenizerConfig()).fingerprint)
    found |= {make_cache(WordTokenizerConfig(lowercase=value)).fingerprint for value in (True, False)}
    found.add(make_cache(test_fraction=0.25).fingerprint)
    found.add(make_cache(split="tail").fingerprint)
    found.add(make_cache(split="tail", document="file").fingerprint)
    found.add(make_cache(min_characters=12).fingerprint)
    lines_file.write_text(lines_file.read_text(encoding="utf-8") + "one more\n", encoding="utf-8")
    found.add(make_cache().fingerprint)
    assert len(found) == 9


def digests_of(cache: TokenCache) -> dict[str, str]:
    return {name: split.documents_digest for name, split in cache.splits.items()}


def test_digests_of_splits_are_those_of_their_documents_alone(write_pieces, prepare_pieces) -> None:
    """So that models with other tokenizers, or trained on more text, can be compared on the same test split."""
    train, test = [f"train {i}" for i in range(20)], [f"test {i}" for i in range(9)]

    def digests(tokenizer=None, train=train, test=test) -> dict[str, str]:
        path = write_pieces(train, f"{len(train)}-{'-'.join(test)}", test=test)
        return digests_of(prepare_pieces(path, tokenizer or ByteTokenizerConfig(), validation_fraction=0.2))

    first = digests()
    assert len(set(first.values())) == 3
    assert digests(BPETokenizerConfig(vocab_size=270)) == digests(WordTokenizerConfig()) == first
    more = digests(train=[*train, "and more"])
    assert more["test"] == first["test"] and more["train"] != first["train"]
    for other in ([*test[:-1], "test 8!"], test[:-1], test[::-1], [*test, test[0]]):
        assert digests(test=other)["test"] != first["test"]
        assert digests(test=other)["train"] == first["train"]


def test_digests_of_cut_documents_say_where_they_were_cut(write_pieces, prepare_pieces) -> None:
    def digests(text: str, name: str, test_fraction: float, tokenizer=None) -> dict[str, str]:
        settings = {"split": "tail", "validation_fraction": 0.1, "test_fraction": test_fraction}
        path = write_pieces([text], name)
        return digests_of(prepare_pieces(path, tokenizer or ByteTokenizerConfig(), **settings))

    first = digests("abcdefghij" * 10, "a", 0.2)
    assert len(set(first.values())) == 3
    assert digests("abcdefghij" * 10, "b", 0.2, CharTokenizerConfig()) == first
    other = digests("abcdefghij" * 9 + "abcdefghiX", "c", 0.2)
    assert all(other[name] != first[name] for name in first)  # all hold a piece of the same document
    wider = digests("abcdefghij" * 10, "d", 0.3)
    assert all(wider[name] != first[name] for name in first)


def test_where_the_files_are_does_not_change_the_fingerprint(make_cache, lines_file: Path) -> None:
    first = make_cache().fingerprint
    moved = shutil.move(lines_file, lines_file.with_name("moved.txt"))
    assert make_cache(path=str(moved)).fingerprint == first


@every_tokenizer
def test_the_same_documents_from_other_files_are_the_same_cache(make_cache, lines_file: Path, tokenizer) -> None:
    lines = lines_file.read_text(encoding="utf-8").splitlines()
    first = make_cache(tokenizer)
    before = {path.name: path.read_bytes() for path in first.path.iterdir() if path.is_file()}
    first.path.rename(first.path.with_name("first"))
    records = lines_file.with_name("records.jsonl")
    records.write_text("".join(json.dumps({"text": line}) + "\n" for line in lines))
    shares = {"validation_fraction": 0.2, "test_fraction": 0.2, "sequence_length": 8}
    config = JsonLinesConfig(path=str(records), **shares)
    second = prepare(config, tokenizer, cache_root=first.path.parent)
    assert second.fingerprint == first.fingerprint
    assert {path.name: path.read_bytes() for path in second.path.iterdir() if path.is_file()} == before


@every_tokenizer
def test_chunks_make_no_difference(make_cache, tmp_path: Path, tokenizer, monkeypatch) -> None:
    whole = make_cache(tokenizer).path.rename(tmp_path / "whole")
    monkeypatch.setattr(writing, "CHUNK_DOCUMENTS", 7)
    monkeypatch.setattr(writing, "CHUNK_CHARACTERS", 100)
    chunked = make_cache(tokenizer).path
    names = sorted(path.name for path in whole.iterdir())
    assert names == sorted(path.name for path in chunked.iterdir())
    assert all((whole / name).read_bytes() == (chunked / name).read_bytes() for name in names)


@pytest.mark.parametrize("unit_lines", [1, 100])
def test_a_token_may_cover_more_bytes_than_16_bits_count(
    write_pieces, prepare_pieces, monkeypatch, unit_lines: int
) -> None:
    monkeypatch.setattr(writing, "CHUNK_DOCUMENTS", 1)
    path = write_pieces(["a b a b a b a b", "a" + " " * 70_000 + "b c d e f", "a b a b"])
    cache = prepare_pieces(path, WordTokenizerConfig(), unit_lines=unit_lines)
    split = cache.splits["train"]
    assert cache.facts["splits"]["train"]["n_bytes_dtype"] == "uint32"
    assert split.token_bytes(10, 13).tolist() == [1, 70_001, 2]
    assert split.token_bytes(0, 1 + split.n_tokens).sum() == split.n_bytes == 15 + 70_010 + 7


def test_a_mixture_has_its_sources_one_after_another(tmp_path: Path, write_pieces, pieces) -> None:
    first = [f"first {i}" for i in range(30)]
    second = [f"the second {i}" for i in range(20)]
    parts = {
        "one": pieces.PiecesConfig(path=write_pieces(first, "a"), validation_fraction=0.3, test_fraction=0.0),
        "two": pieces.PiecesConfig(
            path=write_pieces([{"bad": "odd"}, *second], "b", validation=["held out"]), split="tail", test_fraction=0.2
        ),
    }
    config = MixtureConfig(parts=parts, sequence_length=1)
    cache = prepare(config, ByteTokenizerConfig(), cache_root=tmp_path / "cache")
    found: dict[tuple[str, str], list[str]] = {}
    for name, split in cache.splits.items():
        assert list(split.sources) == ["one", "two"]
        position, document = 1, 0
        for source, place in split.sources.items():
            assert (place.start, place.first_document) == (position, document)
            position, document = place.stop, place.first_document + place.n_documents
            borders = split.document_starts[place.first_document : document + 1]
            assert (borders[0], borders[-1]) == (place.start, place.stop)
            texts = [cache.tokenizer.decode(split.tokens[a:b]) for a, b in itertools.pairwise(borders)]
            assert place.n_bytes == sum(len(text.encode()) for text in texts)
            found[name, source] = texts
        assert (position, document) == (1 + split.n_tokens, split.n_documents)
    assert sorted(found["train", "one"] + found["validation", "one"]) == sorted(first)
    assert "".join(found["train", "two"] + found["test", "two"]) == "".join(second)
    assert found["validation", "two"] == ["held out"]
    assert found["test", "one"] == []
    assert [json.loads(line) for line in (cache.path / "quarantine.jsonl").read_text().splitlines()] == [
        {"source": "two", "file": "all.jsonl", "line": 1, "reason": "odd"}
    ]


def test_a_corpus_that_is_no_mixture_is_one_source(make_cache) -> None:
    split = make_cache().splits["test"]
    assert split.sources == {"": SourceRange(0, split.n_documents, 1, 1 + split.n_tokens, split.n_bytes)}


def test_what_was_cleaned_away_is_counted(write_pieces, prepare_pieces) -> None:
    documents = ["ab", "abc", "abc", "a", "abcd", "abc", "ab", "abcde", ""]
    path = write_pieces(documents, validation=["abc", "abcdef"])
    kept = {"min_characters": 2, "max_characters": 4}
    facts = prepare_pieces(path, **kept).facts["sources"][""]
    assert facts["n_read"] == 11 and facts["n_documents"] == 7
    assert facts["n_duplicates"] == 3  # abc twice, ab; that of validation is in another part
    assert facts["n_dropped"] == {"short": 2, "long": 2, "duplicate": 0}
    cache = prepare_pieces(path, **kept, drop_duplicates=True)
    facts = cache.facts["sources"][""]
    assert facts["n_documents"] == 4 and facts["n_bytes"] == 2 + 3 + 4 + 3
    assert facts["n_duplicates"] == facts["n_dropped"]["duplicate"] == 3
    text = {name: cache.tokenizer.decode(split.tokens) for name, split in cache.splits.items()}
    assert text == {"train": "ababcabcd", "validation": "abc"}


def test_bad_documents_are_listed_and_the_good_ones_unchanged(write_pieces, prepare_pieces, tmp_path: Path) -> None:
    good = [f"document {i} naïve" for i in range(40)]
    hostile: list[object] = []
    expected = []
    for i, text in enumerate(good):
        if i % 7 == 3:
            hostile.append({"bad": f"not UTF-8: byte {i}"})
            expected.append({"source": "", "file": "all.jsonl", "line": len(hostile), "reason": f"not UTF-8: byte {i}"})
        if i % 11 == 5:
            hostile.append({"bad": "empty"})
            expected.append({"source": "", "file": "all.jsonl", "line": len(hostile), "reason": "empty"})
        if i == 20:
            hostile.append("half a pair: \ud800")
            reason = "not Unicode text: character 13 is half a surrogate pair, U+D800"
            expected.append({"source": "", "file": "", "line": None, "reason": reason})
        hostile.append(text)
    settings = {"validation_fraction": 0.3, "split": "tail"}
    clean = prepare_pieces(write_pieces(good, "clean"), BPETokenizerConfig(vocab_size=270), **settings)
    cache = prepare_pieces(write_pieces(hostile, "hostile"), BPETokenizerConfig(vocab_size=270), **settings)
    assert [json.loads(line) for line in (cache.path / "quarantine.jsonl").read_text().splitlines()] == expected
    facts = cache.facts["sources"][""]
    assert facts["n_quarantined"] == {"empty": 4, "not UTF-8": 6, "not Unicode text": 1}
    assert facts["n_read"] == 40 + 11
    assert facts["documents_digest"] == clean.facts["sources"][""]["documents_digest"]
    for name, split in clean.splits.items():
        assert np.array_equal(split.tokens, cache.splits[name].tokens)
        assert np.array_equal(split.document_starts, cache.splits[name].document_starts)


class Told(Progress):
    def __init__(self) -> None:
        self.lines: list[str] = []
        self.steps: dict[str, list[tuple[int, int]]] = {}

    def say(self, line: str) -> None:
        self.lines.append(line)

    def advance(self, what: str, done: int, total: int) -> None:
        self.steps.setdefault(what, []).append((done, total))


def test_progress_says_what_happens(tmp_path: Path, write_pieces, pieces) -> None:
    path = write_pieces([f"document {i}" for i in range(40)])
    config = pieces.PiecesConfig(path=path, sequence_length=8, split="tail")
    told = Told()
    for _ in range(2):
        cache = prepare(config, BPETokenizerConfig(), cache_root=tmp_path / "cache", progress=told)
    counts = {name: split.n_documents for name, split in cache.splits.items()}
    assert told.lines == [
        f"training tokenizer bpe: {counts['train']} documents",
        f"vocabulary: {cache.tokenizer.vocab_size} tokens, not tokenizer.vocab_size=1024; "
        "no other pair occurs tokenizer.min_frequency=2 times",
        "tokenizing " + ", ".join(f"{name}: {count} documents" for name, count in counts.items()),
        f"tokens: found in {cache.path}",
    ]
    assert list(told.steps) == ["reading", "tokenizing"]
    for steps in told.steps.values():
        assert steps == sorted(steps)
        assert len(steps) == 10
        assert steps[-1][0] == steps[-1][1] > 0


def test_too_few_tokens_for_a_row_are_an_error(make_cache) -> None:
    with pytest.raises(DataError, match=r"data\.sequence_length=5000 needs at least .* training tokens"):
        make_cache(sequence_length=5000)


def test_a_folder_that_cannot_be_written_is_told(make_cache, tmp_path: Path) -> None:
    (tmp_path / "cache").write_text("a file")
    with pytest.raises(DataError, match=r"can't write the token cache in .*data\.cache_dir=FOLDER"):
        make_cache()


@pytest.mark.parametrize("where", ["survey", "tokens", "assembly"])
def test_a_full_disk_is_told_and_mended_by_another_try(make_cache, monkeypatch, tmp_path: Path, where: str) -> None:
    def full(*args: object) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patched:
        if where == "tokens":
            patched.setattr(writing.SplitWriter, "_flush", full)
        else:
            patched.setattr(f"lmexp.data.{'surveying' if where == 'survey' else 'building'}.append_file", full)
        with pytest.raises(DataError, match=r"No space left on device; choose another folder with data\.cache_dir"):
            make_cache()
        assert not list((tmp_path / "cache").rglob("*.claim"))
    assert make_cache().splits["train"].n_documents > 0
    assert [path.name for path in (tmp_path / "cache").iterdir() if path.name.startswith(".")] == []


@pytest.mark.parametrize("damage", ["cut", "missing", "json"])
def test_damage_is_found(make_cache, damage: str) -> None:
    path = make_cache().path
    if damage == "cut":
        (path / "train.tokens").write_bytes((path / "train.tokens").read_bytes()[:-1])
    elif damage == "missing":
        (path / "test.documents").unlink()
    else:
        (path / "cache.json").write_text("{")
    with pytest.raises(DataError, match=r"is damaged: .*; delete this folder and it is made again"):
        make_cache()


@pytest.mark.parametrize("change", [{"version": 2}, {"version": 4}, {"format": "other"}])
def test_unknown_formats_are_refused(make_cache, change) -> None:
    path = make_cache().path
    facts = json.loads((path / "cache.json").read_text())
    assert (facts["format"], facts["version"]) == ("lmexp.cache", 3)
    (path / "cache.json").write_text(json.dumps(facts | change))
    with pytest.raises(DataError, match=r"expected format 'lmexp\.cache' version 3, got"):
        TokenCache(path)


def test_a_tokenizer_learns_from_stretches_of_a_large_corpus(write_pieces, prepare_pieces, monkeypatch) -> None:
    """The same text whatever the units are, from all over the corpus, no more than was asked for."""
    documents = [f"document {i} {'naïve ' * (i % 5)}" for i in range(400)]
    learnt: list[list[str]] = []
    train = BPETokenizerConfig.train

    def spy(config, texts):
        learnt.append(list(texts))
        return train(config, learnt[-1])

    monkeypatch.setattr(BPETokenizerConfig, "train", spy)
    path = write_pieces(documents)
    for i, unit_lines in enumerate((400, 7, 60)):
        tokenizer = BPETokenizerConfig(vocab_size=270, train_bytes=3000)
        settings = {"validation_fraction": 0.2, "unit_lines": unit_lines, "cache_dir": f"{path}-{i}"}
        cache = prepare_pieces(path, tokenizer, **settings)
    assert learnt[0] == learnt[1] == learnt[2]
    assert 2500 < sum(len(text.encode()) for text in learnt[0]) <= 3000
    split = cache.splits["train"]
    every = [cache.tokenizer.decode(split.tokens[a:b]) for a, b in itertools.pairwise(split.document_starts)]
    at = 0
    for text in learnt[0]:
        at = next(i for i in range(at, len(every)) if text in every[i])
    assert at > len(every) * 0.9
    prepare_pieces(path, BPETokenizerConfig(vocab_size=270), validation_fraction=0.2, cache_dir=f"{path}-all")
    assert learnt[3] == every


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="a full disk is /dev/full")
def test_an_array_says_when_the_disk_is_full() -> None:
    """numpy's own tofile() says how many values it wrote, and not why."""
    with pytest.raises(OSError, match="No space left on device"), open("/dev/full", "wb", buffering=0) as file:
        writing.write_array(file, np.arange(100_000))


def test_arrays_are_written_as_they_are(tmp_path: Path) -> None:
    for array in (np.arange(10, dtype="<i8")[::2], np.empty(0, "<i8"), np.array([7], "uint8")):
        with (tmp_path / "array").open("wb") as file:
            writing.write_array(file, array)
        assert (tmp_path / "array").read_bytes() == array.tobytes()
