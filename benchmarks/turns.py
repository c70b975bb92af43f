"""Two training processes that take turns: what wandb_dead_address.py measures with.

On a machine that others use too, two runs one after another differ more than what is to be measured, and two at once
get in each other's way. So each trains a few steps while the other waits; what else the machine does hits both alike.
The upload process of a run is stopped (SIGSTOP) while its run waits: all the processor time it takes falls into its own
run's turns. Linux only.
"""

from __future__ import annotations

import os
import select
import signal
from pathlib import Path
from typing import Any

from pytorch_lightning import Callback, LightningModule, Trainer

STEPS = 20
"""Optimizer steps in a turn."""
PATIENCE_SECONDS = 300.0


class TakeTurns(Callback):
    """Waits for the token in folder/<own>, and after its turn puts it into folder/<other>: both are FIFOs."""

    def __init__(self, folder: str, own: str, other: str) -> None:
        # Opened for both, so that neither side waits for the other to open its end.
        self._own = os.open(Path(folder) / own, os.O_RDWR)
        self._other = os.open(Path(folder) / other, os.O_RDWR)
        self._seen_step = 0

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._begin()

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        if trainer.global_step % STEPS == 0 and trainer.global_step < trainer.max_steps:
            self._end()
            self._begin()

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._end()
        signal_upload(signal.SIGCONT)

    def _begin(self) -> None:
        ready, _, _ = select.select([self._own], [], [], PATIENCE_SECONDS)
        if not ready:
            raise TimeoutError("the other run doesn't pass the token on; did it fail?")
        os.read(self._own, 1)
        signal_upload(signal.SIGCONT)

    def _end(self) -> None:
        signal_upload(signal.SIGSTOP)
        os.write(self._other, b".")


def signal_upload(number: signal.Signals) -> None:
    """Signal this process's upload to W&B, and what that has started, if there is one."""
    for children in Path("/proc/self/task").glob("*/children"):
        for pid in children.read_text(encoding="ascii").split():
            if b"lmexp/tracking/upload.py" in Path(f"/proc/{pid}/cmdline").read_bytes():
                os.killpg(int(pid), number)  # it leads a session of its own
