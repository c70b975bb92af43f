"""Evaluations while training goes on, as a user meets them: killed, stopped, by two processes, and done again after."""

from __future__ import annotations

import signal
import subprocess
from pathlib import Path
from typing import Any

import pytest

from lmexp.cli.main import main
from lmexp.evaluation.samples_file import read_samples
from lmexp.training import checkpoints
from tests.end_to_end.command import (
    TINY,
    command,
    environment,
    json_file,
    lmexp,
    only_run,
    rows,
    same_result,
    write_corpus,
)
from tests.torture.runs import temporary_files

DRAWING = """
import os, random, signal, time
import numpy as np, torch
from lmexp.evaluation.row import Row

def is_now(variable, context):
    return os.environ.get(variable) == f"{context.step}:{context.rank}"

class Drawing:
    def run(self, context):
        drawn = float(torch.rand(())) + float(np.random.rand()) + random.random()
        if is_now("KILL", context):
            os.kill(os.getpid(), signal.SIGKILL)
        if is_now("STOP", context):
            os.kill(os.getpid(), signal.SIGTERM)
            for done in range(10**9):
                context.progress("drawing", done, 10**9)
                time.sleep(0.001)
        return [Row(name="drawing/sum", split="test", definition="numbers drawn", estimate=drawn)]
"""

RUN = (
    *TINY,
    "trainer.max_steps=8",
    "model.dropout=0.2",
    "trainer.accumulate_grad_batches=2",
    "trainer.ema_decay=0.9",
    "checkpoint.keep=all",
    "logger.log_every_n_steps=1",
)
MEASURED = (
    "evaluation=[perplexity,baselines,custom,samples]",
    "evaluation.custom.target=drawing:Drawing",
    "evaluation.custom.every_n_steps=2",
    "evaluation.perplexity.every_n_steps=2",
    "evaluation.perplexity.weights=ema",
    "evaluation.baselines.every_n_steps=4",
    "evaluation.baselines.weights=ema",
    "evaluation.samples.every_n_steps=2",
    "evaluation.samples.prompts=['','the cat ']",
    "evaluation.samples.max_new_tokens=3",
)


