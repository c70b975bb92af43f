import os
import random
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from lmexp.paths import METRICS_JSONL, TIMINGS_JSONL
from lmexp.tracking import upload
from lmexp.tracking.config import WandbLoggerConfig
from lmexp.tracking.rows import read_rows
from lmexp.tracking.tracker import Tracker
from lmexp.tracking.wandb import WandbMirror, logged_in
from tests.tracking.read_wandb import read_all, read_finished

DUMMY_KEY = "0123456789" * 4
DEAD_ADDRESS = "http://127.0.0.1:9"
CANARY = "canary/0123456789"
KILL = "lambda: (time.sleep(2), os.kill(os.getpid(), 9))"

TRAIN = """
import os, sys, time
from pathlib import Path
from lmexp.tracking.config import WandbLoggerConfig
from lmexp.tracking.tracker import Tracker, start_mirror
from lmexp.tracking.wandb import WandbMirror

def train(folder, first, last, sync="auto", close_seconds=10.0, config=(), before_close=lambda: None):
    start = time.monotonic()
    mirror = start_mirror(lambda: WandbMirror(
        WandbLoggerConfig(sync=sync), Path(folder), run_id="run-1", name="a run", run_config=dict(config),
        close_seconds=close_seconds))
    tracker = Tracker(Path(folder), mirror)
    for step in range(first, last + 1):
        tracker.metrics(step, {"train/loss": step / 7})
        tracker.timings(step, {"train/seconds": step / 3})
    before_close()
    start = time.monotonic()
    tracker.close(0)
    return time.monotonic() - start
"""


def train(code: str, *arguments: object, check: bool = True, **environment: str) -> subprocess.CompletedProcess[str]:
    """Run code after TRAIN in a process of its own, with W&B settings from environment only."""
    clean = {k: v for k, v in os.environ.items() if not k.startswith("WANDB_") and k != "NETRC"}
    return subprocess.run(
        [sys.executable, "-c", TRAIN + code, *map(str, arguments)],
        env=clean | {"NETRC": os.devnull} | environment,
        capture_output=True,
        text=True,
        check=check,
        timeout=60,
    )


def logged_rows(folder: Path) -> list[dict[str, Any]]:
    """The rows of both files."""
    return read_rows(folder / METRICS_JSONL) + read_rows(folder / TIMINGS_JSONL)


def mirrored_rows(folder: Path, *, killed: int = 0) -> list[dict[str, Any]]:
    """The rows of all .wandb files, in the order of logged_rows."""
    rows = [row for run in read_all(folder / "wandb", killed=killed) for row in run.history]
    return [row for row in rows if "train/loss" in row] + [row for row in rows if "train/seconds" in row]


