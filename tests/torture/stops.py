"""SIGTERM, SIGUSR1, SIGUSR2 or SIGINT to any process of a run at a random moment: it saves in time and leaves."""

from __future__ import annotations

import re
import signal
import time
from collections import Counter
from random import Random

from lmexp.errors import STOP_SIGNALS
from lmexp.runs.folder import read_state
from tests.torture.kills import find, is_finished
from tests.torture.runs import Life, descendants, kill, last_step, saved_step, wait_until_gone

GRACE_SECONDS = 30.0
"""What schedulers give at least between the first signal and kill -9."""


def stop_one(life: Life, random: Random, tally: Counter[str]) -> bool:
    """A signal to a run of one process."""
    return _stop(life, random, tally, "parent")


def stop_two(life: Life, random: Random, tally: Counter[str]) -> bool:
    """A signal to the parent, torchrun or one rank of a run of two processes."""
    return _stop(life, random, tally, random.choice(("parent", "torchrun", "rank 0", "rank 1")))


def _stop(life: Life, random: Random, tally: Counter[str], target: str) -> bool:
    number = random.choice(list(STOP_SIGNALS))
    if not life.sleep_until(life.moment(random.random())):
        return False
    victim = find(life, target)
    if victim is None:
        return False
    pids = [life.process.pid, *descendants(life.process.pid)]
    phase = life.phase()
    kill(victim, number)
    sent = time.monotonic()
    code = life.wait(GRACE_SECONDS)
    wait_until_gone(pids, max(0.0, sent + GRACE_SECONDS - time.monotonic()))
    told = f"{number.name} to {target} ({phase}): exit code {code}\n{life.said()}"
    run = life.run
    if code == 0:  # it came too late
        assert run is not None and is_finished(run), told
        return False
    if code == -number and phase in ("before run.json", "start"):  # Python itself was starting
        assert target == "parent", told
    else:
        wanted = {130} if number == signal.SIGINT else {75}
        if number == signal.SIGINT and target != "parent" and phase.startswith(("start", "before")):
            wanted = {75, 130}
        assert code in wanted, told
        if run is not None:
            state = read_state(run)
            allowed = {{75: "preempted", 130: "interrupted"}[code], "done"}
            if phase == "start":  # the state is still the one before
                allowed |= {"created", "preempted", "interrupted"}
            assert state.state in allowed, (told, state)
            said = life.said()
            if "run: " in said or (life.goes_on and said.strip()):  # else it hadn't begun
                assert re.search(rf"lmexp .*resume .*{run.name}", said), told
            if phase in ("training", "saving"):
                assert state.step in (None, saved_step(run)), (told, state)  # None: after the last step was saved
                assert saved_step(run) == last_step(run), (told, state)
    tally[phase] += 1
    tally[target] += 1
    tally[number.name] += 1
    return True
