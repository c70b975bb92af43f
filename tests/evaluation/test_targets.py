"""Whatever the windows: the targets are all tokens, each once, and a model sees what it is said to see."""

from __future__ import annotations

import itertools
import math
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc
import pytest
import torch
from torch import nn

from lmexp.data.config import WINDOWS
from lmexp.evaluation.config import BaselinesConfig, PerplexityConfig
from lmexp.evaluation.context import EvaluationContext
from lmexp.evaluation.row import Row
from lmexp.evaluation.runner import run_evaluations
from lmexp.evaluation.targets import Showing, Targets
from lmexp.metrics.ignore import IGNORE
from lmexp.models.config import GPTConfig
from tests.evaluation.tiny import EOS, VOCAB, TinyModel, make_cache, random_documents, stream_of

TEST = random_documents(30, 2)
every_window = pytest.mark.parametrize("windows", WINDOWS)
documents_apart = pytest.mark.parametrize("windows", ["packed", "padded"])


def make_targets(folder: Path, windows: str, length: int = 7, max_tokens: int | None = None) -> Targets:
    showing = Showing(windows=windows, sequence_length=length, max_tokens=max_tokens)
    return Targets(make_cache(folder, {"test": TEST}), "test", showing)


def run(
    folder: Path, windows: str, *, length: int = 7, model: nn.Module | None = None, **config: int
) -> dict[str, Row]:
    cache = make_cache(folder, {"train": random_documents(50, 1), "test": TEST})
    context = EvaluationContext(model=model or TinyModel(), cache=cache, sequence_length=length, windows=windows)
    configs = {"perplexity": PerplexityConfig(**config), "baselines": BaselinesConfig()}  # type: ignore[arg-type]
    return {row.name: row for row in run_evaluations(configs, context)}


def document_by_document(model: nn.Module, length: int, n: int) -> tuple[float, float, int]:
    """Nats, first choices that are right, and bytes of the first n targets, a piece of a document at a time."""
    nats, correct, n_bytes, place = 0.0, 0, 0, 1
    for document in TEST:
        text = [EOS, *document]
        for start in range(0, len(document), length):
            read, targets = text[start : start + length], text[start + 1 : start + length + 1]
            logits = model(torch.tensor([read[: len(targets)]]))[0].detach()
            for row, target in zip(logits, targets, strict=True):
                if place <= n:
                    nats -= float(row.log_softmax(dim=-1)[target])
                    correct += int(row.argmax()) == target
                    n_bytes += 0 if target == EOS else target + 1
                place += 1
    return nats, correct, n_bytes


@every_window
@pytest.mark.parametrize("length", [1, 7, 64])
@pytest.mark.parametrize("batch_size", [1, 4, 100])
def test_every_token_is_a_target_once_with_its_bytes_and_document(
    tmp_path: Path, windows: str, length: int, batch_size: int
) -> None:
    found = []
    made = make_targets(tmp_path, windows, length)
    for batch in map(made.batch, made.numbers(batch_size)):
        which = batch.scored
        previous = batch.tokens[which]  # the token before the target, also where a document or a piece begins
        found += list(zip(batch.document[which], previous, batch.targets[which], batch.n_bytes[which], strict=True))
        assert (batch.targets[~which] == IGNORE).all()
        assert (batch.positions is not None) == (windows == "packed")
    stream = stream_of(TEST)
    numbers = [number for number, document in enumerate(TEST) for _ in document]
    expected = [
        (number, previous, token, 0 if token == EOS else token + 1)
        for number, (previous, token) in zip(numbers, itertools.pairwise(stream), strict=True)
    ]
    assert sorted(tuple(map(int, one)) for one in found) == sorted(expected)


