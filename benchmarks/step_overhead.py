"""The fixed cost of an optimizer step: lmexp with logging on against a plain loop, on a micro model.

lmexp logs every 10 steps to its files and to W&B's offline files; it validates and saves at the last step only. The
plain loop has the same model and fused AdamW, sets the learning rate, clips the gradient, logs nothing, and takes its
batches from a list that was made before. Both take turns of ten steps in one process on one thread (plain_steps.py).
A second figure is pl.Trainer with the plain loop's parts and nothing else: what Lightning costs by itself. The
difference of a run is the median over its turns; the runs of lmexp and of bare Lightning alternate. Wanted: lmexp
takes at most 300 microseconds more than the plain loop.

    python -m benchmarks.step_overhead [--rounds 5] [--steps 2000] > benchmarks/results/step_overhead.md

Some 4 minutes with the defaults; run it on an otherwise idle machine. The exit code is 1 where the wanted is not
reached. OVERRIDES after -- go to lmexp, to see what a setting costs: -- logger=files trainer.deterministic=false
"""

from __future__ import annotations

import argparse
import itertools
import json
import logging
import statistics
import subprocess
import sys
import tempfile
import warnings
from collections.abc import Sequence
from pathlib import Path

from benchmarks.command import MICRO, environment, lmexp
from benchmarks.machine import machine

LARGEST_OVERHEAD = 300.0
"""Microseconds."""


def with_lmexp(steps: int, overrides: Sequence[str], note: Path) -> None:
    """The command, with the plain loop as a callback."""
    lmexp(
        note.parent,
        *MICRO,
        "logger=wandb",
        "logger.log_every_n_steps=10",
        f"trainer.max_steps={steps}",
        f"trainer.val_every_n_steps={steps}",
        f"checkpoint.every_n_steps={steps}",
        "callbacks=[custom]",
        "callbacks.custom.target=benchmarks.plain_steps:PlainSteps",
        f"+callbacks.custom.args.path={note}",
        *overrides,
        plugins=("benchmarks.plain_steps",),
    )


def with_lightning(steps: int, note: Path) -> None:
    """pl.Trainer alone, in a process of its own."""
    call = [sys.executable, "-m", "benchmarks.step_overhead", "--steps", str(steps), "--bare-lightning", str(note)]
    subprocess.run(call, env=environment(), check=True, stdout=subprocess.DEVNULL)


def train_bare(steps: int, note: str) -> None:
    """Train under pl.Trainer, which logs and saves nothing."""
    import pytorch_lightning as pl

    from benchmarks.plain_steps import BareModule, PlainSteps

    warnings.filterwarnings("ignore")
    logging.getLogger("pytorch_lightning").setLevel(logging.ERROR)
    module = BareModule()
    trainer = pl.Trainer(
        accelerator="cpu",
        max_steps=steps,
        gradient_clip_val=1.0,
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        callbacks=[PlainSteps(note)],
    )
    trainer.fit(module, itertools.cycle(module.loop.batches))  # a list would mean one loader each


def medians(note: Path) -> tuple[float, float, float]:
    """Microseconds of a trainer's step, of a plain one, and their difference: medians over the turns of a run."""
    body = json.loads(note.read_text(encoding="utf-8"))
    differences = [a - b for a, b in zip(body["trainer"], body["plain"], strict=True)]
    trainer, plain, difference = (
        1e6 * statistics.median(seconds) for seconds in (body["trainer"], body["plain"], differences)
    )
    return trainer, plain, difference


def report(runs: dict[str, list[tuple[float, float, float]]], steps: int, overrides: Sequence[str]) -> tuple[str, bool]:
    """The result as Markdown, and whether it is as wanted."""
    rounds = len(runs["lmexp"])
    lines = [
        "# The fixed cost of a step: lmexp with W&B every 10 steps, bare Lightning, and a plain loop",
        "",
        f"Microseconds; medians of {rounds} runs of {steps:,} steps each, in turns of 10 with the plain loop"
        + (f"; lmexp with {' '.join(overrides)}." if overrides else "."),
        "",
        "| | step | plain loop's | difference | ratio | difference of each run |",
        "|---|---|---|---|---|---|",
    ]
    for side, found in runs.items():
        step, plain, difference = (statistics.median(column) for column in zip(*found, strict=True))
        ratio = statistics.median(a / b for a, b, _ in found)
        each = ", ".join(f"{d:+.0f}" for _, _, d in found)
        lines.append(f"| {side} | {step:.0f} | {plain:.0f} | **{difference:+.0f}** | {ratio:.3f} | {each} |")
    reached = statistics.median(d for _, _, d in runs["lmexp"]) <= LARGEST_OVERHEAD
    lines += [
        "",
        f"Wanted: lmexp at most {LARGEST_OVERHEAD:.0f} over the plain loop: {'reached' if reached else 'not reached'}.",
        "",
        machine(),
    ]
    return "\n".join(lines), reached


def main() -> int:
    """Runs of lmexp and of bare Lightning, alternating."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--steps", type=int, default=2000)
    parser.add_argument("--bare-lightning", metavar="FILE", help=argparse.SUPPRESS)
    parser.add_argument("overrides", nargs="*", help="further overrides of lmexp, after --")
    arguments = parser.parse_args()
    if arguments.bare_lightning:
        train_bare(arguments.steps, arguments.bare_lightning)
        return 0
    runs: dict[str, list[tuple[float, float, float]]] = {"lmexp": [], "Lightning": []}
    with tempfile.TemporaryDirectory() as folder:
        note = Path(folder) / "seconds.json"
        for _ in range(arguments.rounds):
            for side, found in runs.items():
                if side == "lmexp":
                    with_lmexp(arguments.steps, arguments.overrides, note)
                else:
                    with_lightning(arguments.steps, note)
                found.append(medians(note))
                print(f"{side}: {found[-1][2]:+.0f} us over the plain loop", file=sys.stderr, flush=True)
    table, reached = report(runs, arguments.steps, arguments.overrides)
    print(table)
    return 0 if reached else 1


if __name__ == "__main__":
    sys.exit(main())
