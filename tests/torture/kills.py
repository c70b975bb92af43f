"""kill -9 at random moments, then resume: at most one checkpoint interval is lost, and nothing tells in the end."""

from __future__ import annotations

import signal
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from random import Random

from tests.end_to_end.command import json_file, same_result
from tests.torture.runs import (
    INTERVAL,
    STEPS,
    Arena,
    Life,
    children,
    descendants,
    kill,
    last_step,
    saved_step,
    temporary_files,
    wait_until_gone,
)

Begin = Callable[[Arena, str, str, bool, Random], Life]
"""Begins a life of a variant in a folder, cold or forked, that will be hurt."""
Strike = Callable[[Life, Random, Counter[str]], bool]
"""Hurts a life at a random moment and sees it end; False where it ended before by itself. Counts what was hit."""

ORPHAN_SECONDS = 30.0
RANK_LOST_SECONDS = 60.0


def begin(arena: Arena, variant: str, root: str, cold: bool, random: Random) -> Life:
    """A life like any other."""
    return Life(arena, variant, root, cold=cold)


def play(
    arena: Arena, variant: str, line: str, case: int, n_hits: int, strike: Strike, begin: Begin = begin
) -> Counter[str]:
    """Hurt a run again and again, let it go on each time, and compare what becomes of it with the reference.

    A run that ends between two hits is compared, and the next one begins. One life in ten is a cold start.
    """
    random = Random(f"{line} {case}")
    reference = arena.reference(variant)
    tally: Counter[str] = Counter()
    left, root, lives = n_hits, 0, case
    while left:
        folder = f"{line}-{case:05d}-{root}"
        root += 1
        leftovers: set[Path] = set()
        while True:
            cold = lives % 10 == 9
            lives += 1
            life = begin(arena, variant, folder, cold, random) if left else Life(arena, variant, folder, cold=cold)
            if left and strike(life, random, tally):
                left -= 1
                tally["cold" if life.cold else "forked"] += 1
                leftovers = examine(life, leftovers)
                if life.run is not None and is_finished(life.run):
                    break
            else:
                code = life.wait()
                assert code == 0, f"exit code {code}\n{life.said()}"
                break
        assert life.run is not None
        assert not temporary_files(life.run), temporary_files(life.run)
        same_result(reference.run, life.run)
    return tally


def examine(life: Life, leftovers: set[Path]) -> set[Path]:
    """After a kill: LATEST is whole, at most one interval is lost, and nothing of the kill before is left over."""
    run = life.run
    seen, saved = last_step(run) or 0, saved_step(run)
    assert saved >= life.was_saved, f"LATEST went back from {life.was_saved} to {saved}"
    assert seen - saved <= INTERVAL, f"step {seen} was done, the checkpoint is of step {saved}"
    found = temporary_files(run)
    if seen > life.was_step or (run is not None and json_file(run / "state.json")["phase"] != "training"):
        assert not found & leftovers, f"left over from the life before: {found & leftovers}"
    return found


def is_finished(run: Path) -> bool:
    """Whether nothing is left to do; `lmexp resume` would say so."""
    state = json_file(run / "state.json")
    return bool((state["state"], state["phase"]) == ("done", "finished"))


def kill_one(life: Life, random: Random, tally: Counter[str]) -> bool:
    """kill -9 a run of one process."""
    if not life.sleep_until(life.moment(random.random())):
        return False
    life.process.kill()
    if life.process.wait() != -signal.SIGKILL:
        return False
    tally[life.phase()] += 1
    return True


TARGETS = ("parent", "torchrun", "rank 0", "rank 1", "all")


def kill_two(life: Life, random: Random, tally: Counter[str]) -> bool:
    """kill -9 one process of a run of two processes, or all; nobody is left behind."""
    target, fraction, at_once = random.choice(TARGETS), random.random(), random.random() < 0.5
    if not life.sleep_until(life.moment(fraction)):
        return False
    victim = find(life, "parent" if target == "all" else target)
    if victim is None:
        return False
    pids = [life.process.pid, *descendants(life.process.pid)]
    phase, seen = life.phase(), life.last_step() or 0
    for pid in pids if target == "all" else [victim]:
        kill(pid)
    if target in ("parent", "all"):
        life.process.wait()
        if not (target == "parent" and at_once):  # else the resume has to wait for them
            wait_until_gone(pids, ORPHAN_SECONDS)
            if target == "parent" and phase in ("training", "saving") and seen <= STEPS // 3:
                assert life.run is not None
                state = json_file(life.run / "state.json")
                assert (state["state"], state["step"]) == ("preempted", last_step(life.run)), (seen, state)
    else:
        started = time.monotonic()
        code = life.wait(RANK_LOST_SECONDS)
        wait_until_gone(pids, max(0.0, started + RANK_LOST_SECONDS - time.monotonic()))
        assert life.run is not None
        if code == 0:
            assert is_finished(life.run), life.said()
            return False
        state = json_file(life.run / "state.json")
        if target == "torchrun":
            ends = ((75, "preempted"), (75, "done"), (1, "failed"))  # done: but for its report
            assert (code, state["state"]) in ends, (code, state, life.said())
        else:
            assert (code, state["state"]) in ((1, "failed"), (1, "done")), (code, state, life.said())
        if code == 1:
            assert f"{target} was killed by SIGKILL (signal 9)" in life.said(), life.said()
            assert state["state"] == "done" or f"{target} was killed by SIGKILL (signal 9)" in state["message"], state
    tally[phase] += 1
    tally[target] += 1
    return True


def find(life: Life, target: str) -> int | None:
    """Process id of a target; waits until there is one, None where the life ends before."""
    while life.process.poll() is None:
        torchrun = children(life.process.pid)[:1]
        workers = children(torchrun[0]) if torchrun else []
        places = {"parent": [life.process.pid], "torchrun": torchrun, "rank 0": workers[:1], "rank 1": workers[1:2]}
        if places[target]:
            return places[target][0]
        time.sleep(0.002)
    return None
