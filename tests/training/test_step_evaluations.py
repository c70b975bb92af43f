"""Evaluations while training goes on: when, on which weights, and that training can't tell."""

from __future__ import annotations

import contextlib
import random
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from lmexp.config.schema import TrainConfig
from lmexp.errors import ConfigError, Stopped
from lmexp.evaluation.config import CustomEvaluationConfig
from lmexp.evaluation.context import EvaluationContext
from lmexp.evaluation.row import Row
from lmexp.stopping import StopRequest
from lmexp.tracking.rows import read_rows
from lmexp.tracking.tracker import Tracker
from lmexp.training import checkpoints, trainer
from lmexp.training.evaluations import StepEvaluations
from lmexp.training.seeds import random_state_kept, seed_generators
from tests.end_to_end.command import _leaves
from tests.evaluation.tiny import make_cache
from tests.training.fitting import SPLITS, make_config

SETTINGS = (
    "evaluation=[perplexity]",
    "model.dropout=0.2",
    "trainer.accumulate_grad_batches=2",
    "checkpoint.every_n_steps=2",
    "trainer.ema_decay=0.9",
)
EVERY_2 = "evaluation.perplexity.every_n_steps=2"


def draw() -> list[float]:
    """A number of each generator."""
    return [float(torch.rand(())), float(np.random.rand()), random.random()]


class Own:
    """An evaluation that does something, and draws."""

    def __init__(self, does: Callable[[EvaluationContext], None] = lambda context: None) -> None:
        self.does = does

    def run(self, context: EvaluationContext) -> list[Row]:
        self.does(context)
        return [Row(name="own/drawn", split="test", definition="numbers drawn", estimate=sum(draw()))]


def with_own(monkeypatch: pytest.MonkeyPatch, config: TrainConfig, own: Own) -> TrainConfig:
    monkeypatch.setattr(CustomEvaluationConfig, "build", lambda self: own)
    config.evaluation["own"] = CustomEvaluationConfig(target="tests:Own", every_n_steps=2)
    return config


def fit(folder: Path, config: TrainConfig, cache: Any, said: list[str] | None = None) -> Path:
    """Train with a real tracker; the folder."""
    (folder / "checkpoints").mkdir(parents=True, exist_ok=True)
    tracker = Tracker(folder)
    say = (lambda line: None) if said is None else said.append
    with StopRequest().installed() as stop:
        trainer.fit(config, folder, cache, tracker, rank=0, say=say, stop=stop)
    tracker.close()
    return folder


def rows_without_evaluations(folder: Path) -> list[dict[str, float]]:
    return [row for row in read_rows(folder / "metrics.jsonl") if not any(k.startswith("evaluation/") for k in row)]


