from __future__ import annotations

import json
import math
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from lmexp.data.cache import prepare
from lmexp.data.config import SyntheticConfig
from lmexp.data.sources.synthetic import SyntheticSource
from lmexp.errors import ConfigError
from lmexp.evaluation.config import PerplexityConfig
from lmexp.evaluation.context import EvaluationContext
from lmexp.evaluation.perplexity import Perplexity
from lmexp.evaluation.row import Row
from lmexp.evaluation.token_plots import loss_by_position
from lmexp.tokenizers.config import ByteTokenizerConfig
from tests.evaluation.tiny import EOS, VOCAB, TinyModel, evaluate, make_cache, random_documents, stream_of

ROOT = Path(__file__).parents[2]


class Uniform(nn.Module):
    """Every token is as likely."""

    def __init__(self, vocab_size: int) -> None:
        super().__init__()
        self.vocab_size = vocab_size

    def forward(self, tokens: Tensor) -> Tensor:
        return torch.zeros(*tokens.shape, self.vocab_size)


def run(cache: object, model: nn.Module, length: int = 7, **config: object) -> dict[str, Row]:
    context = EvaluationContext(model=model, cache=cache, sequence_length=length)  # type: ignore[arg-type]
    rows = Perplexity(PerplexityConfig(**config)).run(context)  # type: ignore[arg-type]
    return {row.name.removeprefix("perplexity/"): row for row in rows}


def by_hand(tokens: list[int], length: int, model: nn.Module, n_targets: int) -> float:
    """Nats of targets 1 ... n_targets, one window after another."""
    nats = 0.0
    for start in range(0, n_targets, length):
        read = torch.tensor([tokens[start : start + length]])
        log_probabilities = model(read).detach().log_softmax(dim=-1)[0]
        for offset in range(min(length, n_targets - start)):
            nats -= float(log_probabilities[offset, tokens[start + offset + 1]])
    return nats


def test_uniform_bytes_have_perplexity_256_and_8_bits_per_byte(tmp_path: Path) -> None:
    documents = [list(np.random.default_rng(i).integers(0, 256, 40)) for i in range(25)]
    rows = run(make_cache(tmp_path, {"test": documents}, token_bytes=[1] * 256), Uniform(256), batch_size=3)
    assert rows["perplexity"].estimate == pytest.approx(256, rel=1e-6)
    assert rows["byte_perplexity"].estimate == pytest.approx(256, rel=1e-6)
    assert rows["bits_per_byte"].estimate == pytest.approx(8, rel=1e-6)
    assert rows["loss"].estimate == pytest.approx(math.log(256), rel=1e-6)
    assert rows["bits_per_byte"].low == pytest.approx(8, rel=1e-6)
    assert rows["loss"].n == rows["bits_per_byte"].n == 25 * 40


@pytest.mark.parametrize("vocab_size", [2, 50, 50_257])
def test_uniform_logits_have_the_perplexity_of_the_vocabulary(tmp_path: Path, vocab_size: int) -> None:
    rows = run(make_cache(tmp_path, {"test": [[0, 1, 1]] * 25}, token_bytes=[1] * vocab_size), Uniform(vocab_size))
    assert rows["perplexity"].estimate == pytest.approx(vocab_size, rel=1e-5)


def test_splitting_tokens_does_not_change_bits_per_byte(tmp_path: Path) -> None:
    """Letters, and the same text as pairs of letters whose probabilities are the products."""
    generator = np.random.default_rng(0)
    letters = torch.tensor(generator.dirichlet(np.ones(5)))
    text = [generator.integers(0, 5, 2 * generator.integers(1, 20)).tolist() for _ in range(30)]
    pairs = [[5 * a + b for a, b in zip(one[::2], one[1::2], strict=True)] for one in text]

    class Fixed(nn.Module):
        def __init__(self, probabilities: Tensor) -> None:
            super().__init__()
            self.logits = torch.cat([probabilities.log(), torch.tensor([-1e9])])  # the last is <eos>

        def forward(self, tokens: Tensor) -> Tensor:
            return self.logits.expand(*tokens.shape, -1)

    one, other = (
        run(
            make_cache(tmp_path, {"test": [[*t, end] for t in tokens]}, token_bytes=[n_bytes] * end + [0]),
            Fixed(probabilities),
            score_eos=False,
        )
        for tokens, end, n_bytes, probabilities in (
            (text, 5, 1, letters),
            (pairs, 25, 2, torch.outer(letters, letters).flatten()),
        )
    )
    for name in ("bits_per_byte", "byte_perplexity"):
        assert one[name].n == other[name].n
        assert one[name].estimate == pytest.approx(other[name].estimate, rel=1e-6)
    assert one["perplexity"].estimate != pytest.approx(other["perplexity"].estimate, rel=0.1)


