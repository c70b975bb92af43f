"""Configs that are handed to Lightning fit Lightning, and the trainer counts in optimizer steps."""

from __future__ import annotations

import inspect
from dataclasses import fields

import pytest
import pytorch_lightning as pl
from pytorch_lightning.callbacks import EarlyStopping

from lmexp.errors import ConfigError
from lmexp.training.config import PRECISIONS, CheckpointConfig, EarlyStoppingConfig, HardwareConfig, TrainerConfig


def test_trainer_fields_are_lightnings_own_names() -> None:
    known = set(inspect.signature(pl.Trainer).parameters)
    own = {"max_tokens", "compile", "val_every_n_steps", "ema_decay"}
    assert {f.name for f in fields(TrainerConfig)} - own <= known


def test_early_stopping_fields_are_lightnings_own_names() -> None:
    known = set(inspect.signature(EarlyStopping).parameters)
    assert {f.name for f in fields(EarlyStoppingConfig)} - {"kind"} <= known
    assert EarlyStoppingConfig(patience=5).build().patience == 5  # type: ignore[attr-defined]


@pytest.mark.parametrize("name", sorted(set(PRECISIONS.values())))
def test_every_precision_is_known_to_lightning(name: str) -> None:
    if name != "16-mixed":  # needs a GPU to be made
        pl.Trainer(accelerator="cpu", precision=name, logger=False, enable_checkpointing=False)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("given", "devices", "count"), [(1, 1, 1), ("3", 3, 3), ("0,1", [0, 1], 2), ([2, 3], [2, 3], 2), (["0"], [0], 1)]
)
def test_devices_are_a_number_or_indices(given: object, devices: object, count: int) -> None:
    config = HardwareConfig(devices=given)
    assert config.devices == devices
    assert config.device_count() == count


@pytest.mark.parametrize("given", [0, -1, "x", True, "0,x", [], 1.5, None])
def test_other_devices_are_refused(given: object) -> None:
    with pytest.raises(ConfigError, match=r"trainer.devices"):
        HardwareConfig(devices=given)


def test_one_horizon_is_needed() -> None:
    with pytest.raises(ConfigError, match=r"add trainer.max_steps=null to use trainer.max_tokens"):
        TrainerConfig(max_steps=10, max_tokens=10)
    with pytest.raises(ConfigError, match=r"give trainer.max_steps"):
        TrainerConfig(max_steps=None)


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        (
            {"precision": "64"},
            r"trainer.precision is 64-true, which trainer.strategy=fsdp can't do; use one of 32-true, bf16-mixed",
        ),
        ({"precision": "16"}, r"trainer.precision is 16-mixed"),
        ({"compile": True}, r"set trainer.compile=false, or use trainer.strategy=ddp"),
    ],
)
def test_what_sharded_processes_can_not_do_is_refused(wrong: dict[str, object], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        TrainerConfig(strategy="fsdp", devices=2, **wrong)  # type: ignore[arg-type]
    assert not TrainerConfig(strategy="fsdp", devices=1, **wrong).is_sharded()  # type: ignore[arg-type]
    assert not TrainerConfig(strategy="ddp", devices=2, **wrong).is_sharded()  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"keep": "bst"}, "did you mean best"),
        ({"mode": "up"}, "expected one of min, max"),
        ({"every_n_steps": 0}, "expected at least 1"),
    ],
)
def test_checkpoint_options_are_checked(wrong: dict[str, object], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        CheckpointConfig(**wrong)  # type: ignore[arg-type]