def test_training_can_not_tell(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Also where an evaluation draws from every generator, switches modes and leaves gradients behind."""

    def does(context: EvaluationContext) -> None:
        context.model.train()
        with torch.enable_grad():
            context.model(torch.zeros(1, 3, dtype=torch.int64)).sum().backward()
        context.model.eval()

    evaluate, kept = StepEvaluations._evaluate, []

    def state(trainer: Any, module: Any) -> Any:
        flags = (torch.are_deterministic_algorithms_enabled(), torch.backends.cudnn.benchmark, torch.is_grad_enabled())
        generators = (torch.get_rng_state().tolist(), str(np.random.get_state()), random.getstate())
        modes = [m.training for m in module.modules()]
        weights = [(p.data_ptr(), p.tolist()) for p in module.parameters()]
        return flags, generators, modes, weights, _leaves(trainer.optimizers[0].state_dict())

    def watched(self: Any, trainer: Any, module: Any) -> None:
        before = state(trainer, module)
        evaluate(self, trainer, module)
        kept.append(state(trainer, module) == before)

    monkeypatch.setattr(StepEvaluations, "_evaluate", watched)
    cache = make_cache(tmp_path, SPLITS)
    ema = "evaluation.perplexity.weights=ema"
    busy = with_own(monkeypatch, make_config("stream", *SETTINGS, EVERY_2, ema), Own(does))
    runs = [
        fit(tmp_path / "with", busy, cache),
        fit(tmp_path / "without", make_config("stream", *SETTINGS), cache),
    ]
    assert kept == [True] * len(kept)
    assert len(kept) >= 3
    folders = [checkpoints.steps(run / "checkpoints") for run in runs]
    assert [f.name for f in folders[0]] == [f.name for f in folders[1]]
    for one, two in zip(*folders, strict=True):
        files = [checkpoints.verify(folder).files for folder in (one, two)]
        assert files[0][checkpoints.MODEL] == files[1][checkpoints.MODEL]
        assert files[0][checkpoints.EMA] == files[1][checkpoints.EMA]
        assert _leaves(checkpoints.load_state(one)) == _leaves(checkpoints.load_state(two))
    assert rows_without_evaluations(runs[0]) == read_rows(runs[1] / "metrics.jsonl")
    assert (runs[0] / "losses.f64").read_bytes() == (runs[1] / "losses.f64").read_bytes()


def test_it_is_done_every_n_steps_after_validation_and_keeps_a_table(tmp_path: Path) -> None:
    said: list[str] = []
    config = make_config("stream", *SETTINGS, "evaluation.perplexity.every_n_steps=3")
    run = fit(tmp_path / "run", config, make_cache(tmp_path, SPLITS), said)
    keys = [
        (row["step"], next(iter(set(row) - {"step"})).partition("/")[0]) for row in read_rows(run / "metrics.jsonl")
    ]
    assert [key for key in keys if key[1] != "train"] == [
        (3, "validation"),
        (3, "evaluation"),
        (6, "validation"),
        (6, "evaluation"),
    ]
    assert {path.name for path in (run / "evaluation" / "perplexity").iterdir()} == {
        "step-00000003.parquet",
        "step-00000006.parquet",
    }
    row = read_rows(run / "metrics.jsonl")[-1]
    shown = [line for line in said if line.startswith("step 6  perplexity  loss ")]
    assert len(shown) == 1
    assert f"loss {row['evaluation/perplexity/loss']:.3f}" in shown[0]


def test_raw_and_averaged_weights_have_their_own_figures(tmp_path: Path) -> None:
    cache, found = make_cache(tmp_path, SPLITS), []
    for weights, decay in (("raw", 0.9), ("ema", 0.9), ("ema", 0.0)):
        more = (EVERY_2, f"trainer.ema_decay={decay}", f"evaluation.perplexity.weights={weights}")
        run = fit(tmp_path / f"{weights}-{decay}", make_config("stream", *SETTINGS, *more), cache)
        rows = [row for row in read_rows(run / "metrics.jsonl") if "evaluation/perplexity/loss" in row]
        found.append([row["evaluation/perplexity/loss"] for row in rows])
    raw, averaged, undecayed = found
    assert len(raw) == 3
    assert all(a != b for a, b in zip(raw, averaged, strict=True))
    assert undecayed == raw, "an average without a memory is the weights"


@pytest.mark.parametrize(("at", "more"), [(2, ()), (4, ("trainer.val_every_n_steps=4",)), (6, ())])
def test_what_a_signal_cut_short_is_done_when_the_run_goes_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, at: int, more: tuple[str, ...]
) -> None:
    """At a step without validation, at one with it, and at the last one, after which nothing is left to train."""
    cache, config, asked = make_cache(tmp_path, SPLITS), make_config("stream", *SETTINGS, EVERY_2, *more), []

    def stop(context: EvaluationContext) -> None:
        if context.step == at and not asked:
            asked.append(at)
            signal.raise_signal(signal.SIGTERM)
            for done in range(10**9):
                context.progress("own", done, 10**9)

    whole = fit(tmp_path / "whole", with_own(monkeypatch, config, Own()), cache)
    stopping = with_own(monkeypatch, config, Own(stop))
    with pytest.raises(Stopped) as stopped:
        fit(tmp_path / "run", stopping, cache)
    assert stopped.value.step == at
    assert checkpoints.step_of(checkpoints.find(tmp_path / "run" / "checkpoints", "latest")) == at
    assert not any("evaluation/own/drawn" in row for row in rows_of_step(tmp_path / "run", at))
    run = fit(tmp_path / "run", stopping, cache)
    assert (run / "metrics.jsonl").read_bytes() == (whole / "metrics.jsonl").read_bytes()
    assert any("evaluation/own/drawn" in row for row in rows_of_step(run, at))


def rows_of_step(run: Path, step: int) -> list[dict[str, float]]:
    return [row for row in read_rows(run / "metrics.jsonl") if row["step"] == step]


def test_an_evaluation_that_changes_weights_is_an_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def does(context: EvaluationContext) -> None:
        next(context.model.parameters()).add_(1)

    with pytest.raises(ConfigError, match=r"step 2 \(own\) changed weights .*copy\.deepcopy of context\.model"):
        fit(tmp_path, with_own(monkeypatch, make_config("stream", *SETTINGS), Own(does)), make_cache(tmp_path, SPLITS))


def test_generators_go_on_as_if_nothing_had_been_drawn() -> None:
    seed_generators(1)
    expected = draw()
    seed_generators(1)
    with contextlib.suppress(RuntimeError), random_state_kept(torch.device("cpu")):
        draw()
        raise RuntimeError("planted")
    assert draw() == expected


def test_settings_that_do_not_fit_are_refused_with_the_fix() -> None:
    with pytest.raises(ConfigError, match=r"every_n_steps is 0; expected at least 1"):
        make_config("stream", "evaluation.perplexity.every_n_steps=0")
    with pytest.raises(ConfigError, match=r"perplexity\.weights=ema needs .*trainer\.ema_decay=0\.999"):
        make_config("stream", "evaluation.perplexity.weights=ema")
    with pytest.raises(ConfigError, match=r"weights is 'emma'; expected one of raw, ema.*did you mean ema"):
        make_config("stream", "evaluation.perplexity.weights=emma")
