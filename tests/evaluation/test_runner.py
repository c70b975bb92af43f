from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import pytest

from lmexp.errors import ConfigError
from lmexp.evaluation.config import (
    BaselinesConfig,
    CustomEvaluationConfig,
    EvaluationConfig,
    PerplexityConfig,
)
from lmexp.evaluation.context import EvaluationContext
from lmexp.evaluation.row import Row
from lmexp.evaluation.runner import run_evaluations
from tests.evaluation.tiny import TinyModel, make_cache, random_documents


@dataclass(kw_only=True, slots=True)
class GivenConfig(EvaluationConfig):
    kind: str = "given"
    evaluation: object = None

    def build(self) -> object:  # type: ignore[override]
        return self.evaluation


class Mode:
    def run(self, context: EvaluationContext) -> list[Row]:
        return [Row(name="mode/training", split="test", definition="x", estimate=float(context.model.training))]


class Wrong:
    def run(self, context: EvaluationContext) -> list[float]:
        return [1.0]


@pytest.fixture
def context(tmp_path: Path) -> EvaluationContext:
    cache = make_cache(tmp_path, {"train": random_documents(30, 0), "test": random_documents(30, 1)})
    return EvaluationContext(model=TinyModel(), cache=cache, sequence_length=7)


def test_rows_keep_the_order_of_the_config_although_baselines_run_last(context: EvaluationContext) -> None:
    seen: list[str] = []
    context.progress = lambda what, done, total: seen.append(what)
    rows = run_evaluations({"b": BaselinesConfig(), "p": PerplexityConfig()}, context)
    assert [row.name.partition("/")[0] for row in rows] == ["b"] * 4 + ["p"] * 6
    assert seen[0] == "p"
    assert seen[-1] == "b: scoring"


def test_every_evaluation_finds_the_model_in_evaluation_mode(context: EvaluationContext) -> None:
    context.model.train()
    rows = run_evaluations({"mode": GivenConfig(evaluation=Mode())}, context)
    assert rows[0].estimate == 0
    assert context.model.training


def test_own_evaluations_that_do_not_fit_are_refused_by_name(context: EvaluationContext) -> None:
    with pytest.raises(ConfigError, match=r"evaluation.mine: run\(context\) returned \[1.0\]; expected a list"):
        run_evaluations({"mine": GivenConfig(evaluation=Wrong())}, context)
    with pytest.raises(ConfigError, match=r"evaluation\.mine is a dict, which has no run"):
        run_evaluations({"mine": GivenConfig(evaluation={})}, context)


def test_wrong_settings_are_refused_with_what_was_expected() -> None:
    with pytest.raises(ConfigError, match=r"split is 'tset'; expected one of .*did you mean test"):
        PerplexityConfig(split="tset")
    with pytest.raises(ConfigError, match="batch_size is 0; expected at least 1"):
        PerplexityConfig(batch_size=0)
    with pytest.raises(ConfigError, match="max_tokens is 0"):
        PerplexityConfig(max_tokens=0)
    with pytest.raises(ConfigError, match=r"evaluation\.target is not set"):
        CustomEvaluationConfig()
