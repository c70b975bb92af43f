"""Which of several processes this is."""

from __future__ import annotations

import json
import os
from dataclasses import dataclass

from lmexp.errors import LmexpError, Stopped
from lmexp.redaction import redact_text

FAILURE_VARIABLE = "LMEXP_FAILURE_FILE"
"""Environment variable: where the first of several processes that leaves early says why, see `tell_launcher`."""


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


def tell_launcher(error: BaseException) -> bool:
    """Say why this process leaves: {rank, message, exit_code, stopped}; whether it is the first of all to do so.

    stopped: the state in which a signal leaves the run; null where something went wrong. The others then fail for want
    of this process, which is no news.
    """
    path = os.environ.get(FAILURE_VARIABLE)
    if not path:
        return True
    stopped = error.state if isinstance(error, Stopped) else None
    told = {
        "rank": Ranks.from_environment().rank,
        "message": redact_text(describe(error)),
        "exit_code": error.exit_code if isinstance(error, LmexpError) else 1,
        "stopped": "interrupted" if isinstance(error, KeyboardInterrupt) else stopped,
    }
    try:
        with open(path, "x", encoding="utf-8") as file:
            json.dump(told, file)
    except FileExistsError:
        with open(path, encoding="utf-8") as file:
            return file.read() == json.dumps(told)  # said before, by this process
    return True


def describe(error: BaseException) -> str:
    """An error in a line; those that lmexp raises on purpose speak for themselves."""
    return str(error) if isinstance(error, LmexpError | Stopped) else f"{type(error).__name__}: {error}"
