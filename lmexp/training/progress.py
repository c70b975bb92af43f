"""What the terminal shows while training: a bar with loss, tokens/s and ETA, or lines where there is no terminal."""

from __future__ import annotations

import sys
import time
from datetime import timedelta

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeRemainingColumn
from rich.progress import Progress as RichProgress

SECONDS_BETWEEN_LINES = 5.0
SECONDS_BUSY = 10.0
"""Between lines about anything else than training, and before the first."""


class Progress:
    """Shows nothing: processes other than the first."""

    def start(self, step: int, total_steps: int | None) -> None:
        """Training starts, or goes on, at this optimizer step."""

    def step(self, step: int, values: dict[str, float]) -> None:
        """A log point."""

    def busy(self, what: str, step: int, done: int, total: int) -> None:
        """Something else than training takes place at this step: a validation, an evaluation."""

    def validated(self, step: int, figures: dict[str, float]) -> None:
        """A validation is done."""

    def stop(self) -> None:
        """Training ends."""


class Bar(Progress):
    """A rich progress bar."""

    def __init__(self, console: Console) -> None:
        self._console = console
        self._bar = RichProgress(
            TextColumn("{task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            TextColumn("{task.fields[loss]}  {task.fields[speed]}  ETA"),
            TimeRemainingColumn(),
            console=console,
            refresh_per_second=4,
        )

    def start(self, step: int, total_steps: int | None) -> None:
        self._task = self._bar.add_task("training", total=total_steps, completed=step, loss="", speed="")
        self._bar.start()

    def step(self, step: int, values: dict[str, float]) -> None:
        self._bar.update(self._task, description="training", completed=step, loss=_loss(values), speed=_speed(values))

    def busy(self, what: str, step: int, done: int, total: int) -> None:
        share = f" {min(done / total, 1):.0%}" if total else ""
        self._bar.update(self._task, description="training" if done >= total else f"{what}{share}", completed=step)

    def validated(self, step: int, figures: dict[str, float]) -> None:
        self._bar.console.print(_validated(step, figures), highlight=False)

    def stop(self) -> None:
        self._bar.stop()


class Lines(Progress):
    """A line now and then, for logs."""

    def __init__(self) -> None:
        self._total: int | None = None
        self._started_at = 0
        self._start_time = 0.0
        self._last_line = 0.0
        self._busy_with = ("", -1)
        self._busy_since = self._busy_line = 0.0

    def start(self, step: int, total_steps: int | None) -> None:
        self._total, self._started_at = total_steps, step
        self._start_time = time.monotonic()

    def step(self, step: int, values: dict[str, float]) -> None:
        now = time.monotonic()
        if now - self._last_line < SECONDS_BETWEEN_LINES and step != self._total:
            return
        self._last_line = now
        of = f"/{self._total}" if self._total is not None else ""
        parts = [f"step {step}{of}", _loss(values), _speed(values), self._eta(step, now)]
        print("  ".join(part for part in parts if part), flush=True)

    def busy(self, what: str, step: int, done: int, total: int) -> None:
        now = time.monotonic()
        if self._busy_with != (what, step):
            self._busy_with, self._busy_since, self._busy_line = (what, step), now, now
        if done >= total or now - self._busy_line < SECONDS_BUSY:
            return
        self._busy_line = now
        left = f"  ETA {timedelta(seconds=round((now - self._busy_since) / done * (total - done)))}" if done else ""
        print(f"step {step}  {what}: {done:,} of {total:,}{left}", flush=True)

    def validated(self, step: int, figures: dict[str, float]) -> None:
        print(_validated(step, figures), flush=True)

    def _eta(self, step: int, now: float) -> str:
        if self._total is None or step <= self._started_at or step >= self._total:
            return ""
        seconds = (now - self._start_time) / (step - self._started_at) * (self._total - step)
        return f"ETA {timedelta(seconds=round(seconds))}"


def choose(rank: int) -> Progress:
    """A bar on a terminal, lines elsewhere, nothing on other ranks than 0."""
    if rank != 0:
        return Progress()
    return Bar(Console()) if sys.stdout.isatty() else Lines()


def _loss(values: dict[str, float]) -> str:
    return f"loss {values['train/loss']:.4f}" if "train/loss" in values else ""


def _speed(values: dict[str, float]) -> str:
    if "tokens_per_second" in values:
        return f"{values['tokens_per_second']:,.0f} tokens/s"
    return f"{1 / values['step_seconds']:,.1f} steps/s" if values.get("step_seconds") else ""


def _validated(step: int, figures: dict[str, float]) -> str:
    shown = "  ".join(f"{name.removeprefix('validation/')} {value:.4f}" for name, value in figures.items())
    return f"step {step}  validation  {shown}"
