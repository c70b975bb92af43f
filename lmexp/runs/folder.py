"""A run folder: made once with an exclusive mkdir, with a state file and a lock.

state.json, format "lmexp.state", version 1: state, phase, step, message, updated, host, pid.
States: created -> running -> done | failed | preempted | interrupted. A folder whose state is `running` while nobody
holds its lock was killed; `State.now` calls that `killed`. All but `done` can be resumed.
"""

from __future__ import annotations

import fcntl
import json
import os
import secrets
import socket
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from lmexp.errors import RunError
from lmexp.files import write_atomically
from lmexp.paths import CHECKPOINTS_DIR, EVALUATION_DIR, LOCK, LOGS_DIR, STATE_JSON
from lmexp.redaction import redact_text

FORMAT = "lmexp.state"
VERSION = 1
STATES = ("created", "running", "done", "failed", "preempted", "interrupted")


@dataclass(kw_only=True, slots=True)
class State:
    """What state.json holds."""

    state: str
    phase: str = "training"
    """training, then evaluating: a run killed while evaluating doesn't train again."""
    step: int | None = None
    """Optimizer step at which a signal ended the run."""
    message: str = ""
    updated: str = ""
    host: str = ""
    pid: int = 0


def now() -> str:
    """Time of day in UTC, ISO 8601."""
    return datetime.now(UTC).isoformat(timespec="seconds")


def create(root: Path, folder: str, name: str) -> Path:
    """A new run folder root/folder/<time>-<name>-<6 hex>, which nobody else can get too."""
    parent = root / folder
    stamp = datetime.now().strftime("%Y%m%d-%H%M%S")
    try:
        parent.mkdir(parents=True, exist_ok=True)
        while True:
            run_dir = parent / f"{stamp}-{name}-{secrets.token_hex(3)}"
            try:
                run_dir.mkdir()
                break
            except FileExistsError:
                continue
        for inner in (LOGS_DIR, CHECKPOINTS_DIR, EVALUATION_DIR):
            (run_dir / inner).mkdir()
    except OSError as error:
        raise RunError(
            f"can't create a run folder below {root.absolute()}: {error.strerror} ({error.filename}); "
            f"choose a folder you can write to with run.root=... or LMEXP_OUTPUTS"
        ) from None
    write_state(run_dir, "created")
    return run_dir


def write_state(
    run_dir: Path, state: str, *, phase: str = "training", step: int | None = None, message: str = ""
) -> None:
    """Replace state.json atomically; secrets in the message are redacted."""
    assert state in STATES, state
    record = State(state=state, phase=phase, step=step, message=redact_text(message), updated=now())
    record.host, record.pid = socket.gethostname(), os.getpid()
    body = {"format": FORMAT, "version": VERSION, **asdict(record)}
    write_atomically(run_dir / STATE_JSON, json.dumps(body, indent=2) + "\n")


def read_state(run_dir: Path) -> State:
    """state.json; RunError where it is missing or of an unknown format."""
    path = run_dir / STATE_JSON
    try:
        body: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise RunError(f"{run_dir}: not a run folder, it holds no {STATE_JSON}") from None
    except json.JSONDecodeError as error:
        raise RunError(f"{path}: not JSON ({error}); the file is damaged") from None
    if body.pop("format", None) != FORMAT or body.pop("version", None) != VERSION:
        raise RunError(f"{path}: expected format {FORMAT}, version {VERSION}")
    try:
        return State(**{name: body[name] for name in State.__slots__})
    except KeyError as error:
        raise RunError(f"{path}: lacks {error}; the file is damaged") from None


def state_now(run_dir: Path) -> str:
    """The state, `killed` where it says running but nobody holds the lock."""
    state = read_state(run_dir).state
    return "killed" if state == "running" and not is_locked(run_dir) else state


@contextmanager
def lock(run_dir: Path) -> Iterator[None]:
    """Hold the run for this process; RunError if another one works on it. The kernel frees it when we die."""
    with open(run_dir / LOCK, "a+", encoding="utf-8") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            file.seek(0)
            raise RunError(
                f"{run_dir}: another process works on this run ({file.read().strip()}); wait for it, or stop it"
            ) from None
        file.truncate(0)
        file.write(f"host {socket.gethostname()}, pid {os.getpid()}, since {now()}\n")
        file.flush()
        yield


def is_locked(run_dir: Path) -> bool:
    """Whether a process holds the run's lock."""
    try:
        with open(run_dir / LOCK, "rb") as file:
            fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except FileNotFoundError:
        return False
    except BlockingIOError:
        return True
    return False


def wait_until_unlocked(run_dir: Path, seconds: float) -> bool:
    """Whether the lock became free within the time."""
    deadline = time.monotonic() + seconds
    while is_locked(run_dir):
        if time.monotonic() > deadline:
            return False
        time.sleep(0.05)
    return True
