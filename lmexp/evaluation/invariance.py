"""Whether an evaluation gives the same answers whatever its batch size.

Padding and the shapes of a matrix product change the last digits of a log-probability, and so maybe which of two close
choices is the answer.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from lmexp.evaluation.collect import finished, publish
from lmexp.evaluation.config import InvarianceConfig
from lmexp.evaluation.context import EvaluationContext
from lmexp.evaluation.figures import row_of
from lmexp.evaluation.plot import Plot, Series
from lmexp.evaluation.row import Row, not_measured
from lmexp.evaluation.samples import NUMBER, TEXT, Figure, Header, Key, Samples, make_table

FLIPS = Figure(
    name="flips",
    definition="share of samples whose answer isn't the same for all batch sizes",
    numerator="score",
    binary=True,
    higher_is_better=False,
)


class Invariance:
    """Scores the first samples of the evaluations that ran again, in batches of several sizes."""

    runs_last = True

    def __init__(self, config: InvarianceConfig) -> None:
        self.config = config

    def run(self, context: EvaluationContext) -> list[Row]:
        """The largest difference and the share of flipped answers, for each evaluation."""
        name = context.name or self.config.kind
        if not context.again:
            why = "no evaluation that ran before can be scored again; those that ask items of files can"
            row = not_measured(f"{name}/flips", self.config.split, FLIPS.definition, why)
            return [replace(row, aspect="robustness")]
        samples = self._samples(context, name)
        context.samples[name] = samples
        evaluations = np.array(samples.values("evaluation"), dtype=object)
        rows = []
        for which in context.again:
            part = samples.where(evaluations == which)
            split = context.samples[which].header.split
            for row in (_largest(part), row_of(FLIPS, part, seed=context.seed)):
                figure = row.name.partition("/")[2]
                rows.append(replace(row, name=f"{name}/{which}/{figure}", split=split, aspect="robustness"))
        return rows

    def _samples(self, context: EvaluationContext, name: str) -> Samples:
        config = self.config
        sizes = list(config.batch_sizes)
        keys = {which: context.samples[which].header.key for which in context.again}
        header = Header(
            name=name,
            kind=config.kind,
            split=config.split,
            definition=f"batch sizes {', '.join(map(str, sizes))}; the first {config.n_samples:,} samples",
            key=Key(
                model=context.model_digest,
                task={which: key.task for which, key in keys.items()},
                settings={
                    "batch_sizes": sizes,
                    "n_samples": config.n_samples,
                    "scored": {which: key.settings for which, key in keys.items()},
                    **context.settings,
                },
            ),
            figures=(FLIPS,),
        )
        found = finished(context, header)
        if found is not None:
            return found
        columns: dict[str, list[object]] = {
            key: [] for key in ("evaluation", "sample_id", "cluster_id", "seed", "prompt_id", "perturbation")
        }
        differences, flipped = [], []
        for number, (which, score) in enumerate(context.again.items()):
            context.progress(f"{name}: {which}", number, len(keys))
            unseen = replace(context, folder=None, samples={}, again={})
            tables = [score(unseen, config.n_samples, size) for size in sizes]
            differences.append(largest_differences(tables))
            flipped.append(flips(tables))
            for key in ("seed", "prompt_id", "perturbation"):
                columns[key] += tables[0].values(key)
            for key in ("sample_id", "cluster_id"):
                columns[key] += [f"{which}:{value}" for value in tables[0].values(key)]
            columns["evaluation"] += [which] * len(tables[0])
        numbers = {"score": np.concatenate(flipped), "difference": np.concatenate(differences)}
        samples = Samples(header, make_table({**columns, **numbers}, {"evaluation": TEXT, "difference": NUMBER}))
        if context.rank == 0:
            publish(context, samples)
        context.gather(None)
        return samples


def largest_differences(tables: list[Samples]) -> NDArray[np.float64]:
    """Of any log-probability of each sample between any two tables; (n_samples,)."""
    found = [np.array([_spread(one) for one in zip(*row, strict=True)]).max() for row in _rows(tables, "logprobs")]
    return np.array(found, dtype=np.float64)


def flips(tables: list[Samples]) -> NDArray[np.float64]:
    """1 for each sample whose prediction isn't the same in all tables, else 0; (n_samples,)."""
    return np.array([float(len(set(row)) > 1) for row in _rows(tables, "prediction")])


def _rows(tables: list[Samples], column: str) -> list[tuple[object, ...]]:
    return list(zip(*(table.values(column) for table in tables), strict=True))


def _spread(values: tuple[float, ...]) -> float:
    return 0.0 if len(set(values)) == 1 else max(values) - min(values)  # equal ones may be infinite


def _largest(samples: Samples) -> Row:
    header = samples.header
    values = samples.numbers("difference")
    name, definition = (
        f"{header.name}/logprob_difference",
        "largest difference of a log-probability between batch sizes",
    )
    if not np.isfinite(values).all():
        return not_measured(name, header.split, definition, "the model's scores are not finite", unit="nats")
    plot = Plot(
        kind="strip",
        title="difference of log-probabilities between batch sizes",
        series=[Series(label="a sample", x=samples.values("evaluation"), y=values.tolist())],
        y_label="largest difference",
        y_unit="nats",
        higher_is_better=False,
    )
    return Row(
        name=name,
        split=header.split,
        definition=f"{definition}; {header.definition}",
        estimate=float(values.max()),
        n=len(values),
        n_clusters=int(samples.clusters().max()) + 1,
        unit="nats",
        method="no interval: the largest value seen",
        higher_is_better=False,
        plot=plot,
    )
