"""Text from the model: what is written, by whom, and that it is the same each time."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from lmexp.errors import ConfigError
from lmexp.evaluation.config import SamplesConfig
from lmexp.evaluation.context import EvaluationContext, Interrupted
from lmexp.evaluation.generated import GeneratedText, repetition, texts_of
from lmexp.evaluation.runner import run_evaluations
from lmexp.evaluation.samples_file import read_samples
from lmexp.models.config import GPTConfig
from lmexp.models.decoding.config import DecodingConfig
from lmexp.models.decoding.texts import stream_texts
from lmexp.tokenizers.byte import ByteTokenizer
from tests.evaluation.equality import equal_but_for_latency


def model() -> nn.Module:
    torch.manual_seed(0)
    return GPTConfig(n_layer=1, d_model=16, n_head=2, init_std=0.5).build(vocab_size=257, sequence_length=12)


def context(**changes: Any) -> EvaluationContext:
    settings = {"model": model(), "cache": None, "sequence_length": 12, "tokenizer": ByteTokenizer()}
    return EvaluationContext(**{**settings, **changes})


CONFIG = SamplesConfig(prompts=["", "To be"], n_samples=2, max_new_tokens=9, temperature=0.7, top_k=40, seed=5)


def test_each_text_is_what_generate_makes_of_prompt_and_seed(tmp_path: Path) -> None:
    now = context(folder=tmp_path, step=20)
    (row,) = run_evaluations({"story": CONFIG}, now)
    found = read_samples(tmp_path / "story" / "step-00000020.parquet")
    assert [(prompt, seed) for prompt, seed, _ in texts_of(found)] == [("", 5), ("", 6), ("To be", 5), ("To be", 6)]
    decoding = DecodingConfig(max_new_tokens=9, temperature=0.7, top_k=40)
    for prompt, seed, text in texts_of(found):
        pieces = stream_texts(now.model, ByteTokenizer(), [prompt], decoding, seeds=[seed])
        assert text == "".join(piece.text for piece in pieces)
    assert (row.name, row.split, row.n) == ("story/repetition", "prompts", 4)
    assert found.header.definition == "4 texts of up to 9 tokens, temperature=0.7, top_k=40"


def test_the_global_generators_and_the_mode_stay_as_they_are() -> None:
    now = context()
    now.model.train()
    before = torch.get_rng_state()
    run_evaluations({"samples": CONFIG}, now)
    assert torch.equal(before, torch.get_rng_state())
    assert now.model.training


def test_files_of_the_same_weights_are_equal_to_the_byte(tmp_path: Path) -> None:
    for name in ("one", "two"):
        run_evaluations({"samples": CONFIG}, context(folder=tmp_path / name, step=3))
    one, two = (tmp_path / name / "samples" / "step-00000003.parquet" for name in ("one", "two"))
    assert one.read_bytes() == two.read_bytes()


def test_a_finished_table_is_taken_over(tmp_path: Path) -> None:
    class Broken(nn.Module):
        max_sequence_length = 12

        def forward(self, tokens: Tensor) -> Tensor:
            raise AssertionError("asked again")

    rows = run_evaluations({"samples": CONFIG}, context(folder=tmp_path, model_digest="1" * 64))
    again = run_evaluations({"samples": CONFIG}, context(folder=tmp_path, model_digest="1" * 64, model=Broken()))
    assert again == rows
    other = replace(CONFIG, seed=6)
    with pytest.raises(AssertionError, match="asked again"):
        run_evaluations({"samples": other}, context(folder=tmp_path, model_digest="1" * 64, model=Broken()))


def test_processes_share_the_texts_and_find_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each rank writes its own; what gather brings together is the table of one process."""
    parts: list[Any] = []
    monkeypatch.setattr(EvaluationContext, "gather", lambda self, value: parts.append(value) or [value])
    with pytest.raises(KeyError):  # the others' texts are missing
        GeneratedText(CONFIG).run(context(rank=1, world_size=2))
    monkeypatch.setattr(EvaluationContext, "gather", lambda self, value: [value, parts[-1]])
    shared = context(rank=0, world_size=2)
    rows = GeneratedText(CONFIG).run(shared)
    monkeypatch.undo()
    alone = context()
    assert rows == GeneratedText(CONFIG).run(alone)
    assert equal_but_for_latency(shared.samples["samples"], alone.samples["samples"])


def test_a_signal_ends_it_between_two_tokens_and_progress_counts_them() -> None:
    seen = []

    def progress(what: str, done: int, total: int) -> None:
        seen.append((what, done, total))
        if done == 12:
            raise Interrupted(agreed=False)

    with pytest.raises(Interrupted):
        run_evaluations({"samples": CONFIG}, context(progress=progress))
    assert {(what, total) for what, _, total in seen} == {("samples", 36)}
    assert [done for _, done, _ in seen] == sorted(done for _, done, _ in seen)


def test_a_task_of_the_users_own_says_why_there_is_no_text() -> None:
    for changes in ({"tokenizer": None}, {"model": nn.Linear(2, 2)}):
        (row,) = run_evaluations({"samples": CONFIG}, context(**changes))
        assert row.status == "not measured: it needs lmexp's tokenizer and a language model; task=custom has its own"


def test_repetition_is_the_share_of_4_grams_that_stood_before() -> None:
    """seq-rep-4 of Welleck et al. 2019: 1 - unique 4-grams / 4-grams."""
    text = [1, 2, 3, 4, 1, 2, 3, 4, 5]  # 6 4-grams: 1234 twice
    assert repetition(text) == pytest.approx(1 / 6)
    assert repetition([1, 2, 3]) == 0


@pytest.mark.parametrize(
    ("changes", "why"),
    [
        ({"prompts": []}, "prompts is []; expected different texts"),
        ({"prompts": ["a", "a"]}, "expected different texts"),
        ({"prompts": ["\udcff"]}, "bytes that are no UTF-8 text"),
        ({"n_samples": 0}, "n_samples is 0; expected at least 1"),
        ({"max_new_tokens": 0}, "max_new_tokens is 0"),
        ({"temperature": float("inf")}, "temperature is inf"),
        ({"temperature": 0}, "all texts of a prompt are the same"),
        ({"top_k": 0}, "top_k is 0"),
        ({"top_p": 0.0}, "top_p is 0.0; expected a share"),
        ({"seed": -1}, "seed is -1"),
        ({"split": "train"}, "reads no split of the corpus; it continues prompts"),
    ],
)
def test_impossible_settings_are_refused(changes: dict[str, Any], why: str) -> None:
    with pytest.raises(ConfigError, match=r"evaluation\.samples") as error:
        SamplesConfig(**changes)
    assert why in str(error.value)


def test_a_secret_in_a_prompt_is_nowhere_in_the_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MY_TOKEN", "s3cret-canary-of-a-prompt")
    prompts = replace(CONFIG, prompts=["s3cret-canary-of-a-prompt"])
    run_evaluations({"samples": prompts}, context(folder=tmp_path, step=3))
    assert b"s3cret-canary" not in (tmp_path / "samples" / "step-00000003.parquet").read_bytes()
