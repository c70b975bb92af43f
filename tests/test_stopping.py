"""A signal stops a run at once where there is nothing to save, and is noted where there is."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import threading
import time

import pytest

from lmexp.errors import Stopped
from lmexp.stopping import StopRequest


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGUSR1, signal.SIGUSR2])
def test_outside_training_a_signal_stops_at_once(number: signal.Signals) -> None:
    before = signal.getsignal(number)
    with pytest.raises(Stopped, match=r"^preempted$") as raised, StopRequest().installed():
        os.kill(os.getpid(), number)
    assert (raised.value.state, raised.value.step) == ("preempted", None)
    assert signal.getsignal(number) is before


def test_nobody_takes_a_stop_for_an_error() -> None:
    def careless() -> None:
        with contextlib.suppress(Exception):
            os.kill(os.getpid(), signal.SIGTERM)

    with pytest.raises(Stopped), StopRequest().installed():
        careless()


def test_in_training_signals_are_noted_and_the_first_one_counts() -> None:
    stop = StopRequest()
    with stop.installed():
        stop.deferred = True
        os.kill(os.getpid(), signal.SIGUSR1)
        os.kill(os.getpid(), signal.SIGTERM)
        assert (stop.received, stop.state) == (signal.SIGUSR1, "preempted")
        stop.deferred = False
        os.kill(os.getpid(), signal.SIGTERM)  # on its way out, the run isn't interrupted again


def test_a_second_ctrl_c_stops_at_once(capfd: pytest.CaptureFixture[str]) -> None:
    stop = StopRequest()
    with stop.installed():
        stop.deferred = True
        os.kill(os.getpid(), signal.SIGINT)
        assert "Ctrl-C again stops at once" in capfd.readouterr().err
        assert stop.state == "interrupted"
        with pytest.raises(KeyboardInterrupt):
            os.kill(os.getpid(), signal.SIGINT)


def test_a_thread_leaves_the_signals_alone() -> None:
    before = signal.getsignal(signal.SIGTERM)
    seen: list[object] = []

    def work() -> None:
        with StopRequest().installed():
            seen.append(signal.getsignal(signal.SIGTERM))

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert seen == [before]


def test_a_process_that_waits_in_foreign_code_leaves_too() -> None:
    code = """
import ctypes, os
from lmexp.stopping import StopRequest, leave_even_if_deaf
with StopRequest().installed():
    leave_even_if_deaf(lambda: os._exit(75), seconds=0.2)
    mutex, libc = ctypes.create_string_buffer(256), ctypes.CDLL(None)
    libc.pthread_mutex_lock(mutex)
    print("deaf", flush=True)
    libc.pthread_mutex_lock(mutex)
"""
    process = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    assert process.stdout.readline() == "deaf\n"
    time.sleep(1)  # until it waits
    process.terminate()
    assert process.wait(timeout=20) == 75
    process.stdout.close()


def test_a_fork_does_not_save() -> None:
    stop = StopRequest()
    with stop.installed():
        stop.deferred = True
        child = os.fork()
        if child == 0:
            os.kill(os.getpid(), signal.SIGTERM)
            os._exit(0)
        assert os.WTERMSIG(os.waitpid(child, 0)[1]) == signal.SIGTERM
        assert stop.received is None
