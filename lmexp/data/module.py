"""Batches for Lightning: which samples an optimizer step gets depends on the seed and the step's number.

The loaders are plain iterables, not DataLoaders: one gather from memory makes a batch, worker processes would
only slow it down, and nothing draws from torch's global random numbers. Who wants workers nevertheless, say to
prepare batches while the processor is busy, wraps TrainingBatches in a DataLoader with batch_size=None.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from itertools import repeat
from typing import Any

import numpy as np
import pytorch_lightning as pl
import torch
from numpy.typing import NDArray
from torch.utils.data import IterableDataset, get_worker_info

from lmexp import plugins
from lmexp.data.batch import Batch
from lmexp.data.cache import TokenCache
from lmexp.data.config import CorpusConfig
from lmexp.data.windows import EvaluationRows, TrainingRows, evaluation_rows, training_rows
from lmexp.errors import ConfigError
from lmexp.metrics.ignore import IGNORE
from lmexp.tokenizers.base import Tokenizer

Ints = NDArray[np.int64]

BLOCK = 4_096
"""Positions of the training order that are looked up at once."""


class TrainingBatches(IterableDataset[Batch]):
    """The micro-batches of one rank, endlessly, from the step that first_step() names when iteration begins.

    Micro-batch m of rank r in step k begins at position k * batch_size + (m * world_size + r) * micro-batch. In a
    DataLoader, worker w of n makes micro-batches w, w + n, ...: the loader takes them by turns, in the same order.
    """

    def __init__(
        self,
        rows: TrainingRows,
        batch_size: int,
        *,
        accumulate: int = 1,
        rank: int = 0,
        world_size: int = 1,
        first_step: Callable[[], int] = int,  # 0, and unlike a lambda it can be sent to a worker process
    ) -> None:
        self.rows = rows
        self.batch_size = batch_size
        self.accumulate = accumulate
        self.rank = rank
        self.world_size = world_size
        self.micro_batch_size = micro_batch_size(batch_size, accumulate, world_size)
        self.first_step = first_step

    def __iter__(self) -> Iterator[Batch]:
        info = get_worker_info()
        worker, n_workers = (info.id, info.num_workers) if info else (0, 1)
        step, number = self.first_step(), 0
        n_steps = max(1, BLOCK * n_workers // (self.accumulate * self.micro_batch_size))
        n_batches = n_steps * self.accumulate
        while True:
            yield from self._block(step, n_steps, np.arange((worker - number) % n_workers, n_batches, n_workers))
            step += n_steps
            number += n_batches

    def _block(self, step: int, n_steps: int, own: Ints) -> Iterator[Batch]:
        """Some of this rank's micro-batches in the n_steps from a step on; own: their numbers in this block."""
        shape = (n_steps, self.accumulate, self.world_size, self.micro_batch_size)
        positions = np.arange(step * self.batch_size, (step + n_steps) * self.batch_size).reshape(shape)
        steps, micro_batches = np.divmod(own, self.accumulate)
        if self.rows.row_targets is not None:
            ids = self.rows.ids(positions[steps, micro_batches, self.rank])  # (own, micro-batch)
            n_targets: Iterable[int] = repeat(self.rows.row_targets * self.micro_batch_size)
            n_step_targets: Iterable[int] = repeat(self.rows.row_targets * self.batch_size)
        else:
            numbers, steps = np.unique(steps, return_inverse=True)
            every = self.rows.ids(positions[numbers])  # (steps, accumulate, ranks, micro-batch)
            counts = self.rows.n_targets(every)
            ids = every[steps, micro_batches, self.rank]
            n_targets = counts[steps, micro_batches, self.rank].sum(axis=1).tolist()
            n_step_targets = counts.sum(axis=(1, 2, 3))[steps].tolist()
        # strict=False: what is the same for all batches has no end
        for batch_ids, n, n_step in zip(ids, n_targets, n_step_targets, strict=False):
            tokens, targets, document_positions, _ = self.rows.gather(batch_ids)
            yield Batch(
                tokens=torch.from_numpy(tokens),
                targets=torch.from_numpy(targets),
                positions=None if document_positions is None else torch.from_numpy(document_positions),
                n_bytes=None,
                n_targets=n,
                n_step_targets=n_step,
                sample_ids=torch.from_numpy(batch_ids),
            )


class EvaluationBatches:
    """One rank's batches of a split: rank r takes batches r, r + world_size, ...; no row occurs twice.

    A rank for which there is none gets one in which nothing is predicted: Lightning lets who has none leave validation
    out, while the others wait for it.
    """

    def __init__(self, rows: EvaluationRows, batch_size: int, *, rank: int = 0, world_size: int = 1) -> None:
        self.rows = rows
        self.batch_size = batch_size
        self.rank = rank
        self.world_size = world_size

    def __len__(self) -> int:
        return max(self._n_own(), int(self.rows.n_rows > 0))

    def __iter__(self) -> Iterator[Batch]:
        if not self._n_own() and self.rows.n_rows:
            yield self._nothing()
        for numbers in self.rows.batches(self.batch_size, self.rank, self.world_size):
            tokens, targets, positions, places = self.rows.gather(numbers)
            n_bytes = self.rows.split.window_bytes(places.reshape(-1), 1).reshape(places.shape)
            n_targets = int(np.count_nonzero(places))
            yield Batch(
                tokens=torch.from_numpy(tokens),
                targets=torch.from_numpy(targets),
                positions=None if positions is None else torch.from_numpy(positions),
                n_bytes=torch.from_numpy(n_bytes),
                n_targets=n_targets,
                n_step_targets=n_targets,
                sample_ids=torch.from_numpy(numbers),
            )

    def _n_own(self) -> int:
        return self.rows.n_batches(self.batch_size, self.rank, self.world_size)

    def _nothing(self) -> Batch:
        """The first row, of which nothing is predicted."""
        tokens, targets, positions, places = self.rows.gather(np.zeros(1, dtype=np.int64))
        return Batch(
            tokens=torch.from_numpy(tokens),
            targets=torch.full(targets.shape, IGNORE),
            positions=None if positions is None else torch.from_numpy(positions),
            n_bytes=torch.zeros(places.shape, dtype=torch.int64),
            n_targets=0,
            n_step_targets=0,
            sample_ids=torch.zeros(0, dtype=torch.int64),
        )


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
            training_rows(self.cache, self.config, self.seed),
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
        """A split once. batch_size: rows a batch; None is the micro-batch of training."""
        if split not in self.cache.splits:
            return []
        rank, world_size = self._rank_and_world_size()
        size = batch_size or micro_batch_size(self.config.batch_size, self.accumulate, world_size)
        rows = evaluation_rows(self.cache, split, self.config.windows, self.config.sequence_length)
        return EvaluationBatches(rows, size, rank=rank, world_size=world_size)

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
