from __future__ import annotations

import math

import numpy as np
import pytest
from torch import nn

from lmexp.errors import ConfigError
from lmexp.evaluation.calibration import Calibration
from lmexp.evaluation.config import (
    CalibrationConfig,
    EvaluationConfig,
    InvarianceConfig,
    SelectiveConfig,
    VarianceConfig,
)
from lmexp.evaluation.context import EvaluationContext
from lmexp.evaluation.row import Row
from lmexp.evaluation.samples import Samples
from lmexp.evaluation.selective import Selective
from tests.evaluation.choices import choice_samples


def rows(evaluation: Calibration | Selective, **tables: Samples) -> dict[str, Row]:
    context = EvaluationContext(model=nn.Identity(), cache=None, sequence_length=1, name=evaluation.config.kind)
    context.samples = dict(tables)
    return {row.name.partition("/")[2]: row for row in evaluation.run(context)}


def answers(n: int, sharpness: float, seed: int = 0) -> Samples:
    """n questions of three choices, the right one drawn from softmax(logits), which are shown times sharpness."""
    generator = np.random.default_rng(seed)
    logits = generator.normal(0, 1.5, (n, 3))
    p = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    targets = (p.cumsum(axis=1) < generator.random((n, 1))).sum(axis=1)
    return choice_samples((sharpness * logits).tolist(), targets.tolist())


def test_a_calibrated_model_has_no_error_to_speak_of_and_an_overconfident_one_has() -> None:
    honest, boastful = (rows(Calibration(CalibrationConfig()), quiz=answers(2000, k)) for k in (1.0, 4.0))
    assert honest["quiz/ece_10"].estimate == pytest.approx(0, abs=0.03)
    assert boastful["quiz/ece_10"].estimate > 0.2
    assert boastful["quiz/ece_10"].low > honest["quiz/ece_10"].high
    assert honest["quiz/temperature"].estimate == pytest.approx(1, abs=0.1)
    assert boastful["quiz/temperature"].estimate == pytest.approx(4, rel=0.1)
    for figure in ("brier", "nll"):
        assert boastful[f"quiz/{figure}"].estimate > honest[f"quiz/{figure}"].estimate
        scaled = boastful[f"quiz/scaled_{figure}"].estimate
        assert scaled == pytest.approx(honest[f"quiz/{figure}"].estimate, abs=0.01)
    assert boastful["quiz/scaled_ece_10"].estimate < 0.04


def test_constant_confidence_gives_the_distance_to_the_accuracy() -> None:
    table = choice_samples([[math.log(0.9), math.log(0.1)]] * 1000, [0] * 700 + [1] * 300)
    found = rows(Calibration(CalibrationConfig()), quiz=table)
    assert found["quiz/ece_10"].estimate == found["quiz/ece_15"].estimate == pytest.approx(0.2)
    assert found["quiz/nll"].estimate == pytest.approx(-0.7 * math.log(0.9) - 0.3 * math.log(0.1))
    assert found["quiz/brier"].estimate == pytest.approx(0.7 * 0.02 + 0.3 * 1.62)
    plot = found["quiz/ece_10"].plot
    assert plot is not None
    assert (plot.series[0].x, plot.series[0].y, plot.series[0].n) == ([pytest.approx(0.9)], [0.7], [1000])


def test_knowing_what_one_knows_lowers_the_area_to_the_best_there_is() -> None:
    sure, unsure = [2.0, 0.0], [0.1, 0.0]
    knowing = rows(Selective(SelectiveConfig()), quiz=choice_samples([sure] * 50 + [unsure] * 50, [0] * 50 + [1] * 50))
    ignorant = rows(Selective(SelectiveConfig()), quiz=choice_samples([sure] * 50 + [unsure] * 50, [1] * 50 + [0] * 50))
    blank = rows(Selective(SelectiveConfig()), quiz=choice_samples([sure] * 100, [0] * 50 + [1] * 50))
    assert knowing["quiz/excess_aurc"].estimate == pytest.approx(0, abs=1e-12)
    assert knowing["quiz/surest_accuracy"].estimate == 1
    assert ignorant["quiz/surest_accuracy"].estimate == 0
    assert blank["quiz/aurc"].estimate == pytest.approx(0.5)  # confidence that says nothing: the overall risk
    assert knowing["quiz/aurc"].estimate < blank["quiz/aurc"].estimate < ignorant["quiz/aurc"].estimate
    plot = knowing["quiz/aurc"].plot
    assert plot is not None
    assert plot.series[0].y[0] == 0
    assert plot.series[0].y[-1] == pytest.approx(0.5)


def test_the_order_of_the_samples_changes_nothing() -> None:
    one = answers(300, 2.0)
    order = np.random.default_rng(1).permutation(300)
    other = Samples(one.header, one.table.take(order))
    for evaluation in (Selective(SelectiveConfig()), Calibration(CalibrationConfig())):
        for name, row in rows(evaluation, quiz=one).items():
            if "scaled" not in name and "temperature" not in name:  # their folds are drawn by order
                assert rows(evaluation, quiz=other)[name].estimate == pytest.approx(row.estimate, rel=1e-12)


def test_questions_with_fewer_choices_and_scores_that_are_not_finite() -> None:
    table = choice_samples([[0.0, -1.0, -2.0], [0.0, -1.0], [float("nan"), 0.0], [-1.0, 0.0]] * 10, [0, 1, 0, 1] * 10)
    found = rows(Selective(SelectiveConfig(coverage=1.0)), quiz=table)
    assert found["quiz/surest_accuracy"].n == 30
    assert found["quiz/surest_accuracy"].estimate == pytest.approx(2 / 3)
    assert "10 samples without a finite score are left out" in found["quiz/aurc"].definition
    nothing = rows(Calibration(CalibrationConfig()), quiz=choice_samples([[float("nan")] * 2] * 9, [0] * 9))
    assert [row.status for row in nothing.values()] == ["not measured: no sample has finite scores"]


def test_several_tables_each_have_their_rows_and_others_are_left_alone() -> None:
    text = choice_samples([[0.0, 1.0]] * 9, [0] * 9, kind="perplexity", name="text")
    found = rows(Selective(SelectiveConfig()), quiz=answers(50, 1.0), test=answers(60, 1.0), text=text)
    assert {name.partition("/")[0] for name in found} == {"quiz", "test"}
    only = rows(Selective(SelectiveConfig(of=["test"])), quiz=answers(50, 1.0), test=answers(60, 1.0))
    assert {row.n for row in only.values()} == {60}


def test_nothing_to_derive_from_is_said_with_what_to_ask_for() -> None:
    for evaluation in (Selective(SelectiveConfig()), Calibration(CalibrationConfig())):
        (row,) = rows(evaluation).values()
        assert row.status.startswith("not measured: no evaluation with choices ran before it; ask for one too")
    with pytest.raises(ConfigError, match=r"evaluation.selective.of has 'quizz', .*expected one of quiz; did you mean"):
        rows(Selective(SelectiveConfig(of=["quizz"])), quiz=answers(9, 1.0))
    with pytest.raises(ConfigError, match="bins is"):
        CalibrationConfig(bins=[10, 10])
    with pytest.raises(ConfigError, match="coverage is 0"):
        SelectiveConfig(coverage=0.0)


@pytest.mark.parametrize("schema", [CalibrationConfig, SelectiveConfig, VarianceConfig, InvarianceConfig])
def test_a_split_that_nothing_reads_is_refused(schema: type[EvaluationConfig]) -> None:
    with pytest.raises(ConfigError, match=r"split is 'train', but this evaluation reads no split of the corpus"):
        schema(split="train")
