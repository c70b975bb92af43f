from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from lmexp.errors import ConfigError
from lmexp.evaluation.benchmarks.config import LastWordConfig
from lmexp.evaluation.config import InvarianceConfig
from lmexp.evaluation.runner import run_evaluations
from lmexp.evaluation.samples_file import read_samples
from tests.evaluation.asking import QUESTIONS, Uniform, asking, context, write


def evaluate(folder: Path, model: torch.nn.Module | None = None, **settings: Any) -> dict[str, Any]:
    configs = {
        "invariance": InvarianceConfig(n_samples=10, **settings),
        "it": asking(write(folder, QUESTIONS), n_shots=0, seeds=[0], pmi=False, option_orders=1),
        "last": LastWordConfig(path=write(folder, [{"text": f"a b{'c' * i}"} for i in range(20)], "last.jsonl")),
    }
    given = context(model, folder=folder / "evaluation", model_digest="0" * 64)
    return {row.name: row for row in run_evaluations(configs, given)}


def test_a_causal_model_in_float32_gives_the_same_answers_for_all_batch_sizes(tmp_path: Path) -> None:
    rows = evaluate(tmp_path)
    for name in ("it", "last"):
        difference = rows[f"invariance/{name}/logprob_difference"]
        assert 0 <= difference.estimate < 1e-4 and difference.unit == "nats" and difference.n == 10
        assert rows[f"invariance/{name}/flips"].estimate == 0
        assert difference.aspect == "robustness"
    assert rows["invariance/it/logprob_difference"].estimate > 0
    table = read_samples(tmp_path / "evaluation" / "invariance" / "samples.parquet")
    assert len(table) == 20
    assert table.numbers("difference").max() == max(
        rows[f"invariance/{name}/logprob_difference"].estimate for name in ("it", "last")
    )
    assert evaluate(tmp_path).keys() == rows.keys(), "from the table, without the model"


def test_a_model_that_sees_its_batch_is_found_out(tmp_path: Path) -> None:
    class Peeks(Uniform):
        """In a batch by itself a sequence gets other logits."""

        def forward(self, tokens: Tensor) -> Tensor:
            logits = super().forward(tokens)
            if len(tokens) == 1:
                logits[..., 0xC3] = 7.0  # as é begins
            return logits

    rows = evaluate(tmp_path, Peeks())
    assert rows["invariance/it/logprob_difference"].estimate > 1
    assert 0 < rows["invariance/it/flips"].estimate <= 1
    assert rows["invariance/it/flips"].higher_is_better is False


def test_without_an_evaluation_that_can_be_scored_again_the_row_says_so() -> None:
    (row,) = run_evaluations({"invariance": InvarianceConfig()}, context())
    assert row.status.startswith("not measured: no evaluation that ran before can be scored again")


@pytest.mark.parametrize("sizes", [[], [8], [8, 8], [0, 8]])
def test_batch_sizes_that_compare_nothing_are_refused(sizes: list[int]) -> None:
    with pytest.raises(ConfigError, match="expected two numbers or more"):
        InvarianceConfig(batch_sizes=sizes)
