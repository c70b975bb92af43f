import math

import pytest
import torch
from torch.optim import SGD

from lmexp.optim.config import ConstantConfig, CosineConfig, SchedulerConfig
from lmexp.optim.schedulers import constant, cosine


def nanogpt_lr(it: int, *, lr: float, min_lr: float, warmup_iters: int, lr_decay_iters: int) -> float:
    """get_lr of nanoGPT's train.py."""
    if it < warmup_iters:
        return lr * (it + 1) / (warmup_iters + 1)
    if it > lr_decay_iters:
        return min_lr
    decay_ratio = (it - warmup_iters) / (lr_decay_iters - warmup_iters)
    coeff = 0.5 * (1.0 + math.cos(math.pi * decay_ratio))
    return min_lr + coeff * (lr - min_lr)


@pytest.mark.parametrize("warmup", [0, 1, 100])
@pytest.mark.parametrize("decay", [None, 500, 2000])
@pytest.mark.parametrize("ratio", [0.0, 0.1, 1.0])
def test_cosine_is_nanogpts_at_every_step(warmup: int, decay: int | None, ratio: float) -> None:
    total, lr = 700, 6e-4
    for step in range(total + 50):
        ours = lr * cosine(step, total_steps=total, warmup_steps=warmup, min_lr_ratio=ratio, decay_steps=decay)
        theirs = nanogpt_lr(
            step,
            lr=lr,
            min_lr=ratio * lr,
            warmup_iters=warmup,
            lr_decay_iters=total if decay is None else decay,
        )
        assert ours == pytest.approx(theirs, rel=1e-12, abs=1e-18)


def test_cosine_at_points_known_in_closed_form() -> None:
    def at(step: int) -> float:
        return cosine(step, total_steps=110, warmup_steps=10, min_lr_ratio=0.2)

    assert at(0) == pytest.approx(1 / 11)
    assert at(9) == pytest.approx(10 / 11)
    assert at(10) == 1.0
    assert at(10 + 100 // 4) == pytest.approx(0.2 + 0.8 * (2 + math.sqrt(2)) / 4)
    assert at(60) == pytest.approx(0.6)
    assert at(110) == at(10_000) == 0.2


def test_constant_is_one_after_its_warmup() -> None:
    assert constant(0) == constant(10**6) == 1.0
    assert [constant(step, warmup_steps=4) for step in range(6)] == pytest.approx([0.2, 0.4, 0.6, 0.8, 1, 1])


@pytest.mark.parametrize("total", [1, 5, 10])
def test_a_run_as_short_as_its_warmup_stays_in_it(total: int) -> None:
    for step in range(total):
        expected = constant(step, warmup_steps=10)
        assert cosine(step, total_steps=total, warmup_steps=10, min_lr_ratio=0.1) == expected
    assert cosine(total + 10, total_steps=total, warmup_steps=10, min_lr_ratio=0.1) == 0.1


@pytest.mark.parametrize(
    "config", [ConstantConfig(warmup_steps=3), CosineConfig(warmup_steps=3)], ids=["constant", "cosine"]
)
def test_the_torch_scheduler_follows_the_multiplier(config: SchedulerConfig) -> None:
    optimizer = SGD([torch.nn.Parameter(torch.zeros(1))], lr=0.5)
    scheduler = config.build(optimizer, total_steps=12)
    for step in range(15):
        assert optimizer.param_groups[0]["lr"] == 0.5 * config.multiplier(step, 12)
        optimizer.step()
        scheduler.step()
