"""Comparing trained models: a larger one is better, and seeds of one config are not told apart."""

from __future__ import annotations

from pathlib import Path

import pytest

import lmexp
from lmexp.evaluation.comparison import Difference
from lmexp.runs.compare import Comparison
from tests.end_to_end.command import TINY, write_corpus


@pytest.mark.timeout(300)
def test_sizes_differ_and_seeds_do_not(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    write_corpus(tmp_path, 1500)

    def train(name: str, seed: int, *overrides: str) -> Path:
        settings = ("launcher.threads_per_process=1", "data.test_fraction=0.1", "data.sequence_length=64")
        config = lmexp.compose([*TINY, *settings, f"run.name={name}", f"seed={seed}", *overrides])
        return lmexp.train(config, say=lambda _: None).path

    small = [train("small", seed) for seed in (1, 2, 3, 4)]
    large = [train("large", seed, "model.d_model=64", "trainer.max_steps=40") for seed in (1, 2)]

    (seeds,) = _loss(lmexp.compare(small[:2], small[2:]))
    assert (seeds.n_runs, seeds.verdict) == ((2, 2), "not distinguishable")
    single = lmexp.compare(small[0], small[2])
    assert "not for the methods that made them" in single.notes[0]
    assert (seeds.se or 0) > 2 * (_loss(single)[0].se or 0)  # seeds differ by more than the documents tell
    for comparison in (lmexp.compare(small[0], large[0]), lmexp.compare(small, large)):
        (row,) = _loss(comparison)
        assert (row.verdict, row.primary) == ("better", True)
        assert row.high is not None
        assert row.high < 0
        assert {"model.d_model", "trainer.max_steps"} <= {setting.key for setting in comparison.config}
    (same,) = _loss(lmexp.compare(small[0], small[0]))
    assert same.verdict == "the same"


def _loss(comparison: Comparison) -> list[Difference]:
    return [row for row in comparison.rows if row.name == "perplexity/loss"]
