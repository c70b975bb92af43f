"""Configs of the optimizers and schedules: what arrives in torch's classes, and what is refused."""

from __future__ import annotations

import dataclasses
import inspect
import sys
import types
from typing import Any

import pytest
import torch
from lion_pytorch import Lion
from torch import nn
from torch.optim import SGD, Adafactor, Adam, AdamW, Muon, Optimizer
from torch.optim.lr_scheduler import LambdaLR

from lmexp import plugins
from lmexp.errors import ConfigError
from lmexp.optim.config import (
    AdafactorConfig,
    AdamConfig,
    AdamWConfig,
    CustomOptimizerConfig,
    LionConfig,
    MuonConfig,
    OptimizerConfig,
    SGDConfig,
)
from lmexp.optim.schedulers.config import (
    ConstantConfig,
    CosineConfig,
    CustomSchedulerConfig,
    InverseSqrtConfig,
    LinearConfig,
    StepConfig,
    WSDConfig,
)

ADAM = {"lr": 0.3, "weight_decay": 0.2, "eps": 1e-3, "beta1": 0.6, "beta2": 0.7}
FORWARDED: list[tuple[type[OptimizerConfig], type[Optimizer], dict[str, Any]]] = [
    (AdamConfig, Adam, ADAM | {"fused": False}),
    (AdamWConfig, AdamW, ADAM | {"fused": False}),
    (SGDConfig, SGD, {"lr": 0.3, "weight_decay": 0.2, "momentum": 0.6, "nesterov": True}),
    (LionConfig, Lion, {"lr": 0.3, "weight_decay": 0.2, "beta1": 0.6, "beta2": 0.7}),
    (AdafactorConfig, Adafactor, {"lr": 0.3, "weight_decay": 0.2, "beta2_decay": -0.5, "d": 1.5}),
]
"""Config, the class it forwards to, and a value other than the default for each of its fields."""


@pytest.mark.parametrize(("config", "built", "settings"), FORWARDED, ids=lambda value: getattr(value, "__name__", ""))
def test_fields_are_in_the_classs_signature_and_arrive_there(
    config: type[OptimizerConfig], built: type[Optimizer], settings: dict[str, Any]
) -> None:
    fields = {field.name for field in dataclasses.fields(config)} - {"kind", "layer_decay"}
    assert settings.keys() == fields
    given = dict(settings)
    if "beta1" in given:
        given["betas"] = (given.pop("beta1"), given.pop("beta2"))
    assert given.keys() <= inspect.signature(built).parameters.keys()
    optimizer = config(**settings).build(nn.Linear(2, 2).named_parameters())
    assert type(optimizer) is built
    decayed, others = optimizer.param_groups
    assert (decayed["weight_decay"], others["weight_decay"]) == (given.pop("weight_decay"), 0.0)
    assert (decayed["param_names"], others["param_names"]) == (["weight"], ["bias"])
    for group in optimizer.param_groups:
        assert {name: group[name] for name in given} == given


def test_muons_fields_are_in_the_signatures_of_its_two_and_arrive_there() -> None:
    of_muon = {"momentum": 0.6, "nesterov": False, "ns_steps": 3, "adjust_lr_fn": "original"}
    of_adamw = {"beta1": 0.5, "beta2": 0.7, "eps": 1e-3}
    shared = {"lr": 0.3, "weight_decay": 0.2}
    fields = {field.name for field in dataclasses.fields(MuonConfig)} - {"kind", "layer_decay", "adamw_lr_ratio"}
    assert fields == of_muon.keys() | of_adamw.keys() | shared.keys()
    assert of_muon.keys() | shared.keys() <= inspect.signature(Muon).parameters.keys()
    assert {"betas", "eps", "fused"} | shared.keys() <= inspect.signature(AdamW).parameters.keys()
    config = MuonConfig(**shared, **of_muon, **of_adamw, adamw_lr_ratio=0.5)  # type: ignore[arg-type]
    named = [("embedding", torch.zeros(3, 2)), ("up", torch.zeros(4, 2)), ("norm", torch.zeros(2))]
    muon, decayed, others = config.build([(name, nn.Parameter(t)) for name, t in named]).param_groups
    assert [group["param_names"] for group in (muon, decayed, others)] == [["up"], ["embedding"], ["norm"]]
    assert [group["weight_decay"] for group in (muon, decayed, others)] == [0.2, 0.2, 0.0]
    assert [group["lr"] for group in (muon, decayed, others)] == [0.3, 0.15, 0.15]
    assert {name: muon[name] for name in of_muon} == of_muon
    assert all((group["betas"], group["eps"]) == ((0.5, 0.7), 1e-3) for group in (decayed, others))


