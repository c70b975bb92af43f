import dataclasses
import inspect
import sys
import types

import pytest
import torch
from torch import nn
from torch.optim import SGD, Adam, AdamW, Optimizer
from torch.optim.lr_scheduler import LambdaLR

from lmexp import plugins
from lmexp.errors import ConfigError
from lmexp.optim.config import (
    AdamConfig,
    AdamWConfig,
    ConstantConfig,
    CosineConfig,
    CustomOptimizerConfig,
    CustomSchedulerConfig,
    OptimizerConfig,
)


@pytest.mark.parametrize(("config", "built"), [(AdamConfig, Adam), (AdamWConfig, AdamW)])
def test_fields_are_in_torchs_signature_and_arrive_there(config: type[OptimizerConfig], built: type[Optimizer]) -> None:
    fields = {field.name for field in dataclasses.fields(config)} - {"kind", "beta1", "beta2"}
    assert fields | {"betas"} <= inspect.signature(built).parameters.keys()
    settings = {"lr": 0.3, "weight_decay": 0.2, "eps": 1e-3, "fused": False}
    assert settings.keys() == fields
    optimizer = config(**settings, beta1=0.6, beta2=0.7).build(nn.Linear(2, 2).named_parameters())  # type: ignore[arg-type, call-arg]
    assert type(optimizer) is built
    decayed, others = optimizer.param_groups
    assert (decayed["weight_decay"], others["weight_decay"]) == (0.2, 0.0)
    assert (decayed["param_names"], others["param_names"]) == (["weight"], ["bias"])
    for group in optimizer.param_groups:
        assert (group["lr"], group["eps"], group["betas"], group["fused"]) == (0.3, 1e-3, (0.6, 0.7), False)


def test_one_step_of_adamw_is_the_published_rule() -> None:
    parameter = nn.Parameter(torch.tensor([[2.0]], dtype=torch.float64))
    config = AdamWConfig(lr=0.1, weight_decay=0.5, beta1=0.9, beta2=0.99)
    optimizer = config.build([("weight", parameter)])
    parameter.grad = torch.tensor([[3.0]], dtype=torch.float64)
    optimizer.step()
    assert parameter.item() == pytest.approx(2.0 * (1 - 0.1 * 0.5) - 0.1 * 3.0 / (3.0 + 1e-8))


@pytest.mark.parametrize("config", [AdamConfig(), AdamWConfig()], ids=["adam", "adamw"])
def test_fused_and_plain_take_the_same_steps(config: AdamConfig | AdamWConfig) -> None:
    ends = []
    for fused in (True, False):
        torch.manual_seed(0)
        layer = nn.Linear(4, 4)
        optimizer = dataclasses.replace(config, fused=fused).build(layer.named_parameters())
        for _ in range(5):
            optimizer.zero_grad()
            layer(torch.ones(2, 4)).square().sum().backward()
            optimizer.step()
        ends.append(torch.cat([parameter.detach().flatten() for parameter in layer.parameters()]))
    torch.testing.assert_close(*ends)


