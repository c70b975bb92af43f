"""What answers without a model reach on questions with choices: chance, and always the same choice.

They are columns beside a table of questions, so the lift is a paired difference: each question's score minus what the
baseline has on the same question.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from lmexp.evaluation.figures import row_of
from lmexp.evaluation.row import Row
from lmexp.evaluation.samples import NUMBER, Figure, Samples, add_columns
from lmexp.evaluation.statistics.paired import paired_binary, paired_t

Floats = NDArray[np.float64]

WHAT = {
    "chance": "drawing a choice at random: mean of 1 / number of choices",
    "majority": "always the choice number {number}, the most frequent right one of these very questions, so that no "
    "other number does better here",
}


def choice_baselines(samples: Samples, *, name: str, seed: int) -> list[Row]:
    """Two rows for each baseline that a table has: its accuracy, and the model's lift over it.

    name: of the evaluation that shows them. Empty for a table without right and wrong choices. The majority needs
    questions of which any choice may be the right one; in a minimal pair that is always the first.
    """
    baselines = _baselines(samples)
    if not baselines:
        return []
    table = add_columns(samples.table, {f"by_{which}": (NUMBER, values) for which, (values, _) in baselines.items()})
    score = samples.numbers("score")
    table = add_columns(table, {f"over_{which}": (NUMBER, score - values) for which, (values, _) in baselines.items()})
    shown = Samples(replace(samples.header, name=name), table)
    of = samples.header.name
    rows = []
    for which, (values, definition) in baselines.items():
        own = _figure(f"{of}/{which}", definition, f"by_{which}", binary=which == "majority")
        rows.append(row_of(own, shown, seed=seed))
        lift = _figure(
            f"{of}/lift_over_{which}", f"acc of {of} minus that of {definition}", f"over_{which}", paired=True
        )
        row = row_of(lift, shown, seed=seed)
        rows.append(replace(row, method=f"{row.method}{_p_value(samples, score, values)}") if row.measured else row)
    return rows


def _baselines(samples: Samples) -> dict[str, tuple[Floats, str]]:
    """Baseline -> its score on each row, and its definition."""
    kind, settings = samples.header.kind, samples.header.key.settings
    if not len(samples) or kind not in ("multiple_choice", "minimal_pairs") or settings.get("neutral"):
        return {}
    n_choices = np.array([len(row) for row in samples.values("logprobs")])
    found = {"chance": (1 / n_choices, WHAT["chance"])}
    if "target_number" in samples.table.column_names:
        targets = samples.counts("target_number")
        most = int(np.bincount(targets).argmax())  # the first of equally frequent ones
        found["majority"] = (targets == most).astype(np.float64), WHAT["majority"].format(number=most + 1)
    return found


def _figure(name: str, definition: str, numerator: str, *, binary: bool = False, paired: bool = False) -> Figure:
    return Figure(
        name=name, definition=definition, numerator=numerator, binary=binary, paired=paired, higher_is_better=True
    )


def _p_value(samples: Samples, score: Floats, baseline: Floats) -> str:
    """Of the difference: exact McNemar for right and wrong answers to independent questions, else a paired t test."""
    clusters = samples.clusters()
    independent = int(clusters.max()) + 1 == len(samples)
    binary = bool(np.isin(score, (0, 1)).all() and np.isin(baseline, (0, 1)).all())
    test = paired_binary(score, baseline) if independent and binary else paired_t(score - baseline, clusters)
    how = "exact McNemar" if independent and binary else "paired t"
    return "" if test.p_value is None else f"; {how} p = {test.p_value:.2g}"
