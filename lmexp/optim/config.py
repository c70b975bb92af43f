"""Configs of the optimizers and the learning-rate schedules."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from lmexp import plugins
from lmexp.checks import at_least
from lmexp.errors import ConfigError

if TYPE_CHECKING:
    from torch import nn
    from torch.optim import Optimizer
    from torch.optim.lr_scheduler import LRScheduler


@dataclass(kw_only=True, slots=True)
class OptimizerConfig:
    """How gradients change the parameters."""

    kind: str = "???"
    lr: float = 1e-3
    """Peak learning rate; the scheduler multiplies it."""
    weight_decay: float = 0.0
    """Decay of matrices; biases, norms and other vectors get none."""

    def __post_init__(self) -> None:
        if not 0 < self.lr < math.inf:
            raise ConfigError(f"optimizer.lr is {self.lr}; expected a positive number, e.g. optimizer.lr=1e-3")
        if not 0 <= self.weight_decay < math.inf:
            raise ConfigError(f"optimizer.weight_decay is {self.weight_decay}; expected 0 or more")

    def build(self, named_parameters: Iterable[tuple[str, nn.Parameter]]) -> Optimizer:
        """The torch optimizer of a model's named_parameters()."""
        raise NotImplementedError


@dataclass(kw_only=True, slots=True)
class AdamConfig(OptimizerConfig):
    """torch.optim.Adam (arXiv:1412.6980). Weight decay is added to the gradient: AdamW does better."""

    kind: str = "adam"
    beta1: float = 0.9
    """Decay rate of the mean gradient."""
    beta2: float = 0.999
    """Decay rate of the mean squared gradient."""
    eps: float = 1e-8
    """Added to the root of the mean squared gradient."""
    fused: bool = True
    """One kernel for all parameters; false is torch's reference loop."""

    def __post_init__(self) -> None:
        OptimizerConfig.__post_init__(self)
        _check_adam(self.beta1, self.beta2, self.eps)

    def build(self, named_parameters: Iterable[tuple[str, nn.Parameter]]) -> Optimizer:
        from torch.optim import Adam

        from lmexp.optim.groups import decay_groups

        groups = decay_groups(named_parameters, weight_decay=self.weight_decay)
        return Adam(groups, lr=self.lr, betas=(self.beta1, self.beta2), eps=self.eps, fused=self.fused)


@dataclass(kw_only=True, slots=True)
class AdamWConfig(OptimizerConfig):
    """torch.optim.AdamW (arXiv:1711.05101): weight decay apart from the gradient."""

    kind: str = "adamw"
    weight_decay: float = 0.1
    """Decay of matrices; biases, norms and other vectors get none."""
    beta1: float = 0.9
    """Decay rate of the mean gradient."""
    beta2: float = 0.95
    """Decay rate of the mean squared gradient; 0.95 is GPT-3's (arXiv:2005.14165), torch has 0.999."""
    eps: float = 1e-8
    """Added to the root of the mean squared gradient."""
    fused: bool = True
    """One kernel for all parameters; false is torch's reference loop."""

    def __post_init__(self) -> None:
        OptimizerConfig.__post_init__(self)
        _check_adam(self.beta1, self.beta2, self.eps)

    def build(self, named_parameters: Iterable[tuple[str, nn.Parameter]]) -> Optimizer:
        from torch.optim import AdamW

        from lmexp.optim.groups import decay_groups

        groups = decay_groups(named_parameters, weight_decay=self.weight_decay)
        return AdamW(groups, lr=self.lr, betas=(self.beta1, self.beta2), eps=self.eps, fused=self.fused)


@dataclass(kw_only=True, slots=True)
class CustomOptimizerConfig(OptimizerConfig):
    """A torch Optimizer of the user's; it takes lr, and params (decay groups) or named_parameters."""

    kind: str = "custom"
    target: str = ""
    """my_pkg.module:ClassName, in a package trusted with -p my_pkg."""
    args: dict[str, Any] = field(default_factory=dict)
    """Arguments of the class, checked against its signature."""

    def __post_init__(self) -> None:
        OptimizerConfig.__post_init__(self)
        plugins.check_target("optimizer", self.target)
        for name in ("lr", "weight_decay"):
            if name in self.args:
                raise ConfigError(f"optimizer.args.{name} would hide optimizer.{name}; give optimizer.{name} alone")

    def build(self, named_parameters: Iterable[tuple[str, nn.Parameter]]) -> Optimizer:
        from torch.optim import Optimizer

        from lmexp.optim.groups import decay_groups

        named = list(named_parameters)
        facts = {
            "params": decay_groups(named, weight_decay=self.weight_decay),
            "named_parameters": named,
            "lr": self.lr,
            "weight_decay": self.weight_decay,
        }
        if not plugins.takes("optimizer", self.target, "lr"):
            raise ConfigError(f"optimizer.target {self.target} takes no lr, so optimizer.lr would be idle; give it one")
        built: Optimizer = plugins.construct("optimizer", self.target, self.args, base=Optimizer, facts=facts)
        if self.weight_decay and "weight_decay" not in built.defaults:
            raise ConfigError(
                f"optimizer.weight_decay is {self.weight_decay}, but {self.target} has no weight_decay among "
                f"its defaults; set optimizer.weight_decay=0"
            )
        return built


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
        from lmexp.optim.schedulers import constant

        return constant(step, warmup_steps=self.warmup_steps)


@dataclass(kw_only=True, slots=True)
class CosineConfig(SchedulerConfig):
    """Linear warm-up, half a cosine down to a minimum, then flat (nanoGPT's form)."""

    kind: str = "cosine"
    warmup_steps: int = 50
    """Optimizer steps of linear warm-up."""
    min_lr_ratio: float = 0.1
    """Lowest learning rate over the peak."""
    decay_steps: int | None = None
    """Optimizer step at which the minimum is reached; null is the last step of the run."""

    def __post_init__(self) -> None:
        _check_warmup(self.warmup_steps)
        if not 0 <= self.min_lr_ratio <= 1:
            raise ConfigError(f"scheduler.min_lr_ratio is {self.min_lr_ratio}; expected a share from 0 to 1")
        at_least("scheduler.decay_steps", self.decay_steps, 1)
        if self.decay_steps is not None and self.decay_steps <= self.warmup_steps:
            raise ConfigError(
                f"scheduler.decay_steps ({self.decay_steps}) must be above scheduler.warmup_steps "
                f"({self.warmup_steps}); try scheduler.decay_steps=null, the last step of the run"
            )

    def multiplier(self, step: int, total_steps: int) -> float:
        from lmexp.optim.schedulers import cosine

        return cosine(
            step,
            total_steps=total_steps,
            warmup_steps=self.warmup_steps,
            min_lr_ratio=self.min_lr_ratio,
            decay_steps=self.decay_steps,
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


def _check_adam(beta1: float, beta2: float, eps: float) -> None:
    for name, value in (("beta1", beta1), ("beta2", beta2)):
        if not 0 <= value < 1:
            raise ConfigError(f"optimizer.{name} is {value}; expected a decay rate from 0 to below 1")
    if not 0 < eps < math.inf:
        raise ConfigError(f"optimizer.eps is {eps}; expected a small positive number, e.g. optimizer.eps=1e-8")


def _check_warmup(warmup_steps: int) -> None:
    at_least("scheduler.warmup_steps", warmup_steps, 0)
