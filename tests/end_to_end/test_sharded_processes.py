"""trainer.strategy=fsdp through the command: killed, stopped, taken to other numbers of processes, opened anywhere."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import time
from pathlib import Path

import pytest
import torch

import lmexp
from lmexp.training import checkpoints
from tests.end_to_end.command import (
    TINY,
    command,
    environment,
    json_file,
    only_run,
    rows,
    same_result,
    write_corpus,
)
from tests.end_to_end.command import lmexp as run_lmexp
from tests.torture.runs import children, last_step

STEPS = ("trainer.max_steps=100", "trainer.val_every_n_steps=25", "checkpoint.every_n_steps=10", "checkpoint.keep=last")
FSDP = ("trainer.devices=2", "trainer.strategy=fsdp")


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """The same 100 steps by one process and by two sharded ones, those that nobody disturbed."""
    folder = tmp_path_factory.mktemp("fsdp")
    write_corpus(folder)
    run_lmexp(folder, "train", *TINY, *STEPS, "logger.log_every_n_steps=1", "run.root=one")
    run_lmexp(folder, "train", *TINY, *STEPS, *FSDP, "logger.log_every_n_steps=1", "run.root=two")
    return {name: only_run(folder / name) for name in ("one", "two")}


def weights(run: Path) -> dict[str, torch.Tensor]:
    latest = checkpoints.latest(run / "checkpoints")
    assert latest is not None
    return checkpoints.load_weights(latest)


@pytest.mark.slow
def test_two_sharded_processes_equal_one_over_100_steps(runs: dict[str, Path]) -> None:
    """Every logged figure to a relative 1e-5, the final weights to 1e-4 (they are about 1)."""
    one, two = (rows(runs[name] / "metrics.jsonl") for name in ("one", "two"))
    assert [row["step"] for row in one] == [row["step"] for row in two]
    for a, b in zip(one, two, strict=True):
        assert a == pytest.approx(b, rel=1e-5)
    assert len([row for row in one if "train/loss" in row]) == 100
    torch.testing.assert_close(weights(runs["one"]), weights(runs["two"]), rtol=0, atol=1e-4)


@pytest.mark.slow
def test_what_two_sharded_processes_leave_opens_in_one(runs: dict[str, Path]) -> None:
    run = runs["two"]
    loaded = lmexp.load(run)
    assert loaded.step == 100
    assert loaded.generate("the", max_new_tokens=3)
    folder = run.parents[2]
    assert run_lmexp(folder, "generate", f"run={run}", "max_new_tokens=3").stdout
    run_lmexp(folder, "evaluate", f"run={run}", "evaluation=[perplexity]")
    newest = max((run / "evaluation").glob("evaluate-*[0-9a-f].json"), key=lambda path: path.stat().st_mtime_ns)
    own = {row["name"]: row["estimate"] for row in json_file(run / "evaluation" / "summary.json")["rows"]}
    assert {row["name"]: row["estimate"] for row in json_file(newest)["rows"]} == pytest.approx(own, rel=1e-6)


def start(folder: Path, *more: str) -> tuple[subprocess.Popen[str], Path]:
    """The same run, which has done 15 steps, and its folder."""
    write_corpus(folder)
    process = subprocess.Popen(
        command("train", *TINY, *STEPS, *FSDP, "logger.log_every_n_steps=1", *more),
        cwd=folder,
        env=environment(),
        text=True,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
    )
    while not list(folder.glob("outputs/*/*/run.json")) or (last_step(only_run(folder / "outputs")) or 0) < 15:
        assert process.poll() is None
        time.sleep(0.002)
    return process, only_run(folder / "outputs")


def worker(process: subprocess.Popen[str], rank: int) -> int:
    """Process id of a rank."""
    (torchrun,) = children(process.pid)
    return children(torchrun)[rank]


@pytest.mark.slow
def test_a_killed_rank_costs_no_bit(runs: dict[str, Path], tmp_path: Path) -> None:
    process, run = start(tmp_path)
    os.kill(worker(process, 1), signal.SIGKILL)
    said = process.communicate(timeout=120)[1]
    assert process.returncode == 1
    assert "rank 1 was killed by SIGKILL (signal 9)" in said
    run_lmexp(tmp_path, "resume", str(run))
    same_result(run, runs["two"])


@pytest.mark.slow
def test_one_rank_asked_to_stop_stops_both_and_one_process_goes_on(runs: dict[str, Path], tmp_path: Path) -> None:
    process, run = start(tmp_path)
    os.kill(worker(process, 1), signal.SIGTERM)
    said = process.communicate(timeout=120)[1]
    assert process.returncode == 75, said
    state = json_file(run / "state.json")
    assert (state["state"], state["step"] >= 15) == ("preempted", True)
    latest = checkpoints.latest(run / "checkpoints")
    assert latest is not None
    assert checkpoints.step_of(latest) == state["step"]

    again = shutil.copytree(run, tmp_path / "again" / run.parent.name / run.name)
    run_lmexp(tmp_path, "resume", str(again))
    same_result(again, runs["two"])

    said = run_lmexp(tmp_path, "resume", str(run), "trainer.devices=1").stdout
    assert "trainer.strategy=fsdp: one process" in said
    assert json_file(run / "run.json")["changes"][0]["changed"] == {"trainer.devices": [2, 1]}
    for a, b in zip(rows(runs["one"] / "metrics.jsonl"), rows(run / "metrics.jsonl"), strict=True):
        assert a == pytest.approx(b, rel=1e-5)
