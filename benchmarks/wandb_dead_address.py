"""Does an unreachable W&B server slow training down? Paired runs with logger.sync=auto and logger.sync=off.

Both runs train the same micro model, log every step to W&B's offline files, and have an API key for a server at an
address where nobody listens. With sync=auto an upload process tries to reach it all the while; with sync=off there is
none. The two run at the same time, so that whatever else the machine does slows both, each on a core of its own that it
shares with its children, the upload process among them; then once more with the cores swapped: that is a pair. Of each
run the median of step_seconds in timings.jsonl is taken, of each pair the ratio auto / off (geometric mean of the two
turns), of all pairs the median; its 95% interval comes from resampling pairs. Wanted: the interval lies under 1.03.

    python -m benchmarks.wandb_dead_address [--pairs 10] [--steps 1500] > benchmarks/results/wandb_dead_address.md

Some 8 minutes with the defaults, on Linux with two cores or more that have nothing else to do. The exit code is 1
where the wanted is not reached.
"""

from __future__ import annotations

import argparse
import math
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

DEAD_ADDRESS = "http://127.0.0.1:9"
WARM_UP_STEPS = 200
LARGEST_RATIO = 1.03
N_RESAMPLES = 10_000


def median_step(folder: Path, sync: str, core: int, steps: int, address: str) -> float:
    """Median seconds of a step of one run on a core; makes sure that an upload was, or was not, tried meanwhile."""
    os.sched_setaffinity(0, {core})  # of this thread, and of the processes that it starts
    run = lmexp(
        folder / sync,
        *MICRO,
        "logger=wandb",
        f"logger.sync={sync}",
        "logger.log_every_n_steps=1",
        f"trainer.max_steps={steps}",
        f"trainer.val_every_n_steps={steps}",
        f"checkpoint.every_n_steps={steps}",
        WANDB_BASE_URL=address,
        WANDB_API_KEY=40 * "0",
    )
    upload = run / "logs" / "wandb-sync.log"
    tried = upload.exists() and "no connection" in upload.read_text(encoding="utf-8")
    if tried != (sync == "auto"):
        raise SystemExit(f"logger.sync={sync}: an upload was {'tried' if tried else 'not tried'}; see {upload}")
    return statistics.median(step_seconds(run, first_step=WARM_UP_STEPS))


def interval_of_median(ratios: Sequence[float], seed: int = 0) -> tuple[float, float]:
    """95% interval of the median ratio: percentiles over resampled pairs."""
    resampled = np.random.default_rng(seed).choice(np.asarray(ratios), (N_RESAMPLES, len(ratios)))
    low, high = np.percentile(np.median(resampled, axis=1), [2.5, 97.5])
    return float(low), float(high)


def report(turns: Sequence[tuple[float, float]], steps: int) -> tuple[str, bool]:
    """The result as Markdown, and whether it is as wanted. turns: seconds with auto and off, two turns a pair."""
    rows, ratios = [], []
    for number, (first, second) in enumerate(zip(turns[::2], turns[1::2], strict=True), start=1):
        ratios.append(math.sqrt(first[0] / first[1] * second[0] / second[1]))
        shown = [f"{1e6 * seconds:.0f}" for seconds in (first[0], second[0], first[1], second[1])]
        rows.append(f"| {number} | {shown[0]}, {shown[1]} | {shown[2]}, {shown[3]} | {ratios[-1]:.4f} |")
    low, high = interval_of_median(ratios)
    auto, off = (statistics.median(side) * 1e6 for side in zip(*turns, strict=True))
    reached = high < LARGEST_RATIO
    lines = [
        "# W&B at a dead address: step time with the upload process and without",
        "",
        f"Median step of each run of {steps:,} steps in microseconds; every step is logged.",
        "",
        "| pair | sync=auto | sync=off | ratio |",
        "|---|---|---|---|",
        *rows,
        f"| median | {auto:.0f} | {off:.0f} | **{statistics.median(ratios):.4f}** |",
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
    parser.add_argument("--pairs", type=int, default=10)
    parser.add_argument("--steps", type=int, default=1500)
    parser.add_argument("--address", default=DEAD_ADDRESS, help="where W&B is looked for in vain")
    arguments = parser.parse_args()
    cores = sorted(os.sched_getaffinity(0))[:2]
    if len(cores) < 2:
        raise SystemExit("the two runs of a pair need a core each; this process may use one only")
    turns = []
    with tempfile.TemporaryDirectory() as folder, ThreadPoolExecutor(2) as pool:
        for sync in ("auto", "off"):
            (Path(folder) / sync).mkdir()
        for number in range(2 * arguments.pairs):
            auto, off = (
                pool.submit(median_step, Path(folder), sync, core, arguments.steps, arguments.address)
                for sync, core in zip(("auto", "off"), cores if number % 2 else reversed(cores), strict=True)
            )
            turns.append((auto.result(), off.result()))
            print(f"pair {number // 2 + 1}: {turns[-1][0] / turns[-1][1]:.4f}", file=sys.stderr, flush=True)
    table, reached = report(turns, arguments.steps)
    print(table)
    return 0 if reached else 1


if __name__ == "__main__":
    sys.exit(main())
