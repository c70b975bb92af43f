"""Muon by the command: two processes follow one, and a kill costs nothing."""

from __future__ import annotations

import signal
import subprocess
from pathlib import Path

import pytest

from lmexp.training import checkpoints
from tests.end_to_end.command import (
    TINY,
    command,
    environment,
    kill_when,
    lmexp,
    only_run,
    rows,
    same_result,
    write_corpus,
)

MUON = ("optimizer=muon", "optimizer.layer_decay=0.9", "trainer.ema_decay=0.9", "logger.log_every_n_steps=1")


def test_two_processes_follow_one_with_muon(tmp_path: Path) -> None:
    write_corpus(tmp_path)
    for count in (1, 2):
        lmexp(tmp_path, "train", *TINY, *MUON, f"trainer.devices={count}", f"run.root=by-{count}")
    one, two = (only_run(tmp_path / f"by-{count}") for count in (1, 2))
    for a, b in zip(rows(one / "metrics.jsonl"), rows(two / "metrics.jsonl"), strict=True):
        assert a.keys() == b.keys()
        for key in ("train/loss", "validation/loss", "train/grad_norm", "train/learning_rate"):
            if key in a:
                assert b[key] == pytest.approx(a[key], rel=1e-5), (a["step"], key)
    states = [checkpoints.load_state(checkpoints.find(run / "checkpoints", "latest")) for run in (one, two)]
    names = [[group["param_names"] for group in state["optimizer_states"][0]["param_groups"]] for state in states]
    assert names[0] == names[1]


@pytest.mark.slow
def test_kill_9_then_resume_equals_the_uninterrupted_run_with_muon(tmp_path: Path) -> None:
    typed = ("train", *TINY, *MUON, "trainer.max_steps=60", "model.dropout=0.2", "checkpoint.keep=last")
    for name in ("whole", "killed"):
        (tmp_path / name).mkdir()
        write_corpus(tmp_path / name)
    lmexp(tmp_path / "whole", *typed)
    process = subprocess.Popen(
        command(*typed), cwd=tmp_path / "killed", env=environment(), text=True, stdout=subprocess.DEVNULL
    )
    kill_when(process, tmp_path / "killed" / "outputs", 21, signal.SIGKILL)
    process.wait()
    run = only_run(tmp_path / "killed" / "outputs")
    lmexp(tmp_path / "killed", "resume", str(run))
    same_result(only_run(tmp_path / "whole" / "outputs"), run)
