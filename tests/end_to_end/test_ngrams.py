"""n-gram models as the command runs them: published figures, a kill, two processes."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import time
from pathlib import Path

import pytest

import lmexp
from tests.end_to_end.command import command, environment, json_file, write_corpus
from tests.end_to_end.command import lmexp as run_lmexp
from tests.training.test_counting import TINY, files_of, rows_of


def figures(path: Path) -> tuple[dict[str, float], dict[str, float]]:
    """What was logged while the run counted, and what its evaluations found."""
    (logged,) = [json.loads(line) for line in (path / "metrics.jsonl").read_text(encoding="utf-8").splitlines()]
    return logged, rows_of(path)


def run(folder: Path, monkeypatch: pytest.MonkeyPatch, *overrides: str) -> Path:
    monkeypatch.chdir(folder)
    return lmexp.train(lmexp.compose(["logger=files", *overrides]), say=lambda line: None).path


def test_witten_bell_on_characters_of_tinyshakespeare(
    shared_data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Known: 1.669 nats for 5-grams and 2.486 for bigrams on nanoGPT's split, the last tenth held out."""
    path = run(
        tmp_path,
        monkeypatch,
        "model=ngram",
        "model.smoothing=witten_bell",
        "data=tinyshakespeare",
        f"data.path={shared_data / 'tinyshakespeare'}",
        "data.sequence_length=4096",
        "tokenizer=char",
    )
    logged, found = figures(path)
    assert found["perplexity/loss"] == pytest.approx(1.669, abs=0.002)
    assert logged["validation/loss"] == pytest.approx(found["perplexity/loss"], abs=1e-6)
    nats = found["baselines/bigram_bits_per_byte"] * 0.693147
    assert nats == pytest.approx(2.486, abs=0.002)


def test_bigrams_of_names(shared_data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Known from makemore: 2.4540 nats for bigrams counted on all names, on the same names.

    The file is one document, its line ends the marks between names; so there are few clusters to resample.
    """
    path = run(
        tmp_path,
        monkeypatch,
        "model=ngram",
        "model.order=2",
        "model.smoothing=mle",
        "data=text_files",
        f"data.path={shared_data / 'names' / 'names.txt'}",
        "data.validation_fraction=0",
        "data.test_fraction=0",
        "data.sequence_length=8192",
        "tokenizer=char",
        "evaluation=[perplexity]",
        "evaluation.perplexity.split=train",
    )
    assert figures(path)[1]["perplexity/loss"] == pytest.approx(2.4540, abs=5e-4)


@pytest.mark.slow
@pytest.mark.timeout(1800)  # about a minute on a core of its own
def test_kneser_ney_on_wikitext2(shared_data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Known: perplexity 234.86 on the validation split and 220.14 on the test split."""
    data = f"data.path={shared_data / 'wikitext-2'}"
    path = run(tmp_path, monkeypatch, "experiment=wikitext2_kneser_ney", data, "evaluation=[perplexity]")
    logged, found = figures(path)
    assert logged["train/tokens"] == 2_088_628  # words, and an end for each of the 36,718 lines, blank ones too
    assert logged["validation/perplexity"] == pytest.approx(234.86, abs=0.01)
    assert found["perplexity/perplexity"] == pytest.approx(220.14, abs=0.01)


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_a_run_killed_while_it_counts_ends_as_one_that_nobody_disturbed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_corpus(tmp_path, n_lines=60_000)
    overrides = [*TINY, "evaluation=[perplexity,samples]", "evaluation.perplexity.max_tokens=5000"]
    whole = run(tmp_path, monkeypatch, *overrides, "run.folder=whole")
    typed = command("train", *overrides, "run.folder=killed")
    with subprocess.Popen(typed, cwd=tmp_path, env=environment(), stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        for line in process.stdout:
            if line.startswith("counting"):
                time.sleep(0.05)
                os.kill(process.pid, signal.SIGKILL)
    killed = _only(tmp_path / "outputs" / "killed")
    assert json_file(killed / "state.json")["state"] == "running"
    run_lmexp(tmp_path, "resume", str(killed))
    assert files_of(killed) == files_of(whole)


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_two_processes_end_as_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_corpus(tmp_path)
    one = run(tmp_path, monkeypatch, *TINY, "run.folder=one")
    run_lmexp(tmp_path, "train", *TINY, "run.folder=two", "trainer.devices=2", "trainer.accelerator=cpu")
    assert files_of(_only(tmp_path / "outputs" / "two")) == files_of(one)


def _only(folder: Path) -> Path:
    (path,) = (found.parent for found in folder.glob("*/run.json"))
    return path
