"""What lm-eval 0.4.13 finds for a model, lmexp finds too: per sample and in the figures."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parents[2]

SAME = {"acc": "acc", "acc_norm": "acc_norm", "acc_bytes": "acc_bytes", "acc_mutual_info": "acc_pmi"}
SAME |= {"brier_score": "brier", "perplexity": "perplexity"}
"""Name of lm-eval's metric -> name of the figure."""


@pytest.fixture(scope="module")
def found(tmp_path_factory: pytest.TempPathFactory) -> Any:
    pytest.importorskip("lm_eval", reason="lm-eval is the reference; pip install 'lmexp[dev]'")
    folder = tmp_path_factory.mktemp("reference")
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-m", "tests.evaluation.lm_eval_reference", str(folder)],
        capture_output=True,
        text=True,
        cwd=ROOT,
        env={**os.environ, "HF_HOME": str(folder / "home"), "OMP_NUM_THREADS": "1"},
        timeout=300,
    )
    assert done.returncode == 0, done.stderr[-2000:]
    return json.loads((folder / "found.json").read_text(encoding="utf-8"))


@pytest.mark.parametrize("batch_size", [1, 8, 32])
@pytest.mark.parametrize("task", ["asked", "bare", "three", "pairs", "last"])
def test_scores_equal_those_of_lm_eval(found: Any, task: str, batch_size: int) -> None:
    """asked: with a prompt, some too long; bare: with an empty context; choices of all lengths, not all ASCII."""
    expected, got = found["lm_eval"][task], found[f"lmexp {batch_size}"][task]
    assert got["cut"] == (task in ("asked", "three", "last"))
    assert len(got["samples"]) == len(expected["samples"]) == 24
    for one, other in zip(got["samples"], expected["samples"], strict=True):
        assert one == pytest.approx(other, rel=0, abs=1e-5)
    shared = [name for name in SAME if name in expected["figures"]]
    assert shared
    for name in shared:
        assert got["figures"][SAME[name]] == pytest.approx(expected["figures"][name], rel=1e-6), name
    if task == "last":
        assert got["first"] == expected["first"]
