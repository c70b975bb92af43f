"""This machine: one process runs here, several run under torchrun, each started as `python -m lmexp.worker`."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from lmexp import plugins
from lmexp.errors import LaunchError, Stopped
from lmexp.runs import folder


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
    environment = os.environ | {"OMP_NUM_THREADS": str(threads_per_process or default_threads(world_size))}
    returned = _torchrun([*_worker_arguments(), str(work)], world_size, environment, run_dir)
    state = folder.read_state(run_dir)
    if work == run_dir and state.state in ("interrupted", "preempted"):
        raise Stopped(state.state, int(state.message.rpartition(" ")[2] or 0))
    if returned:
        message = state.message if state.state == "failed" else f"torchrun ended with exit code {returned}"
        raise LaunchError(f"{message}\n  tracebacks of all ranks: {run_dir}/logs/rank-*.log")


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


def _torchrun(arguments: list[str], world_size: int, environment: dict[str, str], run_dir: Path) -> int:
    """Run torchrun in a session of its own, so that Ctrl-C reaches it once: from here, as a request to save."""
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", f"--nproc-per-node={world_size}"]
    with open(run_dir / "logs" / "torchrun.log", "ab") as log:
        process = subprocess.Popen(
            [*command, "-m", "lmexp.worker", *arguments], env=environment, stderr=log, start_new_session=True
        )
        while True:
            try:
                return process.wait()
            except KeyboardInterrupt:
                print("Ctrl-C: saving a checkpoint, then stopping", flush=True)
                process.terminate()


def _worker_arguments() -> list[str]:
    return [argument for name in plugins.trusted() for argument in ("-p", name)]
