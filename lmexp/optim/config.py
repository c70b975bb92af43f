"""Configs of the optimizers."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, ClassVar

from lmexp import plugins
from lmexp.checks import at_least, one_of
from lmexp.errors import ConfigError

if TYPE_CHECKING:
    from torch import nn
    from torch.optim import Optimizer

ADJUST_LR = ("original", "match_rms_adamw")
"""What torch.optim.Muon takes as adjust_lr_fn."""


@dataclass(kw_only=True, slots=True)
class OptimizerConfig:
    """How gradients change the parameters."""

    shards: ClassVar[bool] = True
    """Whether it steps parameters of which each process has a part (trainer.strategy=fsdp)."""
    kind: str = "???"
    lr: float = 1e-3
    """Peak learning rate; the scheduler multiplies it."""
    weight_decay: float = 0.0
    """Decay of matrices; biases, norms and other vectors get none."""
    layer_decay: float = 1.0
    """Learning rate of each layer over that of the layer above it, embeddings lowest; 1 is one rate for all."""

    def __post_init__(self) -> None:
        if not 0 < self.lr < math.inf:
            raise ConfigError(f"optimizer.lr is {self.lr}; expected a positive number, e.g. optimizer.lr=1e-3")
        if not 0 <= self.weight_decay < math.inf:
            raise ConfigError(f"optimizer.weight_decay is {self.weight_decay}; expected 0 or more")
        if not 0 < self.layer_decay <= 1:
            raise ConfigError(
                f"optimizer.layer_decay is {self.layer_decay}; expected a number above 0 and up to 1, e.g. "
                f"optimizer.layer_decay=0.8"
            )

    def build(self, named_parameters: Iterable[tuple[str, nn.Parameter]]) -> Optimizer:
        """The torch optimizer of a model's named_parameters()."""
        raise NotImplementedError

    def groups(self, named_parameters: Iterable[tuple[str, nn.Parameter]]) -> list[Any]:
        """Its parameter groups, with a learning rate and a weight decay each."""
        from lmexp.optim.groups import decay_groups

        return decay_groups(named_parameters, weight_decay=self.weight_decay, lr=self.lr, layer_decay=self.layer_decay)


@dataclass(kw_only=True, slots=True)
class SGDConfig(OptimizerConfig):
    """torch.optim.SGD. Weight decay is added to the gradient."""

    kind: str = "sgd"
    lr: float = 0.1
    """Peak learning rate; the scheduler multiplies it."""
    momentum: float = 0.9
    """Share of the last step's direction that is kept; 0 is plain gradient descent."""
    nesterov: bool = False
    """Look ahead along the momentum (Sutskever et al. 2013)."""

    def __post_init__(self) -> None:
        OptimizerConfig.__post_init__(self)
        _check_rates(momentum=self.momentum)
        if self.nesterov and not self.momentum:
            raise ConfigError("optimizer.nesterov=true needs a momentum; set optimizer.momentum=0.9")

    def build(self, named_parameters: Iterable[tuple[str, nn.Parameter]]) -> Optimizer:
        from torch.optim import SGD

        return SGD(self.groups(named_parameters), lr=self.lr, momentum=self.momentum, nesterov=self.nesterov)


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
        _check_rates(beta1=self.beta1, beta2=self.beta2)
        _check_eps(self.eps)

    def build(self, named_parameters: Iterable[tuple[str, nn.Parameter]]) -> Optimizer:
        from torch.optim import Adam

        groups, betas = self.groups(named_parameters), (self.beta1, self.beta2)
        return Adam(groups, lr=self.lr, betas=betas, eps=self.eps, fused=self.fused)


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
        _check_rates(beta1=self.beta1, beta2=self.beta2)
        _check_eps(self.eps)

    def build(self, named_parameters: Iterable[tuple[str, nn.Parameter]]) -> Optimizer:
        from torch.optim import AdamW

        groups, betas = self.groups(named_parameters), (self.beta1, self.beta2)
        return AdamW(groups, lr=self.lr, betas=betas, eps=self.eps, fused=self.fused)


@dataclass(kw_only=True, slots=True)
class LionConfig(OptimizerConfig):
    """lion_pytorch.Lion (arXiv:2302.06675), which steps by signs: half of AdamW's state. Needs lmexp[lion].

    Its authors advise a learning rate 3 to 10 times smaller than AdamW's, and a weight decay as many times larger.
    """

    kind: str = "lion"
    lr: float = 3e-4
    """Peak learning rate; the scheduler multiplies it."""
    weight_decay: float = 1.0
    """Decay of matrices; biases, norms and other vectors get none."""
    beta1: float = 0.9
    """Share of the mean gradient in the direction of a step."""
    beta2: float = 0.99
    """Decay rate of the mean gradient."""

    def __post_init__(self) -> None:
        OptimizerConfig.__post_init__(self)
        _check_rates(beta1=self.beta1, beta2=self.beta2)

    def build(self, named_parameters: Iterable[tuple[str, nn.Parameter]]) -> Optimizer:
        try:
            from lion_pytorch import Lion  # type: ignore[import-untyped]
        except ModuleNotFoundError as error:
            if error.name != "lion_pytorch":
                raise
            raise ConfigError('optimizer=lion needs lion-pytorch: pip install "lmexp[lion]"') from None
        built: Optimizer = Lion(self.groups(named_parameters), lr=self.lr, betas=(self.beta1, self.beta2))
        return built


