"""This machine: one process runs here, several run under torchrun, each started as `python -m lmexp.worker`.

Who stops or dies, and what then happens:

    this process, asked to stop     one SIGTERM to torchrun, which hands it to all workers; they save and leave
    torchrun, or any one worker     the workers agree and save, or leave where there is nothing to save
    this process, kill -9           torchrun is told by the kernel, and stops as if asked to (launch/torchrun)
    torchrun, kill -9               the workers are told by the kernel, save and leave
    a worker, kill -9, or an error  the others fail for want of it, or torchrun ends them; the run failed
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import FrameType
from typing import Any

from lmexp import plugins
from lmexp.errors import EXIT_CODES, STOP_SIGNALS, LaunchError, Stopped, UserError
from lmexp.paths import LOGS_DIR
from lmexp.runs import folder
from lmexp.runs.ranks import FAILURE_VARIABLE

SAVING_SECONDS = 60.0
"""How long workers whose torchrun was killed may save."""


def launch(
    work: Path, run_dir: Path, threads_per_process: int | None, world_size: int, run_here: Callable[[Path], None]
) -> None:
    """Do what the file or folder `work` describes, in world_size processes of this machine.

    run_here: what a single process calls. Raises what went wrong; Stopped when a signal ended the run.
    """
    if world_size == 1:
        with threads(threads_per_process):
            run_here(work)
        return
    _run_workers(work, run_dir, world_size, threads_per_process or default_threads(world_size))


def _run_workers(work: Path, run_dir: Path, world_size: int, threads_per_process: int) -> None:
    """Start torchrun and pass signals on to it; raise what the first failing process said."""
    logs = run_dir / LOGS_DIR
    failure, exit_codes = logs / "failure.json", logs / "exit_codes.json"
    for path in (failure, exit_codes):
        path.unlink(missing_ok=True)
    environment = plugins.child_environment() | {
        "OMP_NUM_THREADS": str(threads_per_process),
        FAILURE_VARIABLE: str(failure.absolute()),
    }
    torchrun = [sys.executable, "-m", "lmexp.launch.torchrun", str(os.getpid()), str(exit_codes.absolute())]
    settings = ["--standalone", f"--nproc-per-node={world_size}"]
    packages = [argument for name in plugins.trusted() for argument in ("-p", name)]
    before = folder.read_state(run_dir)
    with open(logs / "torchrun.log", "ab") as log:
        # In a session of its own: the terminal's Ctrl-C reaches us alone, and we ask the workers to save.
        process = subprocess.Popen(
            [*torchrun, *settings, "-m", "lmexp.worker", *packages, str(work)],
            env=environment,
            stderr=log,
            start_new_session=True,
        )
        with _passing_on_signals(process) as received:
            returned = process.wait()
    if returned < 0:  # killed: its workers are on their own
        folder.wait_until_unlocked(run_dir, SAVING_SECONDS)
    ending = Ending(returned=returned, told=_read(failure), codes=_read(exit_codes))
    asked = STOP_SIGNALS[received[0]] if received else None
    if work == run_dir:
        if folder.read_state(run_dir).phase == "finished":
            return
        if asked or not ending.was_killed:
            _raise_if_stopped(run_dir, before, ending.stopped, asked)
    elif asked or ending.stopped:
        raise Stopped(asked or ending.stopped or "preempted", None)
    reason = ending.reason()
    if ending.is_users_error:
        raise UserError(reason)
    if reason:
        state = folder.read_state(run_dir)
        if work == run_dir and state.state != "done":
            folder.write_state(run_dir, "failed", phase=state.phase, message=reason)
        raise LaunchError(f"{reason}\ntracebacks of all ranks: {logs}/")
    if returned:
        raise LaunchError(f"torchrun ended with exit code {returned}; see {logs}/torchrun.log")


@dataclass(kw_only=True, slots=True)
class Ending:
    """How torchrun and its workers ended."""

    returned: int
    """torchrun's exit code; negative where a signal killed it."""
    told: dict[str, Any]
    """What the first worker to leave early said, see runs.ranks.tell_launcher."""
    codes: dict[str, int]
    """Rank -> exit code, those that left first before those that torchrun asked to leave; empty where none failed."""

    @property
    def was_killed(self) -> bool:
        """Whether it began with a rank that was killed: the others leave for want of it, or asked by torchrun."""
        first = next(iter(self.codes.values()), 0)
        return first < 0 and -first not in STOP_SIGNALS

    @property
    def stopped(self) -> str | None:
        """The state that is wanted where it began with a signal that stopped a process at once."""
        if self.was_killed:
            return None
        if self.told:
            stopped: str | None = self.told["stopped"]
            return stopped
        first = next(iter(self.codes.values()), self.returned)
        by_code = {code: state for state, code in EXIT_CODES.items()}
        by_code |= {-number: state for number, state in STOP_SIGNALS.items()}  # before a handler was in place
        return by_code.get(first)

    @property
    def is_users_error(self) -> bool:
        """Whether a worker said that the input was wrong."""
        return bool(self.told) and self.told["exit_code"] == UserError.exit_code and not self.was_killed

    def reason(self) -> str:
        """What went wrong, as far as it is known."""
        deaths = {f"rank {rank}": -code for rank, code in self.codes.items() if code < 0}
        if self.returned < 0:
            deaths = {"torchrun": -self.returned, **deaths}
        reasons = [f"{who} was killed by {_name(number)}" for who, number in deaths.items()]
        if self.is_users_error:
            return str(self.told["message"])
        if self.told and not self.told["stopped"]:
            reasons.append(f"rank {self.told['rank']}: {self.told['message']}")
        return "; ".join(reasons)


