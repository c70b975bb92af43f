"""Learning-rate schedules: what multiplies optimizer.lr, a pure function of the optimizer step (from 0).

Nothing is remembered from one step to the next, so a resumed run has the right rate by construction. The warm-up of W
steps is nanoGPT's, (step + 1) / (W + 1): no step has a rate of 0, and step W has the peak. A run that is not longer
than its warm-up never leaves it.
"""

from __future__ import annotations

import math
from bisect import bisect_right
from collections.abc import Sequence


def constant(step: int, *, warmup_steps: int = 0) -> float:
    """Linear warm-up to 1, then 1.

    >>> [constant(step, warmup_steps=3) for step in range(5)]
    [0.25, 0.5, 0.75, 1.0, 1.0]
    """
    return (step + 1) / (warmup_steps + 1) if step < warmup_steps else 1.0


def cosine(
    step: int, *, total_steps: int, warmup_steps: int, min_lr_ratio: float, decay_steps: int | None = None
) -> float:
    """Linear warm-up to 1, half a cosine down to min_lr_ratio (arXiv:1608.03983), then flat: nanoGPT's get_lr.

    decay_steps: the step where the minimum is reached; None is total_steps.

    >>> [round(cosine(step, total_steps=4, warmup_steps=0, min_lr_ratio=0.1), 3) for step in range(6)]
    [1.0, 0.868, 0.55, 0.232, 0.1, 0.1]
    """
    if step < warmup_steps:
        return constant(step, warmup_steps=warmup_steps)
    return _falling("cosine", step, warmup_steps, total_steps if decay_steps is None else decay_steps, min_lr_ratio)


def linear(
    step: int, *, total_steps: int, warmup_steps: int, min_lr_ratio: float = 0.0, decay_steps: int | None = None
) -> float:
    """Linear warm-up to 1, a straight line down to min_lr_ratio, then flat. decay_steps: as in cosine.

    >>> [linear(step, total_steps=6, warmup_steps=1, min_lr_ratio=0.5) for step in range(8)]
    [0.5, 1.0, 0.9, 0.8, 0.7, 0.6, 0.5, 0.5]
    """
    if step < warmup_steps:
        return constant(step, warmup_steps=warmup_steps)
    return _falling("linear", step, warmup_steps, total_steps if decay_steps is None else decay_steps, min_lr_ratio)


def warmup_stable_decay(
    step: int,
    *,
    total_steps: int,
    warmup_steps: int,
    decay_fraction: float,
    decay_shape: str,
    min_lr_ratio: float = 0.0,
) -> float:
    """Linear warm-up to 1, then 1, and in the last decay_fraction of the steps down to min_lr_ratio (arXiv:2404.06395).

    decay_shape: linear, cosine or 1-sqrt (arXiv:2405.18392). A decay that would begin within the warm-up begins after.

    >>> shape = {"total_steps": 8, "warmup_steps": 1, "decay_fraction": 0.5, "decay_shape": "linear"}
    >>> [warmup_stable_decay(step, **shape) for step in range(9)]
    [0.5, 1.0, 1.0, 1.0, 1.0, 0.75, 0.5, 0.25, 0.0]
    """
    if step < warmup_steps:
        return constant(step, warmup_steps=warmup_steps)
    start = max(warmup_steps, total_steps - round(decay_fraction * total_steps))
    return 1.0 if step < start else _falling(decay_shape, step, start, total_steps, min_lr_ratio)


def inverse_sqrt(step: int, *, warmup_steps: int, timescale: int | None = None) -> float:
    """Linear warm-up to 1, then sqrt(timescale / (timescale + steps since)) (arXiv:1706.03762, big_vision's form).

    timescale: None is warmup_steps, which gives sqrt(warmup_steps / step); 10,000 where there is no warm-up.

    >>> [inverse_sqrt(step, warmup_steps=4) for step in (0, 3, 4, 16, 64)]
    [0.2, 0.8, 1.0, 0.5, 0.25]
    """
    if step < warmup_steps:
        return constant(step, warmup_steps=warmup_steps)
    scale = (warmup_steps or 10_000) if timescale is None else timescale
    return math.sqrt(scale / (scale + step - warmup_steps))


def drops(
    step: int,
    *,
    total_steps: int,
    warmup_steps: int = 0,
    step_size: int | None = None,
    milestones: Sequence[int] = (),
    gamma: float,
) -> float:
    """Linear warm-up to 1, then 1, multiplied by gamma at each milestone, or else every step_size steps.

    step_size: None is a third of total_steps. Both count from the start of the run, as torch's StepLR and MultiStepLR.

    >>> [drops(step, total_steps=6, gamma=0.5) for step in range(7)]
    [1.0, 1.0, 0.5, 0.5, 0.25, 0.25, 0.125]
    >>> [drops(step, total_steps=6, milestones=[1, 4], gamma=0.5) for step in range(6)]
    [1.0, 0.5, 0.5, 0.5, 0.25, 0.25]
    """
    if step < warmup_steps:
        return constant(step, warmup_steps=warmup_steps)
    size = max(1, math.ceil(total_steps / 3)) if step_size is None else step_size
    return float(gamma ** (bisect_right(milestones, step) if milestones else step // size))


def _falling(shape: str, step: int, start: int, end: int, lowest: float) -> float:
    """From 1 at start down to lowest at end, then flat."""
    if step >= end:
        return lowest
    progress = (step - start) / (end - start)  # 0 to 1
    if shape == "cosine":
        height = 0.5 * (1.0 + math.cos(math.pi * progress))
    else:
        height = 1.0 - (math.sqrt(progress) if shape == "1-sqrt" else progress)
    return lowest + height * (1.0 - lowest)
