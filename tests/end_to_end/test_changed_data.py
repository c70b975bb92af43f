"""A run goes on with the data that it began with, or says what has changed."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from lmexp.cli.main import main
from lmexp.tokenizers import base as tokenizers
from tests.end_to_end.command import TINY, json_file, only_run, rows, write_corpus

Captured = pytest.CaptureFixture[str]

BOOM = """
import pytorch_lightning as pl
from pathlib import Path

class Boom(pl.Callback):
    def on_train_batch_end(self, trainer, *_):
        if trainer.global_step == 6 and not Path("calm").exists():
            raise RuntimeError("boom")
"""
STOPS = (*TINY, "callbacks=[custom]", "callbacks.custom.target=boom_pkg:Boom", "launcher.threads_per_process=1")


@pytest.fixture
def stopped(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The current folder, with a run on corpus.txt that failed after its checkpoint at step 4, and would go on now."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    write_corpus(tmp_path)
    (tmp_path / "boom_pkg.py").write_text(BOOM)
    with pytest.raises(RuntimeError, match="boom"):
        main(["-pboom_pkg", "train", *STOPS, "tokenizer=char"])
    (tmp_path / "calm").touch()
    return tmp_path


def resume(run: Path, *options: str) -> int:
    return main(["-pboom_pkg", "resume", str(run), *options])


def caches(folder: Path) -> list[Path]:
    return [path.parent for path in (folder / "outputs" / "cache").glob("*/cache.json")]


def test_with_its_cache_a_run_needs_the_corpus_no_more(stopped: Path) -> None:
    (stopped / "corpus.txt").unlink()
    run = only_run(stopped / "outputs")
    assert resume(run) == 0
    assert json_file(run / "state.json")["state"] == "done"
    (fingerprint,) = json_file(run / "run.json")["data_fingerprints"]
    assert json_file(run / "receipt.json")["data_fingerprint"] == fingerprint
    assert main(["-pboom_pkg", "evaluate", f"run={run}", "evaluation=[perplexity]"]) == 0


def test_a_run_and_its_caches_may_be_moved_together(stopped: Path) -> None:
    (stopped / "corpus.txt").unlink()
    (stopped / "outputs").rename(stopped / "elsewhere")
    assert resume(only_run(stopped / "elsewhere")) == 0
    assert not (stopped / "outputs").exists()


def test_a_cache_that_is_gone_is_made_again_from_the_same_corpus(stopped: Path, capsys: Captured) -> None:
    (cache,) = caches(stopped)
    before = {path.name: path.read_bytes() for path in cache.glob("*.tokens")}
    shutil.rmtree(cache)
    run = only_run(stopped / "outputs")
    assert resume(run) == 0
    assert f"{cache.relative_to(stopped)} is gone; reading the corpus again" in capsys.readouterr().out
    assert {path.name: path.read_bytes() for path in cache.glob("*.tokens")} == before
    assert len(json_file(run / "run.json")["data_fingerprints"]) == 1


def test_a_cache_and_a_corpus_that_are_gone_are_both_named(stopped: Path, capsys: Captured) -> None:
    (cache,) = caches(stopped)
    shutil.rmtree(cache)
    (stopped / "corpus.txt").unlink()
    assert resume(only_run(stopped / "outputs")) == 2
    said = capsys.readouterr().err
    assert "data.path=corpus.txt" in said
    assert f"its token cache {cache.relative_to(stopped)} is gone, so the corpus is needed again" in said


def test_a_changed_corpus_is_refused_unless_it_is_accepted(stopped: Path, capsys: Captured) -> None:
    run = only_run(stopped / "outputs")
    (first,) = json_file(run / "run.json")["data_fingerprints"]
    before = tokenizers.load(run / "tokenizer.json").to_dict()
    shutil.rmtree(stopped / "outputs" / "cache")
    with open(stopped / "corpus.txt", "a", encoding="utf-8") as file:
        file.write("other letters: QXYZ ß\n" * 40)
    state = (run / "state.json").read_bytes()

    assert resume(run) == 2
    said = capsys.readouterr().err
    assert f"the corpus isn't the one that the run was trained on: expected fingerprint {first[:16]}, found " in said
    assert "documents read: 300 then, 340 now" in said
    assert f"lmexp resume {run} --allow-changed-data" in said
    assert (run / "state.json").read_bytes() == state, "nothing was started"
    assert json_file(run / "run.json")["data_fingerprints"] == [first]

    assert resume(run, "--allow-changed-data") == 0
    assert "the corpus has changed (documents read: 300 then, 340 now" in capsys.readouterr().out
    known = json_file(run / "run.json")["data_fingerprints"]
    assert (known[0], len(known)) == (first, 2)
    assert json_file(run / "receipt.json")["data_fingerprint"] == known[1]
    assert tokenizers.load(stopped / "outputs" / "cache" / known[1][:16] / "tokenizer.json").to_dict() == before
    assert rows(run / "metrics.jsonl")[-1]["step"] == 12

    shutil.rmtree(stopped / "outputs" / "cache")
    assert main(["-pboom_pkg", "evaluate", f"run={run}", "evaluation=[perplexity]"]) == 0
    assert [cache.name for cache in caches(stopped) if cache.name == known[1][:16]]


def test_accepting_data_that_has_not_changed_changes_nothing(stopped: Path) -> None:
    run = only_run(stopped / "outputs")
    before = json.loads((run / "run.json").read_text())
    assert resume(run, "--allow-changed-data") == 0
    assert json.loads((run / "run.json").read_text()) == before


def test_a_checkpoint_of_another_run_is_refused_and_may_be_accepted(stopped: Path, capsys: Captured) -> None:
    run = only_run(stopped / "outputs")
    body = json_file(run / "run.json")
    (stopped / "corpus.txt").write_text((stopped / "corpus.txt").read_text() + "one more line\n")
    (stopped / "calm").unlink()
    with pytest.raises(RuntimeError, match="boom"):
        main(["-pboom_pkg", "train", *STOPS, "tokenizer=char", "run.name=other"])
    (stopped / "calm").touch()
    (theirs,) = [path.parent for path in stopped.glob("outputs/other/*/run.json")]
    shutil.rmtree(theirs / "checkpoints")
    shutil.copytree(run / "checkpoints", theirs / "checkpoints")
    assert resume(theirs) == 2
    assert "it was trained on the data with fingerprint" in capsys.readouterr().err
    assert resume(theirs, "--allow-changed-data") == 0
    known = json_file(theirs / "run.json")["data_fingerprints"]
    assert known[1:] == [body["data_fingerprints"][0], known[0]]
