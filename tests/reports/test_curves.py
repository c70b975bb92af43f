"""The curves of runs as they come: short, long, failed, resumed, evaluated on the way."""

from __future__ import annotations

import math
from typing import Any

import pytest

from lmexp.reports.curves import marks_of, panels_of, section, tokens_at
from lmexp.reports.run_files import RunFiles


def run(*metrics: dict[str, Any], **parts: Any) -> RunFiles:
    return RunFiles(metrics=list(metrics), **parts)


def panels(files: RunFiles) -> dict[str, list[str]]:
    return {panel.name: [line.label for line in panel.lines] for panel in panels_of(files)[0]}


def test_train_validation_and_evaluations_stand_together_in_a_known_order() -> None:
    files = run(
        {"step": 5, "train/grad_norm": 1.0, "train/loss": 3.0, "train/learning_rate": 0.1, "train/tokens": 100},
        {"step": 10, "evaluation/mine/score[a/b]": 1.0, "evaluation/perplexity/loss": 2.0},
        {
            "step": 10,
            "validation/loss": 2.5,
            "validation/perplexity": 12.2,
            "evaluation/perplexity/word_perplexity": 9.0,
        },
        timings=[{"step": 5, "tokens_per_second": 1000.0, "seconds": 3.0}],
    )
    assert list(panels(files).items())[:4] == [
        ("loss", ["train", "perplexity, evaluated", "validation"]),
        ("learning_rate", ["train"]),
        ("grad_norm", ["train"]),
        ("tokens_per_second", ["tokens_per_second"]),
    ]


def test_the_ends_of_intervals_belong_to_their_line() -> None:
    rows = [
        {"step": 10, "evaluation/p/loss": 2.0, "evaluation/p/loss/low": 1.5, "evaluation/p/loss/high": 2.5},
        {"step": 20, "evaluation/p/loss": 1.0},
        {"step": 20, "game/low": 7.0},
    ]
    found, _ = panels_of(run(*rows))
    assert [panel.name for panel in found] == ["loss", "low"]
    assert found[0].lines[0].intervals == [(10.0, 1.5, 2.5)]


@pytest.mark.parametrize(
    ("losses", "log"), [((10.0, 2.0), True), ((3.0, 2.0), False), ((3.0, 0.0), False), ((10.0, math.nan, 2.0), True)]
)
def test_a_loss_that_falls_far_is_drawn_on_a_logarithmic_scale(losses: tuple[float, ...], log: bool) -> None:
    files = run(*({"step": step, "train/loss": loss} for step, loss in enumerate(losses)))
    assert panels_of(files)[0][0].log is log
    assert ("logarithmic" in section(files)) is log


def test_what_is_never_finite_is_said_and_the_rest_is_drawn() -> None:
    files = run({"step": 1, "train/loss": math.nan, "train/score": 1.0}, {"step": 2, "train/loss": math.inf})
    html = section(files)
    assert "Never finite: train/loss." in html
    assert html.count("<svg") == 1


def test_a_single_point_is_a_dot() -> None:
    html = section(run({"step": 1, "train/loss": 4.0}))
    assert html.count('class="dot"') == 1
    assert "nan" not in html


def test_a_run_without_rows_says_so() -> None:
    assert "No curves: nothing has been logged." in section(run())


def test_long_runs_say_how_they_are_drawn() -> None:
    files = run(*({"step": step, "train/loss": 2 + step % 3} for step in range(3000)))
    html = section(files)
    assert "mean of 10 points each, in the band from the lowest to the highest" in html
    assert len(html) < 40_000


def test_tokens_between_logged_steps_are_in_proportion() -> None:
    tokens = tokens_at([(10.0, 1000.0), (20.0, 4000.0)])
    assert tokens is not None
    assert [tokens(step) for step in (0, 5, 10, 15, 20, 25)] == [0, 500, 1000, 2500, 4000, 5500]
    assert tokens_at([]) is None


def test_places_where_a_run_went_on_are_marked() -> None:
    receipt = {"earlier": [{"until_step": 4}, {"until_step": 8, "others": {}}, "damaged"]}
    changes = [{"step": 8, "changed": {"trainer.max_steps": [8, 12]}}, {"step": "damaged"}]
    files = run(
        {"step": 2, "train/loss": 1.0}, {"step": 12, "train/loss": 1.0}, receipt=receipt, run={"changes": changes}
    )
    assert marks_of(files) == [(4.0, "went on from step 4"), (8.0, "went on from step 8 with other trainer.max_steps")]
    assert section(files).count('class="reference"') == 2
    assert marks_of(run(receipt={"earlier": 5}, run={"changes": None})) == []


def test_hundreds_of_figures_are_named_and_not_drawn() -> None:
    files = run({"step": 1, **{f"evaluation/blimp/acc[{i}]": 0.5 for i in range(200)}, "train/loss": 1.0})
    html = section(files)
    assert html.count("<svg") == 24
    assert "Not drawn: acc[23], acc[24]" in html
    assert html.index("Loss") < html.index("acc[0]")


def test_what_counting_says_once_is_no_curve() -> None:
    rows = {"step": 1, "ngrams/order_1": 20.0, "discounts/order_1_count_1": 0.5, "validation/loss": 2.0}
    assert list(panels(run(rows))) == ["loss"]


def test_figures_that_somebody_made_up_end_in_words() -> None:
    rows = [
        {"step": 1, "train/loss": 1e300, "train/grad_norm": 1e308, "evaluation/p/loss": 1.0},
        {"step": 2, "train/loss": 1e-310, "train/grad_norm": 1e-10, "evaluation/p/loss": 1.0},
    ]
    ends = {"evaluation/p/loss/low": -math.inf, "evaluation/p/loss/high": math.inf}
    assert section(run(*({**row, **ends} for row in rows))).count("its figures are too large") == 2
    assert marks_of(run(receipt={"earlier": [{"until_step": 10**400}, {"until_step": 3}]})) == [
        (3.0, "went on from step 3")
    ]