@contextmanager
def server_that_never_answers() -> Iterator[tuple[str, list[object]]]:
    """A URL that takes connections and says nothing, and the connections made so far."""
    connections: list[object] = []
    listener = socket.create_server(("127.0.0.1", 0))

    def accept() -> None:
        while True:
            try:
                connections.append(listener.accept()[0])
            except OSError:
                return

    thread = threading.Thread(target=accept, daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{listener.getsockname()[1]}", connections
    finally:
        listener.shutdown(socket.SHUT_RDWR)
        listener.close()
        thread.join()
        for connection in connections:
            connection.close()  # type: ignore[attr-defined]


@pytest.fixture
def offline(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in [name for name in os.environ if name.startswith("WANDB_")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("NETRC", os.devnull)


def test_every_logged_value_is_in_the_wandb_file(tmp_path: Path, offline: None) -> None:
    config = WandbLoggerConfig(project="p", group="g", tags=["x", "y"], sync="off")
    mirror = WandbMirror(
        config, tmp_path, run_id="id-1", name="n", run_config={"model": {"lr": 1e-3, "deep": [1, "a"]}}
    )
    tracker = Tracker(tmp_path, mirror)
    draw = random.Random(0)
    for step in range(1, 101):
        tracker.metrics(step, {f"train/m{i}": draw.uniform(-1, 1) * 10.0 ** draw.randint(-30, 30) for i in range(6)})
        tracker.timings(step, {"train/seconds": draw.random()})
    tracker.metrics(101, {"train/m0": float("inf"), "train/m1": -float("inf")})
    tracker.summary({"bits_per_byte": 1.25})
    tracker.close(exit_code=3)

    run = read_finished(mirror.fragment)
    assert [row for row in run.history if "train/seconds" not in row] == read_rows(tmp_path / METRICS_JSONL)
    assert [row for row in run.history if "train/seconds" in row] == read_rows(tmp_path / TIMINGS_JSONL)
    assert (run.id, run.name, run.project, run.group, run.tags) == ("id-1", "n", "p", "g", ["x", "y"])
    assert run.config["model"] == {"lr": 1e-3, "deep": [1, "a"]}
    assert run.step_metrics == {"step": "", "*": "step"}
    assert run.summary["bits_per_byte"] == 1.25
    assert run.exit_code == 3
    assert run.resume, "a later upload under the same id has to append"


def test_a_nan_reaches_both(tmp_path: Path, offline: None) -> None:
    mirror = WandbMirror(WandbLoggerConfig(sync="off"), tmp_path, run_id="x", name="x", run_config={})
    tracker = Tracker(tmp_path, mirror)
    tracker.metrics(1, {"train/loss": float("nan")})
    tracker.close()
    for row in (read_rows(tmp_path / METRICS_JSONL)[0], read_finished(mirror.fragment).history[0]):
        assert row["train/loss"] != row["train/loss"]


def test_a_wandb_that_hangs_or_fails_costs_no_step(
    tmp_path: Path, offline: None, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    mirror = WandbMirror(
        WandbLoggerConfig(sync="off"), tmp_path, run_id="x", name="x", run_config={}, close_seconds=0.5
    )
    tracker = Tracker(tmp_path, mirror)
    hang = threading.Event()

    def hanging(*_: object) -> None:
        hang.wait()
        raise ConnectionError("the service is gone")

    monkeypatch.setattr(mirror._run, "log", hanging)
    start = time.monotonic()
    for step in range(100):
        tracker.metrics(step, {"train/loss": 1.0})
    assert time.monotonic() - start < 0.5
    tracker.close()
    assert time.monotonic() - start < 1.5
    assert "didn't finish within 0.5 s" in caplog.text
    assert len(read_rows(tmp_path / METRICS_JSONL)) == 100
    hang.set()
    mirror._thread.join(10)
    with pytest.raises(ConnectionError, match="the service is gone"):
        mirror.row(101, {})


def test_starting_leaves_the_environment_alone(tmp_path: Path, offline: None, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WANDB_CACHE_DIR", str(tmp_path / "mine"))
    before = {k: v for k, v in os.environ.items() if k.startswith("WANDB_")}
    WandbMirror(WandbLoggerConfig(sync="off"), tmp_path, run_id="x", name="x", run_config={}).close(0)
    after = {k: v for k, v in os.environ.items() if k.startswith("WANDB_") and k != "WANDB_SERVICE"}
    assert after == before


def test_a_killed_and_resumed_run_keeps_all_rows_under_one_id(tmp_path: Path) -> None:
    code = f"train(sys.argv[1], 1, 5, sync='off', before_close={KILL})"
    assert train(code, tmp_path, check=False).returncode == -signal.SIGKILL
    train("train(sys.argv[1], 6, 9, sync='off')", tmp_path)
    first, second = read_all(tmp_path / "wandb", killed=1)
    assert (first.id, first.exit_code, second.id, second.exit_code) == ("run-1", None, "run-1", 0)
    assert [row["step"] for row in read_rows(tmp_path / METRICS_JSONL)] == list(range(1, 10))
    assert mirrored_rows(tmp_path, killed=1) == logged_rows(tmp_path)


def test_nothing_is_printed_and_nothing_is_written_elsewhere(tmp_path: Path) -> None:
    home, run = tmp_path / "home", tmp_path / "run"
    home.mkdir()
    run.mkdir()
    done = train("train(sys.argv[1], 1, 3)", run, HOME=str(home), WANDB_BASE_URL=DEAD_ADDRESS, WANDB_API_KEY=DUMMY_KEY)
    assert done.stdout == ""
    assert [line[:30] for line in done.stderr.splitlines()] == ["the upload to W&B isn't comple"]
    assert list(home.iterdir()) == []


def test_a_dead_address_loses_nothing_and_ends_in_time(tmp_path: Path) -> None:
    seconds = train(
        "print(train(sys.argv[1], 1, 50))", tmp_path, WANDB_BASE_URL=DEAD_ADDRESS, WANDB_API_KEY=DUMMY_KEY
    ).stdout
    assert float(seconds) < 10
    assert len(logged_rows(tmp_path)) == 100
    assert mirrored_rows(tmp_path) == logged_rows(tmp_path)
    assert "no connection to http://127.0.0.1:9" in (tmp_path / "logs" / "wandb-sync.log").read_text()


def test_a_server_that_never_answers_is_given_up_at_the_deadline(tmp_path: Path) -> None:
    code = "print(train(sys.argv[1], 1, 50, close_seconds=3.0, before_close=lambda: time.sleep(2)))"
    with server_that_never_answers() as (url, connections):
        seconds = train(code, tmp_path, WANDB_BASE_URL=url, WANDB_API_KEY=DUMMY_KEY).stdout
        assert connections
    assert 2.5 < float(seconds) < 4.5
    assert mirrored_rows(tmp_path) == logged_rows(tmp_path)


@pytest.mark.parametrize(("sync", "key"), [("off", DUMMY_KEY), ("auto", "")])
def test_no_connection_is_made_unless_asked_for(tmp_path: Path, sync: str, key: str) -> None:
    code = "train(sys.argv[1], 1, 3, sync=sys.argv[2], before_close=lambda: time.sleep(1))"
    with server_that_never_answers() as (url, connections):
        done = train(code, tmp_path, sync, WANDB_BASE_URL=url, WANDB_API_KEY=key, HOME=str(tmp_path))
        assert connections == []
    assert done.stderr == ""


def test_the_upload_ends_soon_after_training_was_killed(tmp_path: Path) -> None:
    code = f"train(sys.argv[1], 1, 3, close_seconds=1.0, before_close={KILL})"
    with server_that_never_answers() as (url, _):
        train(code, tmp_path, check=False, WANDB_BASE_URL=url, WANDB_API_KEY=DUMMY_KEY)
        deadline = time.monotonic() + 15
        while (running := processes_about(tmp_path)) and time.monotonic() < deadline:
            time.sleep(0.1)
    assert running == []
    assert "the time for uploading is over" in (tmp_path / "logs" / "wandb-sync.log").read_text()


def processes_about(folder: Path) -> list[str]:
    """Command lines that name the folder."""
    found = []
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            command = path.read_bytes().replace(b"\0", b" ").decode(errors="replace")
        except OSError:
            continue
        if str(folder) in command:
            found.append(command)
    return found


def test_a_secret_is_in_no_file_of_the_run(tmp_path: Path) -> None:
    code = """
secrets = {"args": {"url": "x" + os.environ["CANARY_TOKEN"], "password": "config-canary"}, "eos_token": "<e>"}
train(sys.argv[1], 1, 3, config=secrets, close_seconds=2.0, before_close=lambda: time.sleep(1))
"""
    run = tmp_path / "run"
    run.mkdir()
    with server_that_never_answers() as (url, _):
        train(code, run, WANDB_API_KEY=DUMMY_KEY, CANARY_TOKEN=CANARY, WANDB_BASE_URL=url)
    (wandb_run,) = read_all(run / "wandb")
    assert wandb_run.config["args"] == {"url": "x[redacted]", "password": "[redacted]"}
    assert wandb_run.config["eos_token"] == "<e>"
    files = [path for path in run.rglob("*") if path.is_file()]
    assert len(files) > 5
    for path in files:
        content = path.read_bytes()
        for canary in (CANARY, "config-canary", DUMMY_KEY):
            assert canary.encode() not in content, path


def test_credentials_are_found_where_wandb_looks_for_them(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("WANDB_API_KEY", "WANDB_IDENTITY_TOKEN_FILE", "NETRC"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HOME", str(tmp_path))
    cloud = "https://api.forge.coreweave.com"
    assert not logged_in(cloud)
    (tmp_path / ".netrc").write_text(f"machine api.wandb.ai\n  login user\n  password {DUMMY_KEY}\n")
    assert logged_in(cloud)
    assert logged_in("https://api.wandb.ai")
    assert not logged_in("https://wandb.example.com")
    monkeypatch.setenv("NETRC", os.devnull)
    assert not logged_in(cloud)
    monkeypatch.setenv("WANDB_API_KEY", DUMMY_KEY)
    assert logged_in("https://wandb.example.com")


def test_what_earlier_attempts_left_behind_is_sent_first(tmp_path: Path) -> None:
    paths = [tmp_path / f"offline-run-2026010{day}_000000-x" / "run-x.wandb" for day in (1, 2, 3)]
    for path in paths:
        path.parent.mkdir()
        path.touch()
    (tmp_path / "offline-run-20260101_000000-x" / "run-x.wandb.synced").touch()
    first, live = upload.commands(paths[2])
    assert first[-1] == str(paths[1])
    assert str(paths[0]) not in first
    assert "--live" not in first
    assert live[-2:] == ["--live", str(paths[2])]


def test_the_installed_wandb_still_takes_these_options() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "wandb", "beta", "sync", "--help"], capture_output=True, text=True, check=True
    )
    assert all(option in done.stdout for option in ("--live", "--skip-synced", "--yes"))
