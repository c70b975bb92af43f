"""What a task gets to learn from in one forward pass."""

from __future__ import annotations

from typing import NamedTuple

from torch import Tensor


class Batch(NamedTuple):
    """Equally long token sequences; each token predicts the target at its place."""

    tokens: Tensor
    """(batch, seq) int64."""
    targets: Tensor
    """(batch, seq) int64: the token after each token; IGNORE (-100) where none is predicted (padding)."""
    positions: Tensor | None
    """(batch, seq) int64: position of each token in its own document; 0 starts another one, and tokens attend only
    within theirs. None: each sequence is one text."""
    n_bytes: Tensor | None
    """(batch, seq) int64: UTF-8 bytes of each target; None while training."""
    n_targets: int
    """Targets of this batch that are predicted."""
    n_step_targets: int
    """The same of the whole optimizer step, over ranks and micro-batches: the summed loss is divided by it once.
    In evaluation: of this batch."""
    sample_ids: Tensor
    """(batch,) int64: what each sequence is, see windows.py; for the record, and to compare orders."""
