"""Learning-rate schedules: what multiplies optimizer.lr, a pure function of the optimizer step (from 0).

Nothing is remembered from one step to the next, so a resumed run has the right rate by construction.
"""

from __future__ import annotations

import math


def constant(step: int, *, warmup_steps: int = 0) -> float:
    """Linear warm-up to 1, then 1.

    >>> [constant(step, warmup_steps=3) for step in range(5)]
    [0.25, 0.5, 0.75, 1.0, 1.0]
    """
    return (step + 1) / (warmup_steps + 1) if step < warmup_steps else 1.0


def cosine(
    step: int, *, total_steps: int, warmup_steps: int, min_lr_ratio: float, decay_steps: int | None = None
) -> float:
    """Linear warm-up to 1, half a cosine down to min_lr_ratio (arXiv:1608.03983), then flat.

    decay_steps: the step where the minimum is reached; None is total_steps. The form is that of nanoGPT's
    get_lr. A run that is not longer than its warm-up never leaves it.

    >>> [round(cosine(step, total_steps=4, warmup_steps=0, min_lr_ratio=0.1), 3) for step in range(6)]
    [1.0, 0.868, 0.55, 0.232, 0.1, 0.1]
    """
    end = total_steps if decay_steps is None else decay_steps
    if step < warmup_steps:
        return constant(step, warmup_steps=warmup_steps)
    if step >= end:
        return min_lr_ratio
    progress = (step - warmup_steps) / (end - warmup_steps)  # 0 to 1
    return min_lr_ratio + 0.5 * (1.0 + math.cos(math.pi * progress)) * (1.0 - min_lr_ratio)
