"""Random numbers as a pure function of (seed, optimizer step, micro-batch, rank).

The generators are seeded anew before each micro-batch. So dropout needs no saved state: a resumed run draws what the
uninterrupted one drew, and nothing that happens between two steps (validation, a callback) changes the next.
"""

from __future__ import annotations

import hashlib
import random
import struct
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import pytorch_lightning as pl
import torch


def step_seed(seed: int, step: int, micro_batch: int, rank: int) -> int:
    """63 well mixed bits of the four numbers."""
    packed = struct.pack("<4q", seed, step, micro_batch, rank)
    return int.from_bytes(hashlib.blake2b(packed, digest_size=8).digest(), "little") >> 1


def seed_generators(value: int) -> None:
    """Seed those of torch, numpy and random."""
    # Not torch.manual_seed: it formats a stack trace for every kind of device, a millisecond each time.
    torch.default_generator.manual_seed(value)
    if torch.cuda.is_initialized():  # type: ignore[no-untyped-call]
        torch.cuda.manual_seed_all(value)
    np.random.seed(value & 0xFFFFFFFF)
    random.seed(value)


@contextmanager
def random_state_kept(device: torch.device) -> Iterator[None]:
    """Whatever is drawn within, the generators go on afterwards as if nothing had been; device: of this process."""
    of_torch, of_numpy, of_python = torch.get_rng_state(), np.random.get_state(), random.getstate()
    of_cuda = torch.cuda.get_rng_state(device) if device.type == "cuda" else None
    try:
        yield
    finally:
        torch.set_rng_state(of_torch)
        np.random.set_state(of_numpy)
        random.setstate(of_python)
        if of_cuda is not None:
            torch.cuda.set_rng_state(of_cuda, device)


class StepSeeds(pl.Callback):
    """Seeds torch, numpy and random before each micro-batch."""

    def __init__(self, seed: int) -> None:
        self.seed = seed

    def on_train_batch_start(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, batch: Any, batch_idx: int
    ) -> None:
        micro_batch = batch_idx % trainer.accumulate_grad_batches
        seed_generators(step_seed(self.seed, trainer.global_step, micro_batch, trainer.global_rank))
