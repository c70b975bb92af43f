"""All processes of a run agree at a step boundary whether to stop."""

from __future__ import annotations

import pytorch_lightning as pl
import torch

from lmexp.errors import EXIT_CODES
from lmexp.stopping import StopRequest


def agreed(stop: StopRequest, trainer: pl.Trainer) -> str | None:
    """The state in which all processes leave the run, if any of them was asked to stop; the same answer on all."""
    states = list(EXIT_CODES)
    if trainer.world_size == 1:
        return stop.state if stop.received is not None else None
    wanted = 1 + states.index(stop.state) if stop.received is not None else 0
    flag = torch.tensor(wanted, device=trainer.strategy.root_device)
    torch.distributed.all_reduce(flag, op=torch.distributed.ReduceOp.MAX)
    return states[int(flag) - 1] if flag else None