@pytest.mark.parametrize("config", [config for config, _, _ in FORWARDED] + [MuonConfig])
def test_layer_decay_leaves_each_optimizers_own_settings(config: type[OptimizerConfig]) -> None:
    names = ("token_embedding", "blocks.0.up", "blocks.1.up")
    named = [(name, nn.Parameter(torch.zeros(2, 2))) for name in names]
    plain, decayed = (config(lr=0.8, weight_decay=0.1, layer_decay=decay).build(named) for decay in (1.0, 0.5))
    found = {name: group for group in decayed.param_groups for name in group["param_names"]}
    assert {name: group["lr"] for name, group in found.items()} == pytest.approx(
        dict(zip(names, (0.1, 0.2, 0.4), strict=True))
    )
    for group in plain.param_groups:
        for name in group["param_names"]:
            own = {"params", "param_names", "lr"}
            assert {k: v for k, v in found[name].items() if k not in own} == {
                k: v for k, v in group.items() if k not in own
            }


def test_a_missing_lion_is_named_with_its_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "lion_pytorch", None)
    with pytest.raises(ConfigError, match=r'optimizer=lion needs lion-pytorch: pip install "lmexp\[lion\]"'):
        LionConfig().build(nn.Linear(2, 2).named_parameters())


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
        (AdamWConfig, {"layer_decay": 0.0}, "optimizer.layer_decay is 0.0; expected a number above 0"),
        (AdamWConfig, {"layer_decay": 1.5}, "optimizer.layer_decay is 1.5; expected a number above 0 and up to 1"),
        (SGDConfig, {"momentum": 1.0}, "optimizer.momentum is 1.0; expected a decay rate"),
        (SGDConfig, {"momentum": 0.0, "nesterov": True}, "nesterov=true needs a momentum; set optimizer.momentum"),
        (LionConfig, {"beta1": -0.1}, "optimizer.beta1 is -0.1; expected a decay rate"),
        (AdafactorConfig, {"beta2_decay": 0.8}, "optimizer.beta2_decay is 0.8; expected 0 or less, e.g. -0.8"),
        (AdafactorConfig, {"d": 0.5}, "optimizer.d is 0.5; expected a clipping threshold of 1 or more"),
        (MuonConfig, {"momentum": 1.0}, "optimizer.momentum is 1.0; expected a decay rate"),
        (MuonConfig, {"ns_steps": 0}, "optimizer.ns_steps is 0; expected at least 1"),
        (MuonConfig, {"ns_steps": 100}, "optimizer.ns_steps is 100; expected fewer than 100"),
        (MuonConfig, {"adjust_lr_fn": "match_rms"}, "adjust_lr_fn is 'match_rms'.*did you mean match_rms_adamw"),
        (MuonConfig, {"adamw_lr_ratio": 0.0}, "optimizer.adamw_lr_ratio is 0.0; expected a positive number"),
        (MuonConfig, {"eps": 0.0}, "optimizer.eps is 0.0; expected a small positive number"),
        (LinearConfig, {"min_lr_ratio": -0.5}, "scheduler.min_lr_ratio is -0.5; expected a share"),
        (LinearConfig, {"decay_steps": 50}, r"scheduler.decay_steps \(50\) must be above scheduler.warmup_steps"),
        (WSDConfig, {"decay_fraction": 1.5}, "scheduler.decay_fraction is 1.5; expected a share"),
        (WSDConfig, {"decay_shape": "sqrt"}, "scheduler.decay_shape is 'sqrt'; expected one of linear, cosine, 1-sqrt"),
        (InverseSqrtConfig, {"timescale": 0}, "scheduler.timescale is 0; expected at least 1"),
        (StepConfig, {"step_size": 0}, "scheduler.step_size is 0; expected at least 1"),
        (
            StepConfig,
            {"step_size": 5, "milestones": [3]},
            r"set scheduler.step_size=null, or scheduler.milestones=\[\]",
        ),
        (StepConfig, {"milestones": [5, 3]}, r"scheduler.milestones is \[5, 3\]; expected steps in rising order"),
        (StepConfig, {"milestones": [0, 3]}, "expected steps in rising order"),
        (StepConfig, {"gamma": 0.0}, "scheduler.gamma is 0.0; expected a number above 0"),
        (StepConfig, {"step_size": 5, "warmup_steps": 9}, "scheduler.step_size begins with step 5, within the warm-up"),
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
    with pytest.raises(ConfigError, match=r"takes no params; set optimizer\.layer_decay=1"):
        CustomOptimizerConfig(target=f"{plugin}:NamedSGD", layer_decay=0.5).build(parameters)
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