def _raise_if_stopped(run_dir: Path, before: folder.State, stopped: str | None, asked: str | None) -> None:
    """Raise Stopped where the workers left because of a signal, to us or to any of them.

    before: what state.json said when they were started. stopped: the state that a worker wanted which left at once,
    without a checkpoint. asked: the state that a signal to us wants; the workers only saw torchrun's SIGTERM.
    """
    state = folder.read_state(run_dir)
    left = state.state in EXIT_CODES and state != before
    if not left and stopped is None and (asked is None or state.state == "failed"):
        return
    wanted = asked or (state.state if left else stopped or "preempted")
    step = state.step if left else None
    message = state.message if left else "stopped where no checkpoint could be written"
    if state.state != "done":  # but for its report
        folder.write_state(run_dir, wanted, phase=state.phase, step=step, message=message)
    raise Stopped(wanted, step)


def _read(path: Path) -> dict[str, Any]:
    """What a worker or torchrun left to say; nothing where it was killed before."""
    try:
        told: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    except (FileNotFoundError, json.JSONDecodeError):
        return {}
    return told


def _name(number: int) -> str:
    """SIGKILL (signal 9)."""
    try:
        return f"{signal.Signals(number).name} (signal {number})"
    except ValueError:
        return f"signal {number}"


@contextmanager
def _passing_on_signals(process: subprocess.Popen[bytes]) -> Iterator[list[signal.Signals]]:
    """Every signal that asks us to stop becomes one SIGTERM to torchrun, which hands it to all workers."""
    received: list[signal.Signals] = []

    def pass_on(number: int, frame: FrameType | None) -> None:
        if not received:
            print("saving a checkpoint, then stopping", flush=True)
            process.terminate()
        received.append(signal.Signals(number))

    before = {number: signal.signal(number, pass_on) for number in STOP_SIGNALS}
    try:
        yield received
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def default_threads(world_size: int) -> int:
    """Cores divided among the processes."""
    return max(1, len(os.sched_getaffinity(0)) // world_size)


@contextmanager
def threads(count: int | None) -> Iterator[None]:
    """Torch with so many CPU threads; None leaves them."""
    if count is None:
        yield
        return
    import torch

    before = torch.get_num_threads()
    torch.set_num_threads(count)
    try:
        yield
    finally:
        torch.set_num_threads(before)
