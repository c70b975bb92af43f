"""A model that is counted has a run like any other: checkpoint, figures, evaluation, resume."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import pytest
import torch

import lmexp
from lmexp.errors import CheckpointError, ConfigError, RunError
from lmexp.training import checkpoints
from lmexp.training.counting import count
from tests.end_to_end.command import write_corpus
from tests.evaluation.tiny import EOS, VOCAB, make_cache
from tests.training.fitting import SPLITS, Recorder

TINY = (
    "model=ngram",
    "model.order=3",
    "data=text_files",
    "data.path=corpus.txt",
    "data.document=line",
    "data.sequence_length=64",
    "tokenizer=byte",
    "logger=files",
    "evaluation=[perplexity,baselines,samples]",
)


def rows_of(run: Path) -> dict[str, float]:
    body = json.loads((run / "evaluation" / "summary.json").read_text(encoding="utf-8"))
    return {row["name"]: row["estimate"] for row in body["rows"]}


def files_of(run: Path) -> dict[str, bytes]:
    names = ("metrics.jsonl", "evaluation/summary.json", "evaluation/samples/samples.parquet")
    names += ("checkpoints/LATEST", "checkpoints/step-00000001/model.safetensors")
    return {name: (run / name).read_bytes() for name in names}


@pytest.fixture
def corpus(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return write_corpus(tmp_path)


def test_a_run_is_counted_evaluated_loaded_and_compared(corpus: Path) -> None:
    said: list[str] = []
    run = lmexp.train(lmexp.compose([*TINY]), say=said.append)
    assert run.state == "done"
    found = rows_of(run.path)
    (logged,) = [json.loads(line) for line in (run.path / "metrics.jsonl").read_text(encoding="utf-8").splitlines()]
    assert logged["step"] == 1
    assert logged["ngrams/order_3"] > logged["ngrams/order_2"] > logged["ngrams/order_1"] > 20
    assert 1 < logged["validation/perplexity"] == pytest.approx(math.exp(logged["validation/loss"]))
    assert found["baselines/lift_over_bigram"] > 0.1
    loaded = run.load()
    logits = loaded.model(torch.tensor([loaded.tokenizer.encode("the cat")]))
    torch.testing.assert_close(logits.exp().sum(dim=-1), torch.ones(1, 7))
    assert isinstance(loaded.generate("the", max_new_tokens=5), str)
    again = lmexp.evaluate(run.path, ["evaluation=[perplexity]"])
    assert {row.name: row.estimate for row in again}["perplexity/loss"] == found["perplexity/loss"]
    body = json.loads((run.path / "run.json").read_text(encoding="utf-8"))["config"]
    assert body["optimizer"] is None
    assert body["scheduler"] is None
    unigram = lmexp.train(lmexp.compose([*TINY, "model.order=1"]), say=said.append)
    assert rows_of(unigram.path)["perplexity/loss"] > found["perplexity/loss"]
    assert lmexp.compare(unigram.path, run.path).rows
    with pytest.raises(RunError, match=r"the run is done; look at .*report\.html$"):
        lmexp.resume(run.path)
    with pytest.raises(ConfigError, match=r"trainer\.max_steps=9.*take it away"):
        lmexp.resume(run.path, ["trainer.max_steps=9"])


@pytest.mark.parametrize("where", ["before", "after"])
def test_a_run_that_died_around_its_checkpoint_ends_with_the_same_bytes(
    corpus: Path, monkeypatch: pytest.MonkeyPatch, where: str
) -> None:
    whole = lmexp.train(lmexp.compose([*TINY]), say=lambda line: None).path
    write = checkpoints.write

    def die(*arguments: Any) -> Path:
        if where == "after":
            write(*arguments)
        raise OSError("the machine is gone")

    with monkeypatch.context() as patch:
        patch.setattr(checkpoints, "write", die)
        with pytest.raises(OSError, match="the machine is gone"):
            lmexp.train(lmexp.compose([*TINY, "run.name=died"]), say=lambda line: None)
    (died,) = (path.parent for path in Path("outputs").glob("died/*/run.json"))
    assert (died / "checkpoints" / "LATEST").exists() is (where == "after")
    assert lmexp.resume(died).state == "done"
    assert files_of(died) == files_of(whole)


def counted(folder: Path, *overrides: str, rank: int = 0, splits: Any = SPLITS) -> tuple[Recorder, list[str]]:
    recorder, said = Recorder(), list[str]()
    (folder / "checkpoints").mkdir(parents=True, exist_ok=True)
    config = lmexp.compose(["model=ngram", "data=text_files", "data.path=unused", *overrides])
    cache = make_cache(folder, splits)
    count(config, folder, cache, recorder, rank=rank, say=said.append)  # type: ignore[arg-type]
    return recorder, said


@pytest.mark.parametrize("windows", ["stream", "packed", "padded"])
def test_validation_is_what_the_model_gives_each_target(tmp_path: Path, windows: str) -> None:
    recorder, _ = counted(tmp_path, f"data.windows={windows}", "data.sequence_length=64", "data.batch_size=4")
    config = lmexp.compose(["model=ngram"]).model
    assert config is not None
    model = config.build(vocab_size=VOCAB, sequence_length=64)
    model.load_state_dict(checkpoints.load_weights(tmp_path / "checkpoints" / "step-00000001"))
    nats = [
        -float(model(torch.tensor([[EOS, *document[:-1]]])).log_softmax(-1)[0, range(len(document)), document].sum())
        for document in SPLITS["validation"]
    ]
    loss = sum(nats) / sum(map(len, SPLITS["validation"]))
    exact = windows != "stream"  # whose windows cut through documents
    assert recorder.rows[1]["validation/loss"] == pytest.approx(loss, rel=1e-6 if exact else 0.02)


def test_without_validation_split_there_are_counts_alone(tmp_path: Path) -> None:
    recorder, said = counted(tmp_path, splits={"train": SPLITS["train"]})
    assert not [name for name in recorder.rows[1] if name.startswith("validation/")]
    assert recorder.rows[1]["train/tokens"] == sum(map(len, SPLITS["train"]))
    assert any("KenLM's fallback" in line for line in said)


def test_the_first_process_counts_once(tmp_path: Path) -> None:
    assert counted(tmp_path / "other", rank=1)[1] == []
    assert not list((tmp_path / "other").glob("checkpoints/*"))
    _, said = counted(tmp_path / "first")
    assert said
    assert counted(tmp_path / "first")[1] == []


def test_a_checkpoint_of_another_order_is_refused(corpus: Path) -> None:
    run = lmexp.train(lmexp.compose([*TINY, "evaluation=[]"]), say=lambda line: None)
    path = run.path / "run.json"
    path.write_text(path.read_text(encoding="utf-8").replace('"order": 3', '"order": 32'), encoding="utf-8")
    with pytest.raises(CheckpointError, match="aren't those of the model"):
        lmexp.load(run.path)
