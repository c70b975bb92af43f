"""Run folders: exclusive, locked, and honest about their state."""

from __future__ import annotations

import json
import multiprocessing
import os
import signal
import threading
import time
from pathlib import Path

import pytest

from lmexp.errors import RunError
from lmexp.runs import folder


def hold(run_dir: Path) -> None:
    """Lock the run and wait to be killed."""
    with folder.lock(run_dir):
        folder.write_state(run_dir, "running")
        time.sleep(60)


def test_simultaneous_runs_get_folders_of_their_own(tmp_path: Path) -> None:
    with multiprocessing.get_context("fork").Pool(8) as pool:
        made = pool.starmap(folder.create, [(tmp_path, "same", "name")] * 100)
    assert len(set(made)) == 100
    assert all(folder.read_state(path).state == "created" for path in made)


def test_a_killed_process_frees_the_lock_and_the_state_says_killed(tmp_path: Path) -> None:
    run_dir = folder.create(tmp_path, "a", "b")
    process = multiprocessing.get_context("fork").Process(target=hold, args=(run_dir,))
    process.start()
    while folder.read_state(run_dir).state != "running":
        time.sleep(0.01)
    assert folder.state_now(run_dir) == "running"
    with pytest.raises(RunError, match=f"another process works on this run .*pid {process.pid}"), folder.lock(run_dir):
        pass
    assert process.pid is not None
    os.kill(process.pid, signal.SIGKILL)
    process.join()
    assert folder.state_now(run_dir) == "killed"
    with folder.lock(run_dir):
        assert folder.is_locked(run_dir)
    assert not folder.is_locked(run_dir)


def test_a_lock_is_waited_for_with_a_message(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run_dir = folder.create(tmp_path, "a", "b")
    process = multiprocessing.get_context("fork").Process(target=hold, args=(run_dir,))
    process.start()
    while folder.read_state(run_dir).state != "running":
        time.sleep(0.01)
    with pytest.raises(RunError, match="another process works on this run"), folder.lock(run_dir, patience=0.2):
        pass
    assert f"pid {process.pid}" in capsys.readouterr().out
    assert process.pid is not None
    ending = threading.Timer(0.3, os.kill, (process.pid, signal.SIGKILL))
    ending.start()
    with folder.lock(run_dir, patience=20):
        assert "waiting up to 20 s" in capsys.readouterr().out
    process.join()
    ending.join()


def test_what_a_killed_process_left_is_removed_but_not_what_others_write(tmp_path: Path) -> None:
    run_dir = folder.create(tmp_path, "a", "b")
    left = [".state.json.0a.tmp", "evaluation/.summary.json.0a.tmp", "checkpoints/.LATEST.0a.tmp"]
    for name in left:
        (run_dir / name).touch()
    (run_dir / "checkpoints" / ".step-00000004.0a.tmp").mkdir()
    (run_dir / "checkpoints" / ".step-00000004.0a.tmp" / "model.safetensors").touch()
    theirs = run_dir / "evaluation" / ".evaluate-20260101-000000-abcdef.json.0a.tmp"
    theirs.touch()
    kept = {path for path in run_dir.rglob("*") if not path.name.startswith(".") and path.name != "model.safetensors"}
    folder.remove_unfinished(run_dir)
    assert set(run_dir.rglob("*")) == kept | {theirs}


def test_an_unwritable_root_is_an_error_that_says_how_to_choose_another(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(RunError, match=r"can't create a run folder below .*run.root="):
        folder.create(tmp_path / "file", "a", "b")


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("{", "not JSON"),
        ('{"format": "lmexp.state", "version": 9}', "version 1"),
        ("{}", "expected format 'lmexp.state' version 1, got None"),
    ],
)
def test_an_unreadable_state_is_refused(tmp_path: Path, content: str, message: str) -> None:
    (tmp_path / "state.json").write_text(content)
    with pytest.raises(RunError, match=message):
        folder.read_state(tmp_path)


def test_the_state_file_is_replaced_whole(tmp_path: Path) -> None:
    run_dir = folder.create(tmp_path, "a", "b")
    folder.write_state(run_dir, "failed", phase="evaluating", message="why")
    body = json.loads((run_dir / "state.json").read_text())
    assert (body["format"], body["version"], body["state"], body["phase"]) == ("lmexp.state", 1, "failed", "evaluating")
    assert folder.read_state(run_dir).message == "why"
    assert not list(run_dir.glob(".*.tmp"))
