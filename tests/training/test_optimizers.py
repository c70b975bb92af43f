"""Every optimizer and schedule in a whole run: the rate of each step, resume to the bit, the average of the weights."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import pytest
import torch

from lmexp.config.schema import SCHEMAS
from lmexp.tasks.base import Task
from lmexp.training import checkpoints
from lmexp.training.checkpoints import EMA
from tests.evaluation.tiny import make_cache
from tests.training.fitting import SPLITS, STEPS, Recorder, fit, make_config

DECAY = 0.9
SETTINGS = (
    "checkpoint.every_n_steps=1",
    "trainer.accumulate_grad_batches=2",
    f"trainer.ema_decay={DECAY}",
    "model.dropout=0.1",
    "logger.log_every_n_steps=1",
)
KILLED_AT = 3
OPTIMIZERS = [
    *((f"optimizer={kind}",) for kind in SCHEMAS["optimizer"] if kind != "custom"),
    ("optimizer=sgd", "optimizer.nesterov=true", "optimizer.weight_decay=0.1"),
    ("optimizer=muon", "optimizer.layer_decay=0.5", "trainer.precision=bf16-mixed"),
    ("optimizer=muon", "trainer.precision=64"),
]
SCHEDULERS = [
    *((f"scheduler={kind}",) for kind in SCHEMAS["scheduler"] if kind != "custom"),
    ("scheduler=step", "scheduler.milestones=[2,4]"),
    ("scheduler=wsd", "scheduler.decay_fraction=0.5", "scheduler.decay_shape=linear"),
]


def checkpoint(run: Path, step: int) -> Path:
    return run / "checkpoints" / checkpoints.folder_name(step)


def killed_after(whole: Path, step: int, run: Path) -> Path:
    """A copy of a run as it would be if it had been killed right after the checkpoint of a step."""
    for k in range(1, step + 1):
        shutil.copytree(checkpoint(whole, k), checkpoint(run, k))
    (run / "checkpoints" / checkpoints.LATEST).write_text(f"{checkpoints.folder_name(step)}\n", encoding="utf-8")
    return run


def same(a: Any, b: Any) -> bool:
    """Whether two trees of plain types and tensors are equal to the bit."""
    if isinstance(a, torch.Tensor):
        return isinstance(b, torch.Tensor) and a.dtype == b.dtype and torch.equal(a, b)
    if isinstance(a, dict):
        return isinstance(b, dict) and a.keys() == b.keys() and all(same(a[key], b[key]) for key in a)
    if isinstance(a, list | tuple):
        return type(a) is type(b) and len(a) == len(b) and all(map(same, a, b))
    return bool(a == b)


def resumed_is_uninterrupted(folder: Path, *overrides: str) -> tuple[Any, Recorder]:
    """Train, train again from the middle, and compare all that the two leave. The config and the whole run's log."""
    cache, config = make_cache(folder, SPLITS), make_config("stream", *SETTINGS, *overrides)
    log = fit(folder / "whole", config, cache)
    again = fit(killed_after(folder / "whole", KILLED_AT, folder / "resumed"), config, cache)
    for step in range(KILLED_AT + 1, STEPS + 1):
        one, two = (checkpoint(folder / name, step) for name in ("whole", "resumed"))
        for name in (checkpoints.MODEL, EMA):
            assert checkpoints.verify(one).files[name] == checkpoints.verify(two).files[name], (step, name)
        first, second = (checkpoints.load_state(path)["optimizer_states"] for path in (one, two))
        assert same(first, second), step
        assert log.rows[step] == again.rows[step]
    assert KILLED_AT not in again.rows
    return config, log


@pytest.mark.parametrize("overrides", OPTIMIZERS, ids=" ".join)
def test_a_killed_run_goes_on_bit_for_bit_with_every_optimizer(tmp_path: Path, overrides: tuple[str, ...]) -> None:
    config, log = resumed_is_uninterrupted(tmp_path, *overrides)
    assert log.rows[STEPS]["train/loss"] < log.rows[1]["train/loss"] + 0.1
    first, last = (checkpoints.load_weights(checkpoint(tmp_path / "whole", step)) for step in (1, STEPS))
    assert all(not torch.equal(first[name], last[name]) for name in first), "a parameter was never stepped"
    peak = max(row["train/learning_rate"] for row in log.rows.values() if "train/learning_rate" in row)
    assert peak == config.optimizer.lr  # also where layers have less
    for step in range(2, STEPS + 1):
        before, after = (checkpoints.load_weights(checkpoint(tmp_path / "whole", k), EMA) for k in (step - 1, step))
        weights = checkpoints.load_weights(checkpoint(tmp_path / "whole", step))
        for name, tensor in after.items():
            expected = DECAY * before[name] + (1 - DECAY) * weights[name].to(tensor.dtype)
            torch.testing.assert_close(tensor, expected, rtol=1e-6, atol=1e-8)


@pytest.mark.parametrize("overrides", SCHEDULERS, ids=" ".join)
def test_every_step_of_a_run_has_the_rate_of_its_schedule(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, overrides: tuple[str, ...]
) -> None:
    seen: list[list[float]] = []
    before = Task.configure_gradient_clipping

    def noted(self: Any, optimizer: Any, *rest: Any, **more: Any) -> None:
        seen.append([group["lr"] for group in optimizer.param_groups])
        before(self, optimizer, *rest, **more)

    monkeypatch.setattr(Task, "configure_gradient_clipping", noted)
    config, log = resumed_is_uninterrupted(tmp_path, "optimizer=sgd", *overrides)
    expected = [config.optimizer.lr * config.scheduler.multiplier(step, STEPS) for step in range(STEPS)]
    assert [log.rows[step]["train/learning_rate"] for step in range(1, STEPS + 1)] == expected
    assert seen == [[rate, rate] for rate in [*expected, *expected[KILLED_AT:]]]
