"""Which of several processes this is."""

from __future__ import annotations

import os
from dataclasses import dataclass

FAILURE_VARIABLE = "LMEXP_FAILURE_FILE"
"""Environment variable: where the first failing process of several writes {rank, message, exit_code}."""


@dataclass(kw_only=True, slots=True, frozen=True)
class Ranks:
    """This process among those of a run, as torchrun says."""

    rank: int = 0
    world_size: int = 1

    @classmethod
    def from_environment(cls) -> Ranks:
        """From RANK and WORLD_SIZE where torchrun set them, else one process."""
        if "TORCHELASTIC_RUN_ID" not in os.environ:
            return cls()
        return cls(rank=int(os.environ["RANK"]), world_size=int(os.environ["WORLD_SIZE"]))

    @property
    def is_first(self) -> bool:
        """Whether this is rank 0, which writes the run's files."""
        return self.rank == 0

    def barrier(self) -> None:
        """Wait for all processes."""
        if self.world_size > 1:
            import torch

            self.connect()
            torch.distributed.barrier()

    def connect(self) -> None:
        """Join the process group, if that hasn't happened yet."""
        if self.world_size > 1:
            import torch

            if not torch.distributed.is_initialized():
                torch.distributed.init_process_group("nccl" if torch.cuda.is_available() else "gloo")