def test_a_model_that_emits_a_known_markov_chain_reaches_its_entropy_rate(tmp_path: Path) -> None:
    config = SyntheticConfig(
        rule="markov",
        n_symbols=6,
        n_documents=500,
        min_length=100,
        max_length=100,
        test_fraction=0.5,
        validation_fraction=0,
        sequence_length=128,
    )
    source = SyntheticSource(config)
    cache = prepare(config, ByteTokenizerConfig(), cache_root=tmp_path)

    class Knowing(nn.Module):
        """The chain's own probabilities; it knows the first letter's distribution, too."""

        def __init__(self) -> None:
            super().__init__()
            chain = source._chain
            self.after = torch.full((257, 257), -30.0, dtype=torch.float64)
            symbols = [ord(letter) for letter in "abcdef"]
            for symbol, row in zip(
                [*symbols, cache.tokenizer.eos_id], [*chain.transitions, chain.stationary], strict=True
            ):
                self.after[symbol, symbols] = torch.tensor(row).log()

        def forward(self, tokens: Tensor) -> Tensor:
            return self.after[tokens]

    context = EvaluationContext(model=Knowing(), cache=cache, sequence_length=128, windows="padded")
    rows = {row.name: row for row in Perplexity(PerplexityConfig(score_eos=False)).run(context)}
    found, facts = rows["perplexity/bits_per_byte"], source.facts()
    assert found.low < facts["bits_per_byte"] < found.high
    assert found.estimate == pytest.approx(facts["entropy_rate"], abs=0.02)
    assert found.high - found.low < 0.04
    curve = loss_by_position(context.samples["perplexity"])
    assert curve.loss[0] / math.log(2) == pytest.approx(facts["first_symbol_bits"], abs=0.15)
    assert curve.loss[1:] / math.log(2) == pytest.approx(facts["entropy_rate"], abs=0.1)


@pytest.mark.parametrize("max_tokens", [None, 1, 7, 60, 10**6])
def test_sums_equal_a_loop_over_windows(tmp_path: Path, max_tokens: int | None) -> None:
    documents = random_documents(30, 3)
    tokens = stream_of(documents)
    n = min(len(tokens) - 1, max_tokens or len(tokens))
    cache = make_cache(tmp_path, {"test": documents})
    rows = run(cache, TinyModel(), max_tokens=max_tokens, batch_size=4)
    nats = by_hand(tokens, 7, TinyModel(), n)
    n_bytes = sum(token + 1 for token in tokens[1 : n + 1] if token != EOS)
    assert rows["loss"].n == n
    assert rows["bits_per_byte"].n == n_bytes
    assert rows["loss"].estimate == pytest.approx(nats / n, rel=1e-12)
    assert rows["bits_per_byte"].estimate == pytest.approx(nats / n_bytes / math.log(2), rel=1e-12)


@pytest.mark.parametrize("batch_size", [1, 7, 32])
def test_batch_size_changes_nothing(tmp_path: Path, batch_size: int) -> None:
    assert_same(evaluate(tmp_path, batch_size=batch_size), evaluate(tmp_path, batch_size=4))


def test_two_processes_find_what_one_finds(tmp_path: Path) -> None:
    """Also where the second process has no batch at all (batch size 1,000)."""
    ranks = [
        subprocess.Popen(
            [sys.executable, "-m", "tests.evaluation.tiny", str(tmp_path), str(rank), "2", "1", "7", "32", "1000"],
            stdout=subprocess.PIPE,
            text=True,
            cwd=ROOT,
            env={**os.environ, "OMP_NUM_THREADS": "1"},
        )
        for rank in range(2)
    ]
    first, second = (json.loads(rank.communicate(timeout=120)[0]) for rank in ranks)
    assert first == second
    assert len(first) == 4
    for rows in first:
        assert_same([Row(**entry) for entry in rows], evaluate(tmp_path))


