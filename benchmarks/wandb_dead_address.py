"""Does an unreachable W&B server slow training down? Paired runs with logger.sync=auto and logger.sync=off.

Both runs of a pair train the same micro model, log every step to W&B's offline files, and have an API key for a server
at an address where nobody listens. With sync=auto an upload process tries to reach it all the while; with sync=off
there is none. The two take turns of 20 steps, and the upload process runs in its own run's turns only (turns.py). A
pair's ratio is the median over its turns of (median step with auto / median step with off), from step_seconds in
timings.jsonl; the 95% interval of the median ratio comes from resampling pairs. Wanted: it lies under 1.03.

    python -m benchmarks.wandb_dead_address [--pairs 12] [--steps 600] > benchmarks/results/wandb_dead_address.md

Some 8 minutes with the defaults, on Linux. The exit code is 1 where the wanted is not reached.
"""

from __future__ import annotations

import argparse
import os
import statistics
import sys
import tempfile
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np

from benchmarks.command import MICRO, lmexp, step_seconds
from benchmarks.machine import machine
from benchmarks.turns import STEPS

DEAD_ADDRESS = "http://127.0.0.1:9"
WARM_UP_TURNS = 5
LARGEST_RATIO = 1.03
N_RESAMPLES = 10_000
SIDES = ("auto", "off")


def run_pair(folder: Path, first: str, steps: int, address: str) -> tuple[list[float], list[float]]:
    """Median seconds of a step in each turn, with auto and with off. first: whose turn is the first."""
    for side in SIDES:
        (folder / side).mkdir()
        os.mkfifo(folder / f"{side}.fifo")
    token = os.open(folder / f"{first}.fifo", os.O_RDWR)
    os.write(token, b".")
    with ThreadPoolExecutor(2) as pool:
        auto, off = pool.map(lambda side: run_side(folder, side, steps, address), SIDES)
    os.close(token)
    return auto, off


def run_side(folder: Path, side: str, steps: int, address: str) -> list[float]:
    """One run of a pair; makes sure that an upload was, or was not, tried meanwhile."""
    (other,) = (name for name in SIDES if name != side)
    run = lmexp(
        folder / side,
        *MICRO,
        "logger=wandb",
        f"logger.sync={side}",
        "logger.log_every_n_steps=1",
        f"trainer.max_steps={steps}",
        f"trainer.val_every_n_steps={steps}",
        f"checkpoint.every_n_steps={steps}",
        "callbacks=[custom]",
        "callbacks.custom.target=benchmarks.turns:TakeTurns",
        f"+callbacks.custom.args={{folder: '{folder}', own: {side}.fifo, other: {other}.fifo}}",
        plugins=("benchmarks.turns",),
        WANDB_BASE_URL=address,
        WANDB_API_KEY=40 * "0",
    )
    upload = run / "logs" / "wandb-sync.log"
    tried = upload.exists() and "no connection" in upload.read_text(encoding="utf-8")
    if tried != (side == "auto"):
        raise SystemExit(f"logger.sync={side}: an upload was {'tried' if tried else 'not tried'}; see {upload}")
    seconds = step_seconds(run)
    turns = [seconds[first : first + STEPS] for first in range(0, len(seconds) - STEPS + 1, STEPS)]
    return [statistics.median(turn) for turn in turns[WARM_UP_TURNS:]]


def interval_of_median(ratios: Sequence[float], seed: int = 0) -> tuple[float, float]:
    """95% interval of the median ratio: percentiles over resampled pairs."""
    resampled = np.random.default_rng(seed).choice(np.asarray(ratios), (N_RESAMPLES, len(ratios)))
    low, high = np.percentile(np.median(resampled, axis=1), [2.5, 97.5])
    return float(low), float(high)


def report(pairs: Sequence[tuple[list[float], list[float]]], steps: int) -> tuple[str, bool]:
    """The result as Markdown, and whether it is as wanted."""
    rows, ratios = [], []
    for number, (auto, off) in enumerate(pairs, start=1):
        ratios.append(statistics.median(a / b for a, b in zip(auto, off, strict=True)))
        medians = (f"{1e6 * statistics.median(turns):.0f}" for turns in (auto, off))
        rows.append(f"| {number} | {' | '.join(medians)} | {ratios[-1]:.4f} |")
    low, high = interval_of_median(ratios)
    reached = high < LARGEST_RATIO
    lines = [
        "# W&B at a dead address: step time with the upload process and without",
        "",
        f"Median step in microseconds; runs of {steps:,} steps in turns of {STEPS}; every step is logged.",
        "",
        "| pair | sync=auto | sync=off | ratio |",
        "|---|---|---|---|",
        *rows,
        f"| median | | | **{statistics.median(ratios):.4f}** |",
        "",
        f"95% interval of the median ratio: **{low:.4f} to {high:.4f}** ({N_RESAMPLES:,} resamples of the pairs).",
        f"Wanted: under {LARGEST_RATIO}: {'reached' if reached else 'not reached'}.",
        "",
        machine(),
    ]
    return "\n".join(lines), reached


def main() -> int:
    """All pairs."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--pairs", type=int, default=12)
    parser.add_argument("--steps", type=int, default=600)
    parser.add_argument("--address", default=DEAD_ADDRESS, help="where W&B is looked for in vain")
    arguments = parser.parse_args()
    pairs = []
    for number in range(arguments.pairs):
        with tempfile.TemporaryDirectory() as folder:
            pairs.append(run_pair(Path(folder), SIDES[number % 2], arguments.steps, arguments.address))
        ratio = statistics.median(a / b for a, b in zip(*pairs[-1], strict=True))
        print(f"pair {number + 1}: {ratio:.4f}", file=sys.stderr, flush=True)
    table, reached = report(pairs, arguments.steps)
    print(table)
    return 0 if reached else 1


if __name__ == "__main__":
    sys.exit(main())
