"""Samples tables with planted scores, and run folders around them, for comparisons."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from lmexp.evaluation.comparison import Difference, compare_figures
from lmexp.evaluation.conclusions import Declared, concluded
from lmexp.evaluation.matching import Matched, Table, match
from lmexp.evaluation.samples import Figure, Header, Key, Samples, make_table
from lmexp.evaluation.samples_file import write_samples

ACC = Figure(name="acc", definition="share of right answers", numerator="score", binary=True, higher_is_better=True)
NATS = Figure(
    name="loss",
    definition="mean cross-entropy of a token",
    numerator="logprob",
    denominator="n_tokens",
    scale=-1.0,
    unit="nats per token",
    higher_is_better=False,
)
PERPLEXITY = Figure(
    name="perplexity",
    definition="exp of the mean cross-entropy of a token",
    numerator="logprob",
    denominator="n_tokens",
    scale=-1.0,
    exp=True,
    higher_is_better=False,
)


def samples(
    scores: Any,
    *,
    ids: Sequence[str] | None = None,
    clusters: Sequence[str] | None = None,
    logprobs: Any = None,
    n_tokens: Any = None,
    figures: Sequence[Figure] = (ACC,),
    name: str = "csqa",
    model: str = "",
    task: dict[str, Any] | None = None,
    settings: dict[str, Any] | None = None,
    cluster: str = "sample",
) -> Samples:
    """A table with these scores, and log-probabilities where they are given."""
    n = len(scores)
    names = list(ids) if ids is not None else [f"q{i:05}" for i in range(n)]
    columns = {"sample_id": names, "cluster_id": list(clusters) if clusters is not None else names}
    columns["score"] = np.asarray(scores, np.float64)  # type: ignore[assignment]
    columns["logprob"] = np.zeros(n) if logprobs is None else np.asarray(logprobs, np.float64)  # type: ignore[assignment]
    columns["n_tokens"] = np.ones(n, np.int64) if n_tokens is None else np.asarray(n_tokens)  # type: ignore[assignment]
    header = Header(
        name=name,
        kind="multiple_choice",
        split="test",
        definition="questions",
        key=Key(model=model, task=task or {"items": "0" * 64}, settings=settings or {"precision": "32-true"}),
        figures=tuple(figures),
        cluster=cluster,
    )
    return Samples(header, make_table(columns, {}))


def matched(reference: Sequence[Samples], other: Sequence[Samples]) -> Matched:
    """The tables of side A and of side B, joined."""
    return match("csqa", labelled("A", reference), labelled("B", other), ("A", "B"))


def labelled(letter: str, side: Sequence[Samples]) -> list[Table]:
    """The tables of a side, as runs/compare.py labels them."""
    return [
        Table(label=f"{letter}{i}" if len(side) > 1 else letter, where=f"{letter}.parquet", samples=one)
        for i, one in enumerate(side, start=1)
    ]


def rows(
    reference: Samples | Sequence[Samples],
    other: Samples | Sequence[Samples],
    declared: Declared | None = None,
    *,
    seed: int = 0,
) -> list[Difference]:
    """B minus A, to the end."""
    one, two = ([side] if isinstance(side, Samples) else side for side in (reference, other))
    found = compare_figures(matched(one, two), sides=("A", "B"), seed=seed)
    return concluded(found, declared or Declared())


def differences(reference: Samples, other: Samples) -> list[Difference]:
    """B minus A, each test by itself: without what is concluded from all of them, which takes 0.2 seconds."""
    return compare_figures(matched([reference], [other]), sides=("A", "B"), seed=0)


def write_run(folder: Path, *tables: Samples, config: dict[str, Any] | None = None, **facts: Any) -> Path:
    """A run folder with as much as a comparison needs: run.json, and the tables of its evaluations."""
    folder.mkdir(parents=True)
    body = {
        "format": "lmexp.run",
        "version": 3,
        "run_id": folder.name,
        "experiment": folder.parent.name,
        "name": folder.parent.name,
        "created": "2026-01-01T00:00:00+00:00",
        "lmexp": "0.1.0",
        "cwd": str(folder.parent.absolute()),
        "overrides": [],
        "plugins": [],
        "wandb_id": "abc",
        "data_fingerprints": ["0" * 64],
        "from_run": None,
        "initial_weights": None,
        "changes": [],
        "config": config or {"seed": 1},
        **facts,
    }
    (folder / "run.json").write_text(json.dumps(body), encoding="utf-8")
    for one in tables:
        write_samples(folder / "evaluation" / one.header.name / "samples.parquet", one)
    return folder
