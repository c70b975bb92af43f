"""Does an unreachable W&B server slow training down? Paired runs with logger.sync=auto and logger.sync=off.

Both runs of a pair train the same micro model, log every step to W&B's offline files, and have an API key for a server
at an address where nobody listens. With sync=auto an upload process tries to reach it all the while; with sync=off
there is none. The order within a pair alternates. Of each run the median of step_seconds in timings.jsonl is taken,
of each pair the ratio auto / off, of all pairs the median; its 95% interval comes from resampling pairs. Wanted: the
interval lies under 1.03.

    python -m benchmarks.wandb_dead_address [--pairs 20] [--steps 4000] > benchmarks/results/wandb_dead_address.md

Some 12 minutes with the defaults; run it on an otherwise idle machine. The exit code is 1 where the wanted is not
reached.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from benchmarks.command import MICRO, lmexp, step_seconds
from benchmarks.machine import machine

DEAD_ADDRESS = "http://127.0.0.1:9"
WARM_UP_STEPS = 200
LARGEST_RATIO = 1.03
N_RESAMPLES = 10_000


def median_step(folder: Path, sync: str, steps: int, address: str) -> float:
    """Median seconds of a step of one run; makes sure that an upload was, or was not, tried meanwhile."""
    run = lmexp(
        folder,
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


def report(pairs: Sequence[tuple[float, float]], steps: int) -> tuple[str, bool]:
    """The result as Markdown, and whether it is as wanted."""
    ratios = [auto / off for auto, off in pairs]
    low, high = interval_of_median(ratios)
    auto, off = (statistics.median(side) * 1e6 for side in zip(*pairs, strict=True))
    reached = high < LARGEST_RATIO
    rows = [
        f"| {number} | {a * 1e6:.0f} | {b * 1e6:.0f} | {a / b:.4f} |" for number, (a, b) in enumerate(pairs, start=1)
    ]
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
    parser.add_argument("--pairs", type=int, default=20)
    parser.add_argument("--steps", type=int, default=4000)
    parser.add_argument("--address", default=DEAD_ADDRESS, help="where W&B is looked for in vain")
    arguments = parser.parse_args()
    pairs = []
    with tempfile.TemporaryDirectory() as folder:
        for number in range(1, arguments.pairs + 1):
            order = ("auto", "off") if number % 2 else ("off", "auto")
            steps = {sync: median_step(Path(folder), sync, arguments.steps, arguments.address) for sync in order}
            pairs.append((steps["auto"], steps["off"]))
            print(f"pair {number}: {steps['auto'] / steps['off']:.4f}", file=sys.stderr, flush=True)
    table, reached = report(pairs, arguments.steps)
    print(table)
    return 0 if reached else 1


if __name__ == "__main__":
    sys.exit(main())
