"""Random numbers are a pure function of seed, step, micro-batch and rank."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any, cast

import torch

from lmexp.training.seeds import StepSeeds, step_seed


def test_seeds_differ_in_every_argument() -> None:
    seeds = {step_seed(s, k, m, r) for s in range(5) for k in range(20) for m in range(3) for r in range(4)}
    assert len(seeds) == 5 * 20 * 3 * 4
    assert all(0 <= seed < 2**63 for seed in seeds)


def test_what_was_drawn_before_does_not_matter() -> None:
    trainer: Any = SimpleNamespace(accumulate_grad_batches=2, global_step=7, global_rank=1)
    callback = StepSeeds(3)
    draws = []
    for already_drawn in (0, 5):
        torch.rand(already_drawn)
        callback.on_train_batch_start(cast(Any, trainer), cast(Any, None), None, batch_idx=15)
        draws.append(torch.rand(4))
    assert torch.equal(draws[0], draws[1])
    callback.on_train_batch_start(cast(Any, trainer), cast(Any, None), None, batch_idx=14)
    assert not torch.equal(draws[0], torch.rand(4))
