"""The torture program, for tests: a process of its own, since who forks victims must have no threads."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

from tests.end_to_end.command import ROOT, environment
from tests.torture.saves import strace


def torture(line: str) -> str:
    """Do what CI does of a line; what it said. Linux only: /proc tells who is alive, prctl ends orphans."""
    if sys.platform != "linux":
        pytest.skip("needs Linux")
    done = subprocess.run(
        [sys.executable, "-m", "tests.torture", line, "--short", "--jobs", "2"],
        cwd=ROOT,
        env=environment(),
        capture_output=True,
        text=True,
    )
    print(done.stdout)
    assert done.returncode == 0, f"{done.stdout}\n{done.stderr}"
    return done.stdout


def need_strace() -> str:
    """Path of strace; the test is skipped where it is missing or may not trace, but fails under CI=true."""
    found = strace()
    if found is None:
        message = "strace is missing, or this machine doesn't let it trace; on Debian and Ubuntu: apt install strace"
        if os.environ.get("CI") == "true":
            pytest.fail(message)
        pytest.skip(message)
    return found
