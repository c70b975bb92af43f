"""Configs of the learning-rate schedules."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from lmexp import plugins
from lmexp.checks import at_least, one_of
from lmexp.errors import ConfigError

if TYPE_CHECKING:
    from torch.optim import Optimizer
    from torch.optim.lr_scheduler import LRScheduler

DECAY_SHAPES = ("linear", "cosine", "1-sqrt")
"""How a rate falls."""


@dataclass(kw_only=True, slots=True)
class SchedulerConfig:
    """How the learning rate changes from step to step."""

    kind: str = "???"

    def multiplier(self, step: int, total_steps: int) -> float:
        """Learning rate of an optimizer step (from 0) over optimizer.lr: a pure function of the step."""
        raise NotImplementedError

    def build(self, optimizer: Optimizer, total_steps: int) -> LRScheduler:
        """The same as a torch scheduler, to be stepped once after each optimizer step."""
        from torch.optim.lr_scheduler import LambdaLR

        return LambdaLR(optimizer, lambda step: self.multiplier(step, total_steps))


@dataclass(kw_only=True, slots=True)
class ConstantConfig(SchedulerConfig):
    """Linear warm-up, then constant."""

    kind: str = "constant"
    warmup_steps: int = 0
    """Optimizer steps of linear warm-up."""

    def __post_init__(self) -> None:
        _check_warmup(self.warmup_steps)

    def multiplier(self, step: int, total_steps: int) -> float:
        from lmexp.optim.schedulers.curves import constant

        return constant(step, warmup_steps=self.warmup_steps)


@dataclass(kw_only=True, slots=True)
class DecayConfig(SchedulerConfig):
    """Linear warm-up, then down to a minimum, then flat."""

    warmup_steps: int = 50
    """Optimizer steps of linear warm-up."""
    min_lr_ratio: float = 0.0
    """Lowest learning rate over the peak."""
    decay_steps: int | None = None
    """Optimizer step at which the minimum is reached; null is the last step of the run."""

    def __post_init__(self) -> None:
        _check_warmup(self.warmup_steps)
        _check_min_lr_ratio(self.min_lr_ratio)
        _check_decay_steps(self.decay_steps, self.warmup_steps)


@dataclass(kw_only=True, slots=True)
class CosineConfig(DecayConfig):
    """Linear warm-up, half a cosine down to a minimum, then flat (nanoGPT's form)."""

    kind: str = "cosine"
    min_lr_ratio: float = 0.1
    """Lowest learning rate over the peak."""

    def multiplier(self, step: int, total_steps: int) -> float:
        from lmexp.optim.schedulers.curves import cosine

        return cosine(
            step,
            total_steps=total_steps,
            warmup_steps=self.warmup_steps,
            min_lr_ratio=self.min_lr_ratio,
            decay_steps=self.decay_steps,
        )


@dataclass(kw_only=True, slots=True)
class LinearConfig(DecayConfig):
    """Linear warm-up, a straight line down to a minimum, then flat."""

    kind: str = "linear"

    def multiplier(self, step: int, total_steps: int) -> float:
        from lmexp.optim.schedulers.curves import linear

        return linear(
            step,
            total_steps=total_steps,
            warmup_steps=self.warmup_steps,
            min_lr_ratio=self.min_lr_ratio,
            decay_steps=self.decay_steps,
        )


@dataclass(kw_only=True, slots=True)
class WSDConfig(SchedulerConfig):
    """Warm-up, stable, decay: constant until the last part of the run, then down (arXiv:2404.06395)."""

    kind: str = "wsd"
    warmup_steps: int = 50
    """Optimizer steps of linear warm-up."""
    decay_fraction: float = 0.2
    """Share of the run's steps, at its end, in which the learning rate falls."""
    decay_shape: str = "1-sqrt"
    """linear, cosine, or 1-sqrt (1 - sqrt(progress), arXiv:2405.18392)."""
    min_lr_ratio: float = 0.0
    """Lowest learning rate over the peak."""

    def __post_init__(self) -> None:
        _check_warmup(self.warmup_steps)
        _check_min_lr_ratio(self.min_lr_ratio)
        if not 0 <= self.decay_fraction <= 1:
            raise ConfigError(f"scheduler.decay_fraction is {self.decay_fraction}; expected a share from 0 to 1")
        one_of("scheduler.decay_shape", self.decay_shape, DECAY_SHAPES)

    def multiplier(self, step: int, total_steps: int) -> float:
        from lmexp.optim.schedulers.curves import warmup_stable_decay

        return warmup_stable_decay(
            step,
            total_steps=total_steps,
            warmup_steps=self.warmup_steps,
            decay_fraction=self.decay_fraction,
            decay_shape=self.decay_shape,
            min_lr_ratio=self.min_lr_ratio,
        )


@dataclass(kw_only=True, slots=True)
class InverseSqrtConfig(SchedulerConfig):
    """Linear warm-up, then 1 / sqrt(step), whatever the horizon (arXiv:1706.03762)."""

    kind: str = "inverse_sqrt"
    warmup_steps: int = 50
    """Optimizer steps of linear warm-up."""
    timescale: int | None = None
    """Three times as many optimizer steps after the warm-up, the rate is half the peak; null is warmup_steps, and
    10,000 where there is no warm-up."""

    def __post_init__(self) -> None:
        _check_warmup(self.warmup_steps)
        at_least("scheduler.timescale", self.timescale, 1)

    def multiplier(self, step: int, total_steps: int) -> float:
        from lmexp.optim.schedulers.curves import inverse_sqrt

        return inverse_sqrt(step, warmup_steps=self.warmup_steps, timescale=self.timescale)


@dataclass(kw_only=True, slots=True)
class StepConfig(SchedulerConfig):
    """Linear warm-up, then constant with drops: every step_size steps, or at milestones."""

    kind: str = "step"
    warmup_steps: int = 0
    """Optimizer steps of linear warm-up."""
    step_size: int | None = None
    """Optimizer steps from one drop to the next; null is a third of the run, where there are no milestones."""
    milestones: list[int] = field(default_factory=list)
    """Optimizer steps of the drops, instead of step_size."""
    gamma: float = 0.1
    """What each drop multiplies the learning rate by."""

    def __post_init__(self) -> None:
        _check_warmup(self.warmup_steps)
        at_least("scheduler.step_size", self.step_size, 1)
        if self.step_size is not None and self.milestones:
            raise ConfigError(
                f"scheduler.step_size ({self.step_size}) and scheduler.milestones ({self.milestones}) are two ways to "
                f"say when; set scheduler.step_size=null, or scheduler.milestones=[]"
            )
        if self.milestones != sorted({*self.milestones}) or any(milestone < 1 for milestone in self.milestones):
            raise ConfigError(
                f"scheduler.milestones is {self.milestones}; expected steps in rising order, e.g. "
                f"scheduler.milestones=[1000,1500]"
            )
        if not 0 < self.gamma <= 1:
            raise ConfigError(f"scheduler.gamma is {self.gamma}; expected a number above 0 and up to 1, e.g. 0.1")
        first = self.milestones[0] if self.milestones else self.step_size
        if first is not None and first < self.warmup_steps:
            name = "milestones" if self.milestones else "step_size"
            raise ConfigError(
                f"scheduler.{name} begins with step {first}, within the warm-up; expected at least "
                f"scheduler.warmup_steps ({self.warmup_steps})"
            )

    def multiplier(self, step: int, total_steps: int) -> float:
        from lmexp.optim.schedulers.curves import drops

        return drops(
            step,
            total_steps=total_steps,
            warmup_steps=self.warmup_steps,
            step_size=self.step_size,
            milestones=self.milestones,
            gamma=self.gamma,
        )


@dataclass(kw_only=True, slots=True)
class CustomSchedulerConfig(SchedulerConfig):
    """A torch LRScheduler of the user's, stepped every optimizer step; it may take total_steps."""

    kind: str = "custom"
    target: str = ""
    """my_pkg.module:ClassName, in a package trusted with -p my_pkg."""
    args: dict[str, Any] = field(default_factory=dict)
    """Arguments of the class, checked against its signature."""

    def __post_init__(self) -> None:
        plugins.check_target("scheduler", self.target)

    def build(self, optimizer: Optimizer, total_steps: int) -> LRScheduler:
        from torch.optim.lr_scheduler import LRScheduler

        facts = {"optimizer": optimizer, "total_steps": total_steps}
        built: LRScheduler = plugins.construct("scheduler", self.target, self.args, base=LRScheduler, facts=facts)
        return built


def _check_warmup(warmup_steps: int) -> None:
    at_least("scheduler.warmup_steps", warmup_steps, 0)


def _check_min_lr_ratio(min_lr_ratio: float) -> None:
    if not 0 <= min_lr_ratio <= 1:
        raise ConfigError(f"scheduler.min_lr_ratio is {min_lr_ratio}; expected a share from 0 to 1")


def _check_decay_steps(decay_steps: int | None, warmup_steps: int) -> None:
    at_least("scheduler.decay_steps", decay_steps, 1)
    if decay_steps is not None and decay_steps <= warmup_steps:
        raise ConfigError(
            f"scheduler.decay_steps ({decay_steps}) must be above scheduler.warmup_steps "
            f"({warmup_steps}); try scheduler.decay_steps=null, the last step of the run"
        )
