"""Whether a model is right as often as it is sure: calibration of the answers to questions with choices.

Expected calibration error in bins of equal mass (Kumar et al. 2019), Brier score, NLL, and the same after temperature
scaling (Guo et al. 2017), whose temperature is never fitted on the samples it is applied to.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np
from numpy.typing import ArrayLike, NDArray

from lmexp.evaluation.confidence import Answers, bootstrap_row, derive
from lmexp.evaluation.config import CalibrationConfig
from lmexp.evaluation.context import EvaluationContext
from lmexp.evaluation.plot import Plot, Reference, Series
from lmexp.evaluation.row import Row, not_measured
from lmexp.evaluation.statistics.intervals import clustered_mean
from lmexp.metrics.calibration import (
    brier_scores,
    cross_fitted_temperature,
    expected_calibration_error,
    negative_log_likelihoods,
    reliability_curve,
)

N_FOLDS = 5
ECE = "mean over answers of |accuracy - confidence| of their bin, {n} bins of equal mass by confidence"

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]


class Calibration:
    """Rows for each table of choices; they need no further pass of the model."""

    runs_last = True

    def __init__(self, config: CalibrationConfig) -> None:
        self.config = config

    def run(self, context: EvaluationContext) -> list[Row]:
        """The rows of each evaluation that it derives from."""
        return derive(context, self.config, self._rows, figure="ece", definition=ECE.format(n="some"))

    def _rows(self, name: str, answers: Answers, seed: int) -> list[Row]:
        softmax = np.exp(answers.logits - np.logaddexp.reduce(answers.logits, axis=1)[:, None])
        rows = [self._ece(f"{name}/ece_{n}", answers, answers.confidence, n, seed) for n in self.config.bins]
        rows[0] = replace(rows[0], plot=_reliability(answers, self.config.bins[0]))
        rows += _scores(f"{name}/{{}}", answers, softmax, "")
        if int(answers.clusters.max()) + 1 < N_FOLDS:
            why = f"a temperature needs {N_FOLDS} {answers.samples.header.cluster}s or more"
            split = answers.samples.header.split
            return [*rows, not_measured(f"{name}/temperature", split, "temperature", why)]
        scaled = cross_fitted_temperature(answers.logits, answers.targets, answers.clusters, n_folds=N_FOLDS, seed=seed)
        after = f" after temperature scaling, cross-fitted in {N_FOLDS} folds"
        confidence = scaled.probabilities.max(axis=1)
        n = self.config.bins[0]
        temperature = Row(
            name=f"{name}/temperature",
            split=answers.samples.header.split,
            definition=f"mean of the temperatures of {N_FOLDS} folds, each fitted on the others; {answers.note()}",
            estimate=float(scaled.temperatures.mean()),
            n=len(answers.correct),
            n_clusters=int(answers.clusters.max()) + 1,
            method=f"no interval; the folds have {', '.join(f'{t:.3g}' for t in scaled.temperatures)}",
        )
        ece = self._ece(f"{name}/scaled_ece_{n}", answers, confidence, n, seed, after)
        return [
            *rows,
            temperature,
            ece,
            *_scores(f"{name}/scaled_{{}}", answers, scaled.probabilities, after),
        ]

    def _ece(self, name: str, answers: Answers, confidence: Floats, n_bins: int, seed: int, after: str = "") -> Row:
        def ece(items: Ints) -> ArrayLike:
            return expected_calibration_error(confidence[items], answers.correct[items], n_bins=n_bins)

        return bootstrap_row(name, answers, ece, seed, definition=ECE.format(n=n_bins) + after, better=False)


def _scores(name: str, answers: Answers, probabilities: Floats, after: str) -> list[Row]:
    """Brier score and NLL of the probabilities of the choices."""
    found = {
        "brier": ("sum over choices of (p - y)^2, y 1 for the right one and 0 for the others", brier_scores, ""),
        "nll": ("-ln of the probability of the right choice", negative_log_likelihoods, "nats"),
    }
    rows = []
    for figure, (what, score, unit) in found.items():
        values = score(probabilities, answers.targets)
        mean = clustered_mean(values, answers.clusters)
        rows.append(
            Row(
                name=name.format(figure),
                split=answers.samples.header.split,
                definition=f"mean of the {what}{after}; {answers.note()}",
                estimate=mean.estimate,
                low=mean.interval.low,
                high=mean.interval.high,
                n=mean.n,
                n_clusters=mean.n_clusters,
                unit=unit,
                method="; ".join(text for text in (mean.method, mean.interval.note) if text),
                higher_is_better=False,
            )
        )
    return rows


def _reliability(answers: Answers, n_bins: int) -> Plot:
    curve = reliability_curve(answers.confidence, answers.correct, n_bins=n_bins)
    return Plot(
        kind="reliability",
        title=f"Reliability of {answers.samples.header.name}",
        series=[
            Series(label="model", x=curve.confidence.tolist(), y=curve.accuracy.tolist(), n=[int(n) for n in curve.n])
        ],
        x_label="confidence",
        y_label="accuracy",
        references=[Reference(label="overall accuracy", value=float(answers.correct.mean()))],
        higher_is_better=True,
    )
