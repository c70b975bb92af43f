"""What a terminal shows of long work, such as preparing a corpus or evaluating: a bar with bytes or parts and ETA, or a
line now and then in a log."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import timedelta
from functools import partial
from typing import Any

from lmexp.data.progress import Progress, silent

SECONDS_BETWEEN_LINES = 10.0


def megabytes(done: int, total: int) -> str:
    """
    >>> megabytes(2_500_000, 5_000_000), parts(250, 5000)
    ('2.5 of 5.0 MB', '250 of 5,000')
    """
    return f"{done / 1e6:,.1f} of {total / 1e6:,.1f} MB"


def parts(done: int, total: int) -> str:
    """Batches, texts, figures: whatever the work consists of."""
    return f"{done:,} of {total:,}"


class Lines(Progress):
    """Each line as it comes, and how far the work is now and then."""

    def __init__(self, say: Callable[[str], None], amount: Callable[[int, int], str] = megabytes) -> None:
        """amount: how much is done of all, in words."""
        self._say = say
        self._amount = amount
        self._what = ""
        self._start_time = self._last_line = 0.0

    def say(self, line: str) -> None:
        self._say(line)

    def advance(self, what: str, done: int, total: int) -> None:
        now = time.monotonic()
        if what != self._what:
            self._what, self._start_time = what, now
            self._last_line = max(self._last_line, now - SECONDS_BETWEEN_LINES / 2)
        if done >= total or now - self._last_line < SECONDS_BETWEEN_LINES:
            return
        self._last_line = now
        seconds = (now - self._start_time) / done * (total - done) if done else 0.0
        eta = f"  ETA {timedelta(seconds=round(seconds))}" if seconds else ""
        self._say(f"{what}: {self._amount(done, total)}{eta}")


class Bar(Progress):
    """A rich progress bar for each work, below the lines."""

    def __init__(self, amount: Callable[[int, int], str] = megabytes) -> None:
        """amount: how much is done of all, in words. Bars of bytes stay when they are full, others go."""
        from rich.console import Console
        from rich.progress import BarColumn, DownloadColumn, MofNCompleteColumn, TextColumn, TimeRemainingColumn
        from rich.progress import Progress as RichProgress

        columns: list[Any] = [TextColumn("{task.description}"), BarColumn()]
        columns += [DownloadColumn() if amount is megabytes else MofNCompleteColumn()]
        columns += [TextColumn("ETA"), TimeRemainingColumn()]
        self._bar = RichProgress(*columns, console=Console(), refresh_per_second=4, transient=amount is not megabytes)
        self._tasks: dict[str, int] = {}

    def say(self, line: str) -> None:
        self._bar.console.print(line, highlight=False, markup=False, soft_wrap=True)

    def advance(self, what: str, done: int, total: int) -> None:
        if not self._tasks:
            self._bar.start()
        if what not in self._tasks:
            self._tasks[what] = self._bar.add_task(what.replace("[", r"\["), total=total)
        self._bar.update(self._tasks[what], completed=done, total=total)  # type: ignore[arg-type]

    def stop(self) -> None:
        """Leave the terminal as it was."""
        if self._tasks:
            self._bar.stop()


@contextmanager
def shown(say: Callable[[str], None]) -> Iterator[Progress]:
    """A bar where lines go to a terminal, lines elsewhere."""
    if say is not print or not sys.stdout.isatty():
        yield Lines(say)
        return
    bar = Bar()
    try:
        yield bar
    finally:
        bar.stop()


@contextmanager
def counted(*, first: bool = True) -> Iterator[Progress]:
    """The same of work in parts, on standard output; nothing on processes other than the first."""
    if not first:
        yield silent
    elif not sys.stdout.isatty():
        yield Lines(partial(print, flush=True), parts)
    else:
        bar = Bar(parts)
        try:
            yield bar
        finally:
            bar.stop()
