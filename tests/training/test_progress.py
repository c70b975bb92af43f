"""What is said while training, validation and evaluations go on."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from lmexp.training import progress
from lmexp.training.progress import Bar, Lines, Progress, choose
from tests.clock import Clock
from tests.evaluation.tiny import make_cache
from tests.training.fitting import SPLITS, make_config
from tests.training.test_step_evaluations import fit


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr(progress, "time", clock)
    return clock


def test_a_log_hears_of_a_long_validation_now_and_then(clock: Clock, capsys: pytest.CaptureFixture[str]) -> None:
    lines = Lines()
    for second in range(31):
        clock.now = 1000.0 + second
        lines.busy("validating", 100, second, 30)
    assert capsys.readouterr().out.splitlines() == [
        "step 100  validating: 10 of 30  ETA 0:00:20",
        "step 100  validating: 20 of 30  ETA 0:00:10",
    ]


def test_a_log_hears_nothing_of_short_ones(clock: Clock, capsys: pytest.CaptureFixture[str]) -> None:
    lines = Lines()
    for step in range(20):
        for done in range(9):
            clock.now += 1
            lines.busy("validating", step, done, 9)
    assert capsys.readouterr().out == ""


def test_the_bar_names_what_takes_place() -> None:
    screen = io.StringIO()
    bar = Bar(Console(file=screen, force_terminal=True, width=100))
    bar.start(0, 100)
    bar.busy("validating", 50, 1, 4)
    bar._bar.refresh()
    bar.busy("evaluating perplexity", 50, 3, 4)
    bar._bar.refresh()
    bar.busy("evaluating perplexity", 50, 4, 4)
    bar._bar.refresh()
    bar.stop()
    seen = screen.getvalue()
    places = [seen.index("validating 25%"), seen.index("evaluating perplexity 75%"), seen.rindex("training")]
    assert places == sorted(places)
    assert "50/100" in seen


def test_only_the_first_process_shows_anything() -> None:
    assert type(choose(1)) is Progress
    assert type(choose(0)) is not Progress


def test_training_tells_of_each_batch_of_validations_and_evaluations(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    told: list[Any] = []

    class Told(Progress):
        def busy(self, what: str, step: int, done: int, total: int) -> None:
            told.append((what, step, done, total))

    monkeypatch.setattr(progress, "choose", lambda rank: Told())
    config = make_config("stream", "evaluation=[perplexity]", "evaluation.perplexity.every_n_steps=2")
    fit(tmp_path / "run", config, make_cache(tmp_path, SPLITS))
    validating = [(done, total) for what, _, done, total in told if what == "validating"]
    (total,) = {total for _, total in validating}
    assert [done for done, _ in validating[:total]] == list(range(1, total + 1))
    assert {step for what, step, *_ in told if what == "evaluating perplexity"} >= {2, 4}