@pytest.mark.parametrize(
    ("config", "settings", "message"),
    [
        (AdamWConfig, {"lr": 0.0}, "optimizer.lr is 0.0; expected a positive number"),
        (AdamWConfig, {"lr": float("nan")}, "optimizer.lr is nan"),
        (AdamConfig, {"weight_decay": -0.1}, "optimizer.weight_decay is -0.1; expected 0 or more"),
        (AdamConfig, {"beta2": 1.0}, "optimizer.beta2 is 1.0; expected a decay rate"),
        (AdamWConfig, {"eps": 0.0}, "optimizer.eps is 0.0; expected a small positive number"),
        (ConstantConfig, {"warmup_steps": -1}, "scheduler.warmup_steps is -1; expected at least 0"),
        (CosineConfig, {"min_lr_ratio": 1.5}, "scheduler.min_lr_ratio is 1.5; expected a share"),
        (
            CosineConfig,
            {"decay_steps": 50},
            r"scheduler.decay_steps \(50\) must be above scheduler.warmup_steps",
        ),
        (CustomOptimizerConfig, {}, "optimizer.target is not set"),
        (CustomSchedulerConfig, {}, "scheduler.target is not set"),
        (
            CustomOptimizerConfig,
            {"target": "my.opt:Opt", "args": {"lr": 1}},
            "optimizer.args.lr would hide optimizer.lr",
        ),
    ],
)
def test_bad_settings_say_where_and_what(config: type, settings: dict[str, object], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        config(**settings)


class MySGD(SGD):
    def __init__(self, params: object, lr: float, momentum: float = 0.0) -> None:
        super().__init__(params, lr=lr, momentum=momentum)  # type: ignore[arg-type]


class NamedSGD(SGD):
    def __init__(self, named_parameters: list[tuple[str, nn.Parameter]], lr: float) -> None:
        super().__init__([parameter for name, parameter in named_parameters if name == "bias"], lr=lr)


class NoRate(SGD):
    def __init__(self, params: object) -> None:
        super().__init__(params, lr=1.0)  # type: ignore[arg-type]


class NoDecay(Optimizer):
    def __init__(self, params: object, lr: float) -> None:
        super().__init__(params, {"lr": lr})  # type: ignore[arg-type]


class Halving(LambdaLR):
    def __init__(self, optimizer: Optimizer, total_steps: int, floor: float = 0.0) -> None:
        super().__init__(optimizer, lambda step: max(floor, 0.5**step if step < total_steps else 0.0))


@pytest.fixture
def plugin(monkeypatch: pytest.MonkeyPatch) -> str:
    """A trusted package that holds the classes above."""
    package = types.ModuleType("my_plugin")
    for cls in (MySGD, NamedSGD, NoRate, NoDecay, Halving):
        monkeypatch.setattr(cls, "__module__", "my_plugin")
        setattr(package, cls.__name__, cls)
    monkeypatch.setitem(sys.modules, "my_plugin", package)
    monkeypatch.setattr(plugins, "_trusted", {"my_plugin": "-p"})
    return "my_plugin"


def test_a_custom_optimizer_gets_decay_groups_and_its_rate(plugin: str) -> None:
    config = CustomOptimizerConfig(target=f"{plugin}:MySGD", args={"momentum": 0.5}, lr=0.2, weight_decay=0.1)
    optimizer = config.build(nn.Linear(2, 2).named_parameters())
    assert isinstance(optimizer, MySGD)
    assert [group["weight_decay"] for group in optimizer.param_groups] == [0.1, 0.0]
    assert {group["lr"] for group in optimizer.param_groups} == {0.2}
    assert {group["momentum"] for group in optimizer.param_groups} == {0.5}


def test_a_custom_optimizer_may_take_named_parameters(plugin: str) -> None:
    optimizer = CustomOptimizerConfig(target=f"{plugin}:NamedSGD").build(nn.Linear(2, 3).named_parameters())
    assert [parameter.shape for parameter in optimizer.param_groups[0]["params"]] == [(3,)]


def test_a_setting_that_a_custom_optimizer_would_not_read_is_an_error(plugin: str) -> None:
    parameters = list(nn.Linear(2, 2).named_parameters())
    with pytest.raises(ConfigError, match="takes no lr, so optimizer"):
        CustomOptimizerConfig(target=f"{plugin}:NoRate").build(parameters)
    with pytest.raises(ConfigError, match="has no weight_decay among its defaults"):
        CustomOptimizerConfig(target=f"{plugin}:NoDecay", weight_decay=0.1).build(parameters)
    assert isinstance(CustomOptimizerConfig(target=f"{plugin}:NoDecay").build(parameters), NoDecay)


def test_a_custom_scheduler_gets_the_optimizer_and_the_horizon(plugin: str) -> None:
    optimizer = SGD([nn.Parameter(torch.zeros(1))], lr=1.0)
    scheduler = CustomSchedulerConfig(target=f"{plugin}:Halving", args={"floor": 0.3}).build(optimizer, 3)
    rates = []
    for _ in range(4):
        rates.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        scheduler.step()
    assert rates == [1.0, 0.5, 0.3, 0.3]