def assert_same(rows: list[Row], expected: list[Row]) -> None:
    assert len(rows) == len(expected) == 10
    for row, other in zip(rows, expected, strict=True):
        for name in ("estimate", "low", "high"):
            assert getattr(row, name) == pytest.approx(getattr(other, name), rel=1e-10), row.name
        assert (row.name, row.n, row.n_clusters, row.method) == (other.name, other.n, other.n_clusters, other.method)
        assert row.measured


def test_accuracy_counts_the_first_choice(tmp_path: Path) -> None:
    class Next(nn.Module):
        """Sure that t is followed by t + 1."""

        def forward(self, tokens: Tensor) -> Tensor:
            return nn.functional.one_hot((tokens + 1) % VOCAB, VOCAB).float()

    rows = run(make_cache(tmp_path, {"test": [[0, 1, 2, 9], [3, 4, 4, 9]]}), Next())
    assert rows["accuracy"].estimate == 4 / 8  # <eos> (9)->0, 0->1, 1->2, 3->4


def test_dropout_is_off_while_evaluating_and_on_again_afterwards(tmp_path: Path) -> None:
    model = nn.Sequential(TinyModel(dtype=torch.float32), nn.Dropout(0.5), nn.Dropout(0.5))
    model[2].eval()
    cache = make_cache(tmp_path, {"test": random_documents(5, 0)})
    assert run(cache, model)["loss"].estimate == run(cache, model)["loss"].estimate
    assert model.training
    assert model[1].training
    assert not model[2].training


def test_few_documents_take_windows_as_clusters_and_say_so(tmp_path: Path) -> None:
    rows = run(make_cache(tmp_path, {"test": random_documents(19, 0)}), TinyModel())
    assert "windows (fewer than 20 documents)" in rows["loss"].method
    assert rows["loss"].n_clusters == math.ceil(rows["loss"].n / 7)


def test_one_window_has_no_interval(tmp_path: Path) -> None:
    row = run(make_cache(tmp_path, {"test": [[1, 2, 9]]}), TinyModel())["loss"]
    assert row.measured
    assert row.low is None
    assert row.method == "no interval: only one window was scored"


def test_validation_stands_in_for_a_missing_test_split_and_the_row_says_so(tmp_path: Path) -> None:
    row = run(make_cache(tmp_path, {"validation": random_documents(30, 0)}), TinyModel())["loss"]
    assert row.split == "validation"
    assert row.definition.endswith("on validation, since the corpus has no test split")


def test_without_a_split_nothing_is_measured_and_the_row_says_why(tmp_path: Path) -> None:
    for cache, why in ((make_cache(tmp_path, {"train": [[1, 9]]}), "no test split"), (None, "no token cache")):
        rows = run(cache, TinyModel())
        assert len(rows) == 6
        assert all(row.estimate is None and why in row.status for row in rows.values())


def test_a_loss_that_is_not_finite_is_not_reported_as_a_figure(tmp_path: Path) -> None:
    class Never(nn.Module):
        """Token 3 can't happen; the rest is uniform."""

        def forward(self, tokens: Tensor) -> Tensor:
            logits = torch.zeros(*tokens.shape, VOCAB)
            logits[..., 3] = -math.inf
            return logits

    documents = [[1, 2, EOS]] * 30 + [[3, EOS]]
    rows = run(make_cache(tmp_path, {"test": documents}), Never())
    assert rows["loss"].status == "not measured: the model's scores are not finite in 1 of 31 documents"
    assert rows["accuracy"].measured


def test_wrong_logits_are_refused_with_the_shapes(tmp_path: Path) -> None:
    cache = make_cache(tmp_path, {"test": random_documents(5, 0)})

    class Last(nn.Module):
        def forward(self, tokens: Tensor) -> Tensor:
            return torch.zeros(len(tokens), VOCAB)

    with pytest.raises(ConfigError, match=r"expected logits of shape .*got \(\d+, 10\)"):
        run(cache, Last())
    with pytest.raises(ConfigError, match="token id 9, but the model gives logits for only 5 tokens"):
        run(cache, Uniform(5))


def test_half_precision_models_are_scored_in_float32(tmp_path: Path) -> None:
    class Half(Uniform):
        def forward(self, tokens: Tensor) -> Tensor:
            return super().forward(tokens).to(torch.bfloat16)

    row = run(make_cache(tmp_path, {"test": random_documents(30, 0)}), Half(VOCAB))["loss"]
    assert row.estimate == pytest.approx(math.log(VOCAB), rel=1e-6)
