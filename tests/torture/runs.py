"""Runs to kill: a few configurations, their uninterrupted references, and lives of them (one process after another)."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import time
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path

from lmexp.errors import CheckpointError
from lmexp.runs.folder import read_state
from lmexp.training import checkpoints
from tests.end_to_end.command import TINY, command, environment, same_result, write_corpus
from tests.torture import warm

STEPS = 30
INTERVAL = 4
TIMEOUT = 120.0
"""Seconds after which a life that should end is a hang."""

MEASURED = ("evaluation.perplexity.every_n_steps=3", "evaluation.perplexity.weights=ema", "trainer.ema_decay=0.9")
VARIANTS = {
    "plain": ("checkpoint.keep=last",),
    "accumulation": ("trainer.accumulate_grad_batches=2", "checkpoint.keep=best", *MEASURED),
    "bf16": ("trainer.precision=bf16-mixed", "checkpoint.keep=all"),
    "two": ("trainer.devices=2", "checkpoint.keep=last", *MEASURED),
}
"""Name -> overrides."""


@dataclass(kw_only=True, slots=True)
class Reference:
    """An uninterrupted run, made by the real command."""

    run: Path
    first_row: float
    """Seconds from the start of a forked life to its first row of metrics."""
    last_row: float
    end: float


@dataclass(slots=True)
class Arena:
    """A folder in which runs live."""

    folder: Path
    references: dict[str, Reference] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.folder.mkdir(parents=True, exist_ok=True)
        write_corpus(self.folder)

    def command(self, variant: str, root: str) -> list[str]:
        """The command that starts a run."""
        typed = (
            *TINY,
            f"trainer.max_steps={STEPS}",
            f"checkpoint.every_n_steps={INTERVAL}",
            "logger.log_every_n_steps=1",
            "model.dropout=0.1",
            "data.cache_dir=cache",
            *VARIANTS[variant],
            f"run.root={root}",
        )
        return command("train", *typed)

    def reference(self, variant: str) -> Reference:
        """The run that all others of the variant must equal, made by the real command.

        The first of one process, and of two, is made by a fork too, which must equal it and tells how long it takes.
        """
        if variant not in self.references:
            real = Life(self, variant, f"reference-{variant}", cold=True)
            assert real.wait() == 0, real.said()
            assert real.run is not None
            for other, known in self.references.items():
                if (other == "two") == (variant == "two"):
                    self.references[variant] = replace(known, run=real.run)
                    return self.references[variant]
            forked = Life(self, variant, f"forked-{variant}", cold=False)
            first = last = 0.0
            while forked.process.poll() is None:
                seen = forked.last_step()
                if seen is not None and not first:
                    first = forked.age()
                if seen == STEPS and not last:
                    last = forked.age()
                time.sleep(0.002)
            end = forked.age()
            assert forked.wait() == 0, forked.said()
            assert forked.run is not None
            same_result(real.run, forked.run)
            self.references[variant] = Reference(run=real.run, first_row=first, last_row=last, end=end)
        return self.references[variant]


class Life:
    """A process (with its children) that starts a run or goes on with it."""

    def __init__(
        self,
        arena: Arena,
        variant: str,
        root: str,
        *,
        cold: bool,
        held: bool = False,
        around: Callable[[list[str]], list[str]] | None = None,
    ) -> None:
        """cold: a new interpreter, not a fork. held: a fork that waits for SIGCONT. around: a command around it."""
        self.arena, self.variant, self.cold = arena, variant, cold
        self.root = arena.folder / root
        run = self.run
        self.goes_on = run is not None
        typed = command("resume", str(run)) if run is not None else arena.command(variant, root)
        self.was_step = self.last_step() or 0
        self.was_saved, self.was_size = saved_step(run), rows_size(run)
        self.said_path = self.root.with_name(f"{self.root.name}.said")
        kind = subprocess.Popen if cold else warm.Popen
        warm.Popen.held = held and not cold
        with open(self.said_path, "ab") as said:
            said.write(f"--- {' '.join(typed[1:4])} {'cold' if cold else 'forked'}\n".encode())
            said.flush()
            self.begins = said.tell()
            self.started = time.monotonic()
            self.process: subprocess.Popen[bytes] = kind(
                around(typed) if around is not None else typed,
                cwd=arena.folder,
                env=environment(OPENBLAS_NUM_THREADS="1", MKL_NUM_THREADS="1"),
                stdout=said,
                stderr=said,
                stdin=subprocess.DEVNULL,
                start_new_session=True,
            )

    @property
    def run(self) -> Path | None:
        """The run's folder; None before there is a run.json."""
        found = [path.parent for path in self.root.glob("*/*/run.json")]
        assert len(found) <= 1, found
        return found[0] if found else None

    def age(self) -> float:
        """Seconds since the start."""
        return time.monotonic() - self.started

    def said(self) -> str:
        """What this life wrote to its streams."""
        return self.said_path.read_bytes()[self.begins :].decode(errors="replace")

    def last_step(self) -> int | None:
        """The last optimizer step of which a whole row is in metrics.jsonl."""
        return last_step(self.run)

    def phase(self) -> str:
        """What the run is doing, as its files tell."""
        run = self.run
        if run is None:
            return "before run.json"
        state = read_state(run)
        if state.state == "done":
            return "end" if state.phase == "finished" else "report"
        if state.state != "running":  # what the life before left
            return "start"
        if state.phase == "evaluating":
            return "evaluation"
        if rows_size(run) == self.was_size:
            return "start"
        return "saving" if list((run / "checkpoints").glob(".*")) else "training"

    def moment(self, fraction: float) -> float:
        """Seconds after the start: a fraction of what this life will take."""
        reference = self.arena.reference(self.variant)
        training = (reference.last_row - reference.first_row) * (1 - self.was_step / STEPS)
        seconds = reference.first_row + training + reference.end - reference.last_row
        return fraction * seconds + (COLD_SECONDS if self.cold else 0) * (0.3 + 0.7 * fraction)

    def sleep_until(self, moment: float) -> bool:
        """Wait for the moment; whether the process is still alive then."""
        while (left := moment - self.age()) > 0:
            if self.process.poll() is not None:
                return False
            time.sleep(min(left, 0.01))
        return self.process.poll() is None

    def wait(self, timeout: float = TIMEOUT) -> int:
        """The exit code; a life that doesn't end in time fails, and is killed."""
        try:
            return self.process.wait(timeout)
        except subprocess.TimeoutExpired:
            alive = {pid: name(pid) for pid in [self.process.pid, *descendants(self.process.pid)]}
            for pid in alive:
                kill(pid)
            raise AssertionError(f"still alive after {timeout:g} s: {alive}\n{self.said()}") from None


