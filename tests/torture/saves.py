"""kill -9 at a system call of a run that writes: what it wrote before is whole, and the rest leaves no trace.

strace counts the calls of one name and kills at the N-th (https://man7.org/linux/man-pages/man1/strace.1.html). Which
of a life's calls concern its run folder is learnt from two lives that are only watched.
"""

from __future__ import annotations

import re
import shutil
import signal
import subprocess
import time
from collections import Counter, defaultdict
from pathlib import Path
from random import Random

from tests.torture.runs import STEPS, Arena, Life, is_alive, kill

CALLS = "fsync,fdatasync,rename,renameat,renameat2,openat,write,pwrite64,mkdir,mkdirat,unlink,unlinkat,rmdir,ftruncate"
"""What a process does to files."""
COLD_CALLS = ("fsync", "rename", "renameat", "unlink", "rmdir", "mkdir")
"""Those that Python doesn't make, or rarely, while it starts."""

CALL = re.compile(r"^(\d+)\s+(\w+)\((.*)$")

Ordinals = dict[str, list[int]]
"""Name of a call -> which of a process' calls of that name concern the run folder; 1 is the first."""


def strace() -> str | None:
    """Path of strace, where there is one that may trace."""
    found = shutil.which("strace")
    if found is None or subprocess.run([found, "-o", "/dev/null", "true"], capture_output=True).returncode != 0:
        return None
    return found


class Tracer:
    """Begins lives under strace, and kills them."""

    def __init__(self) -> None:
        found = strace()
        assert found is not None, "strace is missing, or may not trace: apt install strace"
        self.strace = found
        self._ordinals: dict[tuple[str, bool], Ordinals] = {}
        self._plan: tuple[str, int] = ("", 0)

    def begin(self, arena: Arena, variant: str, root: str, cold: bool, random: Random) -> Life:
        """A life that will be killed at a call chosen now: its kind first, so that the rare ones have their turn."""
        known = self._learn(arena, variant, fresh=not list((arena.folder / root).glob("*/*/run.json")))
        names = [name for name in known if not cold or name in COLD_CALLS]
        call = random.choice(sorted(names))
        self._plan = (call, random.choice(known[call]))
        if not cold:
            return Life(arena, variant, root, cold=False, held=True)
        return Life(arena, variant, root, cold=True, around=lambda typed: [*self._command(self._path(arena)), *typed])

    def strike(self, life: Life, random: Random, tally: Counter[str]) -> bool:
        """Let the life go until it is killed; False where it ended before."""
        call, output = self._plan[0], self._path(life.arena)
        if not life.cold:
            attach(self._command(output), life)
        code = life.wait()
        if code != -signal.SIGKILL:
            return False
        while is_alive(life.process.pid):
            time.sleep(0.001)
        killed_at = [line for line in output.read_text(errors="replace").splitlines() if f" {call}(" in line][-1]
        tally[call] += 1
        tally[what(killed_at)] += 1
        return True

    def _command(self, output: Path) -> list[str]:
        call, ordinal = self._plan
        kill_it = f"inject={call}:signal=SIGKILL:when={ordinal}"
        return [self.strace, "-f", "-q", "-y", "-s", "300", "-o", str(output), "-e", f"trace={call}", "-e", kill_it]

    def _path(self, arena: Arena) -> Path:
        return arena.folder / "strace.txt"

    def _learn(self, arena: Arena, variant: str, *, fresh: bool) -> Ordinals:
        """Watch a whole life, and one that goes on from the middle."""
        key = (variant, fresh)
        if key not in self._ordinals:
            root = f"watched-{variant}"
            if fresh:
                life = Life(arena, variant, root, cold=False, held=True)
            else:
                half = Life(arena, variant, f"{root}-half", cold=False)
                while (half.last_step() or 0) < STEPS // 3:
                    assert half.process.poll() is None, half.said()
                    time.sleep(0.005)
                half.process.kill()
                half.process.wait()
                life = Life(arena, variant, f"{root}-half", cold=False, held=True)
            output = arena.folder / f"{root}.strace"
            attach([self.strace, "-f", "-q", "-y", "-s", "300", "-o", str(output), "-e", f"trace={CALLS}"], life)
            assert life.wait() == 0, life.said()
            self._ordinals[key] = ordinals(output, life.root)
        return self._ordinals[key]


def attach(command: list[str], life: Life) -> None:
    """Have strace trace a held life, and let it go."""
    pid = life.process.pid
    status = Path(f"/proc/{pid}/status")
    deadline = time.monotonic() + 20
    while "State:\tT" not in status.read_text():
        assert time.monotonic() < deadline, "the life doesn't wait"
        time.sleep(0.002)
    tracer = subprocess.Popen([*command, "-p", str(pid)], stdin=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    while "TracerPid:\t0" in status.read_text():
        assert time.monotonic() < deadline and tracer.poll() is None, "strace doesn't attach"
        time.sleep(0.002)
    kill(pid, signal.SIGCONT)


def ordinals(trace: Path, root: Path) -> Ordinals:
    """Which calls of the main process concern files below root."""
    counts: Counter[tuple[str, str]] = Counter()
    found: Ordinals = defaultdict(list)
    for line in trace.read_text(errors="replace").splitlines():
        match = CALL.match(line)
        if match is None:
            continue
        process, call, rest = match.groups()
        counts[process, call] += 1
        if f"/{root.name}/" in rest:
            found[call].append(counts[process, call])
    return dict(found)


def what(line: str) -> str:
    """The kind of file that a traced call is about."""
    for word in (
        "LATEST",
        "BEST",
        "state.json",
        "run.json",
        "receipt.json",
        "metrics.jsonl",
        "timings.jsonl",
        "report",
    ):
        if word in line:
            return f"on {word}"
    for word, told in (("discarded", "rows"), ("/evaluation", "evaluation"), ("/logs", "logs"), ("/checkpoints", "")):
        if word in line:
            return f"on {told}" if told else "on a checkpoint"
    return "on another file"
