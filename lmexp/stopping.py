"""Stopping on SIGINT, SIGTERM, SIGUSR1 or SIGUSR2.

While a step is computed, a signal is only noted: saving inside a handler can deadlock, and all processes must leave at
the same step (`lmexp.training.signals`). Before and after training there is nothing to save: it stops the run at once.
"""

from __future__ import annotations

import os
import signal
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType
from typing import ClassVar

from lmexp.errors import STOP_SIGNALS, Stopped


class StopRequest:
    """Whether somebody asked the run to stop."""

    innermost: ClassVar[list[StopRequest]] = []
    """Those that are installed, the last one getting the signals."""

    def __init__(self) -> None:
        self._process = os.getpid()
        self.received: signal.Signals | None = None
        self.deferred = False
        """Only note a signal: somebody looks at `received` after each step. A second Ctrl-C stops at once even so."""

    @property
    def state(self) -> str:
        """interrupted (Ctrl-C) or preempted."""
        return STOP_SIGNALS[self.received] if self.received is not None else "preempted"

    @contextmanager
    def installed(self) -> Iterator[StopRequest]:
        """Take the signals over. Nothing happens outside the main thread, which alone receives signals."""
        if threading.current_thread() is not threading.main_thread():
            yield self
            return
        StopRequest.innermost.append(self)
        before = {number: signal.signal(number, self._note) for number in STOP_SIGNALS}
        try:
            yield self
        finally:
            StopRequest.innermost.remove(self)
            for number, handler in before.items():
                signal.signal(number, handler)

    def install_again(self) -> None:
        """Take the signals back from Lightning, whose SIGTERM handler talks to other processes."""
        if threading.current_thread() is threading.main_thread():
            for number in STOP_SIGNALS:
                signal.signal(number, self._note)

    def _note(self, number: int, frame: FrameType | None) -> None:
        if os.getpid() != self._process:  # a fork, such as a loader's worker: it has nothing to save
            signal.signal(number, signal.SIG_DFL)
            os.kill(os.getpid(), number)
        repeated = self.received is not None
        if not repeated:
            self.received = signal.Signals(number)
        if number == signal.SIGINT and (not self.deferred or (repeated and not _under_torchrun())):
            raise KeyboardInterrupt
        if repeated:  # on its way out already
            return
        if not self.deferred:
            raise Stopped(self.state, None)
        if number == signal.SIGINT and not _under_torchrun():
            os.write(2, b"saving a checkpoint, then stopping (Ctrl-C again stops at once)\n")


def _under_torchrun() -> bool:
    """Whether this is one of several processes, whose parent takes the Ctrl-C."""
    return "TORCHELASTIC_RUN_ID" in os.environ


def leave_even_if_deaf(leave: Callable[[], None], seconds: float = 5.0) -> None:
    """Have `leave` called when a signal asks this process to stop while it waits for others in foreign code.

    Python calls its handlers between two of its own instructions only: a process that waits for another one to join
    hears nothing, maybe for ever. While a step is computed it is left alone: torchrun ends it when its time is over.
    """
    heard, told = os.pipe()
    os.set_blocking(told, False)

    def watch() -> None:
        while os.read(heard, 1):
            time.sleep(seconds)
            if StopRequest.innermost and not any(s.received or s.deferred for s in StopRequest.innermost):
                leave()

    threading.Thread(target=watch, name="deaf", daemon=True).start()
    signal.set_wakeup_fd(told, warn_on_full_buffer=False)
    os.register_at_fork(after_in_child=lambda: signal.set_wakeup_fd(-1))
