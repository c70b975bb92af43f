"""What training tells: metrics and losses (the same each time) and timings, read from the device at log points only."""

from __future__ import annotations

import math
import resource
import sys
import time
from typing import Any

import pytorch_lightning as pl
import torch
from torch import Tensor

from lmexp.data.batch import Batch
from lmexp.errors import LmexpError
from lmexp.tasks.base import Task
from lmexp.tracking.tracker import Tracker
from lmexp.training.progress import Progress


class StepLog(pl.Callback):
    """Every n optimizer steps: train/loss over all tokens since the last time, learning rate, gradient norm, speed.

    Tokens are targets that were predicted, of all processes: padding is none.
    """

    def __init__(
        self,
        tracker: Tracker | None,
        progress: Progress,
        *,
        every: int,
        total_steps: int | None,
    ) -> None:
        self.tracker = tracker
        self.progress = progress
        self.every = every
        self.total_steps = total_steps
        self._tokens = 0
        self._seen_step = 0
        self._logged_step = 0
        self._logged_tokens = 0
        self._since = 0.0
        self._paused = 0.0
        self._validation_started = 0.0
        self._steps: list[tuple[Tensor, int]] = []
        self._carried = (0.0, 0)

    def state_dict(self) -> dict[str, Any]:
        """Sums since the last log point, of all processes, and all tokens so far; every process takes part."""
        return {"sums": list(self._carried), "tokens": self._tokens}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        nats, targets = state_dict["sums"]
        self._carried = (nats, targets)
        self._tokens = state_dict["tokens"]

    def on_save_checkpoint(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, checkpoint: dict[str, Any]
    ) -> None:
        if isinstance(pl_module, Task):
            self._collect(trainer)
            checkpoint["callbacks"][self.state_key] = self.state_dict()

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        self._seen_step = self._logged_step = trainer.global_step
        self._logged_tokens = self._tokens
        self._since = time.perf_counter()
        self.progress.start(trainer.global_step, self.total_steps)

    def on_train_batch_end(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        step = trainer.global_step
        if step == self._seen_step:  # a micro-batch inside an optimizer step
            return
        self._seen_step = step
        if isinstance(batch, Batch):  # the user's own data may be anything
            self._tokens += batch.n_step_targets
            if isinstance(pl_module, Task):
                self._steps.append((pl_module.take_step_nats(), batch.n_step_targets))
        if step % self.every == 0 or step == self.total_steps:
            metrics = self._metrics(trainer, pl_module) if isinstance(pl_module, Task) else {}
            timings = self._timings(step)
            if self.tracker is not None:
                if metrics:
                    self.tracker.metrics(step, metrics)
                self.tracker.timings(step, timings)
            self.progress.step(step, metrics | timings)

    def on_validation_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        self._validation_started = time.perf_counter()

    def on_validation_batch_end(
        self,
        trainer: pl.Trainer,
        pl_module: pl.LightningModule,
        outputs: Any,
        batch: Any,
        batch_idx: int,
        dataloader_idx: int = 0,
    ) -> None:
        sizes = [int(n) if math.isfinite(n) else 0 for n in trainer.num_val_batches]
        self.progress.busy("validating", trainer.global_step, sum(sizes[:dataloader_idx]) + batch_idx + 1, sum(sizes))

    def on_validation_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        seconds = time.perf_counter() - self._validation_started
        self.pause(seconds)
        if self.tracker is not None:
            self.tracker.timings(trainer.global_step, {"validation_seconds": seconds})
        figures = {k: float(v) for k, v in trainer.callback_metrics.items() if k.startswith("validation/")}
        self.progress.validated(trainer.global_step, figures)

    def on_train_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        self.progress.stop()

    def on_exception(self, trainer: pl.Trainer, pl_module: pl.LightningModule, exception: BaseException) -> None:
        self.progress.stop()

    def pause(self, seconds: float) -> None:
        """Leave out time that wasn't spent on training."""
        self._paused += seconds

    def _collect(self, trainer: pl.Trainer) -> None:
        """Keep the loss of each step since the last call, and add it to the sums that are carried along."""
        if not self._steps:
            return
        nats = torch.stack([nats for nats, _ in self._steps])  # (steps,)
        if trainer.world_size > 1:
            torch.distributed.all_reduce(nats)
        targets = [n_targets for _, n_targets in self._steps]
        self._steps = []
        losses = []
        for step_nats, n_targets in zip(nats.tolist(), targets, strict=True):  # one by one: however often we collect
            self._carried = (self._carried[0] + step_nats, self._carried[1] + n_targets)
            losses.append(step_nats / n_targets)
        if self.tracker is not None:
            self.tracker.losses(trainer.global_step - len(losses) + 1, losses)

    def _metrics(self, trainer: pl.Trainer, task: Task) -> dict[str, float]:
        self._collect(trainer)
        nats, targets = self._carried
        self._carried = (0.0, 0)
        loss = nats / targets
        if not math.isfinite(loss):  # the same on all processes, so all stop
            raise LmexpError(
                f"train/loss is {loss} at step {trainer.global_step}: training diverged; lower optimizer.lr "
                f"(or raise scheduler.warmup_steps) and start again; the checkpoints before this step are whole"
            )
        metrics = {"train/loss": loss, "train/learning_rate": task.learning_rate()}
        if task.grad_norm is not None:
            metrics["train/grad_norm"] = float(task.grad_norm)
        if self._tokens:
            metrics["train/tokens"] = self._tokens
        return metrics

    def _timings(self, step: int) -> dict[str, float]:
        now = time.perf_counter()
        seconds = now - self._since - self._paused
        steps, tokens = step - self._logged_step, self._tokens - self._logged_tokens
        self._since, self._paused, self._logged_step, self._logged_tokens = now, 0.0, step, self._tokens
        timings = {"seconds": seconds, "step_seconds": seconds / steps, "peak_memory_mb": peak_memory_mb()}
        if tokens:
            timings["tokens_per_second"] = tokens / seconds
        return timings


def peak_memory_mb() -> float:
    """Most memory this process ever held: of the CUDA device where one is in use, else resident."""
    if torch.cuda.is_available():
        return torch.cuda.max_memory_allocated() / 1e6
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak / 1e6 if sys.platform == "darwin" else peak * 1024 / 1e6
