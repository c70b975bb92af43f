"""The fixed cost of an optimizer step: lmexp with logging on against a plain loop, on a micro model.

lmexp logs every 10 steps to its files and to W&B's offline files; it validates and saves at the last step only. The
plain loop has the same model and fused AdamW, sets the learning rate, clips the gradient, logs nothing, and takes its
batches from a list that was made before. A third side is pl.Trainer with that loop's parts and nothing else: what
Lightning costs by itself. Every run is a process of its own on one thread; the sides take turns. A step's time is the
mean over 10 steps, a run's the median of these, a side's the median of its runs. Wanted: lmexp takes at most 300
microseconds more than the plain loop.

    python -m benchmarks.step_overhead [--rounds 7] [--steps 3000] > benchmarks/results/step_overhead.md

Some 5 minutes with the defaults; run it on an otherwise idle machine. The exit code is 1 where the wanted is not
reached. OVERRIDES after -- go to lmexp, to see what a setting costs: -- logger=files trainer.deterministic=false
"""

from __future__ import annotations

import argparse
import itertools
import json
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

from benchmarks.command import MICRO, environment, lmexp, step_seconds
from benchmarks.machine import machine

LARGEST_OVERHEAD = 300e-6
BLOCK = 10
WARM_UP_STEPS = 200
SIDES = ("lmexp", "lightning", "plain")


def lmexp_run(steps: int, overrides: Sequence[str] = ()) -> list[float]:
    """Seconds of a step in each block of a run of the command."""
    with tempfile.TemporaryDirectory() as folder:
        run = lmexp(
            Path(folder),
            *MICRO,
            "logger=wandb",
            f"logger.log_every_n_steps={BLOCK}",
            f"trainer.max_steps={steps}",
            f"trainer.val_every_n_steps={steps}",
            f"checkpoint.every_n_steps={steps}",
            *overrides,
        )
        return step_seconds(run, first_step=WARM_UP_STEPS)


class Parts:
    """The same model, optimizer and size of batch as MICRO's, ready-made batches, no lmexp around them."""

    def __init__(self) -> None:
        import torch

        from lmexp.models.config import GPTConfig
        from lmexp.optim.config import AdamWConfig

        torch.manual_seed(0)
        self.model = GPTConfig(n_layer=2, n_head=2, d_model=64).build(vocab_size=257, sequence_length=32)
        self.optimizer = AdamWConfig().build(self.model.named_parameters())
        rows = torch.randint(257, (100, 8, 33))
        self.batches = [(tokens[:, :-1].contiguous(), tokens[:, 1:].contiguous()) for tokens in rows]


