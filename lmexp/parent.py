"""A child that ends with its parent: a kill -9 leaves no orphans that go on training and hold the run's lock."""

from __future__ import annotations

import ctypes
import os
import signal
import sys

LAUNCHER_VARIABLE = "LMEXP_LAUNCHER_PID"
"""Environment variable: process id of the parent that its worker processes shall not outlive."""

_PR_SET_PDEATHSIG = 1


def stop_with_parent(parent: int) -> None:
    """Have the kernel send this process SIGTERM when its parent dies; on Linux only.

    parent: its process id, told by itself: it may have died before this call, which no signal would tell then.
    """
    if sys.platform != "linux":
        return
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.prctl(_PR_SET_PDEATHSIG, int(signal.SIGTERM), 0, 0, 0) != 0:
        number = ctypes.get_errno()
        raise OSError(number, f"prctl(PR_SET_PDEATHSIG): {os.strerror(number)}")
    if os.getppid() != parent:
        os.kill(os.getpid(), signal.SIGTERM)
