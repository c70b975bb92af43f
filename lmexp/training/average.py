"""A moving average of the weights, beside those that are trained: ema = decay * ema + (1 - decay) * weights.

It is taken after each optimizer step, in float32 or wider, from the initial weights on (Polyak and Juditsky 1992, with
a constant decay). Buffers and frozen weights are copied. A checkpoint holds it as ema.safetensors. The thread that
writes one reads the average as it does the weights: the next update follows an optimizer step, which waits for it.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytorch_lightning as pl
import torch
from torch import Tensor, nn
from torch.distributed.tensor import DTensor

from lmexp.errors import CheckpointError
from lmexp.training import checkpoints
from lmexp.training.sharding import gathered, part_of

AVERAGE = "lmexp.ema"
"""Key of Lightning's checkpoint dict: name -> average, named as in its state_dict."""


class WeightAverage(pl.Callback):
    """Keeps the average up to date, and hands it to checkpoints."""

    def __init__(self, decay: float) -> None:
        self.decay = decay
        self.average: dict[str, Tensor] = {}
        """Under the names of the module's state_dict(), tied weights under the first of theirs."""
        self._averaged: list[tuple[Tensor, Tensor]] = []
        self._copied: list[tuple[Tensor, Tensor]] = []
        self._seen_step = -1

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        self._seen_step = trainer.global_step
        own = distinct(pl_module)
        if self.average:  # of the checkpoint that training goes on from
            check_fits(own, self.average, "the average in the checkpoint")
            self.average = {name: part_of(self.average[name], tensor) for name, tensor in own.items()}
        else:
            self.average = {name: tensor.detach().to(_wide(tensor), copy=True) for name, tensor in own.items()}
        pairs = [(self.average[name], tensor) for name, tensor in own.items()]
        self._averaged = [(average, tensor) for average, tensor in pairs if tensor.requires_grad]
        self._copied = [(average, tensor) for average, tensor in pairs if not tensor.requires_grad]

    @torch.no_grad()
    def on_train_batch_end(self, trainer: pl.Trainer, *_: Any) -> None:
        if trainer.global_step == self._seen_step:  # a micro-batch inside an optimizer step
            return
        self._seen_step = trainer.global_step
        if self._averaged:
            averages = [average for average, _ in self._averaged]
            weights = [weight.to(average.dtype) for average, weight in self._averaged]
            torch._foreach_mul_(averages, self.decay)
            torch._foreach_add_(averages, weights, alpha=1 - self.decay)
        for average, tensor in self._copied:
            average.copy_(tensor)

    def on_save_checkpoint(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, checkpoint: dict[str, Any]
    ) -> None:
        # A copy of each where it is sharded, as the weights are then.
        sharded = any(isinstance(average, DTensor) for average in self.average.values())
        checkpoint[AVERAGE] = gathered(self.average, keep=trainer.is_global_zero) if sharded else dict(self.average)

    def on_load_checkpoint(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, checkpoint: dict[str, Any]
    ) -> None:
        if AVERAGE not in checkpoint:
            raise CheckpointError(
                "the checkpoint holds no moving average of the weights, but the run keeps one (trainer.ema_decay); "
                "another run wrote it"
            )
        self.average = dict(checkpoint[AVERAGE])


@contextmanager
def in_place_of_weights(module: nn.Module, average: Mapping[str, Tensor]) -> Iterator[None]:
    """Let the module have the average's values; its own come back untouched: they are put aside, not overwritten."""
    own = distinct(module)
    check_fits(own, average, "the moving average")
    before = {name: tensor.data for name, tensor in own.items()}
    try:
        for name, tensor in own.items():
            tensor.data = average[name].to(tensor.device, tensor.dtype)
        yield
    finally:
        for name, tensor in own.items():
            tensor.data = before[name]


@contextmanager
def average_of(folder: Path, module: nn.Module, prefix: str = "") -> Iterator[str]:
    """The same with the average in a checkpoint, of which it yields the SHA-256. prefix: of names in the module."""
    average = {f"{prefix}{name}": tensor for name, tensor in checkpoints.load_weights(folder, checkpoints.EMA).items()}
    with in_place_of_weights(module, average):
        yield checkpoints.read_manifest(folder).files[checkpoints.EMA]


def distinct(module: nn.Module) -> dict[str, Tensor]:
    """The tensors of its state_dict() themselves, tied ones under their first name."""
    found: dict[int, tuple[str, Tensor]] = {}
    for name, tensor in module.state_dict(keep_vars=True).items():
        found.setdefault(id(tensor), (name, tensor))
    return dict(found.values())


def check_fits(own: Mapping[str, Tensor], average: Mapping[str, Tensor], what: str) -> None:
    """CheckpointError unless the average has each of these tensors, with its shape."""
    wrong = [name for name, tensor in own.items() if name not in average or average[name].shape != tensor.shape]
    if wrong:
        raise CheckpointError(f"{what} isn't of this model: it lacks {wrong[0]}, or has it in another shape")


def _wide(tensor: Tensor) -> torch.dtype:
    return torch.promote_types(tensor.dtype, torch.float32) if tensor.requires_grad else tensor.dtype