def plain_run(steps: int) -> list[float]:
    """Seconds of a step in each block of a loop in this process."""
    import torch
    import torch.nn.functional as F  # noqa: N812 - torch's own name for it

    parts = Parts()
    blocks = []
    started = time.perf_counter()
    for step in range(steps):
        for group in parts.optimizer.param_groups:
            group["lr"] = 1e-3 * min(1.0, (step + 1) / 100)
        tokens, targets = parts.batches[step % len(parts.batches)]
        loss = F.cross_entropy(parts.model(tokens).flatten(0, 1), targets.flatten())
        loss.backward()
        torch.nn.utils.clip_grad_norm_(parts.model.parameters(), 1.0)
        parts.optimizer.step()
        parts.optimizer.zero_grad(set_to_none=True)
        if (step + 1) % BLOCK == 0:
            now = time.perf_counter()
            blocks.append((now - started) / BLOCK)
            started = now
    return blocks[WARM_UP_STEPS // BLOCK :]


def lightning_run(steps: int) -> list[float]:
    """The same under pl.Trainer, which logs and saves nothing."""
    import logging
    import warnings

    import pytorch_lightning as pl
    import torch
    import torch.nn.functional as F  # noqa: N812 - torch's own name for it

    warnings.filterwarnings("ignore")
    logging.getLogger("pytorch_lightning").setLevel(logging.ERROR)
    parts = Parts()
    ends: list[float] = []

    class Module(pl.LightningModule):
        def __init__(self) -> None:
            super().__init__()
            self.model = parts.model

        def training_step(self, batch: tuple[torch.Tensor, torch.Tensor], batch_idx: int) -> torch.Tensor:
            if self.global_step % BLOCK == 0:
                ends.append(time.perf_counter())
            for group in parts.optimizer.param_groups:
                group["lr"] = 1e-3 * min(1.0, (self.global_step + 1) / 100)
            tokens, targets = batch
            return F.cross_entropy(self.model(tokens).flatten(0, 1), targets.flatten())

        def configure_optimizers(self) -> torch.optim.Optimizer:
            return parts.optimizer

    trainer = pl.Trainer(
        accelerator="cpu",
        max_steps=steps + 1,
        gradient_clip_val=1.0,
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
    )
    trainer.fit(Module(), itertools.cycle(parts.batches))  # a list would mean one loader each
    blocks = [(after - before) / BLOCK for before, after in itertools.pairwise(ends)]
    return blocks[WARM_UP_STEPS // BLOCK :]


def in_own_process(side: str, steps: int) -> list[float]:
    """plain_run or lightning_run in a fresh process, in the environment in which lmexp runs."""
    call = f"import json; from benchmarks.step_overhead import *; print(json.dumps({side}_run({steps})))"
    done = subprocess.run(
        [sys.executable, "-c", call], env=environment(), check=True, stdout=subprocess.PIPE, text=True
    )
    blocks: list[float] = json.loads(done.stdout.splitlines()[-1])
    return blocks


def report(medians: dict[str, list[float]], steps: int, overrides: Sequence[str]) -> tuple[str, bool]:
    """The result as Markdown, and whether it is as wanted."""
    plain = medians["plain"]
    lines = [
        "# The fixed cost of a step: lmexp with W&B every 10 steps, bare Lightning, and a plain loop",
        "",
        f"Microseconds; medians of {len(plain)} runs of {steps:,} steps each, taking turns"
        + (f"; lmexp with {' '.join(overrides)}." if overrides else "."),
        "",
        "| side | step | over the plain loop | ratio | runs |",
        "|---|---|---|---|---|",
    ]
    over = {}
    for side in SIDES:
        pairs = list(zip(medians[side], plain, strict=True))
        over[side] = statistics.median(a - b for a, b in pairs)
        ratio = statistics.median(a / b for a, b in pairs)
        runs = ", ".join(f"{seconds * 1e6:.0f}" for seconds in medians[side])
        median = statistics.median(medians[side]) * 1e6
        lines.append(f"| {side} | {median:.0f} | {over[side] * 1e6:+.0f} | {ratio:.3f} | {runs} |")
    reached = over["lmexp"] <= LARGEST_OVERHEAD
    lines += [
        "",
        f"Wanted: lmexp at most {LARGEST_OVERHEAD * 1e6:.0f} over the plain loop: "
        f"{'reached' if reached else 'not reached'}. Differences and ratios are medians over rounds.",
        "",
        machine(),
    ]
    return "\n".join(lines), reached


def main() -> int:
    """All sides in turns."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--steps", type=int, default=3000)
    parser.add_argument("overrides", nargs="*", help="further overrides of lmexp, after --")
    arguments = parser.parse_args()
    medians: dict[str, list[float]] = {side: [] for side in SIDES}
    for number in range(arguments.rounds):
        for side in SIDES if number % 2 else reversed(SIDES):
            if side == "lmexp":
                blocks = lmexp_run(arguments.steps, arguments.overrides)
            else:
                blocks = in_own_process(side, arguments.steps)
            medians[side].append(statistics.median(blocks))
        shown = ", ".join(f"{side} {medians[side][-1] * 1e6:.0f} us" for side in SIDES)
        print(f"round {number + 1}: {shown}", file=sys.stderr, flush=True)
    table, reached = report(medians, arguments.steps, arguments.overrides)
    print(table)
    return 0 if reached else 1


if __name__ == "__main__":
    sys.exit(main())
