"""Python processes forked from one that has imported everything: `python -m MODULE` in milliseconds instead of seconds.

`Popen` is subprocess.Popen, but for the modules of FORKED it forks where the other executes: the child has a fresh
__main__, the environment, the streams, the folder and the signal handlers that it would have had, and starts its own
children in the same way. The process that forks must have no threads.
"""

from __future__ import annotations

import contextlib
import importlib
import inspect
import os
import resource
import runpy
import signal
import subprocess
import sys
import traceback
from pathlib import Path
from typing import Any

from lmexp.errors import STOP_SIGNALS

FORKED = ("lmexp", "lmexp.worker", "lmexp.launch.torchrun")
"""Modules that are run in a fork; they are not imported before, so that running them is the same as ever."""

IMPORTED = (
    "torch.distributed.elastic.multiprocessing.subprocess_handler.subprocess_handler",
    "torch.distributed.launcher.api",
    "pytorch_lightning",
    "safetensors.torch",
    "yaml",
    "rich.console",
    "lmexp.api",
    "lmexp.cli.train",
    "lmexp.cli.resume",
    "lmexp.config.compose",
    "lmexp.config.freeze",
    "lmexp.data.cache",
    "lmexp.data.module",
    "lmexp.data.plans",
    "lmexp.evaluation.perplexity",
    "lmexp.models.gpt",
    "lmexp.reports.data_card",
    "lmexp.reports.run_report",
    "lmexp.runs.evaluate",
    "lmexp.runs.execute",
    "lmexp.runs.requests",
    "lmexp.runs.start",
    "lmexp.tasks.language_modeling",
    "lmexp.tracking.receipt",
    "lmexp.tracking.tracker",
    "lmexp.training.trainer",
)
"""Modules that are imported before."""

_PARAMETERS = [*inspect.signature(subprocess.Popen._execute_child).parameters][1:]  # type: ignore[attr-defined]


def warm_up() -> None:
    """Import what victims need, without starting a thread."""
    for name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"):
        assert os.environ.get(name) == "1", f"{name}=1 must be set before Python starts: threads don't survive a fork"
    for module in IMPORTED:
        importlib.import_module(module)
    threads = os.listdir("/proc/self/task") if Path("/proc/self/task").is_dir() else ["this"]
    assert len(threads) == 1, f"importing started {len(threads) - 1} threads"


class Popen(subprocess.Popen):  # type: ignore[type-arg]
    """A process, forked where its module is one of FORKED."""

    held = False
    """Whether a child stops itself (SIGSTOP) before it does anything, until it gets SIGCONT."""

    def _execute_child(self, *given: Any) -> None:
        wanted = dict(zip(_PARAMETERS, given, strict=True))
        command = [str(word) for word in wanted["args"] if word != "-u"]
        if command[:2] != [sys.executable, "-m"] or command[2] not in FORKED:
            super()._execute_child(*given)  # type: ignore[misc]
            return
        held = Popen.held
        sys.stdout.flush()
        sys.stderr.flush()
        code = 1
        self.pid = os.fork()
        if self.pid == 0:
            try:
                _become(wanted)
                if held:
                    os.kill(os.getpid(), signal.SIGSTOP)
                code = _run(command[2], command[3:])
            except KeyboardInterrupt:  # https://docs.python.org/3/library/signal.html: Python ends by the signal
                traceback.print_exc()
                signal.signal(signal.SIGINT, signal.SIG_DFL)
                os.kill(os.getpid(), signal.SIGINT)
            except BaseException:
                traceback.print_exc()
            with contextlib.suppress(OSError):
                sys.stdout.flush()
                sys.stderr.flush()
            os._exit(code)
        self._child_created = True
        self._close_pipe_fds(*(wanted[name] for name in _PARAMETERS if name[:3] in ("p2c", "c2p", "err")))


def _become(wanted: dict[str, Any]) -> None:
    """Take over what exec and the arguments of Popen would have given this process."""
    Popen.held = False
    subprocess.Popen = Popen  # type: ignore[misc]
    elastic = sys.modules[IMPORTED[0]]
    elastic.Popen = Popen  # type: ignore[attr-defined]
    for number in STOP_SIGNALS:
        signal.signal(number, signal.default_int_handler if number == signal.SIGINT else signal.SIG_DFL)
    if wanted["start_new_session"]:
        os.setsid()
    for name, descriptor in (("p2cread", 0), ("c2pwrite", 1), ("errwrite", 2)):
        if wanted[name] != -1:
            os.dup2(wanted[name], descriptor)
    os.closerange(3, resource.getrlimit(resource.RLIMIT_NOFILE)[0])
    if wanted["cwd"] is not None:
        os.chdir(wanted["cwd"])
    if wanted["env"] is not None:
        os.environ.clear()
        os.environ.update(wanted["env"])


def _run(module: str, arguments: list[str]) -> int:
    """`python -m module arguments`; its exit code."""
    sys.argv = [module, *arguments]
    try:
        runpy.run_module(module, run_name="__main__", alter_sys=True)
    except SystemExit as leaving:
        return leaving.code if isinstance(leaving.code, int) else int(leaving.code is not None)
    return 0
