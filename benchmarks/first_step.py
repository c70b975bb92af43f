"""A Lightning callback that notes when the first step is done: the same in both programs of startup.py."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

from pytorch_lightning import Callback, LightningModule, Trainer


class FirstStep(Callback):
    """Writes the wall-clock time (seconds since 1970) after the first step to a file."""

    def __init__(self, path: str) -> None:
        self.path = Path(path)

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        if trainer.global_step == 1:
            self.path.write_text(repr(time.time()), encoding="utf-8")
