"""This machine: one process runs here, several run under torchrun, each started as `python -m lmexp.worker`."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType

from lmexp import plugins
from lmexp.errors import STOP_SIGNALS, LaunchError, Stopped, UserError
from lmexp.paths import LOGS_DIR
from lmexp.runs import folder
from lmexp.runs.ranks import FAILURE_VARIABLE


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
    failure = run_dir / LOGS_DIR / "failure.json"
    failure.unlink(missing_ok=True)
    environment = plugins.child_environment() | {
        "OMP_NUM_THREADS": str(threads_per_process),
        FAILURE_VARIABLE: str(failure.absolute()),
    }
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", f"--nproc-per-node={world_size}"]
    packages = [argument for name in plugins.trusted() for argument in ("-p", name)]
    with open(run_dir / LOGS_DIR / "torchrun.log", "ab") as log:
        # In a session of its own: the terminal's Ctrl-C reaches us alone, and we ask the workers to save.
        process = subprocess.Popen(
            [*command, "-m", "lmexp.worker", *packages, str(work)],
            env=environment,
            stderr=log,
            start_new_session=True,
        )
        with _passing_on_signals(process) as received:
            returned = process.wait()
    state = folder.read_state(run_dir)
    if work == run_dir and received and state.state in ("running", "interrupted", "preempted"):
        wanted = STOP_SIGNALS[received[0]]  # the workers only saw torchrun's SIGTERM
        folder.write_state(run_dir, wanted, phase=state.phase, step=state.step, message=state.message)
        raise Stopped(wanted, state.step or 0)
    if failure.exists():
        told = json.loads(failure.read_text(encoding="utf-8"))
        if told["exit_code"] == UserError.exit_code:
            raise UserError(told["message"])
        raise LaunchError(f"rank {told['rank']}: {told['message']}\ntracebacks of all ranks: {run_dir}/{LOGS_DIR}/")
    if returned:
        raise LaunchError(f"torchrun ended with exit code {returned}; see {run_dir}/{LOGS_DIR}/torchrun.log")


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
