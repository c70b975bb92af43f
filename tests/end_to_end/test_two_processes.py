"""Two processes compute what one computes."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.end_to_end.command import (
    TINY,
    command,
    environment,
    json_file,
    kill_when,
    lmexp,
    only_run,
    rows,
    write_corpus,
)
from tests.torture.runs import children, descendants, last_step, saved_step, wait_until_gone

STEPS = ("trainer.max_steps=100", "trainer.val_every_n_steps=25", "checkpoint.keep=last", "logger.log_every_n_steps=1")


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> dict[int, Path]:
    """The same config run by one and by two processes (gloo): processes -> run folder."""
    folder = tmp_path_factory.mktemp("ddp")
    write_corpus(folder)
    for count in (1, 2):
        lmexp(folder, "train", *TINY, *STEPS, f"trainer.devices={count}", f"run.root=by-{count}")
    return {count: only_run(folder / f"by-{count}") for count in (1, 2)}


def test_two_processes_follow_one_at_the_same_global_batch(runs: dict[int, Path]) -> None:
    one, two = (rows(runs[count] / "metrics.jsonl") for count in (1, 2))
    assert [row["step"] for row in one] == [row["step"] for row in two]
    for a, b in zip(one, two, strict=True):
        assert a.keys() == b.keys()
        for key in ("train/loss", "validation/loss", "train/grad_norm"):
            if key in a:
                assert b[key] == pytest.approx(a[key], rel=1e-5), (a["step"], key)
    assert len([row for row in one if "train/loss" in row]) == 100


def test_two_processes_share_one_run_folder(runs: dict[int, Path]) -> None:
    run = runs[2]
    assert json_file(run / "state.json")["state"] == "done"
    assert (run / "logs" / "rank-0.log").exists()
    assert (run / "logs" / "rank-1.log").exists()
    assert (run / "report.html").exists()


def test_figures_do_not_depend_on_batch_size_or_processes(runs: dict[int, Path]) -> None:
    """Counts exactly; nats to 1e-10 with the model in float64."""
    run = runs[1]
    folder = run.parents[2]
    found = []
    for processes in (1, 2):
        for batch_size in (1, 7, 32):
            lmexp(
                folder,
                "evaluate",
                f"run={run}",
                "evaluation=[perplexity]",
                f"evaluation.perplexity.batch_size={batch_size}",
                f"trainer.devices={processes}",
                "trainer.precision=64",
            )
            newest = max((run / "evaluation").glob("evaluate-*[0-9a-f].json"), key=lambda path: path.stat().st_mtime_ns)
            found.append({row["name"]: row for row in json_file(newest)["rows"]})
    assert len(found) == 6
    first = found[0]
    for other in found[1:]:
        assert (
            other.keys() == first.keys() >= {"perplexity/perplexity", "perplexity/bits_per_byte", "perplexity/accuracy"}
        )
        for name, row in other.items():
            assert row["estimate"] == pytest.approx(first[name]["estimate"], rel=1e-10), name
            assert (row["n"], row["n_clusters"]) == (first[name]["n"], first[name]["n_clusters"])
        assert other["perplexity/accuracy"]["estimate"] == first["perplexity/accuracy"]["estimate"]


def test_ctrl_c_saves_once_and_the_run_goes_on(runs: dict[int, Path], tmp_path: Path) -> None:
    write_corpus(tmp_path)
    typed = ("train", *TINY, *STEPS, "trainer.devices=2")
    process = subprocess.Popen(
        command(*typed), cwd=tmp_path, env=environment(), text=True, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL
    )
    kill_when(process, tmp_path / "outputs", 30, signal.SIGINT)
    said = process.communicate(timeout=90)[0]
    assert process.returncode == 130, said
    run = only_run(tmp_path / "outputs")
    state = json_file(run / "state.json")
    assert state["state"] == "interrupted"
    assert state["step"] >= 30
    assert "go on with: lmexp resume" in said
    lmexp(tmp_path, "resume", str(run))
    assert (run / "metrics.jsonl").read_bytes() == (runs[2] / "metrics.jsonl").read_bytes()


def test_ctrl_c_saves_though_nobody_reads_what_is_said_any_more(runs: dict[int, Path], tmp_path: Path) -> None:
    """`lmexp train | tee log`: the Ctrl-C ends tee, too."""
    write_corpus(tmp_path)
    typed = ("train", *TINY, *STEPS, "trainer.devices=2", "trainer.val_every_n_steps=1")
    process = subprocess.Popen(
        command(*typed), cwd=tmp_path, env=environment(), text=True, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL
    )
    assert process.stdout is not None
    assert "step 15  validation" in next(line for line in process.stdout if "step 15 " in line)
    process.stdout.close()
    process.send_signal(signal.SIGINT)
    assert process.wait(timeout=90) == 130
    state = json_file(only_run(tmp_path / "outputs") / "state.json")
    assert (state["state"], state["step"] >= 15) == ("interrupted", True)


def test_a_failing_rank_ends_the_run_and_its_error_is_shown(tmp_path: Path) -> None:
    (tmp_path / "faulty.py").write_text(
        "import os, torch\n"
        "class Net(torch.nn.Module):\n"
        "    def __init__(self, vocab_size, sequence_length):\n"
        "        super().__init__()\n"
        "        self.max_sequence_length = sequence_length\n"
        "        self.table = torch.nn.Embedding(vocab_size, vocab_size)\n"
        "    def forward(self, tokens):\n"
        "        if os.environ.get('RANK') == '1':\n"
        "            raise RuntimeError('planted on rank one')\n"
        "        return self.table(tokens)\n",
        encoding="utf-8",
    )
    write_corpus(tmp_path)
    tiny = [o for o in TINY if not o.startswith("model.")]
    done = lmexp(
        tmp_path,
        "train",
        *tiny,
        "model=custom",
        "model.target=faulty:Net",
        "trainer.devices=2",
        plugins=("faulty",),
        code=1,
    )
    assert "rank 1: RuntimeError: planted on rank one" in done.stderr
    run = only_run(tmp_path / "outputs")
    assert json_file(run / "state.json")["state"] == "failed"
    assert "planted on rank one" in (run / "logs" / "rank-1.log").read_text(encoding="utf-8")


def start_endless(folder: Path) -> tuple[subprocess.Popen[str], Path]:
    """Two processes that would train for hours and have done 20 steps, and their run."""
    write_corpus(folder)
    process = subprocess.Popen(
        command("train", *TINY, *STEPS, "trainer.devices=2", "trainer.max_steps=1000000"),
        cwd=folder,
        env=environment(),
        text=True,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
    )
    while not list(folder.glob("outputs/*/*/run.json")) or (last_step(only_run(folder / "outputs")) or 0) < 20:
        assert process.poll() is None
        time.sleep(0.01)
    return process, only_run(folder / "outputs")


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux tells a child of its parent's death")
@pytest.mark.parametrize("target", ["the command", "torchrun"])
def test_a_kill_9_of_the_command_or_of_torchrun_leaves_no_orphans(tmp_path: Path, target: str) -> None:
    process, run = start_endless(tmp_path)
    alive = descendants(process.pid)
    os.kill(process.pid if target == "the command" else alive[0], signal.SIGKILL)
    said = process.communicate(timeout=60)[1]
    assert process.returncode == (-signal.SIGKILL if target == "the command" else 75), said
    wait_until_gone(alive, 30)
    state = json_file(run / "state.json")
    assert (state["state"], state["step"]) == ("preempted", last_step(run))
    assert state["step"] == saved_step(run)


def test_a_killed_rank_is_named_with_its_signal_and_the_run_goes_on(runs: dict[int, Path], tmp_path: Path) -> None:
    write_corpus(tmp_path)
    process = subprocess.Popen(
        command("train", *TINY, *STEPS, "trainer.devices=2"),
        cwd=tmp_path,
        env=environment(),
        text=True,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
    )
    while not list(tmp_path.glob("outputs/*/*/run.json")) or (last_step(only_run(tmp_path / "outputs")) or 0) < 20:
        assert process.poll() is None
        time.sleep(0.002)
    run = only_run(tmp_path / "outputs")
    (torchrun,) = children(process.pid)
    os.kill(children(torchrun)[1], signal.SIGKILL)
    said = process.communicate(timeout=60)[1]
    assert process.returncode == 1
    assert "rank 1 was killed by SIGKILL (signal 9)" in said
    state = json_file(run / "state.json")
    assert state["state"] == "failed"
    assert "rank 1 was killed by SIGKILL (signal 9)" in state["message"]
    lmexp(tmp_path, "resume", str(run))
    assert (run / "metrics.jsonl").read_bytes() == (runs[2] / "metrics.jsonl").read_bytes()
