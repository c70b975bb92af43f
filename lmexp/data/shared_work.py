"""Several processes, also on several machines, do the same tasks together, with nothing but a folder between them.

A task makes a folder under a temporary name and renames it: what bears the name of a result is whole. All processes
would make the same result, so doing a task twice is harmless. A claim only keeps others from starting the same task: a
file made with O_EXCL, which a thread of its owner rewrites each second. Whoever waits for it opens and reads it, and
measures with a clock of its own: no clocks of two machines are compared, and no process or machine is named. A claim
that stood still for `patience` seconds is taken over.
"""

from __future__ import annotations

import errno
import os
import secrets
import shutil
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType

PATIENCE = 10.0
"""Seconds after which a claim that stands still belongs to a process that is no more."""
HEARTBEAT = 1.0
"""Seconds between two beats of a living claim."""
POLL = 0.05
"""Seconds between two looks at what others do."""


class GoneError(Exception):
    """The folder of the work was removed: another process has finished it."""


@dataclass(frozen=True, slots=True)
class Task:
    """Something to be made once."""

    name: str
    """File name; the same in all processes."""
    result: Path
    """Folder that exists as soon as the task is done; on the file system of the claims."""
    work: Callable[[Path], None]
    """Fills the (new) folder that it is given."""


Done = Callable[[Task], None]


def ignore(task: Task) -> None:
    """Take no notice of a task that is done."""


def share(folder: Path, tasks: Sequence[Task], *, patience: float, done: Done = ignore) -> None:
    """Do the tasks that nobody else does; return when all are done.

    folder: where the claims are. done: called once for each task, soon after anyone has done it. An error of a task of
    this process is raised; the claim is given back, so that others meet the same error. GoneError: see there.
    """
    waiting: dict[str, _Watch] = {}
    open_tasks = {task.name: task for task in tasks}
    with _Heartbeat() as heartbeat:
        while open_tasks:
            worked = False
            for task in list(open_tasks.values()):
                if task.name not in open_tasks:
                    continue
                if not task.result.exists():
                    watch = waiting.setdefault(task.name, _Watch(folder / f"{task.name}.claim", patience))
                    if not _claim(watch.path) and not watch.take_over():
                        continue
                    _do(folder, task, watch.path, heartbeat)
                    worked = True
                for known in [task, *(open_tasks[name] for name in waiting if name in open_tasks)]:
                    if known.name in open_tasks and known.result.exists():
                        del open_tasks[known.name]
                        waiting.pop(known.name, None)
                        done(known)
            if open_tasks and not worked:
                time.sleep(POLL)


def _do(folder: Path, task: Task, claim: Path, heartbeat: _Heartbeat) -> None:
    """Make the result of a task that this process has claimed."""
    beside = folder / f".{task.name}.{secrets.token_hex(4)}.tmp"
    heartbeat.claim = claim
    try:
        if not task.result.exists():
            beside.mkdir()
            task.work(beside)
            move(beside, task.result)
    except OSError as error:
        if is_gone(error) and not folder.exists():
            raise GoneError from None
        raise
    finally:
        heartbeat.claim = None
        shutil.rmtree(beside, ignore_errors=True)
        claim.unlink(missing_ok=True)


def partial(path: Path) -> Path:
    """Where a folder is made that is renamed when it is whole."""
    return path.with_name(f".{path.name.removeprefix('.')}.partial")


def move(folder: Path, to: Path) -> None:
    """Rename a folder, or remove it where there is one of the new name already."""
    try:
        folder.rename(to)
    except OSError as error:
        if error.errno not in (errno.ENOTEMPTY, errno.EEXIST) or not to.is_dir():
            raise
        shutil.rmtree(folder, ignore_errors=True)


def remove(folder: Path) -> None:
    """Remove a folder at once: what others see of it is whole, or nothing, also where this process is killed midway."""
    gone = folder.with_name(f".{secrets.token_hex(8)}.gone")
    try:
        folder.rename(gone)
    except FileNotFoundError:
        return
    shutil.rmtree(gone, ignore_errors=True)


def is_gone(error: OSError) -> bool:
    """Whether a file is no longer there; on a network file system that another machine has removed it."""
    return error.errno in (errno.ENOENT, errno.ESTALE)


def _claim(path: Path) -> bool:
    """Whether nobody else had claimed it."""
    try:
        descriptor = os.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o666)
    except FileExistsError:
        return False
    except OSError as error:
        if is_gone(error):
            raise GoneError from None
        raise
    with os.fdopen(descriptor, "wb") as file:
        file.write(_beat())
    return True


def _beat() -> bytes:
    """Content of a claim that it never had before."""
    return secrets.token_hex(8).encode()


class _Watch:
    """Someone else's claim, as this process sees it."""

    def __init__(self, path: Path, patience: float) -> None:
        self.path = path
        self._patience = patience
        self._seen: bytes | None = None
        self._since = 0.0

    def take_over(self) -> bool:
        """Whether the claim stood still for too long and belongs to this process now."""
        try:
            found = self.path.read_bytes()
        except OSError as error:
            if is_gone(error):
                return False
            raise
        now = time.monotonic()
        if found != self._seen:
            self._seen, self._since = found, now
            return False
        if now - self._since < self._patience:
            return False
        mine, beside = _beat(), self.path.with_name(f".{self.path.name}.{secrets.token_hex(4)}.tmp")
        try:
            beside.write_bytes(mine)
            beside.replace(self.path)
            return self.path.read_bytes() == mine  # of several that take over, the last has it
        except OSError as error:
            if is_gone(error):
                return False
            raise


class _Heartbeat:
    """A thread that shows others that this process is alive."""

    def __init__(self) -> None:
        self.claim: Path | None = None
        """The claim to keep alive."""
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True, name="heartbeat")

    def __enter__(self) -> _Heartbeat:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._ended.set()
        self._thread.join()

    def _run(self) -> None:
        while not self._ended.wait(HEARTBEAT):
            claim = self.claim
            if claim is None:
                continue
            try:
                with claim.open("r+b") as file:  # never makes the file anew
                    file.write(_beat())
            except OSError:
                continue  # given back, taken over or on a full disk: at worst another process does the same
