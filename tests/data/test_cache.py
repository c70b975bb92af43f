import json
import multiprocessing
import shutil
from pathlib import Path

import numpy as np
import pytest

from lmexp.data import cache as cache_module
from lmexp.data import writing
from lmexp.data.cache import TokenCache, prepare
from lmexp.data.config import TextFilesConfig
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
    found = []
    for split in cache.splits.values():
        assert split.document_starts[0] == 0
        assert split.document_starts[-1] == split.n_tokens == len(split.tokens)
        for first, end in zip(split.document_starts[:-1], split.document_starts[1:], strict=True):
            ids = split.tokens[first:end]
            assert np.flatnonzero(ids == cache.tokenizer.eos_id).tolist() == [len(ids) - 1]
            found.append(ids[:-1].tolist())
    lines = lines_file.read_text(encoding="utf-8").splitlines()
    assert sorted(found) == sorted(cache.tokenizer.encode(line) for line in lines)


@every_tokenizer
def test_bytes_of_the_tokens_sum_to_those_of_the_text(make_cache, lines_file: Path, tokenizer) -> None:
    cache = make_cache(tokenizer)
    total = 0
    for split in cache.splits.values():
        n_bytes = split.token_bytes(0, split.n_tokens)
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
    assert cache.splits["validation"].tokens.tolist() == [1] * 10 + [0]


def test_a_second_time_the_cache_is_found(make_cache, tmp_path: Path, monkeypatch) -> None:
    first = make_cache()
    monkeypatch.setattr(cache_module, "_build", None)
    again = make_cache(batch_size=3, sequence_length=4)  # neither is a matter of the cache
    assert again.path == first.path == tmp_path / "cache" / first.fingerprint[:16]


def test_whatever_changes_the_tokens_changes_the_fingerprint(make_cache, lines_file: Path) -> None:
    found = {make_cache().fingerprint}
    found.add(make_cache(CharTokenizerConfig()).fingerprint)
    found |= {make_cache(WordTokenizerConfig(lowercase=value)).fingerprint for value in (True, False)}
    found.add(make_cache(test_fraction=0.25).fingerprint)
    found.add(make_cache(split="tail").fingerprint)
    found.add(make_cache(split="tail", document="file").fingerprint)
    lines_file.write_text(lines_file.read_text(encoding="utf-8") + "one more\n", encoding="utf-8")
    found.add(make_cache().fingerprint)
    assert len(found) == 8


def test_where_the_files_are_does_not_change_the_fingerprint(make_cache, lines_file: Path) -> None:
    first = make_cache().fingerprint
    moved = shutil.move(lines_file, lines_file.with_name("moved.txt"))
    assert make_cache(path=str(moved)).fingerprint == first


@every_tokenizer
def test_chunks_make_no_difference(make_cache, tmp_path: Path, tokenizer, monkeypatch) -> None:
    whole = make_cache(tokenizer).path.rename(tmp_path / "whole")
    monkeypatch.setattr(writing, "CHUNK_DOCUMENTS", 7)
    monkeypatch.setattr(writing, "CHUNK_CHARACTERS", 100)
    chunked = make_cache(tokenizer).path
    names = sorted(path.name for path in whole.iterdir())
    assert names == sorted(path.name for path in chunked.iterdir())
    assert all((whole / name).read_bytes() == (chunked / name).read_bytes() for name in names)


