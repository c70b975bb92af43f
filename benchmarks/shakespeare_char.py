"""lmexp against a hand-written nanoGPT loop on tinyshakespeare's characters: the same loss, over three seeds?

Runs `lmexp train experiment=shakespeare_char data.path=FILE seed=S` and benchmarks/nanogpt_loop.py with the same seed,
both at the same time on one thread each. lmexp's figure is the row perplexity/loss of evaluation/summary.json: of the
best checkpoint, and the benchmark makes sure that this is the last one, as the loop's figure is of its last step. Both
cover the whole validation split, each token but the first once, in disjoint windows of 64; lmexp's has one more target,
the <eos> after the last character. Wanted: lmexp's mean at most 1.93 and within 0.01 of the loop's.

    python -m benchmarks.shakespeare_char FILE [--seeds 1 2 3] > benchmarks/results/shakespeare_char.md

FILE: tinyshakespeare's input.txt; without it LMEXP_SHARED_DATA/tinyshakespeare/input.txt. Two to four minutes a seed
on two cores. The exit code is 1 where the wanted is not reached.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import tempfile
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import torch

from benchmarks import nanogpt_loop
from benchmarks.command import lmexp, step_seconds
from benchmarks.machine import machine, tinyshakespeare

LARGEST_LOSS = 1.93
LARGEST_DIFFERENCE = 0.01
LAST_CHECKPOINT = "step-00002000"

Result = tuple[float, float]
"""Validation loss in nats per token, and median seconds of an optimizer step."""


def train_with_lmexp(folder: Path, text: Path, seed: int) -> Result:
    """The experiment as it is shipped; its evaluation must be of the last checkpoint."""
    run = lmexp(folder, "experiment=shakespeare_char", f"data.path={text}", f"seed={seed}")
    summary = json.loads((run / "evaluation" / "summary.json").read_text(encoding="utf-8"))
    if summary["checkpoint"] != LAST_CHECKPOINT:
        raise SystemExit(f"seed {seed}: the best checkpoint is {summary['checkpoint']}, not {LAST_CHECKPOINT}")
    (row,) = (row for row in summary["rows"] if (row["name"], row["split"]) == ("perplexity/loss", "validation"))
    return row["estimate"], statistics.median(step_seconds(run))


def train_by_hand(text: str, seed: int) -> Result:
    """The loop."""
    seconds: list[float] = []
    return nanogpt_loop.train(text, seed, step_seconds=seconds), statistics.median(seconds)


def report(seeds: Sequence[int], ours: Sequence[Result], loops: Sequence[Result]) -> tuple[str, bool]:
    """The result as Markdown, and whether it is as wanted."""
    rows = [
        f"| {seed} | {a[0]:.4f} | {b[0]:.4f} | {a[0] - b[0]:+.4f} | {a[1] * 1e3:.1f} | {b[1] * 1e3:.1f} |"
        for seed, a, b in zip(seeds, ours, loops, strict=True)
    ]
    ratio = statistics.median(a[1] / b[1] for a, b in zip(ours, loops, strict=True))
    mean, loop_mean = (statistics.fmean(loss for loss, _ in side) for side in (ours, loops))
    reached = mean <= LARGEST_LOSS and abs(mean - loop_mean) <= LARGEST_DIFFERENCE
    lines = [
        "# shakespeare_char: lmexp and a hand-written nanoGPT loop",
        "",
        "Loss over the whole validation split after the last of 2,000 steps (nats per character), and the median time",
        "of a step (ms; both at the same time, one thread each).",
        "",
        "| seed | lmexp | loop | difference | lmexp step | loop step |",
        "|---|---|---|---|---|---|",
        *rows,
        f"| mean | **{mean:.4f}** | {loop_mean:.4f} | **{mean - loop_mean:+.4f}** | | |",
        "",
        f"Wanted: at most {LARGEST_LOSS}, and within {LARGEST_DIFFERENCE} of the loop: "
        f"{'reached' if reached else 'not reached'}. Median ratio of the step times: {ratio:.3f}.",
        "",
        machine(),
    ]
    return "\n".join(lines), reached


def main() -> int:
    """Both sides for each seed."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("file", nargs="?", type=Path, help="tinyshakespeare's input.txt")
    parser.add_argument("--seeds", type=int, nargs="+", default=[1, 2, 3])
    arguments = parser.parse_args()
    text = tinyshakespeare(arguments.file)
    torch.set_num_threads(1)
    ours, loops = [], []
    with tempfile.TemporaryDirectory() as folder, ThreadPoolExecutor(1) as beside:
        for seed in arguments.seeds:
            running = beside.submit(train_with_lmexp, Path(folder), text, seed)
            loops.append(train_by_hand(text.read_text(encoding="utf-8"), seed))
            ours.append(running.result())
            print(f"seed {seed}: lmexp {ours[-1][0]:.4f}, loop {loops[-1][0]:.4f}", file=sys.stderr, flush=True)
    table, reached = report(arguments.seeds, ours, loops)
    print(table)
    return 0 if reached else 1


if __name__ == "__main__":
    sys.exit(main())
