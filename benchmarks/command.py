"""lmexp as a user runs it: the command, in a process and a folder of its own."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[1]

MICRO = (
    "data=text_files",
    f"data.path={ROOT / 'lmexp'}",
    "data.pattern=*.py",
    "data.split=tail",
    "data.batch_size=8",
    "data.sequence_length=32",
    "tokenizer=byte",
    "model=gpt_tiny",
    "model.n_layer=2",
    "model.n_head=2",
    "model.d_model=64",
    "evaluation=[]",
    "trainer.accelerator=cpu",
)
"""A model so small that all the rest shows, trained on lmexp's own source."""


def lmexp(cwd: Path, *overrides: str, plugins: tuple[str, ...] = (), **env: str) -> Path:
    """Run `lmexp train` on one thread in cwd, to its end and without anybody's W&B account; the run folder."""
    before = set(cwd.glob("outputs/*/*/run.json"))
    done = subprocess.run(
        [sys.executable, "-m", "lmexp", *(f"-p{name}" for name in plugins), "train", *overrides],
        cwd=cwd,
        env=environment(**env),
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    if done.returncode:
        raise SystemExit(f"lmexp train {' '.join(overrides)}\nexit code {done.returncode}\n{done.stdout}")
    (made,) = set(cwd.glob("outputs/*/*/run.json")) - before
    return made.parent


def step_seconds(run: Path, first_step: int = 0) -> list[float]:
    """What timings.jsonl says of each log interval that begins at first_step or later: seconds of a step."""
    lines = (run / "timings.jsonl").read_text(encoding="utf-8").splitlines()
    rows = [row for row in map(json.loads, lines) if "step_seconds" in row]
    befores = [0, *(row["step"] for row in rows)]
    return [row["step_seconds"] for before, row in zip(befores, rows, strict=False) if before >= first_step]


def environment(**more: str) -> dict[str, str]:
    """Ours, with lmexp importable and one thread, without settings of lmexp or W&B and without a login."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("WANDB_", "LMEXP_"))}
    return kept | {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1", "NETRC": os.devnull, "NO_COLOR": "1"} | more
