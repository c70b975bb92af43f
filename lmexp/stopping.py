"""Stopping on SIGINT, SIGTERM, SIGUSR1 or SIGUSR2.

While a step is computed, a signal is only noted: saving inside a handler can deadlock, and all processes must leave at
the same step (`lmexp.training.signals`). Before and after training there is nothing to save: it stops the run at once.
"""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

from lmexp.errors import STOP_SIGNALS, Stopped


class StopRequest:
    """Whether somebody asked the run to stop."""

    def __init__(self) -> None:
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
        before = {number: signal.signal(number, self._note) for number in STOP_SIGNALS}
        try:
            yield self
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)

    def install_again(self) -> None:
        """Take the signals back from Lightning, whose SIGTERM handler talks to other processes."""
        if threading.current_thread() is threading.main_thread():
            for number in STOP_SIGNALS:
                signal.signal(number, self._note)

    def _note(self, number: int, frame: FrameType | None) -> None:
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