def test_a_token_may_cover_more_bytes_than_16_bits_count(make_cache, tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setattr(writing, "CHUNK_DOCUMENTS", 1)
    path = tmp_path / "wide.txt"
    path.write_text("a b a b a b a b\n" + "a" + " " * 70_000 + "b c d e f\n" + "a b a b\n")
    cache = make_cache(WordTokenizerConfig(), path=str(path), validation_fraction=0, test_fraction=0)
    split = cache.splits["train"]
    assert split.token_bytes(9, 12).tolist() == [1, 70_001, 2]
    assert split.token_bytes(0, split.n_tokens).sum() == split.n_bytes == 15 + 70_010 + 7


def test_progress_says_what_happens(tmp_path: Path, lines_file: Path) -> None:
    config = TextFilesConfig(path=str(lines_file), document="line", sequence_length=8, split="tail")
    lines: list[str] = []
    for _ in range(2):
        cache = prepare(config, BPETokenizerConfig(), cache_root=tmp_path / "cache", progress=lines.append)
    counts = {name: split.n_documents for name, split in cache.splits.items()}
    assert lines == [
        f"training tokenizer bpe: {counts['train']} documents",
        f"vocabulary: {cache.tokenizer.vocab_size} tokens, not tokenizer.vocab_size=1024; "
        "no other pair occurs tokenizer.min_frequency=2 times",
        *(f"tokenizing {name}: {count} documents" for name, count in counts.items()),
        f"tokens: found in {cache.path}",
    ]


def test_too_few_tokens_for_a_window_are_an_error(make_cache) -> None:
    with pytest.raises(DataError, match=r"data\.sequence_length=5000 needs at least 5,001 training tokens, found"):
        make_cache(sequence_length=5000)


def test_a_failure_leaves_nothing_behind(make_cache, tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setattr(cache_module, "write_split", lambda *args: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        make_cache()
    assert list((tmp_path / "cache").iterdir()) == []


def test_a_folder_that_cannot_be_written_is_told(make_cache, tmp_path: Path) -> None:
    (tmp_path / "cache").write_text("a file")
    with pytest.raises(DataError, match=r"can't write the token cache in .*data\.cache_dir=FOLDER"):
        make_cache()


def test_a_full_disk_is_told(make_cache, monkeypatch) -> None:
    def full(*args: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(cache_module, "write_split", full)
    with pytest.raises(DataError, match=r"No space left on device; choose another folder"):
        make_cache()


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


@pytest.mark.parametrize("change", [{"version": 2}, {"format": "other"}])
def test_unknown_formats_are_refused(make_cache, change) -> None:
    path = make_cache().path
    facts = json.loads((path / "cache.json").read_text())
    assert (facts["format"], facts["version"]) == ("lmexp.cache", 1)
    (path / "cache.json").write_text(json.dumps(facts | change))
    with pytest.raises(DataError, match=r"expected format 'lmexp\.cache' version 1, got"):
        TokenCache(path)


def prepare_in_another_process(path: str, root: str, start) -> None:
    start.wait(30)
    config = TextFilesConfig(path=path, document="line", sequence_length=8)
    prepare(config, BPETokenizerConfig(vocab_size=300), cache_root=Path(root))


def test_processes_at_the_same_time_end_with_one_cache(tmp_path: Path, lines_file: Path) -> None:
    context = multiprocessing.get_context("spawn")
    start = context.Barrier(2)
    root = tmp_path / "cache"
    processes = [
        context.Process(target=prepare_in_another_process, args=(str(lines_file), str(root), start)) for _ in range(2)
    ]
    for process in processes:
        process.start()
    for process in processes:
        process.join(60)
    assert [process.exitcode for process in processes] == [0, 0]
    assert [path.name for path in root.iterdir()] == [TokenCache(next(root.iterdir())).fingerprint[:16]]


def test_the_slower_of_two_processes_takes_the_others_cache(make_cache, tmp_path: Path, monkeypatch) -> None:
    other = make_cache().path.rename(tmp_path / "other")
    fill = cache_module._fill

    def other_is_faster(*args: object) -> None:
        fill(*args)
        other.rename(tmp_path / "cache" / make_cache_name)

    make_cache_name = json.loads((other / "cache.json").read_text())["fingerprint"][:16]
    monkeypatch.setattr(cache_module, "_fill", other_is_faster)
    assert [path.name for path in make_cache().path.parent.iterdir()] == [make_cache_name]
