"""A run that was killed goes on as if nothing had happened."""

from __future__ import annotations

import shutil
import signal
import subprocess
from pathlib import Path

import pytest

from lmexp.runs import folder
from lmexp.training import checkpoints
from tests.end_to_end.command import (
    TINY,
    command,
    environment,
    json_file,
    kill_when,
    lmexp,
    only_run,
    rows,
    same_result,
    write_corpus,
)

LONG = ("trainer.max_steps=60", "model.dropout=0.2", "trainer.accumulate_grad_batches=2", "checkpoint.keep=last")


@pytest.fixture(scope="module")
def uninterrupted(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run that nobody disturbed, and its folder."""
    cwd = tmp_path_factory.mktemp("uninterrupted")
    write_corpus(cwd)
    lmexp(cwd, "train", *TINY, *LONG)
    return cwd


@pytest.mark.parametrize("step", [3, 21, 42])
def test_kill_9_then_resume_equals_the_uninterrupted_run(uninterrupted: Path, tmp_path: Path, step: int) -> None:
    write_corpus(tmp_path)
    process = subprocess.Popen(
        command("train", *TINY, *LONG), cwd=tmp_path, env=environment(), text=True, stdout=subprocess.DEVNULL
    )
    kill_when(process, tmp_path / "outputs", step, signal.SIGKILL)
    process.wait()
    run = only_run(tmp_path / "outputs")
    assert json_file(run / "state.json")["state"] == "running"
    listed = lmexp(tmp_path, "runs").stdout
    assert "killed" in listed
    lmexp(tmp_path, "resume", str(run))
    assert json_file(run / "state.json")["state"] == "done"
    same_result(only_run(uninterrupted / "outputs"), run)


@pytest.mark.parametrize(
    ("number", "code", "state"), [(signal.SIGINT, 130, "interrupted"), (signal.SIGTERM, 75, "preempted")]
)
def test_a_signal_saves_and_the_resumed_run_equals_the_uninterrupted_one(
    uninterrupted: Path, tmp_path: Path, number: int, code: int, state: str
) -> None:
    write_corpus(tmp_path)
    process = subprocess.Popen(
        command("train", *TINY, *LONG), cwd=tmp_path, env=environment(), text=True, stdout=subprocess.DEVNULL
    )
    kill_when(process, tmp_path / "outputs", 15, number)
    assert process.wait(timeout=60) == code
    run = only_run(tmp_path / "outputs")
    assert json_file(run / "state.json")["state"] == state
    assert (run / "checkpoints" / "LATEST").exists()
    lmexp(tmp_path, "resume", str(run))
    same_result(only_run(uninterrupted / "outputs"), run)


def test_a_damaged_checkpoint_is_reported_and_the_one_before_is_used(uninterrupted: Path, tmp_path: Path) -> None:
    write_corpus(tmp_path)
    process = subprocess.Popen(
        command("train", *TINY, *LONG, "checkpoint.keep_last=5"),
        cwd=tmp_path,
        env=environment(),
        text=True,
        stdout=subprocess.DEVNULL,
    )
    kill_when(process, tmp_path / "outputs", 39, signal.SIGKILL)
    process.wait()
    run = only_run(tmp_path / "outputs")
    newest = checkpoints.find(run / "checkpoints", "latest")
    content = bytearray((newest / "model.safetensors").read_bytes())
    content[-7] ^= 1
    (newest / "model.safetensors").write_bytes(content)
    done = lmexp(tmp_path, "resume", str(run))
    assert "damaged" in done.stdout
    assert f"{newest.name}/model.safetensors" in done.stdout
    first, second = only_run(uninterrupted / "outputs"), run
    assert (first / "metrics.jsonl").read_bytes() == (second / "metrics.jsonl").read_bytes()


def test_rows_after_the_checkpoint_are_moved_to_discarded(tmp_path: Path) -> None:
    write_corpus(tmp_path)
    process = subprocess.Popen(
        command("train", *TINY, *LONG, "checkpoint.every_n_steps=50", "trainer.val_every_n_steps=60"),
        cwd=tmp_path,
        env=environment(),
        text=True,
        stdout=subprocess.DEVNULL,
    )
    kill_when(process, tmp_path / "outputs", 30, signal.SIGKILL)
    process.wait()
    run = only_run(tmp_path / "outputs")
    lmexp(tmp_path, "resume", str(run))
    steps = [row["step"] for row in rows(run / "metrics.jsonl") if "train/loss" in row]
    assert steps == sorted(set(steps)) == list(range(3, 61, 3))
    assert any(row.get("step") == 30 for row in rows(run / "discarded.jsonl"))


def test_a_finished_run_is_not_run_again(uninterrupted: Path) -> None:
    run = only_run(uninterrupted / "outputs")
    done = lmexp(uninterrupted, "resume", str(run), code=2)
    assert "the run is done" in done.stderr


def test_a_run_that_is_done_but_for_its_report_gets_it(uninterrupted: Path, tmp_path: Path) -> None:
    shutil.copytree(uninterrupted, tmp_path / "copy")
    run = only_run(tmp_path / "copy" / "outputs")
    folder.write_state(run, "done", phase="evaluating")
    (run / "report.html").unlink()
    before = (run / "metrics.jsonl").read_bytes()
    assert "report: " in lmexp(tmp_path, "resume", str(run)).stdout
    assert (run / "report.html").exists()
    assert (run / "metrics.jsonl").read_bytes() == before
    assert "the run is done" in lmexp(tmp_path, "resume", str(run), code=2).stderr
