"""Runs the evaluations of a config one after another on one model."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Protocol, runtime_checkable

from lmexp.errors import ConfigError
from lmexp.evaluation.config import EMA, RAW, EvaluationConfig
from lmexp.evaluation.context import EvaluationContext
from lmexp.evaluation.row import Row
from lmexp.evaluation.samples import Samples
from lmexp.models.base import evaluation_mode


@runtime_checkable
class Evaluation(Protocol):
    """What an EvaluationConfig builds. With `runs_last = True` it reads the results of the others. With check(name) it
    says what is wrong with its files before anything is scored."""

    def run(self, context: EvaluationContext) -> list[Row]:
        """Rows of the report card, the same on every process. All processes call this together."""
        ...


def run_evaluations(configs: dict[str, EvaluationConfig], context: EvaluationContext) -> list[Row]:
    """The rows of all evaluations, in the order of configs."""
    evaluations = {name: _build(name, config) for name, config in configs.items()}
    for name, config in configs.items():
        if config.weights == EMA and context.ema is None:
            raise ConfigError(
                f"evaluation.{name}.weights=ema: the run keeps no moving average of its weights; take "
                f"evaluation.{name}.weights=raw, or train with trainer.ema_decay=0.999"
            )
    for name, evaluation in evaluations.items() if context.items is None else ():
        if hasattr(evaluation, "check"):
            evaluation.check(name)
    rows: dict[str, list[Row]] = {}
    tables: dict[str, dict[str, Samples]] = {RAW: context.samples, EMA: {}}
    again = {RAW: context.again, EMA: {}}
    with evaluation_mode(context.model):
        for name in sorted(evaluations, key=lambda name: getattr(evaluations[name], "runs_last", False)):
            weights = configs[name].weights
            context.name = name
            context.samples, context.again = tables[weights], again[weights]  # figures derive from the same weights
            with _weights_in_model(context, weights):
                rows[name] = _check_rows(name, evaluations[name].run(context))
    context.samples, context.again = tables[RAW] | tables[EMA], again[RAW] | again[EMA]
    return [row for name in configs for row in rows[name]]


@contextmanager
def _weights_in_model(context: EvaluationContext, weights: str) -> Iterator[None]:
    """Let the context's model have these weights, and its digest be theirs."""
    if weights == RAW:
        yield
        return
    assert context.ema is not None
    before = context.model_digest
    with context.ema() as context.model_digest:
        try:
            yield
        finally:
            context.model_digest = before


def _build(name: str, config: EvaluationConfig) -> Evaluation:
    evaluation: object = config.build()
    if not isinstance(evaluation, Evaluation):
        raise ConfigError(
            f"evaluation.{name} is a {type(evaluation).__qualname__}, which has no run; "
            f"expected a class with run(self, context) that returns a list of lmexp.evaluation.row.Row"
        )
    return evaluation


def _check_rows(name: str, rows: object) -> list[Row]:
    if not isinstance(rows, list) or not all(isinstance(row, Row) for row in rows):
        raise ConfigError(
            f"evaluation.{name}: run(context) returned {repr(rows)[:80]}; expected a list of lmexp.evaluation.row.Row"
        )
    return rows
