"""How good a model's answers are when it may keep silent where it is least sure: selective prediction.

Risk-coverage curve and its area (Geifman and El-Yaniv 2017), and accuracy on the surest tenth.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray

from lmexp.evaluation.confidence import Answers, bootstrap_row, derive
from lmexp.evaluation.config import SelectiveConfig
from lmexp.evaluation.context import EvaluationContext
from lmexp.evaluation.plot import Plot, Reference, Series
from lmexp.evaluation.row import Row
from lmexp.metrics.selective import (
    accuracy_at_coverage,
    area_under_risk_coverage,
    excess_area,
    risk_coverage_curve,
)

MOST_POINTS = 400
AREA = (
    "area under the risk-coverage curve, risk being the share of wrong answers and answers taken in order of confidence"
)

Ints = NDArray[np.int64]


class Selective:
    """Rows for each table of choices; they need no further pass of the model."""

    runs_last = True

    def __init__(self, config: SelectiveConfig) -> None:
        self.config = config

    def run(self, context: EvaluationContext) -> list[Row]:
        """Three rows for each evaluation that it derives from."""
        return derive(context, self.config, self._rows, figure="aurc", definition=AREA)

    def _rows(self, name: str, answers: Answers, seed: int) -> list[Row]:
        wrong, coverage = 1 - answers.correct, self.config.coverage

        def area(items: Ints) -> ArrayLike:
            return area_under_risk_coverage(answers.confidence[items], wrong[items])

        def excess(items: Ints) -> ArrayLike:
            return excess_area(answers.confidence[items], wrong[items])

        def surest(items: Ints) -> ArrayLike:
            return accuracy_at_coverage(answers.confidence[items], answers.correct[items], coverage=coverage)

        aurc = bootstrap_row(f"{name}/aurc", answers, area, seed, definition=AREA, better=False)
        aurc.plot = _risk_coverage(answers)
        above = bootstrap_row(
            f"{name}/excess_aurc",
            answers,
            excess,
            seed,
            definition=f"{AREA}, above that of the best order",
            better=False,
        )
        tenth = bootstrap_row(
            f"{name}/surest_accuracy",
            answers,
            surest,
            seed,
            definition=f"accuracy of the surest {coverage:.0%} of the answers",
            better=True,
        )
        return [aurc, above, tenth]


def _risk_coverage(answers: Answers) -> Plot:
    coverage, risk = risk_coverage_curve(answers.confidence, 1 - answers.correct)
    shown = np.unique(np.linspace(0, len(risk) - 1, MOST_POINTS).astype(int))
    return Plot(
        kind="risk_coverage",
        title=f"Risk and coverage of {answers.samples.header.name}",
        series=[Series(label="model", x=coverage[shown].tolist(), y=risk[shown].tolist())],
        x_label="coverage",
        y_label="share of wrong answers",
        references=[Reference(label="all answers", value=float(risk[-1]))],
        higher_is_better=False,
    )
