"""Muon against AdamW at equal steps on shakespeare_char: which one has the lower validation loss, over three seeds?

Both run `lmexp train experiment=shakespeare_char optimizer=NAME optimizer.lr=LR seed=S`, with the experiment's settings
but for the number of steps, which is the same for both. Each has the learning rate of one grid that is best for it with
seed 0, which decides nothing else. Then the seeds 1, 2 and 3: the same seed gives both the same initial weights and the
same batches, so the differences are paired. Wanted: the t interval of the mean difference (95 %, 2 degrees of freedom)
lies below 0.

    python -m benchmarks.muon FILE [--steps 2000] [--jobs 2] [--folder DIR] > benchmarks/results/muon.md

FILE: tinyshakespeare's input.txt; without it LMEXP_SHARED_DATA/tinyshakespeare/input.txt. 14 trainings; one of 2,000
steps takes 4 to 6 minutes on a core of its own. DIR keeps what each one gave, so that a benchmark that was stopped goes
on. The exit code is 1 where the wanted is not reached.
"""

from __future__ import annotations

import argparse
import json
import math
import statistics
import sys
import tempfile
from collections.abc import Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import asdict, dataclass
from pathlib import Path

from benchmarks.command import lmexp, step_seconds
from benchmarks.machine import machine, tinyshakespeare
from lmexp.evaluation.statistics.intervals import t_interval

OPTIMIZERS = ("adamw", "muon")
LEARNING_RATES = ("1e-3", "2e-3", "4e-3", "8e-3")
TUNING_SEED = 0
SEEDS = (1, 2, 3)


@dataclass(frozen=True, slots=True)
class Training:
    """One run."""

    optimizer: str
    lr: str
    seed: int
    steps: int


@dataclass(frozen=True, slots=True)
class Result:
    """What came of it."""

    loss: float
    """Nats per character over the whole validation split, after the last step."""
    step_ms: float
    """Median of the step times."""


def result_of(training: Training, text: Path, folder: Path) -> Result:
    """Train, unless the folder has the result already."""
    own = folder / "-".join(str(value) for value in asdict(training).values())
    kept = own.with_suffix(f"{own.suffix}.json")
    if not kept.exists():
        own.mkdir(exist_ok=True)
        run = lmexp(
            own,
            "experiment=shakespeare_char",
            f"optimizer={training.optimizer}",
            f"optimizer.lr={training.lr}",
            f"seed={training.seed}",
            f"trainer.max_steps={training.steps}",
            f"trainer.val_every_n_steps={training.steps}",
            f"checkpoint.every_n_steps={training.steps}",
            f"data.path={text}",
            f"data.cache_dir={folder / 'cache'}",
            "evaluation=[perplexity]",
            "logger=files",
        )
        rows = json.loads((run / "evaluation" / "summary.json").read_text(encoding="utf-8"))["rows"]
        (row,) = (row for row in rows if (row["name"], row["split"]) == ("perplexity/loss", "validation"))
        result = Result(row["estimate"], 1e3 * statistics.median(step_seconds(run)))
        kept.write_text(json.dumps(asdict(result)), encoding="utf-8")
    found = Result(**json.loads(kept.read_text(encoding="utf-8")))
    print(f"{training}: {found}", file=sys.stderr, flush=True)
    return found


def report(
    steps: int, tuned: dict[str, dict[str, Result]], best: dict[str, str], final: dict[str, Sequence[Result]]
) -> tuple[str, bool]:
    """The result as Markdown, and whether it is as wanted."""
    adamw, muon = (final[name] for name in OPTIMIZERS)
    differences = [b.loss - a.loss for a, b in zip(adamw, muon, strict=True)]
    mean, se = statistics.fmean(differences), statistics.stdev(differences) / math.sqrt(len(differences))
    interval = t_interval(mean, se, len(differences) - 1)
    assert interval.low is not None and interval.high is not None
    reached = interval.high < 0
    lines = [
        f"# Muon and AdamW on shakespeare_char, {steps:,} steps",
        "",
        "Loss over the whole validation split after the last step (nats per character).",
        "",
        f"Learning rates, with seed {TUNING_SEED}:",
        "",
        f"| optimizer | {' | '.join(LEARNING_RATES)} |",
        f"|---|{'---|' * len(LEARNING_RATES)}",
        *(tuning_row(name, best[name], of) for name, of in tuned.items()),
        "",
        f"Each with its best one{edges(best)}:",
        "",
        f"| seed | adamw, lr {best['adamw']} | muon, lr {best['muon']} | difference |",
        "|---|---|---|---|",
        *(
            f"| {seed} | {a.loss:.4f} | {b.loss:.4f} | {difference:+.4f} |"
            for seed, a, b, difference in zip(SEEDS, adamw, muon, differences, strict=True)
        ),
        f"| mean | {statistics.fmean(r.loss for r in adamw):.4f} | {statistics.fmean(r.loss for r in muon):.4f} | "
        f"**{mean:+.4f}** |",
        "",
        f"95 % t interval of the mean difference, paired by seed: {interval.low:+.4f} to {interval.high:+.4f}. Wanted: "
        f"below 0: {'reached' if reached else 'not reached'}. Median step: "
        f"{statistics.median(r.step_ms for r in adamw):.0f} ms with AdamW, "
        f"{statistics.median(r.step_ms for r in muon):.0f} ms with Muon, one thread each, on a shared machine.",
        "",
        machine(),
    ]
    return "\n".join(lines), reached


def edges(best: dict[str, str]) -> str:
    """Which of the best learning rates have no neighbour on one side."""
    found = [f"{name}'s" for name, lr in best.items() if lr in (LEARNING_RATES[0], LEARNING_RATES[-1])]
    return f" ({' and '.join(found)} lies at the edge of the grid)" if found else ""


def tuning_row(name: str, best: str, results: dict[str, Result]) -> str:
    """A row of the first table, the best loss in bold."""
    cells = [f"**{result.loss:.4f}**" if lr == best else f"{result.loss:.4f}" for lr, result in results.items()]
    return f"| {name} | {' | '.join(cells)} |"


def main() -> int:
    """Tune, then compare."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("file", nargs="?", type=Path, help="tinyshakespeare's input.txt")
    parser.add_argument("--steps", type=int, default=2000, help="optimizer steps of each training")
    parser.add_argument("--jobs", type=int, default=2, help="trainings at a time")
    parser.add_argument("--folder", type=Path, help="where results are kept, to go on with; default: nowhere")
    arguments = parser.parse_args()
    text = tinyshakespeare(arguments.file)
    with tempfile.TemporaryDirectory() as made, ThreadPoolExecutor(arguments.jobs) as pool:
        folder = (arguments.folder or Path(made)).absolute()
        folder.mkdir(parents=True, exist_ok=True)

        def start(optimizer: str, lr: str, seed: int) -> Future[Result]:
            return pool.submit(result_of, Training(optimizer, lr, seed, arguments.steps), text, folder)

        running = {name: {lr: start(name, lr, TUNING_SEED) for lr in LEARNING_RATES} for name in OPTIMIZERS}
        tuned = {name: {lr: one.result() for lr, one in of.items()} for name, of in running.items()}
        best = {name: min(of, key=lambda lr: of[lr].loss) for name, of in tuned.items()}
        seeds = {name: [start(name, best[name], seed) for seed in SEEDS] for name in OPTIMIZERS}
        final = {name: [one.result() for one in of] for name, of in seeds.items()}
    table, reached = report(arguments.steps, tuned, best, final)
    print(table)
    return 0 if reached else 1


if __name__ == "__main__":
    sys.exit(main())
