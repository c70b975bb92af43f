from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from lmexp.evaluation.config import VarianceConfig
from lmexp.evaluation.runner import run_evaluations
from lmexp.evaluation.samples import Figure, Header, Key, Samples, make_table
from lmexp.evaluation.statistics.variance import variance_components
from lmexp.evaluation.variance import Variance
from tests.evaluation.asking import QUESTIONS, asking, context, write


def table(scores: np.ndarray[Any, Any], predictions: np.ndarray[Any, Any] | None = None) -> Samples:
    """scores: (n_items, n_prompts, n_seeds)."""
    places = list(np.ndindex(scores.shape))
    figure = Figure(name="acc", definition="share right", numerator="score", binary=True, higher_is_better=True)
    header = Header(
        name="it", kind="multiple_choice", split="x", definition="items", key=Key(model="", task={}), figures=(figure,)
    )
    columns = {
        "sample_id": [f"i{i}" for i, _, _ in places],
        "cluster_id": [f"i{i}" for i, _, _ in places],
        "prompt_id": [f"p{p}" for _, p, _ in places],
        "seed": [s for _, _, s in places],
        "score": [float(scores[place]) for place in places],
        "prediction": [str(scores[place] if predictions is None else predictions[place]) for place in places],
    }
    return Samples(header, make_table(columns, {}))


def rows_of(samples: Samples) -> dict[str, Any]:
    given = context(samples={"it": samples})
    return {row.name.removeprefix("variance/"): row for row in Variance(VarianceConfig()).run(given)}


def test_range_deviation_flips_and_shares_follow_from_the_scores() -> None:
    scores = (np.random.default_rng(0).random((25, 3, 2)) < [[[0.2], [0.5], [0.8]]]).astype(float)
    rows = rows_of(table(scores))
    means = scores.mean(axis=(0, 2))
    assert rows["it/prompt_range"].estimate == pytest.approx(means.max() - means.min())
    parts = {part.name: part for part in variance_components(scores, ("item", "prompt", "seed"))}
    prompt = rows["it/prompt_sd"]
    assert prompt.estimate == pytest.approx(parts["prompt"].variance ** 0.5)
    assert (prompt.low, prompt.high) == pytest.approx(
        (parts["prompt"].interval.low ** 0.5, parts["prompt"].interval.high ** 0.5)
    )
    flipped = [len({scores[i, p, s] for p in range(3)}) > 1 for i in range(25) for s in range(2)]
    assert rows["it/prompt_flips"].estimate == pytest.approx(np.mean(flipped))
    shares = [row.estimate for name, row in rows.items() if name.startswith("it/share[")]
    assert len(shares) == 7 and sum(shares) == pytest.approx(1)
    for number in range(3):
        assert rows[f"it/acc[prompt=p{number}]"].estimate == pytest.approx(means[number])
        assert rows[f"it/acc[prompt=p{number}]"].n == 50
    assert rows["it/acc[seed=0]"].estimate == pytest.approx(scores[:, :, 0].mean())
    plot = rows["it/prompt_range"].plot
    assert plot.series[0].x == ["prompt"] * 3 + ["seed"] * 2 and plot.series[0].y[:3] == pytest.approx(means.tolist())
    assert all(row.aspect == "robustness" for row in rows.values())


def test_where_only_items_differ_the_way_of_asking_has_no_share() -> None:
    scores = np.broadcast_to((np.arange(10) % 2)[:, None, None], (10, 3, 2)).astype(float)
    rows = rows_of(table(scores))
    assert rows["it/share[item]"].estimate == pytest.approx(1)
    assert rows["it/prompt_flips"].estimate == rows["it/prompt_sd"].estimate == rows["it/seed_range"].estimate == 0


def test_right_answers_may_flip_though_scores_do_not() -> None:
    scores = np.zeros((10, 2, 1))
    predictions = np.array([[["a"], ["b" if i < 4 else "a"]] for i in range(10)])
    rows = rows_of(table(scores, predictions))
    assert rows["it/prompt_flips"].estimate == pytest.approx(0.4)
    assert rows["it/share[item]"].status == "not measured: all scores are equal: there is no variance"


def test_without_several_ways_nothing_is_measured_and_the_row_says_how_to() -> None:
    rows = rows_of(table(np.zeros((10, 1, 1))))
    assert list(rows) == ["sd"]
    assert "evaluation.csqa.option_orders=4" in rows["sd"].status


def test_a_table_with_holes_is_not_measured() -> None:
    samples = table(np.zeros((10, 2, 1)))
    rows = rows_of(samples.where(np.arange(20) != 7))
    assert rows["it/sd"].status == "not measured: not every item has a finite score for each way of asking"


def test_it_reads_what_another_evaluation_asked(tmp_path: Path) -> None:
    configs = {"variance": VarianceConfig(), "it": asking(write(tmp_path, QUESTIONS), pmi=False)}
    rows = {row.name: row for row in run_evaluations(configs, context())}
    for factor in ("prompt", "seed", "order"):
        assert rows[f"variance/it/{factor}_sd"].measured
    assert rows["variance/it/order_flips"].n_clusters == 16
    assert {name for name in rows if "order=" in name} == {
        "variance/it/acc[order=given]",
        "variance/it/acc[order=order-1]",
    }
