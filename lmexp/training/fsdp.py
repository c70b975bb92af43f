"""trainer.strategy=fsdp: a model sharded over all processes (see sharding), in checkpoints that are whole.

A checkpoint is what one process would write, in the same format. So a run goes on with any number of processes, sharded
or not, and whatever opens a run opens this one.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import pytorch_lightning as pl
import torch
from pytorch_lightning.strategies import ModelParallelStrategy, Strategy
from torch.optim import Optimizer

from lmexp.tasks.base import Task
from lmexp.training.sharding import gathered, gathered_state, part_of, sharded_state


class ShardedStrategy(ModelParallelStrategy):
    """Lightning's ModelParallelStrategy with the run's own checkpoints. The task shards its model in configure_model().

    Saving puts every tensor together, one after the other; rank 0 keeps a copy on the CPU and writes it.
    """

    def __init__(self, world_size: int) -> None:
        super().__init__(data_parallel_size=world_size, tensor_parallel_size=1)

    @property
    def restore_checkpoint_after_setup(self) -> bool:
        """Before, as elsewhere: callbacks know what they knew when on_fit_start is called."""
        return False

    @property
    def lightning_restore_optimizer(self) -> bool:
        return True

    def lightning_module_state_dict(self) -> dict[str, Any]:
        """The whole weights on rank 0, nothing on others."""
        assert self.lightning_module is not None
        return gathered(self.lightning_module.state_dict(keep_vars=True), keep=self.is_global_zero)

    def load_model_state_dict(self, checkpoint: Mapping[str, Any], strict: bool = True) -> None:
        assert self.lightning_module is not None
        own = self.lightning_module.state_dict()
        found = checkpoint["state_dict"]
        parts = {name: part_of(one, own[name]) if name in own else one for name, one in found.items()}
        self.lightning_module.load_state_dict(parts, strict=strict)

    def optimizer_state(self, optimizer: Optimizer) -> dict[str, Any]:
        """The whole state on rank 0; on others its tensors are empty."""
        state: dict[str, Any] = gathered_state(optimizer.state_dict(), keep=self.is_global_zero)
        return state

    def load_optimizer_state_dict(self, checkpoint: Mapping[str, Any]) -> None:
        for optimizer, state in zip(self.optimizers, checkpoint["optimizer_states"], strict=True):
            listed = [parameter for group in optimizer.param_groups for parameter in group["params"]]
            optimizer.load_state_dict(sharded_state(state, dict(enumerate(listed))))

    def save_checkpoint(self, checkpoint: dict[str, Any], filepath: Any, storage_options: Any = None) -> None:
        copies = frozenset(tensor.data_ptr() for tensor in checkpoint["state_dict"].values())
        Strategy.save_checkpoint(self, checkpoint, filepath, replace(storage_options, constant=copies))

    def teardown(self) -> None:
        super().teardown()
        self.checkpoint_io.teardown()  # ends the thread that writes; Lightning's strategy leaves it

    def load_checkpoint(self, checkpoint_path: Any, weights_only: bool | None = None) -> dict[str, Any]:
        return Strategy.load_checkpoint(self, checkpoint_path, weights_only)


class Lockstep(pl.Callback):
    """Lets every process compute the model equally often in validation, since each time all put their parts together.

    Without it, those that have a batch more than others would wait for them forever.
    """

    def __init__(self) -> None:
        self._missing = 0
        """Batches that this process has less than others."""

    def on_validation_epoch_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        own = int(sum(trainer.num_val_batches))
        most = torch.tensor(own, device=trainer.strategy.root_device)
        torch.distributed.all_reduce(most, op=torch.distributed.ReduceOp.MAX)
        self._missing = int(most) - own

    def on_validation_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        assert isinstance(pl_module, Task)
        for _ in range(self._missing):
            pl_module.model(torch.zeros((1, 1), dtype=torch.int64, device=pl_module.device))
