"""A plain training loop, run in turns with a Lightning trainer in one process: what step_overhead.py measures with.

On a machine that others use too, two processes an instant apart differ more than what is to be measured. So both
sides share one process: after every ten steps of the trainer a callback takes ten plain steps.
"""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F  # noqa: N812 - torch's own name for it
from pytorch_lightning import Callback, LightningModule, Trainer
from torch import Tensor

from lmexp.models.config import GPTConfig
from lmexp.optim.config import AdamWConfig

BLOCK = 10
WARM_UP_STEPS = 200
AFTER = 5
"""Steps between a log point and the next turn of the plain loop: W&B's thread has done its work by then."""


class PlainLoop:
    """The model, the optimizer and the batch sizes of benchmarks.command.MICRO, and batches made before."""

    def __init__(self) -> None:
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            self.model = GPTConfig(n_layer=2, n_head=2, d_model=64).build(vocab_size=257, sequence_length=32)
            rows = torch.randint(257, (100, 8, 33))
        self.optimizer = AdamWConfig().build(self.model.named_parameters())
        self.batches = [(tokens[:, :-1].contiguous(), tokens[:, 1:].contiguous()) for tokens in rows]

    def loss(self, batch: tuple[Tensor, Tensor]) -> Tensor:
        """Mean cross-entropy."""
        tokens, targets = batch
        return F.cross_entropy(self.model(tokens).flatten(0, 1), targets.flatten())

    def set_learning_rate(self, step: int) -> None:
        """A warm-up."""
        for group in self.optimizer.param_groups:
            group["lr"] = 1e-3 * min(1.0, (step + 1) / 100)

    def step(self, number: int) -> None:
        """One optimizer step; nothing is logged."""
        self.set_learning_rate(number)
        self.loss(self.batches[number % len(self.batches)]).backward()
        torch.nn.utils.clip_grad_norm_(self.model.parameters(), 1.0)
        self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)


class PlainSteps(Callback):
    """Ten plain steps after every ten of the trainer; writes the seconds of a step in each block to a JSON file."""

    def __init__(self, path: str) -> None:
        self.path = Path(path)
        self.loop = PlainLoop()
        self.trainer_seconds: list[float] = []
        self.plain_seconds: list[float] = []
        self._turn_ended: float | None = None

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        step = trainer.global_step
        if step % BLOCK != AFTER:
            return
        started = time.perf_counter()
        if self._turn_ended is not None:
            self.trainer_seconds.append((started - self._turn_ended) / BLOCK)
        deterministic = torch.are_deterministic_algorithms_enabled()
        torch.use_deterministic_algorithms(False)
        started = time.perf_counter()
        for number in range(step, step + BLOCK):
            self.loop.step(number)
        ended = time.perf_counter()
        if self._turn_ended is not None:
            self.plain_seconds.append((ended - started) / BLOCK)
        torch.use_deterministic_algorithms(deterministic)
        self._turn_ended = time.perf_counter()

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        skipped = WARM_UP_STEPS // BLOCK
        body = {"trainer": self.trainer_seconds[skipped:], "plain": self.plain_seconds[skipped:]}
        self.path.write_text(json.dumps(body), encoding="utf-8")


class BareModule(LightningModule):
    """The plain loop's parts as a LightningModule."""

    def __init__(self) -> None:
        super().__init__()
        self.loop = PlainLoop()
        self.model = self.loop.model

    def training_step(self, batch: tuple[Tensor, Tensor], batch_idx: int) -> Tensor:
        self.loop.set_learning_rate(self.global_step)
        return self.loop.loss(batch)

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return self.loop.optimizer
