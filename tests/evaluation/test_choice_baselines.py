"""Chance and the most frequent choice, and the lift of a model over them."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from lmexp.evaluation.benchmarks.config import MultipleChoiceConfig
from lmexp.evaluation.choice_baselines import choice_baselines
from lmexp.evaluation.config import BaselinesConfig
from lmexp.evaluation.context import EvaluationContext
from lmexp.evaluation.row import Row
from lmexp.evaluation.runner import run_evaluations
from lmexp.evaluation.samples import COUNT, Samples, add_columns
from lmexp.evaluation.statistics.intervals import clustered_mean, wilson
from lmexp.evaluation.statistics.paired import mcnemar, paired_t
from lmexp.models.config import GPTConfig
from lmexp.tokenizers.config import ByteTokenizerConfig
from tests.evaluation.choices import choice_samples


def table(
    n_choices: Sequence[int], targets: Sequence[int], correct: Sequence[bool], clusters: Sequence[str] | None = None
) -> Samples:
    """Questions with so many choices, of which the model gets some right."""
    logprobs = []
    for n, target, right in zip(n_choices, targets, correct, strict=True):
        answer = target if right else (target + 1) % n
        logprobs.append([0.0 if i == answer else -5.0 - i for i in range(n)])
    samples = choice_samples(logprobs, targets, clusters=clusters)
    return Samples(samples.header, add_columns(samples.table, {"target_number": (COUNT, list(targets))}))


def rows_of(samples: Samples) -> dict[str, Row]:
    return {row.name: row for row in choice_baselines(samples, name="baselines", seed=0)}


def test_baselines_and_lifts_equal_their_definitions() -> None:
    generator = np.random.default_rng(0)
    n_choices = generator.integers(2, 6, 40)
    targets = [int(generator.integers(0, n)) if i % 3 else 1 for i, n in enumerate(n_choices)]
    samples = table(n_choices.tolist(), targets, (generator.random(40) < 0.6).tolist())
    score = samples.numbers("score")
    rows = rows_of(samples)
    majority = (np.array(targets) == 1).astype(float)
    assert majority.sum() == np.bincount(targets).max()
    assert list(rows) == [
        f"baselines/quiz/{one}" for one in ("chance", "lift_over_chance", "majority", "lift_over_majority")
    ]
    chance = rows["baselines/quiz/chance"]
    assert chance.estimate == pytest.approx(np.mean(1 / n_choices), rel=1e-12)
    expected = clustered_mean(1 / n_choices).interval
    assert (chance.low, chance.high) == pytest.approx((expected.low, expected.high))
    found = rows["baselines/quiz/majority"]
    assert found.estimate == majority.mean()
    assert found.low == wilson(int(majority.sum()), 40).low
    assert "always the choice number 2, the most frequent right one of these very questions" in found.definition
    over = rows["baselines/quiz/lift_over_chance"]
    test = paired_t(score - 1 / n_choices)
    assert over.estimate == pytest.approx(test.estimate, rel=1e-12)
    assert (over.low, over.high) == pytest.approx((test.interval.low, test.interval.high))
    assert over.method == f"paired t over 40 questions; paired t p = {test.p_value:.2g}"
    over = rows["baselines/quiz/lift_over_majority"]
    assert over.estimate == pytest.approx((score - majority).mean(), rel=1e-12)
    p = mcnemar(int((score > majority).sum()), int((score < majority).sum())).exact
    assert over.method == f"paired t over 40 questions; exact McNemar p = {p:.2g}"
    assert (over.n, over.n_clusters, over.higher_is_better) == (40, 40, True)


def test_questions_that_share_a_cluster_are_tested_over_clusters() -> None:
    clusters = [f"passage-{i // 4}" for i in range(40)]
    samples = table([2] * 40, [i % 2 for i in range(40)], [i % 5 > 0 for i in range(40)], clusters)
    over = rows_of(samples)["baselines/quiz/lift_over_majority"]
    assert over.n_clusters == 10
    assert over.method.startswith("paired t over 10 questions")
    assert "; paired t p = " in over.method


def test_a_model_that_equals_the_majority_has_no_lift() -> None:
    targets = [0] * 6 + [1] * 4
    rows = rows_of(table([2] * 10, targets, [target == 0 for target in targets]))
    assert rows["baselines/quiz/majority"].estimate == 0.6
    over = rows["baselines/quiz/lift_over_majority"]
    assert over.estimate == 0
    assert over.method.endswith("exact McNemar p = 1")


def test_pairs_have_chance_alone_and_other_tables_nothing() -> None:
    samples = table([2] * 10, [0] * 10, [True] * 10)
    pairs = choice_samples([[0.0, -1.0]] * 10, [0] * 10, kind="minimal_pairs")
    rows = rows_of(pairs)
    assert list(rows) == ["baselines/quiz/chance", "baselines/quiz/lift_over_chance"]
    assert rows["baselines/quiz/lift_over_chance"].estimate == 0.5
    neutral = replace(pairs.header, key=replace(pairs.header.key, settings={"neutral": True}))
    assert rows_of(Samples(neutral, pairs.table)) == {}  # neither is the right one
    assert rows_of(Samples(replace(samples.header, kind="last_word"), samples.table)) == {}
    assert rows_of(samples.where(np.zeros(10, np.bool_))) == {}


def test_scores_that_are_not_finite_are_told() -> None:
    samples = choice_samples([[math.nan, 0.0]] + [[0.0, -1.0]] * 9, [0] * 10)
    score = samples.numbers("score")
    score[0] = math.nan
    at = samples.table.column_names.index("score")
    samples = Samples(samples.header, samples.table.set_column(at, samples.table.schema.field(at), [score]))
    rows = rows_of(samples)
    assert rows["baselines/quiz/chance"].measured
    assert rows["baselines/quiz/lift_over_chance"].status.startswith(
        "not measured: the model's scores are not finite in 1"
    )


def test_questions_that_were_asked_have_their_baselines(tmp_path: Path) -> None:
    """Beside a corpus that isn't there, which leaves the n-grams unmeasured."""
    items: list[dict[str, Any]] = [
        {"id": str(i), "q": f"what is {i}?", "choices": ["one", "two", "three"][: 2 + i % 2], "answer": min(1, i % 5)}
        for i in range(30)
    ]
    path = tmp_path / "quiz.jsonl"
    path.write_text("".join(json.dumps(item) + "\n" for item in items))
    quiz = MultipleChoiceConfig(
        path=str(path), prompt="{q}", choices=["{choices.*}"], target="{answer}", target_kind="index", id="{id}"
    )
    tokenizer = ByteTokenizerConfig().train([])
    model = GPTConfig(n_layer=1, d_model=16, n_head=2).build(vocab_size=tokenizer.vocab_size, sequence_length=64)
    context = EvaluationContext(model=model, cache=None, sequence_length=64, tokenizer=tokenizer)
    rows = {row.name: row for row in run_evaluations({"baselines": BaselinesConfig(), "quiz": quiz}, context)}
    assert rows["baselines/quiz/chance"].estimate == pytest.approx((1 / 2 + 1 / 3) / 2)
    assert rows["baselines/quiz/majority"].estimate == 24 / 30
    accuracy = rows["quiz/acc"].estimate
    assert rows["baselines/quiz/lift_over_majority"].estimate == pytest.approx(accuracy - 24 / 30)
    assert not rows["baselines/bigram_bits_per_byte"].measured
