"""A child of a run doesn't outlive its parent."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="only Linux tells a child of its parent's death")

CHILD = """
import os, signal, sys, time
from lmexp.parent import stop_with_parent
def leave(*_):
    open(sys.argv[2], "w").close()
    os._exit(0)
signal.signal(signal.SIGTERM, leave)
if sys.argv[1] == "late":
    time.sleep(1)
stop_with_parent(PARENT)
print("ready", flush=True)
time.sleep(60)
"""
PARENT = """
import os, subprocess, sys, time
subprocess.Popen([sys.executable, "-c", sys.argv[3].replace("PARENT", str(os.getpid())), sys.argv[1], sys.argv[2]])
time.sleep(0 if sys.argv[1] == "late" else 60)
"""


@pytest.mark.parametrize("when", ["in time", "late"])
def test_a_child_is_told_that_its_parent_died(tmp_path: Path, when: str) -> None:
    marker = tmp_path / "told"
    parent = subprocess.Popen(
        [sys.executable, "-c", PARENT, when, str(marker), CHILD], stdout=subprocess.PIPE, text=True
    )
    assert parent.stdout is not None
    if when == "in time":
        assert parent.stdout.readline() == "ready\n"
        os.kill(parent.pid, signal.SIGKILL)
    parent.wait()
    deadline = time.monotonic() + 20
    while not marker.exists():
        assert time.monotonic() < deadline, "the child lives on"
        time.sleep(0.01)
    parent.stdout.close()
