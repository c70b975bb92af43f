"""Stopping on SIGINT, SIGTERM, SIGUSR1 or SIGUSR2: the handler sets a flag, all processes agree at a step boundary."""

from __future__ import annotations

import os
import signal
from types import FrameType
from typing import Any

import pytorch_lightning as pl
import torch

from lmexp.errors import STOP_SIGNALS


class StopRequest:
    """Whether somebody asked the run to stop.

    Saving inside a handler can deadlock, so the handler only notes the signal. A second Ctrl-C in a run of one process
    stops at once.
    """

    def __init__(self) -> None:
        self.received: signal.Signals | None = None
        self._before: dict[signal.Signals, Any] = {}

    @property
    def state(self) -> str:
        """interrupted (Ctrl-C) or preempted."""
        return STOP_SIGNALS[self.received] if self.received is not None else "preempted"

    def install(self) -> None:
        """Take the signals over; after Lightning, whose SIGTERM handler talks to other processes."""
        for number in STOP_SIGNALS:
            self._before[number] = signal.signal(number, self._note)

    def uninstall(self) -> None:
        """Give the signals back."""
        for number, handler in self._before.items():
            signal.signal(number, handler)
        self._before = {}

    def agreed(self, trainer: pl.Trainer) -> bool:
        """Whether any process was asked to stop; the same answer on all of them."""
        wanted = self.received is not None
        if trainer.world_size == 1:
            return wanted
        flag = torch.tensor(int(wanted), device=trainer.strategy.root_device)
        torch.distributed.all_reduce(flag, op=torch.distributed.ReduceOp.MAX)
        return bool(flag)

    def _note(self, number: int, frame: FrameType | None) -> None:
        repeated = self.received is not None
        if not repeated:
            self.received = signal.Signals(number)
            if number == signal.SIGINT and "TORCHELASTIC_RUN_ID" not in os.environ:
                os.write(2, b"saving a checkpoint, then stopping (Ctrl-C again stops at once)\n")
        if repeated and number == signal.SIGINT and "TORCHELASTIC_RUN_ID" not in os.environ:
            raise KeyboardInterrupt
