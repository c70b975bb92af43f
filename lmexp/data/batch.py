"""What a task gets to learn from in one forward pass."""

from __future__ import annotations

from typing import NamedTuple

from torch import Tensor


class Batch(NamedTuple):
    """Equally long token sequences; each token predicts the target at its place."""

    tokens: Tensor
    """(batch, seq) int64."""
    targets: Tensor
    """(batch, seq) int64: the token after each token."""
    n_bytes: Tensor | None
    """(batch, seq) int64: UTF-8 bytes of each target; None while training."""
    n_step_targets: int
    """Targets of the whole optimizer step, over ranks and micro-batches: the summed loss is divided by it
    once. In evaluation: targets of this batch."""
    sample_ids: Tensor
    """(batch,) int64. Training: where in the split each sequence begins. Evaluation: its window's number."""