def make_folder(path: Path) -> Path:
    write_corpus(path)
    (path / "drawing.py").write_text(DRAWING)
    return path


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a corpus, a package, and two runs: with evaluations during training, and without."""
    path = make_folder(tmp_path_factory.mktemp("during"))
    lmexp(path, "train", *RUN, *MEASURED, "run.root=with", plugins=("drawing",))
    lmexp(path, "train", *RUN, "run.root=without")
    return path


def by_step(run: Path) -> dict[int, dict[str, Any]]:
    """Figures of evaluations during training."""
    found: dict[int, dict[str, Any]] = {}
    for row in rows(run / "metrics.jsonl"):
        found.setdefault(row["step"], {}).update({k: v for k, v in row.items() if k.startswith("evaluation/")})
    return {step: figures for step, figures in found.items() if figures}


def check_untouched(measured: Path, plain: Path) -> None:
    """Weights and their average by SHA-256, optimizer and all other state, rows and losses are the same."""
    folders = [checkpoints.steps(run / "checkpoints") for run in (measured, plain)]
    assert [f.name for f in folders[0]] == [f.name for f in folders[1]]
    for one, two in zip(*folders, strict=True):
        files = [checkpoints.verify(f).files for f in (one, two)]
        assert files[0] == files[1], one.name
    kept = [row for row in rows(measured / "metrics.jsonl") if not any(k.startswith("evaluation/") for k in row)]
    assert kept == rows(plain / "metrics.jsonl")
    assert (measured / "losses.f64").read_bytes() == (plain / "losses.f64").read_bytes()


def test_no_weight_changes_and_nothing_else(folder: Path) -> None:
    measured = only_run(folder / "with")
    check_untouched(measured, only_run(folder / "without"))
    assert list(by_step(measured)) == [2, 4, 6, 8]
    figures = by_step(measured)[4]
    assert figures["evaluation/baselines/lift_over_unigram"] == pytest.approx(
        figures["evaluation/baselines/unigram_bits_per_byte"] - figures["evaluation/perplexity/bits_per_byte"]
    )
    assert len({f["evaluation/drawing/sum"] for f in by_step(measured).values()}) == 4


def test_figures_equal_those_of_the_checkpoint(
    folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(folder)
    run = only_run(folder / "with")
    typed = ("evaluation=[perplexity,baselines]", "evaluation.baselines.weights=ema")
    assert (
        main(["-p", "drawing", "evaluate", f"run={run}", "weights=4", *typed, "evaluation.perplexity.weights=ema"]) == 0
    )
    (path,) = (run / "evaluation").glob("evaluate-*[0-9a-f].json")
    measured = {
        f"evaluation/{row['name']}{end}": row[key]
        for row in json_file(path)["rows"]
        for end, key in (("", "estimate"), ("/low", "low"), ("/high", "high"))
        if row[key] is not None
    }
    then = by_step(run)[4]
    assert {name: value for name, value in then.items() if "drawing" not in name and "samples" not in name} == measured
    during, after = (
        read_samples(run / "evaluation" / "perplexity" / n) for n in ("step-00000004.parquet", "samples.parquet")
    )
    assert during.table.drop_columns(["latency"]).equals(after.table.drop_columns(["latency"]))
    assert (
        after.header.key.model
        == checkpoints.read_manifest(run / "checkpoints" / "step-00000004").files[checkpoints.EMA]
    )


def test_kill_9_within_an_evaluation_then_resume_equals_the_uninterrupted_run(folder: Path, tmp_path: Path) -> None:
    make_folder(tmp_path)
    typed = command("train", *RUN, *MEASURED, plugins=("drawing",))
    killed = subprocess.run(typed, cwd=tmp_path, env=environment(KILL="6:0"), capture_output=True, timeout=300)
    assert killed.returncode == -signal.SIGKILL
    run = only_run(tmp_path / "outputs")
    assert (run / "evaluation" / "perplexity" / "step-00000006.parquet").exists(), "the first of three was done"
    (run / "evaluation" / "perplexity" / "step-00000099.parquet").write_text("of a step that isn't there")
    lmexp(tmp_path, "resume", str(run), plugins=("drawing",))
    undisturbed = only_run(folder / "with")
    same_result(undisturbed, run)
    texts = [sorted((one / "evaluation" / "samples").iterdir()) for one in (undisturbed, run)]
    assert [path.name for path in texts[0]] == [path.name for path in texts[1]]
    assert [path.read_bytes() for path in texts[0]] == [path.read_bytes() for path in texts[1]]
    assert len(texts[0]) == 5, "of four steps, and of the end"
    assert not temporary_files(run)
    assert not list((run / "evaluation").glob("*/parts-*"))


def test_data_that_is_missing_is_said_before_there_is_a_run(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(folder)
    typed = ["train", *RUN, "data.validation_fraction=0", "data.test_fraction=0", f"run.root={tmp_path}"]
    assert main([*typed, "evaluation.perplexity.every_n_steps=2", "checkpoint.keep=last"]) == 2
    assert "evaluation.perplexity.every_n_steps=2: there is nothing to evaluate: the corpus has no test" in (
        capsys.readouterr().err
    )
    assert not list(tmp_path.rglob("run.json"))


def test_what_lmexp_evaluate_can_not_do_is_said(
    folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(folder)
    run = only_run(folder / "with")
    assert main(["-p", "drawing", "evaluate", f"run={run}", "evaluation.perplexity.every_n_steps=2"]) == 2
    assert "every_n_steps=2 is for training" in capsys.readouterr().err
    lean = ["trainer.max_steps=1", "trainer.ema_decay=null", "evaluation=[]", "run.root=lean"]
    assert main(["train", *RUN, *lean]) == 0
    run = only_run(folder / "lean")
    assert main(["evaluate", f"run={run}", "evaluation=[perplexity]", "evaluation.perplexity.weights=ema"]) == 2
    assert "the run keeps no moving average of its weights" in capsys.readouterr().err


@pytest.fixture(scope="module")
def by_two(folder: Path) -> Path:
    """The run with evaluations, by two processes."""
    lmexp(folder, "train", *RUN, *MEASURED, "trainer.devices=2", "run.root=two", plugins=("drawing",))
    return only_run(folder / "two")


@pytest.mark.slow
def test_two_processes_change_no_weight_either_and_find_the_same(folder: Path, by_two: Path) -> None:
    lmexp(folder, "train", *RUN, "trainer.devices=2", "run.root=two-without")
    check_untouched(by_two, only_run(folder / "two-without"))
    one = by_step(only_run(folder / "with"))
    for step, figures in by_step(by_two).items():
        assert figures == pytest.approx(one[step], rel=0.1), "dropout draws other numbers"


@pytest.mark.slow
@pytest.mark.parametrize("rank", [0, 1])
def test_a_signal_to_one_of_two_processes_ends_a_long_evaluation_and_the_run_goes_on(
    by_two: Path, tmp_path: Path, rank: int
) -> None:
    make_folder(tmp_path)
    typed = ("train", *RUN, *MEASURED, "trainer.devices=2")
    lmexp(tmp_path, *typed, plugins=("drawing",), code=75, STOP=f"4:{rank}")
    run = only_run(tmp_path / "outputs")
    state = json_file(run / "state.json")
    assert (state["state"], state["step"]) == ("preempted", 4)
    assert list(by_step(run)) == [2]
    lmexp(tmp_path, "resume", str(run), plugins=("drawing",))
    same_result(by_two, run)
