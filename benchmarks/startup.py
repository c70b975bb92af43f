"""Start-up: how long lmexp takes to answer, to refuse, and to reach its first optimizer step, against a naive script.

    python -m benchmarks.startup [--rounds 7]

The naive script (naive_script.py) is the usual one: Hydra's main, Lightning and W&B offline imported at the top. Each
round runs every command of both once, in turn, so that a busy machine slows both; medians of the rounds are shown.
The first step is timed by the same Lightning callback in both, from before the process is started. Both have read
their text once before: lmexp finds its token cache, the file system has the rest. lmexp writes W&B's files offline
too. Of eight wrong overrides Hydra names the first alone; lmexp names all, which is checked.
"""

from __future__ import annotations

import argparse
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

from benchmarks.machine import machine

ROOT = Path(__file__).parents[1]
LMEXP = ("-m", "lmexp")
NAIVE = ("-m", "benchmarks.naive_script")

ERRORS = {
    "model=gpt_tinny": "gpt_tinny",
    "optimizer=adamm": "adamm",
    "model.n_layres=3": "n_layres",
    "trainer.precision=bf17": "bf17",
    "trainer.max_stepz=5": "max_stepz",
    "data.batch_size=many": "many",
    "scheduler.warmup_steps=-1": "warmup_steps",
    "seed=x": "seed=x",
}
"""Wrong override of lmexp -> what its message must hold."""
NAIVE_ERRORS = (
    *("model.n_layres=3", "model.n_heads=2", "trainer.max_stepz=5", "trainer.device=1"),
    *("optimizer.lrr=1", "seeed=1", "batchsize=2", "sequence_len=8"),
)
"""Eight wrong overrides of the naive script, of the kind that Hydra can see."""

Timed = Callable[[], float]


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=7, help="times that each command runs")
    rounds: int = parser.parse_args().rounds
    with tempfile.TemporaryDirectory() as temporary:
        pairs = commands(Path(temporary))
        seconds: dict[str, tuple[list[float], list[float]]] = {name: ([], []) for name in pairs}
        for number in range(rounds + 1):
            for name, (ours, naive) in pairs.items():
                times = ours(), naive()
                if number:  # the first round only fills caches
                    seconds[name][0].append(times[0])
                    seconds[name][1].append(times[1])
    print(f"{machine()}\n\nmedians of {rounds} interleaved rounds, seconds (fastest to slowest)\n")
    print("| until | lmexp | naive script | ratio |\n|---|---|---|---|")
    for name, (ours, naive) in seconds.items():
        ratio = statistics.median(ours) / statistics.median(naive)
        print(f"| {name} | {shown(ours)} | {shown(naive)} | {ratio:.2f} |")


def commands(folder: Path) -> dict[str, tuple[Timed, Timed]]:
    """What is timed -> lmexp's seconds, the naive script's seconds."""
    corpus = folder / "corpus.txt"
    lines = (f"line {i}: the quick brown fox jumps over the lazy dog {i * i}\n" for i in range(2_000))
    corpus.write_text("".join(lines), encoding="utf-8")

    def process(*command: str, code: int = 0, holds: tuple[str, ...] = ()) -> Timed:
        return lambda: run(folder, *command, code=code, holds=holds)

    def first_step(*command: str) -> Timed:
        return lambda: until_first_step(folder, *command)

    note = folder / "first_step.txt"
    train = (
        *("-p", "benchmarks.first_step", "train", "data=text_files", f"data.path={corpus}", "data.document=line"),
        *("tokenizer=byte", "trainer.max_steps=1", "logger=wandb", "logger.sync=off", "evaluation=[perplexity]"),
        *("callbacks=[custom]", "callbacks.custom.target=benchmarks.first_step:FirstStep"),
        f"+callbacks.custom.args.path={note}",
    )
    return {
        "`--help` is answered": (process(*LMEXP, "--help"), process(*NAIVE, "--help")),
        "`train --cfg job` is answered": (process(*LMEXP, "train", "--cfg", "job"), process(*NAIVE, "--cfg", "job")),
        "eight wrong overrides are refused": (
            process(*LMEXP, "train", *ERRORS, code=2, holds=tuple(ERRORS.values())),
            process(*NAIVE, *NAIVE_ERRORS, code=1, holds=("n_layres",)),
        ),
        "the first step is done": (
            first_step(*LMEXP, *train),
            first_step(*NAIVE, f"path={corpus}", f"first_step={note}", f"hydra.run.dir={folder / 'naive'}"),
        ),
    }


def run(folder: Path, *command: str, code: int, holds: tuple[str, ...] = ()) -> float:
    """Seconds of a command, which must end with this exit code and say all of this."""
    start = time.perf_counter()
    done = subprocess.run(
        [sys.executable, *command], cwd=folder, env=environment(folder), capture_output=True, text=True
    )
    seconds = time.perf_counter() - start
    said = done.stdout + done.stderr
    if done.returncode != code or not all(text in said for text in holds):
        raise SystemExit(f"{' '.join(command)}: exit code {done.returncode}, expected {code} and {holds}\n{said}")
    return seconds


def until_first_step(folder: Path, *command: str) -> float:
    """Seconds from the command to the end of its first optimizer step."""
    note = folder / "first_step.txt"
    note.unlink(missing_ok=True)
    start = time.time()
    run(folder, *command, code=0)
    return float(note.read_text(encoding="utf-8")) - start


def environment(folder: Path) -> dict[str, str]:
    """No W&B login, and all outputs in the temporary folder."""
    kept = {k: v for k, v in os.environ.items() if not k.startswith(("WANDB_", "LMEXP_"))}
    ours = {"PYTHONPATH": str(ROOT), "LMEXP_OUTPUTS": str(folder / "outputs"), "NETRC": os.devnull}
    return kept | ours | {"WANDB_MODE": "offline"}


def shown(seconds: list[float]) -> str:
    """Median, fastest and slowest."""
    return f"{statistics.median(seconds):.2f} ({min(seconds):.2f} to {max(seconds):.2f})"


if __name__ == "__main__":
    main()
