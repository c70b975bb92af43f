"""Samples tables of questions with choices, made up: what a model would have found is given."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from lmexp.evaluation.samples import Figure, Header, Key, Samples, make_table

ACC = Figure(name="acc", definition="share right", numerator="score", binary=True, higher_is_better=True)


def choice_samples(
    logprobs: Sequence[Sequence[float]],
    targets: Sequence[int],
    *,
    clusters: Sequence[str] | None = None,
    kind: str = "multiple_choice",
    name: str = "quiz",
    model: str = "",
) -> Samples:
    """A table with these log-probabilities of choices; the right one of each question is targets."""
    ids = [f"q{number}" for number in range(len(targets))]
    table = make_table(
        {
            "sample_id": ids,
            "cluster_id": list(clusters or ids),
            "score": [float(np.argmax(row) == target) for row, target in zip(logprobs, targets, strict=True)],
            "logprob": [float(row[target]) for row, target in zip(logprobs, targets, strict=True)],
            "logprobs": [list(map(float, row)) for row in logprobs],
        },
        {},
    )
    header = Header(
        name=name,
        kind=kind,
        split="test",
        definition="made-up questions",
        key=Key(model=model, task={"items": "made up"}),
        figures=(ACC,),
        cluster="question",
    )
    return Samples(header, table)