COLD_SECONDS = 4.0
"""What an interpreter takes to import what a fork has imported already."""


def last_step(run: Path | None) -> int | None:
    """The last step of which a whole row is in metrics.jsonl."""
    if run is None or not (run / "metrics.jsonl").exists():
        return None
    lines = (run / "metrics.jsonl").read_bytes().split(b"\n")[:-1]
    return int(json.loads(lines[-1])["step"]) if lines else None


def rows_size(run: Path | None) -> int:
    """Bytes of metrics.jsonl, which changes from the moment on when a life goes on with the run."""
    path = None if run is None else run / "metrics.jsonl"
    return path.stat().st_size if path is not None and path.exists() else 0


def saved_step(run: Path | None) -> int:
    """The step of the checkpoint that LATEST names, which must be whole; 0 where there is none."""
    if run is None or not (run / "checkpoints" / checkpoints.LATEST).exists():
        return 0
    pointer = run / "checkpoints" / checkpoints.LATEST
    text = pointer.read_text(encoding="utf-8")
    try:
        named = pointer.with_name(text.strip())
        manifest = checkpoints.verify(named)
        assert checkpoints.load_weights(named)
        assert checkpoints.load_state(named)["global_step"] == manifest.step
    except (CheckpointError, OSError):
        if pointer.read_text(encoding="utf-8") != text:  # orphans go on until they have saved
            return saved_step(run)
        raise
    return manifest.step


def temporary_files(run: Path | None) -> set[Path]:
    """What a killed process left half written. A folder without run.json is no run, and nobody goes on with it."""
    return set(run.rglob(".*")) if run is not None else set()


def descendants(pid: int) -> list[int]:
    """Children, and theirs, oldest first."""
    found: list[int] = []
    for child in children(pid):
        found += [child, *descendants(child)]
    return found


def children(pid: int) -> list[int]:
    """Process ids of the children, oldest first."""
    found: list[int] = []
    for path in Path(f"/proc/{pid}/task").glob("*/children"):
        try:
            found += [int(word) for word in path.read_text().split()]
        except OSError:
            continue
    return sorted(found)


def is_alive(pid: int) -> bool:
    """Whether the process runs; one that only waits for its parent to take note of its end does not."""
    try:
        stat = Path(f"/proc/{pid}/stat").read_text()
    except OSError:
        return False
    return stat.rpartition(")")[2].split()[0] not in "ZX"


def name(pid: int) -> str:
    """Its command line."""
    try:
        return Path(f"/proc/{pid}/cmdline").read_text().replace("\0", " ")[-80:]
    except OSError:
        return "gone"


def kill(pid: int, number: int = signal.SIGKILL) -> None:
    """Send a signal, if the process is there."""
    try:
        os.kill(pid, number)
    except ProcessLookupError:
        return


def wait_until_gone(pids: list[int], seconds: float) -> float:
    """Seconds until none of the processes is alive; AssertionError where that takes longer than allowed."""
    started = time.monotonic()
    while alive := [pid for pid in pids if is_alive(pid)]:
        if time.monotonic() > started + seconds:
            named = {pid: name(pid) for pid in alive}
            for pid in alive:
                kill(pid)
            raise AssertionError(f"orphans {seconds:g} s after the kill: {named}")
        time.sleep(0.01)
    return time.monotonic() - started
