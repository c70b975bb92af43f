"""A run that was killed goes on as if nothing had happened."""

from __future__ import annotations

import os
import signal
import subprocess
import time
from pathlib import Path

import pytest
import torch

from lmexp.training import checkpoints
from tests.end_to_end.command import TINY, command, environment, json_file, lmexp, only_run, rows, write_corpus

LONG = ("trainer.max_steps=60", "model.dropout=0.2", "trainer.accumulate_grad_batches=2", "checkpoint.keep=last")


def same_result(a: Path, b: Path) -> None:
    """Weights, optimizer state and metrics are equal to the last bit."""
    last_a, last_b = (checkpoints.find(run / "checkpoints", "latest") for run in (a, b))
    weights_a, weights_b = checkpoints.load_weights(last_a), checkpoints.load_weights(last_b)
    assert weights_a.keys() == weights_b.keys()
    for name, tensor in weights_a.items():
        assert torch.equal(tensor, weights_b[name]), name
    assert _leaves(checkpoints.load_state(last_a)["optimizer_states"]) == _leaves(
        checkpoints.load_state(last_b)["optimizer_states"]
    )
    assert (a / "metrics.jsonl").read_bytes() == (b / "metrics.jsonl").read_bytes()
    summaries = [json_file(run / "evaluation" / "summary.json")["rows"] for run in (a, b)]
    assert summaries[0] == summaries[1]


def _leaves(value: object) -> object:
    if isinstance(value, torch.Tensor):
        return value.tolist()
    if isinstance(value, dict):
        return {key: _leaves(v) for key, v in value.items()}
    return [_leaves(v) for v in value] if isinstance(value, list | tuple) else value


def kill_when(process: subprocess.Popen[str], run_root: Path, step: int, number: int) -> None:
    """Send a signal once metrics.jsonl reaches a step."""
    deadline = time.monotonic() + 120
    while time.monotonic() < deadline and process.poll() is None:
        for path in run_root.glob("*/*/metrics.jsonl"):
            found = [line for line in path.read_text(encoding="utf-8").splitlines() if line.endswith("}")]
            if found and rows_step(found[-1]) >= step:
                os.kill(process.pid, number)
                return
        time.sleep(0.002)
    raise AssertionError("the run ended before it could be killed")


def rows_step(line: str) -> int:
    """The step of a JSON line."""
    import json

    return int(json.loads(line)["step"])


@pytest.fixture(scope="module")
def uninterrupted(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run that nobody disturbed, and its folder."""
    folder = tmp_path_factory.mktemp("uninterrupted")
    write_corpus(folder)
    lmexp(folder, "train", *TINY, *LONG)
    return folder


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
