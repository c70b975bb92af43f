"""What training logs: sums over what was predicted, the same after a resume."""

from __future__ import annotations

import itertools
import math
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from lmexp.config.schema import TrainConfig
from lmexp.data.config import WINDOWS
from lmexp.errors import ConfigError
from lmexp.training import trainer
from tests.evaluation.tiny import VOCAB, make_cache
from tests.training.fitting import SPLITS, STEPS, fit, make_config


def expected_tokens(config: TrainConfig, cache: Any) -> list[int]:
    """Targets predicted after each step."""
    data: Any = trainer.build(config, cache).datamodule
    total, found = 0, []
    for _, batch in zip(range(STEPS), data.train_dataloader(), strict=False):
        total += int((batch.targets >= 0).sum())
        found.append(total)
    return found


@pytest.mark.parametrize("windows", WINDOWS)
def test_tokens_are_the_targets_that_were_predicted(tmp_path: Path, windows: str) -> None:
    cache, config = make_cache(tmp_path, SPLITS), make_config(windows)
    recorder = fit(tmp_path / "run", config, cache)
    expected = expected_tokens(config, cache)
    assert {step: recorder.rows[step]["train/tokens"] for step in (2, 4, 6)} == {s: expected[s - 1] for s in (2, 4, 6)}
    assert (expected[-1] == STEPS * 8 * 16) == (windows == "stream")
    assert recorder.rows[2]["train/loss"] == pytest.approx(math.log(VOCAB), abs=0.2)
    assert all(recorder.times[step]["tokens_per_second"] > 0 for step in (2, 4, 6))


def test_micro_batches_change_neither_tokens_nor_loss(tmp_path: Path) -> None:
    """Rows of packed windows have different numbers of targets, so a mean of means would be another loss."""
    cache = make_cache(tmp_path, SPLITS)
    one = fit(tmp_path / "one", make_config("packed"), cache)
    four = fit(tmp_path / "four", make_config("packed", "trainer.accumulate_grad_batches=4"), cache)
    for step in (2, 4, 6):
        assert four.rows[step]["train/tokens"] == one.rows[step]["train/tokens"]
        for name in ("train/loss", "train/grad_norm"):
            assert four.rows[step][name] == pytest.approx(one.rows[step][name], rel=1e-4), name


def test_a_resumed_run_logs_what_the_uninterrupted_one_logs(tmp_path: Path) -> None:
    cache, config = make_cache(tmp_path, SPLITS), make_config("packed")
    whole = fit(tmp_path / "run", config, cache)
    checkpoints = tmp_path / "run" / "checkpoints"
    last = sorted(checkpoints.glob("step-*"))[-1]
    last.rename(tmp_path / "gone")  # as if it had died after step 3, between two log points
    resumed = fit(tmp_path / "run", config, cache)
    for step in (4, 6):
        assert resumed.rows[step] == whole.rows[step]
    assert resumed.step_losses == {step: whole.step_losses[step] for step in (4, 5, 6)}
    assert 2 not in resumed.rows


@pytest.mark.parametrize("accumulate", [1, 2])
def test_the_losses_of_the_steps_are_those_of_the_rows(tmp_path: Path, accumulate: int) -> None:
    cache = make_cache(tmp_path, SPLITS)
    config = make_config("packed", f"trainer.accumulate_grad_batches={accumulate}")
    recorder = fit(tmp_path / "run", config, cache)
    assert list(recorder.step_losses) == [1, 2, 3, 4, 5, 6]
    total = expected_tokens(make_config("packed"), cache)
    targets = [after - before for before, after in itertools.pairwise([0, *total])]
    for step in (2, 4, 6):
        pair = [recorder.step_losses[step - 1] * targets[step - 2], recorder.step_losses[step] * targets[step - 1]]
        assert recorder.rows[step]["train/loss"] == pytest.approx(sum(pair) / sum(targets[step - 2 : step]), rel=1e-12)
    one_by_one = fit(tmp_path / "one", make_config("packed", "logger.log_every_n_steps=1", "seed=1234"), cache)
    for step, loss in one_by_one.step_losses.items():
        assert one_by_one.rows[step]["train/loss"] == loss
        assert recorder.step_losses[step] == pytest.approx(loss, rel=1e-4)


def test_packed_windows_and_a_model_without_positions_are_refused_before_training(tmp_path: Path) -> None:
    class Plain(nn.Module):
        max_sequence_length = 16

        def forward(self, tokens: Tensor) -> Tensor:
            return torch.zeros(*tokens.shape, VOCAB)

    cache = make_cache(tmp_path, SPLITS)
    for windows in WINDOWS:
        config = make_config(windows)
        config.model = _Given(Plain())  # type: ignore[assignment]
        if windows == "packed":
            with pytest.raises(ConfigError, match=r"data\.windows=packed .* Plain\.forward has no parameter positions"):
                trainer.build(config, cache)
        else:
            trainer.build_model(config, VOCAB)


class _Given:
    """A model config that builds this model."""

    kind = "given"

    def __init__(self, model: nn.Module) -> None:
        self.model = model

    def build(self, **facts: int) -> nn.Module:
        return self.model
