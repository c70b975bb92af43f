"""How sure a model was of its answers: what calibration and selective prediction derive from samples tables.

An answer is the choice with the highest log-probability; its confidence is the softmax over the choices there.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from lmexp.errors import ConfigError
from lmexp.evaluation.config import CalibrationConfig, SelectiveConfig
from lmexp.evaluation.context import EvaluationContext
from lmexp.evaluation.row import Row, not_measured
from lmexp.evaluation.samples import Samples
from lmexp.evaluation.statistics.cluster_bootstrap import cluster_bootstrap
from lmexp.plugins import did_you_mean

KINDS = ("multiple_choice", "minimal_pairs")
"""Kinds of evaluations whose samples are choices: column logprobs has one entry for each."""

FEW = 300
"""Samples below which calibration errors say little (Kumar et al. 2019, arXiv 1909.10155)."""

NOTHING = "no evaluation with choices ran before it; ask for one too, e.g. evaluation=[csqa,{name}]"

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class Answers:
    """The answers of one table; arrays with an entry for each sample that has finite scores."""

    samples: Samples
    logits: Floats
    """(n, most choices) log-probabilities; -inf where a sample has fewer choices."""
    targets: NDArray[np.int64]
    """Number of the right choice."""
    confidence: Floats
    correct: Floats
    """0 or 1."""
    clusters: NDArray[np.int64]
    n_left_out: int
    """Samples without a finite score."""

    def note(self) -> str:
        """What a definition adds."""
        left = f"; {self.n_left_out:,} samples without a finite score are left out" if self.n_left_out else ""
        few = f"; fewer than {FEW} samples: take it as a hint" if len(self.correct) < FEW else ""
        return f"{self.samples.header.definition}{left}{few}"


def answers_of(samples: Samples) -> Answers | None:
    """The answers of a table of choices; None where no sample has a finite score."""
    logprobs = samples.values("logprobs")
    widest = max(map(len, logprobs), default=0)
    logits = np.full((len(logprobs), widest), -np.inf)
    for row, values in zip(logits, logprobs, strict=True):
        row[: len(values)] = values
    present = np.isfinite(logits)
    given = np.arange(widest) < np.array([len(values) for values in logprobs])[:, None]
    target = samples.numbers("logprob")
    kept = (present == given).all(axis=1) & np.isfinite(target) & np.isfinite(samples.numbers("score"))
    if not kept.any():
        return None
    logits, target = logits[kept], target[kept]
    raised = np.exp(logits - logits.max(axis=1, keepdims=True))
    return Answers(
        samples=samples,
        logits=logits,
        targets=np.argmax(logits == target[:, None], axis=1),  # equal ones are equally likely, so either will do
        confidence=1 / raised.sum(axis=1),
        correct=samples.numbers("score")[kept],
        clusters=samples.clusters()[kept],
        n_left_out=int((~kept).sum()),
    )


def derive(
    context: EvaluationContext,
    config: CalibrationConfig | SelectiveConfig,
    rows: Callable[[str, Answers, int], list[Row]],
    *,
    figure: str,
    definition: str,
) -> list[Row]:
    """The rows of each table of choices that ran before, or one that says why there are none.

    rows: gets what their names begin with, the answers, and a seed. figure, definition: of what is said to be missing.
    """
    name = context.name or config.kind
    found = []
    for source, samples in _choose(context, name, config.of).items():
        answers = answers_of(samples)
        if answers is not None:
            found += rows(f"{name}/{source}", answers, context.seed)
            continue
        why = "no sample has finite scores"
        found.append(not_measured(f"{name}/{source}/{figure}", samples.header.split, definition, why))
    return found or [not_measured(f"{name}/{figure}", config.split, definition, NOTHING.format(name=name))]


def bootstrap_row(
    name: str, answers: Answers, statistic: Callable[[Ints], ArrayLike], seed: int, *, definition: str, better: bool
) -> Row:
    """A figure of all answers together, with its interval over clusters. better: higher is better."""
    found = cluster_bootstrap(statistic, answers.clusters, seed=seed)
    interval = found.interval()
    return Row(
        name=name,
        split=answers.samples.header.split,
        definition=f"{definition}; {answers.note()}",
        estimate=float(found.estimate),
        low=interval.low,
        high=interval.high,
        n=len(answers.correct),
        n_clusters=found.n_clusters,
        method="; ".join(text for text in (found.method, interval.note) if text),
        higher_is_better=better,
    )


def _choose(context: EvaluationContext, name: str, of: Sequence[str]) -> dict[str, Samples]:
    """The tables to derive from: those named, or all whose samples are choices. ConfigError for a name that isn't
    there."""
    for wanted in of:
        if wanted not in context.samples:
            raise ConfigError(
                f"evaluation.{name}.of has {wanted!r}, which wasn't evaluated before; expected one of "
                f"{', '.join(context.samples) or 'none'}{did_you_mean(wanted, context.samples)}"
            )
    if of:
        return {wanted: context.samples[wanted] for wanted in of}
    return {one: samples for one, samples in context.samples.items() if samples.header.kind in KINDS}