@every_window
@pytest.mark.parametrize("max_tokens", [None, 1, 60])
def test_ranks_share_the_targets_and_the_sums_do_not_change(
    tmp_path: Path, windows: str, max_tokens: int | None
) -> None:
    targets = make_targets(tmp_path, windows, max_tokens=max_tokens)

    def sums(batch_size: int, world_size: int) -> pa.Table:
        parts = [
            batch.sum(batch.targets.astype(float), batch.targets == batch.tokens).table(0.0)
            for rank in range(world_size)
            for batch in map(targets.batch, list(targets.numbers(batch_size))[rank::world_size])
        ]
        return pa.concat_tables(parts).sort_by("place").combine_chunks()

    alone = sums(4, 1)
    assert pc.sum(alone["n_tokens"]).as_py() == (max_tokens or sum(map(len, TEST)))
    for batch_size, world_size in ((1, 1), (3, 2), (4, 5), (1000, 3)):
        assert sums(batch_size, world_size).equals(alone)


@documents_apart
@pytest.mark.parametrize("length", [5, 32])
@pytest.mark.parametrize("max_tokens", [None, 1, 60])
def test_figures_equal_a_loop_over_documents(tmp_path: Path, windows: str, length: int, max_tokens: int | None) -> None:
    n = max_tokens or sum(map(len, TEST))
    settings = {} if max_tokens is None else {"max_tokens": max_tokens}
    rows = run(tmp_path, windows, length=length, batch_size=3, **settings)
    nats, correct, n_bytes = document_by_document(TinyModel(), length, n)
    assert rows["perplexity/loss"].n == n
    assert rows["perplexity/loss"].estimate == pytest.approx(nats / n, rel=1e-12)
    assert rows["perplexity/perplexity"].estimate == pytest.approx(math.exp(nats / n), rel=1e-12)
    assert rows["perplexity/accuracy"].estimate == correct / n
    assert rows["perplexity/bits_per_byte"].n == n_bytes
    assert rows["perplexity/bits_per_byte"].estimate == pytest.approx(nats / n_bytes / math.log(2), rel=1e-12)


@pytest.mark.parametrize("positions", ["learned", "rotary"])
@pytest.mark.parametrize("length", [8, 32])
def test_packed_and_padded_windows_give_a_gpt_the_same_figures(tmp_path: Path, positions: str, length: int) -> None:
    torch.manual_seed(0)
    model = GPTConfig(n_layer=2, d_model=16, n_head=2, positions=positions, init_std=0.3).build(
        vocab_size=VOCAB, sequence_length=length
    )
    packed, padded = (run(tmp_path, windows, length=length, model=model) for windows in ("packed", "padded"))
    assert packed.keys() == padded.keys()
    for name, row in packed.items():
        other = padded[name]
        assert row.estimate == pytest.approx(other.estimate, rel=1e-6, abs=1e-6), name
        assert row.low == pytest.approx(other.low, rel=1e-6, abs=1e-6), name
        assert (row.n, row.n_clusters, row.definition) == (other.n, other.n_clusters, other.definition)
    nats, _, _ = document_by_document(model, length, 10**6)
    assert packed["perplexity/loss"].estimate == pytest.approx(nats / sum(map(len, TEST)), rel=1e-6)


def test_baselines_are_the_same_for_all_windows_and_the_model_is_not(tmp_path: Path) -> None:
    stream, packed, padded = (run(tmp_path, windows) for windows in WINDOWS)
    for which in ("unigram", "bigram"):
        name = f"baselines/{which}_bits_per_byte"
        assert stream[name].n == packed[name].n == padded[name].n
        for row in (packed[name], padded[name]):
            assert row.estimate == pytest.approx(stream[name].estimate, rel=1e-12)
    name = "baselines/lift_over_bigram"
    assert packed[name].estimate == pytest.approx(padded[name].estimate, rel=1e-9)
    assert packed[name].estimate != pytest.approx(stream[name].estimate, rel=1e-3)


def test_the_definition_says_what_a_model_sees(tmp_path: Path) -> None:
    stream, packed, padded = (make_targets(tmp_path, windows).definition for windows in WINDOWS)
    assert stream.startswith("all tokens of the split, whose documents stand one after another")
    assert packed == padded
    assert packed.startswith("all tokens of the split, each document by itself")
    assert "never another document" in packed
    assert make_targets(tmp_path, "packed", max_tokens=5).definition.startswith("the first 5 tokens of the split")
