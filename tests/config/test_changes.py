"""What `lmexp resume RUN OVERRIDES` takes, and what it says about everything else."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from lmexp.config.changes import change, sets_horizon
from lmexp.config.freeze import change_config, plain_config, read_record, without_secrets, write_config_yaml
from lmexp.errors import ConfigError
from tests.config.test_freeze import frozen

RUN = ("logger=files", "trainer.max_steps=30", "data.batch_size=8", "run.name=x")


@pytest.mark.parametrize(
    ("typed", "key", "value"),
    [
        (["trainer.max_steps=60"], "trainer.max_steps", 60),
        (["trainer.max_steps=null", "trainer.max_tokens=1e6"], "trainer.max_tokens", 1_000_000),
        (["trainer.max_steps=null", "trainer.max_epochs=3"], "trainer.max_epochs", 3),
        (["trainer.devices=2"], "trainer.devices", 2),
        (["trainer.num_nodes=2"], "trainer.num_nodes", 2),
        (["trainer.devices=1", "trainer.strategy=fsdp"], "trainer.strategy", "fsdp"),
        (["launcher.threads_per_process=1"], "launcher.threads_per_process", 1),
        (["logger.log_every_n_steps=2"], "logger.log_every_n_steps", 2),
        (["logger=wandb", "logger.sync=off"], "logger.sync", "off"),
    ],
)
def test_horizon_devices_launcher_and_logger_may_change(
    tmp_path: Path, typed: list[str], key: str, value: object
) -> None:
    before, _ = frozen(tmp_path, *RUN)
    typed = [text.replace("1e6", "1000000") for text in typed]
    after = change(tmp_path, typed).config
    group, _, name = key.partition(".")
    assert getattr(getattr(after, group), name) == value
    after.trainer, after.launcher, after.logger = before.trainer, before.launcher, before.logger
    after.run = before.run
    assert after == before, "and nothing else"


@pytest.mark.parametrize(
    "typed",
    [
        "optimizer.lr=1",
        "model=gpt_tiny",
        "seed=3",
        "trainer.precision=bf16",
        "experiment=shakespeare_char",
        "~callbacks",
        "data.batch_size=16",
        "run.name=y",
        "trainer.accumulate_grad_batches=2",
        "checkpoint.keep=all",
    ],
)
def test_anything_else_is_refused_with_the_command_for_a_new_run(tmp_path: Path, typed: str) -> None:
    frozen(tmp_path, *RUN)
    with pytest.raises(ConfigError) as caught:
        change(tmp_path, ["trainer.max_steps=60", typed])
    told = str(caught.value)
    assert told.startswith(f"{typed}: ")
    assert "resume accepts trainer.max_steps, trainer.max_tokens, trainer.max_epochs, trainer.devices" in told
    if typed != "~callbacks":
        assert f"lmexp train from={tmp_path} trainer.max_steps=60 {typed}" in told


def test_every_mistake_is_named_at_once(tmp_path: Path) -> None:
    frozen(tmp_path, *RUN)
    typed = ["trainer.max_step=60", "seed=3", "trainer.devices=3", "logger.log_every=2", "logger=wandbb", "word"]
    with pytest.raises(ConfigError) as caught:
        change(tmp_path, typed)
    told = str(caught.value).splitlines()
    for begin, part in (
        ("trainer.max_step=60: ", "did you mean max_steps?"),
        ("seed=3: ", "stays as it is"),
        ("logger.log_every=2: ", "did you mean log_every_n_steps?"),
        ("logger=wandbb: ", "did you mean wandb?"),
        ("word: ", "write key=value"),
        ("data.batch_size (8) ", "must be divisible by processes x micro-batches (3 x"),
    ):
        assert [line for line in told if line.startswith(begin) and part in line], (begin, told)


def test_sets_horizon() -> None:
    assert sets_horizon(["logger=files", "trainer.max_tokens=3"])
    assert not sets_horizon(["logger=files", "trainer.devices=3"])


def test_run_json_keeps_what_was_changed_when_and_at_which_step(tmp_path: Path) -> None:
    _, before = frozen(tmp_path, *RUN)
    for number, typed in enumerate((["trainer.max_steps=60"], ["trainer.max_steps=60"], ["logger=wandb"])):
        plain = without_secrets(plain_config(change(tmp_path, typed).node))
        change_config(tmp_path, plain, when="2026-01-02T00:00:00+00:00", step=30 + number, overrides=typed)
    after = json.loads((tmp_path / "run.json").read_text())
    assert after["config"]["trainer"]["max_steps"] == 60
    assert len(after["changes"]) == 2, "what changes nothing is no change"
    assert after["changes"][0] == {
        "when": "2026-01-02T00:00:00+00:00",
        "step": 30,
        "overrides": ["trainer.max_steps=60"],
        "changed": {"trainer.max_steps": [30, 60]},
    }
    assert after["changes"][1]["step"] == 32
    assert after["changes"][1]["changed"]["logger.kind"] == ["files", "wandb"]
    assert after["changes"][1]["changed"]["logger.project"] == [None, "lmexp"]
    rest = {"config", "changes"}
    assert {k: v for k, v in after.items() if k not in rest} == {k: v for k, v in before.items() if k not in rest}
    record = read_record(tmp_path)
    assert (record.config.trainer.max_steps, record.changes) == (60, after["changes"])
    assert write_config_yaml(tmp_path, after["config"]) == after["config"]
    assert "max_steps: 60" in (tmp_path / "config.yaml").read_text()
