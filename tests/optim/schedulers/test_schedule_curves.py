"""Each schedule over a whole run, against the reference whose form it is."""

from __future__ import annotations

import math
from collections.abc import Callable

import pytest
import torch
from torch.optim import SGD, Optimizer, lr_scheduler
from torch.optim.lr_scheduler import LRScheduler
from transformers import optimization

from lmexp.optim.schedulers.config import (
    ConstantConfig,
    CosineConfig,
    InverseSqrtConfig,
    LinearConfig,
    SchedulerConfig,
    StepConfig,
    WSDConfig,
)
from lmexp.optim.schedulers.curves import constant, cosine

TOTAL, LR = 60, 0.5
Reference = Callable[[Optimizer], LRScheduler]


def rates(build: Reference, steps: int) -> list[float]:
    """The learning rate of each optimizer step under a scheduler of torch, from the peak LR."""
    optimizer = SGD([torch.nn.Parameter(torch.zeros(1))], lr=LR)
    scheduler, found = build(optimizer), []
    for _ in range(steps):
        found.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        scheduler.step()
    return found


def warmed_up(after: Reference, warmup: int) -> Reference:
    """torch's linear warm-up, then another of torch's schedulers, which counts from the warm-up's end."""
    if not warmup:
        return after

    def build(optimizer: Optimizer) -> LRScheduler:
        first = lr_scheduler.LinearLR(optimizer, start_factor=1 / (warmup + 1), total_iters=warmup)
        return lr_scheduler.SequentialLR(optimizer, [first, after(optimizer)], milestones=[warmup])

    return build


@pytest.mark.parametrize("warmup", [0, 1, 9])
def test_each_is_torchs_at_every_step(warmup: int) -> None:
    rest = TOTAL - warmup
    pairs: list[tuple[SchedulerConfig, Reference]] = [
        (ConstantConfig(warmup_steps=warmup), lambda o: lr_scheduler.ConstantLR(o, factor=1.0)),
        (
            CosineConfig(warmup_steps=warmup, min_lr_ratio=0.2),
            lambda o: lr_scheduler.CosineAnnealingLR(o, T_max=rest, eta_min=0.2 * LR),
        ),
        (
            LinearConfig(warmup_steps=warmup, min_lr_ratio=0.25),
            lambda o: lr_scheduler.LinearLR(o, start_factor=1.0, end_factor=0.25, total_iters=rest),
        ),
        (
            LinearConfig(warmup_steps=warmup, decay_steps=40),
            lambda o: lr_scheduler.PolynomialLR(o, total_iters=40 - warmup),
        ),
        (
            StepConfig(warmup_steps=warmup, milestones=[10, 15, 50], gamma=0.3),
            lambda o: lr_scheduler.MultiStepLR(o, [m - warmup for m in (10, 15, 50)], gamma=0.3),
        ),
    ]
    for config, reference in pairs:
        expected = rates(warmed_up(reference, warmup), TOTAL)
        assert [LR * config.multiplier(step, TOTAL) for step in range(TOTAL)] == pytest.approx(expected, rel=1e-12)


@pytest.mark.parametrize(("size", "total"), [(7, TOTAL), (None, TOTAL), (None, 61), (None, 1)])
def test_step_is_torchs_step_lr(size: int | None, total: int) -> None:
    config = StepConfig(step_size=size, gamma=0.3)
    theirs = rates(lambda o: lr_scheduler.StepLR(o, size or math.ceil(total / 3), gamma=0.3), total)
    assert [LR * config.multiplier(step, total) for step in range(total)] == pytest.approx(theirs, rel=1e-12)


@pytest.mark.parametrize("warmup", [0, 1, 9])
def test_after_the_warmup_each_is_that_of_transformers(warmup: int) -> None:
    """Theirs begins with a rate of 0 and has the peak at the same step."""
    pairs: list[tuple[SchedulerConfig, Reference]] = [
        (ConstantConfig(), lambda o: optimization.get_constant_schedule_with_warmup(o, warmup)),
        (LinearConfig(), lambda o: optimization.get_linear_schedule_with_warmup(o, warmup, TOTAL)),
        (
            CosineConfig(min_lr_ratio=0.1),
            lambda o: optimization.get_cosine_with_min_lr_schedule_with_warmup(o, warmup, TOTAL, min_lr_rate=0.1),
        ),
        (InverseSqrtConfig(), lambda o: optimization.get_inverse_sqrt_schedule(o, warmup)),
        (InverseSqrtConfig(timescale=13), lambda o: optimization.get_inverse_sqrt_schedule(o, warmup, 13)),
        *(
            (
                WSDConfig(decay_shape=shape, decay_fraction=0.25, min_lr_ratio=0.1),
                lambda o, shape=shape: optimization.get_wsd_schedule(
                    o, warmup, 15, TOTAL, decay_type=shape, min_lr_ratio=0.1
                ),
            )
            for shape in ("linear", "cosine", "1-sqrt")
        ),
    ]
    for config, reference in pairs:
        config.warmup_steps = warmup  # type: ignore[attr-defined]
        theirs = rates(reference, TOTAL)
        for step in range(TOTAL):
            mine = LR * config.multiplier(step, TOTAL)
            expected = theirs[step] if step >= warmup else LR * (step + 1) / (warmup + 1)
            assert mine == pytest.approx(expected, rel=1e-12), (config, step)


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


EACH = [
    ConstantConfig(warmup_steps=10),
    CosineConfig(warmup_steps=10),
    LinearConfig(warmup_steps=10),
    WSDConfig(warmup_steps=10),
    InverseSqrtConfig(warmup_steps=10),
    StepConfig(warmup_steps=10),
]


@pytest.mark.parametrize("total", [1, 5, 10])
@pytest.mark.parametrize("config", EACH, ids=lambda config: config.kind)
def test_a_run_as_short_as_its_warmup_stays_in_it(config: SchedulerConfig, total: int) -> None:
    for step in range(total):
        assert config.multiplier(step, total) == constant(step, warmup_steps=10)
    assert 0 <= config.multiplier(total + 10, total) <= 1


@pytest.mark.parametrize("config", EACH, ids=lambda config: config.kind)
def test_the_torch_scheduler_follows_the_multiplier(config: SchedulerConfig) -> None:
    found = rates(lambda optimizer: config.build(optimizer, total_steps=32), 35)
    assert found == [LR * config.multiplier(step, 32) for step in range(35)]
    assert max(found) == LR


@pytest.mark.parametrize("kind", ["constant", "inverse_sqrt"])
def test_a_schedule_without_an_end_does_not_ask_for_the_horizon(kind: str) -> None:
    (config,) = (config for config in EACH if config.kind == kind)
    assert {config.multiplier(step, total) for step in (3, 40) for total in (1, 50, 10**6)} == {
        config.multiplier(3, 1),
        config.multiplier(40, 1),
    }