@dataclass(kw_only=True, slots=True)
class AdafactorConfig(OptimizerConfig):
    """torch.optim.Adafactor (arXiv:1804.04235): of each matrix it keeps the sums of rows and columns alone.

    A step is relative: the learning rate, of which it takes at most 1 / sqrt(step), times the root mean square of the
    parameter. Weight decay is apart from the gradient.
    """

    shards: ClassVar[bool] = False
    """Its means over rows and columns fail inside torch's DTensor."""
    kind: str = "adafactor"
    lr: float = 1e-2
    """Peak learning rate, relative to each parameter's size; the scheduler multiplies it."""
    beta2_decay: float = -0.8
    """Step k averages the squared gradient with a decay rate of 1 - k ** beta2_decay."""
    d: float = 1.0
    """Largest root mean square of an update before it is scaled (clipping threshold)."""

    def __post_init__(self) -> None:
        OptimizerConfig.__post_init__(self)
        if not -math.inf < self.beta2_decay <= 0:
            raise ConfigError(f"optimizer.beta2_decay is {self.beta2_decay}; expected 0 or less, e.g. -0.8")
        if not 1 <= self.d < math.inf:
            raise ConfigError(f"optimizer.d is {self.d}; expected a clipping threshold of 1 or more")

    def build(self, named_parameters: Iterable[tuple[str, nn.Parameter]]) -> Optimizer:
        from torch.optim import Adafactor

        return Adafactor(self.groups(named_parameters), lr=self.lr, beta2_decay=self.beta2_decay, d=self.d)


@dataclass(kw_only=True, slots=True)
class MuonConfig(OptimizerConfig):
    """Muon for hidden matrices, torch.optim.AdamW for embeddings, output matrix, norms and biases."""

    kind: str = "muon"
    weight_decay: float = 0.1
    """Decay of matrices; biases, norms and other vectors get none."""
    momentum: float = 0.95
    """Decay rate of Muon's mean gradient."""
    nesterov: bool = True
    """Look ahead along Muon's momentum."""
    ns_steps: int = 5
    """Newton-Schulz iterations that make a step of Muon nearly orthogonal."""
    adjust_lr_fn: str = "match_rms_adamw"
    """match_rms_adamw: a learning rate is as large as it is for AdamW (arXiv:2502.16982). original: that of Muon's
    author, about 0.02, which asks for a small adamw_lr_ratio."""
    adamw_lr_ratio: float = 1.0
    """Learning rate of what takes AdamW, over optimizer.lr."""
    beta1: float = 0.9
    """AdamW's decay rate of the mean gradient."""
    beta2: float = 0.95
    """AdamW's decay rate of the mean squared gradient."""
    eps: float = 1e-8
    """Added to AdamW's root of the mean squared gradient."""

    def __post_init__(self) -> None:
        OptimizerConfig.__post_init__(self)
        _check_rates(momentum=self.momentum, beta1=self.beta1, beta2=self.beta2)
        _check_eps(self.eps)
        one_of("optimizer.adjust_lr_fn", self.adjust_lr_fn, ADJUST_LR)
        at_least("optimizer.ns_steps", self.ns_steps, 1)
        if self.ns_steps >= 100:  # torch refuses it, in the first step
            raise ConfigError(f"optimizer.ns_steps is {self.ns_steps}; expected fewer than 100, e.g. 5")
        if not 0 < self.adamw_lr_ratio < math.inf:
            raise ConfigError(f"optimizer.adamw_lr_ratio is {self.adamw_lr_ratio}; expected a positive number, e.g. 1")

    def build(self, named_parameters: Iterable[tuple[str, nn.Parameter]]) -> Optimizer:
        from torch.optim import AdamW

        from lmexp.optim.groups import takes_muon
        from lmexp.optim.muon import Muon, MuonWithAdamW

        groups = self.groups(named_parameters)
        muon, adamw = takes_muon(groups)
        for group in adamw:
            group["lr"] *= self.adamw_lr_ratio
        return MuonWithAdamW(
            Muon(
                muon,
                lr=self.lr,
                momentum=self.momentum,
                nesterov=self.nesterov,
                ns_steps=self.ns_steps,
                adjust_lr_fn=self.adjust_lr_fn,
            ),
            AdamW(adamw, lr=self.lr, betas=(self.beta1, self.beta2), eps=self.eps, fused=True) if adamw else None,
        )


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

        if self.layer_decay != 1 and not plugins.takes("optimizer", self.target, "params"):
            raise ConfigError(
                f"optimizer.layer_decay is {self.layer_decay}, which sets learning rates of parameter groups, and "
                f"{self.target} takes no params; set optimizer.layer_decay=1"
            )
        named = list(named_parameters)
        facts = {
            "params": self.groups(named),
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


def _check_rates(**rates: float) -> None:
    for name, value in rates.items():
        if not 0 <= value < 1:
            raise ConfigError(f"optimizer.{name} is {value}; expected a decay rate from 0 to below 1")


def _check_eps(eps: float) -> None:
    if not 0 < eps < math.inf:
        raise ConfigError(f"optimizer.eps is {eps}; expected a small positive number, e.g. optimizer.eps=1e-8")
