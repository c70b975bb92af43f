"""Batches for Lightning: which samples an optimizer step gets depends on the seed and the step's number.

The loaders are plain iterables, not DataLoaders: one gather from memory makes a batch, worker processes would
only slow it down, and nothing draws from torch's global random numbers.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import Any

import numpy as np
import pytorch_lightning as pl
import torch

from lmexp import plugins
from lmexp.data.batch import Batch
from lmexp.data.cache import TokenCache
from lmexp.data.config import CorpusConfig
from lmexp.data.windows import EvaluationWindows, TrainingWindows
from lmexp.errors import ConfigError
from lmexp.tokenizers.base import Tokenizer

BLOCK = 4_096
"""Positions of the training order that are looked up at once."""


class TrainingBatches:
    """The micro-batches of one rank, endlessly, from the step that first_step() names when iteration begins.

    Micro-batch m of rank r in step k begins at position k * batch_size + (m * world_size + r) * micro-batch.
    """

    def __init__(
        self,
        windows: TrainingWindows,
        batch_size: int,
        *,
        accumulate: int = 1,
        rank: int = 0,
        world_size: int = 1,
        first_step: Callable[[], int] = lambda: 0,
    ) -> None:
        self.windows = windows
        self.batch_size = batch_size
        self.accumulate = accumulate
        self.rank = rank
        self.world_size = world_size
        self.micro_batch_size = micro_batch_size(batch_size, accumulate, world_size)
        self.first_step = first_step

    def __iter__(self) -> Iterator[Batch]:
        n_step_targets = self.batch_size * self.windows.sequence_length
        for starts in self._starts(self.first_step()):
            rows = torch.from_numpy(self.windows.gather(starts))  # (batch, seq + 1)
            yield Batch(rows[:, :-1], rows[:, 1:], None, n_step_targets, torch.from_numpy(starts))

    def _starts(self, step: int) -> Iterator[np.ndarray[Any, np.dtype[np.int64]]]:
        """First token of each sequence of each micro-batch, from a step on."""
        shape = (self.accumulate, self.world_size, self.micro_batch_size)
        own = np.arange(self.batch_size).reshape(shape)[:, self.rank]  # (accumulate, micro-batch)
        n_steps = max(1, BLOCK // own.size)
        while True:
            first = np.arange(step, step + n_steps)[:, None, None] * self.batch_size
            starts = self.windows.starts(first + own)  # (steps, accumulate, micro-batch)
            yield from starts.reshape(-1, self.micro_batch_size)
            step += n_steps


class EvaluationBatches:
    """One rank's batches of a split: rank r takes batches r, r + world_size, ...; no window occurs twice."""

    def __init__(self, windows: EvaluationWindows, batch_size: int, *, rank: int = 0, world_size: int = 1) -> None:
        self.windows = windows
        self.batch_size = batch_size
        self.rank = rank
        self.world_size = world_size

    def __len__(self) -> int:
        return self.windows.n_batches(self.batch_size, self.rank, self.world_size)

    def __iter__(self) -> Iterator[Batch]:
        for numbers in self.windows.batches(self.batch_size, self.rank, self.world_size):
            tokens, n_bytes = self.windows.gather(numbers)
            rows = torch.from_numpy(tokens)  # (batch, seq + 1)
            yield Batch(rows[:, :-1], rows[:, 1:], torch.from_numpy(n_bytes), n_bytes.size, torch.from_numpy(numbers))


class CorpusDataModule(pl.LightningDataModule):
    """A token cache's splits as batches, on the trainer's ranks and from the trainer's step on.

    rank, world_size: only where there is no trainer to ask.
    """

    def __init__(
        self,
        cache: TokenCache,
        config: CorpusConfig,
        seed: int,
        accumulate: int = 1,
        *,
        rank: int | None = None,
        world_size: int | None = None,
    ) -> None:
        super().__init__()
        self.cache = cache
        self.config = config
        self.seed = seed
        self.accumulate = accumulate
        self._place = None if rank is None or world_size is None else (rank, world_size)

    def train_dataloader(self) -> Iterable[Batch]:
        """Endless training batches."""
        rank, world_size = self._rank_and_world_size()
        return TrainingBatches(
            TrainingWindows(self.cache.splits["train"], self.config.sequence_length, self.seed),
            self.config.batch_size,
            accumulate=self.accumulate,
            rank=rank,
            world_size=world_size,
            first_step=lambda: self.trainer.global_step if self.trainer else 0,
        )

    def val_dataloader(self) -> Iterable[Batch]:
        """The validation split once; empty where there is none."""
        return self.evaluation_batches("validation")

    def test_dataloader(self) -> Iterable[Batch]:
        """The test split once; empty where there is none."""
        return self.evaluation_batches("test")

    def evaluation_batches(self, split: str, batch_size: int | None = None) -> Iterable[Batch]:
        """A split once. batch_size: windows a batch; None is the micro-batch of training."""
        if split not in self.cache.splits:
            return []
        rank, world_size = self._rank_and_world_size()
        size = batch_size or micro_batch_size(self.config.batch_size, self.accumulate, world_size)
        windows = EvaluationWindows(self.cache.splits[split], self.config.sequence_length)
        return EvaluationBatches(windows, size, rank=rank, world_size=world_size)

    def _rank_and_world_size(self) -> tuple[int, int]:
        if self._place is not None:
            return self._place
        return (self.trainer.global_rank, self.trainer.world_size) if self.trainer else (0, 1)


def micro_batch_size(batch_size: int, accumulate: int, world_size: int) -> int:
    """Sequences in one forward pass of one rank."""
    size, rest = divmod(batch_size, accumulate * world_size)
    if rest or not size:
        raise ConfigError(
            f"data.batch_size ({batch_size}) must be divisible by processes x micro-batches ({world_size} x "
            f"trainer.accumulate_grad_batches={accumulate}); "
            f"try data.batch_size={max(1, size) * accumulate * world_size}"
        )
    return size


def custom_data_module(
    target: str, args: dict[str, Any], *, tokenizer: Tokenizer | None, seed: int
) -> pl.LightningDataModule:
    """The data module that data=custom names, from a trusted package."""
    facts = {"tokenizer": tokenizer, "seed": seed}
    built: pl.LightningDataModule = plugins.construct("data", target, args, base=pl.LightningDataModule, facts=facts)
    return built
