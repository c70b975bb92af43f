"""The data card tells the truth about a cache, in bounded time."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from lmexp.data import card
from lmexp.data.cache import TokenCache, prepare
from lmexp.data.config import MixtureConfig, TextFilesConfig
from lmexp.tokenizers.config import ByteTokenizerConfig

LINES = [f"line {i} " + "word " * (i % 7) for i in range(200)]


def text(folder: Path, name: str, lines: list[str]) -> TextFilesConfig:
    (folder / name).write_text("\n".join(lines) + "\n", encoding="utf-8")
    return TextFilesConfig(path=str(folder / name), document="line", sequence_length=32, batch_size=4)


def prepared(data: Any, folder: Path) -> TokenCache:
    return prepare(data, ByteTokenizerConfig(), cache_root=folder / "cache")


@pytest.fixture
def data(tmp_path: Path) -> TextFilesConfig:
    config = text(tmp_path, "a.txt", [*LINES, "twice", "twice"])
    with open(tmp_path / "a.txt", "ab") as file:
        file.write(b"caf\xe9\n" * 30)
    return config


def test_counts_are_those_of_the_cache(data: TextFilesConfig, tmp_path: Path) -> None:
    cache = prepared(data, tmp_path)
    facts = json.loads(json.dumps(card.facts(cache, data, seed=1)))
    assert (facts["format"], facts["version"], facts["fingerprint"]) == ("lmexp.data_card", 1, cache.fingerprint)
    source = facts["sources"][""]
    assert source["n_duplicates"] == 1
    assert source["n_quarantined"] == {"not UTF-8": 30}
    assert (facts["quarantine"]["n"], facts["quarantine"]["by_kind"]) == (30, {"not UTF-8": 30})
    assert len(facts["quarantine"]["first"]) == card.N_QUARANTINED
    assert facts["quarantine"]["first"][0]["line"] == 203
    for name, split in cache.splits.items():
        told = facts["splits"][name]
        assert (told["n_documents"], told["n_tokens"], told["n_bytes"]) == (
            split.n_documents,
            split.n_tokens,
            split.n_bytes,
        )
        assert told["bytes_per_token"] == pytest.approx(split.n_bytes / split.n_tokens)
        assert told["padding"] == 0
        assert source["splits"][name]["n_documents"] == split.n_documents


def test_lengths_are_those_of_the_documents_without_eos(data: TextFilesConfig, tmp_path: Path) -> None:
    cache = prepared(data, tmp_path)
    told = card.facts(cache, data, seed=1)["sources"][""]["splits"]["train"]["lengths"]
    lengths = np.diff(cache.splits["train"].document_starts) - 1
    assert told["quantiles"]["0"] == lengths.min()
    assert told["quantiles"]["0.5"] == np.median(lengths)
    assert told["quantiles"]["1"] == lengths.max()
    starts = [*told["histogram"]["from"], np.inf]
    for low, high, n in zip(starts, starts[1:], told["histogram"]["n"], strict=False):
        assert n == ((lengths >= low) & (lengths < high)).sum()
    assert sum(told["histogram"]["n"]) == told["n_looked_at"] == len(lengths)


def test_the_vocabulary_is_counted_in_the_training_split(data: TextFilesConfig, tmp_path: Path) -> None:
    cache = prepared(data, tmp_path)
    told = card.facts(cache, data, seed=1)["vocabulary"]
    tokens = np.asarray(cache.splits["train"].tokens[1:])
    assert (told["size"], told["n_used"]) == (cache.tokenizer.vocab_size, len(np.unique(tokens)))
    assert told["n_counted"] == told["n_tokens"] == len(tokens)
    values, counts = np.unique(tokens, return_counts=True)
    assert told["top"][0]["token"] == cache.tokenizer.decode([int(values[counts.argmax()])])
    assert told["top"][0]["share"] == pytest.approx(counts.max() / len(tokens))


def test_large_data_are_sampled_and_say_so(
    data: TextFilesConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    cache = prepared(data, tmp_path)
    for name, value in (("MAX_LENGTHS", 50), ("BLOCK", 100), ("MAX_COUNTED", 1000)):
        monkeypatch.setattr(card, name, value)
    facts = card.facts(cache, data, seed=1)
    lengths = facts["sources"][""]["splits"]["train"]["lengths"]
    assert 25 <= lengths["n_looked_at"] <= 50 < cache.splits["train"].n_documents
    assert facts["vocabulary"]["n_counted"] <= 1000 < facts["vocabulary"]["n_tokens"]


@pytest.mark.parametrize("windows", ["stream", "packed", "padded"])
def test_examples_are_the_first_training_rows_cut_where_documents_end(
    windows: str, data: TextFilesConfig, tmp_path: Path
) -> None:
    data.windows = windows
    cache = prepared(data, tmp_path)
    documents = {*LINES, "twice"}
    facts = card.facts(cache, data, seed=1)
    assert len(facts["examples"]) == 4
    for example in facts["examples"]:
        pieces = example["pieces"]
        n_tokens = sum(piece["n_tokens"] + piece["ends"] for piece in pieces)
        assert n_tokens == example["n_targets"] == 32 - example["n_padding"]
        for piece in pieces[1:-1]:  # the first and the last may be parts
            assert piece["ends"]
            assert piece["text"] in documents
    if windows == "padded":
        assert all(len(example["pieces"]) == 1 for example in facts["examples"])
        assert 0 < facts["splits"]["train"]["padding"] < 1
    assert facts["examples"] == card.facts(cache, data, seed=1)["examples"]
    assert facts["examples"] != card.facts(cache, data, seed=2)["examples"]


def test_sources_of_a_mixture_are_told_apart(tmp_path: Path) -> None:
    parts = {"low": text(tmp_path, "a.txt", LINES), "up": text(tmp_path, "b.txt", [x.upper() for x in LINES[:150]])}
    for part in parts.values():
        part.sequence_length, part.batch_size = 256, 8
    data = MixtureConfig(parts=dict(parts), weights={"up": 3.0}, sequence_length=32, batch_size=8)
    cache = prepared(data, tmp_path)
    facts = card.facts(cache, data, seed=0)
    assert {name: source["share"] for name, source in facts["sources"].items()} == {"low": 0.25, "up": 0.75}
    assert sum(source["splits"]["train"]["n_documents"] for source in facts["sources"].values()) == (
        cache.splits["train"].n_documents
    )
    for example in facts["examples"]:
        written = "".join(piece["text"] for piece in example["pieces"])
        assert written == (written.upper() if example["source"] == "up" else written.lower())


def test_equal_data_give_equal_bytes(data: TextFilesConfig, tmp_path: Path) -> None:
    first = json.dumps(card.facts(prepared(data, tmp_path / "x"), data, seed=1))
    assert json.dumps(card.facts(prepared(data, tmp_path / "y"), data, seed=1)) == first
