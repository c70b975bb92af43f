"""What every task of lmexp shares: optimizer, learning rate by step, clipping, and sums instead of means."""

from __future__ import annotations

from abc import abstractmethod
from typing import TYPE_CHECKING, Any

import pytorch_lightning as pl
import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from lmexp.optim.config import OptimizerConfig
from lmexp.optim.schedulers.config import CustomSchedulerConfig, SchedulerConfig
from lmexp.training.sharding import shard, whole

if TYPE_CHECKING:
    from lmexp.data.batch import Batch


class Task(pl.LightningModule):
    """A LightningModule whose every figure is a sum and a count, exact for any number of processes and micro-batches.

    model: tokens (batch, seq) -> logits (batch, seq, vocab); where batches have positions (data.windows=packed) it
    takes them too. The learning rate of optimizer step k is optimizer.lr * scheduler.multiplier(k, total_steps), set
    before each step: nothing to save, nothing to drift.
    """

    def __init__(
        self,
        model: nn.Module,
        *,
        optimizer: OptimizerConfig,
        scheduler: SchedulerConfig,
        total_steps: int,
        gradient_clip_val: float | None = None,
    ) -> None:
        super().__init__()
        self.model = model
        self.optimizer_config = optimizer
        self.scheduler_config = scheduler
        self.total_steps = total_steps
        self.gradient_clip_val = gradient_clip_val
        self.grad_norm: Tensor | None = None
        """Norm of the last step's gradient before clipping."""
        self.step_nats = torch.zeros((), dtype=torch.float64)
        """Sum of the loss of this process over the targets of the running optimizer step."""

    @abstractmethod
    def nats(self, batch: Batch) -> tuple[Tensor, int]:
        """Sum of the losses of a batch's targets, with gradient, and their number, batch.n_targets."""

    def logits(self, batch: Batch) -> Tensor:
        """The model's logits after each token: (batch, seq, vocab)."""
        found: Tensor = (
            self.model(batch.tokens) if batch.positions is None else self.model(batch.tokens, positions=batch.positions)
        )
        return found

    def training_step(self, batch: Batch, batch_idx: int) -> Tensor:
        nats, _ = self.nats(batch)
        self.step_nats += nats.detach()
        # Lightning divides by the micro-batches, DDP and FSDP by the processes: give both back, divide once by all
        # targets.
        parts = self.trainer.world_size * self.trainer.accumulate_grad_batches
        return nats * (parts / batch.n_step_targets)

    def take_step_nats(self) -> Tensor:
        """step_nats of the optimizer step that is done, on the device; the next one's begin at 0."""
        taken, self.step_nats = self.step_nats, torch.zeros_like(self.step_nats)
        return taken

    def learning_rate(self) -> float:
        """The learning rate of the last optimizer step, for parameters whose peak is optimizer.lr.

        Others have less by optimizer.layer_decay, or another one by optimizer.adamw_lr_ratio.
        """
        groups = self.trainer.optimizers[0].param_groups
        full = [group for group in groups if group.get("initial_lr") == self.optimizer_config.lr]
        if full or "initial_lr" not in groups[0]:
            return float((full or groups)[0]["lr"])
        return self.optimizer_config.lr * float(groups[0]["lr"]) / float(groups[0]["initial_lr"])

    def configure_model(self) -> None:
        if self.device_mesh is not None:  # trainer.strategy=fsdp
            shard(self.model, self.device_mesh["data_parallel"])

    def configure_optimizers(self) -> Any:
        optimizer = self.optimizer_config.build(self.model.named_parameters())
        if isinstance(self.scheduler_config, CustomSchedulerConfig):
            scheduler = self.scheduler_config.build(optimizer, self.total_steps)
            return {"optimizer": optimizer, "lr_scheduler": {"scheduler": scheduler, "interval": "step"}}
        for group in optimizer.param_groups:
            group.setdefault("initial_lr", group["lr"])
        return optimizer

    def configure_gradient_clipping(
        self,
        optimizer: Optimizer,
        gradient_clip_val: float | None = None,
        gradient_clip_algorithm: str | None = None,
    ) -> None:
        limit = float("inf") if self.gradient_clip_val is None else self.gradient_clip_val
        parameters = list(self.model.parameters())
        gradients = [parameter.grad for parameter in parameters if parameter.grad is not None]
        self.grad_norm = whole(nn.utils.get_total_norm(gradients))
        nn.utils.clip_grads_with_norm_(parameters, limit, self.grad_norm)

    def on_train_start(self) -> None:
        self.step_nats = self.step_nats.to(self.device)

    def on_train_batch_start(self, batch: Batch, batch_idx: int) -> None:
        if isinstance(self.scheduler_config, CustomSchedulerConfig):
            return
        multiplier = self.scheduler_config.multiplier(self.trainer.global_step, self.total_steps)
        for group in self.trainer.optimizers[0].param_groups:
            group["lr"] = group["initial_lr"] * multiplier
