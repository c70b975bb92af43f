"""A small run without a run folder around it: what lmexp.training.trainer.fit does, and what it logs."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from lmexp.api import compose
from lmexp.config.schema import TrainConfig
from lmexp.stopping import StopRequest
from lmexp.training import trainer
from tests.evaluation.tiny import random_documents

SPLITS = {"train": random_documents(60, 1), "validation": random_documents(30, 2)}
STEPS, EVERY = 6, 2


class Recorder:
    """Stands in for a Tracker."""

    def __init__(self) -> None:
        self.rows: dict[int, dict[str, float]] = {}
        self.times: dict[int, dict[str, float]] = {}
        self.step_losses: dict[int, float] = {}

    def metrics(self, step: int, values: dict[str, float], *, unmirrored: dict[str, float] | None = None) -> None:
        self.rows.setdefault(step, {}).update({**values, **(unmirrored or {})})

    def timings(self, step: int, values: dict[str, float]) -> None:
        self.times.setdefault(step, {}).update(values)

    def losses(self, first_step: int, losses: Sequence[float]) -> None:
        self.step_losses.update(enumerate(losses, start=first_step))

    def sync(self) -> None:
        pass


def make_config(windows: str, *overrides: str) -> TrainConfig:
    """Six steps of a one-block GPT, logged every second and validated and saved every third."""
    return compose(
        [
            "data=text_files",
            "data.path=unused",
            f"data.windows={windows}",
            "data.batch_size=8",
            "data.sequence_length=16",
            "model.n_layer=1",
            "model.n_head=2",
            "model.d_model=16",
            "scheduler.warmup_steps=1",
            "trainer.accelerator=cpu",
            f"trainer.max_steps={STEPS}",
            "trainer.val_every_n_steps=3",
            "checkpoint.every_n_steps=3",
            "checkpoint.keep=all",
            "logger=files",
            f"logger.log_every_n_steps={EVERY}",
            *overrides,
        ]
    )


def fit(folder: Path, config: TrainConfig, cache: Any, *, rank: int = 0) -> Recorder:
    """Train below a folder, going on from its newest checkpoint. rank: of this process, where there are several."""
    recorder = Recorder()
    (folder / "checkpoints").mkdir(parents=True, exist_ok=True)
    with StopRequest().installed() as stop:
        tracker: Any = recorder if rank == 0 else None
        trainer.fit(config, folder, cache, tracker, rank=rank, say=lambda line: None, stop=stop)
    return recorder
