"""Lightning's Logger over lmexp's tracker, so that `self.log` of any LightningModule ends in metrics.jsonl."""

from __future__ import annotations

from argparse import Namespace
from pathlib import Path
from typing import Any

import pytorch_lightning as pl
from pytorch_lightning.loggers.logger import Logger

from lmexp.tracking.tracker import Tracker


class TrackerLogger(Logger):
    """Hands what Lightning logs to the tracker; rank 0 alone has one.

    Rows are numbered by optimizer steps done (trainer.global_step). Lightning's own number is one behind, so that a row
    of step k + 1 would look as old as the checkpoint of step k.
    """

    def __init__(self, tracker: Tracker | None, run_dir: Path) -> None:
        super().__init__()
        self.tracker = tracker
        self.trainer: pl.Trainer | None = None
        """Set once the trainer is made."""
        self._run_dir = run_dir

    @property
    def name(self) -> str:
        return self._run_dir.parent.name

    @property
    def version(self) -> str:
        return self._run_dir.name

    @property
    def save_dir(self) -> str:
        return str(self._run_dir)

    def log_metrics(self, metrics: dict[str, float], step: int | None = None) -> None:
        if self.tracker is not None and self.trainer is not None:
            self.tracker.metrics(self.trainer.global_step, {k: float(v) for k, v in metrics.items()})

    def log_hyperparams(self, params: dict[str, Any] | Namespace, *args: Any, **kwargs: Any) -> None:
        """run.json and the W&B config hold them already."""
