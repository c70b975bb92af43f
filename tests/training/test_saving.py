"""Saving while training goes on: the same checkpoints, no later than the next step, and loud when the disk is full."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import pytorch_lightning as pl
import torch

from lmexp.tasks.language_modeling import LanguageModeling
from lmexp.training import checkpoints
from lmexp.training.checkpoint_io import FolderCheckpointIO, SaveRequest
from tests.evaluation.tiny import make_cache
from tests.training.fitting import SPLITS, STEPS, fit, make_config

EVERY_STEP = ("checkpoint.every_n_steps=1", "trainer.val_every_n_steps=2")


@pytest.fixture
def events(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """What happens: begin and end of writing, of the model's work, and of optimizer steps. Writing takes long."""
    seen: list[str] = []
    write, training_step = checkpoints.write, LanguageModeling.training_step

    def slow_write(root: Path, step: int, *rest: Any) -> Path:
        seen.append(f"write {step}")
        time.sleep(0.2)  # so that whatever changes the tensors meanwhile is in the file
        path = write(root, step, *rest)
        seen.append(f"written {step}")
        return path

    def noted_step(self: Any, batch: Any, batch_idx: int) -> Any:
        loss = training_step(self, batch, batch_idx)
        seen.append(f"forward {batch_idx}")
        return loss

    def noted_end(self: Any, *arguments: Any) -> None:
        seen.append(f"optimizer {self.trainer.global_step}")

    monkeypatch.setattr(checkpoints, "write", slow_write)
    monkeypatch.setattr(LanguageModeling, "training_step", noted_step)
    monkeypatch.setattr(LanguageModeling, "on_train_batch_end", noted_end)
    return seen


def weights_of(root: Path) -> dict[int, dict[str, torch.Tensor]]:
    return {checkpoints.step_of(folder): checkpoints.load_weights(folder) for folder in checkpoints.steps(root)}


@pytest.mark.parametrize("accumulate", [1, 2])
def test_what_is_written_meanwhile_is_what_a_run_that_ends_there_leaves(
    tmp_path: Path, events: list[str], accumulate: int
) -> None:
    cache = make_cache(tmp_path, SPLITS)
    settings = ("checkpoint.keep=all", "scheduler=constant", f"trainer.accumulate_grad_batches={accumulate}")
    fit(tmp_path / "run", make_config("stream", *EVERY_STEP, *settings), cache)
    found = weights_of(tmp_path / "run" / "checkpoints")
    assert list(found) == list(range(1, STEPS + 1))
    for step in (1, 2, 5):
        shorter = make_config("stream", *EVERY_STEP, *settings, f"trainer.max_steps={step}")
        fit(tmp_path / f"to-{step}", shorter, cache)
        expected = weights_of(tmp_path / f"to-{step}" / "checkpoints")[step]
        assert all(torch.equal(tensor, found[step][name]) for name, tensor in expected.items())
        state = checkpoints.load_state(tmp_path / "run" / "checkpoints" / checkpoints.folder_name(step))
        alone = checkpoints.load_state(tmp_path / f"to-{step}" / "checkpoints" / checkpoints.folder_name(step))
        moments = [one["optimizer_states"][0]["state"][0]["exp_avg"] for one in (state, alone)]
        assert torch.equal(*moments)


def test_the_next_step_computes_meanwhile_and_ends_only_after_the_checkpoint_is_there(
    tmp_path: Path, events: list[str]
) -> None:
    fit(tmp_path / "run", make_config("stream", *EVERY_STEP), make_cache(tmp_path, SPLITS))
    for step in range(1, STEPS):
        # the batch with index `step` is that of step + 1
        order = [
            events.index(e) for e in (f"write {step}", f"forward {step}", f"written {step}", f"optimizer {step + 1}")
        ]
        assert order == sorted(order), events
    assert events[-1] == f"written {STEPS}"


def test_a_full_disk_stops_the_run_within_a_step_and_leaves_the_checkpoint_before(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, events: list[str]
) -> None:
    write = checkpoints.write

    def full_at_3(root: Path, step: int, *rest: Any) -> Path:
        if step == 3:
            raise OSError(28, "No space left on device")
        return write(root, step, *rest)

    monkeypatch.setattr(checkpoints, "write", full_at_3)
    with pytest.raises(OSError, match="No space left"):
        fit(tmp_path / "run", make_config("stream", *EVERY_STEP), make_cache(tmp_path, SPLITS))
    assert "optimizer 4" not in events
    latest = checkpoints.latest(tmp_path / "run" / "checkpoints")
    assert latest is not None
    assert checkpoints.verify(latest).step == 2


def test_rows_are_durable_before_and_old_checkpoints_go_after(tmp_path: Path) -> None:
    """In this order, whatever thread does it."""
    done: list[tuple[str, str | None]] = []
    io = FolderCheckpointIO()

    def note(what: str) -> Callable[[], None]:
        def noted() -> None:
            pointer = tmp_path / checkpoints.LATEST
            done.append((what, pointer.read_text().strip() if pointer.exists() else None))

        return noted

    request = SaveRequest(metrics={}, constant=frozenset(), background=True, before=note("before"), after=note("after"))
    io.save_checkpoint({"state_dict": {"w": torch.ones(2)}, "global_step": 7}, tmp_path / "step-00000007", request)
    io.wait()
    io.teardown()
    assert done == [("before", None), ("after", "step-00000007")]


def test_what_could_change_before_the_next_step_is_copied(tmp_path: Path) -> None:
    io, gate = FolderCheckpointIO(), threading.Event()
    weight, buffer, metric, moment = (torch.zeros(3) for _ in range(4))
    request = SaveRequest(
        metrics={}, constant=frozenset({weight.data_ptr()}), background=True, before=gate.wait, after=lambda: None
    )
    checkpoint = {
        "state_dict": {"weight": weight, "buffer": buffer},
        "optimizer_states": [{"state": {0: {"exp_avg": moment}}, "param_groups": [{"lr": 0.1}]}],
        "callbacks": {"metric": {"sum": metric}},
        "global_step": 1,
    }
    io.save_checkpoint(checkpoint, tmp_path / checkpoints.folder_name(1), request)
    buffer += 1
    metric += 1
    checkpoint["optimizer_states"][0]["param_groups"][0]["lr"] = 0.2  # type: ignore[index]
    gate.set()
    io.wait()
    io.teardown()
    folder = tmp_path / checkpoints.folder_name(1)
    assert all(not tensor.any() for tensor in checkpoints.load_weights(folder).values())
    state = checkpoints.load_state(folder)
    assert not state["callbacks"]["metric"]["sum"].any()
    assert state["optimizer_states"][0]["param_groups"] == [{"lr": 0.1}]


class Watching(pl.Callback):
    """A callback of the user's."""


@pytest.mark.parametrize("custom", [False, True])
def test_a_run_with_a_callback_of_the_users_waits_for_each_checkpoint(
    tmp_path: Path, events: list[str], monkeypatch: pytest.MonkeyPatch, custom: bool
) -> None:
    """It may change the weights at any time."""
    from lmexp.training.config import CustomCallbackConfig, EarlyStoppingConfig

    config = make_config("stream", *EVERY_STEP)
    monkeypatch.setattr(CustomCallbackConfig, "build", lambda self: Watching())
    config.callbacks["mine"] = (
        CustomCallbackConfig(target="tests.training:Watching") if custom else EarlyStoppingConfig()
    )
    fit(tmp_path / "run", config, make_cache(tmp_path, SPLITS))
    waited = [events.index(f"written {step}") < events.index(f"forward {step}") for step in range(1, STEPS)]
    assert set(waited) == {custom}
