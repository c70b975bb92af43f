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
import shutil
import socket
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, TextIO

from lmexp.errors import RunError
from lmexp.files import write_atomically
from lmexp.paths import CHECKPOINTS_DIR, EVALUATION_DIR, LOCK, LOGS_DIR, STATE_JSON, default_root
from lmexp.reading import open_file, read_format
from lmexp.redaction import redact_text

if TYPE_CHECKING:
    from lmexp.config.freeze import RunRecord

FORMAT = "lmexp.state"
VERSION = 1
STATES = ("created", "running", "done", "failed", "preempted", "interrupted")
PHASES = ("training", "evaluating", "finished")


@dataclass(kw_only=True, slots=True)
class State:
    """What state.json holds."""

    state: str
    phase: str = "training"
    """training, evaluating, finished: a run killed while evaluating doesn't train again; one that is done but not
    finished lacks its report."""
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
        body = read_format(path, RunError, FORMAT, VERSION)
        state = State(**{name: body[name] for name in State.__slots__})
    except FileNotFoundError:
        raise RunError(f"{run_dir}: not a run folder, it holds no {STATE_JSON}") from None
    except KeyError as error:
        raise RunError(f"{path}: lacks {error}; the file is damaged") from None
    fits = {
        "state": state.state in STATES,
        "phase": state.phase in PHASES,
        "step": state.step is None or type(state.step) is int,
        **{name: isinstance(getattr(state, name), str) for name in ("message", "updated", "host")},
        "pid": type(state.pid) is int,
    }
    for name, well in fits.items():
        if not well:
            raise RunError(f"{path}: {name} is {repr(getattr(state, name))[:200]}; the file is damaged")
    return state


def state_now(run_dir: Path) -> str:
    """The state, `killed` where it says running but nobody holds the lock."""
    state = read_state(run_dir).state
    return "killed" if state == "running" and not is_locked(run_dir) else state


def made_here(run_dir: Path, record: RunRecord) -> bool:
    """Whether this user made the run, in this place.

    Only such a run.json may say where other files are: whoever sends a run can write any path into it.
    """
    place = run_dir.resolve()
    root = Path(record.cwd, record.config.run.root or default_root())
    return (
        os.path.realpath(root / record.experiment / record.run_id) == str(place)
        and os.path.realpath(record.cwd) == record.cwd
        and not Path(record.cwd).is_relative_to(place)
        and place.stat().st_uid == os.geteuid()
    )


def stand_where_made(run_dir: Path, record: RunRecord) -> None:
    """Go to where the command was typed, so that relative paths mean what they meant there."""
    if made_here(run_dir, record) and os.path.isdir(record.cwd):
        os.chdir(record.cwd)


def remove_unfinished(run_dir: Path) -> None:
    """Delete what a killed process left half written. For who holds the lock; `lmexp evaluate` doesn't need it, so its
    files stay."""
    folders = [run_dir, *(run_dir / name for name in (CHECKPOINTS_DIR, EVALUATION_DIR, LOGS_DIR))]
    for inner in (*folders, *(path for path in (run_dir / EVALUATION_DIR).glob("*") if path.is_dir())):
        for path in inner.glob(".*.tmp"):
            if path.is_dir():
                shutil.rmtree(path)
            elif not path.name.startswith(".evaluate-"):
                path.unlink(missing_ok=True)


@contextmanager
def lock(run_dir: Path, *, patience: float = 0.0) -> Iterator[None]:
    """Hold the run for this process; RunError if another one works on it. The kernel frees it when we die.

    patience: seconds to wait for the other one: what is left of a killed run may be saving a checkpoint.
    """
    with open(run_dir / LOCK, "a+", encoding="utf-8", errors="replace") as file:
        if not _locked(file):
            file.seek(0)
            holder = file.read(200).strip()
            if patience:
                print(f"another process works on this run ({holder}); waiting up to {patience:g} s", flush=True)
            deadline = time.monotonic() + patience
            while not _locked(file):
                if time.monotonic() > deadline:
                    raise RunError(f"{run_dir}: another process works on this run ({holder}); wait for it, or stop it")
                time.sleep(0.05)
        file.truncate(0)
        file.write(f"host {socket.gethostname()}, pid {os.getpid()}, since {now()}\n")
        file.flush()
        yield


def _locked(file: TextIO) -> bool:
    """Whether the lock of an open file could be taken."""
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def is_locked(run_dir: Path) -> bool:
    """Whether a process holds the run's lock."""
    try:
        with open_file(run_dir / LOCK, RunError) as file:
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
